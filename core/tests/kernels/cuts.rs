//! Kernels for every kind of tiling that a tuning may contain: valid on devices of every size, in both precisions.

#[path = "../odd_cuts/mod.rs"]
mod odd_cuts;

use super::gpu_plans::{everything, on, plan};
use super::{check_program, devices, gated};
use std::collections::HashSet;
use weft::graph::Graph;
use weft::internals::target::gpu::GpuPlan;
use weft::internals::target::gpu::forms::Plan;
use weft::internals::target::gpu::kernels::{allowed, classes, neighbours, seeds};
use weft::ops::Conv2dOptions;
use weft::profile::Precision;
use weft::tensor::{DType, TensorType};

fn planned(build: impl FnOnce(&Graph) -> weft::graph::Value) -> Plan {
    let g = Graph::new();
    g.output("y", build(&g));
    plan(&g, &everything()).unwrap()
}

fn products() -> Vec<(&'static str, Plan)> {
    let half = |g: &Graph, shape: [usize; 2]| g.parameter_of("w", TensorType::new(DType::F16, shape), false);
    vec![
        (
            "linear",
            planned(|g| {
                g.gelu(g.linear(g.input("x", DType::F32, [150, 96]), g.parameter("w", [130, 96]), None))
            }),
        ),
        ("few rows", planned(|g| g.linear(g.input("x", DType::F32, [3, 576]), half(g, [200, 576]), None))),
        (
            "batched",
            planned(|g| {
                let (a, b) = (g.input("a", DType::F32, [6, 70, 64]), g.input("b", DType::F32, [6, 64, 68]));
                g.matmul(a, b)
            }),
        ),
        ("norm and halves", planned(|g| gated(g, [40, 96, 64], DType::F32, true)[0])),
        (
            "convolution",
            planned(|g| {
                let (x, w) = (g.input("x", DType::F32, [2, 8, 12, 12]), g.parameter("w", [32, 8, 3, 3]));
                g.relu(g.conv2d(x, w, None, Conv2dOptions::new().padding([1, 1])))
            }),
        ),
        ("odd", planned(|g| g.matmul(g.input("x", DType::F32, [33, 35]), g.parameter("w", [35, 37])))),
    ]
}

#[test]
fn every_sort_of_cut_is_a_valid_kernel_everywhere() {
    let (mut failures, mut checked) = (vec![], 0);
    for device in devices().into_iter().filter(|d| d.0 != "split") {
        let mut seen = HashSet::new();
        for (name, p) in products() {
            for precision in [Precision::Full, Precision::Fast] {
                let lowered = on(&p, &device.1, precision);
                let class = classes(&lowered)[0].1;
                let mut cuts = seeds(&class, &device.1);
                for at in (0..cuts.len()).step_by(4) {
                    let more = neighbours(&cuts[at], &class, &device.1);
                    cuts.extend(more.into_iter().step_by(3));
                }
                cuts.extend(odd_cuts::any(checked).filter(|c| allowed(c, &class, &device.1)).take(12));
                for cut in cuts {
                    let tuned = GpuPlan { cuts: vec![(class, cut)], ..lowered.clone() };
                    let (what, made) = (format!("{name}, {cut}"), tuned.program(&device.1));
                    check_program(&what, made, (device.0, &device.1), precision, &mut seen, &mut failures);
                }
            }
        }
        checked += seen.len();
    }
    assert!(checked > 500, "only {checked} texts");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures[0]);
}
