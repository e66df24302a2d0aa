//! Work over axes beyond one invocation's loop limit: correct, with the accuracy of blockwise sums.

#[path = "conformance/compare.rs"]
mod compare;
mod devices;
mod long_graphs;

use compare::{Report, agree, run, run_on, run_reference};
use devices::Tested;
use long_graphs::{Form, build};
use weft::device::Device;
use weft::graph::Array;
use weft::session::Compiler;

/// Sums of n terms in blocks of about √n are off by a few units in the last place times the fourth root of n, if roundings
/// are at random (Higham & Mary 2019, "A New Approach to Probabilistic Rounding Error Analysis"): 4 · 2⁻²⁴ · √√(10⁶) · a margin of 2.
const BLOCKWISE: f64 = 1.6e-5;

fn check(title: &str, forms: &[Form], lengths: &[usize]) {
    check_within(title, forms, lengths, BLOCKWISE);
}

fn check_within(title: &str, forms: &[Form], lengths: &[usize], tolerance: f64) {
    let mut report = Report::default();
    let tested = devices::all();
    for form in forms {
        for &length in lengths {
            let long = build(form, length);
            let given = long.given();
            let wanted = run_reference(&long.g, &given);
            for t in &tested {
                let outcome = agree(&run_on(t, &long.g, &given, true), &wanted, t.tolerance(tolerance));
                report.note(&format!("{} on {}", form.0, t.name()), &format!("over {length}"), outcome);
            }
        }
    }
    report.close(title);
}

#[test]
fn products_over_long_axes_are_right() {
    check("products", &long_graphs::PRODUCTS[..1], &[65_535, 65_536, 262_144, 1_000_003]);
    check("products", &long_graphs::PRODUCTS[1..2], &[300_000]);
    check("products", &long_graphs::PRODUCTS[2..], &[70_001]);
}

#[test]
fn convolutions_over_long_axes_are_right() {
    check("convolutions", long_graphs::CONVOLUTIONS, &[70_001]);
}

#[test]
fn reductions_of_long_axes_are_right() {
    check("reductions", long_graphs::REDUCTIONS, &[70_001]);
}

/// Sums up to each element of the axis of `[outer, n, inner]`, or from it on.
fn running(x: &[f64], [outer, n, inner]: [usize; 3], backwards: bool) -> Vec<f64> {
    let mut sums = vec![0.0; x.len()];
    for (o, i) in (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))) {
        let mut sum = 0.0;
        for j in 0..n {
            let j = if backwards { n - 1 - j } else { j };
            let at = (o * n + j) * inner + i;
            sum += x[at];
            sums[at] = sum;
        }
    }
    sums
}

#[test]
fn running_sums_of_long_axes_are_right() {
    let mut report = Report::default();
    for length in [64, 4097, 65_536, 300_000] {
        for (form, shape) in long_graphs::SCANS.iter().zip([[1, length, 1], [2, length, 3]]) {
            let long = build(form, length);
            let given = long.given();
            let (x, up) = (&given["x0"], &given["x1"]);
            let of = |a: &Array, backwards| Array::new(a.ty.clone(), running(&a.data, shape, backwards));
            let wanted = [("y".to_string(), of(x, false)), ("grad0".to_string(), of(up, true))].into();
            for t in &devices::all() {
                let outcome = agree(&run_on(t, &long.g, &given, true), &wanted, BLOCKWISE);
                report.note(&format!("{} on {}", form.0, t.name()), &format!("over {length}"), outcome);
            }
        }
    }
    report.close("running sums");
}

#[test]
fn lookups_by_many_indices_are_right() {
    check("look-ups", long_graphs::LOOKUPS, &[2049, 70_001]);
}

#[test]
fn pooling_over_large_windows_is_right() {
    check("pooling", long_graphs::POOLS, &[10_000]);
}

#[test]
fn attention_over_many_keys_is_right() {
    // gradients by queries are what sums that cancel to a tenth and less leave: their rounding is that of the sums
    check_within("attention", long_graphs::ATTENTIONS, &[70_001], 10.0 * BLOCKWISE);
}

/// The GPU as one whose loops may turn so often.
fn allowing(turns: usize) -> Tested {
    let t = devices::gpu();
    let gpu = t.device.as_gpu().unwrap().limited(|l| l.turns = turns).unwrap();
    Tested { device: Device::from_gpu(gpu), ..t }
}

#[test]
fn a_driver_that_ends_loops_early_is_found_and_kept_within_what_it_allows() {
    // more than lavapipe allows; others may allow it
    let t = allowing(1 << 17);
    let turns = t.device.as_gpu().unwrap().limits().turns;
    println!("{} allows {turns} turns", t.name());
    assert!([1 << 17, 1 << 16, 1 << 15].contains(&turns), "{turns}");
    let long = build(&long_graphs::PRODUCTS[0], 600_000);
    let given = long.given();
    let came = run_on(&t, &long.g, &given, true);
    agree(&came, &run_reference(&long.g, &given), t.tolerance(BLOCKWISE)).unwrap();
}

/// Every operation whose kernels have loops, where these may turn a few times only: what splits long work splits all of it.
#[test]
fn samples_agree_where_loops_may_turn_a_few_times() {
    let t = allowing(24);
    let compiler: Compiler = t.compiler();
    let mut report = Report::default();
    let names = [
        "matmul",
        "conv2d",
        "attention",
        "attention_grad",
        "paged_attention",
        "softmax",
        "layer_norm",
        "sum",
        "max_over",
        "argmax",
        "cumsum",
    ];
    for op in weft::ops::all().filter(|op| names.contains(&op.name())) {
        for (i, sample) in op.samples().iter().enumerate() {
            let g = weft::graph::Graph::new();
            let named = || sample.inputs.iter().enumerate().map(|(n, a)| (format!("x{n}"), a));
            let inputs: Vec<_> =
                named().map(|(name, a)| g.input(&name, a.ty.dtype, a.ty.shape.clone())).collect();
            g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
            let given = named().map(|(name, a)| (name, a.clone())).collect();
            let outcome = agree(&run(&compiler, &g, &given), &run_reference(&g, &given), t.tolerance(1e-5));
            report.note(op.name(), &format!("sample {i}"), outcome);
        }
    }
    report.close("samples with few turns");
}
