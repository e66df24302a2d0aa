//! The plan verifier, flaw by flaw: each is a change of a valid plan that would cause an invalid read, write or count.

use super::gpu_plans;
use super::models::small;
use std::sync::Arc;
use weft::device::Device;
use weft::expr::{Binary, Fold, Unary};
use weft::graph::Graph;
use weft::internals::expr::{Instr, Kind, Tape};
use weft::internals::plan::{
    Columns, Form, IndexKind, Norm, Operand, Place, Plan, PlanOptions, Product, RowResult, Rowwise, Work,
    verify,
};
use weft::internals::target::cpu::{Arena, CpuPlan};
use weft::internals::target::gpu::forms::{
    Formula, GpuForm, GpuProduct, Plan as GpuSteps, Prologue, Work as GpuWork,
};
use weft::session::{Compiled, Compiler};
use weft::tensor::DType;

fn plan(g: &Graph) -> Plan {
    let compiled = Compiler::new(&Device::cpu(1)).compile(g).unwrap();
    on_cpu(&compiled)
}

fn on_cpu(compiled: &Compiled) -> Plan {
    (*compiled.target().on_cpu().expect("a plan for the CPU").plan).clone()
}

/// Pointwise work, a reduction, a product with an epilogue, intermediates in the arena.
fn mixed() -> Plan {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [6, 8]);
    let w = g.parameter("w", [8, 5]);
    let h = g.softmax(g.add(x, g.sin(x)), -1);
    let y = g.relu(g.add(g.matmul(h, w), g.parameter("b", [5])));
    let z = g.sum(g.mul(y, g.exp(y)), &[1], false);
    g.output("z", g.matmul(g.softmax(y, -1), g.constant(super::models::filled(DType::F32, &[5, 4], 3))));
    g.output("sums", z);
    plan(&g)
}

fn rowwise(plan: &mut Plan) -> &mut Rowwise {
    let found = plan.steps.iter_mut().find_map(|s| match &mut s.work {
        Work::Rowwise(w) if !w.operands.is_empty() => Some(w),
        _ => None,
    });
    found.expect("a rowwise step")
}

fn product(plan: &mut Plan) -> &mut Product {
    let found = plan.steps.iter_mut().find_map(|s| match &mut s.work {
        Work::Product(w) => Some(w),
        _ => None,
    });
    found.expect("a product")
}

/// The good plan passes; each change makes it fail for its own reason.
/// What is wrong, and how it is made so.
type Flaw<'a, G> = (&'a str, &'a dyn Fn(&mut Plan<G>));

fn check<G: Form>(good: impl Fn() -> Plan<G>, changes: &[Flaw<'_, G>]) {
    assert_eq!(verify(&good()), Ok(()));
    for (name, change) in changes {
        let mut plan = good();
        change(&mut plan);
        match verify(&plan) {
            Ok(()) => panic!("{name}: passes"),
            Err(flaw) => assert!(!flaw.part.is_empty() && !flaw.wanted.is_empty(), "{name}: {flaw}"),
        }
    }
}

#[test]
fn operands_stay_inside_their_buffers() {
    let far = |o: &mut Operand, by: isize| o.offset += by;
    check(
        mixed,
        &[
            ("an offset before the buffer", &|p| far(&mut rowwise(p).operands[0], -1)),
            ("an offset past the end", &|p| far(&mut rowwise(p).operands[0], 1)),
            ("the furthest offset", &|p| far(&mut rowwise(p).operands[0], isize::MAX)),
            ("a long stride", &|p| rowwise(p).operands[0].strides[0] += 1),
            ("a backward stride", &|p| rowwise(p).operands[0].strides[0] = -8),
            ("a stride that overflows", &|p| rowwise(p).operands[0].strides[0] = isize::MAX),
            ("a stride too many", &|p| rowwise(p).operands[0].strides.push(0)),
            ("no strides", &|p| rowwise(p).operands[0].strides.clear()),
            ("a buffer that is not there", &|p| rowwise(p).operands[0].buffer = 9999),
            ("another dtype", &|p| rowwise(p).operands[0].dtype = DType::I64),
            ("a result past the end", &|p| far(&mut rowwise(p).out, 1)),
            ("a product's a", &|p| product(p).a.offset = 1),
            ("a product's b", &|p| product(p).b.strides[0] += 1),
            ("a product's result", &|p| product(p).out.offset = 1),
            ("a product with more rows", &|p| product(p).m += 1),
            ("a product with longer sums", &|p| product(p).k += 1),
            ("a product without columns", &|p| product(p).n = 0),
            ("a batch beyond counting", &|p| product(p).batch = vec![usize::MAX, usize::MAX]),
            ("a domain beyond counting", &|p| rowwise(p).domain[0] = usize::MAX),
            ("an empty domain", &|p| rowwise(p).domain[0] = 0),
        ],
    );
}

#[test]
fn results_lie_in_memory_of_the_session_each_at_its_address() {
    let parameter = |p: &Plan| p.parameters[0].buffer;
    check(
        mixed,
        &[
            ("a parameter written", &|p| {
                let b = parameter(p);
                (rowwise(p).out.buffer, rowwise(p).out.strides) = (b, vec![0; rowwise(p).domain.len()]);
            }),
            ("an input written", &|p| product(p).out.buffer = p.inputs[0].buffer),
            ("positions that share an address", &|p| product(p).out.strides[0] = 1),
            ("a result that is read", &|p| product(p).out = product(p).a.clone()),
            ("columns that are not adjacent", &|p| {
                let out = &mut product(p).out;
                out.strides = vec![1, 6];
            }),
            ("an epilogue that reads the result", &|p| {
                let out = product(p).out.clone();
                let e = product(p).epilogue.as_mut().unwrap();
                e.operands[0] = Operand { strides: vec![0; e.domain.len()], ..out };
            }),
            ("an epilogue over other rows", &|p| product(p).epilogue.as_mut().unwrap().domain[0] += 1),
            ("an epilogue without axes", &|p| product(p).epilogue.as_mut().unwrap().domain.clear()),
        ],
    );
}

#[test]
fn tapes_read_what_is_there() {
    fn tape(p: &mut Plan, change: impl FnOnce(&mut Vec<(Instr, Kind)>)) {
        let mut code = rowwise(p).tape.code.clone();
        change(&mut code);
        rowwise(p).tape = Tape::of(code);
    }
    check(
        mixed,
        &[
            ("a result that no register is", &|p| rowwise(p).result = 9999),
            ("a later register", &|p| {
                tape(p, |c| c.insert(0, (Instr::Unary(weft::internals::expr::Unary::Neg, 3), Kind::F)))
            }),
            ("a register of itself", &|p| {
                let n = rowwise(p).tape.code.len();
                tape(p, |c| c.push((Instr::Unary(weft::internals::expr::Unary::Neg, n), Kind::F)));
            }),
            ("a load of nothing", &|p| tape(p, |c| c.push((Instr::Load(77), Kind::F)))),
            ("a load of another kind", &|p| tape(p, |c| c[0].1 = Kind::I)),
            ("a reduction that is not there", &|p| tape(p, |c| c.push((Instr::Reduced(9), Kind::F)))),
            ("an index of other axes", &|p| tape(p, |c| c.push((Instr::Index(vec![1; 5]), Kind::U)))),
            ("an index of more than 32 bits", &|p| {
                let rank = rowwise(p).domain.len();
                tape(p, |c| c.push((Instr::Index(vec![1 << 39; rank]), Kind::U)));
            }),
            ("a truth that is neither", &|p| tape(p, |c| c.push((Instr::Const(2), Kind::B)))),
            ("a cast to blocks", &|p| tape(p, |c| c.push((Instr::Cast(DType::Q8, 0), Kind::F)))),
            ("a reduction of itself", &|p| {
                let w = p.steps.iter_mut().find_map(|s| match &mut s.work {
                    Work::Rowwise(w) if !w.reductions.is_empty() => Some(w),
                    _ => None,
                });
                let w = w.unwrap();
                let mut code = w.tape.code.clone();
                let kind = code[w.reductions[0].1].1;
                code.push((Instr::Reduced(0), kind));
                w.reductions[0].1 = code.len() - 1;
                w.tape = Tape::of(code);
            }),
            ("a row's result that varies along it", &|p| {
                let w = p.steps.iter_mut().find_map(|s| match &mut s.work {
                    Work::Rowwise(w) if w.per_row => Some(w),
                    _ => None,
                });
                let w = w.unwrap();
                w.result = w.reductions[0].1;
            }),
        ],
    );
}

#[test]
fn scratch_of_the_cpu_lies_in_its_arena_and_apart() {
    let plan = Arc::new(mixed());
    let good = CpuPlan::new(plan.clone()).unwrap().arena;
    assert!(CpuPlan::verified(plan.clone(), good.clone()).is_ok());
    let some = good.offsets.iter().position(|at| at.is_some()).expect("a buffer of the arena");
    let own = plan.outputs[0].buffer;
    type Change<'a> = (&'a str, &'a dyn Fn(&mut Arena));
    let changes: [Change<'_>; 8] = [
        ("an arena that is too short", &|a| a.bytes = 64),
        ("an arena beyond counting", &|a| a.bytes = usize::MAX),
        ("a place outside the arena", &|a| a.offsets[some] = Some(1 << 30)),
        ("a place that overflows", &|a| a.offsets[some] = Some(usize::MAX - 63)),
        ("a place that is not aligned", &|a| {
            a.offsets[some] = Some(4);
            a.bytes += 64;
        }),
        ("all of the arena at one place", &|a| a.offsets.iter_mut().flatten().for_each(|at| *at = 0)),
        ("no place", &|a| a.offsets[some] = None),
        ("a place for an output", &|a| a.offsets[own] = Some(0)),
    ];
    for (name, change) in changes {
        let mut arena = good.clone();
        change(&mut arena);
        let flaw = CpuPlan::verified(plan.clone(), arena).expect_err(name);
        assert!(flaw.part.contains("arena") && !flaw.wanted.is_empty(), "{name}: {flaw}");
    }
    let short = Arena { offsets: vec![], ..good };
    assert!(CpuPlan::verified(plan, short).is_err());
}

/// Two states, one changed in place, and a gradient.
fn stateful() -> Plan {
    let g = Graph::new();
    let (x, w) = (g.input("x", DType::F32, [1, 4]), g.parameter("w", [4]));
    let (a, b) = (g.state("a", DType::F32, [3, 4]), g.state("b", DType::F32, [4]));
    g.set_state(a, g.put(a, g.input("at", DType::U32, [1]), x, 0));
    g.set_state(b, g.add(b, g.reshape(x, &[4])));
    g.set_loss(g.mean_all(g.mul(g.mul(w, w), b)));
    on_cpu(&Compiler::new(&Device::cpu(1)).compile_training(&g).unwrap())
}

#[test]
fn states_are_buffers_of_their_own_and_have_names_of_their_own() {
    check(
        stateful,
        &[
            ("two states of one name", &|p| p.states[1].name = p.states[0].name.clone()),
            ("two states in one buffer", &|p| p.states[1].buffer = p.states[0].buffer),
            ("two states exchanged", &|p| {
                let (a, b) = (p.states[0].buffer, p.states[1].buffer);
                (p.buffers[a].place, p.buffers[b].place) = (Place::State(1), Place::State(0));
            }),
            ("a state that is not there", &|p| {
                let b = p.states[0].buffer;
                p.buffers[b].place = Place::State(2);
            }),
            ("a state in the session's own memory", &|p| {
                let b = p.states[0].buffer;
                p.buffers[b].place = Place::Own;
            }),
            ("a state's place without a state", &|p| {
                p.states.pop();
            }),
            ("a state of another shape", &|p| p.states[0].shape[0] += 1),
            ("a state of another dtype", &|p| p.states[1].dtype = DType::I32),
            ("an output in a state", &|p| {
                let s = p.states[1].clone();
                p.outputs[0].buffer = s.buffer;
                p.outputs[0].shape = s.shape;
            }),
            ("an input in a state", &|p| {
                let (s, at) = (p.states[1].buffer, p.inputs.iter().position(|i| i.name == "x").unwrap());
                p.inputs[at].buffer = s;
            }),
            ("a gradient in a state", &|p| p.gradients[0].buffer = p.states[1].buffer),
            ("a state changed at init", &|p| {
                let writes = |s: &weft::internals::plan::Step| {
                    weft::internals::plan::Accesses::of(&s.work).writes.contains(&p.states[1].buffer)
                };
                let at = p.steps.iter().position(writes).unwrap();
                let step = p.steps.remove(at);
                p.init_steps.push(step);
            }),
        ],
    );
}

#[test]
fn buffers_ports_and_order_hold_together() {
    let arena = |p: &Plan| {
        let found = p.buffers.iter().position(|b| matches!(b.place, Place::Scratch));
        found.expect("a buffer of the arena")
    };
    check(
        mixed,
        &[
            ("a parameter that is not there", &|p| {
                let b = p.parameters[0].buffer;
                p.buffers[b].place = Place::Parameter(99);
            }),
            ("two parameters exchanged", &|p| {
                let (a, b) = (p.parameters[0].buffer, p.parameters[1].buffer);
                (p.buffers[a].place, p.buffers[b].place) = (Place::Parameter(1), Place::Parameter(0));
            }),
            ("a longer buffer behind a parameter", &|p| {
                let b = p.parameters[0].buffer;
                p.buffers[b].elements += 1;
            }),
            ("an input of another shape", &|p| p.inputs[0].shape[0] += 1),
            ("an input of another dtype", &|p| p.inputs[0].dtype = DType::I32),
            ("an output that is an input", &|p| {
                p.outputs[0] = p.inputs[0].clone();
            }),
            ("an output in the arena", &|p| {
                let b = arena(p);
                p.outputs[0].buffer = b;
                p.outputs[0].shape = vec![p.buffers[b].elements];
            }),
            ("a loss that is no number", &|p| p.loss = Some(0)),
            ("a loss that is not there", &|p| p.loss = Some(7)),
            ("a gradient of nothing", &|p| {
                p.gradients.push(weft::internals::plan::Gradient { parameter: 9, buffer: 0, offset: 0 })
            }),
            ("steps in another order", &|p| p.steps.reverse()),
            ("a step left out", &|p| {
                p.steps.remove(0);
            }),
            ("an empty buffer", &|p| p.buffers[0].elements = 0),
            ("a constant of another length", &|p| {
                let c = p.buffers.iter_mut().find(|b| matches!(b.place, Place::Constant(_))).unwrap();
                c.elements *= 2;
            }),
            ("a weight that is computed", &|p| {
                let all = p.steps.iter_mut().filter_map(|s| match &mut s.work {
                    Work::Product(w) => Some(w),
                    _ => None,
                });
                let w = all.last().unwrap();
                let a = w.a.buffer;
                w.b = Operand { buffer: a, dtype: DType::F32, offset: 0, strides: vec![0, 1] };
            }),
        ],
    );
}

/// The plans of all small models, whose forms the changes below are of.
/// A cache filled where a state says, and a look-up by what is computed.
fn cached() -> Plan {
    let g = Graph::new();
    let (at, cache) = (g.state("at", DType::I32, [1]), g.state("cache", DType::F32, [4, 2]));
    let next = g.put(cache, at, g.input("row", DType::F32, [1, 2]), 0);
    g.set_state(cache, next);
    g.set_state(at, g.add(at, g.scalar(1.0, DType::I32)));
    let id = g.cast(g.input("id", DType::F32, [1]), DType::I32);
    g.output("y", g.embedding(g.constant_f32(&[3, 2], vec![0.5; 6]), id));
    plan(&g)
}

fn look_up(plan: &Plan, kind: IndexKind) -> usize {
    let found = plan.steps.iter().position(|s| matches!(&s.work, Work::Index(w) if w.kind == kind));
    found.expect("a look-up")
}

#[test]
fn states_change_after_all_that_may_refuse_the_step() {
    let unchecked = |p: &mut Plan| {
        let (check, put) = (look_up(p, IndexKind::Check), look_up(p, IndexKind::TakePut));
        let Work::Index(check) = p.steps[check].work.clone() else { panic!("no check") };
        let Work::Index(put) = &mut p.steps[put].work else { panic!("no put") };
        put.indices = check.indices;
    };
    let last = |p: &mut Plan| {
        let step = p.steps.remove(look_up(p, IndexKind::Take));
        p.steps.push(step);
    };
    check(
        cached,
        &[
            ("a put by indices that nobody has checked", &unchecked),
            ("a look-up at the end", &last),
            ("a check of a wider limit", &|p| {
                let at = look_up(p, IndexKind::Check);
                let Work::Index(check) = &mut p.steps[at].work else { panic!("no check") };
                check.table_shape = vec![5];
            }),
        ],
    );
}

fn of_form(pick: impl Fn(&Work) -> bool) -> Plan {
    let cpu = Compiler::new(&Device::cpu(1));
    let mut plans = small().into_iter().map(|m| on_cpu(&m.compile(&cpu)));
    plans.find(|p| p.steps.iter().any(|s| pick(&s.work))).expect("a plan with that form")
}

#[test]
fn every_form_is_held_to_its_shapes() {
    macro_rules! change {
        ($p:ident, $form:ident($w:ident) => $change:expr) => {
            for s in &mut $p.steps {
                if let Work::$form($w) = &mut s.work {
                    $change;
                    break;
                }
            }
        };
    }
    check(
        || of_form(|w| matches!(w, Work::Convolution(_))),
        &[
            ("more images", &|p| change!(p, Convolution(w) => w.out_shape[0] += 1)),
            ("a larger input", &|p| change!(p, Convolution(w) => w.input_shape[2] += 1)),
            ("a larger kernel", &|p| change!(p, Convolution(w) => w.weight_shape[3] += 1)),
            ("groups that do not divide", &|p| change!(p, Convolution(w) => w.form.groups = 2)),
            ("no groups", &|p| change!(p, Convolution(w) => w.form.groups = 0)),
            ("no stride", &|p| change!(p, Convolution(w) => w.form.stride[0] = 0)),
            ("no distance between elements", &|p| change!(p, Convolution(w) => w.form.input_dilation[1] = 0)),
            ("an endless stride", &|p| change!(p, Convolution(w) => w.form.stride[1] = usize::MAX)),
            ("endless padding", &|p| change!(p, Convolution(w) => w.form.pad_before[0] = isize::MIN)),
        ],
    );
    check(
        || of_form(|w| matches!(w, Work::Pool(_))),
        &[
            ("more planes", &|p| change!(p, Pool(w) => w.planes += 1)),
            ("more windows", &|p| change!(p, Pool(w) => w.output[1] += 1)),
            ("no window", &|p| change!(p, Pool(w) => w.form.kernel[0] = 0)),
            ("no stride", &|p| change!(p, Pool(w) => w.form.stride[0] = 0)),
            ("more padding than window", &|p| change!(p, Pool(w) => w.form.padding[0] = 2)),
        ],
    );
    check(
        || of_form(|w| matches!(w, Work::Attention(_))),
        &[
            ("more keys", &|p| change!(p, Attention(w) => w.inputs.s += 1)),
            ("more heads", &|p| change!(p, Attention(w) => w.inputs.h += 1)),
            ("no key heads", &|p| change!(p, Attention(w) => w.inputs.h_kv = 0)),
            ("a mask that is not there", &|p| {
                change!(p, Attention(w) => (w.inputs.form.masked, w.inputs.mask) = (true, None));
            }),
            ("an endless window", &|p| change!(p, Attention(w) => w.inputs.form.window = usize::MAX)),
            ("a scale that is no number", &|p| change!(p, Attention(w) => w.inputs.form.scale = f64::NAN)),
        ],
    );
    check(
        || of_form(|w| matches!(w, Work::Index(_))),
        &[
            ("an axis that is not there", &|p| change!(p, Index(w) => w.axis = 9)),
            ("a longer table", &|p| change!(p, Index(w) => w.table_shape[0] += 1)),
            ("more indices", &|p| change!(p, Index(w) => w.indices_shape[0] += 1)),
            ("indices that are no numbers", &|p| change!(p, Index(w) => w.indices.dtype = DType::F32)),
            ("a result that is the indices", &|p| change!(p, Index(w) => w.out.buffer = w.indices.buffer)),
            ("updates of a reading form", &|p| change!(p, Index(w) => w.updates = Some(w.table.clone()))),
        ],
    );
}

/// A step that reads two halves of a matrix's columns, rows of 40.
fn halves() -> Plan {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, 4, 16]);
    let both = g.linear(x, g.parameter("w", [40, 16]), None);
    let [gate, up] = [0, 20].map(|at| g.narrow(both, 2, at, 20));
    g.output("y", g.mul(g.silu(gate), up));
    plan(&g)
}

#[test]
fn columns_that_a_step_declares_are_those_that_it_reads() {
    let mut plan = halves();
    let columns = rowwise(&mut plan).declared.columns.iter();
    let all: Vec<[usize; 4]> = columns.map(|c| [c.operand, c.from, c.to, c.all]).collect();
    assert_eq!(all, [[0, 0, 20, 40], [1, 20, 40, 40]]);
    let first = |p: &mut Plan, change: &dyn Fn(&mut Columns)| change(&mut rowwise(p).declared.columns[0]);
    let operand = |p: &mut Plan, change: &dyn Fn(&mut Operand)| change(&mut rowwise(p).operands[0]);
    check(
        halves,
        &[
            ("columns of no operand", &|p| first(p, &|c| c.operand = 2)),
            ("columns of another operand", &|p| first(p, &|c| c.operand = 1)),
            ("columns from elsewhere", &|p| first(p, &|c| (c.from, c.to) = (20, 40))),
            ("columns that end before they begin", &|p| first(p, &|c| (c.from, c.to) = (20, 0))),
            ("more columns", &|p| first(p, &|c| c.to = 40)),
            ("columns of narrower rows", &|p| first(p, &|c| c.all = 20)),
            ("columns of wider rows", &|p| first(p, &|c| c.all = 80)),
            ("columns of rows beyond counting", &|p| first(p, &|c| c.all = usize::MAX)),
            ("other columns read", &|p| operand(p, &|o| o.offset = 1)),
            ("rows read again", &|p| operand(p, &|o| o.strides[1] = 0)),
            ("rows read backwards", &|p| operand(p, &|o| (o.offset, o.strides[1]) = (120, -40))),
            ("one column read again", &|p| operand(p, &|o| o.strides[2] = 0)),
            ("rows of one that has more of them", &|p| {
                let b = rowwise(p).operands[0].buffer;
                p.buffers[b].elements += 40;
            }),
        ],
    );
}

/// A norm, and what is multiplied to it.
fn scaled() -> Plan {
    let g = Graph::new();
    let y = g.rms_norm(g.input("x", DType::F32, [6, 16]), g.parameter("scale", [16]), 1e-5);
    g.output("y", g.mul(y, g.parameter("more", [16])));
    weft::internals::plan::plan(&g, &PlanOptions::default()).unwrap()
}

#[test]
fn norms_that_a_step_declares_are_what_it_computes() {
    let mut good = scaled();
    let w = rowwise(&mut good).clone();
    let Norm { of, element, row } = w.declared.norm.unwrap();
    assert_eq!((of, element.len(), row.len()), (0, 3, 1));
    let norm = |p: &mut Plan, change: &dyn Fn(&mut Norm)| {
        change(rowwise(p).declared.norm.as_mut().unwrap());
    };
    let code = |p: &mut Plan, change: &dyn Fn(&mut Tape, usize) -> usize| {
        let w = rowwise(p);
        w.result = change(&mut w.tape, w.result);
    };
    check(
        scaled,
        &[
            ("a norm of no operand", &|p| norm(p, &|n| n.of = 9)),
            ("a norm of another operand", &|p| norm(p, &|n| n.of = 1)),
            ("a factor left out", &|p| norm(p, &|n| n.element.truncate(2))),
            ("the row's factor left out", &|p| norm(p, &|n| n.row.clear())),
            ("a factor twice", &|p| norm(p, &|n| n.element.push(n.element[2]))),
            ("the row's factor twice", &|p| norm(p, &|n| n.row.push(n.row[0]))),
            ("factors beyond counting", &|p| norm(p, &|n| n.element = vec![0; 1000])),
            ("factors in another order", &|p| norm(p, &|n| n.element.swap(0, 2))),
            ("a factor that is not there", &|p| norm(p, &|n| n.element[0] = 999)),
            ("a row's factor that is not there", &|p| norm(p, &|n| n.row[0] = 999)),
            ("a row's factor among the elements", &|p| norm(p, &|n| n.element.append(&mut n.row))),
            ("an element among the row's factors", &|p| norm(p, &|n| n.row.push(n.element.remove(0)))),
            ("a whole result as an element", &|p| {
                let result = rowwise(p).result;
                norm(p, &|n| (n.element, n.row) = (vec![result], vec![]));
            }),
            ("a bias", &|p| code(p, &|t, r| t.push(Instr::Binary(Binary::Add, r, r), Kind::F))),
            ("a rounding", &|p| code(p, &|t, r| t.push(Instr::Cast(DType::F16, r), Kind::F))),
            ("a product with itself", &|p| {
                code(p, &|t, r| t.push(Instr::Binary(Binary::Mul, r, r), Kind::F))
            }),
            ("a quotient", &|p| code(p, &|t, r| t.push(Instr::Binary(Binary::Div, r, r), Kind::F))),
            ("the largest for the sum", &|p| rowwise(p).reductions[0].0 = Fold::Max),
            ("two sums", &|p| {
                let first = rowwise(p).reductions[0];
                rowwise(p).reductions.push(first);
            }),
            ("a sum of positions", &|p| {
                let w = rowwise(p);
                let at = w.tape.push(Instr::Index(vec![0, 1]), Kind::U);
                w.reductions[0].1 = w.tape.push(Instr::Cast(DType::F32, at), Kind::F);
            }),
            ("a sum of another operand's elements", &|p| {
                let w = rowwise(p);
                w.reductions[0].1 = w.tape.push(Instr::Load(1), Kind::F);
            }),
        ],
    );
}

/// A product of normed rows whose two halves meet, and are stored too if others read them.
fn gated(kept: bool) -> GpuSteps {
    let g = Graph::new();
    let y = g.rms_norm(g.input("x", DType::F32, [6, 16]), g.parameter("scale", [16]), 1e-5);
    let both = g.linear(y, g.parameter("w", [40, 16]), None);
    let [gate, up] = [0, 20].map(|at| g.narrow(both, 1, at, 20));
    let y = g.mul(g.silu(gate), up);
    g.output("y", y);
    if kept {
        g.output("again", g.mul(g.mul(gate, up), g.sum(y, &[1], true)));
    }
    gpu_plans::plan(&g, &PlanOptions::default()).unwrap()
}

fn gpu_product(plan: &mut GpuSteps) -> &mut GpuProduct {
    let found = plan.steps.iter_mut().find_map(|s| match &mut s.work {
        GpuWork::Own(GpuForm::Product(w)) => Some(w),
        _ => None,
    });
    found.expect("a product that does more than a plan's")
}

#[test]
fn norms_and_gates_in_products_read_what_is_there() {
    let norm =
        |p: &mut GpuSteps, change: &dyn Fn(&mut Prologue)| change(gpu_product(p).prologue.as_mut().unwrap());
    let load = |f: &mut Formula, number: usize| {
        f.result = f.tape.push(Instr::Load(number), Kind::F);
    };
    check(
        || gated(false),
        &[
            ("a weight of one half", &|p| gpu_product(p).product.n = 21),
            ("few columns", &|p| gpu_product(p).product.n = 8),
            ("halves that nothing joins", &|p| gpu_product(p).product.epilogue = None),
            ("a second result of a product that has one", &|p| gpu_product(p).gated_columns = false),
            ("an epilogue that reads too much", &|p| {
                let e = gpu_product(p).product.epilogue.as_mut().unwrap();
                e.result = e.tape.push(Instr::Load(2), Kind::F);
            }),
            ("rows that are no fours", &|p| gpu_product(p).product.k = 15),
            ("rows that begin amid four", &|p| gpu_product(p).product.a.offset = 1),
            ("rows at odd distances", &|p| gpu_product(p).product.a.strides[0] = 15),
            ("a scale past its end", &|p| norm(p, &|n| n.operands[0].offset = 1)),
            ("a scale over rows", &|p| norm(p, &|n| n.operands[0].strides.push(0))),
            ("an element of more than there is", &|p| norm(p, &|n| load(&mut n.element, 2))),
            ("a sum of more than there is", &|p| norm(p, &|n| load(&mut n.measured, 1))),
            ("a factor of more than the sum", &|p| norm(p, &|n| load(&mut n.factor, 1))),
            ("a factor of a position", &|p| {
                norm(p, &|n| {
                    n.factor.tape.push(Instr::Index(vec![1]), Kind::U);
                })
            }),
            ("a result that is not there", &|p| norm(p, &|n| n.measured.result = 99)),
            ("a sum of what is more than 0 beyond a row's end", &|p| {
                norm(p, &|n| {
                    n.measured.result = n.measured.tape.push(Instr::Unary(Unary::Exp, 0), Kind::F);
                })
            }),
        ],
    );
    let beside = |p: &mut GpuSteps, change: &dyn Fn(&mut Vec<RowResult>, usize)| {
        let product = gpu_product(p);
        let reads = product.product.a.buffer;
        change(&mut product.extra_outputs, reads);
    };
    check(
        || gated(true),
        &[
            ("a half past its end", &|p| beside(p, &|extra_outputs, _| extra_outputs[1].out.offset += 1)),
            ("halves in one place", &|p| beside(p, &|extra_outputs, _| extra_outputs[1].out.offset = 0)),
            ("halves over each other", &|p| beside(p, &|extra_outputs, _| extra_outputs[0].out.offset = 1)),
            ("a half in what is read", &|p| beside(p, &|extra_outputs, a| extra_outputs[0].out.buffer = a)),
            ("a half of no register", &|p| beside(p, &|extra_outputs, _| extra_outputs[0].result = 99)),
            ("a half of another type", &|p| {
                beside(p, &|extra_outputs, _| extra_outputs[0].out.dtype = DType::U32)
            }),
            ("a half in the product's own result", &|p| {
                let own = gpu_product(p).product.out.buffer;
                beside(p, &|extra_outputs, _| extra_outputs[0].out.buffer = own)
            }),
            ("rows over each other", &|p| beside(p, &|extra_outputs, _| extra_outputs[0].out.strides[0] = 1)),
        ],
    );
}
