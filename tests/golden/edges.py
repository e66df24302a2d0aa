"""Records what PyTorch gives at the edges of every operation: zeros of both signs, ties, infinities, NaN, the smallest and
largest normal numbers, subnormals, borders of domains, far below and far above 0. Forward and gradient (the upstream is
not 1), for f32 and f16 inputs.

    pip install torch==2.15.0 numpy safetensors
    python tests/golden/edges.py        # writes edges.json and edges.safetensors beside itself

Each case is computed in f64 from inputs that its dtype holds exactly, and rounded once to that dtype: so a result is
right where PyTorch's own f32 kernels lose digits. Names and attributes are those of op_cases (README.md).
"""

import hashlib
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
INF, NAN = float("inf"), float("nan")
DTYPES = {"f32": np.float32, "f16": np.float16}
cases, tensors = [], {}


def store(array):
    """The tensor's name: equal tensors are stored once."""
    array = np.ascontiguousarray(array)
    if array.ndim == 0:
        array = array.reshape(1)
    kind = {"bool": "b", "int32": "i", "uint32": "n", "uint8": "u", "int64": "l", "float32": "f", "float16": "h"}[str(array.dtype)]
    digest = hashlib.sha256(repr((kind, array.shape)).encode() + array.tobytes()).hexdigest()[:10]
    tensors[kind + digest] = array
    return kind + digest


def both_signs(*values):
    return [s * v for v in values for s in (1.0, -1.0)]


def edges(dtype):
    """Values of one dtype: what it can hold at its ends, and where functions bend, saturate or vanish."""
    info = np.finfo(DTYPES[dtype])
    tiny, top, step = float(info.smallest_normal), float(info.max), float(info.smallest_subnormal)
    near = both_signs(0.0, 1.0, 0.5, 1.5, 2.5, 2.0, 3.0, 4.0, 0.25, 0.7, 0.001, 1 - float(info.epsneg), 1 + float(info.eps))
    far = both_signs(5.0, 6.5, 8.0, 10.0, 12.5, 15.0, 17.0, 20.0, 25.0, 30.0, 50.0, 80.0, 87.0, 100.0, 1000.0)
    ends = both_signs(tiny, step, tiny - step, step * 37, top, top / 2, INF) + [NAN]
    wide = both_signs(1e-6, 1e-10, 1e-20, 1e-30, 1e5, 1e10, 1e20, 1e30, 88.5, 90.0, 104.0) if dtype == "f32" else []
    return np.array(near + far + ends + wide, dtype=DTYPES[dtype])


def grid(dtype):
    """Every pair of some edges, as two tensors."""
    info = np.finfo(DTYPES[dtype])
    tiny, top, step = float(info.smallest_normal), float(info.max), float(info.smallest_subnormal)
    some = both_signs(0.0, 1.0, 0.5, 2.0, 3.0, 2.5, tiny, top, INF) + [NAN, step * 5, 7.0, 0.1, 1000.0]
    some += [1e-20, 1e20] if dtype == "f32" else []
    some = np.array(some, dtype=DTYPES[dtype])
    a, b = np.meshgrid(some, some, indexing="ij")
    return a.ravel(), b.ravel()


def rows(dtype, products=False):
    """Rows of four for reductions: ties, NaN, infinities, zeros of both signs, small and large numbers."""
    info = np.finfo(DTYPES[dtype])
    tiny, top, step = float(info.smallest_normal), float(info.max), float(info.smallest_subnormal)
    found = [[1, 2, 3, 4], [3, 1, 3, 0], [2, 2, 2, 2], [1, NAN, 2, 5], [NAN, 1, 2, 3], [1, 2, 3, NAN], [NAN] * 4, [INF, 1, 2, 3]]
    found += [[1, -INF, 2, 0], [INF, -INF, 0, 1], [-INF] * 4, [INF] * 4, [INF, NAN, 1, 2], [0.0, -0.0, 0.0, -0.0], [-0.0] * 4]
    found += [[tiny, 2 * tiny, -tiny, tiny], [step, step * 3, 0, step], [-1, -2, -1, -3], [0.5, -0.5, 0.25, 1e-3], [-7, 0, 0, 3]]
    found += [[1000, -1000, 500, 250]] if not products else [[0, 5, 0, 2], [0, 5, 3, 2], [0, INF, 1, 1]]
    return np.array(found, dtype=DTYPES[dtype])


def upstream(shape):
    return np.resize(np.array([2.5, -0.75, 1.5], dtype=np.float32), shape)


def case(name, op, f, inputs, attrs=None, grads=True, gradients_of=None):
    """Records f of the inputs, numpy arrays; floats are given to it in f64."""
    attrs = attrs or {}
    floats = [a.dtype.kind == "f" for a in inputs]
    given = [torch.tensor(a.astype(np.float64) if fl else a) for a, fl in zip(inputs, floats)]
    wanted = [fl and grads and (gradients_of is None or i in gradients_of) for i, fl in enumerate(floats)]
    for t, w in zip(given, wanted):
        t.requires_grad_(w)
    dtypes = [a.dtype for a, fl in zip(inputs, floats) if fl]
    out = f(*given)
    real = out.dtype == torch.float64
    to = attrs.pop("_to", dtypes[0] if dtypes else np.float32)
    with np.errstate(over="ignore"):
        result = out.detach().numpy().astype(to) if real else out.numpy()
        entry = {"name": f"{len(cases):03}.{name}", "op": op, "attrs": attrs, "inputs": [store(a) for a in inputs]}
        entry["outputs"] = [store(result)]
        if real and any(wanted):
            up = upstream(result.shape).astype(result.dtype)
            entry["upstream"] = [store(up)]
            by = [t for t, w in zip(given, wanted) if w]
            found = iter(torch.autograd.grad(out, by, torch.tensor(up.astype(np.float64)).reshape(out.shape), allow_unused=True))
            entry["grads"] = []
            for a, w in zip(inputs, wanted):
                g = next(found) if w else None
                entry["grads"].append(store((np.zeros(a.shape) if g is None else g.numpy()).astype(a.dtype)) if w else None)
    cases.append(entry)


def pointwise():
    log_ndtr = torch.special.ndtr
    unary = {
        "neg": torch.neg, "abs": torch.abs, "exp": torch.exp, "expm1": torch.expm1, "log": torch.log, "log1p": torch.log1p,
        "sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "reciprocal": torch.reciprocal, "sin": torch.sin, "cos": torch.cos,
        "tanh": torch.tanh, "erf": torch.erf, "ndtr": log_ndtr, "floor": torch.floor, "round": torch.round, "sign": torch.sign,
        "relu": torch.relu, "sigmoid": torch.sigmoid, "silu": F.silu, "gelu": F.gelu,
        "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "softplus": F.softplus,
    }
    for dtype in DTYPES:
        x = edges(dtype)
        for op, f in unary.items():
            case(f"{op} {dtype}", op, f, [x])
        for alpha in (1.0, 0.75):
            case(f"elu {alpha} {dtype}", "elu", lambda x: F.elu(x, alpha), [x], {"alpha": alpha})
        for slope in (0.0, 0.25):
            case(f"leaky_relu {slope} {dtype}", "leaky_relu", lambda x: F.leaky_relu(x, slope), [x], {"slope": slope})
        for lo, hi in ((-0.5, 1.5), (2.0, 1.0), (0.0, 6.5), (-2.0, 2.0)):
            case(f"clamp {lo} {hi} {dtype}", "clamp", lambda x: torch.clamp(x, lo, hi), [x], {"min": lo, "max": hi})
        a, b = grid(dtype)
        binary = {
            "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow,
            "maximum": torch.maximum, "minimum": torch.minimum, "rem": torch.fmod,
        }
        for op, f in binary.items():
            case(f"{op} {dtype}", op, f, [a, b])
        for op in ("lt", "le", "gt", "ge", "eq", "ne"):
            case(f"{op} {dtype}", op, getattr(torch, op), [a, b], grads=False)
        case(f"ne itself {dtype}", "ne", torch.ne, [x, x], grads=False)
        for exponent in (0.0, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 1.5, 5.0):
            e = np.full((1,), exponent, dtype=DTYPES[dtype])
            case(f"pow {exponent} {dtype}", "pow", torch.pow, [x, e], gradients_of=[0])
        choice = np.resize(np.array([True, False, False, True]), x.shape)
        other = x[::-1].copy()
        case(f"where {dtype}", "where", torch.where, [choice, x, other])
        case(f"where nan beside {dtype}", "where", torch.where, [~np.isnan(x), x, np.full(1, 7, x.dtype)])
        case(f"ties of a sum {dtype}", "add", torch.add, [x, x])
        case(f"broadcast scalar {dtype}", "mul", torch.mul, [x.reshape(-1, 1), np.array([1.0, 0.0, NAN, INF], dtype=x.dtype)])
        for to, np_to in DTYPES.items():
            case(f"cast {dtype} to {to}", "cast", lambda x: x, [x], {"dtype": to, "_to": np_to})
        case(f"cast {dtype} to bool", "cast", lambda x: x.bool(), [x], {"dtype": "bool"}, grads=False)
        inside = np.array([0.0, -0.0, 0.9, -0.9, 1.5, 2.5, -2.5, 254.9, 1000.0, -1000.0, 65504.0], dtype=DTYPES[dtype])
        case(f"cast {dtype} to i32", "cast", lambda x: x.int(), [inside], {"dtype": "i32"}, grads=False)
        small = np.array([0.0, -0.0, 0.9, 1.5, 2.5, 127.0, 128.0, 254.5, 255.0], dtype=DTYPES[dtype])
        case(f"cast {dtype} to u8", "cast", lambda x: x.to(torch.uint8), [small], {"dtype": "u8"}, grads=False)
    whole = np.array([0, 1, -1, 255, 256, -256, 65535, 2**31 - 1, -(2**31), 2**24 + 1, 77], dtype=np.int32)
    for to, np_to in DTYPES.items():
        case(f"cast i32 to {to}", "cast", lambda x: x.double(), [whole], {"dtype": to, "_to": np_to}, grads=False)
    case("cast i32 to u8", "cast", lambda x: x.to(torch.uint8), [whole], {"dtype": "u8"}, grads=False)
    case("cast i32 to bool", "cast", lambda x: x.bool(), [whole], {"dtype": "bool"}, grads=False)
    flags = np.array([True, False, True, True, False])
    case("cast bool to f32", "cast", lambda x: x.double(), [flags], {"dtype": "f32", "_to": np.float32}, grads=False)
    case("cast bool to i32", "cast", lambda x: x.int(), [flags], {"dtype": "i32"}, grads=False)
    case("not bool", "not", torch.logical_not, [flags], grads=False)
    case("not i32", "not", torch.bitwise_not, [whole], grads=False)
    p, q = np.meshgrid(whole, whole, indexing="ij")
    p, q = p.ravel(), q.ravel()
    for op, f in {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "maximum": torch.maximum, "minimum": torch.minimum,
                  "and": torch.bitwise_and, "or": torch.bitwise_or, "xor": torch.bitwise_xor, "lt": torch.lt, "le": torch.le,
                  "gt": torch.gt, "ge": torch.ge, "eq": torch.eq, "ne": torch.ne}.items():
        case(f"{op} i32", op, f, [p, q], grads=False)
    fine = (q != 0) & ~((q == -1) & (p == -(2**31)))
    case("div i32", "div", lambda a, b: torch.div(a, b, rounding_mode="trunc"), [p[fine], q[fine]], grads=False)
    case("rem i32", "rem", torch.fmod, [p[fine], q[fine]], grads=False)
    for op in ("neg", "abs"):
        case(f"{op} i32", op, getattr(torch, op), [whole], grads=False)
    for op, f in {"and": torch.logical_and, "or": torch.logical_or, "xor": torch.logical_xor}.items():
        case(f"{op} bool", op, f, [np.array([0, 0, 1, 1], bool), np.array([0, 1, 0, 1], bool)], grads=False)
    case("iota", "iota", lambda: torch.arange(5).reshape(5, 1).expand(5, 3).to(torch.uint32), [], {"shape": [5, 3], "axis": 0}, grads=False)


def movement():
    for dtype in DTYPES:
        x = edges(dtype)[:48].reshape(2, 4, 6)
        case(f"reshape {dtype}", "reshape", lambda x: x.reshape(6, 8), [x], {"shape": [6, 8]})
        case(f"permute {dtype}", "permute", lambda x: x.permute(2, 0, 1), [x], {"axes": [2, 0, 1]})
        case(f"expand {dtype}", "expand", lambda x: x.expand(3, 2, 4, 6), [x], {"shape": [3, 2, 4, 6]})
        case(f"slice {dtype}", "slice", lambda x: x[:, 1:4:2, 2:6], [x], {"start": [0, 1, 2], "stop": [2, 4, 6], "step": [1, 2, 1]})
        case(f"flip {dtype}", "flip", lambda x: x.flip(0, 2), [x], {"axes": [0, 2]})
        case(f"pad {dtype}", "pad", lambda x: F.pad(x, (2, 1, 0, 1, 1, 0), value=-0.5), [x],
             {"before": [1, 0, 2], "after": [0, 1, 1], "value": -0.5})
        case(f"concat {dtype}", "concat", lambda x, y: torch.cat([x, y], 1), [x, x[:, ::-1].copy()], {"axis": 1})
    x = edges("f32")[-40:].reshape(5, 8)
    long = lambda i: i.long()
    which = np.array([4, 0, 2, 0], dtype=np.int32)
    case("index_select", "index_select", lambda x, i: x.index_select(0, long(i)), [x, which], {"axis": 0})
    case("embedding", "embedding", lambda t, i: F.embedding(long(i), t), [x, which])
    lanes = np.resize(np.array([1, 0, 7, 3, 3], dtype=np.int32), (5, 4))
    case("gather", "gather", lambda x, i: x.gather(1, long(i)), [x, lanes], {"axis": 1})
    add = edges("f32")[:20].reshape(5, 4)
    case("scatter_add", "scatter_add", lambda x, i, u: x.scatter_add(1, long(i), u), [x, lanes, add], {"axis": 1})
    some = edges("f32")[:32].reshape(4, 8)
    case("index_add", "index_add", lambda x, i, u: x.index_add(0, long(i), u), [x, which, some], {"axis": 0})
    case("put", "put", lambda x, i, u: x.index_copy(0, long(i), u), [x, np.array([3, 1, 4, 0], np.int32), some], {"axis": 0})
    case("one_hot", "one_hot", lambda i: F.one_hot(long(i), 5).double(), [which], {"classes": 5}, grads=False)


def reductions():
    for dtype in DTYPES:
        plain, products = rows(dtype), rows(dtype, True)
        long = np.tile(plain, (1, 20))[:, :77]
        tail = np.where(np.arange(77) == 76, plain[:, 1:2], np.ones((1, 1), plain.dtype)).astype(plain.dtype)
        for name, x, axis in (("rows", plain, 1), ("columns", plain.T.copy(), 0), ("long", long, 1), ("tail", tail, 1), ("long columns", tail.T.copy(), 0)):
            at = {"axes": [axis], "keepdim": False}
            case(f"sum {name} {dtype}", "sum", lambda x: x.sum(axis), [x], dict(at))
            case(f"mean {name} {dtype}", "mean", lambda x: x.mean(axis), [x], dict(at))
            case(f"max {name} {dtype}", "max", lambda x: x.amax(axis), [x], dict(at))
            case(f"min {name} {dtype}", "min", lambda x: x.amin(axis), [x], dict(at))
            case(f"logsumexp {name} {dtype}", "logsumexp", lambda x: x.logsumexp(axis), [x], dict(at))
            for op in ("argmax", "argmin"):
                def place(x, op=op):
                    # of equals PyTorch leaves open which: ours is the first
                    v = (x if op == "argmax" else -x).numpy()
                    return torch.tensor(np.argmax(np.where(np.isnan(v), INF, np.where(np.isposinf(v), 1e300, v)), axis), dtype=torch.int32)
                case(f"{op} {name} {dtype}", op, place, [x], {"axis": axis, "keepdim": False}, grads=False)
            case(f"softmax {name} {dtype}", "softmax", lambda x: x.softmax(axis), [x], {"axis": axis})
            case(f"log_softmax {name} {dtype}", "log_softmax", lambda x: x.log_softmax(axis), [x], {"axis": axis})
            if dtype == "f32":
                case(f"cumsum {name}", "cumsum", lambda x: x.cumsum(axis), [x], {"axis": axis})
        case(f"prod {dtype}", "prod", lambda x: x.prod(1), [products], {"axes": [1], "keepdim": False})
        top = np.array([[np.finfo(DTYPES[dtype]).max] * 2 + [0, 1]], dtype=DTYPES[dtype])
        case(f"sum overflows {dtype}", "sum", lambda x: x.sum(1), [top], {"axes": [1], "keepdim": False})
        case(f"max of largest {dtype}", "max", lambda x: x.amax(1), [top], {"axes": [1], "keepdim": False})
        case(f"softmax of largest {dtype}", "softmax", lambda x: x.softmax(1), [top], {"axis": 1})


def norms():
    def rms(x, w, eps):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * w

    for dtype in DTYPES:
        odd = [[1, 2, 3, 4], [2, 2, 2, 2], [1, NAN, 2, 5], [INF, 1, 2, 3], [1, -INF, 2, 0], [0, 0, 0, 0], [1e-3, -1e-3, 2e-3, 0],
               [1000, -1000, 500, 250], [100.5, 100.25, 100, 101]]
        x = np.array(odd, dtype=DTYPES[dtype])
        w, b = np.array([1.5, -0.5, 1.0, 2.0], x.dtype), np.array([0.5, 0.0, -1.0, 0.25], x.dtype)
        case(f"layer_norm {dtype}", "layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b, 1e-5), [x, w, b], {"eps": 1e-5}, gradients_of=[0])
        fine = x[[0, 1, 5, 6, 7, 8]]
        case(f"layer_norm finite {dtype}", "layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b, 1e-5), [fine, w, b], {"eps": 1e-5})
        case(f"rms_norm {dtype}", "rms_norm", lambda x, w: rms(x, w, 1e-5), [x, w], {"eps": 1e-5}, gradients_of=[0])
        case(f"rms_norm finite {dtype}", "rms_norm", lambda x, w: rms(x, w, 1e-5), [fine, w], {"eps": 1e-5})
        image = x.reshape(9, 4, 1)
        case(f"group_norm {dtype}", "group_norm", lambda x, w, b: F.group_norm(x, 2, w, b, 1e-5), [image, w, b],
             {"groups": 2, "eps": 1e-5}, gradients_of=[0])
        group = fine.reshape(6, 4, 1)
        case(f"group_norm finite {dtype}", "group_norm", lambda x, w, b: F.group_norm(x, 2, w, b, 1e-5), [group, w, b], {"groups": 2, "eps": 1e-5})
        mean, var = np.array([0.5, -1, 0, 2], x.dtype), np.array([1.0, 0.25, 0.0, 4.0], x.dtype)
        case(f"batch_norm {dtype}", "batch_norm", lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b, False, 0, 1e-3),
             [fine, w, b, mean, var], {"eps": 1e-3}, gradients_of=[0, 1, 2])
        batch = np.array([[1, 2, NAN, 1], [3, 2, 1, INF], [-2, 2, 0, 3]], x.dtype).reshape(3, 4, 1)
        case(f"batch_norm_train {dtype}", "batch_norm_train", lambda x, w, b: F.batch_norm(x, None, None, w, b, True, 0, 1e-5),
             [batch, w, b], {"eps": 1e-5})


def losses():
    one = lambda v: np.array([v], dtype=np.float32)
    for x, t in ((0, 0), (0, 1), (20, 1), (-20, 0), (20, 0), (-20, 1), (90, 1), (-90, 0), (NAN, 1), (1, NAN), (-0.0, 0.5), (1e30, 0), (-1e30, 1)):
        case(f"bce_with_logits {x} {t}", "bce_with_logits", F.binary_cross_entropy_with_logits, [one(x), one(t)])
    pair = [np.array([1, 2, -0.0, 3, 1e-20], np.float32), np.array([1, -2, 0.0, 2.5, 2e-20], np.float32)]
    case("l1_loss ties", "l1_loss", F.l1_loss, pair)
    case("mse_loss ties", "mse_loss", F.mse_loss, pair)
    for name, x, t in (("nan", NAN, 1), ("inf", INF, 1), ("overflow", 3e38, -3e38)):
        case(f"mse_loss {name}", "mse_loss", F.mse_loss, [one(x), one(t)])
    case("l1_loss inf", "l1_loss", F.l1_loss, [one(INF), one(1)])
    logits = np.array([[1, 2, 3], [-INF, 0, 1], [100, -100, 0], [0, 0, 0], [1000, 999, -1000]], np.float32)
    for name, labels in (("all", [2, 1, 0, 1, 0]), ("ignored", [-100, 1, -100, 0, 2]), ("far", [0, 2, 1, 0, 2])):
        labels = np.array(labels, np.int32)
        case(f"cross_entropy {name}", "cross_entropy", lambda x, l: F.cross_entropy(x, l.long()), [logits, labels],
             {"ignore_index": -100, "label_smoothing": 0.0})
    finite = logits[[0, 2, 3]]
    case("cross_entropy smoothed", "cross_entropy", lambda x, l: F.cross_entropy(x, l.long(), label_smoothing=0.25),
         [finite, np.array([2, 1, 0], np.int32)], {"ignore_index": -100, "label_smoothing": 0.25})
    odd = np.array([[1, NAN, 3], [1, 2, 3]], np.float32)
    case("cross_entropy nan", "cross_entropy", lambda x, l: F.cross_entropy(x, l.long()), [odd, np.array([0, 1], np.int32)],
         {"ignore_index": -100, "label_smoothing": 0.0})


def products():
    a = np.array([[1, 2, 0.5], [NAN, 1, 2], [INF, 1, 1], [0, -0.0, 0], [1e30, 1e30, -1e30], [1e-30, 1, 2]], np.float32)
    b = np.array([[1, 0, -1, 2], [2, 0.5, 1, 1], [0.25, 1, 0, 3]], np.float32)
    case("matmul", "matmul", torch.matmul, [a, b])
    case("linear", "linear", F.linear, [a, b.T.copy(), np.array([1, NAN, 0, 2], np.float32)])
    image = np.array([0, 1, -1, 2, NAN, 3, INF, 1, 0, 0, 4, -2, 1, 1, 0.5, 2, 1, -INF, 1, 0], np.float32).reshape(1, 1, 4, 5)
    w = np.array([1, 0, -1, 0.5, 2, 1], np.float32).reshape(1, 1, 2, 3)
    bias = np.array([0.25], np.float32)
    flat = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1}
    case("conv2d", "conv2d", lambda x, w, b: F.conv2d(x, w, b, padding=1), [image, w, bias], flat)
    case("conv1d", "conv1d", lambda x, w, b: F.conv1d(x, w, b, padding=1), [image[:, :, 0], w[:, :, 0], bias],
         {"stride": 1, "padding": 1, "dilation": 1, "groups": 1})
    case("conv_transpose2d", "conv_transpose2d", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2), [image, w, bias],
         {"stride": [2, 2], "padding": [0, 0], "output_padding": [0, 0], "dilation": [1, 1], "groups": 1})
    ties = np.array([2, -1, 2, 0, 2, 0.0, -0.0, 2, -INF, -INF, 1, 1, 1, -INF, -INF, INF, INF, 3, 3, 3], np.float32).reshape(1, 1, 4, 5)
    nan = np.array([2, -1, NAN, 0, 2, 1, 2, 2, 0, 1, 1, 1, 1, 1, NAN, 5, INF, 3, 3, 3], np.float32).reshape(1, 1, 4, 5)
    two = np.array([NAN, 1, NAN, 3, 0, 1, 1, 1, 1, 0, NAN, NAN, NAN, 0, 1, 2, 2, 2, 2, 2], np.float32).reshape(1, 1, 4, 5)
    case("max_pool2d nans", "max_pool2d", lambda x: F.max_pool2d(x, (1, 5)), [two], {"kernel": [1, 5], "stride": [1, 5], "padding": [0, 0]})
    for name, x in (("ties", ties), ("nan", nan)):
        pool = {"kernel": [2, 2], "stride": [2, 1], "padding": [0, 0]}
        case(f"max_pool2d {name}", "max_pool2d", lambda x: F.max_pool2d(x, 2, (2, 1)), [x], dict(pool))
        case(f"max_pool2d padded {name}", "max_pool2d", lambda x: F.max_pool2d(x, 3, 2, 1), [x], {"kernel": [3, 3], "stride": [2, 2], "padding": [1, 1]})
        case(f"max_pool1d {name}", "max_pool1d", lambda x: F.max_pool1d(x, 2, 1), [x[:, 0]], {"kernel": 2, "stride": 1, "padding": 0})
        case(f"avg_pool2d {name}", "avg_pool2d", lambda x: F.avg_pool2d(x, 2, 2), [x], {"kernel": [2, 2], "stride": [2, 2], "padding": [0, 0], "count_include_pad": True})
        case(f"avg_pool1d {name}", "avg_pool1d", lambda x: F.avg_pool1d(x, 2, 1, 1, count_include_pad=False), [x[:, 0]],
             {"kernel": 2, "stride": 1, "padding": 1, "count_include_pad": False})
        case(f"global_avg_pool2d {name}", "global_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, 1), [x])
        case(f"global_max_pool2d {name}", "global_max_pool2d", lambda x: x.amax((2, 3), keepdim=True), [x])
        case(f"resize nearest {name}", "resize", lambda x: F.interpolate(x, (6, 7)), [x], {"size": [6, 7], "mode": "nearest"})
        for corners in (False, True):
            case(f"resize bilinear {corners} {name}", "resize", lambda x: F.interpolate(x, (6, 7), mode="bilinear", align_corners=corners), [x],
                 {"size": [6, 7], "mode": "bilinear", "align_corners": corners})


def turned(x, cos, sin, interleaved=False):
    """Pairs turned by angles."""
    half = x.shape[-1] // 2
    a, b = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    p, q = a * cos - b * sin, b * cos + a * sin
    return torch.stack([p, q], -1).flatten(-2) if interleaved else torch.cat([p, q], -1)


def positions():
    x = np.array([0, -0.0, 1, -1, NAN, 1, 2, 3, INF, 1, 0, 2, 1e30, -1e30, 1e-30, 4], np.float32).reshape(1, 4, 4)
    angles = torch.arange(4, dtype=torch.float64)[:, None] * 10000.0 ** (-torch.arange(2, dtype=torch.float64) / 2)
    for interleaved in (False, True):
        case(f"rope {interleaved}", "rope", lambda x: turned(x, angles.cos(), angles.sin(), interleaved), [x],
             {"theta": 10000.0, "offset": 0, "interleaved": interleaved})


def attentions():
    def attend(q, k, v, mask=None, causal=False):
        scores = q @ k.transpose(-1, -2) * 0.5
        if causal:
            l, s = scores.shape[-2:]
            scores = scores.masked_fill(~torch.ones(l, s, dtype=torch.bool).tril(s - l), -INF)
        return (scores if mask is None else scores + mask).softmax(-1) @ v

    rng = np.random.default_rng(5)
    q, k, v = (rng.standard_normal((1, 2, 5, 4)).astype(np.float32) for _ in range(3))
    odd_q, odd_v, odd_k = q.copy(), v.copy(), k.copy()
    odd_q[0, 0, 2, 1], odd_v[0, 1, 3, 2], odd_k[0, 0, 4, 0] = NAN, INF, NAN
    plain = {"causal": False, "window": None, "scale": 0.5}
    case("attention nan query", "attention", attend, [odd_q, k, v], dict(plain))
    case("attention inf value", "attention", attend, [q, k, odd_v], dict(plain))
    case("attention nan key", "attention", attend, [q, odd_k, v], dict(plain))
    case("attention causal", "attention", lambda q, k, v: attend(q, k, v, None, True), [q, k, v], {**plain, "causal": True})
    case("attention far scores", "attention", attend, [q * 30, k * 30, v], dict(plain))
    mask = np.zeros((1, 1, 5, 5), np.float32)
    mask[..., 1:, 3] = -INF
    mask[..., 2, :4] = -INF
    case("attention masked", "attention", attend, [q, k, v, mask], dict(plain), gradients_of=[0, 1, 2])
    # one query, as when a token is decoded
    case("attention one nan query", "attention", attend, [odd_q[:, :, 2:3], k, v], dict(plain))
    case("attention one nan key", "attention", attend, [q[:, :, :1], odd_k, v], dict(plain))


for part in (pointwise, movement, reductions, norms, losses, products, positions, attentions):
    part()
names = set(n for c in cases for key in ("inputs", "outputs", "upstream", "grads") for n in c.get(key, []) if n)
save_file({n: tensors[n] for n in sorted(names)}, HERE / "edges.safetensors")
lines = ",\n".join(json.dumps(c) for c in cases)
(HERE / "edges.json").write_text(f"[\n{lines}\n]\n")
elements = sum(tensors[n].size for c in cases for n in c["outputs"] + [g for g in c.get("grads", []) if g])
print(f"{len(cases)} cases, {elements} numbers, PyTorch {torch.__version__}")
