"""ONNX Runtime's side of the benchmark. One JSON object a line.

--sizes times forwards in one session; --verify compares embeddings with the recorded ones; --startup and --memory are
for a fresh process each. Imports are not counted in any time. Threads: intra_op as told, inter_op 1, spinning as
ONNX Runtime ships it (on).
"""
import argparse
import json
import statistics
import sys
import time

import numpy as np
import onnxruntime

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def open_session(args):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])


def feed(ids):
    return dict(zip(INPUTS, (ids, np.ones_like(ids), np.zeros_like(ids))))


def tokens(batch, seq):
    """[CLS] varied ids [SEP], the same for every peer: see candle/src/main.rs."""
    ids = np.array([[1000 + (b * 104729 + s * 7919) % 28000 for s in range(seq)] for b in range(batch)], np.int64)
    ids[:, 0], ids[:, -1] = 101, 102
    return ids


def bench(session, case, args):
    batch, seq = map(int, case.split("x"))
    inputs = feed(tokens(batch, seq))
    for _ in range(3):
        session.run(None, inputs)
    times, begun = [], time.perf_counter()
    while len(times) < 20 or time.perf_counter() - begun < args.seconds:
        start = time.perf_counter()
        session.run(None, inputs)
        times.append((time.perf_counter() - start) * 1e3)
    say(args, case=case, median_ms=statistics.median(times), min_ms=min(times), runs=len(times))


def verify(session, args):
    """The recorded sentences, one by one and all in one padded batch: mean over the mask, then unit length."""
    with open(args.verify) as file:
        items = json.load(file)["items"]
    longest = max(len(item["token_ids"]) for item in items)
    ids = np.array([item["token_ids"] + [0] * (longest - len(item["token_ids"])) for item in items], np.int64)
    mask = (np.arange(longest) < np.array([[len(item["token_ids"])] for item in items])).astype(np.int64)
    wanted = np.array([item["embedding"] for item in items])

    def embed(ids, mask):
        hidden = session.run(None, dict(zip(INPUTS, (ids, mask, np.zeros_like(ids)))))[0].astype(np.float64)
        pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
        return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)

    singles = np.concatenate([embed(row[None, :m.sum()], np.ones((1, m.sum()), np.int64)) for row, m in zip(ids, mask)])
    error = max(np.abs(singles - wanted).max(), np.abs(embed(ids, mask) - wanted).max())
    say(args, case="verify", max_error=float(error), ok=bool(error <= 1e-5))
    return error <= 1e-5


def startup(args):
    batch, seq = map(int, args.startup.split("x"))
    inputs = feed(tokens(batch, seq))
    start = time.perf_counter()
    session = open_session(args)
    opened = time.perf_counter()
    session.run(None, inputs)
    ran = time.perf_counter()
    row = {"session_ms": (opened - start) * 1e3, "first_run_ms": (ran - opened) * 1e3,
           "session_and_first_run_ms": (ran - start) * 1e3}
    if args.tokenizer:
        import tokenizers
        start = time.perf_counter()
        tokenizers.Tokenizer.from_file(args.tokenizer)
        row["tokenizer_ms"] = (time.perf_counter() - start) * 1e3
    say(args, case=args.startup, **row)


def memory(args):
    batch, seq = map(int, args.memory.split("x"))
    open_session(args).run(None, feed(tokens(batch, seq)))
    with open("/proc/self/status") as file:
        peak = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
    say(args, case=args.memory, peak_memory_bytes=peak)


def say(args, **row):
    print(json.dumps({"peer": args.peer, **row}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True, help="ONNX file")
    parser.add_argument("--peer", default="ort", help="the name in the rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="repeat each case for at least so long (and 20 runs)")
    parser.add_argument("--sizes", help="cases to time: BATCHxTOKENS,…")
    parser.add_argument("--verify", metavar="JSON", help="the recorded embeddings to compare with")
    parser.add_argument("--startup", metavar="BATCHxTOKENS", help="time session creation and first run; fresh process")
    parser.add_argument("--tokenizer", help="with --startup: also time loading this tokenizer.json")
    parser.add_argument("--memory", metavar="BATCHxTOKENS", help="peak memory of this process after one run")
    args = parser.parse_args()
    if args.startup:
        return startup(args)
    if args.memory:
        return memory(args)
    session = open_session(args)
    if args.verify and not verify(session, args):
        sys.exit(1)
    for case in args.sizes.split(",") if args.sizes else []:
        bench(session, case, args)


if __name__ == "__main__":
    main()
