//! Compares the report with what a session on the CPU allocated and computed.

use super::*;
use crate::device::Device;
use crate::graph::Graph;
use crate::plan::BufferId;
use crate::session::{Compiler, Session};
use crate::tensor::{Tensor, Weights};

/// Two layers whose weights are concatenated, and one weight that is read in its own order.
fn layers() -> Graph {
    let g = Graph::new();
    let mut x = g.input("x", DType::F32, [6, 24]);
    for layer in 0..2 {
        let w = |name: &str, shape: &[usize]| g.parameter(&format!("{layer}.{name}"), shape);
        let joined = g.concat(&[w("gate", &[40, 24]), w("up", &[40, 24])], 0);
        let both = g.linear(x, joined, Some(g.concat(&[w("gate_bias", &[40]), w("up_bias", &[40])], 0)));
        let [gate, up] = [0, 40].map(|at| g.narrow(both, 1, at, 40));
        x = g.add(x, g.matmul(g.mul(g.silu(gate), up), w("down", &[40, 24])));
    }
    g.output("y", g.mul(x, g.parameter("scale", [24])));
    g
}

/// Products of values computed at init, of the same weight twice, and of a 16-bit weight.
fn mixed() -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [5, 12]);
    let w = g.parameter("w", [12, 20]);
    g.output("twice", g.add(g.matmul(x, w), g.matmul(g.tanh(x), w)));
    let thin = g.matmul(g.parameter("a", [12, 2]), g.parameter("b", [2, 9]));
    g.output(
        "thin",
        g.matmul(g.matmul(x, thin), g.matmul(g.parameter("c", [9, 3]), g.parameter("d", [3, 7]))),
    );
    let half = g.parameter_of("half", TensorType::new(DType::F16, [30, 12]), false);
    g.output("half", g.linear(x, half, None));
    g
}

fn session(graph: &Graph) -> Session {
    // unoptimised: rules would merge all products that read x into one
    let compiled = Compiler::new(&Device::cpu(2)).with_rules(&[]).compile(graph).unwrap();
    let filled = |p: &crate::plan::Port| {
        let ty = TensorType::new(p.dtype, p.shape.clone());
        let values: Vec<f64> = (0..ty.elements()).map(|i| (i * 7 % 61) as f64 / 32.0 - 0.9).collect();
        (p.name.clone(), Tensor::from_f64(&ty, &values).unwrap())
    };
    let weights: Weights = compiled.parameters().iter().map(filled).collect();
    compiled.init(&weights).unwrap()
}

#[test]
fn packed_forms_are_as_large_as_those_that_a_session_allocates() {
    for graph in [layers(), mixed()] {
        let mut s = session(&graph);
        for p in s.inputs().to_vec() {
            let ty = TensorType::new(p.dtype, p.shape);
            s.set_input_tensor(&p.name, &Tensor::from_f64(&ty, &vec![1.0; ty.elements()]).unwrap()).unwrap();
        }
        s.step().unwrap();
        let told = s.compiled().weight_report();
        let plan = &s.compiled().target().on_cpu().unwrap().plan;
        let store = s.parameters.read().unwrap().sizes();
        let shared: usize = store[plan.parameters.len()..].iter().sum();
        // the executor appends its own, one for each step that may run
        let renewed = crate::plan::Uses::of(plan).of_parameters(plan);
        let lasts = |step: &&crate::plan::Step| {
            let mut lasts = false;
            step.work.for_each_operand(&mut |o, written| lasts |= written && renewed[o.buffer]);
            lasts
        };
        let kept = plan.steps.len() + plan.init_steps.iter().filter(lasts).count();
        let sizes = s.executor.sizes();
        let own: usize = sizes[sizes.len() - kept..].iter().sum();
        let packed: usize = told.made.iter().filter(|m| m.packed).map(|m| m.bytes).sum();
        assert_eq!(packed, shared + own);
        assert!(packed > 0);
    }
}

#[test]
fn joined_weights_lie_where_they_are_said_to() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [5, 12]);
    let w = |name: &str, shape: &[usize]| g.parameter(name, shape);
    let rows = g.concat(&[w("q", &[8, 12]), w("k", &[4, 12]), w("v", &[6, 12])], 0);
    let columns = g.concat(&[w("left", &[12, 4]), w("mid", &[12, 6]), w("right", &[12, 8])], 1);
    g.output("rows", g.linear(x, rows, None));
    g.output("columns", g.matmul(x, columns));
    let s = session(&g);
    let (told, plan) = (s.compiled().weight_report(), &s.compiled().target().on_cpu().unwrap().plan);
    let value = |id: BufferId| -> Vec<f32> {
        s.executor
            .read(id)
            .unwrap()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect()
    };
    let mut seen = 0;
    for weight in &told.weights {
        let Some(Transformation::Joined { part, .. }) = weight.applied.first().map(|a| a.how.clone()) else {
            panic!("{weight:?}");
        };
        let step = plan.init_steps.iter().find(|step| step.label == weight.applied[0].by).unwrap();
        let mut out = 0;
        step.work.for_each_operand(&mut |o, written| out = if written { o.buffer } else { out });
        let (whole, own) = (value(out), s.read_parameter::<f32>(&weight.name).unwrap());
        let (height, width) = match part.of {
            Count::Rows => (part.all, whole.len() / part.all),
            _ => (whole.len() / part.all, part.all),
        };
        let within = |i: usize| (part.from..part.to).contains(&i);
        let cells = (0..height).flat_map(|r| (0..width).map(move |c| (r, c)));
        let inside = cells.filter(|(r, c)| within(if part.of == Count::Rows { *r } else { *c }));
        let came: Vec<f32> = inside.map(|(r, c)| whole[r * width + c]).collect();
        // a concatenated weight may be stored transposed, and is then reported as transposed; this graph has none
        assert_eq!(came, own, "{}", weight.name);
        seen += 1;
    }
    assert_eq!(seen, 6);
}
