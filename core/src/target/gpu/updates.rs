//! Assigns an optimizer's passes over all parameters to dispatches, as few as the memory's blocks allow. Pure: addresses in,
//! tables out.

use super::ALIGN;
use super::kernels::update::{EACH, PIECES, Place, Sort, TURNS, small_loads, threads};
use super::wgsl::walk;
use crate::optimizer::{Member, Pass, Source, Span, Target, Training, Update};
use crate::profile::Limits;

/// Byte offsets, in the heaps, of everything that belongs to a parameter.
#[derive(Debug, Clone, Default)]
pub struct Placed {
    /// The parameter's pieces.
    pub parameter: Vec<usize>,
    /// The pieces of the buffer that holds the gradient.
    pub gradient: Vec<usize>,
    /// The gradient's first element in that buffer, a multiple of 4.
    pub offset: usize,
    /// Whether the gradient's buffer is in the session's own heap, else in the arena.
    pub own: bool,
    /// Whether the gradient's buffer may later be replaced by another: it needs a binding of its own.
    pub alone: bool,
    /// The pieces of its per-element states: in each piece they are stored one after the other.
    pub states: Vec<usize>,
    /// Its other values.
    pub small: Small,
}

/// Offsets of a parameter's values with fewer than one per element, in words of their heap.
#[derive(Debug, Clone, Default)]
pub struct Small {
    /// Its states; `None` for per-element ones.
    pub states: Vec<Option<usize>>,
    /// Its intermediate values.
    pub kept: Vec<usize>,
    /// The partial sums of its means.
    pub means: Vec<usize>,
}

/// A dispatch: its bindings, as byte offsets in the heaps, and a record for each workgroup.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// The update's number, and the pass's number in it.
    pub pass: (usize, usize),
    /// Its level: dispatches of one level are independent.
    pub level: usize,
    /// Whether the gradients are in the session's own heap, else in the arena.
    pub own: bool,
    /// Offsets of the bindings of parameters, gradients and states.
    pub from: [usize; 3],
    /// A record for each workgroup: see [`Sort`].
    pub records: Vec<u32>,
    /// Number of records.
    pub parts: usize,
}

/// How the summation of a mean is divided among threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cut {
    /// Number of neighbouring threads with a sum each; the threads of a workgroup are divided among these sums.
    pub width: usize,
    /// Values per piece.
    pub length: usize,
    /// Pieces per sum.
    pub pieces: usize,
}

/// The division of a mean over `count` values, one for each of `sums` of a span; `None` if there are too many values.
pub fn cut(count: usize, sums: usize, to: Span, limits: &Limits) -> Option<Cut> {
    let threads = threads(limits);
    // neighbouring threads read neighbouring elements: columns, if there is one sum for each
    let least = if to == Span::Column { sums.next_power_of_two().min(32).min(threads) } else { 1 };
    let parts = count.div_ceil(8).next_power_of_two().min(threads / least);
    let length = (parts * 64).max(count.div_ceil(PIECES));
    let fits = length.div_ceil(parts) <= TURNS;
    fits.then_some(Cut { width: threads / parts, length, pieces: count.div_ceil(length) })
}

/// Elements per piece of a parameter with that many states, where one binding covers `chunk` bytes.
pub fn unit(states: usize, chunk: usize) -> usize {
    chunk / 16 / states.max(1) * 4
}

/// Number of an update's per-element states.
pub fn element_states(update: &Update) -> usize {
    update.states.iter().filter(|s| s.span == Span::Element).count()
}

/// A part of a dispatch, and the heap offsets that its record's first words are relative to.
struct Part {
    /// Bytes in the heaps of parameters, gradients and states.
    at: [usize; 3],
    /// The record, without the words that depend on the bindings' offsets.
    record: Vec<u32>,
}

/// The dispatches for all parameters, where one binding covers `chunk` bytes of a heap.
pub fn arrange(training: &Training, placed: &[Placed], limits: &Limits) -> Vec<Batch> {
    // pass, blocks of the three heaps, whether the gradient is in the own heap, and the parameter if its gradient needs its own
    // binding
    type Key = ((usize, usize), [usize; 3], bool, Option<usize>);
    let chunk = limits.binding;
    let mut batches: Vec<(Key, Vec<Part>)> = vec![];
    for (i, (m, p)) in training.members.iter().zip(placed).enumerate() {
        for (n, pass) in training.updates[m.update].passes.iter().enumerate() {
            let whole = Whole { update: &training.updates[m.update], pass, m, p, limits };
            let reads = pass.loads.contains(&Source::Gradient) || Sort::of(pass) == Sort::Elements;
            for part in whole.parts() {
                let alone = (p.alone && reads).then_some(i);
                let key = ((m.update, n), part.at.map(|at| at / chunk), p.own && reads, alone);
                match batches.iter_mut().find(|b| b.0 == key) {
                    Some(batch) => batch.1.push(part),
                    None => batches.push((key, vec![part])),
                }
            }
        }
    }
    let batch = |((pass, _, own, alone), parts): (Key, Vec<Part>)| {
        let level = training.updates[pass.0].passes[pass.1].level;
        let sort = Sort::of(&training.updates[pass.0].passes[pass.1]);
        batch(pass, level, sort, own, &parts, alone.map(|i| &placed[i]))
    };
    let mut all: Vec<Batch> = batches.into_iter().map(batch).collect();
    all.sort_by_key(|b| b.level);
    all
}

fn batch(
    pass: (usize, usize),
    level: usize,
    sort: Sort,
    own: bool,
    parts: &[Part],
    alone: Option<&Placed>,
) -> Batch {
    let first = |n: usize| parts.iter().map(|p| p.at[n]).min().unwrap_or(0) / ALIGN * ALIGN;
    let mut from = [first(0), first(1), first(2)];
    if let Some(p) = alone {
        // bind from the start of the buffer's piece: the buffer is looked up by that offset
        from[1] = p.gradient.iter().copied().filter(|&at| at <= from[1]).max().unwrap_or(from[1]);
    }
    // per-element parts count in groups of four elements
    let size = if sort == Sort::Elements { 16 } else { 4 };
    let mut records = vec![];
    for part in parts {
        let begins = records.len();
        records.extend(&part.record);
        if sort != Sort::Smalls {
            for n in 0..3 {
                records[begins + n] = ((part.at[n] - from[n]) / size) as u32;
            }
        }
    }
    Batch { pass, level, own, from, records, parts: parts.len() }
}

/// A parameter and a pass over it.
struct Whole<'a> {
    update: &'a Update,
    pass: &'a Pass,
    m: &'a Member,
    p: &'a Placed,
    limits: &'a Limits,
}

impl Whole<'_> {
    fn parts(&self) -> Vec<Part> {
        match Sort::of(self.pass) {
            Sort::Elements => self.elements(),
            Sort::Sums => self.sums(),
            Sort::Smalls => self.smalls(),
        }
    }

    /// The offset of a small value.
    fn small(&self, source: Source) -> u32 {
        let small = &self.p.small;
        let at = match source {
            Source::State(i) => small.states[i].unwrap_or(0),
            Source::Kept(i) => small.kept[i],
            Source::Mean(i) => small.means[i],
            _ => 0,
        };
        at as u32
    }

    /// The words of a record with the offsets of the small values that the pass reads.
    fn loads(&self) -> impl Iterator<Item = u32> + '_ {
        small_loads(self.update, self.pass).map(|s| self.small(s))
    }

    /// Rows and columns.
    fn sides(&self) -> [u32; 2] {
        let [_, rows, columns] = self.m.geometry.sizes;
        [rows as u32, columns as u32]
    }

    /// Parts of the per-element work; each ends at a piece's end at the latest.
    fn elements(&self) -> Vec<Part> {
        let (p, each, states) = (self.p, self.limits.binding / 4, element_states(self.update));
        let unit = unit(states, self.limits.binding);
        let all = self.m.geometry.count(Span::Element);
        let (mut at, mut parts) = (0, vec![]);
        while at < all {
            let from = p.offset + at;
            let mut elements = (all - at).min(EACH).min(each - at % each).min(each - from % each);
            let place = |pieces: &[usize], element: usize| pieces[element / each] + element % each * 4;
            let (mut state, mut distance) = (0, 0);
            if states > 0 {
                elements = elements.min(unit - at % unit);
                state = p.states[at / unit] + at % unit * 4;
                distance = (all - at / unit * unit).min(unit).div_ceil(4);
            }
            let mut record =
                vec![0, 0, 0, elements as u32, distance as u32, self.m.scalars as u32, at as u32];
            record.extend(self.sides());
            record.extend(self.loads());
            parts.push(Part { at: [place(&p.parameter, at), place(&p.gradient, from), state], record });
            at += elements;
        }
        parts
    }

    /// Pieces of sums; the parameter, its gradient and states must have one piece each.
    fn sums(&self) -> Vec<Part> {
        let (p, g) = (self.p, self.m.geometry);
        let [(Target::Mean(k), _)] = self.pass.results[..] else { return vec![] };
        let (from, to) = self.update.means[k];
        let (sums, count) = (g.count(to), g.count(from) / g.count(to));
        let Some(cut) = cut(count, sums, to, self.limits) else { return vec![] };
        let reads = |source: Source, at: usize| if self.pass.loads.contains(&source) { at } else { 0 };
        let at = [
            reads(Source::Parameter, p.parameter[0]),
            reads(Source::Gradient, p.gradient[0] + p.offset * 4),
            p.states.first().copied().unwrap_or(0),
        ];
        let distance = g.count(Span::Element).next_multiple_of(4) as u32;
        let mut parts = vec![];
        for first in (0..sums).step_by(cut.width) {
            for piece in 0..cut.pieces {
                let values = piece * cut.length..((piece + 1) * cut.length).min(count);
                let mut record = vec![0, 0, 0, distance, self.m.scalars as u32];
                record.extend(self.sides());
                record.extend(
                    [first, (sums - first).min(cut.width), values.start, values.end].map(|n| n as u32),
                );
                record.extend([cut.width, cut.pieces, piece].map(|n| n as u32));
                record.push(self.small(Source::Mean(k)));
                record.extend(self.loads());
                parts.push(Part { at, record });
            }
        }
        parts
    }

    /// Values with fewer than one per element, one value a thread.
    fn smalls(&self) -> Vec<Part> {
        let (g, threads) = (self.m.geometry, threads(self.limits));
        let all = g.count(self.pass.over);
        let part = |first: usize| {
            let mut record = vec![first as u32, (all - first).min(threads) as u32, self.m.scalars as u32];
            record.extend(self.sides());
            for load in small_loads(self.update, self.pass) {
                record.push(self.small(load));
                if let Source::Mean(k) = load {
                    let (from, to) = self.update.means[k];
                    let count = g.count(from) / g.count(to);
                    let pieces = cut(count, g.count(to), to, self.limits).map_or(1, |c| c.pieces);
                    record.extend([pieces as u32, count as u32]);
                }
            }
            for (target, _) in &self.pass.results {
                record.push(match *target {
                    Target::State(i) => self.small(Source::State(i)),
                    Target::Kept(i) => self.small(Source::Kept(i)),
                    _ => 0,
                });
            }
            Part { at: [0; 3], record }
        };
        (0..all).step_by(threads).map(part).collect()
    }
}

/// All tables concatenated, starting at word `first`, and the start of each.
pub fn tables(batches: &[Batch], first: usize) -> (Vec<u32>, Vec<Place>) {
    let (mut words, mut places) = (vec![0; first], vec![]);
    for b in batches {
        places.push(Place { first: words.len(), parts: b.parts, words: 0 });
        words.extend(&b.records);
        // a folded grid may have surplus workgroups: these get empty records
        let more = walk::fold(b.parts).iter().product::<u32>() as usize - b.parts;
        words.resize(words.len() + more * (b.records.len() / b.parts), 0);
    }
    (words, places)
}

#[cfg(test)]
mod tests;
