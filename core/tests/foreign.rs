//! Operations outside the engine's table, defined here and passed to `Graph::apply`: the optimiser, the planner and the cache
//! preserve them, even if they have the name of one in the table.

#[path = "conformance/compare.rs"]
mod compare;
mod devices;

use compare::{agree, run, run_reference};
use weft::device::Device;
use weft::error::Result;
use weft::graph::{
    Array, Attr, AttrKind, AttrSpec, Attrs, Call, Grad, Graph, Inputs, Lowering, NodeKind, Op, Refusal,
    Sample, Value,
};
use weft::internals::expr::Expr;
use weft::internals::optimise::{Options, optimise};
use weft::session::Compiler;
use weft::tensor::{DType, TensorType};

/// x·by·VERSION + 0.5, named as `NAMED` says.
struct Times<const NAMED: usize, const VERSION: u32>;

const NAMES: [&str; 3] = ["times", "neg", "slice"];

impl<const NAMED: usize, const VERSION: u32> Op for Times<NAMED, VERSION> {
    fn name(&self) -> &'static str {
        NAMES[NAMED]
    }
    fn version(&self) -> u32 {
        VERSION
    }
    fn about(&self) -> &'static str {
        "x·by·version + 0.5"
    }
    fn inputs(&self) -> Inputs {
        Inputs::Fixed(&["x"])
    }
    fn attributes(&self) -> &'static [AttrSpec] {
        &[AttrSpec { name: "by", kind: AttrKind::Float, about: "The factor.", default: None }]
    }
    fn infer(&self, call: &Call<'_>) -> std::result::Result<TensorType, Refusal> {
        Ok(call.inputs[0].clone())
    }
    fn evaluate(&self, call: &Call<'_>, inputs: &[&Array]) -> Result<Array> {
        let by = call.attrs.float("by") * f64::from(VERSION);
        let data = inputs[0].data.iter().map(|v| v * by + 0.5).collect();
        Ok(Array::new(call.inputs[0].clone(), data))
    }
    fn grad(&self, g: &Graph, node: Value, up: Value) -> Grad {
        let by = g.attrs_of(node).float("by") * f64::from(VERSION);
        Grad::of([g.mul(up, g.scalar(by, DType::F32))])
    }
    fn lower(&self, call: &Call<'_>) -> Lowering {
        Lowering::Pointwise(Expr::Input(0) * (call.attrs.float("by") * f64::from(VERSION)) + 0.5)
    }
    fn decompose(&self, _: &Graph, _: &[Value], _: &Attrs) -> Option<Value> {
        None
    }
    fn samples(&self) -> Vec<Sample> {
        vec![]
    }
}

static OURS: [&dyn Op; 3] = [&Times::<0, 3>, &Times::<1, 3>, &Times::<2, 3>];

fn times(g: &Graph, op: &'static dyn Op, x: Value, by: f64) -> Value {
    g.apply(op, &[x], Attrs::none().with("by", Attr::Float(by)))
}

/// Each operation between others that rules change, twice alike and once with another factor; and those whose names it takes.
fn graph() -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, 4]);
    let y = g.mul(x, g.scalar(1.0, DType::F32));
    let whole = g.slice(g.neg(g.neg(y)), &[0, 0], &[3, 4], &[1, 1]);
    for (i, op) in OURS.into_iter().enumerate() {
        let (a, b, c) = (times(&g, op, whole, 2.0), times(&g, op, y, 2.0), times(&g, op, y, -0.0));
        let z = g.mul(a, g.sigmoid(a));
        g.output(
            &format!("{i}"),
            g.add(g.neg(g.add(z, b)), g.concat(&[g.narrow(c, 0, 1, 2), g.narrow(y, 0, 0, 1)], 0)),
        );
        g.output(&format!("{i}.{}", op.name()), times(&g, op, g.neg(x), 0.25));
    }
    g
}

fn count(g: &Graph, wanted: &dyn Op) -> usize {
    let data = g.data().unwrap();
    data.nodes.iter().filter(|n| matches!(&n.kind, NodeKind::Op(op, _) if *op == wanted)).count()
}

#[test]
fn operations_from_outside_are_carried_through_as_they_are() {
    let g = graph();
    let given = [("x".to_string(), compare_input())].into();
    let wanted = run_reference(&g, &given);
    let done = optimise(&g, &[], &Device::cpu(1).profile(), &Options::default()).unwrap();
    assert_eq!(done.report.problem, None);
    agree(&Ok(run_reference(&done.graph, &given)), &wanted, 1e-6).unwrap();
    for op in OURS {
        // of the four, two are equal: they read what the rules found to be one
        assert_eq!(
            (count(&g, op), count(&done.graph, op)),
            (4, 3),
            "{}\n{}",
            op.name(),
            done.graph.data().unwrap()
        );
    }
    assert!(!done.report.changes.is_empty(), "rules change what is around them");
    for t in devices::all() {
        for compiler in [t.compiler(), t.compiler().with_rules(&[]), t.compiler().without_fusion()] {
            agree(&run(&compiler, &g, &given), &wanted, 1e-5).unwrap_or_else(|e| panic!("{}: {e}", t.name()));
        }
    }
}

fn compare_input() -> Array {
    let mut n = 0.0;
    Array::from_fn(TensorType::f32([3, 4]), |_| {
        n += 0.375;
        n - 2.0
    })
}

#[test]
fn operations_from_outside_have_gradients() {
    for op in OURS {
        let g = Graph::new();
        let w = g.parameter("w", [5]);
        g.set_loss(g.sum_all(g.mul(times(&g, op, w, 0.5), w)));
        let compiled = Compiler::new(&Device::cpu(1)).compile_training(&g).unwrap();
        let mut s = compiled.init_zeros().unwrap();
        s.set_parameter("w", &[1.0, 2.0, -1.0, 0.0, 4.0]).unwrap();
        s.step().unwrap();
        // w·(1.5·w + ½): 3·w + ½
        assert_eq!(s.read_gradient("w").unwrap(), [3.5, 6.5, -2.5, 0.5, 12.5], "{}", op.name());
    }
}

#[test]
fn another_version_of_an_operation_is_compiled_anew() {
    let folder = std::env::temp_dir().join(format!("weft-foreign-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    let build = |op: &'static dyn Op| {
        let g = Graph::new();
        g.output("y", times(&g, op, g.input("x", DType::F32, [2]), 1.0));
        g
    };
    let own = || {
        let g = Graph::new();
        g.output("y", g.neg(g.input("x", DType::F32, [2])));
        g
    };
    let mut results = vec![];
    let graphs =
        [build(&Times::<0, 1>), build(&Times::<0, 2>), build(&Times::<1, 1>), own(), build(&Times::<0, 1>)];
    for g in graphs {
        let compiler = Compiler::new(&Device::cpu(1)).with_cache(&folder, 1 << 20);
        let compiled = compiler.compile(&g).unwrap();
        let mut s = compiled.init_zeros().unwrap();
        s.set_input("x", &[1.0, 3.0]).unwrap();
        s.step().unwrap();
        results.push((compiled.was_cached(), s.read_output::<f32>("y").unwrap()));
    }
    let _ = std::fs::remove_dir_all(&folder);
    let wanted = [[1.5, 3.5], [2.5, 6.5], [1.5, 3.5], [-1.0, -3.0], [1.5, 3.5]];
    for (i, (cached, values)) in results.iter().enumerate() {
        assert_eq!((*cached, values.as_slice()), (i == 4, &wanted[i][..]), "graph {i}");
    }
}
