//! What saturation is compared with: one greedy pass over the same rules, each used where it makes the graph cheaper at
//! once, and never taken back.

use crate::{optimised, profiles};
use weft::graph::Graph;
use weft::graph::Value;
use weft::internals::optimise::{Options, all_rules, alternatives, estimate};
use weft::profile::DeviceProfile;
use weft::tensor::{DType, TensorType};

/// The graph after one pass over the rules in their order.
fn greedy(g: &Graph, p: &DeviceProfile, options: &Options) -> (Graph, f64) {
    let mut best = (g.clone(), estimate(g, p, options).unwrap());
    for rule in all_rules() {
        loop {
            let others = alternatives(&best.0, &rule.name).unwrap();
            let priced = others.into_iter().map(|o| (estimate(&o, p, options).unwrap(), o));
            let Some((cost, cheaper)) =
                priced.min_by(|a, b| a.0.total_cmp(&b.0)).filter(|(c, _)| *c < best.1 - 1e-9)
            else {
                break;
            };
            best = (cheaper, cost);
        }
    }
    best
}

fn frozen(g: &Graph, name: &str, shape: &[usize]) -> Value {
    g.parameter_of(name, TensorType::f32(shape), false)
}

/// A frozen adapter beside its layer: merging pays, and each step towards it alone does not.
fn adapter() -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [512, 576]);
    let w = frozen(&g, "w", &[576, 576]);
    let thin = g.linear(g.linear(x, frozen(&g, "a", &[8, 576]), None), frozen(&g, "b", &[576, 8]), None);
    g.output("y", g.add(g.linear(x, w, None), g.mul(thin, g.scalar(2.0, DType::F32))));
    g
}

/// Attention as an exporter writes it: the factor is a division, keys are transposed with the heads, the mask comes first.
fn attention() -> Graph {
    let g = Graph::new();
    let of = |n: &str| g.input(n, DType::F32, [1, 128, 12, 32]);
    let (q, k, v) = (of("q"), of("k"), of("v"));
    let (q, v) = (g.permute(q, &[0, 2, 1, 3]), g.permute(v, &[0, 2, 1, 3]));
    let scores = g.matmul(g.div(q, g.scalar(5.656854, DType::F32)), g.permute(k, &[0, 2, 3, 1]));
    let masked = g.add(g.input("mask", DType::F32, [1, 1, 1, 128]), scores);
    let e = g.exp(g.sub(masked, g.max_over(masked, &[3], true)));
    g.output("y", g.matmul(g.div(e, g.sum(e, &[3], true)), v));
    g
}

/// A chain of products whose cheap order is not where it was begun: (((a·b)·c)·d)·x with a thin x.
fn chain() -> Graph {
    let g = Graph::new();
    let m = |n: &str, s: [usize; 2]| g.input(n, DType::F32, s);
    let ab = g.matmul(m("a", [300, 4]), m("b", [4, 300]));
    let abc = g.matmul(ab, m("c", [300, 4]));
    g.output("y", g.matmul(g.matmul(abc, m("d", [4, 300])), m("e", [300, 4])));
    g
}

/// GELU with its half inside, in front.
fn gelu() -> Graph {
    let g = Graph::new();
    let x = g.linear(g.input("x", DType::F32, [128, 384]), frozen(&g, "w", &[1536, 384]), None);
    let inner = g.erf(g.div(x, g.scalar(std::f64::consts::SQRT_2, DType::F32)));
    let half = g.mul(g.scalar(0.5, DType::F32), g.add(g.scalar(1.0, DType::F32), inner));
    g.output("y", g.mul(half, x));
    g
}

#[test]
fn saturation_finds_what_a_greedy_pass_does_not() {
    let mut better = 0;
    for (name, g) in
        [("adapter", adapter()), ("attention", attention()), ("chain", chain()), ("gelu", gelu())]
    {
        for (device, p) in ["CPU", "GPU"].iter().zip(&profiles()) {
            let options = Options::default();
            let came = estimate(&g, p, &options).unwrap();
            let (_, by_pass) = greedy(&g, p, &options);
            let by_saturation = optimised(&g, p, &options).report.cost_after;
            println!(
                "{name:10} {device}: {came:8.1} us as it came, {by_pass:8.1} greedy, {by_saturation:8.1} saturated"
            );
            assert!(
                by_saturation <= by_pass * (1.0 + 1e-6) + 1e-3,
                "{name}: greedy is better: {by_pass} < {by_saturation}"
            );
            better += usize::from(*device == "GPU" && by_saturation < 0.95 * by_pass);
        }
    }
    assert!(better >= 3, "saturation is better in {better} cases only");
}
