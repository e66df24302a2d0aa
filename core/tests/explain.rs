//! Explanations of compiled graphs: their counts equal those derived by hand, those of the plan and those of the device, and
//! repetitions are folded.

mod devices;

use std::collections::BTreeSet;
use weft::device::Device;
use weft::graph::{Graph, Lowering, NodeKind, Value};
use weft::models::{Llama, LlamaConfig, Logits};
use weft::profile::{Costs, DeviceKind, DeviceProfile, Limits, Precision};
use weft::session::{Compiler, Explanation, Part, Profiling};
use weft::tensor::{DType, TensorType};

fn cpu() -> DeviceProfile {
    Device::cpu(2).profile()
}

fn large_gpu() -> DeviceProfile {
    DeviceProfile {
        name: "a large GPU".into(),
        kind: DeviceKind::Discrete,
        threads: 0,
        memory: 0,
        gpu: Some(Limits::large()),
        costs: Costs::gpu(132, true),
    }
}

fn small(layers: usize) -> LlamaConfig {
    LlamaConfig {
        layers,
        vocabulary: 512,
        intermediate: 384,
        hidden: 192,
        heads: 3,
        kv_heads: 1,
        ..LlamaConfig::smollm2_135m()
    }
}

fn forward(layers: usize) -> Graph {
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [1, 24]);
    g.output("logits", Llama::new(&small(layers)).forward(&g, ids, Logits::All));
    g
}

fn decode(layers: usize) -> Graph {
    let g = Graph::new();
    let [id, position] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
    g.output("logits", Llama::new(&small(layers)).with_dtype(DType::F16).decode(&g, id, position, 32));
    g
}

fn training(layers: usize) -> Graph {
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [1, 24]);
    g.set_loss(Llama::new(&small(layers)).loss(&g, ids));
    g
}

fn launches(e: &Explanation) -> Vec<&Part> {
    e.segments.iter().flat_map(|s| std::iter::repeat_n(&s.parts, s.times).flatten()).collect()
}

#[test]
fn a_layers_figures_are_those_of_paper_and_pencil() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 8]);
    let (w, b) = (g.parameter("w", [16, 8]), g.parameter("b", [16]));
    g.output("y", g.tanh(g.linear(x, w, Some(b))));
    let e = Compiler::for_profile(&cpu()).explain(&g, false).unwrap();
    let (before, after) = (e.before, e.after);
    // linear and tanh; alone they are a product, an addition and a tanh
    assert_eq!((before.nodes, before.dispatches, after.nodes, after.dispatches), (2, 3, 2, 1));
    // x, w, b once; y once. By themselves, the product's result is written and read, and so is the sum
    assert_eq!((after.read_bytes, after.written_bytes), (4.0 * (32.0 + 128.0 + 16.0), 4.0 * 64.0));
    let apart = 4.0 * (32.0 + 128.0 + 64.0 + 16.0 + 64.0);
    assert_eq!((before.read_bytes, before.written_bytes), (apart, 4.0 * 3.0 * 64.0));
    // a multiply-add is two, an addition and a tanh of each result
    assert_eq!(after.operations, 2.0 * 4.0 * 16.0 * 8.0 + 2.0 * 64.0);
    let part = &e.segments[0].parts[0];
    assert_eq!((part.operations.as_slice(), part.sort), (["linear", "tanh"].as_slice(), "product"));
    let costs = cpu().costs;
    let work = (after.moved_bytes() / costs.bytes_per_us).max(after.operations / costs.f32_per_us);
    assert!((after.microseconds - costs.start_us - work).abs() < 1e-9, "{after:?}");
    assert!(after.microseconds < before.microseconds);
}

#[test]
fn what_is_looked_up_counts_and_not_the_table() {
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [5]);
    g.output("y", g.embedding(g.parameter("table", [1000, 16]), ids));
    let e = Compiler::for_profile(&cpu()).explain(&g, false).unwrap();
    assert_eq!(e.after.read_bytes, 4.0 * (5.0 + 5.0 * 16.0));
    assert_eq!(e.after.memory.weights, 4 * 16_000);
}

#[test]
fn what_a_gpu_computes_where_it_is_read_is_its_readers() {
    // few rows: the product computes 2·x + 1 itself
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 64]);
    let scalar = |v: f64| g.scalar(v, DType::F32);
    let a = g.add(g.mul(x, scalar(2.0)), scalar(1.0));
    g.output("y", g.matmul(a, g.parameter("w", [64, 32])));
    let [cpu, gpu] = [cpu(), large_gpu()].map(|p| Compiler::for_profile(&p).explain(&g, false).unwrap());
    let weight = 4.0 * 64.0 * 32.0;
    assert_eq!((gpu.after.dispatches, gpu.after.read_bytes), (1, 4.0 * 256.0 + weight));
    assert_eq!(gpu.after.written_bytes, 4.0 * 128.0);
    assert_eq!((cpu.after.dispatches, cpu.after.read_bytes), (2, 2.0 * 4.0 * 256.0 + weight));
    for name in ["add", "matmul"] {
        assert!(gpu.segments[0].parts[0].written_as.contains(&name), "{:?}", gpu.segments);
    }

    // blocks of 32 in 34 bytes are widened as they are read
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 64]);
    let blocks = TensorType::new(DType::Q8, [32, 64]);
    let stored = blocks.bytes().unwrap() as f64;
    let w = g.dequantise(g.parameter_of("w", blocks, false));
    g.output("y", g.linear(x, w, None));
    let gpu = Compiler::for_profile(&large_gpu()).explain(&g, false).unwrap();
    assert_eq!((gpu.after.dispatches, gpu.after.read_bytes), (1, 4.0 * 256.0 + stored));
}

#[test]
fn launches_are_those_of_the_device() {
    for tested in devices::all() {
        let compiler = tested.compiler();
        for (graph, train) in [(forward(3), false), (decode(3), false), (training(2), true)] {
            let e = compiler.explain(&graph, train).unwrap();
            let compiled =
                if train { compiler.compile_training(&graph) } else { compiler.compile(&graph) }.unwrap();
            let mut session = compiled.init_zeros().unwrap();
            assert_eq!(e.after.dispatches, session.dispatches(), "{}", tested.name());
            assert_eq!(launches(&e).len(), e.after.dispatches);
            assert_eq!(e.problem, None);
            if tested.is_cpu() {
                assert_eq!(e.after.memory.total(), compiled.memory_summary().total_bytes);
                continue;
            }
            assert_eq!(e.after.memory.total(), session.memory_summary().total_bytes);
            // in order, and of the sorts that the device itself measured
            session.set_profiling(Profiling::Dispatch).unwrap();
            for port in session.inputs().to_vec() {
                session.set_input::<u32>(&port.name, &vec![1; port.shape.iter().product()]).unwrap();
            }
            for _ in 0..3 {
                session.step().unwrap();
                session.wait().unwrap();
            }
            let measured = session.gpu_time().unwrap().unwrap().parts;
            let told: Vec<&str> = launches(&e).iter().map(|p| p.sort).collect();
            // what travels in and out is no launch of the plan
            let measured = measured.iter().map(|p| p.kind).filter(|kind| *kind != "other");
            assert_eq!(told, measured.collect::<Vec<_>>());
        }
    }
}

#[test]
fn layers_are_told_once_however_many_there_are() {
    for profile in [cpu(), large_gpu()] {
        let compiler = Compiler::for_profile(&profile);
        for (build, train) in [(forward as fn(usize) -> Graph, false), (decode, false), (training, true)] {
            let told = |layers: usize| {
                let e = compiler.explain(&build(layers), train).unwrap();
                let parts: usize = e.segments.iter().map(|s| s.parts.len()).sum();
                (parts, e.segments.iter().map(|s| s.times).max().unwrap(), e.after.dispatches)
            };
            let ((few, _, short), (many, times, long)) = (told(6), told(9));
            assert_eq!(few, many, "parts told on {}", profile.name);
            // the first and the last may differ from those between
            assert!((7..=9).contains(&times), "{times} of 9 layers on {}", profile.name);
            assert!(long > short && (long - short) % 3 == 0, "{short} and {long} launches");
        }
    }
}

#[test]
fn figures_are_the_sums_of_the_launches() {
    for profile in [cpu(), large_gpu()] {
        for precision in [Precision::Full, Precision::Fast] {
            let compiler = Compiler::for_profile(&profile).with_precision(precision);
            let e = compiler.explain(&forward(4), false).unwrap();
            let sum = |f: fn(&Part) -> f64| launches(&e).into_iter().map(f).sum::<f64>();
            let near = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b, "{a} {b}");
            near(sum(|p| p.read_bytes), e.after.read_bytes);
            near(sum(|p| p.written_bytes), e.after.written_bytes);
            near(sum(|p| p.flop), e.after.operations);
            near(sum(|p| p.microseconds), e.after.microseconds);
            // every weight is read, and the products are all there
            let c = small(4);
            let layer = c.hidden * (2 * c.hidden + 2 * c.head_dim + 3 * c.intermediate);
            let products = (c.layers * layer + c.vocabulary * c.hidden) as f64;
            assert!(e.after.read_bytes > 4.0 * products, "{:?}", e.after);
            assert!(e.after.operations > 2.0 * 24.0 * products && e.after.operations < 3.0 * 24.0 * products);
        }
    }
}

#[test]
fn fewer_bytes_move_once_a_graph_is_compiled() {
    for profile in [cpu(), large_gpu()] {
        for (graph, train) in [(forward(3), false), (decode(3), false), (training(3), true)] {
            let e = Compiler::for_profile(&profile).explain(&graph, train).unwrap();
            assert!(e.after.moved_bytes() < e.before.moved_bytes(), "{:?}\n{:?}", e.before, e.after);
            assert!(e.after.dispatches * 4 < e.before.dispatches * 3, "{:?}\n{:?}", e.before, e.after);
            assert!(e.after.microseconds < e.before.microseconds);
        }
    }
}

#[test]
fn every_operation_is_carried_out_by_a_launch() {
    // without rules the graph that is planned is the one that was written
    let graph = forward(2);
    let data = graph.data().unwrap();
    for profile in [cpu(), large_gpu()] {
        let e = Compiler::for_profile(&profile).with_rules(&[]).explain(&graph, false).unwrap();
        let mut wanted = BTreeSet::new();
        for node in &data.nodes {
            let NodeKind::Op(op, attrs) = &node.kind else { continue };
            let inputs = data.input_types(node);
            if !matches!(op.lower(&weft::graph::Call { inputs: &inputs, attrs }), Lowering::View(_)) {
                wanted.insert(op.name());
            }
        }
        let told: BTreeSet<&str> = launches(&e).iter().flat_map(|p| p.operations.iter().copied()).collect();
        assert!(wanted.is_subset(&told), "{wanted:?} {told:?}");
        let of = |name: &str| {
            launches(&e).iter().map(|p| p.operations.iter().filter(|o| **o == name).count()).sum::<usize>()
        };
        let there = |name: &str| {
            data.nodes.iter().filter(|n| matches!(&n.kind, NodeKind::Op(op, _) if op.name() == name)).count()
        };
        for name in ["linear", "attention", "embedding"] {
            assert_eq!(of(name), there(name), "{name} on {}", profile.name);
        }
        assert!(e.changes.is_empty() && launches(&e).iter().all(|p| p.rules.is_empty()));
    }
}

#[test]
fn a_fusion_names_the_rules_that_led_to_it() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [6, 32]);
    let e = g.exp(g.sub(x, g.max_over(x, &[-1], true)));
    g.output("y", g.div(e, g.sum(e, &[-1], true)));
    let found = Compiler::for_profile(&cpu()).explain(&g, false).unwrap();
    let [part] = found.segments[0].parts.as_slice() else { panic!("{:?}", found.segments) };
    assert_eq!(part.operations, ["softmax"]);
    assert!(part.rules.contains(&"softmax-longhand"), "{part:?}");
    for wanted in ["exp", "sub", "sum", "div"] {
        assert!(part.written_as.contains(&wanted), "{:?}", part.written_as);
    }
    assert_eq!((found.before.nodes, found.after.nodes), (5, 1));

    // three products of one input: one launch that does the work of three, by the rule that packs
    let g = Graph::new();
    let x = g.input("x", DType::F32, [6, 64]);
    let product = |n: &str| g.linear(x, g.parameter(n, [64, 64]), None);
    let all: Vec<Value> = ["q", "k", "v"].map(product).to_vec();
    g.output("y", g.softmax(g.add(g.mul(all[0], all[1]), all[2]), -1));
    let found = Compiler::for_profile(&large_gpu()).explain(&g, false).unwrap();
    let product = launches(&found).into_iter().find(|p| p.sort == "product").unwrap();
    assert!(product.rules.contains(&"pack-three"), "{product:?}");
    assert_eq!(product.written_as.iter().filter(|o| **o == "linear").count(), 3, "{product:?}");
}

#[test]
fn a_training_step_tells_its_backward_pass() {
    for profile in [cpu(), large_gpu()] {
        let e = Compiler::for_profile(&profile)
            .with_precision(Precision::Fast)
            .explain(&training(2), true)
            .unwrap();
        assert_eq!(e.precision, Precision::Full);
        let backward = launches(&e).iter().filter(|p| p.backward).count();
        assert!(backward > e.after.dispatches / 2, "{backward} of {}", e.after.dispatches);
        // a product's gradient is two products: three times the operations of the forward pass
        let forward = Compiler::for_profile(&profile).explain(&forward(2), false).unwrap();
        let ratio = e.after.operations / forward.after.operations;
        assert!((2.5..3.6).contains(&ratio), "{ratio} on {}", profile.name);
    }
}

#[test]
fn an_explanation_depends_on_graph_profile_and_options_alone() {
    let profile: DeviceProfile = large_gpu().to_string().parse().unwrap();
    let of = |p: &DeviceProfile| Compiler::for_profile(p).explain(&decode(3), false).unwrap();
    assert_eq!(of(&large_gpu()), of(&profile));
    // a device a hundred times slower to start a step takes so much longer
    let mut slow = profile.clone();
    slow.costs.start_us *= 100.0;
    let (fast, slow) = (of(&profile).after, of(&slow).after);
    assert!(
        slow.microseconds > fast.microseconds + 50.0 * profile.costs.start_us * fast.dispatches as f64 / 3.0
    );
    assert!(Compiler::for_profile(&profile).explain(&Graph::new(), false).is_err());
}
