//! Verifies buffers, ports, and the order of steps.

use super::reach::MOST;
use super::{Checked, Checker, inside, refuse, too_large};
use crate::plan::{Accesses, Form, Gradient, Part, Place, Plan, Port, Step, Values};
use crate::tensor::{DType, element_count};
use std::collections::HashSet;

impl Checker<'_> {
    pub(super) fn buffers(&self) -> Checked<()> {
        let plan = self.plan;
        for (id, b) in plan.buffers.iter().enumerate() {
            let checked = match (b.dtype.bytes(b.elements), &b.place) {
                (Some(_), _) if b.elements == 0 || b.elements > MOST => {
                    too_large(format!("1 to {MOST} elements"), b.elements)
                }
                (None, _) => refuse("elements that have a size", b.elements),
                (_, Place::Parameter(p)) => match plan.parameters.get(*p) {
                    Some(port) if port.buffer == id => Ok(()),
                    _ => refuse("the buffer of its parameter", format!("parameter {p}")),
                },
                (_, Place::State(s)) => match plan.states.get(*s) {
                    Some(port) if port.buffer == id => Ok(()),
                    _ => refuse("the buffer of its state", format!("state {s}")),
                },
                (_, Place::Constant(t)) => {
                    let same = t.dtype() == b.dtype && t.elements() == b.elements;
                    let truths = b.dtype != DType::Bool || t.bytes().iter().all(|v| *v < 2);
                    match same && truths && t.is_contiguous() && t.bytes().len() == b.bytes() {
                        true => Ok(()),
                        false => refuse(format!("a constant of {} {}", b.elements, b.dtype), t.ty()),
                    }
                }
                (_, Place::Scratch | Place::Own) => Ok(()),
            };
            inside(checked, || format!("buffer {id}"))?;
        }
        Ok(())
    }

    fn port(&self, name: &str, buffer: usize, dtype: DType, shape: &[usize]) -> Checked<&Place> {
        let b = self.buffer(buffer)?;
        if b.dtype != dtype || element_count(shape) != Some(b.elements) {
            return refuse(format!("\"{name}\" of {} {}", b.elements, b.dtype), format!("{dtype}{shape:?}"));
        }
        Ok(&b.place)
    }

    pub(super) fn ports(&self) -> Checked<()> {
        let plan = self.plan;
        let part = |kind: &'static str| move || kind.to_string();
        let mut names = HashSet::new();
        for (i, p) in plan.parameters.iter().enumerate() {
            if !names.insert(p.name.as_str()) {
                return inside(
                    refuse("parameters of different names", format!("\"{}\" twice", p.name)),
                    part("parameters"),
                );
            }
            let place = inside(self.port(&p.name, p.buffer, p.dtype, &p.shape), part("parameters"))?;
            if !matches!(place, Place::Parameter(n) if *n == i) {
                return inside(
                    refuse(format!("parameter {i}'s place"), format!("{place:?}")),
                    part("parameters"),
                );
            }
        }
        let mut taken = HashSet::new();
        let mut own = |name: &str, buffer: usize, dtype: DType, shape: &[usize]| {
            let place = self.port(name, buffer, dtype, shape)?;
            match matches!(place, Place::Own) && taken.insert(buffer) {
                true => Ok(()),
                false => refuse(format!("\"{name}\" in a buffer of its own"), format!("buffer {buffer}")),
            }
        };
        let mut each = |p: &Port| own(&p.name, p.buffer, p.dtype, &p.shape);
        plan.inputs.iter().try_for_each(&mut each).or_else(|f| inside(Err(f), part("inputs")))?;
        plan.outputs.iter().try_for_each(&mut each).or_else(|f| inside(Err(f), part("outputs")))?;
        let mut names = HashSet::new();
        for (i, s) in plan.states.iter().enumerate() {
            let place = inside(self.port(&s.name, s.buffer, s.dtype, &s.shape), part("states"))?;
            // sets of states find states by name: two with one name would share memory
            if !matches!(place, Place::State(n) if *n == i) || !names.insert(s.name.as_str()) {
                let came = format!("\"{}\" in {place:?}", s.name);
                return inside(
                    refuse(format!("a name of its own, in state {i}'s place"), came),
                    part("states"),
                );
            }
            inside(s.next.map_or(Ok(()), |b| self.buffer(b).map(|_| ())), part("states"))?;
        }
        inside(self.results(), part("gradients and loss"))
    }

    /// Checks the derivations: one for each init step, with valid parts.
    pub(super) fn derived(&self, steps: usize) -> Checked<()> {
        let derived = &self.plan.derived;
        if derived.len() != steps {
            return refuse(format!("one of {steps} steps each"), derived.len());
        }
        let most = self.plan.buffers.iter().map(|b| b.elements).max().unwrap_or(0);
        let good = |p: &Part| p.place.from <= p.place.to && p.place.to <= most && p.elements <= most;
        match derived.iter().filter_map(|d| d.part.as_ref()).find(|p| !good(p)) {
            Some(part) => refuse("a part of a value", format!("{part:?}")),
            None => Ok(()),
        }
    }

    fn results(&self) -> Checked<()> {
        let plan = self.plan;
        if let Some(at) = plan.loss {
            let loss = plan.outputs.get(at).map(|p| (p.dtype, element_count(&p.shape)));
            if loss != Some((DType::F32, Some(1))) {
                return refuse("a loss of one f32 among the outputs", format!("{loss:?}"));
            }
        }
        let mut trained = HashSet::new();
        for &Gradient { parameter, buffer, offset } in &plan.gradients {
            let b = self.buffer(buffer)?;
            let Some(p) = plan.parameters.get(parameter) else {
                return refuse(format!("one of {} parameters", plan.parameters.len()), parameter);
            };
            let end = element_count(&p.shape).and_then(|n| n.checked_add(offset));
            let part = offset % 4 == 0 && end.is_some_and(|end| end <= b.elements);
            let alike = p.dtype == DType::F32 && b.dtype == DType::F32;
            if !alike || !part || !trained.insert(parameter) {
                let came = format!("{} {} from {offset} for \"{}\"", b.elements, b.dtype, p.name);
                return refuse(
                    "one gradient a parameter, f32 and as long, from a multiple of 4 in its buffer",
                    came,
                );
            }
            if matches!(b.place, Place::Parameter(_) | Place::State(_)) {
                return refuse("a gradient with memory of its own", format!("\"{}\"", p.name));
            }
        }
        Ok(())
    }
}

/// Checks that steps read what earlier ones have written, and write only writable buffers.
pub(super) fn order<G: Form>(plan: &Plan<G>) -> Checked<()> {
    // init steps depend on constants and, in plans without gradients, on parameters
    let folds = plan.gradients.is_empty();
    let constant = |place: &Place| match place {
        Place::Constant(_) => true,
        Place::Parameter(_) => folds,
        Place::Scratch | Place::Own | Place::State(_) => false,
    };
    // buffers with a defined value, buffers that never change, buffers that steps must not write
    let mut defined: Vec<bool> = plan.buffers.iter().map(|b| constant(&b.place)).collect();
    let mut inputs = vec![false; plan.buffers.len()];
    plan.inputs.iter().for_each(|p| inputs[p.buffer] = true);
    let mut border = inputs.clone();
    plan.states.iter().for_each(|p| border[p.buffer] = true);
    for (at, step) in plan.init_steps.iter().enumerate() {
        let own = |b: usize| matches!(plan.buffers[b].place, Place::Own) && !border[b];
        inside(advance(step, &mut defined, own, true), || format!("step {at} ({})", step.label))?;
        fixed_weight(plan, step, &defined, at)?;
    }
    let fixed = defined.clone();
    for (b, buffer) in plan.buffers.iter().enumerate() {
        defined[b] |= border[b] || matches!(buffer.place, Place::Parameter(_));
    }
    for (at, step) in plan.steps.iter().enumerate() {
        let at = plan.init_steps.len() + at;
        let free = |b: usize| !inputs[b] && !fixed[b];
        fixed_weight(plan, step, &fixed, at)?;
        inside(advance(step, &mut defined, free, false), || format!("step {at} ({})", step.label))?;
    }
    let results = plan.outputs.iter().map(|p| p.buffer).chain(plan.gradients.iter().map(|g| g.buffer));
    for b in results {
        if !defined[b] {
            return inside(refuse("a result that some step computes", format!("buffer {b}")), || {
                "results".into()
            });
        }
    }
    if let Some((state, look_up)) = plan.changed_too_early() {
        let part = || format!("step {} ({})", plan.init_steps.len() + state, plan.steps[state].label);
        let came = format!("\"{}\" after it", plan.steps[look_up].label);
        return inside(refuse("a state changed after all look-ups by computed indices", came), part);
    }
    Ok(())
}

/// Checks that a weight that is packed once is a parameter, a constant, or the result of an init step.
fn fixed_weight<G: Form>(plan: &Values, step: &Step<G>, fixed: &[bool], at: usize) -> Checked<()> {
    let Some(b) = step.work.packed_weight() else { return Ok(()) };
    if fixed[b] || matches!(plan.buffers[b].place, Place::Parameter(_)) {
        return Ok(());
    }
    let part = || format!("step {at} ({})", step.label);
    inside(refuse("a weight that no step changes", format!("buffer {b}")), part)
}

/// Checks one step: it reads defined buffers, and writes writable ones.
fn advance<G: Form>(
    step: &Step<G>,
    defined: &mut [bool],
    may: impl Fn(usize) -> bool,
    once: bool,
) -> Checked<()> {
    let Accesses { reads, writes } = Accesses::of(&step.work);
    if let Some(b) = reads.into_iter().find(|&b| !defined[b]) {
        return refuse("values that are there already", format!("buffer {b}"));
    }
    let wanted = if once { "a result that is kept" } else { "a result that no input or constant is" };
    match writes.iter().find(|&&b| !may(b)) {
        Some(b) => refuse(wanted, format!("buffer {b}")),
        None => {
            writes.into_iter().for_each(|b| defined[b] = true);
            Ok(())
        }
    }
}
