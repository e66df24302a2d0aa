//! Training through attention: the gradient uses the forward pass's softmax statistics.

use super::{devices, near, ramp};
use weft::device::Device;
use weft::graph::Graph;
use weft::internals::target::gpu::forms::{GpuForm, Work};
use weft::ops::AttentionOptions;
use weft::session::{Compiled, Compiler};
use weft::tensor::DType;

/// b, h, h_kv, l, s, d, d_v; causal, window, masked.
type Case = ([usize; 7], bool, i64, bool);

const CASES: [Case; 8] = [
    ([1, 9, 3, 40, 40, 64, 64], true, 0, false),
    ([2, 4, 4, 17, 33, 16, 16], false, 0, true),
    ([1, 4, 2, 33, 33, 24, 12], true, 5, false),
    // heads that are no multiple of four, one query, two keys
    ([1, 2, 1, 9, 20, 3, 5], false, 0, true),
    ([1, 3, 3, 1, 12, 8, 8], true, 0, false),
    ([2, 2, 1, 6, 2, 4, 4], false, 0, false),
    // heads that workgroup memory does not hold
    ([1, 2, 2, 10, 12, 256, 256], true, 0, false),
    ([1, 1, 1, 5, 7, 320, 700], false, 3, true),
];

fn compiled(device: &Device, &([b, h, h_kv, l, s, d, d_v], causal, window, masked): &Case) -> Compiled {
    let g = Graph::new();
    let q = g.parameter("q", [b, h, l, d]);
    let k = g.parameter("k", [b, h_kv, s, d]);
    let v = g.parameter("v", [b, h_kv, s, d_v]);
    let mask = masked.then(|| g.input("mask", DType::F32, [b, 1, l, s]));
    let y = g.attention(q, k, v, mask, AttentionOptions::new(0.3).causal(causal).window(window));
    let weight = g.input("weight", DType::F32, [b, h, l, d_v]);
    g.set_loss(g.sum_all(g.mul(g.mul(y, y), weight)));
    Compiler::new(device).compile_training(&g).unwrap()
}

fn gradients(compiled: &Compiled, case: &Case) -> Vec<Vec<f32>> {
    let ([b, _, _, l, s, ..], _, _, masked) = *case;
    let mut session = compiled.init_zeros().unwrap();
    for (i, name) in ["q", "k", "v"].into_iter().enumerate() {
        let n = session.read_parameter::<f32>(name).unwrap().len();
        session.set_parameter(name, &ramp(n + i, 0.8)[i..]).unwrap();
    }
    if masked {
        // every fifth key unseen, and of one query all
        let of = |i: usize| if i % 5 == 2 || i / s % l == 3 { f32::NEG_INFINITY } else { 0.25 };
        session.set_input("mask", &(0..b * l * s).map(of).collect::<Vec<_>>()).unwrap();
    }
    let n: usize = case.0[0] * case.0[1] * case.0[3] * case.0[6];
    session.set_input("weight", &ramp(n, 1.5)).unwrap();
    session.step().unwrap();
    session.wait().unwrap();
    ["q", "k", "v"].iter().map(|name| session.read_gradient(name).unwrap()).collect()
}

#[test]
fn gradients_by_what_the_forward_pass_kept_are_those_of_the_decomposition() {
    let (gpu, cpu) = (devices::gpu().device, Device::cpu(1));
    for case in &CASES {
        let there = compiled(&gpu, case);
        let kept =
            there.plan().steps.iter().any(|s| matches!(&s.work, Work::Own(GpuForm::AttentionGrad(..))));
        assert!(kept, "{case:?}");
        // the CPU has no such kernel: it takes attention apart
        let wanted = gradients(&compiled(&cpu, case), case);
        for (came, wanted) in gradients(&there, case).iter().zip(&wanted) {
            assert!(wanted.iter().any(|v| *v != 0.0), "{case:?}");
            near(came, wanted, 2e-5);
        }
    }
}
