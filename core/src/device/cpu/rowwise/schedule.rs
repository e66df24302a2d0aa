//! Nodes to straight-line code: sections (one for each reduction and one for the result), each computing what is not
//! there yet, and slots of scratch memory for values while they live. Chooses no axes; runs nothing.

use super::super::isa::Isa;
use super::super::vmath::{ArgFold, Cast, Fold as VFold};
use super::exec::{Accumulator, At, CONSTANTS, CURSORS, Code, FLUSH, Joining, Op, SCRATCH, Width};
use super::exec::{extreme, packing, start};
use super::fuse::{Fact, Root};
use super::lower::{Id, Map, Node, Nodes};
use crate::expr::{Fold, Kind};
use crate::tensor::DType;
use std::mem::size_of;
use std::ops::Range;
use weft_kernels::arithmetic::{self as kernels, Two, W};

/// Bytes between slots beyond their lanes: keeps equal lanes of different slots off each other's cache sets.
const PAD: usize = 64;

/// What surrounds the nodes.
pub(super) struct Surroundings<'a> {
    pub(super) isa: Isa,
    /// Lanes run along a kept axis; reductions join lane by lane.
    pub(super) column: bool,
    /// A row is one chunk: everything is computed once.
    pub(super) whole: bool,
    /// Lanes altogether.
    pub(super) lanes: usize,
    /// Some axes are reduced.
    pub(super) reduces: bool,
    /// Positions of a column's reductions.
    pub(super) positions: usize,
    /// By cursor: element type, step along the lanes in bytes or counts.
    pub(super) cursors: &'a [(Option<DType>, isize)],
    /// The cursor of the output.
    pub(super) out: usize,
    /// One result a row.
    pub(super) per_row: bool,
}

/// Code that belongs together: `once` for each row (or chunk of columns), `inner` for each of its positions.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) once: Range<usize>,
    pub(super) inner: Range<usize>,
}

/// Where a value is.
#[derive(Clone, Copy, Debug)]
enum Spot {
    None,
    /// At a cursor.
    Cursor(usize),
    /// A block of equal lanes.
    Constant(usize),
    /// A chunk of equal lanes.
    Spread(usize),
    Cell(usize),
    Slot(usize),
    Accumulator(usize),
}

#[derive(Debug)]
struct Draft {
    code: Code,
    dst: Spot,
    src: [Spot; 3],
    /// Computes one block, not a chunk.
    uniform: bool,
    /// Stores one element, for the whole row.
    one: bool,
}

/// Drafted code; [`place`](Scheduled::place) gives addresses.
pub(super) struct Scheduled {
    drafts: Vec<Draft>,
    pub(super) sections: Vec<Section>,
    constants: Vec<u32>,
    spreads: Vec<u32>,
    cells: usize,
    accumulators: usize,
    /// By value in a slot: its slot.
    slots: Vec<usize>,
    /// Slots needed at once.
    pub(super) slot_count: usize,
}

struct Scheduler<'a> {
    nodes: &'a Nodes,
    facts: &'a [Fact],
    around: &'a Surroundings<'a>,
    out: Scheduled,
    /// By node: where its value is, if it is there.
    spots: Vec<Option<Spot>>,
    /// Nodes whose values last only for the section.
    passing: Vec<Id>,
    reduced: Vec<Spot>,
    values: usize,
}

/// Drafts the code of reductions (fold, kind, root), of results of rows with their cursors, and of the result.
pub(super) fn schedule(
    nodes: &Nodes,
    facts: &[Fact],
    reductions: &[(Fold, Kind, Root)],
    (extra_outputs, result): (&[(Root, usize)], Root),
    around: &Surroundings<'_>,
) -> Scheduled {
    let out = Scheduled {
        drafts: Vec::new(),
        sections: Vec::new(),
        constants: Vec::new(),
        spreads: Vec::new(),
        cells: 0,
        accumulators: 0,
        slots: Vec::new(),
        slot_count: 0,
    };
    let spots = vec![None; nodes.all.len()];
    let (passing, reduced) = (Vec::new(), Vec::new());
    let mut s = Scheduler { nodes, facts, around, out, spots, passing, reduced, values: 0 };
    let mut begin = 0;
    for &(fold, kind, root) in reductions {
        begin = s.reduction(begin, fold, kind, root);
    }
    if around.reduces {
        extra_outputs.iter().for_each(|&(root, cursor)| s.row_result(root, cursor));
        s.result(begin, result, &[]);
    } else {
        // any of them may be stored over an operand of another: all are computed first
        extra_outputs.iter().for_each(|&(root, _)| s.set_aside(root));
        s.result(begin, result, extra_outputs);
    }
    let mut out = s.out;
    out.assign(s.values);
    out
}

impl Scheduler<'_> {
    /// A section that reduces, and the drafts after it that finish the reduction: they open the next section, whose
    /// first draft is returned.
    fn reduction(&mut self, begin: usize, fold: Fold, kind: Kind, root: Root) -> usize {
        let needed = self.needed(root.needs());
        self.emit_all(&needed, false);
        let (fold, kind) = match (fold, kind) {
            // Of truths: any, all.
            (Fold::Sum, Kind::B) => (Fold::Max, kind),
            (Fold::Prod, Kind::B) => (Fold::Min, kind),
            other => other,
        };
        let joining = match fold {
            Fold::Sum => Joining::Fold(VFold::Sum),
            Fold::Prod => Joining::Fold(VFold::Prod),
            Fold::Max => Joining::Fold(VFold::Max),
            Fold::Min => Joining::Fold(VFold::Min),
            Fold::ArgMax => Joining::Arg(ArgFold::Max),
            Fold::ArgMin => Joining::Arg(ArgFold::Min),
        };
        if self.around.column {
            self.by_column(begin, &needed, joining, kind, root)
        } else {
            self.by_row(begin, &needed, joining, kind, root)
        }
    }

    fn by_row(&mut self, begin: usize, needed: &[Id], joining: Joining, kind: Kind, root: Root) -> usize {
        let dot = kernels::dot(self.around.isa);
        if self.around.whole {
            self.emit_all(needed, true);
            let cell = self.cell();
            let code = match root.product {
                Some(_) => Code::ReduceDot(dot),
                None => self.reduce(joining, kind),
            };
            let src = self.sources(root.needs());
            self.draft(code, cell, src);
            self.reduced.push(cell);
            return begin;
        }
        let acc = Spot::Accumulator(self.out.accumulators);
        self.out.accumulators += 1;
        self.draft(Code::Start(joining, kind), acc, [Spot::None; 3]);
        let inner = self.out.drafts.len();
        self.emit_all(needed, true);
        let code = match root.product {
            Some(_) => Code::JoinDot(dot),
            None => Code::Join(joining, kind),
        };
        let src = self.sources(root.needs());
        self.draft(code, acc, src);
        let next = self.close(begin, inner);
        let cell = self.cell();
        self.draft(Code::Finish(joining, kind), cell, [acc, Spot::None, Spot::None]);
        self.reduced.push(cell);
        next
    }

    /// The reduction of a row that is one chunk.
    fn reduce(&self, joining: Joining, kind: Kind) -> Code {
        let isa = self.around.isa;
        match (joining, kind) {
            (Joining::Fold(VFold::Max), Kind::F) => Code::ReduceReal(kernels::extreme(isa, false)),
            (Joining::Fold(VFold::Min), Kind::F) => Code::ReduceReal(kernels::extreme(isa, true)),
            // A longer sum is vmath's, which halves it.
            (Joining::Fold(VFold::Sum), Kind::F) if self.around.lanes <= 2048 => {
                Code::ReduceReal(kernels::sum(isa))
            }
            _ => Code::Reduce(joining, kind),
        }
    }

    fn by_column(&mut self, begin: usize, needed: &[Id], joining: Joining, kind: Kind, root: Root) -> usize {
        let isa = self.around.isa;
        let add = kernels::single(isa, Two::Add);
        let acc = self.slot();
        let none = Spot::None;
        let sum = joining == Joining::Fold(VFold::Sum) && kind == Kind::F;
        let extra = match joining {
            Joining::Arg(_) => Some(self.slot()),
            _ => (sum && self.around.positions > 2 * FLUSH).then(|| self.slot()),
        };
        let first = match joining {
            Joining::Fold(fold) => start(fold, kind),
            Joining::Arg(fold) => start(extreme(fold), kind),
        };
        self.draft(Code::Fill(first), acc, [none; 3]);
        if let Some(extra) = extra {
            self.draft(Code::Fill(0), extra, [none; 3]);
        }
        let inner = self.out.drafts.len();
        self.emit_all(needed, true);
        let [a, b, _] = self.sources(root.needs());
        match joining {
            Joining::Arg(fold) => self.draft(Code::Contest(fold, kind), acc, [a, extra.unwrap_or(acc), none]),
            Joining::Fold(_) if root.product.is_some() => {
                self.draft(Code::Lanes(kernels::paired(isa, Two::Mul, Two::Add)), acc, [a, b, acc]);
            }
            Joining::Fold(_) if sum => self.draft(Code::Lanes(add), acc, [acc, a, none]),
            Joining::Fold(fold) => self.draft(Code::Accumulate(fold, kind), acc, [a, none, none]),
        }
        if let (true, Some(total)) = (sum, extra) {
            self.draft(Code::Flush(add, kernels::lost(isa)), total, [acc, none, none]);
        }
        let next = self.close(begin, inner);
        match (joining, extra) {
            (Joining::Arg(_), Some(index)) => self.reduced.push(index),
            (_, Some(total)) => {
                self.draft(Code::Lanes(add), acc, [acc, total, none]);
                self.reduced.push(acc);
            }
            _ => self.reduced.push(acc),
        }
        next
    }

    /// Computes a result that is stored later; an operand that is one is copied.
    fn set_aside(&mut self, root: Root) {
        let needed = self.needed(&[root.id]);
        self.emit_all(&needed, false);
        if let Some(from @ Spot::Cursor(cursor)) = self.spots[root.id] {
            let (dtype, step) = self.around.cursors[cursor];
            let slot = self.slot();
            self.draft(Code::Load(dtype.unwrap_or(DType::F32), step), slot, [from, Spot::None, Spot::None]);
            self.spots[root.id] = Some(slot);
        }
    }

    /// A result of the row stored, in the last section's code for once a row.
    fn row_result(&mut self, root: Root, cursor: usize) {
        let needed = self.needed(&[root.id]);
        self.emit_all(&needed, false);
        let (_, step) = self.around.cursors[cursor];
        let src = self.sources(&[root.id]);
        self.draft(Code::Store(DType::F32, step), Spot::Cursor(cursor), src);
        if let (false, Some(draft)) = (self.around.column, self.out.drafts.last_mut()) {
            draft.one = true;
        }
    }

    /// The last section: the result, stored, and then those that were set aside.
    fn result(&mut self, begin: usize, root: Root, aside: &[(Root, usize)]) {
        let needed = self.needed(&[root.id]);
        let looped = !self.around.per_row && !self.around.whole && self.around.reduces;
        let (dtype, step) = self.around.cursors[self.around.out];
        let dtype = dtype.unwrap_or(DType::F32);
        let out = Spot::Cursor(self.around.out);
        // Computed straight into the output, if nothing else holds it and it can be.
        let direct = packing(dtype).is_none()
            && step == 4
            && self.facts[root.id].wide
            && self.spots[root.id].is_none()
            && (self.facts[root.id].inner || !looped)
            && matches!(
                self.nodes.all[root.id].0,
                Node::Map(..) | Node::Stream(..) | Node::Index(_) | Node::Load(_)
            )
            && self.in_place(root.id).is_none();
        let rest: Vec<Id> = needed.iter().copied().filter(|&id| !(direct && id == root.id)).collect();
        self.emit_all(&rest, false);
        let once_end = self.out.drafts.len();
        self.emit_all(&rest, true);
        if direct {
            self.emit(root.id, Some(out));
        } else {
            let src = self.sources(&[root.id]);
            self.draft(Code::Store(dtype, step), out, src);
        }
        aside.iter().for_each(|&(root, cursor)| self.row_result(root, cursor));
        let end = self.out.drafts.len();
        let inner = if looped { once_end } else { end };
        self.out.sections.push(Section { once: begin..inner, inner: inner..end });
    }

    fn close(&mut self, begin: usize, inner: usize) -> usize {
        let end = self.out.drafts.len();
        self.out.sections.push(Section { once: begin..inner, inner: inner..end });
        for id in self.passing.drain(..) {
            self.spots[id] = None;
        }
        end
    }

    /// The nodes that some need and that are not there yet, in order.
    fn needed(&self, roots: &[Id]) -> Vec<Id> {
        let mut wanted = vec![false; self.nodes.all.len()];
        roots.iter().for_each(|&id| wanted[id] = true);
        for id in (0..wanted.len()).rev() {
            if wanted[id] && self.spots[id].is_some() {
                wanted[id] = false;
            } else if wanted[id] {
                self.nodes.all[id].0.reads().iter().for_each(|&a| wanted[a] = true);
            }
        }
        (0..wanted.len()).filter(|&id| wanted[id]).collect()
    }

    /// Emits those that vary along reduced axes, or the others.
    fn emit_all(&mut self, needed: &[Id], inner: bool) {
        for &id in needed {
            if self.facts[id].inner == inner && self.spots[id].is_none() {
                self.emit(id, None);
            }
        }
    }

    /// The cursor, where its elements are lanes as they stand.
    fn in_place(&self, id: Id) -> Option<Spot> {
        let Node::Load(cursor) = self.nodes.all[id].0 else { return None };
        let (dtype, step) = self.around.cursors[cursor];
        (step == 4 && dtype.is_some_and(|d| packing(d).is_none())).then_some(Spot::Cursor(cursor))
    }

    fn literal(&self, id: Id) -> Option<u32> {
        if let Node::Const(bits) = self.nodes.all[id].0 { Some(bits) } else { None }
    }

    fn emit(&mut self, id: Id, into: Option<Spot>) {
        let (node, _) = self.nodes.all[id];
        let spot = match (node, self.in_place(id)) {
            (_, Some(spot)) => spot,
            (Node::Reduced(r), _) => self.reduced.get(r).copied().unwrap_or(Spot::None),
            (Node::Const(bits), _) => Spot::Constant(known(&mut self.out.constants, bits)),
            (Node::Same(a), _) => self.spot(a),
            (Node::Splat(a), _) if self.literal(a).is_some() => {
                let bits = self.literal(a).unwrap_or(0);
                Spot::Spread(known(&mut self.out.spreads, bits))
            }
            _ => {
                let src = self.sources_of(id);
                let dst = into.unwrap_or_else(|| if self.facts[id].wide { self.slot() } else { self.cell() });
                self.draft(self.code(id), dst, src);
                dst
            }
        };
        self.spots[id] = Some(spot);
        if self.facts[id].inner && !self.around.whole {
            self.passing.push(id);
        }
    }

    fn code(&self, id: Id) -> Code {
        let isa = self.around.isa;
        let wide = self.facts[id].wide;
        match self.nodes.all[id].0 {
            Node::Load(cursor) => {
                let (dtype, step) = self.around.cursors[cursor];
                let dtype = dtype.unwrap_or(DType::F32);
                if wide { Code::Load(dtype, step) } else { Code::LoadOne(dtype) }
            }
            Node::Index(cursor) => Code::Count(self.around.cursors[cursor].1 as u32),
            Node::Stream(seed, ..) => Code::Stream(seed),
            Node::Map(op, _) => match op {
                Map::Two(op) => Code::Lanes(kernels::single(isa, op)),
                Map::Pair(first, second) => Code::Lanes(kernels::paired(isa, first, second)),
                Map::Compare(op) => Code::Lanes(kernels::compared(isa, op)),
                Map::Select => Code::Lanes(kernels::chosen(isa)),
                Map::Unary(op) => Code::Unary(op),
                Map::Pow => Code::Pow,
                Map::IntUnary(op, signed) => Code::IntUnary(op, signed),
                Map::IntBinary(op, signed) => Code::IntBinary(op, signed),
                Map::IntCompare(op, signed) => Code::IntCompare(op, signed),
                Map::Cast(op) => Code::Cast(op),
                Map::Slow(f) => Code::Slow(f),
                Map::Random(seed) => Code::Random(seed),
            },
            // Placed without code, but for copies.
            Node::Splat(_) | Node::Same(_) | Node::Reduced(_) | Node::Const(_) => Code::Splat,
        }
    }

    fn sources_of(&self, id: Id) -> [Spot; 3] {
        match self.nodes.all[id].0 {
            Node::Load(cursor) | Node::Index(cursor) => [Spot::Cursor(cursor), Spot::None, Spot::None],
            Node::Stream(_, counter, cursor) => [self.spot(counter), Spot::Cursor(cursor), Spot::None],
            node => self.sources(node.reads()),
        }
    }

    fn sources(&self, ids: &[Id]) -> [Spot; 3] {
        let mut spots = [Spot::None; 3];
        for (spot, &id) in spots.iter_mut().zip(ids) {
            *spot = self.spot(id);
        }
        spots
    }

    fn spot(&self, id: Id) -> Spot {
        self.spots[id].unwrap_or(Spot::None)
    }

    fn draft(&mut self, code: Code, dst: Spot, src: [Spot; 3]) {
        let uniform = matches!(dst, Spot::Cell(_))
            && !matches!(code, Code::Reduce(..) | Code::ReduceDot(_) | Code::ReduceReal(_));
        self.out.drafts.push(Draft { code, dst, src, uniform, one: false });
    }

    fn cell(&mut self) -> Spot {
        self.out.cells += 1;
        Spot::Cell(self.out.cells - 1)
    }

    fn slot(&mut self) -> Spot {
        self.values += 1;
        Spot::Slot(self.values - 1)
    }
}

fn known(list: &mut Vec<u32>, bits: u32) -> usize {
    list.iter().position(|&b| b == bits).unwrap_or_else(|| {
        list.push(bits);
        list.len() - 1
    })
}

impl Scheduled {
    /// Gives every value a slot: the lowest that is free from its first use to its last.
    fn assign(&mut self, values: usize) {
        let mut life: Vec<Option<(usize, usize)>> = vec![None; values];
        for (at, draft) in self.drafts.iter().enumerate() {
            for spot in draft.src.iter().chain([&draft.dst]) {
                if let Spot::Slot(value) = *spot {
                    life[value].get_or_insert((at, at)).1 = at;
                }
            }
        }
        // What a loop reads from before it must outlive the loop's last turn.
        for (first, last) in life.iter_mut().flatten() {
            for section in &self.sections {
                if *first < section.inner.start && section.inner.contains(last) {
                    *last = section.inner.end;
                }
            }
        }
        let mut held: Vec<Option<usize>> = Vec::new();
        self.slots = vec![0; values];
        for (at, draft) in self.drafts.iter().enumerate() {
            let Spot::Slot(value) = draft.dst else { continue };
            let Some((first, _)) = life[value] else { continue };
            if first != at {
                continue;
            }
            for slot in &mut held {
                if slot.is_some_and(|v| life[v].is_none_or(|(_, last)| last <= at)) {
                    *slot = None;
                }
            }
            let free = held.iter().position(Option::is_none).unwrap_or_else(|| {
                held.push(None);
                held.len() - 1
            });
            held[free] = Some(value);
            self.slots[value] = free;
        }
        self.slot_count = held.len();
    }

    /// Roughly how many cycles the code takes for a row or chunk of columns: `lanes` at a time, `positions` times.
    pub(super) fn cycles(&self, lanes: usize, positions: usize) -> f64 {
        let of = |range: &Range<usize>| -> f64 {
            self.drafts[range.clone()]
                .iter()
                .map(|draft| {
                    let each = match draft.code {
                        Code::Unary(_) | Code::Stream(_) => 1.0,
                        Code::Pow | Code::IntBinary(..) => 2.0,
                        Code::Slow(_) | Code::Random(_) => 20.0,
                        Code::Load(..) | Code::Store(..) => 1.0,
                        Code::Cast(Cast::Bits) => 0.1,
                        _ => 0.3,
                    };
                    20.0 + if draft.uniform { 0.0 } else { each * lanes as f64 }
                })
                .sum()
        };
        self.sections.iter().map(|s| of(&s.once) + of(&s.inner) * positions as f64).sum()
    }

    /// The code with its addresses, for chunks of at most `chunk` lanes.
    pub(super) fn place(&self, chunk: usize, cursors: usize, one: bool) -> Placed {
        let pitch = chunk * 4 + PAD;
        let mut top = 0;
        let mut take = |bytes: usize| {
            let at = top;
            top += bytes.next_multiple_of(64);
            at
        };
        take((CURSORS + cursors) * size_of::<*mut u8>());
        let accumulators = take(self.accumulators * size_of::<Accumulator>());
        let cells = take(self.cells * 64);
        let transit = take(chunk * 8);
        let slots = take(pitch * self.slot_count);
        let scratch_bytes = top;
        let at = |spot: Spot| -> At {
            let scratch = |step, offset: usize| At { base: SCRATCH, step, offset: offset as u32 };
            match spot {
                Spot::None => At::default(),
                Spot::Cursor(c) => At { base: (CURSORS + c) as u16, step: 1, offset: 0 },
                Spot::Constant(c) => At { base: CONSTANTS, step: 0, offset: (c * 64) as u32 },
                Spot::Spread(c) => {
                    let offset = self.constants.len() * 64 + c * pitch;
                    At { base: CONSTANTS, step: 1, offset: offset as u32 }
                }
                Spot::Cell(c) => scratch(0, cells + c * 64),
                Spot::Slot(v) => scratch(1, slots + self.slots[v] * pitch),
                Spot::Accumulator(a) => scratch(0, accumulators + a * size_of::<Accumulator>()),
            }
        };
        let place = |draft: &Draft| -> Op {
            let outside = |spot: &Spot| matches!(spot, Spot::Cursor(_) | Spot::Accumulator(_));
            let exact = draft.src.iter().chain([&draft.dst]).any(outside)
                || matches!(draft.code, Code::Reduce(..) | Code::ReduceDot(_) | Code::ReduceReal(_));
            let width = match draft.code {
                Code::Store(..) if one || draft.one => Width::One,
                _ if draft.uniform => Width::Uniform,
                _ if exact => Width::Lanes,
                _ => Width::Blocks,
            };
            Op { code: draft.code, dst: at(draft.dst), src: draft.src.map(at), width }
        };
        let mut constants: Vec<Block> = self.constants.iter().map(|&bits| Block([bits; W])).collect();
        for &bits in &self.spreads {
            constants.extend(std::iter::repeat_n(Block([bits; W]), pitch / 64));
        }
        Placed { ops: self.drafts.iter().map(place).collect(), constants, scratch_bytes, transit }
    }
}

/// A cache line of lanes.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Block(pub(super) [u32; W]);

/// Code with addresses.
pub(super) struct Placed {
    pub(super) ops: Vec<Op>,
    pub(super) constants: Vec<Block>,
    pub(super) scratch_bytes: usize,
    /// Offset of the elements in transit.
    pub(super) transit: usize,
}
