//! Turns groups into steps: determines the layout of each value, generates the fused code, allocates buffers.

use super::code::{Code, Value, one};
use super::dependence::Dependence;
use super::expand::Primitive;
use super::fold::{Ready, below_views};
use super::fuse::{Group, is_literal, widened};
use super::layout::{Layout, trailing_axes};
use super::{Buffer, Derived, Operand, Place, Plan, RowResult, Rowwise, Step, Work};
use crate::error::{Error, Result};
use crate::expr::{Expr, Fold, Kind, Words};
use crate::graph::{GraphData, Lowering, Node, NodeKind};
use crate::tensor::{DType, contiguous_strides, element_count};
use std::collections::HashMap;

/// Layouts in which a step can store its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    /// Row-major, in a buffer of its own.
    Contiguous,
    /// With any strides, in a buffer of its own.
    Permuted,
    /// With any strides, in a part of another value's buffer.
    Anywhere,
    /// With stride 1 along the last axis, in a part of another value's buffer.
    Rows,
}

/// The state of emission: nodes, their buffers and layouts, and the plan so far.
pub struct Emitter<'a> {
    pub(super) nodes: &'a [Primitive],
    pub(super) users: Vec<Vec<usize>>,
    pub(super) pinned: &'a [bool],
    /// Values available before the first step.
    pub(super) ready: Ready,
    /// Buffer and layout of every stored node and of views of stored nodes.
    places: HashMap<usize, (usize, Layout)>,
    /// Contiguous copies of values, keyed with whether they are made at init.
    pub(super) copies: HashMap<(usize, bool), usize>,
    /// Nodes whose results are stored in an existing buffer: a state's.
    pub(super) stored_in: HashMap<usize, usize>,
    /// Indices checked by a step for updates of states: the indices, their bound, the ignored index, and the checked copy.
    pub(super) looked_at: Vec<(Operand, usize, Option<i64>, Operand)>,
    /// Concatenations into which parts have been stored already, with their buffers and layouts.
    pub(super) wholes: HashMap<usize, (usize, Layout)>,
    pub(super) plan: Plan,
    /// Whether the step being emitted is an init step.
    pub(super) once: bool,
    pub(super) training: bool,
    /// The operations of the planned graph's nodes.
    written: Vec<Option<&'static str>>,
    /// Nodes of the planned graph that the step being emitted computes.
    pub(super) carries: Vec<usize>,
}

impl<'a> Emitter<'a> {
    pub fn new(
        nodes: &'a [Primitive],
        pinned: &'a [bool],
        training: bool,
        ready: Ready,
        planned: &GraphData,
    ) -> Self {
        let operation = |n: &Node| if let NodeKind::Op(op, _) = &n.kind { Some(op.name()) } else { None };
        Emitter {
            written: planned.nodes.iter().map(operation).collect(),
            nodes,
            users: super::fuse::users(nodes),
            pinned,
            ready,
            places: HashMap::new(),
            copies: HashMap::new(),
            stored_in: HashMap::new(),
            looked_at: vec![],
            wholes: HashMap::new(),
            plan: Plan::default(),
            once: false,
            training,
            carries: vec![],
        }
    }

    /// A new buffer.
    pub fn buffer(&mut self, dtype: DType, elements: usize, place: Place) -> usize {
        self.plan.buffers.push(Buffer { dtype, elements, place });
        self.plan.buffers.len() - 1
    }

    /// Scratch for the step being emitted; its offset is assigned when all steps are known.
    pub(super) fn scratch(&mut self, dtype: DType, elements: usize) -> usize {
        let place = if self.once { Place::Own } else { Place::Scratch };
        self.buffer(dtype, elements, place)
    }

    /// Sets the buffer of a node's value.
    pub fn set_place(&mut self, node: usize, buffer: usize) {
        let layout = Layout::contiguous(self.shape(node));
        self.places.insert(node, (buffer, layout));
    }

    /// Sets the layout of a value, a view of a stored one, that differs from the layout its view would have.
    pub(super) fn set_layout(&mut self, node: usize, buffer: usize, layout: Layout) {
        self.places.insert(node, (buffer, layout));
    }

    pub(super) fn shape(&self, node: usize) -> &'a [usize] {
        &self.nodes[node].node.ty.shape
    }

    pub(super) fn dtype(&self, node: usize) -> DType {
        self.nodes[node].node.ty.dtype
    }

    /// Buffer and layout of a value, following views to the stored value; copies if a view cannot be expressed by strides.
    pub(super) fn place(&mut self, node: usize) -> Result<(usize, Layout)> {
        if let Some(found) = self.places.get(&node) {
            return Ok(found.clone());
        }
        let nodes = self.nodes;
        let found = match &nodes[node].work {
            Some(Lowering::View(form)) => {
                let from = nodes[node].inputs[0];
                let (buffer, layout) = self.place(from)?;
                match layout.view(form, self.shape(from), self.shape(node)) {
                    Some(view) => (buffer, view),
                    None => {
                        let copy = self.copy_of(from)?;
                        let whole = Layout::contiguous(self.shape(from));
                        let view = whole.view(form, self.shape(from), self.shape(node));
                        (copy, view.ok_or_else(|| Error::internal("a contiguous value has no such view"))?)
                    }
                }
            }
            _ => match &nodes[node].node.kind {
                NodeKind::Constant(t) => {
                    let (ty, t) = (&nodes[node].node.ty, t.clone());
                    (self.buffer(ty.dtype, ty.elements(), Place::Constant(t)), Layout::contiguous(&ty.shape))
                }
                _ => return Err(Error::internal(format!("value {node} is used before it is stored"))),
            },
        };
        self.places.insert(node, found.clone());
        Ok(found)
    }

    /// Buffer and first element (a multiple of 4) of a value with contiguous elements, in a buffer that this step's results
    /// own; copied if necessary.
    pub(super) fn run_of(&mut self, node: usize) -> Result<(usize, usize)> {
        let (buffer, layout) = self.place(node)?;
        let there = self.is_result(buffer) && layout.is_contiguous(self.shape(node));
        match usize::try_from(layout.offset) {
            Ok(offset) if there && offset % 4 == 0 => return Ok((buffer, offset)),
            _ => {}
        }
        let whole = self.copy_of(node)?;
        if self.is_result(whole) || matches!(self.plan.buffers[whole].place, Place::Constant(_)) {
            return Ok((whole, 0));
        }
        // the value of an input, a parameter or a state, which may have changed when the result is read
        let own = self.scratch(self.dtype(node), element_count(self.shape(node)).unwrap_or(0));
        self.copy_to(node, own, 0, &contiguous_strides(self.shape(node)), "result")?;
        Ok((own, 0))
    }

    /// Whether a buffer is written by a step, and by the current step only.
    fn is_result(&self, buffer: usize) -> bool {
        let computed = matches!(self.plan.buffers[buffer].place, Place::Scratch | Place::Own);
        computed && self.plan.inputs.iter().all(|p| p.buffer != buffer)
    }

    pub(super) fn push(&mut self, work: Work, label: String) {
        self.push_as(work, label, false);
    }

    /// Appends a step; `moves`: it only copies elements, possibly with a conversion.
    pub(super) fn push_as(&mut self, work: Work, label: String, moves: bool) {
        if self.once {
            let derived = Derived::of(&work, moves, &self.plan.buffers);
            self.plan.derived.push(derived);
        }
        let steps = if self.once { &mut self.plan.init_steps } else { &mut self.plan.steps };
        steps.push(Step { work, label, nodes: self.carries.clone() });
    }

    /// The nodes of the planned graph from which primitives originate.
    pub(super) fn origins(&self, primitives: &[usize]) -> Vec<usize> {
        let mut all: Vec<usize> =
            primitives.iter().flat_map(|&p| self.nodes[p].from.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn label(&self, node: usize) -> String {
        let n = &self.nodes[node].node;
        match (&n.name, &n.kind) {
            (Some(name), _) => name.clone(),
            // errors about data name the operation of the user's graph: an embedding is a look-up
            (None, NodeKind::Op(op, _)) if self.looks_up(node) => {
                let written = self.nodes[node].from.first().and_then(|&n| self.written[n]);
                written.unwrap_or(op.name()).to_string()
            }
            (None, NodeKind::Op(op, _)) => op.name().to_string(),
            _ => format!("%{node}"),
        }
    }

    /// Whether a node uses indices that are data.
    fn looks_up(&self, node: usize) -> bool {
        use Lowering::{Gather, ScatterAdd, Take, TakeAdd, TakePut};
        let work = self.nodes[node].work.as_ref();
        work.is_some_and(|w| {
            matches!(w, Take { .. } | TakeAdd { .. } | TakePut { .. } | Gather { .. } | ScatterAdd { .. })
        })
    }

    /// Emits one group.
    pub fn group(&mut self, g: &Group) -> Result<()> {
        self.once = self.runs_once(g);
        let label = self.group_label(g);
        self.carries = self.origins(&g.members);
        match &self.nodes[g.anchor].work {
            Some(Lowering::Pointwise(_) | Lowering::Rowwise(_)) => self.rowwise(g, label),
            Some(_) => self.heavy(g, label),
            None => Ok(()),
        }
    }

    fn group_label(&self, g: &Group) -> String {
        if let Some(name) = &self.nodes[g.output].node.name {
            return name.clone();
        }
        let mut ops: Vec<String> = g.members.iter().map(|&m| self.label(m)).collect();
        ops.dedup();
        ops.join("+")
    }

    /// Allocates the buffer of a group's result and determines its layout. If the only user is a permutation, elements are laid
    /// out so that the permuted value is contiguous; if it is a concatenation, they are stored into its buffer.
    pub(super) fn result(&mut self, node: usize, how: Store) -> (usize, Layout) {
        let (shape, dtype) = (self.shape(node), self.dtype(node));
        if let Some(&buffer) = self.stored_in.get(&node) {
            self.set_place(node, buffer);
            return (buffer, Layout::contiguous(shape));
        }
        let inside = if matches!(how, Store::Anywhere | Store::Rows) { self.target(node) } else { None };
        let rows =
            |l: &Layout| how == Store::Anywhere || shape.last() == Some(&1) || l.strides.last() == Some(&1);
        if let Some(inside) = inside.filter(|(_, layout)| rows(layout)) {
            self.places.insert(node, inside.clone());
            return inside;
        }
        let place = if self.pinned[node] || self.once { Place::Own } else { Place::Scratch };
        let buffer = self.buffer(dtype, element_count(shape).unwrap_or(0), place);
        let permutes = matches!(how, Store::Anywhere | Store::Permuted);
        let permuted = if permutes { self.permuted(node) } else { None };
        let layout = permuted.unwrap_or_else(|| Layout::contiguous(shape));
        self.places.insert(node, (buffer, layout.clone()));
        (buffer, layout)
    }

    fn rowwise(&mut self, g: &Group, label: String) -> Result<()> {
        let (domain, reduced) = match &self.nodes[g.anchor].work {
            Some(Lowering::Rowwise(form)) => {
                let mut reduced = vec![false; form.domain.len()];
                form.axes.iter().for_each(|&a| reduced[a] = true);
                (form.domain.clone(), reduced)
            }
            _ => (self.shape(g.anchor).to_vec(), vec![false; self.shape(g.anchor).len()]),
        };
        let mut code = Code::new(domain.clone(), 0);
        self.write_code(g, &mut code, &reduced)?;
        let extra_outputs = g.extras.iter().map(|&x| self.row_result(x, &code, &reduced));
        let mut extra_outputs: Vec<RowResult> = extra_outputs.collect::<Result<_>>()?;
        let (buffer, layout) = self.result(g.output, Store::Anywhere);
        let shape = self.shape(g.output);
        let axes = if g.per_row {
            row_axes(shape.len(), &reduced)
        } else {
            trailing_axes(shape.len(), domain.len())
        };
        let strides = layout.over(shape, &axes, domain.len());
        let mut out = Operand { buffer, dtype: self.dtype(g.output), offset: layout.offset, strides };
        if !g.per_row {
            code.declare_result(g.output);
        }
        let Code { tape, operands, reductions, values, declared, .. } = code;
        let result = match values[&g.output].words {
            Words::One(result) => result,
            Words::Two(low, high) => {
                let [first, second] = out.words();
                out = first;
                extra_outputs.push(RowResult { result: high, out: second });
                low
            }
        };
        let per_row = g.per_row;
        let work = Rowwise {
            domain,
            reduced,
            operands,
            tape,
            reductions,
            result,
            per_row,
            out,
            extra_outputs,
            declared,
        };
        self.push_as(Work::Rowwise(work), label, self.only_moves(g));
        Ok(())
    }

    /// Whether a group's members only convert the dtype of a value.
    fn only_moves(&self, g: &Group) -> bool {
        fn moves(e: &Expr) -> bool {
            match e {
                Expr::Input(_) => true,
                Expr::Cast(_, of) => moves(of),
                _ => false,
            }
        }
        let work = |m: &usize| self.nodes[*m].work.as_ref();
        g.extras.is_empty()
            && g.members.iter().all(|m| matches!(work(m), Some(Lowering::Pointwise(e)) if moves(e)))
    }

    /// A result per row (or, without reductions, per element) that is stored in addition to the step's own.
    fn row_result(&mut self, node: usize, code: &Code, reduced: &[bool]) -> Result<RowResult> {
        let how = if reduced.contains(&true) { Store::Contiguous } else { Store::Anywhere };
        let (buffer, layout) = self.result(node, how);
        let shape = self.shape(node);
        let strides = layout.over(shape, &row_axes(shape.len(), reduced), code.domain.len());
        let out = Operand { buffer, dtype: self.dtype(node), offset: layout.offset, strides };
        Ok(RowResult { result: one(code.values[&node].words)?, out })
    }

    /// Generates the code of a group's members (except the anchor's own product, if it has one).
    pub(super) fn write_code(&mut self, g: &Group, code: &mut Code, reduced: &[bool]) -> Result<()> {
        let nodes = self.nodes;
        for &m in &g.members {
            let node = &nodes[m];
            let shape = &node.node.ty.shape;
            // work without inputs is repeated for elements only: see `fuse`
            let inner = matches!(node.work, Some(Lowering::Pointwise(_))) && !node.inputs.is_empty();
            let on_row = inner && reduced.contains(&true) && *shape != code.domain;
            let axes = if on_row && shape.len() <= code.domain.len() {
                row_axes(shape.len(), reduced)
            } else {
                trailing_axes(shape.len(), code.domain.len())
            };
            let value = match &node.work {
                Some(Lowering::Pointwise(e)) => {
                    let inputs = self.values(&node.inputs, g, code, &axes)?;
                    code.add(e, &inputs, &[], shape, &axes)?
                }
                Some(Lowering::Rowwise(form)) => {
                    let all = trailing_axes(form.domain.len(), form.domain.len());
                    let inputs = self.values(&node.inputs, g, code, &all)?;
                    let first = code.reductions.len();
                    let mut kinds = Vec::new();
                    for r in &form.reductions {
                        let value = code.add(&r.of, &inputs, &kinds, &form.domain, &all)?;
                        let reg = one(value.words)?;
                        let arg = matches!(r.fold, Fold::ArgMax | Fold::ArgMin);
                        kinds.push((first + kinds.len(), if arg { Kind::I } else { code.tape.kind(reg) }));
                        code.reductions.push((r.fold, reg));
                        code.summed.push(value.dependence);
                    }
                    code.add(&form.output, &inputs, &kinds, &form.domain, &all)?
                }
                _ => {
                    let product = code.product.map(|reg| Value::plain(Words::One(reg)));
                    product.ok_or_else(|| Error::internal("work that has no code in a group"))?
                }
            };
            let value = code.convert(node.node.ty.dtype, value);
            code.values.insert(m, value);
        }
        Ok(())
    }

    /// A member's inputs: computed in the group, literal, or loaded.
    fn values(&mut self, inputs: &[usize], g: &Group, code: &mut Code, axes: &[usize]) -> Result<Vec<Value>> {
        inputs.iter().map(|&input| self.value(input, g, code, axes)).collect()
    }

    fn value(&mut self, input: usize, g: &Group, code: &mut Code, axes: &[usize]) -> Result<Value> {
        if g.members.contains(&input)
            && let Some(value) = code.values.get(&input)
        {
            return Ok(value.clone());
        }
        if let Some(v) = self.literal(input) {
            let words = Words::One(code.tape.literal(v, Kind::of(self.dtype(input))));
            return Ok(Value { words, dependence: Dependence::Literal });
        }
        // widening conversions have no step of their own: see `fuse`
        let stored = self.places.contains_key(&input);
        let input = widened(self.nodes, input).filter(|_| !stored).unwrap_or(input);
        let (buffer, layout) = self.place(input)?;
        let (shape, dtype) = (self.shape(input), self.dtype(input));
        // inputs that broadcast to the member's shape, aligned at its last axes
        let own = &axes[axes.len() - shape.len()..];
        let strides = layout.over(shape, own, code.domain.len());
        let operand = Operand { buffer, dtype, offset: layout.offset, strides };
        if dtype == DType::I64 {
            let [low, high] = operand.words();
            let [low, high] = [low, high].map(|word| code.load(word, None).words);
            return Ok(Value::plain(Words::Two(one(low)?, one(high)?)));
        }
        let matrix = self.matrix_below(input, buffer);
        Ok(code.load(operand, matrix))
    }

    /// Columns and elements of the stored matrix that fills `buffer`, if `node` is a view of part of its rows.
    fn matrix_below(&self, node: usize, buffer: usize) -> Option<[usize; 2]> {
        if !matches!(self.nodes[node].work, Some(Lowering::View(_))) {
            return None;
        }
        let below = below_views(self.nodes, node);
        let (shape, elements) = (self.shape(below), self.plan.buffers[buffer].elements);
        let &all = shape.last()?;
        let lies = self
            .places
            .get(&below)
            .is_some_and(|(at, layout)| *at == buffer && layout.offset == 0 && layout.is_contiguous(shape));
        let part = self.shape(node).last().is_some_and(|n| *n < all);
        (part && lies && element_count(shape) == Some(elements)).then_some([all, elements])
    }

    /// The value of a one-element constant, looking through views.
    fn literal(&self, mut node: usize) -> Option<f64> {
        while matches!(self.nodes[node].work, Some(Lowering::View(_))) || widened(self.nodes, node).is_some()
        {
            node = self.nodes[node].inputs[0];
        }
        match &self.nodes[node].node.kind {
            NodeKind::Constant(t) if is_literal(&self.nodes[node]) => t.to_f64().first().copied(),
            _ => None,
        }
    }
}

/// Domain axes of a per-row result: the axes that are not reduced; reduced axes are dropped or of size 1.
fn row_axes(rank: usize, reduced: &[bool]) -> Vec<usize> {
    if rank == reduced.len() {
        return (0..rank).collect();
    }
    let kept: Vec<usize> = (0..reduced.len()).filter(|&a| !reduced[a]).collect();
    kept[kept.len().saturating_sub(rank)..].to_vec()
}
