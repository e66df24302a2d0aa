//! Concatenations of parameters that are never stored: what reads one chooses the part that an element is in. In
//! training a model whose products are packed would else copy all of their weights in each step.

use super::source::{Slot, Source, View};
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

/// The buffers that only products read and only copies of whole parameters fill, with their parts in order.
pub fn choose(plan: &Plan) -> Vec<(BufferId, Vec<Part>)> {
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
        parts.sort_by_key(|(p, _)| p.start);
        let mut end = 0;
        let adjoin = parts.iter().all(|(p, elements)| {
            let next = p.start == end;
            end += elements;
            next
        });
        if fits[id] && (2..=PARTS).contains(&parts.len()) && adjoin && end == plan.buffers[id].elements {
            all.push((id, parts.into_iter().map(|(p, _)| p).collect()));
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
pub fn element(source: &mut Source<'_>, parts: &[Part], view: View, index: &str) -> String {
    let lanes = view.bytes() / 4;
    // named by its first binding: kernels of the same form are the same text
    let first =
        parts.first().map_or(String::new(), |p| source.bind(Slot::Buffer(p.from.buffer, 0), view, false));
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
