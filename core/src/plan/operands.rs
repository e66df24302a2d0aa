//! The operands of every form of work.

use super::{Epilogue, Operand, Work};

impl Work {
    /// Calls `f` with every operand; the written one last, with `true`.
    pub fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        let epilogue = |e: &Option<Epilogue>, f: &mut dyn FnMut(&Operand, bool)| {
            e.iter().flat_map(|e| &e.operands).for_each(|o| f(o, false));
        };
        match self {
            Work::Rowwise(w) => {
                w.operands.iter().for_each(|o| f(o, false));
                w.extra_outputs.iter().for_each(|r| f(&r.out, true));
                f(&w.out, true);
            }
            Work::Product(w) => {
                [&w.a, &w.b].into_iter().for_each(|o| f(o, false));
                w.prologue.iter().flat_map(|p| &p.operands).for_each(|o| f(o, false));
                epilogue(&w.epilogue, f);
                w.extra_outputs.iter().for_each(|r| f(&r.out, true));
                f(&w.out, true);
            }
            Work::Convolution(w) => {
                [&w.input, &w.weight].into_iter().for_each(|o| f(o, false));
                epilogue(&w.epilogue, f);
                f(&w.out, true);
            }
            Work::Attention(w) => {
                w.inputs.operands().for_each(|o| f(o, false));
                w.kept.iter().for_each(|o| f(o, true));
                f(&w.out, true);
            }
            Work::AttentionGrad(w) => {
                let kept = w.kept.iter().flat_map(|k| [&k.out, &k.rows]);
                w.inputs.operands().chain([&w.up]).chain(kept).for_each(|o| f(o, false));
                w.outs.iter().for_each(|o| f(o, true));
            }
            Work::Index(w) => {
                [&w.table, &w.indices].into_iter().chain(&w.updates).for_each(|o| f(o, false));
                f(&w.out, true);
            }
            Work::Scan(w) => {
                f(&w.input, false);
                f(&w.out, true);
            }
            Work::Pool(w) => {
                [&w.x].into_iter().chain(&w.up).for_each(|o| f(o, false));
                f(&w.out, true);
            }
            Work::Dequantise(from, to) => {
                f(from, false);
                f(to, true);
            }
        }
    }

    /// Every operand, to be changed.
    pub fn operands_mut(&mut self) -> Vec<&mut Operand> {
        fn epilogue(e: &mut Option<Epilogue>) -> impl Iterator<Item = &mut Operand> {
            e.iter_mut().flat_map(|e| &mut e.operands)
        }
        match self {
            Work::Rowwise(w) => {
                let results = w.extra_outputs.iter_mut().map(|r| &mut r.out).chain([&mut w.out]);
                w.operands.iter_mut().chain(results).collect()
            }
            Work::Product(w) => {
                let prologue = w.prologue.iter_mut().flat_map(|p| &mut p.operands);
                let results = w.extra_outputs.iter_mut().map(|r| &mut r.out).chain([&mut w.out]);
                [&mut w.a, &mut w.b]
                    .into_iter()
                    .chain(prologue)
                    .chain(epilogue(&mut w.epilogue))
                    .chain(results)
                    .collect()
            }
            Work::Convolution(w) => {
                let inputs = [&mut w.input, &mut w.weight].into_iter();
                inputs.chain(epilogue(&mut w.epilogue)).chain([&mut w.out]).collect()
            }
            Work::Attention(w) => w.inputs.operands_mut().chain(&mut w.kept).chain([&mut w.out]).collect(),
            Work::AttentionGrad(w) => {
                let kept = w.kept.iter_mut().flat_map(|k| [&mut k.out, &mut k.rows]);
                w.inputs.operands_mut().chain([&mut w.up]).chain(kept).chain(&mut w.outs).collect()
            }
            Work::Index(w) => {
                [&mut w.table, &mut w.indices].into_iter().chain(&mut w.updates).chain([&mut w.out]).collect()
            }
            Work::Scan(w) => vec![&mut w.input, &mut w.out],
            Work::Pool(w) => [&mut w.x].into_iter().chain(&mut w.up).chain([&mut w.out]).collect(),
            Work::Dequantise(from, to) => vec![from, to],
        }
    }
}

#[cfg(all(test, feature = "samples"))]
mod tests {
    use crate::graph::Graph;
    use crate::plan::{Accesses, PlanOptions, plan};

    #[test]
    fn operands_that_are_changed_are_those_that_are_read_and_written() {
        let mut forms = std::collections::HashSet::new();
        for op in crate::ops::all() {
            for sample in op.samples() {
                let g = Graph::new();
                let input = |(i, a): (usize, &crate::graph::Array)| {
                    g.input(&format!("x{i}"), a.ty.dtype, a.ty.shape.clone())
                };
                let inputs: Vec<_> = sample.inputs.iter().enumerate().map(input).collect();
                g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
                let options = PlanOptions { flash_backward: true, ..Default::default() };
                for step in plan(&g, &options).unwrap().steps {
                    let mut work = step.work.clone();
                    // numbers of their own, in the order in which they come up
                    let mut seen = vec![];
                    work.for_each_operand(&mut |o, _| seen.push((o.buffer, o.offset, o.strides.clone())));
                    let mut changed: Vec<_> =
                        work.operands_mut().iter().map(|o| (o.buffer, o.offset, o.strides.clone())).collect();
                    seen.sort();
                    changed.sort();
                    assert_eq!(seen, changed, "{}", op.name());
                    work.operands_mut().into_iter().for_each(|o| o.buffer += 1000);
                    assert!(Accesses::of(&work).all().iter().all(|b| *b >= 1000), "{}", op.name());
                    forms.insert(work.sort());
                }
            }
        }
        assert!(forms.len() >= 9, "{forms:?}");
    }
}
