//! Every device against the f64 reference: every operation × its samples, gradients mid-graph, random
//! graphs, and fused against unfused plans.

mod compare;
#[path = "../devices/mod.rs"]
mod devices;
mod random;

use compare::{Report, agree, run_on, run_reference};
use std::collections::BTreeMap;
use weft::autodiff::gradients;
use weft::graph::{Array, Graph, Op, Sample, Value};
use weft::tensor::DType;

/// A graph of one operation between others: inputs multiplied by constants, the output weighted.
fn sample_graph(op: &'static dyn Op, sample: &Sample, around: bool) -> (Graph, Vec<Value>) {
    let g = Graph::new();
    let mut inputs = vec![];
    let mut used = vec![];
    for (i, a) in sample.inputs.iter().enumerate() {
        let v = g.input(&format!("in{i}"), a.ty.dtype, a.ty.shape.clone());
        inputs.push(v);
        let scaled = around && a.ty.dtype == DType::F32;
        used.push(if scaled { g.mul(v, g.scalar(1.0, DType::F32)) } else { v });
    }
    let y = g.apply(op, &used, sample.attrs.clone());
    g.output("y", y);
    (g, inputs)
}

fn given(sample: &Sample) -> BTreeMap<String, Array> {
    sample.inputs.iter().enumerate().map(|(i, a)| (format!("in{i}"), a.clone())).collect()
}

#[test]
fn every_sample_agrees_with_the_reference() {
    let mut report = Report::default();
    let tested = devices::all();
    for op in weft::ops::all() {
        for (i, sample) in op.samples().iter().enumerate() {
            for around in [false, true] {
                let (g, _) = sample_graph(op, sample, around);
                let wanted = run_reference(&g, &given(sample));
                for t in &tested {
                    for fuse in [true, false] {
                        // one operation by itself is the same plan, fused or not, on the slower device
                        if !t.is_cpu() && !fuse && !around {
                            continue;
                        }
                        let came = run_on(t, &g, &given(sample), fuse);
                        let outcome = agree(&came, &wanted, t.tolerance(1e-5));
                        report.note(
                            &format!("{} on {}", op.name(), t.name()),
                            &format!("sample {i}, fuse {fuse}"),
                            outcome,
                        );
                    }
                }
            }
        }
    }
    report.close("operations");
}

#[test]
fn every_gradient_agrees_with_the_reference() {
    let (mut report, mut checked) = (Report::default(), 0);
    let tested = devices::all();
    for op in weft::ops::all() {
        for (i, sample) in op.samples().iter().enumerate() {
            let (g, inputs) = sample_graph(op, sample, true);
            let by: Vec<Value> = inputs.into_iter().filter(|&v| g.ty(v).dtype == DType::F32).collect();
            let Some(&(_, y)) = g.data().unwrap().outputs.first() else { continue };
            if by.is_empty() || g.ty(y).dtype != DType::F32 {
                continue;
            }
            let seed = g.input("seed", DType::F32, g.shape(y));
            let Ok(grads) = gradients(&g, y, Some(seed), &by) else { continue };
            for (j, v) in grads.into_iter().enumerate() {
                g.output(&format!("grad{j}"), v);
            }
            let mut arrays = given(sample);
            arrays.insert("seed".into(), random::array(&g.shape(y), 77 + i as u64));
            let wanted = run_reference(&g, &arrays);
            checked += 1;
            for t in &tested {
                let outcome = agree(&run_on(t, &g, &arrays, true), &wanted, t.tolerance(1e-4));
                report.note(&format!("{} on {}", op.name(), t.name()), &format!("sample {i}"), outcome);
            }
        }
    }
    assert!(checked > 200, "only {checked} samples have gradients");
    report.close("gradients");
}

/// How many products a graph has, and how many times larger than the results they may be: what rounding operands costs
/// is relative to a product's own elements, and functions that saturate may make them small later.
fn products(text: &str, given: &BTreeMap<String, Array>, results: &BTreeMap<String, Array>) -> (usize, f64) {
    let names: Vec<&str> =
        text.lines().filter_map(|l| l.split_once(" = matmul(")).map(|(name, _)| name).collect();
    let outputs: Vec<String> =
        names.iter().enumerate().map(|(i, n)| format!("output product{i} = {n}")).collect();
    let g = Graph::parse(&format!("{text}\n{}\n", outputs.join("\n"))).unwrap();
    let most = |arrays: &BTreeMap<String, Array>, all: bool| {
        let chosen = arrays.iter().filter(|(n, _)| all || n.starts_with("product"));
        chosen.flat_map(|(_, a)| &a.data).filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()))
    };
    let (inner, outer) = (most(&run_reference(&g, given), false), most(results, true));
    (names.len(), if outer > 0.0 { (inner / outer).max(1.0) } else { 1.0 })
}

#[test]
fn random_graphs_agree_with_the_reference() {
    let mut failures = vec![];
    let tested = devices::all();
    for seed in 0..400 {
        let (g, arrays) = random::graph(seed);
        let text = g.data().unwrap_or_else(|e| panic!("graph {seed}: {e}")).to_string();
        let wanted = run_reference(&g, &arrays);
        let (products, excess) = products(&text, &arrays, &wanted);
        for (t, fuse) in tested.iter().flat_map(|t| [(t, true), (t, false)]) {
            // compiling kernels takes the time: a GPU runs a part of them, and of these a part unfused
            if !t.is_cpu() && (seed % 2 == 1 || !fuse && seed % 8 != 0) {
                continue;
            }
            if let Err(e) = agree(
                &run_on(t, &g, &arrays, fuse),
                &wanted,
                t.tolerance_behind(products, 2e-5) * if t.is_fast() { excess } else { 1.0 },
            ) {
                failures.push(format!("graph {seed} on {}, fuse {fuse}: {e}\n{text}", t.name()));
            }
        }
        let again = Graph::parse(&text).unwrap_or_else(|e| panic!("graph {seed}: {e}\n{text}"));
        assert_eq!(again.data().unwrap().to_string(), text);
    }
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures[..failures.len().min(5)].join("\n")
    );
}
