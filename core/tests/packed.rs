//! A Llama whose weights are packed: q, k and v are one product, gate and up another. Right on every device, and few
//! dispatches a layer on a GPU: norms, gates and rotations are computed beside the products and the puts that need them.

mod devices;
mod gpu_plans;

use gpu_plans::{everything, plan, program};
use std::collections::BTreeMap;
use weft::device::Device;
use weft::graph::{Array, Graph, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::internals::optimise::{Options, optimise};
use weft::internals::target::gpu::program::Program;
use weft::models::{Llama, LlamaConfig, Logits};
use weft::ops::{AttentionOptions, RopeOptions};
use weft::profile::Limits;
use weft::profile::{Costs, DeviceProfile, Precision};
use weft::reference;
use weft::session::{Compiler, Optimization};
use weft::tensor::{DType, TensorType, Weights};

fn linear(g: &Graph, x: Value, names: &[String], widths: &[usize], dtype: DType) -> Value {
    let k = g.shape(x)[2];
    let weight = |(name, &n): (&String, &usize)| g.parameter_of(name, TensorType::new(dtype, [n, k]), false);
    let all: Vec<Value> = names.iter().zip(widths).map(weight).collect();
    g.linear(x, if all.len() == 1 { all[0] } else { g.concat(&all, 0) }, None)
}

/// A layer of Llama as an optimiser leaves it: see `weft::models::Llama`.
fn layer(
    g: &Graph,
    c: &LlamaConfig,
    dtype: DType,
    (x, number): (Value, usize),
    positions: Option<Value>,
    attend: impl FnOnce(Value, Value, Value) -> Value,
) -> Value {
    let name = |part: &str| format!("model.layers.{number}.{part}.weight");
    let norm = |x, part: &str| g.rms_norm(x, g.parameter(&name(part), [c.hidden]), c.rms_eps);
    let s = g.shape(x)[1] as i64;
    let (wide, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
    let names = ["q", "k", "v"].map(|p| name(&format!("self_attn.{p}_proj")));
    let qkv = linear(g, norm(x, "input_layernorm"), &names, &[wide, kv, kv], dtype);
    let heads = |at: usize, n: usize| {
        let part = g.narrow(qkv, 2, at as i64, (n * c.head_dim) as i64);
        g.permute(g.reshape(part, &[1, s, n as i64, c.head_dim as i64]), &[0, 2, 1, 3])
    };
    let turned = |x: Value| g.rope(x, positions, RopeOptions::new().theta(c.rope_theta));
    let (q, k, v) =
        (turned(heads(0, c.heads)), turned(heads(wide, c.kv_heads)), heads(wide + kv, c.kv_heads));
    let joined = g.reshape(g.permute(attend(q, k, v), &[0, 2, 1, 3]), &[1, s, wide as i64]);
    let x = g.add(x, linear(g, joined, &[name("self_attn.o_proj")], &[c.hidden], dtype));
    let names = ["gate", "up"].map(|p| name(&format!("mlp.{p}_proj")));
    let both = linear(g, norm(x, "post_attention_layernorm"), &names, &[c.intermediate; 2], dtype);
    let half = |at: usize| g.narrow(both, 2, (at * c.intermediate) as i64, c.intermediate as i64);
    let y = g.mul(g.silu(half(0)), half(1));
    g.add(x, linear(g, y, &[name("mlp.down_proj")], &[c.hidden], dtype))
}

fn ends(g: &Graph, c: &LlamaConfig, dtype: DType, ids: Value) -> (Value, Value) {
    let table =
        g.parameter_of("model.embed_tokens.weight", TensorType::new(dtype, [c.vocabulary, c.hidden]), false);
    let x = g.cast(g.embedding(table, ids), DType::F32);
    (g.reshape(x, &[1, -1, c.hidden as i64]), table)
}

fn head(g: &Graph, c: &LlamaConfig, x: Value, table: Value) -> Value {
    g.linear(g.rms_norm(x, g.parameter("model.norm.weight", [c.hidden]), c.rms_eps), table, None)
}

fn forward(c: &LlamaConfig, dtype: DType, seq: usize) -> Graph {
    let g = Graph::new();
    let (mut x, table) = ends(&g, c, dtype, g.input("ids", DType::U32, [1, seq]));
    let scale = 1.0 / (c.head_dim as f64).sqrt();
    for i in 0..c.layers {
        x = layer(&g, c, dtype, (x, i), None, |q, k, v| {
            g.attention(q, k, v, None, AttentionOptions::new(scale).causal(true))
        });
    }
    g.output("logits", head(&g, c, x, table));
    g
}

fn decode(c: &LlamaConfig, dtype: DType, capacity: usize) -> Graph {
    let g = Graph::new();
    let [id, position] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
    let (mut x, table) = ends(&g, c, dtype, id);
    let came = g.le(g.iota(&[capacity as i64], 0), position);
    let mask = g.select(came, g.scalar(0.0, DType::F32), g.scalar(-1e9, DType::F32));
    let scale = 1.0 / (c.head_dim as f64).sqrt();
    for i in 0..c.layers {
        let kept = |which: &str, new: Value| {
            let shape = [1, c.kv_heads, capacity, c.head_dim];
            let cache = g.state(&format!("cache.{i}.{which}"), DType::F32, shape);
            let next = g.put(cache, position, new, 2);
            g.set_state(cache, next);
            next
        };
        x = layer(&g, c, dtype, (x, i), Some(position), |q, k, v| {
            g.attention(q, kept("key", k), kept("value", v), Some(mask), AttentionOptions::new(scale))
        });
    }
    g.output("logits", g.reshape(head(&g, c, x, table), &[1, -1]));
    g
}

/// As the compiler plans for a GPU.
fn on_gpu(g: &Graph, precision: Precision) -> Program {
    program(&plan(g, &everything()).unwrap(), &Limits::large(), precision).unwrap()
}

/// What a second layer adds.
fn of_a_layer(build: impl Fn(&LlamaConfig) -> Graph, precision: Precision) -> (usize, usize) {
    let count = |layers: usize| {
        let c = LlamaConfig { layers, ..LlamaConfig::smollm2_135m() };
        let made = on_gpu(&build(&c), precision);
        (made.schedule.steps.len(), made.schedule.steps.iter().filter(|d| d.barrier).count())
    };
    let (one, two) = (count(1), count(2));
    (two.0 - one.0, two.1 - one.1)
}

#[test]
fn a_layer_of_packed_weights_is_few_dispatches() {
    for precision in [Precision::Full, Precision::Fast] {
        for dtype in [DType::F32, DType::F16] {
            let (all, barriers) = of_a_layer(|c| forward(c, dtype, 128), precision);
            assert!(
                all <= 6 && barriers <= 6,
                "forward, {precision}, {dtype}: {all} dispatches, {barriers} barriers"
            );
            let (all, barriers) = of_a_layer(|c| decode(c, dtype, 256), precision);
            assert!(
                all <= 6 && barriers <= 6,
                "decode, {precision}, {dtype}: {all} dispatches, {barriers} barriers"
            );
        }
    }
}

/// The model as it is written, after the optimiser.
fn optimised(g: Graph) -> Graph {
    let profile = DeviceProfile { costs: Costs::gpu(132, true), ..Device::cpu(1).profile() };
    optimise(&g, &[], &profile, &Options::default()).unwrap().graph
}

#[test]
fn a_layer_of_the_model_as_it_is_written_is_as_few() {
    for dtype in [DType::F32, DType::F16] {
        let whole = |c: &LlamaConfig| {
            let g = Graph::new();
            let ids = g.input("ids", DType::U32, [1, 128]);
            g.output("logits", Llama::new(c).with_dtype(dtype).forward(&g, ids, Logits::All));
            optimised(g)
        };
        let (all, _) = of_a_layer(whole, Precision::Full);
        assert!(all <= 6, "forward, {dtype}: {all} dispatches");
        let token = |c: &LlamaConfig| {
            let g = Graph::new();
            let [id, position] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
            g.output("logits", Llama::new(c).with_dtype(dtype).decode(&g, id, position, 256));
            optimised(g)
        };
        let (all, _) = of_a_layer(token, Precision::Full);
        assert!(all <= 6, "decode, {dtype}: {all} dispatches");
    }
}

fn small() -> LlamaConfig {
    LlamaConfig {
        hidden: 24,
        intermediate: 52,
        layers: 2,
        heads: 3,
        kv_heads: 1,
        head_dim: 8,
        vocabulary: 40,
        ..LlamaConfig::smollm2_135m()
    }
}

/// Arrays for all parameters of a graph, by name alone: the same in every graph that has them.
fn weights(g: &Graph) -> BTreeMap<String, Array> {
    let data = g.data().unwrap();
    let array = |(_, n): (Value, &weft::graph::Node)| {
        let name = n.name.clone().unwrap_or_default();
        let seed = name.bytes().fold(7u64, |h, b| h * 31 % 1_000_003 + u64::from(b));
        let (mut at, share) = (0, if n.ty.shape.len() == 1 { 1.0 } else { 0.35 });
        let next = |_: &[usize]| {
            at += 1;
            let v = uniform(philox_word(seed, 3, at)) * 2.0 - 1.0;
            f64::from(half::f16::from_f64(v * share).to_f32())
        };
        (name, Array::from_fn(n.ty.clone(), next))
    };
    data.parameters().map(array).collect()
}

fn near(came: &[f32], wanted: &[f64], tolerance: f64, what: &str) {
    let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 0.1, "{what}: all but zero");
    for (i, (a, b)) in came.iter().zip(wanted).enumerate() {
        assert!((f64::from(*a) - b).abs() <= tolerance * largest, "{what}: element {i} is {a}, wanted {b}");
    }
}

#[test]
fn packed_weights_give_the_logits_of_the_model() {
    let (c, seq) = (small(), 7usize);
    let ids: Vec<u32> = (0..seq as u32).map(|i| (i * 11 + 3) % 40).collect();
    for dtype in [DType::F32, DType::F16] {
        // the model as it is written, one product a weight, by the reference
        let plain = Graph::new();
        let tokens = plain.input("ids", DType::U32, [1, seq]);
        plain.output("logits", Llama::new(&c).with_dtype(dtype).forward(&plain, tokens, Logits::All));
        let arrays = weights(&plain);
        let mut given = arrays.clone();
        let ty = TensorType::new(DType::U32, [1, seq]);
        given.insert("ids".into(), Array::new(ty, ids.iter().map(|&v| f64::from(v)).collect()));
        let wanted = reference::run(&plain, &given).unwrap()["logits"].data.clone();
        let tensors: Weights = arrays.iter().map(|(n, a)| (n.clone(), a.to_tensor().unwrap())).collect();
        for t in devices::all() {
            let tolerance = t.tolerance_behind(10, 2e-5);
            let compiled = t.compiler().compile(&forward(&c, dtype, seq)).unwrap();
            let mut s = compiled.init(&tensors).unwrap();
            s.set_input::<u32>("ids", &ids).unwrap();
            s.step().unwrap();
            near(
                &s.read_output::<f32>("logits").unwrap(),
                &wanted,
                tolerance,
                &format!("{dtype} on {}", t.name()),
            );
            // and token by token, each seeing those before it
            let mut s = t.compiler().compile(&decode(&c, dtype, 16)).unwrap().init(&tensors).unwrap();
            for (i, &id) in ids.iter().enumerate() {
                s.set_input::<u32>("id", &[id]).unwrap();
                s.set_input::<u32>("position", &[i as u32]).unwrap();
                s.step().unwrap();
                let row = &wanted[i * c.vocabulary..(i + 1) * c.vocabulary];
                near(
                    &s.read_output::<f32>("logits").unwrap(),
                    row,
                    tolerance,
                    &format!("token {i}, {dtype} on {}", t.name()),
                );
            }
        }
    }
}

#[test]
fn each_saving_saves_dispatches_and_changes_no_result() {
    let (c, seq) = (small(), 11usize);
    let ids: Vec<u32> = (0..seq as u32).map(|i| (i * 13 + 5) % 40).collect();
    let g = forward(&c, DType::F32, seq);
    let tensors: Weights = weights(&g).iter().map(|(n, a)| (n.clone(), a.to_tensor().unwrap())).collect();
    let t = devices::gpu();
    let run = |compiler: Compiler| {
        let mut s = compiler.compile(&g).unwrap().init(&tensors).unwrap();
        s.set_input::<u32>("ids", &ids).unwrap();
        s.step().unwrap();
        (s.dispatches(), s.read_output::<f32>("logits").unwrap())
    };
    let (fewest, wanted) = run(t.compiler());
    let wanted: Vec<f64> = wanted.into_iter().map(f64::from).collect();
    for (name, saving) in Optimization::ALL {
        let (dispatches, came) = run(t.compiler().without(saving));
        // apart from two: a GPU's products read joined weights where they lie, and compute a gate as they read it
        let fewer = matches!(saving, Optimization::NormsInProducts | Optimization::SharedDispatches);
        assert_eq!(dispatches > fewest, fewer, "{name}: {dispatches} dispatches, {fewest} with it");
        near(&came, &wanted, t.tolerance_behind(10, 2e-5), name);
    }
}

/// Products of one input with weights that are packed in blocks: q, k and v, gate and up.
fn of_blocks(dtype: DType, biased: bool) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [1, 64]);
    let product = |name: &str| {
        let w = g.dequantise(g.parameter_of(name, TensorType::new(dtype, [96, 64]), false));
        g.linear(x, w, biased.then(|| g.parameter_of(&format!("{name}.bias"), TensorType::f32([96]), false)))
    };
    let [q, k, v] = ["q", "k", "v"].map(product);
    g.output("y", g.add(g.mul(q, g.tanh(k)), v));
    g
}

#[test]
fn products_of_block_weights_are_not_packed_by_copying_what_was_widened() {
    for (dtype, biased) in [(DType::Q8, false), (DType::Q4, false), (DType::Q4, true)] {
        let g = of_blocks(dtype, biased);
        let gpu = DeviceProfile {
            gpu: Some(Limits::large()),
            kind: weft::profile::DeviceKind::Discrete,
            costs: Costs::gpu(132, true),
            ..Device::cpu(1).profile()
        };
        for profile in [
            Device::cpu(1).profile(),
            DeviceProfile { costs: Costs::gpu(132, true), ..Device::cpu(1).profile() },
            gpu,
        ] {
            let compiler = Compiler::for_profile(&profile);
            let [packed, apart] = [
                compiler.explain(&g, false),
                Compiler::for_profile(&profile).with_rules(&[]).explain(&g, false),
            ]
            .map(|e| e.unwrap().after);
            let moved = |f: &weft::session::Figures| f.read_bytes + f.written_bytes;
            assert!(
                moved(&packed) <= moved(&apart),
                "{dtype}: {} bytes a step, {} as it came",
                moved(&packed),
                moved(&apart)
            );
            let done = optimise(&g, &[], &profile, &Options::default()).unwrap();
            assert!(
                !done.graph.data().unwrap().to_string().contains("concat"),
                "{dtype}\n{}",
                done.graph.data().unwrap()
            );
        }
    }
}
