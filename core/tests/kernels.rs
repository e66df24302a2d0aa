//! Every kernel's text, without a GPU: each operation × its samples, for small and large GPUs and both precisions, is
//! parsed and validated by naga as the driver's crate does, and written as SPIR-V and as Metal's language.

#[path = "kernels/cuts.rs"]
mod cuts;
mod gpu_plans;
#[path = "kernels/hazards.rs"]
mod hazards;
#[path = "kernels/long.rs"]
mod long;
#[path = "kernels/once.rs"]
mod once;
#[path = "kernels/packed.rs"]
mod packed;
#[path = "kernels/turns.rs"]
mod turns;

use gpu_plans::{everything, plan, program};
use std::collections::HashSet;
use weft::graph::{Graph, Value};
use weft::internals::plan::PlanOptions;
use weft::internals::target::gpu::forms::Plan;
use weft::internals::target::gpu::program::Program;
use weft::models::{Llama, LlamaConfig, Logits};
use weft::ops::Conv2dOptions;
use weft::profile::Limits;
use weft::profile::Precision;
use weft::tensor::DType;

/// Small devices, large ones, Apple's, a software one; a binding of 4 KiB splits buffers.
fn devices() -> Vec<(&'static str, Limits)> {
    let software = Limits { software: true, threads: 1024, ..Limits::least() };
    let split = Limits { binding: 4096, ..Limits::least() };
    vec![
        ("least", Limits::least()),
        ("large", Limits::large()),
        ("apple", Limits::apple()),
        ("software", software),
        ("split", split),
    ]
}

/// Checks a text; `seen` ones were checked before.
fn check(text: &str, limits: &Limits, seen: &mut HashSet<String>) -> Result<(), String> {
    if !seen.insert(text.to_string()) {
        return Ok(());
    }
    let mut module = naga::front::wgsl::parse_str(text).map_err(|e| e.emit_to_string(text))?;
    use naga::valid::{Capabilities, ValidationFlags, Validator};
    // what the driver's crate allows
    let mut capabilities = Capabilities::SUBGROUP;
    capabilities.set(Capabilities::SHADER_FLOAT16, limits.f16);
    capabilities.set(Capabilities::COOPERATIVE_MATRIX, limits.coop + limits.coop_f32 > 0);
    for (_, global) in module.global_variables.iter_mut() {
        if let naga::AddressSpace::Storage { .. } = global.space {
            let number =
                global.name.as_deref().and_then(|n| n.strip_prefix('b')).and_then(|n| n.parse().ok());
            global.binding = Some(naga::ResourceBinding { group: 0, binding: number.ok_or("an odd name")? });
        }
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(text))?;
    let turns = turns::turns(&module)?;
    if turns > limits.turns as u64 {
        return Err(format!("loops of {turns} turns where {} are allowed", limits.turns));
    }
    let entry = &module.entry_points[0];
    let threads: u32 = entry.workgroup_size.iter().product();
    if threads as usize > limits.threads {
        return Err(format!("{threads} threads where {} are allowed", limits.threads));
    }
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let shared: usize = module
        .global_variables
        .iter()
        .filter(|(_, g)| g.space == naga::AddressSpace::WorkGroup)
        .map(|(_, g)| layouter[g.ty].size as usize)
        .sum();
    if shared > limits.shared {
        return Err(format!("{shared} bytes of workgroup memory where {} are allowed", limits.shared));
    }
    let spirv = naga::back::spv::Options { lang_version: (1, 3), ..Default::default() };
    naga::back::spv::write_vec(&module, &info, &spirv, None).map_err(|e| format!("SPIR-V: {e}"))?;
    let metal =
        naga::back::msl::Options { lang_version: (2, 4), fake_missing_bindings: true, ..Default::default() };
    naga::back::msl::write_string(&module, &info, &metal, &Default::default())
        .map_err(|e| format!("Metal: {e}"))?;
    Ok(())
}

fn check_plan(
    name: &str,
    p: &(impl Clone + Into<Plan>),
    (device, limits): &(&str, Limits),
    precision: Precision,
    seen: &mut HashSet<String>,
    failures: &mut Vec<String>,
) -> Option<Program> {
    check_program(name, program(p, limits, precision), (device, limits), precision, seen, failures)
}

fn check_program(
    name: &str,
    made: weft::error::Result<Program>,
    (device, limits): (&str, &Limits),
    precision: Precision,
    seen: &mut HashSet<String>,
    failures: &mut Vec<String>,
) -> Option<Program> {
    let made = match made {
        Ok(made) => made,
        Err(e) => {
            failures.push(format!("{name} for {device}: {e}"));
            return None;
        }
    };
    for text in &made.texts {
        if let Err(e) = check(text, limits, seen) {
            failures.push(format!("{name} for {device}, {precision}: {e}\n{text}"));
        }
    }
    let grids = made.schedule.init_steps.iter().chain(&made.schedule.steps).map(|d| d.groups);
    for g in grids {
        if g.iter().any(|&n| n == 0 || n > 65_535) {
            failures.push(format!("{name} for {device}: a grid of {g:?}"));
        }
    }
    Some(made)
}

#[test]
fn every_operation_s_kernels_are_valid_everywhere() {
    let mut failures = vec![];
    let mut checked = 0;
    for device in devices() {
        let mut seen = HashSet::new();
        let precisions = [Precision::Full, Precision::Fast];
        for precision in
            precisions.into_iter().take(if device.1.coop + device.1.coop_f32 > 0 { 2 } else { 1 })
        {
            for op in weft::ops::all() {
                for (i, sample) in op.samples().iter().enumerate() {
                    let g = Graph::new();
                    let input = |(i, a): (usize, &weft::graph::Array)| {
                        g.input(&format!("x{i}"), a.ty.dtype, a.ty.shape.clone())
                    };
                    let inputs: Vec<_> = sample.inputs.iter().enumerate().map(input).collect();
                    g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
                    let options = PlanOptions { attention_grad: true, ..Default::default() };
                    let p = weft::internals::plan::plan(&g, &options).unwrap();
                    check_plan(
                        &format!("{} {i}", op.name()),
                        &p,
                        &device,
                        precision,
                        &mut seen,
                        &mut failures,
                    );
                }
            }
        }
        checked += seen.len();
    }
    assert!(checked > 1000, "only {checked} texts");
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(3)].join("\n")
    );
}

#[test]
fn kernels_of_every_optimizer_are_valid_everywhere_for_few_parts_and_many() {
    use weft::internals::optimizer::{RULES, lower};
    use weft::internals::target::gpu::kernels::update::{Place, kernel};
    let mut seen = HashSet::new();
    for (name, limits) in
        devices().into_iter().chain([("few threads", Limits { threads: 32, ..Limits::least() })])
    {
        for rule in RULES {
            for (matrix, used) in [(false, false), (false, true), (true, false), (true, true)] {
                let update = lower(rule, matrix, &vec![used; rule.settings.len()]).unwrap();
                for pass in &update.passes {
                    for (parts, words) in [(1, 0), (70_000, 1), (3, 2), (200_000, 2000)] {
                        let k = kernel(&update, pass, Place { first: 12, parts, words }, &limits);
                        check(&k.text, &limits, &mut seen)
                            .unwrap_or_else(|e| panic!("{rule:?} for {name}: {e}\n{}", k.text));
                        let [x, y, _] = k.groups;
                        assert!(x <= 65_535 && x as usize * y as usize >= parts, "{x} × {y} for {parts}");
                        assert!(k.bindings.len() <= 6, "{rule:?}: {:?}", k.bindings);
                    }
                }
            }
        }
    }
}

/// The models that benchmarks run, with the sizes that make kernels use their large tiles.
fn large_graphs() -> Vec<(&'static str, Plan)> {
    let inference = everything();
    let mut all = vec![];
    let config = LlamaConfig { layers: 2, ..LlamaConfig::smollm2_135m() };
    for seq in [1, 16, 128, 512] {
        let g = Graph::new();
        let ids = g.input("ids", DType::U32, [1, seq]);
        g.output("logits", Llama::new(&config).forward(&g, ids, Logits::All));
        all.push(("llama", plan(&g, &inference).unwrap()));
    }
    let g = Graph::new();
    let x = g.input("x", DType::F32, [8, 16, 40, 36]);
    let w = g.parameter("w", [32, 16, 3, 3]);
    let y = g.relu(g.conv2d(x, w, None, Conv2dOptions::new().padding([1, 1])));
    let y = g.softmax(g.reshape(y, &[8, -1]), -1);
    g.output("y", g.sum(g.layer_norm(y, g.parameter("s", [46_080]), None, 1e-5), &[], false));
    all.push(("convolution", plan(&g, &inference).unwrap()));
    let g = Graph::new();
    let x = g.input("x", DType::F32, [2048, 1024]);
    g.output("y", g.matmul(x, g.parameter("w", [1024, 2048])));
    g.output("sum", g.sum(x, &[0, 1], false));
    g.output("columns", g.sum(x, &[0], false));
    all.push(("large", plan(&g, &inference).unwrap()));
    all
}

#[test]
fn models_kernels_are_valid_everywhere_and_few() {
    let mut failures = vec![];
    for (name, p) in large_graphs() {
        for device in devices() {
            if device.0 == "split" {
                continue; // megabytes in pieces of 4 KiB are more bindings than anything has
            }
            for precision in [Precision::Full, Precision::Fast] {
                let made = check_plan(name, &p, &device, precision, &mut HashSet::new(), &mut failures);
                let Some(made) = made.filter(|_| name == "llama") else { continue };
                // layers share their kernels: a model has few, however deep
                assert!(made.texts.len() < 40, "{} kernels", made.texts.len());
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(3)].join("\n")
    );
}

#[test]
fn values_of_more_elements_than_kernels_count_are_refused() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [1 << 16, 1 << 17]);
    g.output("y", g.max_over(x, &[1], false));
    let e = program(&plan(&g, &PlanOptions::default()).unwrap(), &Limits::large(), Precision::Full).err();
    assert!(e.expect("too large").to_string().contains("up to 2³² − 1 elements"));
}

/// A normed product whose two halves meet, of weights of a dtype, `[n, k]` or `[k, n]`; and its halves.
fn gated(g: &Graph, [m, n, k]: [usize; 3], dtype: DType, transposed: bool) -> [Value; 3] {
    let y = g.rms_norm(g.input("x", DType::F32, [m, k]), g.parameter("scale", [k]), 1e-5);
    let shape = if transposed { [n, k] } else { [k, n] };
    let weight = |name: &str| g.parameter_of(name, weft::tensor::TensorType::new(dtype, shape), false);
    let w = g.concat(&[weight("gate"), weight("up")], if transposed { 0 } else { 1 });
    let both = if transposed { g.linear(y, w, None) } else { g.matmul(y, w) };
    let [gate, up] = [0, n as i64].map(|at| g.narrow(both, 1, at, n as i64));
    [g.mul(g.silu(gate), up), gate, up]
}

#[test]
fn norms_and_halves_in_products_are_valid_everywhere() {
    let (mut failures, mut forms) = (vec![], 0);
    let mut sizes = vec![];
    for m in [1, 3, 8, 40, 128, 300, 1000] {
        sizes.extend([[m, 9, 12], [m, 64, 100], [m, 150, 576], [m, 1536, 576], [m, 6000, 64]]);
    }
    for device in devices().into_iter().filter(|d| d.0 != "split") {
        let mut seen = HashSet::new();
        for &size in &sizes {
            for (dtype, transposed) in [(DType::F32, true), (DType::F32, false), (DType::F16, true)] {
                let (both, norm, kept) = (Graph::new(), Graph::new(), Graph::new());
                both.output("y", gated(&both, size, dtype, transposed)[0]);
                let [y, gate, up] = gated(&kept, size, dtype, transposed);
                kept.output("y", y);
                kept.output("again", kept.mul(kept.mul(gate, up), kept.sum(y, &[1], true)));
                let y = norm.rms_norm(
                    norm.input("x", DType::F32, [size[0], size[2]]),
                    norm.parameter("s", [size[2]]),
                    1e-5,
                );
                norm.output("y", norm.matmul_with(y, norm.parameter("w", [size[1], size[2]]), false, true));
                for (g, steps) in [(both, 1), (norm, 1), (kept, 2)] {
                    let p = plan(&g, &everything()).unwrap();
                    assert_eq!(p.steps.len(), steps, "{size:?}");
                    for precision in [Precision::Full, Precision::Fast] {
                        let name = format!("{size:?} of {dtype}, transposed {transposed}");
                        check_plan(&name, &p, &device, precision, &mut seen, &mut failures);
                    }
                }
            }
        }
        forms += seen.len();
    }
    assert!(forms > 300, "only {forms} texts");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[0]);
}

/// A few kernels in full, for people to read in a change: what an edit of a skeleton does to them.
#[test]
fn golden_texts_are_as_recorded() {
    let softmax = |g: &Graph| g.softmax(g.input("x", DType::F32, [64, 1000]), -1);
    let product = |g: &Graph| {
        let (x, w) = (g.input("x", DType::F32, [64, 96]), g.parameter("w", [128, 96]));
        g.gelu(g.linear(x, w, Some(g.parameter("b", [128]))))
    };
    let embedding =
        |g: &Graph| g.embedding(g.parameter("table", [1000, 64]), g.input("ids", DType::U32, [7]));
    let pointwise =
        |g: &Graph| g.silu(g.mul(g.input("x", DType::F32, [256, 256]), g.input("y", DType::F32, [256])));
    type Build<'a> = &'a dyn Fn(&Graph) -> weft::graph::Value;
    let normed = |g: &Graph| gated(g, [64, 96, 64], DType::F32, true)[0];
    // two rotations and the puts of what they give, as in a layer that decodes
    let puts = |g: &Graph| {
        let x = g.input("x", DType::F32, [2, 1, 64]);
        let position = g.input("position", DType::U32, [1]);
        for (name, from) in [("keys", g.tanh(x)), ("values", g.neg(x))] {
            let state = g.state(name, DType::F32, [2, 16, 64]);
            g.set_state(state, g.put(state, position, from, 1));
        }
        x
    };
    let all: [(&str, Build<'_>); 6] = [
        ("softmax", &softmax),
        ("linear_gelu", &product),
        ("embedding", &embedding),
        ("pointwise", &pointwise),
        ("norm_gate", &normed),
        ("two_puts", &puts),
    ];
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/kernels");
    for (name, build) in all {
        let g = Graph::new();
        g.output("y", build(&g));
        let p = plan(&g, &everything()).unwrap();
        let text = program(&p, &Limits::least(), Precision::Full).unwrap().texts.join("\n// next kernel\n");
        let path = folder.join(format!("{name}.wgsl"));
        if std::env::var_os("WEFT_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let recorded = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            recorded == text,
            "{name}'s text has changed: read it, then `WEFT_WRITE_GOLDEN=1 cargo test -p weft --test kernels golden`\n{text}"
        );
    }
}
