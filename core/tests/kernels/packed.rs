//! Training of a Llama with packed products: q, k and v are one product, gate and up are one, over concatenated weights.

use super::gpu_plans::{everything, plan, program};
use super::hazards::check_hazards;
use super::{check_plan, devices};
use std::collections::HashSet;
use weft::autodiff::gradients;
use weft::graph::{Graph, Value};
use weft::internals::plan::PlanOptions;
use weft::internals::target::gpu::forms::Plan;
use weft::internals::target::gpu::program::Program;
use weft::models::LlamaConfig;
use weft::ops::{AttentionOptions, RopeOptions};
use weft::profile::Limits;
use weft::profile::Precision;
use weft::tensor::DType;

fn layer(g: &Graph, c: &LlamaConfig, x: Value, layer: usize) -> Value {
    let [b, s] = [g.shape(x)[0] as i64, g.shape(x)[1] as i64];
    let d = c.head_dim as i64;
    let weight = |n: &str, to: usize, from: usize| g.parameter(&format!("{layer}.{n}"), [to, from]);
    let norm = |x, n: &str| g.rms_norm(x, g.parameter(&format!("{layer}.{n}"), [c.hidden]), c.rms_eps);
    let (wide, narrow) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let weights = [weight("q", wide, c.hidden), weight("k", narrow, c.hidden), weight("v", narrow, c.hidden)];
    let all = g.linear(norm(x, "norm"), g.concat(&weights, 0), None);
    let heads = |at: usize, n: usize| {
        let part = g.narrow(all, 2, at as i64, n as i64 * d);
        g.permute(g.reshape(part, &[b, s, n as i64, d]), &[0, 2, 1, 3])
    };
    let turned = |x| g.rope(x, None, RopeOptions::new().theta(c.rope_theta));
    let (q, k) = (turned(heads(0, c.heads)), turned(heads(wide, c.kv_heads)));
    let seen =
        g.attention(q, k, heads(wide + narrow, c.kv_heads), None, AttentionOptions::new(0.125).causal(true));
    let joined = g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[b, s, wide as i64]);
    let x = g.add(x, g.linear(joined, weight("o", c.hidden, wide), None));
    let n = c.intermediate;
    let weights = [weight("gate", n, c.hidden), weight("up", n, c.hidden)];
    let both = g.linear(norm(x, "norm2"), g.concat(&weights, 0), None);
    let [gate, up] = [0, n].map(|at| g.narrow(both, 2, at as i64, n as i64));
    g.add(x, g.linear(g.mul(g.silu(gate), up), weight("down", c.hidden, n), None))
}

/// So many layers, and their loss.
fn graph(layers: usize) -> (Graph, Value) {
    let c = LlamaConfig::smollm2_135m();
    let g = Graph::new();
    let mut x = g.input("x", DType::F32, [1, 128, c.hidden]);
    for n in 0..layers {
        x = layer(&g, &c, x, n);
    }
    let loss = g.mean_all(g.mul(x, x));
    g.set_loss(loss);
    (g, loss)
}

fn training(layers: usize) -> Plan {
    let (g, loss) = graph(layers);
    let by: Vec<Value> = g.data().unwrap().parameters().map(|(v, _)| v).collect();
    let grads = gradients(&g, loss, None, &by).unwrap();
    let options = PlanOptions { gradients: by.into_iter().zip(grads).collect(), ..everything() };
    plan(&g, &options).unwrap()
}

fn large(p: &Plan) -> Program {
    program(p, &Limits::large(), Precision::Full).unwrap()
}

#[test]
fn a_layer_of_packed_products_trains_in_few_dispatches() {
    let [two, four] = [2, 4].map(|layers| large(&training(layers)));
    let layer = (four.schedule.steps.len() - two.schedule.steps.len()) / 2;
    assert!(layer <= 24, "{layer} dispatches a layer");
    // nothing is copied, filled or added that is no work of the model
    let spare = |d: &&str| ["copy", "place", "pad", "add"].iter().any(|w| d.starts_with(w));
    let labels: Vec<&str> = four.schedule.steps.iter().map(|d| d.label.as_str()).collect();
    assert_eq!(labels.iter().filter(|d| spare(d)).count(), 0, "{labels:#?}");
    // gradients of joined weights are parts of one product's result
    let p = training(1);
    let of = |name: &str| *p.gradients.iter().find(|g| p.parameters[g.parameter].name == name).unwrap();
    let [q, k, v] = ["0.q", "0.k", "0.v"].map(of);
    assert_eq!((q.buffer, v.buffer), (k.buffer, k.buffer));
    assert_eq!([q.offset, k.offset, v.offset], [0, 576 * 576, 768 * 576]);
}

#[test]
fn gradients_of_a_product_s_two_sides_run_concurrently() {
    let p = training(2);
    let products: Vec<_> = p.steps.iter().filter_map(|s| s.work.product()).collect();
    // forward one after the other; back two at a time
    let (forward, back) = products.split_at(8);
    assert!(forward.iter().all(|w| !w.concurrent), "forward");
    assert_eq!((back.len(), back.iter().filter(|w| w.concurrent).count()), (16, 16));
    let unfused = plan(&graph(1).0, &PlanOptions { no_fusion: true, ..everything() }).unwrap();
    assert!(!unfused.steps.iter().any(|s| s.work.product().is_some_and(|w| w.concurrent)));
}

#[test]
fn its_kernels_are_valid_and_do_not_touch_what_others_write() {
    let p = training(2);
    let mut failures = vec![];
    for device in devices().into_iter().filter(|d| d.0 != "split") {
        if let Some(made) =
            check_plan("packed", &p, &device, Precision::Full, &mut HashSet::new(), &mut failures)
        {
            check_hazards("packed", &p, &made);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[0]);
}
