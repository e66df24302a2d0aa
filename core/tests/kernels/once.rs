//! The kernel cache: the program is the same as without it, with fewer generated kernels.

use super::devices;
use super::gpu_plans::{everything, on, plan};
use weft::graph::{Array, Graph, Value};
use weft::internals::plan::PlanOptions;
use weft::internals::target::gpu::forms::Plan;
use weft::internals::target::gpu::program::Program;
use weft::models::{Llama, LlamaConfig, Logits};
use weft::profile::Limits;
use weft::profile::{Costs, DeviceKind, DeviceProfile, Precision};
use weft::session::Compiler;
use weft::tensor::DType;

/// All of a program but how often kernels were written for it.
fn told(p: &Program) -> String {
    let Program { texts, schedule, memory, storage, writings: _ } = p;
    format!("{texts:#?}\n{schedule:#?}\n{storage:?}\n{memory:?}")
}

/// The programs with and without sharing, which must be the same; how often kernels were written for them.
fn same(name: &str, p: &Plan, limits: &Limits, precision: Precision) -> [usize; 2] {
    let lowered = on(p, limits, precision);
    let shared = lowered.program(limits).unwrap();
    let anew = lowered.program_anew(limits).unwrap();
    let (a, b) = (told(&shared), told(&anew));
    if a != b {
        let at = a.lines().zip(b.lines()).position(|(a, b)| a != b).unwrap_or(0);
        let [a, b] = [&a, &b].map(|t| t.lines().nth(at).unwrap_or_default().to_string());
        panic!("{name}, line {at}: shared {a}\nwritten anew {b}");
    }
    [shared.writings, anew.writings]
}

fn llama(layers: usize) -> LlamaConfig {
    LlamaConfig { layers, ..LlamaConfig::smollm2_135m() }
}

fn forward(layers: usize) -> Graph {
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [1, 128]);
    g.output("logits", Llama::new(&llama(layers)).forward(&g, ids, Logits::All));
    g
}

fn decode(layers: usize) -> Graph {
    let g = Graph::new();
    let [id, position] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
    g.output("logits", Llama::new(&llama(layers)).with_dtype(DType::F16).decode(&g, id, position, 64));
    g
}

fn training(layers: usize) -> Graph {
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [1, 40]);
    g.set_loss(Llama::new(&llama(layers)).loss(&g, ids));
    g
}

fn profile(limits: &Limits) -> DeviceProfile {
    DeviceProfile {
        name: "a gpu".into(),
        kind: DeviceKind::Discrete,
        threads: 0,
        memory: 1 << 34,
        gpu: Some(limits.clone()),
        costs: Costs::gpu(132, true),
    }
}

type Build = fn(usize) -> Graph;

#[test]
fn a_deep_model_s_program_is_the_same_whether_equal_steps_share_their_kernels() {
    let models: [(&str, Build, bool); 3] =
        [("forward", forward, false), ("decode", decode, false), ("training", training, true)];
    for (name, limits) in devices().into_iter().filter(|d| d.0 != "split") {
        let compiler = Compiler::for_profile(&profile(&limits));
        for (model, build, trains) in models {
            let p = compiler.plan(&build(8), trains).unwrap();
            for precision in [Precision::Full, Precision::Fast] {
                let [shared, anew] = same(&format!("{model} for {name}"), &p, &limits, precision);
                assert!(anew >= p.steps.len(), "{anew} writings of {} steps", p.steps.len());
                assert!(2 * shared < anew, "{model} for {name}: {shared} of {anew} kernels were written");
            }
        }
    }
}

#[test]
fn more_layers_need_no_more_kernels_written() {
    let builds: [(Build, bool); 3] = [(forward, false), (decode, false), (training, true)];
    let (limits, compiler) = (Limits::large(), Compiler::for_profile(&profile(&Limits::large())));
    for (build, trains) in builds {
        let [few, many] = [12, 24].map(|layers| {
            let p = compiler.plan(&build(layers), trains).unwrap();
            on(&p, &limits, Precision::Full).program(&limits).unwrap()
        });
        assert!(few.schedule.steps.len() + 30 < many.schedule.steps.len());
        assert_eq!(few.writings, many.writings);
        // one for the puts of each layer: where they report a bad index is a number in their text
        assert!(many.texts.len() <= few.texts.len() + 12);
    }
}

/// Every operation's every sample three times in one graph: of the same inputs as the first, of others, and of the
/// first two of the same input where the types allow it.
#[test]
fn equal_steps_are_told_from_those_that_only_look_so() {
    let (mut shared, mut anew) = (0, 0);
    for (device, limits) in devices() {
        for op in weft::ops::all() {
            for (i, sample) in op.samples().iter().enumerate() {
                let g = Graph::new();
                let inputs = |tag: &str| -> Vec<Value> {
                    let input = |(i, a): (usize, &Array)| {
                        g.input(&format!("{tag}{i}"), a.ty.dtype, a.ty.shape.clone())
                    };
                    sample.inputs.iter().enumerate().map(input).collect()
                };
                let (a, b) = (inputs("a"), inputs("b"));
                let mut twice = a.clone();
                let types = sample.inputs.first().zip(sample.inputs.get(1));
                if types.is_some_and(|(x, y)| x.ty == y.ty) {
                    twice[1] = twice[0];
                }
                for (name, inputs) in [("first", &a), ("again", &twice), ("other", &b)] {
                    g.output(name, g.apply(op, inputs, sample.attrs.clone()));
                }
                for options in [everything(), PlanOptions { no_fusion: true, ..everything() }] {
                    let p = plan(&g, &options).unwrap();
                    let name = format!("{} {i} for {device}", op.name());
                    let [s, a] = same(&name, &p, &limits, Precision::Fast);
                    (shared, anew) = (shared + s, anew + a);
                }
            }
        }
    }
    // not so many that nothing was told apart, nor so few that nothing was shared
    assert!(3 * shared > anew && 3 * shared < 2 * anew, "{shared} of {anew}");
}
