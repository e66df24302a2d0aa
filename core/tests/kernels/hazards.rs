//! Data races between two barriers of a program, and within one dispatch: no kernel accesses what another writes, and
//! concurrent writes to parts of one buffer are disjoint, checked element by element.

use super::gpu_plans::{everything, plan, program};
use super::large_graphs;
use std::collections::{HashMap, HashSet};
use weft::graph::Graph;
use weft::internals::plan::{Accesses, AttentionInputs, Operand, Place, PlanOptions};
use weft::internals::target::gpu::forms::{GpuForm, Plan, Work};
use weft::internals::target::gpu::program::{Bound, Program};
use weft::models::{Llama, LlamaConfig};
use weft::profile::{Limits, Precision};
use weft::tensor::DType;

/// Where a binding lies: heap (arena, own, parameter, state), from, to.
fn lies(p: &Plan, made: &Program, bound: &Bound) -> Option<(usize, usize, usize)> {
    let (heap, region) = match *bound {
        Bound::Errors => return None,
        Bound::Scratch(i) => (0, made.memory.scratch[i]),
        Bound::Buffer(id, piece) => match p.buffers[id].place {
            Place::Parameter(i) => return Some((2 + i, 0, 1)),
            // each in memory of its own, behind all parameters
            Place::State(i) => return Some((usize::MAX - i, piece, piece + 1)),
            Place::Scratch => (0, made.memory.places[id][piece]),
            _ => (1, made.memory.places[id][piece]),
        },
    };
    Some((heap, region.at, region.at + region.bytes))
}

/// What runs between two barriers must not touch what another of them writes, unless they write parts of one value (`check_parts`).
pub fn check_hazards(name: &str, p: &Plan, made: &Program) {
    let mut level: Vec<((usize, usize, usize), bool, &Bound)> = vec![];
    for d in &made.schedule.steps {
        if d.barrier {
            level.clear();
        }
        let own: Vec<_> =
            d.slots.iter().zip(&d.written).filter_map(|(b, w)| Some((lies(p, made, b)?, *w, b))).collect();
        for ((heap, from, to), written, bound) in &own {
            for ((h, f, t), w, other) in &level {
                let meet = heap == h && from < t && f < to;
                let parts = *written && *w && bound == other;
                assert!(!meet || !(*written || *w) || parts, "{name}: {bound:?} and {other:?} ({})", d.label);
            }
        }
        level.extend(own);
    }
    check_order(name, p, made);
    check_parts(name, p, made);
}

/// The elements of a result, as runs from one to before another.
fn runs(o: &Operand, sizes: &[usize]) -> Vec<(isize, isize)> {
    let (mut all, mut long) = (vec![o.offset], 1);
    for (&n, &stride) in sizes.iter().zip(&o.strides).rev().filter(|(n, s)| **n > 1 && **s != 0) {
        if stride == long && all.len() == 1 {
            long *= n as isize;
        } else {
            all = all.iter().flat_map(|at| (0..n as isize).map(move |i| at + i * stride)).collect();
        }
    }
    all.into_iter().map(|at| (at, at + long)).collect()
}

/// What a step writes of a buffer, in elements of that dtype.
fn written_runs(p: &Plan, work: &Work, buffer: usize) -> Vec<(DType, Vec<(isize, isize)>)> {
    let mut all: Vec<(&Operand, Vec<usize>)> = vec![];
    match work {
        Work::Rowwise(w) => {
            let rows: Vec<usize> =
                w.domain.iter().zip(&w.reduced).map(|(n, r)| if *r { 1 } else { *n }).collect();
            all.extend(w.extra_outputs.iter().map(|r| (&r.out, rows.clone())));
            all.push((&w.out, if w.per_row { rows } else { w.domain.clone() }));
        }
        Work::Product(_) | Work::Own(GpuForm::Product(_)) => {
            let w = work.product().unwrap();
            all.push((&w.product.out, [w.batch.as_slice(), &[w.m, w.n]].concat()));
            let domain = w.epilogue.as_ref().map_or(vec![], |e| e.domain.clone());
            all.extend(w.extra_outputs.iter().map(|r| (&r.out, domain.clone())));
        }
        Work::AttentionGrad(w) | Work::Own(GpuForm::AttentionGrad(w, _)) => {
            let AttentionInputs { b, h, h_kv, l, s, d, d_v, .. } = w.inputs;
            let sizes = [vec![b, h, l, d], vec![b, h_kv, s, d], vec![b, h_kv, s, d_v]];
            all.extend(w.outs.iter().zip(sizes));
        }
        _ => return vec![(p.buffers[buffer].dtype, vec![(0, p.buffers[buffer].elements as isize)])],
    }
    all.into_iter().filter(|(o, _)| o.buffer == buffer).map(|(o, sizes)| (o.dtype, runs(o, &sizes))).collect()
}

/// By buffer, what is written between two barriers, and by which step.
type Level = HashMap<usize, (DType, Vec<(isize, isize, usize)>)>;

/// Of what runs between two barriers, and of what one dispatch does at once, no two write an element both.
fn check_parts(name: &str, p: &Plan, made: &Program) {
    let (mut level, mut seen) = (HashMap::new(), HashSet::new());
    let close = |level: &mut Level| {
        for (buffer, (_, mut all)) in level.drain() {
            all.sort_unstable();
            let meet = all.windows(2).find(|w| w[0].1 > w[1].0);
            let steps = meet.map(|w| [w[0].2, w[1].2].map(|s: usize| &p.steps[s]));
            assert!(meet.is_none(), "{name}: {meet:?} of buffer {buffer} are written twice: {steps:?}");
        }
    };
    for d in &made.schedule.steps {
        if d.barrier {
            close(&mut level);
            seen.clear();
        }
        for (bound, _) in d.slots.iter().zip(&d.written).filter(|(_, written)| **written) {
            let Bound::Buffer(buffer, _) = *bound else { continue };
            // a step's kernels of one level write different results of it
            let writes = |s: &usize| Accesses::of(&p.steps[*s].work).writes.contains(&buffer);
            for step in d.steps.iter().copied().filter(|s| writes(s) && seen.insert((*s, buffer))) {
                for (dtype, runs) in written_runs(p, &p.steps[step].work, buffer) {
                    let known = level.entry(buffer).or_insert((dtype, vec![]));
                    assert_eq!(known.0, dtype, "{name}: elements and words of buffer {buffer}");
                    known.1.extend(runs.into_iter().map(|(from, to)| (from, to, step)));
                }
            }
        }
    }
    close(&mut level);
}

/// A step that reads what an earlier one writes, or writes what an earlier one reads, stands behind a barrier after it.
fn check_order(name: &str, p: &Plan, made: &Program) {
    let mut levels: Vec<Option<(usize, usize)>> = vec![None; p.steps.len()];
    let mut level = 0;
    for d in &made.schedule.steps {
        level += usize::from(d.barrier);
        for &s in &d.steps {
            let known = levels[s].get_or_insert((level, level));
            *known = (known.0.min(level), known.1.max(level));
        }
    }
    // who wrote and who read each buffer last
    let (mut wrote, mut read) = (HashMap::<usize, usize>::new(), HashMap::<usize, usize>::new());
    for (i, s) in p.steps.iter().enumerate() {
        let Some((first, last)) = levels[i] else { continue };
        s.work.for_each_operand(&mut |o, written| {
            let before = wrote.get(&o.buffer).filter(|_| !written).into_iter();
            for &l in before.chain(read.get(&o.buffer).filter(|_| written)) {
                assert!(l < first, "{name}: step {i} ({}) on level {first}, not after {l}", s.label);
            }
        });
        s.work.for_each_operand(&mut |o, written| {
            let of = if written { &mut wrote } else { &mut read };
            let known = of.entry(o.buffer).or_insert(last);
            *known = last.max(*known);
        });
    }
}

#[test]
fn nothing_between_two_barriers_overwrites_what_another_uses() {
    for (name, p) in large_graphs() {
        for limits in [Limits::least(), Limits::large()] {
            check_hazards(name, &p, &program(&p, &limits, Precision::Full).unwrap());
        }
    }
    // training, and a cache that is changed in place
    let config = LlamaConfig { layers: 2, ..LlamaConfig::smollm2_135m() };
    let g = Graph::new();
    let ids = g.input("ids", DType::U32, [1, 40]);
    let loss = Llama::new(&config).loss(&g, ids);
    g.set_loss(loss);
    let by: Vec<_> = g.data().unwrap().parameters().map(|(v, _)| v).collect();
    let grads = weft::autodiff::gradients(&g, loss, None, &by).unwrap();
    let options = PlanOptions { gradients: by.into_iter().zip(grads).collect(), ..everything() };
    let p = plan(&g, &options).unwrap();
    let made = program(&p, &Limits::large(), Precision::Full).unwrap();
    check_hazards("training", &p, &made);
    // and few of them: levels, not dispatches
    let barriers = made.schedule.steps.iter().filter(|d| d.barrier).count();
    assert!(
        3 * barriers < 2 * made.schedule.steps.len(),
        "{barriers} barriers for {} dispatches",
        made.schedule.steps.len()
    );
    let g = Graph::new();
    let [id, position] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
    g.output("logits", Llama::new(&config).with_dtype(DType::F16).decode(&g, id, position, 64));
    let p = plan(&g, &everything()).unwrap();
    let made = program(&p, &Limits::large(), Precision::Fast).unwrap();
    check_hazards("decode", &p, &made);
    // products of a layer, its two puts and its attention: norms, rotations and gates are computed where they are read
    let layer = made.schedule.steps.iter().filter(|d| d.barrier).count();
    assert!(layer <= 2 * 6 + 6, "{layer} levels for two layers");
}

/// Concatenations along each axis, padding, an i64 of parts, gradients of attention that lie in one buffer.
#[test]
fn parts_of_one_buffer_are_written_apart() {
    let g = Graph::new();
    let [x, y] = ["x", "y"].map(|n| g.input(n, DType::F32, [6, 5, 4]));
    for axis in 0..3 {
        let joined = g.concat(&[g.sin(x), g.tanh(y), g.softmax(x, -1)], axis);
        g.output(&format!("joined{axis}"), g.pad(joined, &[0, 1, 0], &[0, 2, 0], 0.5));
        g.output(&format!("padded{axis}"), g.pad(g.exp(joined), &[1, 1, 1], &[2, 0, 1], 0.5));
    }
    let [i, j] = ["i", "j"].map(|n| g.input(n, DType::I64, [3, 4]));
    g.output("whole", g.pad(g.concat(&[i, j, i], 1), &[0, 1], &[0, 0], 7.0));
    let p = plan(&g, &everything()).unwrap();
    for limits in [Limits::least(), Limits::large()] {
        let made = program(&p, &limits, Precision::Full).unwrap();
        check_hazards("parts", &p, &made);
        let shared = made.schedule.steps.iter().filter(|d| d.steps.len() > 1).count();
        assert!(shared > 0, "no dispatch writes several parts");
    }
}
