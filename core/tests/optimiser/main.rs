//! The optimiser: optimised graphs equal unoptimised ones, the same graph gives the same result twice, longhand maths
//! becomes what the composite form becomes, and saturation beats a greedy pass over the same rules.

#[path = "../conformance/compare.rs"]
mod compare;
#[path = "../contract/mod.rs"]
mod contract;
#[path = "../devices/mod.rs"]
mod devices;
#[path = "../gpu_plans/mod.rs"]
mod gpu_plans;
mod greedy;
mod longhand;
mod mixed;
#[path = "../conformance/random.rs"]
mod random;
mod rotary;
mod wide;

use compare::{Arrays, agree, run, run_on, run_reference};
use longhand::Longhand;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, NodeKind, Value};
use weft::internals::optimise::{Group, Optimised, Options, optimise};
use weft::internals::plan::{Plan, PlanOptions, Work, plan};
use weft::models::{Bert, BertConfig, Llama, LlamaConfig, Logits};
use weft::ops::{Conv2dOptions, MaxPool2dOptions};
use weft::profile::{Costs, DeviceProfile, Precision};
use weft::tensor::{DType, Weights};

fn profile(costs: Costs) -> DeviceProfile {
    DeviceProfile { costs, ..weft::device::Device::cpu(1).profile() }
}

/// A CPU's and a large GPU's.
fn profiles() -> [DeviceProfile; 2] {
    [profile(Costs::cpu(2)), profile(Costs::gpu(132, true))]
}

fn optimised(g: &Graph, p: &DeviceProfile, options: &Options) -> Optimised {
    let done = optimise(g, &[], p, options).unwrap();
    assert_eq!(done.report.problem, None, "{}", g.data().unwrap());
    let nodes = done.graph.data().unwrap().nodes.len();
    assert_eq!(done.report.provenance.len(), nodes);
    assert!(done.report.cost_after <= done.report.cost_before * (1.0 + 1e-9) + 1e-6, "{:?}", done.report);
    done
}

/// The graph with the gradients of the sum of its results as further results; none of those that have none.
fn with_gradients(g: &Graph) -> Option<Graph> {
    let g = g.clone();
    let data = g.data().unwrap();
    let by: Vec<Value> = (data.nodes.iter().enumerate())
        .filter(|(_, n)| {
            n.ty.dtype == DType::F32 && matches!(n.kind, NodeKind::Input | NodeKind::Parameter { .. })
        })
        .map(|(i, _)| Value::at(i))
        .collect();
    let outputs: Vec<Value> = data.outputs.iter().map(|o| o.1).collect();
    drop(data);
    let loss = outputs.into_iter().map(|v| g.mean_all(v)).reduce(|a, b| g.add(a, b))?;
    let found = gradients(&g, loss, None, &by).ok()?;
    for (i, v) in found.into_iter().enumerate() {
        g.output(&format!("gradient{i}"), v);
    }
    Some(g)
}

#[test]
fn a_thousand_random_graphs_and_their_gradients_stay_what_they_were() {
    let (mut failures, mut changed, mut with, mut quantised) = (vec![], 0, 0, 0);
    let cpu = devices::all().into_iter().find(|t| t.is_cpu());
    for seed in 0..1000 {
        let (alone, arrays) = mixed::graph(seed);
        let whole = with_gradients(&alone);
        with += usize::from(whole.is_some());
        quantised += usize::from(alone.data().unwrap().to_string().contains(" = dequantise("));
        let g = whole.unwrap_or(alone);
        let wanted = run_reference(&g, &arrays);
        let done = optimised(&g, &profiles()[seed as usize % 2], &Options::default());
        changed += usize::from(!done.report.changes.is_empty());
        // intermediate results are rounded to f32 in both, in another order
        let came = Ok(run_reference(&done.graph, &arrays));
        if let Err(e) = agree(&came, &wanted, 2e-5) {
            failures.push(format!(
                "graph {seed}: {e}\n{}\n{}",
                g.data().unwrap(),
                done.graph.data().unwrap()
            ));
        }
        if let Some(t) = &cpu {
            let off = |compiler: weft::session::Compiler| agree(&run(&compiler, &g, &arrays), &wanted, 1e-2);
            let as_it_was = off(t.compiler().with_rules(&[]));
            // 1 − tanh² of a large value is rounding alone, rules or none
            let allowed = as_it_was.as_ref().map_or(2e-5, |e| (4.0 * e).max(2e-5));
            match off(t.compiler()) {
                Ok(e) if e <= allowed => {}
                other => failures.push(format!(
                    "graph {seed} on {}: {other:?}, {as_it_was:?} before\n{}",
                    t.name(),
                    g.data().unwrap()
                )),
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(3)].join("\n")
    );
    assert!(changed > 500 && with > 900, "{changed} were changed, {with} had gradients");
    assert!(quantised > 300, "{quantised} have quantised weights");
}

/// Which random graphs run on a GPU: 60, or those of WEFT_RANDOM_GRAPHS=FROM..TO; software Vulkan takes half a second each.
fn seeds() -> std::ops::Range<u64> {
    let Ok(wanted) = std::env::var("WEFT_RANDOM_GRAPHS") else { return 0..60 };
    let (from, to) = wanted.split_once("..").expect("FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

#[test]
fn random_graphs_with_longhand_maths_and_their_gradients_agree_on_a_gpu() {
    let (tested, mut failures) = (devices::gpu(), vec![]);
    for seed in seeds() {
        let (alone, arrays) = mixed::graph(seed);
        let g = with_gradients(&alone).unwrap_or(alone);
        let wanted = run_reference(&g, &arrays);
        let off = |compiler: weft::session::Compiler| agree(&run(&compiler, &g, &arrays), &wanted, 1e-2);
        let tolerance = tested.tolerance_behind(4, 2e-5);
        let came = off(tested.compiler());
        if came.as_ref().is_ok_and(|e| *e <= tolerance) {
            continue;
        }
        // 1 − tanh² of a large value is rounding alone, rules or none
        let as_it_was = off(tested.compiler().with_rules(&[]));
        match (&came, &as_it_was) {
            (Ok(e), Ok(before)) if *e <= 4.0 * before => {}
            _ => failures.push(format!("graph {seed} on {}: {came:?}, {as_it_was:?} before", tested.name())),
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

fn small_llama() -> LlamaConfig {
    LlamaConfig {
        hidden: 24,
        intermediate: 40,
        layers: 3,
        heads: 4,
        kv_heads: 2,
        head_dim: 6,
        vocabulary: 50,
        positions: 64,
        ..LlamaConfig::smollm2_135m()
    }
}

fn minilm(layers: usize) -> BertConfig {
    let json = r#"{"model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 12,
        "num_hidden_layers": 6, "vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "hidden_act": "gelu"}"#;
    BertConfig { layers, ..BertConfig::from_json(&serde_json::from_str(json).unwrap()).unwrap() }
}

fn bert_inputs(g: &Graph, batch: usize, tokens: usize) -> [Value; 3] {
    let ids = g.input("ids", DType::U32, [batch, tokens]);
    [ids, g.input("types", DType::U32, [batch, tokens]), g.input("mask", DType::F32, [batch, tokens])]
}

/// The models, small: name, graph.
fn models() -> Vec<(&'static str, Graph)> {
    let c = small_llama();
    let weights = Weights::new();
    let small = BertConfig { hidden: 24, heads: 4, intermediate: 40, vocabulary: 50, ..minilm(2) };
    let build = |f: &dyn Fn(&Graph)| {
        let g = Graph::new();
        f(&g);
        g
    };
    let ids = |g: &Graph| g.input("ids", DType::U32, [2, 7]);
    vec![
        ("llama", build(&|g| g.output("y", Llama::new(&c).forward(g, ids(g), Logits::All)))),
        (
            "llama, a token",
            build(&|g| {
                let (id, at) = (g.input("ids", DType::U32, [1]), g.input("at", DType::U32, [1]));
                g.output("y", Llama::new(&c).decode(g, id, at, 8));
            }),
        ),
        ("llama's loss", build(&|g| g.output("y", Llama::new(&c).loss(g, ids(g))))),
        (
            "bert",
            build(&|g| {
                let [ids, types, mask] = bert_inputs(g, 2, 7);
                g.output("y", Bert::new(&small, &weights).hidden_states(g, ids, types, mask));
            }),
        ),
        (
            "bert longhand",
            build(&|g| {
                let [ids, types, mask] = bert_inputs(g, 2, 7);
                g.output("y", Longhand { config: &small, g }.hidden_states(ids, types, mask));
            }),
        ),
        (
            "cnn",
            build(&|g| {
                let x = g.input("x", DType::F32, [2, 3, 9, 9]);
                let w = |n: &str, s: &[usize]| g.parameter(n, s);
                let y = g.conv2d(x, w("c1", &[4, 3, 3, 3]), None, Conv2dOptions::new().padding([1, 1]));
                let var = g.abs(w("var", &[4]));
                let y = g.batch_norm(y, w("scale", &[4]), w("bias", &[4]), w("mean", &[4]), var, 1e-3);
                let y = g.max_pool2d(g.relu(y), MaxPool2dOptions::new([2, 2]));
                let y = g.linear(g.reshape(y, &[2, -1]), w("fc", &[5, 64]), None);
                g.output("y", g.softmax(g.add(y, w("b", &[5])), -1));
            }),
        ),
    ]
}

fn arrays(g: &Graph, seed: u64) -> Arrays {
    let data = g.data().unwrap();
    let mut all = Arrays::new();
    for (i, node) in data.nodes.iter().enumerate() {
        let Some(name) = &node.name else { continue };
        let exact = random::array(&node.ty.shape, seed + i as u64);
        let values = exact.data.into_iter();
        let data: Vec<f64> = match (name.as_str(), node.ty.dtype) {
            ("types", _) => values.map(|v| f64::from(v > 0.0)).collect(),
            ("at", _) => vec![0.0],
            (_, DType::U32) => values.map(|v| ((v + 1.5) * 16.0).floor()).collect(),
            ("mask", _) => values.map(|v| f64::from(v > -1.0)).collect(),
            _ => values.map(|v| v * 0.5).collect(),
        };
        if matches!(node.kind, NodeKind::Input | NodeKind::Parameter { .. }) {
            all.insert(name.clone(), Array::new(node.ty.clone(), data));
        }
    }
    all
}

#[test]
fn models_stay_what_they_were_with_every_group_of_rules() {
    let alone = Group::every().map(|g| vec![g]);
    let sets: Vec<Vec<Group>> = [Group::ALL.to_vec()].into_iter().chain(alone).collect();
    for (name, g) in models() {
        let given = arrays(&g, 77);
        for g in [Some(g.clone()), with_gradients(&g)].into_iter().flatten() {
            let wanted = run_reference(&g, &given);
            for (p, groups) in profiles().iter().flat_map(|p| sets.iter().map(move |s| (p, s))) {
                let options = Options { groups: groups.clone(), ..Options::default() };
                let came = Ok(run_reference(&optimised(&g, p, &options).graph, &given));
                agree(&came, &wanted, 2e-5).unwrap_or_else(|e| panic!("{name} with {groups:?}: {e}"));
            }
        }
    }
}

#[test]
fn the_same_graph_gives_the_same_plan_twice() {
    for (name, g) in models() {
        for p in &profiles() {
            let of = || {
                let done = optimised(&g, p, &Options::default());
                let text = done.graph.data().unwrap().to_string();
                (text, format!("{:?}", plan(&done.graph, &PlanOptions::default()).unwrap()))
            };
            let ((graph, steps), (again, again_steps)) = (of(), of());
            assert!(graph == again, "{name} gave two graphs:\n{graph}\n{again}");
            assert!(steps == again_steps, "{name} gave two plans");
        }
    }
}

#[test]
fn outputs_names_and_provenance_are_kept() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 8]);
    let w = |n: &str| g.parameter(n, [8, 8]);
    let a = g.name(g.linear(x, w("wa"), None), "first");
    let b = g.name(g.linear(x, w("wb"), None), "second");
    g.output("sum", g.name(g.add(a, g.mul(b, g.sigmoid(b))), "joined"));
    g.output("also", b);
    let done = optimised(&g, &profiles()[1], &Options::default());
    let (old, new) = (g.data().unwrap(), done.graph.data().unwrap());
    let names: Vec<&str> = new.outputs.iter().map(|o| o.0.as_str()).collect();
    assert_eq!(names, ["sum", "also"]);
    for name in ["first", "second", "joined"] {
        assert!(new.find(name).is_some(), "{name} is gone from\n{new}");
    }
    // the packed product does the work of both
    let packed = new.nodes.iter().position(|n| n.ty.shape[..] == [4, 16]).expect("the products are packed");
    let from: Vec<String> = done.report.provenance[packed].iter().map(|&i| old.label(Value::at(i))).collect();
    assert!(from.contains(&"first".to_string()) && from.contains(&"second".to_string()), "{from:?}");
    let swish = done.report.changes.iter().find(|c| c.to == "silu").expect("x·sigmoid x is silu");
    assert_eq!(
        (swish.from.as_str(), swish.rules.as_slice()),
        ("sigmoid+mul", &["silu-longhand".to_string()][..])
    );
}

/// What each step of a plan is, without where things lie.
fn forms(p: &Plan) -> Vec<String> {
    let form = |w: &Work| match w {
        Work::Rowwise(r) => format!("rowwise {:?} {:?} {}", r.domain, r.reduced, r.operands.len()),
        Work::Product(p) => format!("product {:?} {}x{}x{} {}", p.batch, p.m, p.n, p.k, p.epilogue.is_some()),
        // exporters round the factor to f32
        Work::Attention(a) => format!("attention {:.6} {}", a.inputs.form.scale, a.inputs.mask.is_some()),
        other => format!("{other:?}").chars().take(12).collect(),
    };
    p.steps.iter().map(|s| form(&s.work)).collect()
}

#[test]
fn longhand_minilm_has_the_kernels_of_the_composite_form() {
    let (c, weights) = (minilm(6), Weights::new());
    let [composite, spelled] = [false, true].map(|longhand| {
        let g = Graph::new();
        let [ids, types, mask] = bert_inputs(&g, 1, 16);
        let y = match longhand {
            true => Longhand { config: &c, g: &g }.hidden_states(ids, types, mask),
            false => Bert::new(&c, &weights).hidden_states(&g, ids, types, mask),
        };
        g.output("y", y);
        g
    });
    for (p, gpu) in profiles().iter().zip([false, true]) {
        let of = |g: &Graph| {
            let done = optimised(g, p, &Options { precision: Precision::Full, ..Options::default() });
            let options = PlanOptions { attention_grad: gpu, concurrent: gpu, ..PlanOptions::default() };
            forms(&plan(&done.graph, &options).unwrap())
        };
        assert_eq!(of(&spelled), of(&composite));
    }
    let unoptimised = plan(&spelled, &PlanOptions::default()).unwrap().steps.len();
    let whole = plan(&composite, &PlanOptions::default()).unwrap().steps.len();
    assert!(unoptimised > whole, "{unoptimised} steps as it came, {whole} of the composite form");
}

/// A layer of 576 × 576 with an adapter of rank 8: x·Wᵀ + ((x·Aᵀ)·Bᵀ)·2.
fn adapted(tokens: usize) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [tokens, 576]);
    let w = g.parameter_of("w", weft::tensor::TensorType::f32([576, 576]), false);
    let (a, b) = (g.parameter("a", [8, 576]), g.parameter("b", [576, 8]));
    let thin = g.linear(g.linear(x, a, None), b, None);
    g.output("y", g.add(g.linear(x, w, None), g.mul(thin, g.scalar(2.0, DType::F32))));
    g
}

#[test]
fn an_adapter_is_associated_as_its_tokens_make_it_cheaper() {
    // trained adapters change from step to step: merging them costs 576·576·8 products each time
    let training = Options { training: true, ..Options::default() };
    let thick = |g: &Graph, p: &DeviceProfile, o: &Options| {
        let data = optimised(g, p, o).graph.data().unwrap();
        data.nodes.iter().any(|n| matches!(&n.kind, NodeKind::Op(op, _) if op.name() == "matmul" && n.ty.shape[..] == [576, 576]))
    };
    let p = &profiles()[0];
    assert!(!thick(&adapted(1), p, &training), "one token merges a trained adapter");
    assert!(thick(&adapted(512), p, &training), "512 tokens do not merge a trained adapter");
    // frozen ones are merged once, at init, whatever comes
    for (tokens, p) in [1, 512].into_iter().flat_map(|t| profiles().into_iter().map(move |p| (t, p))) {
        assert!(
            thick(&adapted(tokens), &p, &Options::default()),
            "{tokens} tokens do not merge a frozen adapter"
        );
    }
}
