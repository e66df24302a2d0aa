//! The weight report agrees with what plans and devices do at init.

use super::models::{Model, bert, decoder, llama_config, minilm, small};
use std::collections::BTreeSet;
use weft::device::Device;
use weft::graph::Graph;
use weft::internals::plan::Place;
use weft::internals::target::gpu::forms::Plan;
use weft::internals::target::gpu::program::program;
use weft::models::{Llama, Logits};
use weft::profile::{Costs, DeviceKind, DeviceProfile, Limits, Precision};
use weft::session::{
    Artifact, Compiled, Compiler, Count, ReportedWeight, Transformation, WeightPart, WeightReport,
};
use weft::tensor::{DType, TensorType};

fn gpu(limits: Limits) -> DeviceProfile {
    let costs = Costs::gpu(132, true);
    DeviceProfile {
        name: "a gpu".into(),
        kind: DeviceKind::Discrete,
        threads: 0,
        memory: 0,
        gpu: Some(limits),
        costs,
    }
}

fn profiles() -> Vec<DeviceProfile> {
    vec![Device::cpu(2).profile(), gpu(Limits::large()), gpu(Limits::least())]
}

/// The models, and weights in every form that folds: joined by rows, by columns and as halves, turned, multiplied.
fn graphs() -> Vec<Model> {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [5, 12]);
    let w = |name: &str, shape: &[usize]| g.parameter(name, shape);
    let rows = g.concat(&[w("q", &[8, 12]), w("k", &[4, 12])], 0);
    let columns = g.concat(&[w("left", &[12, 4]), w("right", &[12, 8])], 1);
    g.output("rows", g.linear(x, rows, None));
    g.output("columns", g.matmul(x, columns));
    let split = g.reshape(g.permute(w("split", &[4, 3, 6]), &[1, 0, 2]), &[12, 6]);
    g.output("split", g.matmul(x, split));
    let thin = g.add(w("whole", &[12, 6]), g.matmul(w("a", &[12, 2]), w("b", &[2, 6])));
    g.output("thin", g.matmul(x, thin));
    let half = |name: &str, n: usize| g.parameter_of(name, TensorType::new(DType::F16, [n, 12]), false);
    g.output("halves", g.linear(x, g.concat(&[half("gate", 8), half("up", 6)], 0), None));
    let mut all = small();
    all.push(Model { name: "folding", graph: g, training: false });
    let deep = weft::models::LlamaConfig { layers: 4, ..llama_config() };
    let g = Graph::new();
    g.output("logits", Llama::new(&deep).forward(&g, g.input("ids", DType::U32, [1, 9]), Logits::Last));
    all.push(Model { name: "a deep llama", graph: g, training: false });
    let g = decoder(&deep, 16);
    all.push(Model { name: "decoding", graph: g, training: false });
    all
}

fn each(mut check: impl FnMut(&str, &Compiled, &WeightReport)) {
    for profile in profiles() {
        for precision in [Precision::Full, Precision::Fast] {
            let compiler = Compiler::for_profile(&profile).with_precision(precision);
            for model in graphs() {
                let compiled = model.compile(&compiler);
                let name = format!("{} on {} {precision}", model.name, profile.name);
                check(&name, &compiled, &compiled.weight_report());
            }
        }
    }
}

#[test]
fn every_weight_is_told_once_and_something_is_told_of_each() {
    each(|name, compiled, told| {
        let names: Vec<&str> = told.weights.iter().map(|w| w.name.as_str()).collect();
        assert_eq!(
            names,
            compiled.parameters().iter().map(|p| p.name.as_str()).collect::<Vec<_>>(),
            "{name}"
        );
        for (w, p) in told.weights.iter().zip(compiled.parameters()) {
            assert!(!w.applied.is_empty(), "{name}: nothing of {}", w.name);
            assert_eq!((w.ty.dtype, &w.ty.shape, w.trainable), (p.dtype, &p.shape, p.trainable));
        }
    });
}

/// The parameters whose own elements steps read.
fn read_in_steps(plan: &Plan) -> BTreeSet<usize> {
    let mut read = BTreeSet::new();
    for step in &plan.steps {
        step.work.for_each_operand(&mut |o, written| {
            if let (false, Place::Parameter(p)) = (written, &plan.buffers[o.buffer].place) {
                read.insert(*p);
            }
        });
    }
    read
}

#[test]
fn what_is_read_as_it_is_is_read_by_a_step_and_what_no_step_reads_is_not_told_so() {
    let (mut as_it_is, mut otherwise) = (0, 0);
    each(|name, compiled, told| {
        let read = read_in_steps(&compiled.plan());
        for (p, w) in told.weights.iter().enumerate() {
            let told = w.applied.iter().any(|a| a.how == Transformation::AsItIs);
            assert!(!told || read.contains(&p), "{name}: no step reads {}", w.name);
            // a step that reads it reads it as it is, its panels, or with what lies beside it
            let instead = |a: &weft::session::Applied| {
                matches!(
                    a.how,
                    Transformation::Packed | Transformation::Adjacent { .. } | Transformation::AsItIs
                )
            };
            assert!(!read.contains(&p) || w.applied.iter().any(instead), "{name}: {}", w.name);
            (as_it_is, otherwise) = (as_it_is + usize::from(told), otherwise + usize::from(!told));
        }
    });
    assert!(as_it_is > 100 && otherwise > 100, "{as_it_is} and {otherwise}");
}

/// Bytes of the buffers that steps fill at init from weights, as the device holds them.
fn held(compiled: &Compiled, precision: Precision) -> usize {
    let plan = &compiled.plan();
    let ports = compiled.inputs().iter().chain(compiled.outputs()).map(|p| p.buffer);
    let ports: BTreeSet<usize> = ports.chain(plan.states.iter().map(|s| s.buffer)).collect();
    let of_weights = weft::internals::plan::Uses::of(plan).of_parameters(plan);
    let own =
        |id: &usize| matches!(plan.buffers[*id].place, Place::Own) && !ports.contains(id) && of_weights[*id];
    let own = (0..plan.buffers.len()).filter(own);
    match &compiled.profile().gpu {
        None => own.map(|id| plan.buffers[id].bytes()).sum(),
        Some(limits) => {
            let made = program(plan, limits, precision).unwrap();
            own.flat_map(|id| &made.memory.places[id]).map(|region| region.bytes).sum()
        }
    }
}

#[test]
fn the_bytes_told_are_those_that_sessions_allocate() {
    let mut some = 0;
    each(|name, compiled, told| {
        let training = !compiled.plan().gradients.is_empty();
        let precision = if training { Precision::Full } else { compiled.precision() };
        let values: usize = told.made.iter().filter(|m| !m.packed).map(|m| m.bytes).sum();
        assert_eq!(values, held(compiled, precision), "{name}");
        // and what is told of each weight is among them
        for w in &told.weights {
            let of = told.made.iter().filter(|m| m.weights.contains(&w.name));
            let most: usize = of.map(|m| m.bytes).sum();
            let own: usize = w.applied.iter().map(|a| a.bytes).sum();
            assert!(own <= most, "{name}: {own} bytes for {}, of {most}", w.name);
        }
        some += usize::from(values > 0);
    });
    assert!(some > 20, "{some} plans make something of weights");
}

#[test]
fn minilm_takes_what_is_told_of_its_weights() {
    let (config, weights) = minilm();
    let compiled = Compiler::new(&Device::cpu(2)).compile(&bert(&config, &weights, 1, 16)).unwrap();
    let told = compiled.weight_report();
    let packed: usize = told.made.iter().filter(|m| m.packed).map(|m| m.bytes).sum();
    // beside what the plan has, a session has the packed weights, and some room to compute in
    let session = compiled.init(&weights).unwrap();
    let more = session.memory_summary().total_bytes - compiled.memory_summary().total_bytes;
    assert!(
        packed > 40_000_000 && (packed..packed + packed / 20).contains(&more),
        "{packed} told, {more} more"
    );
    let query = "encoder.layer.3.attention.self.query.weight";
    assert_eq!(hows(&told, query), [Transformation::Packed]);
    assert_eq!(hows(&told, "embeddings.word_embeddings.weight"), [Transformation::AsItIs]);
    // a large GPU has one product of q, k and v
    let compiler = Compiler::for_profile(&gpu(Limits::large()));
    let told = compiler.compile(&bert(&config, &weights, 1, 128)).unwrap().weight_report();
    let [Transformation::Joined { with, part }] = &hows(&told, query)[..] else { panic!("{told:?}") };
    let name = |part: &str| query.replace("query", part);
    assert_eq!(*with, [name("key"), name("value")]);
    assert_eq!((part.to - part.from, part.all), (384, 3 * 384));
}

fn found<'a>(told: &'a WeightReport, name: &str) -> &'a ReportedWeight {
    told.weights.iter().find(|w| w.name == name).unwrap()
}

fn hows(told: &WeightReport, name: &str) -> Vec<Transformation> {
    found(told, name).applied.iter().map(|a| a.how.clone()).collect()
}

/// Planned as it was written: rules would make one product of all that read x.
fn folding(profile: &DeviceProfile) -> WeightReport {
    let model = graphs().into_iter().find(|m| m.name == "folding").unwrap();
    model.compile(&Compiler::for_profile(profile).with_rules(&[])).weight_report()
}

#[test]
fn weights_that_fold_are_told_as_they_were_written() {
    let told = folding(&gpu(Limits::large()));
    let joined = |with: &str, of, from, to, all| Transformation::Joined {
        with: vec![with.into()],
        part: WeightPart { of, from, to, all },
    };
    assert_eq!(hows(&told, "q"), [joined("k", Count::Rows, 0, 8, 12)]);
    assert_eq!(hows(&told, "k"), [joined("q", Count::Rows, 8, 12, 12)]);
    assert_eq!(hows(&told, "left"), [joined("right", Count::Columns, 0, 4, 12)]);
    assert_eq!(hows(&told, "right"), [joined("left", Count::Columns, 4, 12, 12)]);
    // halves move two at a time, and are told as they are
    assert_eq!(hows(&told, "gate"), [joined("up", Count::Rows, 0, 8, 14)]);
    assert_eq!(hows(&told, "up"), [joined("gate", Count::Rows, 8, 14, 14)]);
    assert_eq!(found(&told, "up").applied[0].bytes, 6 * 12 * 2);
    assert_eq!(hows(&told, "split"), [Transformation::Transposed]);
    assert_eq!(found(&told, "split").applied[0].bytes, 4 * 3 * 6 * 4);
    let with = |names: &[&str]| names.iter().map(|n| n.to_string()).collect::<Vec<_>>();
    for (name, others) in [("whole", ["a", "b"]), ("a", ["whole", "b"]), ("b", ["whole", "a"])] {
        let Some(Transformation::Folded { with: came }) = hows(&told, name).pop() else {
            panic!("{name}: {told:?}")
        };
        let (came, wanted) = (BTreeSet::from_iter(came), BTreeSet::from_iter(with(&others)));
        assert_eq!(came, wanted, "{name}");
    }
    let words: Vec<String> = hows(&told, "k").iter().map(ToString::to_string).collect();
    assert_eq!(words, ["joined with q: rows 8 to 12 of 12"]);
    // a cpu packs what its products read
    let told = folding(&Device::cpu(1).profile());
    for name in ["q", "right", "split", "b", "gate"] {
        assert_eq!(hows(&told, name).last(), Some(&Transformation::Packed), "{name}");
    }
    let packed: usize = told.made.iter().filter(|m| m.packed).map(|m| m.bytes).sum();
    // at least the elements, at most with each width made a multiple of 64
    let (least, most) =
        (12 * (12 + 12 + 6 + 6) * 4 + 12 * 14 * 2, 12 * 4 * 64 * 4 + 12 * 64 * 2 + 2 * 64 * 4);
    assert!((least..=most).contains(&packed), "{packed}, of {least} to {most}");
}

#[test]
fn weights_that_training_reads_together_are_told_as_lying_beside_each_other() {
    let config = weft::models::LlamaConfig {
        hidden: 64,
        head_dim: 16,
        heads: 4,
        kv_heads: 4,
        intermediate: 128,
        ..llama_config()
    };
    let g = Graph::new();
    g.set_loss(Llama::new(&config).loss(&g, g.input("ids", DType::U32, [1, 8])));
    let compiled = Compiler::for_profile(&gpu(Limits::large())).compile_training(&g).unwrap();
    let told = compiled.weight_report();
    let name = |part: &str| format!("model.layers.0.{part}.weight");
    let [q, k, v] = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(name);
    assert_eq!(hows(&told, &k), [Transformation::Adjacent { with: vec![q, v] }]);
    assert_eq!(told.bytes(), 0);
}

#[test]
fn an_artifact_tells_what_was_told_when_it_was_compiled() {
    let compiler = Compiler::for_profile(&gpu(Limits::large())).with_precision(Precision::Fast);
    let mut artifact = Artifact::new();
    let mut wanted = vec![];
    for model in graphs() {
        let compiled = model.compile(&compiler);
        // weights of the same name differ from model to model
        let mut alone = Artifact::new();
        alone.add(model.name, &compiled).unwrap();
        let file = std::env::temp_dir().join(format!("weft-treated-{}.weftc", std::process::id()));
        alone.save(&file).unwrap();
        let loaded = Artifact::inspect(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let (name, told) = loaded.weight_reports().next().unwrap();
        assert_eq!((name, &told), (model.name, &compiled.weight_report()));
        if model.name.starts_with("llama") && artifact.add(model.name, &compiled).is_ok() {
            wanted.push(told);
        }
    }
    let all: Vec<WeightReport> = artifact.weight_reports().map(|t| t.1).collect();
    assert!(all.len() > 1 && all == wanted);
}
