"""Records the logits of the tiny Llama of llama_tiny.py under every scaling of its rotary embedding that Weft computes, as
configurations say it today and as older ones do: `python llama_rope.py`, after llama_tiny.py. No model is downloaded."""
import json, os
import torch, transformers
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

here = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)
config = json.load(open(os.path.join(here, "llama_tiny.json")))
tensors = load_file(os.path.join(here, "llama_tiny.safetensors"))
config.pop("model_type")

LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
CASES = {
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.5}},
    "linear, today": {"rope_theta": None, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
    "llama3": {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "llama3, today": {"rope_theta": None, "rope_parameters": {"rope_type": "llama3", "rope_theta": 50.0, **LLAMA3}},
    "llama3, by type": {"rope_theta": None, "rope_parameters": {"type": "llama3", "rope_theta": 300.0, **LLAMA3}},
    "llama3, length outside": {
        "original_max_position_embeddings": 24, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "yarn, all options": {"rope_parameters": {
        "rope_type": "yarn", "factor": 8.0, "rope_theta": 200.0, "original_max_position_embeddings": 32, "beta_fast": 4.0,
        "beta_slow": 0.5, "mscale": 1.5, "mscale_all_dim": 0.5, "truncate": False}},
    "yarn, attention_factor": {"rope_parameters": {
        "rope_type": "yarn", "factor": 2.0, "rope_theta": 5000.0, "attention_factor": 0.75}},
}

results = {}
for name, change in CASES.items():
    given = {k: v for k, v in {**config, **change}.items() if v is not None}
    if "rope_parameters" in given:
        given.pop("rope_theta", None)
    model = LlamaForCausalLM(LlamaConfig(attn_implementation="eager", use_cache=False, **given)).double().eval()
    with torch.no_grad():
        for parameter, p in model.named_parameters():
            p.copy_(tensors[parameter].double())
        logits = model(input_ids=tensors["ids"].long()).logits
    results[name] = {"config": change, "last": [[float(f"{v:.8e}") for v in row] for row in logits[:, -1].tolist()]}

with open(os.path.join(here, "llama_rope.json"), "w") as out:
    out.write("{\n" + ",\n".join(f" {json.dumps(k)}: {json.dumps(v)}" for k, v in results.items()) + "\n}\n")
print("torch", torch.__version__, "transformers", transformers.__version__)
