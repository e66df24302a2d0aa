//! Concatenations of parameters that are never stored. In training a model whose products are packed would else copy all
//! of their weights in each step. Whole parameters are laid in memory one after the other, and read as one; of others,
//! what reads them chooses the part that an element is in.

use super::budget::Budget;
use super::source::{Slot, Source, View};
use crate::device::gpu::program::ALIGN;
use crate::expr::{Instr, Kind};
use crate::plan::{BufferId, Operand, Place, Plan, Rowwise, Work};
use crate::tensor::{DType, contiguous_strides};

/// Parts that a reader tells apart, at most: each is a binding more.
const PARTS: usize = 4;

/// A part of a concatenation: its first element there, and the contiguous elements that it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// Multiple of four.
    pub start: usize,
    /// Where its elements are; the offset is a multiple of four.
    pub from: Operand,
}

/// A concatenation that is not stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined {
    /// In order.
    pub parts: Vec<Part>,
    /// The parts lie one after the other in memory.
    pub run: bool,
}

/// Which concatenations are of whole parameters that can lie one after the other, as those parameters' numbers; their
/// `run` is set. A parameter lies in one place: who comes first has it.
pub fn runs(plan: &Plan, held: &mut [super::source::Held], limit: usize) -> Vec<Vec<usize>> {
    let mut all: Vec<Vec<usize>> = vec![];
    for held in held.iter_mut() {
        let bytes = held.bytes();
        let Some(joined) = &mut held.joined else { continue };
        let whole = |p: &Part| match plan.buffers[p.from.buffer].place {
            // each can be bound by itself too
            Place::Parameter(i) if p.from.offset == 0 && plan.parameters[i].buffer == p.from.buffer => {
                plan.buffers[p.from.buffer].bytes().is_multiple_of(ALIGN).then_some(i)
            }
            _ => None,
        };
        let Some(run) = joined.parts.iter().map(whole).collect::<Option<Vec<usize>>>() else { continue };
        let sum: usize = joined.parts.iter().map(|p| plan.buffers[p.from.buffer].bytes()).sum();
        let taken = |i: &usize| all.iter().any(|r| r.contains(i));
        let known = all.contains(&run);
        let mut distinct = run.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if sum == bytes && bytes <= limit && distinct.len() == run.len() && (known || !run.iter().any(taken))
        {
            joined.run = true;
            if !known {
                all.push(run);
            }
        }
    }
    all
}

/// The buffers that only products read and only copies of whole parameters fill, with their parts in order.
pub fn choose(plan: &Plan, budget: &mut Budget) -> Vec<(BufferId, Joined)> {
    if plan.unfused {
        return vec![];
    }
    let mut parts: Vec<Vec<(Part, usize)>> = vec![vec![]; plan.buffers.len()];
    let mut fits: Vec<bool> =
        plan.buffers.iter().map(|b| matches!(b.place, Place::Arena(_)) && b.dtype == DType::F32).collect();
    plan.gradients.iter().for_each(|g| fits[g.buffer] = false);
    for step in &plan.steps {
        step.work.for_each_operand(|o, written| {
            let copy = matches!(&step.work, Work::Rowwise(_)) && written;
            fits[o.buffer] &= copy || matches!(&step.work, Work::Product(_)) && !written;
        });
        if let Work::Rowwise(w) = &step.work {
            match part(plan, w) {
                Some(found) => parts[w.out.buffer].push(found),
                None => fits[w.out.buffer] = false,
            }
            w.also.iter().for_each(|r| fits[r.out.buffer] = false);
        }
    }
    let mut all = vec![];
    for (id, mut parts) in parts.into_iter().enumerate() {
        crate::order::sort_by_key(&mut parts, |(p, _)| p.start);
        let mut end = 0;
        let adjoin = parts.iter().all(|(p, elements)| {
            let next = p.start == end;
            end += elements;
            next
        });
        let from: Vec<BufferId> = parts.iter().map(|(p, _)| p.from.buffer).collect();
        let whole = (2..=PARTS).contains(&parts.len()) && adjoin && end == plan.buffers[id].elements;
        if fits[id] && whole && budget.replace(id, &from) {
            let parts = parts.into_iter().map(|(p, _)| p).collect();
            all.push((id, Joined { parts, run: false }));
        }
    }
    all
}

/// A step that copies contiguous elements of a parameter to contiguous ones, as the part that makes, and its size.
fn part(plan: &Plan, w: &Rowwise) -> Option<(Part, usize)> {
    let [from] = w.operands.as_slice() else { return None };
    let copies = w.reductions.is_empty()
        && w.tape.code.as_slice() == [(Instr::Load(0), Kind::F)]
        && matches!(plan.buffers[from.buffer].place, Place::Parameter(_));
    let plain = |o: &Operand| {
        let wanted = contiguous_strides(&w.domain);
        let walks = |((&n, &s), &want): ((&usize, &isize), &isize)| n == 1 || s == want;
        o.dtype == DType::F32
            && o.offset >= 0
            && o.offset % 4 == 0
            && w.domain.iter().zip(&o.strides).zip(&wanted).all(walks)
    };
    let elements = w.domain.iter().product();
    (copies && plain(from) && plain(&w.out))
        .then(|| (Part { start: w.out.offset as usize, from: from.clone() }, elements))
}

/// An element of such a value at an index in elements of the view: a call of a function that finds its part.
pub fn element(source: &mut Source<'_>, joined: &Joined, view: View, index: &str) -> String {
    let (lanes, parts) = (view.bytes() / 4, &joined.parts);
    // named by its first binding: kernels of the same form are the same text
    let Some(first) = parts.first().map(|p| Slot::Buffer(p.from.buffer, 0)) else { return String::new() };
    let own = source.at(first, view, index);
    if joined.run {
        return own;
    }
    let first = own.split(['[', '(']).next().unwrap_or_default().to_string();
    let name = format!("joined_{first}");
    let mut text = format!("fn {name}(i: u32) -> {} {{\n", view.text());
    for (part, next) in parts.iter().zip(parts.iter().skip(1).map(Some).chain([None])) {
        let (start, offset) = (part.start / lanes, part.from.offset as usize / lanes);
        let value = source.element(part.from.buffer, view, &format!("i - {start}u + {offset}u"));
        text += &match next {
            Some(next) => format!("if (i < {}u) {{ return {value}; }}\n", next.start / lanes),
            None => format!("return {value};\n}}"),
        };
    }
    source.function(text);
    format!("{name}({index})")
}
