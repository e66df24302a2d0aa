"""Compares what the C samples printed on a board with the same computed here, in f64, from the model's file: `board` calls it with the
model and the folder of outputs."""

import json
import math
import struct
import sys
from pathlib import Path


def weights(path):
    """The tensors of a safetensors file of f32: name → (shape, numbers)."""
    data = path.read_bytes()
    size = struct.unpack_from("<Q", data)[0]
    found = {}
    for name, tensor in json.loads(data[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = tensor["data_offsets"]
            found[name] = tensor["shape"], struct.unpack_from(f"<{(end - begin) // 4}f", data, 8 + size + begin)
    return found


def linear(x, tensors, layer):
    (rows, columns), w = tensors[f"layers.{layer}.weight"]
    bias = tensors[f"layers.{layer}.bias"][1]
    return [bias[r] + sum(x[c] * w[r * columns + c] for c in range(columns)) for r in range(rows)]


def softmax(x):
    powers = [math.exp(v - max(x)) for v in x]
    return [p / sum(powers) for p in powers]


def probabilities(tensors, pixels):
    return softmax(linear([max(v, 0.0) for v in linear(pixels, tensors, 0)], tensors, 1))


def close(what, came, wanted, tolerance=1e-5):
    if len(came) != len(wanted) or any(abs(a - b) > tolerance * max(1.0, abs(b)) for a, b in zip(came, wanted)):
        raise SystemExit(f"{what}: wanted {wanted}, got {came}")
    print(f"  {what}: as computed here in f64, within {tolerance}")


def main():
    tensors, place = weights(Path(sys.argv[1])), Path(sys.argv[2])
    digit = [int(n) for n in (place / "digits.csv").read_text().splitlines()[0].split(",")]
    came = [float(line.split()[1]) for line in (place / "quickstart.txt").read_text().splitlines()]
    close("quickstart: the probabilities of the first digit", came, probabilities(tensors, [n / 16 for n in digit[:64]]))

    # the artifact's sample: four digits of a pattern, labels 0 to 3, the mean of -log p
    pixels = [(i * 7 % 17) / 16 for i in range(4 * 64)]
    loss = sum(-math.log(probabilities(tensors, pixels[64 * i : 64 * i + 64])[i]) for i in range(4)) / 4
    lines = (place / "artifact.txt").read_text().splitlines()
    if len(lines) != 4 or lines[0] != "compiled" or lines[2] != "loaded":
        raise SystemExit(f"artifact: wanted a loss compiled and one loaded, got {lines}")
    close("artifact: the loss, compiled and loaded", [float(lines[i].split()[1]) for i in (1, 3)], [loss, loss])

    lines = (place / "finetune.txt").read_text().splitlines()
    losses = [float(line.split()[-1]) for line in lines[:2]]
    right = int(lines[-1].split()[0])
    if not (losses[1] < losses[0] and right > 100):
        raise SystemExit(f"finetune: wanted a loss that falls and over 100 of 128 digits right, got {lines}")
    adapted = weights(place / "adapted.safetensors")
    digits = [[int(n) for n in line.split(",")] for line in (place / "digits.csv").read_text().splitlines()[:128]]
    ours = 0
    for digit in digits:
        p = probabilities(adapted, [n / 16 for n in digit[:64]])
        ours += p.index(max(p)) == digit[64]
    if ours != right:
        raise SystemExit(f"finetune: wanted {ours} of 128 digits right by the saved weights, got {right}")
    print(f"  finetune: loss {losses[0]} to {losses[1]}, {right} of 128 right, as the saved weights say here")


main()
