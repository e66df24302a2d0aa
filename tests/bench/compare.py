"""Runs the peers turn by turn and writes the comparison: Markdown to standard output, every figure to a JSON file.

Called by `run`, which builds what this needs. Standard library only, and small: a child's peak memory as the kernel
reports it cannot be less than its parent's at the fork.
"""
import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict

CASES = ["1x16", "1x128", "8x128"]
BATCHES = ["1x64", "2x64", "4x64", "8x64", "16x64"]
STARTUP, MEMORY = "1x16", "1x128"
ORT = ("ort-plain", "ort-fused")
TOLERANCE = 1e-5


class Failed(Exception):
    pass


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def child(command, **environment):
    """Runs a command to its end: what it printed, its wall time, and its peak memory as wait4 reports it."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdout=out, stderr=err, env={**os.environ, **environment})
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror}") from None
        _, status, usage = os.wait4(process.pid, 0)
        wall = (time.perf_counter() - start) * 1e3
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        if process.returncode:
            lines = err.read().strip().splitlines() or ["it said nothing"]
            raise Failed(f"{' '.join(command)}: exit status {process.returncode}: {lines[-1]}")
        rss = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return out.read(), wall, rss


def rows(text, command):
    try:
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except ValueError:
        raise Failed(f"{' '.join(command)}: wanted JSON, got {text.strip()[:120]!r}") from None


class Peer:
    """A program that knows --sizes, --verify, --startup, --memory: ort_peer.py and candle-peer."""

    def __init__(self, name, command, args, startup=()):
        self.name, self.command, self.args, self.startup_extra = name, command, args, list(startup)

    def run(self, *more):
        command = [*self.command, *more]
        text, _, rss = child(command, RAYON_NUM_THREADS=str(self.args.threads))
        return rows(text, command), rss

    def verify(self):
        return self.run("--verify", self.args.recorded)[0][0]["max_error"]

    def bench(self, case):
        return self.run("--sizes", case, "--seconds", str(self.args.seconds))[0][0]

    def startup(self):
        return self.run("--startup", STARTUP, *self.startup_extra)[0][0]

    def memory(self):
        (row,), rss = self.run("--memory", MEMORY)
        return {"own_peak_memory_bytes": row["peak_memory_bytes"], "peak_memory_bytes": rss}


class Weft:
    """The `weft` binary: `bench` for the times, `embed` to be verified and as a whole process."""

    name = "weft"
    keys = ("median_ms", "min_ms", "runs", "first_run_ms", "compile_ms", "open_to_first_ms", "peak_memory_bytes", "gflop")

    def __init__(self, binary, args):
        self.binary, self.args = binary, args

    def json(self, case):
        batch, seq = case.split("x")
        command = [self.binary, "bench", "--model", self.args.model, "--batch", batch, "--tokens", seq,
                   "--threads", str(self.args.threads), "--json"]
        text, _, rss = child(command)
        try:
            row = json.loads(text)
        except ValueError:
            raise Failed(f"{' '.join(command)}: wanted one JSON object, got {text.strip()[:120]!r}") from None
        missing = [key for key in self.keys if key not in row]
        if missing:
            raise Failed(f"{' '.join(command)}: its JSON lacks {', '.join(missing)}")
        return row, rss

    def embed(self, texts):
        command = [self.binary, "embed", "--model", self.args.model, "--threads", str(self.args.threads), "--json", *texts]
        text, wall, _ = child(command)
        return rows(text, command), wall

    def verify(self):
        with open(self.args.recorded) as file:
            items = json.load(file)["items"]
        got, _ = self.embed([item["text"] for item in items])
        if [row["token_ids"] for row in got] != [item["token_ids"] for item in items]:
            raise Failed("weft embed: token ids differ from the recorded ones")
        return max(abs(x - want) for row, item in zip(got, items)
                   for x, want in zip(row["embedding"], item["embedding"], strict=True))

    def bench(self, case):
        return self.json(case)[0]

    def startup(self):
        row, _ = self.json(STARTUP)
        _, wall = self.embed(["The cat sits outside"])
        return {"open_to_first_ms": row["open_to_first_ms"], "compile_ms": row["compile_ms"],
                "first_run_ms": row["first_run_ms"], "embed_process_ms": wall}

    def memory(self):
        row, rss = self.json(MEMORY)
        return {"own_peak_memory_bytes": row["peak_memory_bytes"], "peak_memory_bytes": rss}


def gather_peers(args):
    """The peers that give the recorded embeddings; a peer that does not is no peer. Weft alone may be missing."""
    tokenizer = ["--tokenizer", os.path.join(args.model, "tokenizer.json")]
    ort = lambda name, model: Peer(name, [args.python, args.ort, "--peer", name, "--model", model,
                                          "--threads", str(args.threads)], args, tokenizer)
    peers, why_no_weft = [ort("ort-plain", args.plain), ort("ort-fused", args.fused)], "weft-cli did not build"
    if args.weft:
        peers.insert(1, Weft(args.weft, args))
    if args.candle:
        peers.append(Peer("candle", [args.candle, "--model", args.model], args))
    kept, errors = [], {}
    for peer in peers:
        try:
            errors[peer.name] = peer.verify()
            if not errors[peer.name] <= TOLERANCE:
                raise Failed(f"{peer.name}: an embedding is off by {errors[peer.name]:.2g}, more than {TOLERANCE:g}")
            if peer.name == "weft":
                peer.json(STARTUP)
        except Failed as failure:
            if peer.name != "weft":
                raise
            why_no_weft = str(failure)
            continue
        say(f"{peer.name}: embeddings within {errors[peer.name]:.1e} of the recorded ones")
        kept.append(peer)
    return kept, errors, None if any(peer.name == "weft" for peer in kept) else why_no_weft


def turns(peers, what, count, work):
    """Every peer once a turn: {peer: [row, …]}. A second turn begins with another peer."""
    found = defaultdict(list)
    for turn in range(count):
        order = peers[turn % len(peers):] + peers[:turn % len(peers)]
        for peer in order:
            row = work(peer)
            found[peer.name].append(row)
            shown = {key: round(row[key], 2) for key in row if key.endswith("_ms")}
            shown |= {"MB": round(row[key] / 1e6, 1) for key in row if key == "peak_memory_bytes" and not shown}
            say(f"{what}, turn {turn + 1} of {count}: {peer.name} {shown}")
    return dict(found)


def median(found, key):
    """{peer: median over its rows of that key}, for the peers that give it."""
    return {name: statistics.median(row[key] for row in each) for name, each in found.items() if key in each[0]}


def gflop(case, config):
    """Multiply-adds of the products only, twice each: the floor of the work, in 10⁹."""
    batch, seq = map(int, case.split("x"))
    hidden, wide = config["hidden_size"], config["intermediate_size"]
    layer = 2 * seq * (4 * hidden * hidden + 2 * hidden * wide) + 4 * seq * seq * hidden
    return batch * config["num_hidden_layers"] * layer / 1e9


def number(value, digits=2):
    return "–" if value is None else f"{value:.{digits}f}"


def ratio(over, under):
    return "–" if over is None or not under else f"{over / under:.2f}"


def best(figures, names=ORT):
    return min(figures[name] for name in names if name in figures)


def spread(found):
    """The slowest turn over the fastest, of the peer where they differ most: how far the row can be trusted."""
    turns_of = [[row["median_ms"] for row in each] for each in found.values()]
    return f"{max(max(each) / min(each) for each in turns_of):.2f}"


def table(head, lines):
    return "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head),
                      *("| " + " | ".join(line) + " |" for line in lines)])


def report(results):
    """The Markdown. Ratios are against the faster form of ONNX Runtime in that row."""
    times, peak = {case: median(found, "median_ms") for case, found in results["times"].items()}, results["peak_gflops"]
    lines = []
    for case in times:
        t = times[case]
        limit = results["gflop"][case] / peak * 1e3
        fastest = best(t)
        lines.append([case.replace("x", " × "), number(t["ort-plain"]), number(t["ort-fused"]), number(t.get("candle")),
                      number(t.get("weft")), ratio(t.get("weft"), fastest), ratio(t.get("weft"), t.get("candle")),
                      number(limit), ratio(limit, t.get("weft")), ratio(limit, fastest), spread(results["times"][case])])
    forward = table(["batch × tokens", "ORT plain, ms", "ORT fused, ms", "candle, ms", "Weft, ms", "Weft / ORT",
                     "Weft / candle", "limit, ms", "limit / Weft", "limit / ORT", "spread"], lines)

    named = {"ort-plain": "ORT plain", "ort-fused": "ORT fused", "candle": "candle", "weft": "Weft"}
    linear = [case for case in BATCHES if case in times]
    growth = table(["batch × 64"] + [f"{label}, ms a sequence (of batch 1)" for name, label in named.items()
                                     if name in times.get("1x64", {})],
                   [[case.split("x")[0]] + [
                       f"{times[case][name] / int(case.split('x')[0]):.2f} "
                       f"({times[case][name] / int(case.split('x')[0]) / times['1x64'][name]:.2f})"
                       for name in named if name in times["1x64"]] for case in linear]) if "1x64" in linear else "not timed"

    starts = results["startup"]
    both = median(starts, "session_and_first_run_ms")
    parts = {key: median(starts, key) for key in ("session_ms", "first_run_ms", "tokenizer_ms")}
    weft_start = median(starts, "open_to_first_ms").get("weft")
    whole = median(starts, "embed_process_ms").get("weft")
    start_lines = [[named[name], number(parts["session_ms"].get(name), 1), number(parts["first_run_ms"].get(name), 1),
                    number(both[name], 1), number(parts["tokenizer_ms"].get(name), 1)] for name in both]
    start = table(["fresh process, 1 × 16", "open session, ms", "first run, ms", "both, ms", "tokenizer, apart, ms"],
                  start_lines)
    start += (f"\n\nWeft, folder to first embedding, tokenizer included: {number(weft_start, 1)} ms, "
              f"{ratio(weft_start, best(both))} of ONNX Runtime's session and first run (its faster form). The whole process "
              f"`weft embed` on one sentence, by the clock outside: {number(whole, 1)} ms.")

    peaks = median(results["memory"], "peak_memory_bytes")
    memory = table(["process after 1 × 128", "peak, MB", "of ORT"],
                   [[named[name], number(bytes_ / 1e6, 1), ratio(bytes_, best(peaks))] for name, bytes_ in peaks.items()])

    about, said = results["machine"], ""
    if results["no_weft"]:
        said = f"**Without Weft**: {results['no_weft']}\n\n"
    if results["quick"]:
        said += "**--quick**: short runs, not to be quoted.\n\n"
    return f"""{said}{about['date']}; {about['cpu']}, {about['cores']} cores, {about['vectors']}; {about['system']}; \
load before {about['load_before']}, after {about['load_after']}. {results['threads']} threads each. \
{'; '.join(f'{name} {version}' for name, version in results['versions'].items())}. \
Median of {results['rounds']} turns' medians, each ≥ {results['seconds']:g} s and ≥ 20 runs. ORT: all graph optimisations, \
spinning as shipped. candle, where timed: default features, default release build. Largest differences from the recorded embeddings: \
{', '.join(f'{name} {error:.1e}' for name, error in results['errors'].items())}.

The limit is the products' FLOPs over this machine's measured f32 peak, {peak:.0f} GFLOP/s \
({results['threads']} threads of fused multiply-adds in registers). Spread is the slowest turn over the fastest, of the peer \
where they differ most: a row far above 1.1 was disturbed.

{forward}

{growth}

{start}

{memory}
"""


def machine():
    cpu, flags = os.uname().machine, ""
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read()
        cpu = (re.search(r"model name\s*: (.*)", text) or re.search(r"Hardware\s*: (.*)", text) or [0, cpu])[1]
        flags = (re.search(r"(?:flags|Features)\s*: (.*)", text) or [0, ""])[1].split()
    except OSError:
        pass
    vectors = [name for name in ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "sve") if name in flags]
    return {"date": time.strftime("%Y-%m-%d"), "cpu": cpu.strip(), "cores": os.cpu_count(),
            "vectors": " ".join(vectors) or "vector units unknown", "system": f"{os.uname().sysname} {os.uname().release}"}


def load():
    return round(os.getloadavg()[0], 2)


def versions(args, has_weft):
    onnx = child([args.python, "-c", "import onnxruntime as o; print(o.__version__)"])[0].strip()
    found = {"ONNX Runtime": onnx}
    if args.candle:
        with open(args.lock) as file:
            found["candle"] = re.search(r'name = "candle-transformers"\nversion = "([^"]+)"', file.read())[1]
    if has_weft:
        try:
            found["weft"] = child([args.weft, "--version"])[0].split()[-1]
        except (Failed, IndexError):
            found["weft"] = "unversioned"
    found["rustc"] = child(["rustc", "--version"])[0].split()[1]
    return found


def parse():
    parser = argparse.ArgumentParser(description="Compares the peers; see tests/bench/run --help.")
    for name in ("python", "ort", "plain", "fused", "model", "recorded", "peak", "lock", "results"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--candle")
    parser.add_argument("--weft")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cases", type=lambda text: text.split(","), default=CASES + BATCHES)
    args = parser.parse_args()
    args.rounds = args.rounds or (1 if args.quick else 3)
    args.seconds = args.seconds or (0.3 if args.quick else 2.0)
    wrong = [case for case in args.cases if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", case)]
    if wrong or args.rounds < 1 or args.threads < 1:
        parser.error(f"wanted cases as BATCHxTOKENS, got {wrong}" if wrong else "wanted --rounds and --threads of 1 or more")
    return args


def measure(args):
    about = machine() | {"load_before": load()}
    if about["load_before"] > 0.5:
        say(f"the machine is busy (load {about['load_before']}): absolute times will be high, ratios less so")
    with open(os.path.join(args.model, "config.json")) as file:
        config = json.load(file)
    peak = float(child([args.peak, str(args.threads)])[0])
    say(f"measured peak with {args.threads} threads: {peak:.0f} GFLOP/s")
    peers, errors, no_weft = gather_peers(args)
    if no_weft:
        say(f"NO WEFT in this run: {no_weft}")
    times = {case: turns(peers, case, args.rounds, lambda peer: peer.bench(case)) for case in args.cases}
    startup = turns(peers, "startup", 3 if args.quick else 7, lambda peer: peer.startup())
    memory = turns(peers, "memory", 1 if args.quick else 3, lambda peer: peer.memory())
    about["load_after"] = load()
    return {"machine": about, "versions": versions(args, not no_weft), "threads": args.threads, "rounds": args.rounds,
            "seconds": args.seconds, "quick": args.quick, "no_weft": no_weft, "errors": errors, "peak_gflops": peak,
            "gflop": {case: gflop(case, config) for case in args.cases}, "times": times, "startup": startup,
            "memory": memory}


def main():
    args = parse()
    try:
        results = measure(args)
    except Failed as failure:
        say(str(failure))
        sys.exit(1)
    with open(args.results + ".part", "w") as file:
        json.dump(results, file, indent=1)
    os.replace(args.results + ".part", args.results)
    print(report(results))
    say(f"every figure is in {args.results}")
    sys.exit(3 if results["no_weft"] else 0)


if __name__ == "__main__":
    main()
