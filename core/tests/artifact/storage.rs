//! The storage of a GPU's plan, flaw by flaw: each is a change that would make kernels read missing values, or with another
//! element width than they were written.

use super::gpu_plans::{everything, on, plan};
use weft::autodiff::gradients;
use weft::graph::{Graph, Value};
use weft::internals::plan::PlanOptions;
use weft::internals::target::gpu::GpuPlan;
use weft::internals::target::gpu::forms::Plan;
use weft::internals::target::gpu::storage::concat::ConcatView;
use weft::internals::target::gpu::storage::{BufferStorage, ElementStorage, Form};
use weft::profile::{Limits, Precision};
use weft::tensor::{DType, TensorType};

/// A norm and a gate that products compute where they read them, a weight of blocks, results that products alone read, a
/// truth that is stored.
fn inference() -> Plan {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [1, 64]);
    let quants = g.parameter_of("quants", TensorType::new(DType::Q8, [96, 64]), false);
    let h = g.linear(g.silu(x), g.dequantise(quants), None);
    let rows = g.softmax(g.matmul(g.input("y", DType::F32, [40, 96]), g.parameter("v", [96, 96])), -1);
    g.output("z", g.matmul(rows, g.parameter("w", [96, 32])));
    g.output("y", g.linear(g.tanh(h), g.parameter("out", [10, 96]), None));
    g.output("is", g.gt(h, g.scalar(0.5, DType::F32)));
    plan(&g, &everything()).unwrap()
}

/// Training of a product whose weights are joined.
fn training() -> Plan {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [24, 64]);
    let w = g.concat(&[g.parameter("a", [64, 64]), g.parameter("b", [128, 64])], 0);
    let y = g.linear(x, w, None);
    let loss = g.mean_all(g.mul(y, y));
    g.set_loss(loss);
    let by: Vec<Value> = g.data().unwrap().parameters().map(|(v, _)| v).collect();
    let grads = gradients(&g, loss, None, &by).unwrap();
    plan(&g, &PlanOptions { gradients: by.into_iter().zip(grads).collect(), ..everything() }).unwrap()
}

type Change<'a> = (&'a str, &'a dyn Fn(&mut GpuPlan));

fn check(good: &GpuPlan, limits: &Limits, changes: &[Change<'_>]) {
    assert_eq!(good.verify(limits), Ok(()));
    for (name, change) in changes {
        let mut changed = good.clone();
        change(&mut changed);
        let flaw = changed.verify(limits).expect_err(name);
        assert!(!flaw.wanted.is_empty() && !flaw.came.is_empty(), "{name}: {flaw}");
    }
}

fn find(of: &GpuPlan, is: impl Fn(&BufferStorage) -> bool) -> usize {
    of.storage.buffers.iter().position(is).expect("a buffer that is stored so")
}

fn with(of: &mut GpuPlan, buffer: usize, form: Form) {
    of.storage.buffers[buffer].form = form;
}

#[test]
fn what_is_not_stored_can_be_found_and_what_is_has_its_width() {
    let limits = Limits::large();
    let good = on(&inference(), &limits, Precision::Fast);
    let packed = Form::Stored(ElementStorage::Packed);
    let decoded = find(&good, |b| matches!(b.form, Form::Decoded(_)));
    let computed = find(&good, |b| matches!(b.form, Form::Computed(_)));
    let f16 = find(&good, |b| b.holds(ElementStorage::F16));
    let wide = find(&good, |b| b.holds(ElementStorage::U32));
    let input = good.plan.inputs[0].buffer;
    let quants = good.plan.parameters.iter().find(|p| p.name == "quants").unwrap().buffer;
    let others = good.storage.computed.len();
    check(
        &good,
        &limits,
        &[
            ("a buffer too few", &|p| drop(p.storage.buffers.pop())),
            ("a longer buffer", &|p| p.storage.buffers[input].elements += 1),
            ("another type", &|p| p.storage.buffers[input].dtype = DType::U32),
            ("a binding of another device", &|p| p.storage.binding *= 2),
            ("16 bits of another device", &|p| p.storage.native_f16 = false),
            ("a truth as narrow as it is", &|p| with(p, wide, packed.clone())),
            ("an input in 32 bits", &|p| with(p, input, Form::Stored(ElementStorage::U32))),
            ("an input as f16", &|p| with(p, input, Form::Stored(ElementStorage::F16))),
            ("f16 in full precision", &|p| p.precision = Precision::Full),
            ("f16 in 32 bits", &|p| with(p, f16, Form::Stored(ElementStorage::U32))),
            ("an output that is computed", &|p| {
                let form = p.storage.buffers[computed].form.clone();
                with(p, p.plan.outputs[0].buffer, form);
            }),
            ("a value that is not there", &|p| with(p, computed, Form::Computed(others))),
            ("a value of another step", &|p| {
                let at = p.storage.computed.iter().position(|c| c.work.out.buffer == computed).unwrap();
                p.storage.computed[at].work.out.buffer = f16;
            }),
            ("blocks of no block format", &|p| with(p, decoded, Form::Decoded(input))),
            ("an input that is decoded", &|p| with(p, input, Form::Decoded(quants))),
            ("a concatenation of nothing", &|p| {
                with(p, f16, Form::Concat(ConcatView { parts: vec![], adjacent: false }));
            }),
            ("parameters that nothing joins, twice", &|p| p.storage.adjacent = vec![vec![0, 0]]),
            ("a parameter that is not there", &|p| p.storage.adjacent = vec![vec![99]]),
        ],
    );
    // what is stored without need is no flaw
    let mut stored = good.clone();
    with(&mut stored, computed, packed.clone());
    with(&mut stored, decoded, packed);
    assert_eq!(stored.verify(&limits), Ok(()));
    assert!(stored.program(&limits).is_ok());
}

#[test]
fn concatenations_that_are_not_stored_have_parts_that_fill_them() {
    let limits = Limits::large();
    let good = on(&training(), &limits, Precision::Full);
    let joined = find(&good, |b| matches!(&b.form, Form::Concat(view) if view.adjacent));
    let of = |p: &mut GpuPlan, change: &dyn Fn(&mut ConcatView)| match &mut p.storage.buffers[joined].form {
        Form::Concat(view) => change(view),
        other => panic!("{other:?}"),
    };
    check(
        &good,
        &limits,
        &[
            ("a part too few", &|p| of(p, &|view| drop(view.parts.pop()))),
            ("parts in another order", &|p| of(p, &|view| view.parts.reverse())),
            ("a part from elsewhere", &|p| of(p, &|view| view.parts[1].from.offset = 4)),
            ("a part of another parameter", &|p| {
                of(p, &|view| view.parts[0].from.buffer = view.parts[1].from.buffer);
            }),
            ("a part at another place", &|p| of(p, &|view| view.parts[1].start += 4)),
            ("parts that do not lie so", &|p| p.storage.adjacent.clear()),
            ("parameters in another order", &|p| p.storage.adjacent[0].reverse()),
        ],
    );
    assert_eq!(good.apart().verify(&limits), Ok(()));
}
