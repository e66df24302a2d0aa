//! Rotary embedding in longhand, as Hugging Face's exports have it: tables of doubled angles from positions, and
//! x·cos + rotate_half(x)·sin with slices, a negation and a concatenation.

use super::{agree, arrays, devices, optimised, profiles, run_on, run_reference};
use crate::gpu_plans::{plan, program};
use weft::graph::{Graph, NodeKind, Value};
use weft::internals::optimise::Options;
use weft::internals::plan::PlanOptions;
use weft::ops::AttentionOptions;
use weft::profile::Limits;
use weft::profile::Precision;
use weft::tensor::DType;

const HEADS: i64 = 3;
const SIZE: i64 = 16;
const TOKENS: i64 = 10;
const LAYERS: usize = 2;

/// cos and sin [1, tokens, size], each angle twice.
fn tables(g: &Graph) -> [Value; 2] {
    let frequency = |i: i64| 10_000f64.powf(-2.0 * i as f64 / SIZE as f64) as f32;
    let frequencies = g.constant_f32(&[1, SIZE as usize / 2], (0..SIZE / 2).map(frequency).collect());
    let positions = g.constant_f32(&[TOKENS as usize, 1], (0..TOKENS).map(|p| p as f32).collect());
    let angles = g.mul(positions, frequencies);
    let doubled = g.unsqueeze(g.concat(&[angles, angles], -1), 0);
    [g.cos(doubled), g.sin(doubled)]
}

fn rotate_half(g: &Graph, x: Value) -> Value {
    let half = SIZE / 2;
    g.concat(&[g.neg(g.narrow(x, 3, half, half)), g.narrow(x, 3, 0, half)], -1)
}

/// Attention layers over rotated queries and keys.
fn layers(longhand: bool) -> Graph {
    let g = Graph::new();
    let width = (HEADS * SIZE) as usize;
    let mut x = g.input("x", DType::F32, [1, TOKENS as usize, width]);
    let [cos, sin] = if longhand { tables(&g).map(|t| g.unsqueeze(t, 1)) } else { [Value::POISON; 2] };
    for layer in 0..LAYERS {
        let heads = |name: &str| {
            let w = g.parameter(&format!("{layer}.{name}"), [width, width]);
            g.permute(g.reshape(g.linear(x, w, None), &[1, TOKENS, HEADS, SIZE]), &[0, 2, 1, 3])
        };
        let turned = |x: Value| match longhand {
            true => g.add(g.mul(x, cos), g.mul(rotate_half(&g, x), sin)),
            false => g.rope(x, None, Default::default()),
        };
        let (q, k, v) = (turned(heads("q")), turned(heads("k")), heads("v"));
        let seen = g.attention(q, k, v, None, AttentionOptions::new(1.0 / (SIZE as f64).sqrt()).causal(true));
        x = g.add(x, g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[1, TOKENS, HEADS * SIZE]));
    }
    g.output("y", x);
    g
}

fn count(g: &Graph, name: &str) -> usize {
    let data = g.data().unwrap();
    data.nodes.iter().filter(|n| matches!(&n.kind, NodeKind::Op(op, _) if op.name() == name)).count()
}

#[test]
fn longhand_rotations_are_recognised_and_cost_what_the_composite_costs() {
    let [composite, spelled] = [false, true].map(layers);
    for (p, gpu) in profiles().iter().zip([false, true]) {
        let done = optimised(&spelled, p, &Options::default());
        let found = ["rotary", "neg", "concat"].map(|n| count(&done.graph, n));
        // the tables' own concatenation stays, of constants; one for all layers
        assert_eq!((found[0], found[1]), (2 * LAYERS, 0), "{}", done.graph.data().unwrap());
        let packed = count(&optimised(&composite, p, &Options::default()).graph, "concat");
        assert_eq!(found[2], packed + 1, "{}", done.graph.data().unwrap());
        let options = PlanOptions { fold_weights: true, concurrent: gpu, ..PlanOptions::default() };
        let [ours, theirs, raw] =
            [&done.graph, &optimised(&composite, p, &Options::default()).graph, &spelled].map(|g| {
                if gpu {
                    plan(g, &options).unwrap()
                } else {
                    weft::internals::plan::plan(g, &options).unwrap().into()
                }
            });
        assert_eq!(ours.steps.len(), theirs.steps.len());
        assert!(raw.steps.len() >= ours.steps.len() + 2 * LAYERS, "{} {}", raw.steps.len(), ours.steps.len());
        if gpu {
            let dispatches = |p| program(p, &Limits::large(), Precision::Full).unwrap().schedule.steps.len();
            assert_eq!(dispatches(&ours), dispatches(&theirs));
        }
    }
}

#[test]
fn longhand_rotations_are_the_composite_in_value() {
    let [composite, spelled] = [false, true].map(layers);
    let given = arrays(&composite, 5);
    let wanted = run_reference(&composite, &given);
    // frequencies, and with them angles, are rounded to f32 where they are written out
    agree(&Ok(run_reference(&spelled, &given)), &wanted, 2e-6).unwrap();
    for tested in devices::all() {
        let tolerance = tested.tolerance_behind(4 * LAYERS, 2e-5);
        agree(&run_on(&tested, &spelled, &given, true), &wanted, tolerance)
            .unwrap_or_else(|e| panic!("{}: {e}", tested.name()));
    }
}

/// A token at a time: queries and keys turned by the token's position, keys and values put into a cache.
fn decoding(longhand: bool, layers: usize) -> Graph {
    let g = Graph::new();
    let (width, capacity) = ((HEADS * SIZE) as usize, 32);
    let mut x = g.input("x", DType::F32, [1, 1, width]);
    let position = g.input("position", DType::U32, [1]);
    // [1, 1, 1, size]
    let frequency = |i: i64| 10_000f64.powf(-2.0 * i as f64 / SIZE as f64) as f32;
    let frequencies = g.constant_f32(&[1, SIZE as usize / 2], (0..SIZE / 2).map(frequency).collect());
    let angles = g.mul(g.reshape(g.cast(position, DType::F32), &[1, 1]), frequencies);
    let doubled = g.reshape(g.concat(&[angles, angles], -1), &[1, 1, 1, SIZE]);
    let (cos, sin) = (g.cos(doubled), g.sin(doubled));
    for layer in 0..layers {
        let heads = |name: &str| {
            let w = g.parameter(&format!("{layer}.{name}"), [width, width]);
            g.permute(g.reshape(g.linear(x, w, None), &[1, 1, HEADS, SIZE]), &[0, 2, 1, 3])
        };
        let turned = |x: Value| match longhand {
            true => g.add(g.mul(x, cos), g.mul(rotate_half(&g, x), sin)),
            false => g.rope(x, Some(position), Default::default()),
        };
        let cache = |name: &str, new: Value| {
            let state =
                g.state(&format!("{layer}.{name}"), DType::F32, [1, HEADS as usize, capacity, SIZE as usize]);
            let next = g.put(state, position, new, 2);
            g.set_state(state, next);
            next
        };
        let (q, k, v) = (turned(heads("q")), turned(heads("k")), heads("v"));
        let (k, v) = (cache("keys", k), cache("values", v));
        let seen = g.attention(q, k, v, None, AttentionOptions::new(1.0 / (SIZE as f64).sqrt()));
        x = g.add(x, g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[1, 1, HEADS * SIZE]));
    }
    g.output("y", x);
    g
}

#[test]
fn a_layer_with_longhand_rotations_decodes_in_the_composites_dispatches() {
    let gpu = &profiles()[1];
    let compiler = weft::session::Compiler::for_profile(&weft::profile::DeviceProfile {
        gpu: Some(Limits::large()),
        kind: weft::profile::DeviceKind::Discrete,
        ..gpu.clone()
    });
    let dispatches = |longhand: bool, layers: usize| {
        compiler.explain(&decoding(longhand, layers), false).unwrap().after.dispatches
    };
    // the tables are made once, whatever the layers
    let of_a_layer = |longhand: bool| dispatches(longhand, 6) - dispatches(longhand, 5);
    assert_eq!(of_a_layer(true), of_a_layer(false));
}

#[test]
fn what_only_looks_like_a_rotation_is_none() {
    // thirds in place of halves; halves that are not exchanged; the sign on the other half; another x
    let build = |wrong: usize| {
        let g = Graph::new();
        let [x, other] = ["x", "other"].map(|n| g.input(n, DType::F32, [4, 6]));
        let [cos, sin] = ["cos", "sin"].map(|n| g.input(n, DType::F32, [6]));
        let part = |v: Value, start: i64, len: i64| g.narrow(v, 1, start, len);
        let turned = match wrong {
            0 => g.concat(&[g.neg(part(x, 4, 2)), part(x, 0, 4)], -1),
            1 => g.concat(&[g.neg(part(x, 0, 3)), part(x, 3, 3)], -1),
            2 => g.concat(&[part(x, 3, 3), g.neg(part(x, 0, 3))], -1),
            3 => g.concat(&[g.neg(part(other, 3, 3)), part(x, 0, 3)], -1),
            _ => g.concat(&[g.neg(part(x, 3, 3)), part(x, 0, 3)], -1),
        };
        g.output("y", g.add(g.mul(x, cos), g.mul(turned, sin)));
        g
    };
    for wrong in 0..5 {
        let g = build(wrong);
        let done = optimised(&g, &profiles()[0], &Options::default());
        assert_eq!(count(&done.graph, "rotary"), usize::from(wrong == 4), "{}", done.graph.data().unwrap());
        let given = arrays(&g, 9);
        agree(&Ok(run_reference(&done.graph, &given)), &run_reference(&g, &given), 1e-6).unwrap();
    }
}
