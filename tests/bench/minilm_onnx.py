"""Writes MiniLM (any BERT encoder folder) as ONNX: the graph the usual exporters produce, so that ONNX Runtime's own
fusions recognise it. Two files: the plain graph, and the one onnxruntime.transformers.optimizer makes of it.

Inputs input_ids, attention_mask, token_type_ids: i64 [batch, seq], both dynamic. Output last_hidden_state: f32
[batch, seq, hidden]. Pooling is left out, as exporters leave it out.
"""
import argparse
import json
import os
import struct

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def read_safetensors(path):
    """Name → array. The weights here are f32 and i64 only."""
    raw = np.memmap(path, mode="r")
    size = struct.unpack("<Q", raw[:8].tobytes())[0]
    header = json.loads(raw[8:8 + size].tobytes())
    header.pop("__metadata__", None)
    kinds = {"F32": "<f4", "I64": "<i8"}
    return {
        name: np.frombuffer(raw[8 + size + at["data_offsets"][0]:8 + size + at["data_offsets"][1]].tobytes(),
                            kinds[at["dtype"]]).reshape(at["shape"])
        for name, at in header.items()
    }


class Exporter:
    def __init__(self, weights, config):
        self.weights, self.config, self.nodes, self.stored = weights, config, [], {}

    def store(self, name, array):
        self.stored[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def op(self, kind, *inputs, **attributes):
        out = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=f"{kind}_{len(self.nodes)}", **attributes))
        return out

    def scalar(self, value):
        return self.store(f"scalar_{value:g}", np.float32(value))

    def ints(self, *values):
        return self.store("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def linear(self, x, name):
        """x·Wᵀ + b, the weight transposed beforehand and the bias first in the Add, as PyTorch's exporter writes it."""
        weight = self.store(name + ".weight_t", self.weights[name + ".weight"].T)
        return self.op("Add", self.store(name + ".bias", self.weights[name + ".bias"]), self.op("MatMul", x, weight))

    def norm(self, x, name):
        scale, bias = (self.store(f"{name}.{part}", self.weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=self.config["layer_norm_eps"])

    def gelu(self, x):
        """x · (1 + erf(x / √2)) · ½"""
        erf = self.op("Erf", self.op("Div", x, self.scalar(2.0 ** 0.5)))
        return self.op("Mul", self.op("Mul", x, self.op("Add", erf, self.scalar(1.0))), self.scalar(0.5))

    def embeddings(self):
        at = "embeddings."
        table = lambda name: self.store(at + name, self.weights[f"{at}{name}.weight"])
        length = self.op("Unsqueeze", self.op("Gather", self.op("Shape", "input_ids"), self.store("one", np.int64(1)),
                                              axis=0), self.ints(0))
        every = self.store("position_ids", np.arange(self.config["max_position_embeddings"], dtype=np.int64)[None])
        positions = self.op("Slice", every, self.ints(0), length, self.ints(1))
        words = self.op("Gather", table("word_embeddings"), "input_ids")
        kinds = self.op("Gather", table("token_type_embeddings"), "token_type_ids")
        places = self.op("Gather", table("position_embeddings"), positions)
        return self.norm(self.op("Add", self.op("Add", words, kinds), places), at + "LayerNorm")

    def mask(self):
        """0 where a token is, the lowest f32 where padding is: [batch, 1, 1, seq]."""
        mask = self.op("Unsqueeze", self.op("Unsqueeze", "attention_mask", self.ints(1)), self.ints(2))
        kept = self.op("Cast", mask, to=TensorProto.FLOAT)
        return self.op("Mul", self.op("Sub", self.scalar(1.0), kept), self.scalar(np.finfo(np.float32).min))

    def attention(self, x, mask, at):
        heads, hidden = self.config["num_attention_heads"], self.config["hidden_size"]
        split = self.ints(0, 0, heads, hidden // heads)
        part = lambda name, order: self.op(
            "Transpose", self.op("Reshape", self.linear(x, f"{at}self.{name}"), split), perm=order)
        query, key, value = part("query", [0, 2, 1, 3]), part("key", [0, 2, 3, 1]), part("value", [0, 2, 1, 3])
        scores = self.op("Div", self.op("MatMul", query, key), self.scalar((hidden // heads) ** 0.5))
        share = self.op("Softmax", self.op("Add", scores, mask), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", share, value), perm=[0, 2, 1, 3])
        joined = self.op("Reshape", mixed, self.ints(0, 0, hidden))
        return self.norm(self.op("Add", self.linear(joined, at + "output.dense"), x), at + "output.LayerNorm")

    def model(self):
        mask, x = self.mask(), self.embeddings()
        for layer in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{layer}."
            x = self.attention(x, mask, at + "attention.")
            wide = self.gelu(self.linear(x, at + "intermediate.dense"))
            x = self.norm(self.op("Add", self.linear(wide, at + "output.dense"), x), at + "output.LayerNorm")
        self.nodes[-1].output[0] = "last_hidden_state"
        tokens = [helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "seq"])
                  for name in ("input_ids", "attention_mask", "token_type_ids")]
        result = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT,
                                               ["batch", "seq", self.config["hidden_size"]])
        graph = helper.make_graph(self.nodes, "bert", tokens, [result], list(self.stored.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def fused(plain, config):
    """What ONNX Runtime's own transformer optimizer makes of the plain file, and how much it fused."""
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions
    made = optimizer.optimize_model(plain, model_type="bert", num_heads=config["num_attention_heads"],
                                    hidden_size=config["hidden_size"], opt_level=0, use_gpu=False,
                                    optimization_options=FusionOptions("bert"))
    counts = made.get_fused_operator_statistics()
    return made, {name: count for name, count in counts.items() if count}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--plain", required=True, help="where to write the plain graph")
    parser.add_argument("--fused", required=True, help="where to write the fused graph")
    args = parser.parse_args()
    with open(os.path.join(args.model, "config.json")) as file:
        config = json.load(file)
    if config["hidden_act"] != "gelu" or config.get("position_embedding_type", "absolute") != "absolute":
        raise SystemExit("minilm_onnx: only BERT with erf GELU and absolute positions is written here")
    weights = read_safetensors(os.path.join(args.model, "model.safetensors"))
    for path, make in ((args.plain, lambda to: onnx.save(Exporter(weights, config).model(), to)),
                       (args.fused, lambda to: write_fused(args.plain, config, to))):
        make(path + ".part")
        os.replace(path + ".part", path)


def write_fused(plain, config, to):
    made, counts = fused(plain, config)
    layers = config["num_hidden_layers"]
    wanted = {"Attention": layers, "BiasGelu": layers, "SkipLayerNormalization": 2 * layers, "EmbedLayerNormalization": 1}
    print("fused by onnxruntime.transformers:", json.dumps(counts), flush=True)
    missing = {name: (count, counts.get(name, 0)) for name, count in wanted.items() if counts.get(name, 0) < count}
    if missing:
        print("not all fused (wanted, got):", missing, flush=True)
    made.save_model_to_file(to)


if __name__ == "__main__":
    main()
