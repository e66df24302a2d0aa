"""Records parameters after 1 and 20 steps of optimizers, in f64: torch.optim's SGD, Adam, AdamW and Adafactor, and the formulas
of the authors of LaProp (arXiv:2002.04839 and their laprop.py) and Lion (arXiv:2302.06675, algorithm 2) in NumPy.

    pip install torch==2.15.0 numpy safetensors
    python tests/golden/optimizers.py        # writes optimizers.safetensors beside itself

Parameters and gradients are numbers that core/tests/optimizers makes by the same formula. Settings are rounded to f32, as the
engine has them. Tensors are named OPTIMIZER/STEP/PARAMETER.
"""

import pathlib

import numpy as np
import torch
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
SHAPES = {
    "scalar": (), "one": (1,), "seven": (7,), "matrix": (33, 5), "thousand": (1003,), "cube": (3, 4, 5),
    "column": (130, 1), "row": (1, 6), "kernels": (2, 3, 3, 2),
}


def number(tensor, step, shape):
    """Numbers in -1 to 1, of 24 bits."""
    i = np.arange(int(np.prod(shape)), dtype=np.uint32)
    with np.errstate(over="ignore"):
        x = np.uint32(tensor) * np.uint32(0x9E3779B1) ^ np.uint32(step) * np.uint32(0x85EBCA77) ^ i * np.uint32(0xC2B2AE3D)
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
        x = (x ^ (x >> np.uint32(12))) * np.uint32(0x297A2D39)
        x = x ^ (x >> np.uint32(15))
    return ((x >> np.uint32(8)).astype(np.float64) / 8388608.0 - 1.0).reshape(shape)


def gradient(tensor, step, shape):
    n = int(np.prod(shape))
    return number(tensor, step, shape) / np.exp2(np.arange(n) % 7).reshape(shape)


def f(v):
    """A setting as the engine has it."""
    return float(np.float32(v))


class LaProp:
    def __init__(self, lr, betas, eps, decay):
        self.lr, self.betas, self.eps, self.decay, self.t = lr, betas, eps, decay, 0

    def step(self, p, g):
        if self.t == 0:
            self.m, self.v = [np.zeros_like(x) for x in p], [np.zeros_like(x) for x in p]
        self.t += 1
        b1, b2 = self.betas
        for i in range(len(p)):
            self.v[i] = b2 * self.v[i] + (1 - b2) * g[i] ** 2
            u = g[i] / (np.sqrt(self.v[i] / (1 - b2**self.t)) + self.eps)
            self.m[i] = b1 * self.m[i] + (1 - b1) * self.lr * u
            p[i] = p[i] - self.m[i] / (1 - b1**self.t)
            p[i] = p[i] - self.decay * p[i]


class Lion:
    def __init__(self, lr, betas, decay):
        self.lr, self.betas, self.decay, self.m = lr, betas, decay, None

    def step(self, p, g):
        self.m = self.m or [np.zeros_like(x) for x in p]
        b1, b2 = self.betas
        for i in range(len(p)):
            update = np.sign(b1 * self.m[i] + (1 - b1) * g[i])
            p[i] = p[i] - self.lr * (update + self.decay * p[i])
            self.m[i] = b2 * self.m[i] + (1 - b2) * g[i]


betas = (f(0.9), f(0.999))
eps = f(np.finfo(np.float32).eps)
torch_optimizers = {
    "sgd": lambda p: torch.optim.SGD(p, lr=f(0.1)),
    "sgd_decay": lambda p: torch.optim.SGD(p, lr=f(0.1), weight_decay=f(0.1)),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=f(0.1), momentum=f(0.9)),
    "sgd_nesterov": lambda p: torch.optim.SGD(p, lr=f(0.1), momentum=f(0.9), nesterov=True, weight_decay=f(0.01)),
    "adam": lambda p: torch.optim.Adam(p, lr=f(0.01), betas=betas, eps=f(1e-8)),
    "adam_decay": lambda p: torch.optim.Adam(p, lr=f(0.01), betas=(f(0.9), f(0.99)), eps=f(1e-8), weight_decay=f(0.1)),
    "adamw": lambda p: torch.optim.AdamW(p, lr=f(0.01), betas=betas, eps=f(1e-8), weight_decay=f(0.1)),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=f(0.05), beta2_decay=f(-0.8), eps=(eps, f(1e-3))),
    "adafactor_decay": lambda p: torch.optim.Adafactor(
        p, lr=f(0.05), beta2_decay=f(-0.7), eps=(eps, f(0.7)), d=1.0, weight_decay=f(0.1)
    ),
}
numpy_optimizers = {
    "laprop": lambda: LaProp(f(0.01), betas, f(1e-15), 0.0),
    "laprop_decay": lambda: LaProp(f(0.01), betas, f(1e-15), f(0.003)),
    "lion": lambda: Lion(f(0.01), (f(0.9), f(0.99)), f(0.1)),
}

tensors = {}
start = [number(t, 0, shape) for t, shape in enumerate(SHAPES.values())]


def keep(name, step, values):
    if step in (1, 20):
        for tensor, value in zip(SHAPES, values):
            tensors[f"{name}/{step}/{tensor}"] = np.asarray(value, dtype=np.float32)


for name, make in torch_optimizers.items():
    p = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in start]
    optimizer = make(p)
    for step in range(1, 21):
        for t, x in enumerate(p):
            x.grad = torch.tensor(gradient(t, step, tuple(x.shape)), dtype=torch.float64)
        optimizer.step()
        keep(name, step, [x.detach().numpy() for x in p])
for name, make in numpy_optimizers.items():
    p, optimizer = [v.copy() for v in start], make()
    for step in range(1, 21):
        optimizer.step(p, [gradient(t, step, v.shape) for t, v in enumerate(p)])
        keep(name, step, p)

save_file(tensors, HERE / "optimizers.safetensors", metadata={"made_by": "tests/golden/optimizers.py"})
print(len(tensors), "tensors")
