//! Concurrent writes, flaw by flaw: each is a change of a valid plan after which two steps, or two results of one, would write
//! the same element concurrently. All accesses stay inside their buffers, so that this is the only flaw.

use super::gpu_plans::{everything, on, plan};
use super::models::small;
use weft::autodiff::gradients;
use weft::device::Device;
use weft::graph::{Graph, Value};
use weft::internals::expr::{Instr, Kind, Tape};
use weft::internals::plan::{Operand, PlanOptions, Rowwise, verify};
use weft::internals::target::gpu::forms::{GpuForm, Plan, Step, Work};
use weft::ops::AttentionOptions;
use weft::profile::{Limits, Precision};
use weft::session::{Compiled, Compiler};
use weft::tensor::{DType, TensorType};

type Change<'a> = (&'a str, &'a dyn Fn(&mut Plan));

/// The good plan passes, also as a GPU's; each change makes two parts of one buffer meet.
fn check(good: &Plan, changes: &[Change<'_>]) {
    assert_eq!(verify(good), Ok(()));
    let limits = Limits::large();
    for (name, change) in changes {
        let mut changed = good.clone();
        change(&mut changed);
        let flaw = verify(&changed).expect_err(name);
        assert!(
            flaw.part.starts_with("step ") && flaw.wanted.starts_with("parts of buffer "),
            "{name}: {flaw}"
        );
        assert_eq!(on(&changed, &limits, Precision::Full).verify(&limits), Err(flaw), "{name}");
    }
}

/// The steps of rows that write a part of a buffer, in the order in which the parts lie.
fn parts<'p>(steps: &'p mut [Step], elements: &[usize]) -> Vec<&'p mut Rowwise> {
    let part = |s: &'p mut Step| match (s.work.facts().written, &mut s.work) {
        (written, Work::Rowwise(w)) => written.is_part(w.out.buffer, elements[w.out.buffer]).then_some(w),
        _ => None,
    };
    let mut all: Vec<&mut Rowwise> = steps.iter_mut().filter_map(part).collect();
    all.sort_by_key(|w| w.out.offset);
    all
}

fn elements(p: &Plan) -> Vec<usize> {
    p.buffers.iter().map(|b| b.elements).collect()
}

fn change(p: &mut Plan, at: usize, f: impl Fn(&mut Rowwise)) {
    let elements = elements(p);
    f(parts(&mut p.steps, &elements)[at]);
}

/// Three values side by side along the inner axis, computed in their places.
fn joined() -> Plan {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [6, 8]);
    let values = [g.cumsum(x, 0), g.softmax(x, -1), g.softmax(g.sin(x), 0)];
    g.output("y", g.concat(&values, 1));
    plan(&g, &PlanOptions::default()).unwrap()
}

#[test]
fn values_side_by_side_do_not_meet() {
    let good = joined();
    let count = parts(&mut good.clone().steps, &elements(&good)).len();
    assert_eq!(count, 3, "{:?}", good.steps);
    check(
        &good,
        &[
            ("the first where the second is", &|p| change(p, 0, |w| w.out.offset = 8)),
            ("the second where the first is", &|p| change(p, 1, |w| w.out.offset = 0)),
            ("the third an element to the left", &|p| change(p, 2, |w| w.out.offset -= 1)),
            ("the first an element to the right", &|p| change(p, 0, |w| w.out.offset += 1)),
            ("rows one after the other", &|p| change(p, 0, |w| w.out.strides = vec![8, 1])),
            ("columns backwards from the right", &|p| {
                change(p, 0, |w| (w.out.offset, w.out.strides) = (8, vec![24, -1]));
            }),
            ("every second element", &|p| change(p, 1, |w| (w.out.offset, w.out.strides) = (0, vec![16, 2]))),
            ("the same step once more, later", &|p| {
                let elements = elements(p);
                let work = Work::Rowwise(parts(&mut p.steps, &elements)[0].clone());
                let step = Step { work, label: "again".into(), nodes: vec![] };
                p.steps.push(step);
            }),
        ],
    );
    // places that are changed, and do not meet: other orders of parts are as good
    let mut swapped = good.clone();
    change(&mut swapped, 0, |w| w.out.offset = 8);
    change(&mut swapped, 1, |w| w.out.offset = 0);
    assert_eq!(verify(&swapped), Ok(()));
}

#[test]
fn a_step_that_writes_all_of_a_buffer_ends_what_parts_were_written() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, 4, 5]);
    // filled whole, then its middle is written
    g.output("y", g.pad(g.sin(x), &[1, 1, 1], &[1, 1, 1], 0.5));
    let good = plan(&g, &PlanOptions::default()).unwrap();
    let writers = good
        .steps
        .iter()
        .filter(|s| matches!(&s.work, Work::Rowwise(w) if w.out.buffer == good.outputs[0].buffer));
    assert_eq!(writers.count(), 2);
    assert_eq!(verify(&good), Ok(()));
    // and a border that is written as two boxes
    let g = Graph::new();
    let x = g.input("x", DType::F32, [3, 8]);
    g.output("y", g.pad(g.sin(x), &[0, 2], &[0, 3], 0.5));
    check(
        &plan(&g, &PlanOptions::default()).unwrap(),
        &[
            ("the left border over the middle", &|p| change(p, 0, |w| w.out.offset += 1)),
            ("the right border over the middle", &|p| change(p, 2, |w| w.out.offset -= 2)),
            ("the middle over the right border", &|p| change(p, 1, |w| w.out.offset += 1)),
        ],
    );
}

/// Two f16 weights joined at init, two elements at a time.
fn words() -> Plan {
    let g = Graph::new();
    let weight = |n: &str| g.parameter_of(n, TensorType::new(DType::F16, [8, 6]), false);
    let both = g.concat(&[weight("a"), weight("b")], 1);
    g.output("y", g.matmul(g.input("x", DType::F32, [20, 8]), g.cast(both, DType::F32)));
    plan(&g, &everything()).unwrap()
}

#[test]
fn what_runs_once_is_held_to_it_and_words_do_not_mix_with_elements() {
    let good = words();
    let change = |p: &mut Plan, at: usize, f: &dyn Fn(&mut Rowwise)| {
        let elements = elements(p);
        f(parts(&mut p.init_steps, &elements)[at]);
    };
    assert!(good.init_steps.iter().any(|s| matches!(&s.work, Work::Rowwise(w) if w.out.dtype == DType::U32)));
    check(
        &good,
        &[
            ("the second weight over the first", &|p| change(p, 1, &|w| w.out.offset = 0)),
            ("the first a word further", &|p| change(p, 0, &|w| w.out.offset = 1)),
            ("one weight in elements, one in words", &|p| {
                change(p, 0, &|w| {
                    w.domain[1] *= 2;
                    for o in [&mut w.operands[0], &mut w.out] {
                        (o.dtype, o.offset, o.strides[0]) = (DType::F16, o.offset * 2, o.strides[0] * 2);
                    }
                    let mut tape = Tape::default();
                    w.result = tape.push(Instr::Load(0), Kind::F);
                    w.tape = tape;
                });
            }),
        ],
    );
}

/// Training of attention whose queries, keys and values are parts of one product.
fn attention() -> Plan {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [5, 12]);
    let all = g.reshape(g.linear(x, g.parameter("w", [36, 12]), None), &[1, 5, 3, 2, 6]);
    let [q, k, v] = [0, 1, 2].map(|i| {
        let part = g.reshape(g.narrow(all, 2, i, 1), &[1, 5, 2, 6]);
        g.permute(part, &[0, 2, 1, 3])
    });
    let y = g.attention(q, k, v, None, AttentionOptions::new(0.4));
    let loss = g.mean_all(g.mul(y, y));
    g.set_loss(loss);
    let by: Vec<Value> = g.data().unwrap().parameters().map(|(v, _)| v).collect();
    let grads = gradients(&g, loss, None, &by).unwrap();
    plan(&g, &PlanOptions { gradients: by.into_iter().zip(grads).collect(), ..everything() }).unwrap()
}

#[test]
fn gradients_of_attention_in_one_buffer_do_not_meet() {
    fn outs(p: &mut Plan) -> &mut [Operand; 3] {
        let found = p.steps.iter_mut().find_map(|s| match &mut s.work {
            Work::AttentionGrad(w) | Work::Own(GpuForm::AttentionGrad(w, _)) => Some(&mut w.outs),
            _ => None,
        });
        found.expect("attention's gradient as one step")
    }
    let good = attention();
    let [q, k, v] = outs(&mut good.clone()).clone();
    assert!(q.buffer == k.buffer && k.buffer == v.buffer, "{q:?}, {k:?}, {v:?}");
    check(
        &good,
        &[
            ("those of keys where those of queries are", &|p| outs(p)[1].offset = outs(p)[0].offset),
            ("those of values an element to the left", &|p| outs(p)[2].offset -= 1),
            ("those of queries over the keys' first row", &|p| outs(p)[0].offset += 6),
        ],
    );
}

#[test]
fn artifacts_are_held_to_it_and_so_are_names_of_parameters() {
    // two parameters of one name would be one tensor, which the optimizer changes twice at the same time
    let cpu = Device::cpu(1);
    let mlp = small().into_iter().find(|m| m.name == "mlp in training").unwrap();
    let good = mlp.compile(&Compiler::new(&cpu));
    let mut changed = good.plan();
    changed.parameters[1].name = changed.parameters[0].name.clone();
    let flaw = verify(&changed).unwrap_err();
    assert_eq!((flaw.part.as_str(), flaw.wanted.as_str()), ("parameters", "parameters of different names"));

    // an artifact's bytes, changed where the offset of a part is
    let g = Graph::new();
    let x = g.input("x", DType::F32, [6, 8]);
    g.output("y", g.concat(&[g.sin(x), g.tanh(x), g.softmax(x, -1)], 1));
    let good = Compiler::new(&cpu).compile(&g).unwrap().to_bytes().unwrap();
    let mut refused = 0;
    for at in 64..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 8;
        super::refusals::rehash(&mut bytes);
        let said = Compiled::from_bytes(&cpu, bytes).err().map(|e| e.to_string());
        refused += usize::from(said.is_some_and(|said| said.contains("without an element in common")));
    }
    assert!(refused > 0, "no byte says where a part lies");
}
