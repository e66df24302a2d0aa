#!/usr/bin/env python3
"""The cases of tests/bench/gpu in PyTorch: eager and compiled (CUDA graphs through mode="reduce-overhead"), in f32, tf32
and bf16. Models are plain PyTorch with seeded random weights of the published shapes; nothing is downloaded. Prints one JSON
object a line for each case and variant: medians after a warm-up, by CUDA events (median_ms) and by the host's clock around
a step and its synchronisation (wall_ms), and how far the result is from eager f32's. Variants are begun while the budget of
seconds lasts, the most telling first; what was left out is a line too. --cases runs some cases, --variants some variants.

  python3 tests/bench/gpu_torch.py                                   # on a CUDA device, 150 s at most
  python3 tests/bench/gpu_torch.py --cases smollm2-train-128
  python3 tests/bench/gpu_torch.py --device cpu --tiny --budget 600  # whether it runs at all
"""
import argparse, contextlib, json, math, statistics, sys, time
import torch
import torch._dynamo
import torch.nn.functional as F
from torch import nn

WARM_UP = 5


def linear(generator, to, frm):
    layer = nn.Linear(frm, to, bias=False)
    with torch.no_grad():
        layer.weight.normal_(0, 1 / math.sqrt(frm), generator=generator)
    return layer


class RmsNorm(nn.Module):
    def __init__(self, width, eps=1e-5):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight


def turned(x, cos, sin):
    """Rotary embedding by halves of x [b, heads, seq, d]."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class LlamaLayer(nn.Module):
    def __init__(self, c, generator):
        super().__init__()
        h, d, kv = c["heads"], c["head"], c["kv_heads"]
        self.heads, self.kv, self.head = h, kv, d
        of = lambda to, frm: linear(generator, to, frm)
        self.q, self.k, self.v = of(h * d, c["hidden"]), of(kv * d, c["hidden"]), of(kv * d, c["hidden"])
        self.o = of(c["hidden"], h * d)
        self.gate, self.up = of(c["wide"], c["hidden"]), of(c["wide"], c["hidden"])
        self.down = of(c["hidden"], c["wide"])
        self.norm1, self.norm2 = RmsNorm(c["hidden"]), RmsNorm(c["hidden"])

    def forward(self, x, cos, sin, cache=None, position=None, mask=None):
        b, s, _ = x.shape
        y = self.norm1(x)
        split = lambda v, n: v.view(b, s, n, self.head).transpose(1, 2)
        q, k, v = split(self.q(y), self.heads), split(self.k(y), self.kv), split(self.v(y), self.kv)
        q, k = turned(q, cos, sin), turned(k, cos, sin)
        if cache is not None:
            k, v = cache[0].index_copy_(2, position, k), cache[1].index_copy_(2, position, v)
        shared = lambda t: t[:, :, None].expand(-1, -1, self.heads // self.kv, -1, -1).flatten(1, 2)
        seen = F.scaled_dot_product_attention(q, shared(k), shared(v), attn_mask=mask, is_causal=mask is None)
        x = x + self.o(seen.transpose(1, 2).reshape(b, s, -1))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """A Llama with tied embeddings, and a cache for decoding."""

    def __init__(self, c, generator):
        super().__init__()
        self.c = c
        self.embed = nn.Embedding(c["vocabulary"], c["hidden"])
        with torch.no_grad():
            self.embed.weight.normal_(0, 1 / math.sqrt(c["hidden"]), generator=generator)
        self.layers = nn.ModuleList(LlamaLayer(c, generator) for _ in range(c["layers"]))
        self.norm = RmsNorm(c["hidden"])
        half = torch.arange(0, c["head"], 2).double() / c["head"]
        angles = torch.arange(c["positions"]).double()[:, None] / c["theta"] ** half
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)
        for i in range(2 * c["layers"]):
            # contents of an earlier conversation: random, never zeros
            cache = torch.randn(1, c["kv_heads"], c["capacity"], c["head"], generator=generator)
            self.register_buffer(f"cache{i}", cache, persistent=False)

    def hidden(self, ids):
        x, n = self.embed(ids), ids.shape[1]
        for layer in self.layers:
            x = layer(x, self.cos[:n], self.sin[:n])
        return self.norm(x)

    def forward(self, ids):
        return F.linear(self.hidden(ids), self.embed.weight)

    def loss(self, ids):
        logits = F.linear(self.hidden(ids)[:, :-1], self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())

    def decode(self, token, position):
        x = self.embed(token)[None]
        cos, sin = self.cos[position], self.sin[position]
        mask = (torch.arange(self.c["capacity"], device=x.device) <= position)[None, None, None]
        for i, layer in enumerate(self.layers):
            cache = getattr(self, f"cache{2 * i}"), getattr(self, f"cache{2 * i + 1}")
            x = layer(x, cos, sin, cache, position, mask)
        return F.linear(self.norm(x), self.embed.weight)


class BertLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        h = c["hidden"]
        self.heads = c["heads"]
        self.q, self.k, self.v, self.o = (nn.Linear(h, h) for _ in range(4))
        self.wide, self.back = nn.Linear(h, c["wide"]), nn.Linear(c["wide"], h)
        self.norm1, self.norm2 = nn.LayerNorm(h, eps=1e-12), nn.LayerNorm(h, eps=1e-12)

    def forward(self, x, mask):
        b, s, h = x.shape
        split = lambda v: v.view(b, s, self.heads, h // self.heads).transpose(1, 2)
        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).reshape(b, s, h)
        x = self.norm1(x + self.o(seen))
        return self.norm2(x + self.back(F.gelu(self.wide(x))))


class Bert(nn.Module):
    """A BERT encoder with mean pooling and normalisation."""

    def __init__(self, c, generator):
        super().__init__()
        self.words, self.places = nn.Embedding(c["vocabulary"], c["hidden"]), nn.Embedding(512, c["hidden"])
        self.kinds, self.norm = nn.Embedding(2, c["hidden"]), nn.LayerNorm(c["hidden"], eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(c) for _ in range(c["layers"]))
        with torch.no_grad():
            for p in self.parameters():
                scale = 1 / math.sqrt(p.shape[1]) if p.dim() > 1 else 0.3
                p.normal_(0, scale, generator=generator).add_(0.0 if p.dim() > 1 else 0.5)

    def forward(self, ids, kinds, mask):
        x = self.norm(self.words(ids) + self.kinds(kinds) + self.places.weight[: ids.shape[1]])
        hidden = ((1 - mask) * -1e9)[:, None, None].to(x.dtype)
        for layer in self.layers:
            x = layer(x, hidden)
        mask = mask[:, :, None].to(x.dtype)
        return F.normalize((x * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=-1)


SMOL = dict(hidden=576, wide=1536, layers=30, heads=9, kv_heads=3, head=64, vocabulary=49152, theta=1e5, positions=1024,
            capacity=256)
MINI = dict(hidden=384, wide=1536, layers=6, heads=12, vocabulary=30522)
TINY_SMOL = dict(SMOL, hidden=48, wide=80, layers=2, heads=6, kv_heads=2, head=8, vocabulary=96)
TINY_MINI = dict(MINI, hidden=48, wide=96, layers=2, heads=4, vocabulary=96)

CASES = ["smollm2-forward-128", "smollm2-forward-512", "smollm2-train-128", "smollm2-decode", "minilm-1x16", "minilm-1x128",
         "minilm-32x128", "matmul-4096", "copy-256m"]


def variants(case):
    """(variant, how soon, seconds it may take to compile)"""
    if case.startswith("matmul"):
        return [("eager-f32", 0, 1), ("eager-tf32", 0, 1), ("eager-bf16", 0, 1)]
    if case.startswith("copy"):
        return [("eager-f32", 0, 1), ("compile-f32", 1, 5)]
    seconds = 10 if case.startswith("minilm") else 50 if "train" in case else 25
    if case == "smollm2-decode":
        return [("eager-f32", 0, 2), ("eager-bf16", 0, 2), ("compile-bf16", 1, seconds), ("compile-f32", 3, seconds)]
    return [("eager-f32", 0, 3), ("compile-tf32", 1, seconds), ("compile-f32", 2, seconds), ("compile-bf16", 3, seconds)]


class Bench:
    def __init__(self, device, tiny, seconds):
        self.device, self.tiny, self.seconds = device, tiny, seconds
        self.cuda = device.startswith("cuda")
        self.eager = {}

    def model(self, build, config):
        generator = torch.Generator().manual_seed(20240807)
        return build(config, generator).to(self.device)

    def ids(self, below, *shape):
        generator = torch.Generator().manual_seed(7)
        return torch.randint(0, below, shape, generator=generator).to(self.device)

    def step(self, case, kind, precision):
        """A function that does one step and returns what it computed."""
        compiled = (lambda f: torch.compile(f, mode="reduce-overhead", fullgraph=True)) if kind == "compile" else (lambda f: f)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        numbers = lambda *shape: torch.rand(shape, device=self.device).mul_(2).sub_(1).to(dtype)
        torch.manual_seed(11)
        if case == "matmul-4096":
            n = 64 if self.tiny else 4096
            a, b = numbers(n, n), numbers(n, n)
            return lambda: a @ b
        if case == "copy-256m":
            x = numbers(1 << 10 if self.tiny else 64 << 20)
            work = compiled(lambda x: x * 1.5 + 0.25)
            return lambda: work(x)
        if case.startswith("minilm"):
            config = TINY_MINI if self.tiny else MINI
            batch, seq = map(int, case.split("-")[1].split("x"))
            model = self.model(Bert, config).to(dtype).eval()
            ids = self.ids(config["vocabulary"], batch, seq)
            kinds, mask = torch.zeros_like(ids), torch.ones(batch, seq, device=self.device)
            work = compiled(model)
            return lambda: work(ids, kinds, mask)
        config = TINY_SMOL if self.tiny else SMOL
        model = self.model(Llama, config)
        if "train" in case:
            return self.training(model, compiled, config, int(case.split("-")[-1]), precision)
        model = model.to(dtype).eval()
        if case == "smollm2-decode":
            for name, buffer in model.named_buffers():
                if name.startswith("cache") and kind == "compile":
                    torch._dynamo.mark_static_address(buffer)
            token, position = self.ids(config["vocabulary"], 1), torch.tensor([128], device=self.device)
            work = compiled(model.decode)
            return lambda: work(token, position)
        ids = self.ids(config["vocabulary"], 1, int(case.split("-")[-1]))
        work = compiled(model)
        return lambda: work(ids)

    def training(self, model, compiled, config, seq, precision):
        ids = self.ids(config["vocabulary"], 1, seq)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        loss = compiled(model.loss)
        half = precision == "bf16"

        def step():
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=half):
                found = loss(ids)
            found.backward()
            optimizer.step()
            return found.detach()

        return step

    def time(self, case, variant):
        kind, precision = variant.split("-")
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        quiet = torch.enable_grad() if "train" in case else torch.no_grad()
        with quiet:
            begin = time.perf_counter()
            step = self.step(case, kind, precision)
            first = self.once(step)
            first_s = time.perf_counter() - begin
            if variant == "eager-f32":
                self.eager[case] = first
            for _ in range(WARM_UP):
                self.once(step, keep=False)
            events, walls = self.timed(step)
        wanted = self.eager.get(case)
        off = None if wanted is None else ((first - wanted).abs().max() / wanted.abs().max()).item()
        peak = torch.cuda.max_memory_allocated() if self.cuda else None
        return dict(median_ms=statistics.median(events), min_ms=min(events), wall_ms=statistics.median(walls),
                    runs=len(events), first_s=round(first_s, 2), off=off, memory_bytes=peak)

    def mark(self):
        torch.compiler.cudagraph_mark_step_begin()

    def once(self, step, keep=True):
        self.mark()
        result = step()
        kept = result.detach().float().cpu().clone() if keep else None
        self.synchronise()
        return kept

    def synchronise(self):
        if self.cuda:
            torch.cuda.synchronize()

    def timed(self, step):
        """Milliseconds of each step: by events between steps that follow each other, and by the clock one by one."""
        walls, begin = [], time.perf_counter()
        while len(walls) < 20 or (time.perf_counter() - begin < self.seconds and len(walls) < 2000):
            start = time.perf_counter()
            self.mark()
            step()
            self.synchronise()
            walls.append((time.perf_counter() - start) * 1e3)
        if not self.cuda:
            return walls, walls
        pairs = []
        for _ in range(len(walls)):
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            self.mark()
            pair[0].record()
            step()
            pair[1].record()
            pairs.append(pair)
        self.synchronise()
        return [a.elapsed_time(b) for a, b in pairs], walls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="cuda (the default), cuda:N or cpu")
    parser.add_argument("--cases", default=",".join(CASES), help="some of: " + ", ".join(CASES))
    parser.add_argument("--variants", default="", help="some of: eager-f32, eager-tf32, eager-bf16, compile-f32, …")
    parser.add_argument("--seconds", type=float, default=0.7, help="repeat each step about so long (0.7)")
    parser.add_argument("--budget", type=float, default=150, help="seconds for everything (150)")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that all runs")
    args = parser.parse_args()
    begin = time.perf_counter()
    cases, only = args.cases.split(","), set(filter(None, args.variants.split(",")))
    if unknown := [c for c in cases if c not in CASES]:
        parser.error(f"no case {unknown[0]}; there are: {', '.join(CASES)}")
    bench = Bench(args.device, args.tiny, args.seconds)
    name = torch.cuda.get_device_name(args.device) if bench.cuda else "cpu"
    work = [(soon, case, variant, seconds) for case in cases for variant, soon, seconds in variants(case)
            if not only or variant in only or variant == "eager-f32"]
    failed = False
    for _, case, variant, seconds in sorted(work, key=lambda w: w[0]):
        line = dict(case=case, variant=variant, device=name, torch=torch.__version__)
        if time.perf_counter() - begin + seconds > args.budget:
            line["skipped"] = "the budget of seconds is spent: run it with --cases and --variants"
        else:
            if bench.cuda:
                torch.cuda.reset_peak_memory_stats()
            try:
                line.update(bench.time(case, variant))
            except Exception as error:  # one that fails must not hide the others
                failed, line["error"] = True, f"{type(error).__name__}: {str(error)[:300]}"
            torch._dynamo.reset()
            with contextlib.suppress(Exception):
                torch.cuda.empty_cache() if bench.cuda else None
        print(json.dumps(line), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
