//! Tunings on a GPU: every kind of tiling agrees with the f64 reference, a tuning is part of artifacts and cache keys and is
//! ignored on other devices, and measurements are stored and used.

mod devices;
mod odd_cuts;

use std::collections::BTreeMap;
use weft::device::Device;
use weft::error::Error;
use weft::graph::{Array, Graph, Value};
use weft::internals::expr::{philox_word, uniform};
use weft::internals::target::TargetPlan;
use weft::internals::target::gpu::GpuPlan;
use weft::internals::target::gpu::kernels::{allowed, classes, neighbours, seeds};
use weft::ops::Conv2dOptions;
use weft::profile::{Along, Cut, Limits, Precision, ProductClass, TunedProduct, Tuning};
use weft::reference;
use weft::session::{Compiled, Compiler, Measure, Measured, Progress, Session};
use weft::tensor::{DType, TensorType, Weights};

type Arrays = BTreeMap<String, Array>;

fn random(ty: TensorType, seed: u64) -> Array {
    let mut at = 0;
    let narrow = ty.dtype == DType::F16;
    Array::from_fn(ty, |_| {
        at += 1;
        let v = uniform(philox_word(seed, 6, at)) * 2.0 - 1.0;
        // f16 weights hold what f16 can
        if narrow { (v * 512.0).round() / 512.0 } else { f64::from(v as f32) }
    })
}

/// A graph with data and what the reference makes of them.
struct Case {
    graph: Graph,
    given: Arrays,
    wanted: Arrays,
}

fn case(build: impl FnOnce(&Graph) -> Value) -> Case {
    let graph = Graph::new();
    graph.output("y", build(&graph));
    let given: Arrays = {
        let data = graph.data().unwrap();
        let leaves = data.nodes.iter().filter(|n| n.inputs.is_empty());
        let named = leaves.filter_map(|n| Some((n.name.clone()?, n.ty.clone())));
        named.enumerate().map(|(i, (name, ty))| (name, random(ty, i as u64))).collect()
    };
    let wanted = reference::run(&graph, &given).unwrap();
    Case { graph, given, wanted }
}

impl Case {
    fn session(&self, compiled: &Compiled) -> Session {
        let tensor = |name: &str| self.given[name].to_tensor().unwrap();
        let weights: Weights =
            compiled.parameters().iter().map(|p| (p.name.clone(), tensor(&p.name))).collect();
        let mut s = compiled.init(&weights).unwrap();
        compiled.inputs().iter().for_each(|p| s.set_input_tensor(&p.name, &tensor(&p.name)).unwrap());
        s
    }

    fn check(&self, compiled: &Compiled, tolerance: f64, what: &str) {
        let mut s = self.session(compiled);
        s.step().unwrap();
        s.step().unwrap();
        let (came, wanted) = (Array::from_tensor(&s.output_tensor("y").unwrap()), &self.wanted["y"]);
        let largest = wanted.data.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(largest > 0.01, "{what} is all but zero");
        for (at, (a, b)) in came.data.iter().zip(&wanted.data).enumerate() {
            assert!((a - b).abs() <= tolerance * largest, "{what}: element {at} is {a}, wanted {b}");
        }
    }
}

fn limits(device: &Device) -> Limits {
    device.as_gpu().unwrap().limits().clone()
}

/// The classes of a graph's products.
fn found(compiled: &Compiled) -> Vec<ProductClass> {
    classes(lowered(compiled)).into_iter().map(|c| c.1).collect()
}

fn with(device: &Device, class: ProductClass, transpose_weight: bool, cut: Option<Cut>) -> Tuning {
    let mut tuning = Tuning::default();
    tuning.insert(&device.profile(), TunedProduct { class, transpose_weight, cut, rule_us: 2.0, us: 1.0 });
    tuning
}

/// A norm's rows of every size: what comes of them is of one size all the same.
fn spread(mut case: Case) -> Case {
    let x = case.given.get_mut("x").unwrap();
    let k = x.ty.shape[1];
    x.data = x.data.iter().enumerate().map(|(i, v)| v * 10f64.powi((i / k * 7 % 27) as i32 - 13)).collect();
    *x = Array::from_tensor(&x.to_tensor().unwrap());
    case.wanted = reference::run(&case.graph, &case.given).unwrap();
    case
}

fn cases() -> Vec<(&'static str, Case)> {
    let half = |g: &Graph, shape: [usize; 2]| g.parameter_of("w", TensorType::new(DType::F16, shape), false);
    let gated = |g: &Graph, [m, n, k]: [usize; 3]| {
        let y = g.rms_norm(g.input("x", DType::F32, [m, k]), g.parameter("scale", [k]), 1e-30);
        let w = g.concat(&[g.parameter("gate", [n, k]), g.parameter("up", [n, k])], 0);
        let (both, h) = (g.linear(y, w, None), n as i64);
        g.mul(g.silu(g.narrow(both, -1, 0, h)), g.narrow(both, -1, h, h))
    };
    vec![
        (
            "epilogue",
            case(|g| {
                let x = g.linear(
                    g.input("x", DType::F32, [70, 96]),
                    g.parameter("w", [132, 96]),
                    Some(g.parameter("b", [132])),
                );
                g.add(g.gelu(x), g.input("r", DType::F32, [70, 132]))
            }),
        ),
        ("odd", case(|g| g.matmul(g.input("x", DType::F32, [33, 35]), g.parameter("w", [35, 37])))),
        (
            "batched",
            case(|g| g.matmul(g.input("a", DType::F32, [3, 40, 64]), g.input("b", DType::F32, [3, 64, 36]))),
        ),
        (
            "packed weights, deep",
            case(|g| g.linear(g.input("x", DType::F32, [24, 640]), half(g, [40, 640]), None)),
        ),
        ("few rows", case(|g| g.linear(g.input("x", DType::F32, [3, 256]), half(g, [90, 256]), None))),
        ("one column", case(|g| g.matmul(g.input("x", DType::F32, [90, 256]), g.parameter("w", [256, 1])))),
        (
            "norm",
            spread(case(|g| {
                let y = g.rms_norm(g.input("x", DType::F32, [37, 100]), g.parameter("scale", [100]), 1e-30);
                g.linear(y, g.parameter("w", [50, 100]), None)
            })),
        ),
        ("norm and halves", spread(case(|g| gated(g, [33, 48, 64])))),
        ("norm and halves of two rows", spread(case(|g| gated(g, [2, 40, 128])))),
        (
            "columns first",
            case(|g| {
                g.matmul(g.permute(g.input("x", DType::F32, [60, 44]), &[1, 0]), g.parameter("w", [60, 52]))
            }),
        ),
        (
            "convolution",
            case(|g| {
                let (x, w) = (g.input("x", DType::F32, [2, 6, 9, 8]), g.parameter("w", [20, 6, 3, 3]));
                g.relu(g.conv2d(x, w, None, Conv2dOptions::new().padding([1, 1])))
            }),
        ),
    ]
}

#[test]
fn every_sort_of_cut_computes_what_the_reference_does() {
    let device = devices::hard();
    let precision = devices::precision();
    let tolerance = if precision == Precision::Fast { 4e-3 } else { 2e-5 };
    let mut count = 0;
    for (name, case) in cases() {
        let compiler = || Compiler::new(&device).with_precision(precision);
        let plain = compiler().compile(&case.graph).unwrap();
        let class = found(&plain)[0];
        case.check(&plain, tolerance, name);
        let mut cuts = seeds(&class, &limits(&device));
        for at in 0..cuts.len() {
            let more = neighbours(&cuts[at], &class, &limits(&device));
            cuts.extend(more.into_iter().skip(at % 5).step_by(5));
        }
        let mut tried = vec![];
        // some of each kernel, of all sizes
        let every = cuts.len().div_ceil(24);
        let odd: Vec<Cut> =
            odd_cuts::any(count).filter(|c| allowed(c, &class, &limits(&device))).take(6).collect();
        for cut in cuts.into_iter().skip(1).step_by(every).chain(odd) {
            if tried.contains(&cut) {
                continue;
            }
            tried.push(cut);
            let tuned = compiler().with_tuning(&with(&device, class, false, Some(cut))).compile(&case.graph);
            let tuned = tuned.unwrap();
            assert_eq!(tuned.cuts(), [(class, cut)], "{name}");
            case.check(&tuned, tolerance, &format!("{name}, {cut}"));
        }
        println!("{name}: {} cuts", tried.len());
        count += tried.len();
    }
    assert!(count > 150, "only {count} cuts");
}

#[test]
fn transposed_weights_compute_the_same_and_follow_their_parameter() {
    let device = devices::hard();
    for (name, case) in cases() {
        let plain = Compiler::new(&device).compile(&case.graph).unwrap();
        let class = found(&plain)[0];
        let tuning = with(&device, class, true, None);
        let tuned = Compiler::new(&device).with_tuning(&tuning).compile(&case.graph).unwrap();
        let weight = !class.windows
            && tuned.plan().steps.iter().any(|s| s.work.product().is_some_and(|w| w.b_is_weight));
        let more = tuned.plan().init_steps.len() - plain.plan().init_steps.len();
        let narrow = class.b == DType::F16 && !limits(&device).f16;
        assert_eq!(more, usize::from(weight && !narrow), "{name}");
        case.check(&tuned, 2e-5, name);
        if more == 0 {
            continue;
        }
        // what no four can be read of lies by the other axis all the same
        let (now, before) = (found(&tuned)[0].shape.b_vec, class.shape.b_vec);
        assert!(now != before || now == Along::None, "{name}: {now:?}");
        // of other weights, other results
        let port = tuned.parameters().iter().find(|p| p.dtype == DType::F32 && p.shape.len() == 2);
        let Some(port) = port else { continue };
        let mut s = case.session(&tuned);
        s.step().unwrap();
        let before = s.read_output::<f32>("y").unwrap();
        let doubled: Vec<f32> = case.given[&port.name].data.iter().map(|v| *v as f32 * 2.0).collect();
        s.set_parameter(&port.name, &doubled).unwrap();
        s.step().unwrap();
        assert_ne!(s.read_output::<f32>("y").unwrap(), before, "{name}");
    }
}

/// A graph with a tuning that is none of the rule's.
fn odd_choice(device: &Device) -> (Case, Tuning) {
    let case = cases().swap_remove(0).1;
    let class = found(&Compiler::new(device).compile(&case.graph).unwrap())[0];
    let cut = *seeds(&class, &limits(device)).last().unwrap();
    (case, with(device, class, true, Some(cut)))
}

/// What was decided for its GPU.
fn lowered(c: &Compiled) -> &GpuPlan {
    let TargetPlan::Gpu(lowered) = c.target() else { panic!("compiled for a CPU") };
    lowered
}

fn texts(c: &Compiled) -> Vec<String> {
    let limits = c.profile().gpu.clone().unwrap();
    lowered(c).kernel_texts(&limits).unwrap()
}

#[test]
fn an_artifact_has_its_tuning_in_it() {
    let device = devices::hard();
    let (case, mut tuning) = odd_choice(&device);
    // transposed, so that the cut is of that class
    let first = Compiler::new(&device).with_tuning(&tuning).compile(&case.graph).unwrap();
    let transposed = found(&first)[0];
    let cut = *seeds(&transposed, &limits(&device)).last().unwrap();
    let class = tuning.devices()[0].products[0].class;
    tuning.merge(&with(&device, class, true, Some(cut)));
    let plain = Compiler::new(&device).compile(&case.graph).unwrap();
    let tuned = Compiler::new(&device).with_tuning(&tuning).compile(&case.graph).unwrap();
    assert_eq!(tuned.cuts(), [(transposed, cut)]);
    assert_ne!(texts(&tuned), texts(&plain));
    let bytes = tuned.to_bytes().unwrap();
    let loaded = Compiled::from_bytes(&device, bytes.clone()).unwrap();
    assert_eq!(loaded.cuts(), tuned.cuts());
    assert_eq!(texts(&loaded), texts(&tuned));
    assert_eq!(loaded.to_bytes().unwrap(), bytes);
    case.check(&loaded, 2e-5, "loaded");
    // for a device that is not attached too: the kernels have the same hash
    let elsewhere = Compiler::for_profile(&device.profile()).with_tuning(&tuning).compile(&case.graph);
    case.check(
        &Compiled::from_bytes(&device, elsewhere.unwrap().to_bytes().unwrap()).unwrap(),
        2e-5,
        "elsewhere",
    );
}

#[test]
fn a_tuning_is_part_of_the_cache_s_keys() {
    let device = devices::hard();
    let (case, tuning) = odd_choice(&device);
    let folder = std::env::temp_dir().join(format!("weft-tuned-cache-{}", std::process::id()));
    let compile = |tuning: &Tuning| {
        let compiler = Compiler::new(&device).with_cache(&folder, 1 << 20).with_tuning(tuning);
        compiler.compile(&case.graph).unwrap()
    };
    let none = Tuning::default();
    assert!(!compile(&none).was_cached() && compile(&none).was_cached());
    let tuned = compile(&tuning);
    assert!(!tuned.was_cached());
    let again = compile(&tuning);
    assert!(again.was_cached());
    assert_eq!((again.cuts(), texts(&again)), (tuned.cuts(), texts(&tuned)));
    // times are no part of it, choices are
    let product = tuning.devices()[0].products[0].clone();
    let mut slower = Tuning::default();
    slower.insert(&device.profile(), TunedProduct { us: 1.5, ..product.clone() });
    let mut other = Tuning::default();
    other.insert(&device.profile(), TunedProduct { cut: None, ..product });
    assert!(compile(&slower).was_cached() && !compile(&other).was_cached());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_tuning_of_another_device_changes_nothing_and_says_so() {
    let device = devices::hard();
    let (case, tuning) = odd_choice(&device);
    let plain = Compiler::new(&device).compile(&case.graph).unwrap();
    let shared = device.as_gpu().unwrap();
    let other = Device::from_gpu(shared.limited(|l| l.units = 41).unwrap());
    let refused = tuning.check(&other.profile()).unwrap_err();
    assert!(matches!(&refused, Error::Argument { came, .. } if came.contains("other limits")), "{refused}");
    assert!(matches!(tuning.check(&Device::cpu(1).profile()), Err(Error::Argument { .. })));
    let foreign = Compiler::new(&other).with_tuning(&tuning).compile(&case.graph).unwrap();
    assert!(foreign.cuts().is_empty());
    // nor does one with cuts that this engine's kernels cannot take
    let class = tuning.devices()[0].products[0].class;
    let cut = Cut::Tiled { tile: [60, 96, 16], block: [8, 4], slices: 1, split: 1, depth: 1 };
    let tuning = with(&device, class, false, Some(cut));
    assert!(tuning.check(&device.profile()).is_ok());
    let odd = Compiler::new(&device).with_tuning(&tuning).compile(&case.graph).unwrap();
    assert!(odd.cuts().is_empty());
    assert_eq!(texts(&odd), texts(&plain));
    // on the CPU there is nothing to cut
    let cpu = Compiler::new(&Device::cpu(1)).with_tuning(&tuning).compile(&case.graph).unwrap();
    assert!(cpu.cuts().is_empty());
}

/// Two products of one class, one of another, one that is normed and whose halves meet.
fn model() -> Case {
    case(|g| {
        let layer = |x, name: &str| g.relu(g.linear(x, g.parameter(name, [64, 64]), None));
        let x = layer(layer(g.input("x", DType::F32, [40, 64]), "w1"), "w2");
        let y = g.rms_norm(x, g.parameter("scale", [64]), 1e-5);
        let w = g.concat(&[g.parameter("gate", [48, 64]), g.parameter("up", [48, 64])], 0);
        let both = g.linear(y, w, None);
        let y = g.mul(g.silu(g.narrow(both, -1, 0, 48)), g.narrow(both, -1, 48, 48));
        let y = g.linear(y, g.parameter("v", [64, 48]), None);
        g.linear(g.tanh(y), g.parameter("u", [8, 64]), None)
    })
}

#[test]
fn what_is_measured_is_kept_and_used() {
    for t in [devices::gpu().device, devices::hard()] {
        let case = model();
        let compiled = Compiler::new(&t).compile(&case.graph).unwrap();
        let mut all = found(&compiled);
        all.sort();
        all.dedup();
        let mut tuning = Tuning::default();
        let mut told: Vec<Measured> = vec![];
        let how = Measure { most: 6, ..Measure::default() };
        let mut each = |tuning: &Tuning, m: &Measured| {
            assert!(tuning.devices()[0].products.contains(&m.product));
            told.push(m.clone());
        };
        tuning.measure(&compiled, &how, &mut each).unwrap();
        assert_eq!(told.len(), all.len());
        assert!(told.len() >= 4 && told.iter().any(|m| m.count == 2), "{told:?}");
        for m in &told {
            assert!(m.failed.is_none() && m.wrong.is_empty() && m.tried >= 6, "{m:?}");
            let p = &m.product;
            assert!(p.us > 0.0 && p.us <= p.rule_us && (p.cut.is_some() || p.us == p.rule_us), "{m:?}");
            assert!(p.cut.is_none() || p.us < 0.97 * p.rule_us, "{m:?}");
        }
        // its text form comes back, and what is there is not measured again
        let mut read: Tuning = tuning.to_string().parse().unwrap();
        assert_eq!(read, tuning);
        read.measure(&compiled, &how, &mut |_, m| panic!("{m:?} again")).unwrap();
        let tuned = Compiler::new(&t).with_tuning(&read).compile(&case.graph).unwrap();
        case.check(&tuned, 2e-5, "tuned");
        let won = told.iter().filter(|m| m.product.cut.is_some()).count();
        assert!(tuned.cuts().len() <= won && (won == 0) == tuned.cuts().is_empty());
        println!("{}", tuning);
    }
}

#[test]
fn measuring_ends_when_it_is_cancelled_and_keeps_what_it_has() {
    let device = devices::hard();
    let compiled = Compiler::new(&device).compile(&model().graph).unwrap();
    let progress = Progress::default();
    let how = Measure { most: 3, turn: false, progress: progress.clone(), ..Measure::default() };
    let mut tuning = Tuning::default();
    let ended = tuning.measure(&compiled, &how, &mut |_, _| progress.cancel());
    assert!(matches!(ended, Err(Error::Cancelled { .. })), "{ended:?}");
    assert_eq!(tuning.devices()[0].products.len(), 1);
    // nothing is measured of a CPU, and nothing of a device that is not attached
    let g = model().graph;
    let on_cpu = Compiler::new(&Device::cpu(1)).compile(&g).unwrap();
    let mut none = Tuning::default();
    none.measure(&on_cpu, &Measure::default(), &mut |_, m| panic!("{m:?}")).unwrap();
    assert_eq!(none, Tuning::default());
    let elsewhere = Compiler::for_profile(&device.profile()).compile(&g).unwrap();
    let refused = none.measure(&elsewhere, &Measure::default(), &mut |_, _| ());
    assert!(matches!(refused, Err(Error::Device { .. })), "{refused:?}");
}
