"""Records three training steps of PyTorch's BatchNorm2d in f64: inputs, results, the running mean and variance after each step, and an
evaluation at the end: `python running_statistics.py`."""
import json, os
import torch

torch.manual_seed(3)
torch.set_default_dtype(torch.float64)
norm = torch.nn.BatchNorm2d(3, eps=1e-3, momentum=0.1)
with torch.no_grad():
    norm.weight.copy_(torch.tensor([0.5, -1.25, 2.0]))
    norm.bias.copy_(torch.tensor([0.25, 0.0, -1.5]))
flat = lambda t: [float(v) for v in t.detach().flatten()]
steps = []
for i in range(3):
    # a mean far from 0, channels of different spreads; what f32 holds
    x = (torch.randn(4, 3, 5, 2) * torch.tensor([0.3, 1.0, 7.0])[:, None, None] + 2.5 + i).float().double()
    y = norm(x)
    steps.append({"x": flat(x), "y": flat(y), "running_mean": flat(norm.running_mean), "running_var": flat(norm.running_var),
                  "num_batches_tracked": int(norm.num_batches_tracked)})
norm.eval()
evaluated = {"x": steps[0]["x"], "y": flat(norm(torch.tensor(steps[0]["x"]).reshape(4, 3, 5, 2)))}
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "running_statistics.json"), "w") as file:
    json.dump({"torch": torch.__version__, "shape": [4, 3, 5, 2], "eps": 1e-3, "momentum": 0.1, "scale": flat(norm.weight),
               "bias": flat(norm.bias), "steps": steps, "evaluated": evaluated}, file)
    file.write("\n")
