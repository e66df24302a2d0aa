//! Steps of the archetypes with kernels of their own: products, convolutions, attention, look-ups, and the rest.

use super::code::{Code, one};
use super::emit::{Emitter, Store};
use super::fold::below_views;
use super::fuse::Group;
use super::layout::{Layout, trailing_axes};
use super::refusal::CHECKED_AS;
use super::{
    Attention, AttentionGrad, AttentionInputs, Convolution, Declared, Dequantise, Epilogue, IndexKind,
    IndexWork, Operand, Pages, Place, Pool, Product, Rowwise, Scan, Work,
};
use crate::error::{Error, Result};
use crate::expr::{Kind, Tape};
use crate::graph::{AttentionForm, ConvolutionForm, Lowering, NodeKind, PagedForm};
use crate::tensor::{DType, contiguous_strides, element_count};

impl Emitter<'_> {
    pub(super) fn heavy(&mut self, g: &Group, label: String) -> Result<()> {
        let nodes = self.nodes;
        let (i, inputs) = (g.anchor, nodes[g.anchor].inputs.as_slice());
        let work = match nodes[i].work.clone() {
            Some(Lowering::Contraction { transpose_a, transpose_b }) => {
                self.product(g, transpose_a, transpose_b)?
            }
            Some(Lowering::Convolution(form)) => self.convolution(g, form)?,
            Some(Lowering::Attention(form)) => self.attention(i, form)?,
            Some(Lowering::AttentionGrad(form)) => self.attention_grad(i, form)?,
            Some(Lowering::Take { axis }) => self.lookup(i, IndexKind::Take, axis)?,
            Some(Lowering::TakeAdd { axis }) => self.lookup(i, IndexKind::TakeAdd, axis)?,
            Some(Lowering::TakePut { axis, ignored }) => self.put(i, axis, ignored, &label)?,
            Some(Lowering::PagedAttention(form)) => self.paged_attention(i, form)?,
            Some(Lowering::Gather { axis }) => self.lookup(i, IndexKind::Gather, axis)?,
            Some(Lowering::ScatterAdd { axis }) => self.lookup(i, IndexKind::ScatterAdd, axis)?,
            Some(Lowering::CheckLabels { classes, ignored }) => self.check(i, classes, ignored)?,
            Some(Lowering::Scan { axis }) => {
                let shape = self.shape(i);
                let product = |s: &[usize]| s.iter().product::<usize>();
                let (outer, n, inner) = (product(&shape[..axis]), shape[axis], product(&shape[axis + 1..]));
                let input = self.contiguous(inputs[0])?;
                Work::Scan(Scan { input, out: self.whole_result(i), outer, n, inner })
            }
            Some(Lowering::MaxPool(form)) => self.pool(i, form, false)?,
            Some(Lowering::MaxPoolGrad(form)) => self.pool(i, form, true)?,
            Some(Lowering::Dequantise) => {
                let input = self.contiguous(inputs[0])?;
                Work::Dequantise(Dequantise { from: input, to: self.whole_result(i) })
            }
            Some(Lowering::Place { at, fill }) => return self.place_parts(i, &at, fill),
            _ => return Err(Error::internal(format!("{label}: no step for this work"))),
        };
        let moves = matches!(nodes[i].work, Some(Lowering::Dequantise));
        self.push_as(work, label, moves);
        Ok(())
    }

    /// A value as a contiguous operand (copied if necessary).
    fn contiguous(&mut self, node: usize) -> Result<Operand> {
        let shape = self.shape(node);
        let (buffer, layout) = self.place(node)?;
        if layout.is_contiguous(shape) {
            let strides = contiguous_strides(shape);
            return Ok(Operand { buffer, dtype: self.dtype(node), offset: layout.offset, strides });
        }
        let buffer = self.copy_of(node)?;
        Ok(Operand { buffer, dtype: self.dtype(node), offset: 0, strides: contiguous_strides(shape) })
    }

    /// A value over its own axes, in its current layout.
    fn strided(&mut self, node: usize) -> Result<Operand> {
        let (buffer, layout) = self.place(node)?;
        let shape = self.shape(node);
        let strides = layout.over(shape, &trailing_axes(shape.len(), shape.len()), shape.len());
        Ok(Operand { buffer, dtype: self.dtype(node), offset: layout.offset, strides })
    }

    /// A value with stride 1 along its last axis.
    fn unit_last(&mut self, node: usize) -> Result<Operand> {
        let operand = self.strided(node)?;
        let size = self.shape(node).last().copied().unwrap_or(1);
        if size == 1 || operand.strides.last() == Some(&1) { Ok(operand) } else { self.contiguous(node) }
    }

    fn whole_result(&mut self, node: usize) -> Operand {
        let (buffer, _) = self.result(node, Store::Contiguous);
        let strides = contiguous_strides(self.shape(node));
        Operand { buffer, dtype: self.dtype(node), offset: 0, strides }
    }

    /// The pointwise work after a product; `None` if the group is the product alone.
    fn epilogue(&mut self, g: &Group, domain: Vec<usize>) -> Result<Option<Epilogue>> {
        if g.members.len() == 1 {
            return Ok(None);
        }
        let mut code = Code::new(domain.clone(), 1);
        self.write_code(g, &mut code, &vec![false; domain.len()])?;
        let result = one(code.values[&g.output].words)?;
        Ok(Some(Epilogue { domain, operands: code.operands, tape: code.tape, result }))
    }

    fn product(&mut self, g: &Group, transpose_a: bool, transpose_b: bool) -> Result<Work> {
        let nodes = self.nodes;
        let (an, bn) = (nodes[g.anchor].inputs[0], nodes[g.anchor].inputs[1]);
        let epilogue = self.epilogue(g, self.shape(g.anchor).to_vec())?;
        let (mut a, mut b) = (self.strided(an)?, self.strided(bn)?);
        let shape = self.shape(g.anchor);
        let rank = shape.len();
        let (m, n) = (shape[rank - 2], shape[rank - 1]);
        let k = self.shape(an)[self.shape(an).len() - if transpose_a { 2 } else { 1 }];
        let spread = |operand: &mut Operand, own: &[usize], transpose: bool| {
            let mut strides = vec![0isize; rank];
            for (i, &s) in operand.strides.iter().enumerate() {
                strides[rank - own.len() + i] = s;
            }
            if transpose {
                strides.swap(rank - 2, rank - 1);
            }
            operand.strides = strides;
        };
        spread(&mut a, self.shape(an), transpose_a);
        spread(&mut b, self.shape(bn), transpose_b);
        let unbatched = b.strides[..rank - 2].iter().all(|&s| s == 0);
        // a copy made in each step is not a weight, even if it is a copy of one
        let stays = !matches!(self.plan.buffers[b.buffer].place, Place::Scratch);
        let weight = unbatched && stays && self.is_weight(bn);
        if !weight && b.dtype != DType::F32 && self.of_weights(bn) {
            // computed from weights in each step (concatenated, in plans that do not fold): widened in each step, too
            b = self.widened(bn)?;
            spread(&mut b, self.shape(bn), transpose_b);
        } else if !weight && b.dtype != DType::F32 {
            return Err(Error::Op {
                op: "matmul".into(),
                node: self.label(g.anchor),
                wanted: "f16 and bf16 second operands that are weights (cast others to f32)".into(),
                came: format!("{}", nodes[bn].node.ty),
            });
        }
        let (buffer, layout) = self.result(g.output, Store::Rows);
        let out = Operand { buffer, dtype: DType::F32, offset: layout.offset, strides: layout.strides };
        let mut work =
            Product { batch: shape[..rank - 2].to_vec(), m, n, k, a, b, b_is_weight: weight, out, epilogue };
        fold_batch(&mut work);
        Ok(Work::Product(work))
    }

    /// Whether a value, looking through views, is a parameter that steps do not change, or is available before the first step.
    fn is_weight(&self, node: usize) -> bool {
        match self.nodes[below_views(self.nodes, node)].node.kind {
            NodeKind::Parameter { trainable } => !(self.training && trainable),
            _ => self.is_ready(node),
        }
    }

    /// Whether a value depends on parameters and constants alone.
    fn of_weights(&self, node: usize) -> bool {
        super::fold::known(self.nodes, true)[below_views(self.nodes, node)]
    }

    /// A value copied as f32.
    fn widened(&mut self, node: usize) -> Result<Operand> {
        let strides = contiguous_strides(self.shape(node));
        let buffer = self.scratch(DType::F32, element_count(self.shape(node)).unwrap_or(0));
        let copy = self.copy(node, buffer, 0, &strides)?.converting(DType::F32);
        self.push_copy(copy, "widen", node);
        Ok(Operand { buffer, dtype: DType::F32, offset: 0, strides })
    }

    fn convolution(&mut self, g: &Group, form: ConvolutionForm) -> Result<Work> {
        let nodes = self.nodes;
        let (xn, wn) = (nodes[g.anchor].inputs[0], nodes[g.anchor].inputs[1]);
        let four = |s: &[usize]| [s[0], s[1], s[2], s[3]];
        let (input_shape, weight_shape) = (four(self.shape(xn)), four(self.shape(wn)));
        let out_shape = four(self.shape(g.anchor));
        let mut epilogue = self.epilogue(g, out_shape.to_vec())?;
        if let Some(e) = &mut epilogue {
            self.merge_columns(e)?;
        }
        let (input, weight) = (self.strided(xn)?, self.strided(wn)?);
        let out = self.whole_result(g.output);
        Ok(Work::Convolution(Convolution {
            form,
            input,
            input_shape,
            weight,
            weight_shape,
            out,
            out_shape,
            epilogue,
        }))
    }

    /// Merges height and width of a convolution's epilogue into one axis; operands whose strides do not allow it are copied
    /// first.
    fn merge_columns(&mut self, e: &mut Epilogue) -> Result<()> {
        let width = e.domain[3];
        for operand in &mut e.operands {
            let merges =
                |s: &[isize]| s[2] == s[3] * width as isize || (width == 1) || (s[2] == 0 && s[3] == 0);
            if !merges(&operand.strides) {
                let buffer = self.scratch(operand.dtype, element_count(&e.domain).unwrap_or(0));
                let strides = contiguous_strides(&e.domain);
                let to = Operand { buffer, dtype: operand.dtype, offset: 0, strides };
                let mut tape = Tape::default();
                let result = tape.push(crate::expr::Instr::Load(0), Kind::of(operand.dtype));
                let copy = Rowwise {
                    domain: e.domain.clone(),
                    reduced: vec![false; e.domain.len()],
                    operands: vec![operand.clone()],
                    tape,
                    reductions: vec![],
                    result,
                    per_row: false,
                    out: to.clone(),
                    extra_outputs: vec![],
                    declared: Declared::default(),
                };
                self.push_as(Work::Rowwise(copy), "copy".into(), true);
                *operand = to;
            }
            let s = &mut operand.strides;
            let merged = if width == 1 { s[2] } else { s[3] };
            s.truncate(2);
            s.push(merged);
        }
        let columns = e.domain[2] * width;
        e.domain.truncate(2);
        e.domain.push(columns);
        Ok(())
    }

    fn attention(&mut self, i: usize, form: AttentionForm) -> Result<Work> {
        let inputs = self.attention_inputs(i, form, 3)?;
        let out = self.attention_out(i, inputs.d_v);
        Ok(Work::Attention(Attention { inputs, out }))
    }

    /// The operand for attention's result: rows of d_v elements.
    fn attention_out(&mut self, i: usize, d_v: usize) -> Operand {
        let (buffer, mut layout) = self.result(i, Store::Permuted);
        if layout.strides[3] != 1 && d_v != 1 {
            layout = Layout::contiguous(self.shape(i));
            self.set_place(i, buffer);
        }
        Operand { buffer, dtype: DType::F32, offset: layout.offset, strides: layout.strides }
    }

    fn attention_grad(&mut self, i: usize, form: AttentionForm) -> Result<Work> {
        let inputs = self.attention_inputs(i, form, 4)?;
        let up = self.unit_last(self.nodes[i].inputs[3])?;
        let shapes = [0, 1, 2].map(|n| self.shape(self.nodes[i].inputs[n]));
        let outs = self.parts(i, shapes);
        Ok(Work::AttentionGrad(AttentionGrad { inputs, up, outs }))
    }

    /// q, k and v, the first inputs of a node, and the mask, if input number `mask` exists.
    fn attention_inputs(&mut self, i: usize, form: AttentionForm, mask: usize) -> Result<AttentionInputs> {
        let inputs = self.nodes[i].inputs.clone();
        let (qs, ks, vs) = (self.shape(inputs[0]), self.shape(inputs[1]), self.shape(inputs[2]));
        let (b, h, l, d) = (qs[0], qs[1], qs[2], qs[3]);
        let (h_kv, s, d_v) = (ks[1], ks[2], vs[3]);
        let q = self.unit_last(inputs[0])?;
        let k = self.unit_last(inputs[1])?;
        let v = self.unit_last(inputs[2])?;
        let mask = match inputs.get(mask) {
            Some(&m) => {
                let (buffer, layout) = self.place(m)?;
                let shape = self.shape(m);
                let strides = layout.over(shape, &trailing_axes(shape.len(), 4), 4);
                Some(Operand { buffer, dtype: self.dtype(m), offset: layout.offset, strides })
            }
            None => None,
        };
        Ok(AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages: None })
    }

    fn paged_attention(&mut self, i: usize, form: PagedForm) -> Result<Work> {
        let inputs = self.nodes[i].inputs.clone();
        let (qs, ks, vs) = (self.shape(inputs[0]), self.shape(inputs[1]), self.shape(inputs[2]));
        let (b, h, l, d) = (qs[0], qs[1], qs[2], qs[3]);
        let (rows, h_kv, d_v) = (ks[0], ks[1], vs[2]);
        let s = self.shape(inputs[3])[1] * form.block;
        let q = self.unit_last(inputs[0])?;
        let [k, v] = [inputs[1], inputs[2]].map(|node| {
            self.unit_last(node)
                .map(|o| Operand { strides: vec![0, o.strides[1], o.strides[0], o.strides[2]], ..o })
        });
        let pages = Pages {
            rows,
            block: form.block,
            table: self.contiguous(inputs[3])?,
            lengths: self.contiguous(inputs[4])?,
        };
        let form = AttentionForm { scale: form.scale, causal: false, window: form.window, masked: false };
        let (k, v) = (k?, v?);
        let inputs =
            AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask: None, pages: Some(pages) };
        let out = self.attention_out(i, inputs.d_v);
        Ok(Work::Attention(Attention { inputs, out }))
    }

    /// Replaces slices of a table; an ignored index writes nothing.
    fn put(&mut self, i: usize, axis: usize, ignored: Option<i64>, label: &str) -> Result<Work> {
        let [table, which] = [0, 1].map(|n| self.nodes[i].inputs[n]);
        let mut indices = self.contiguous(which)?;
        let mut ignores = ignored;
        // a state changed in place: all indices must have been checked before
        if self.stored_in.contains_key(&i) && !self.plan.known()[indices.buffer] {
            indices = self.looked_at(which, indices, self.shape(table)[axis], ignored, label);
            ignores = ignored.map(|_| CHECKED_AS);
        }
        self.lookup_by(i, IndexKind::TakePut, axis, (indices, ignores))
    }

    fn lookup(&mut self, i: usize, kind: IndexKind, axis: usize) -> Result<Work> {
        let indices = self.contiguous(self.nodes[i].inputs[1])?;
        self.lookup_by(i, kind, axis, (indices, None))
    }

    /// A look-up by contiguous indices, one value of which may be ignored.
    fn lookup_by(
        &mut self,
        i: usize,
        kind: IndexKind,
        axis: usize,
        (indices, ignored): (Operand, Option<i64>),
    ) -> Result<Work> {
        let inputs = self.nodes[i].inputs.clone();
        let table = self.contiguous(inputs[0])?;
        let updates = inputs.get(2).map(|&u| self.contiguous(u)).transpose()?;
        let (table_shape, indices_shape) = (self.shape(inputs[0]).to_vec(), self.shape(inputs[1]).to_vec());
        let out = if inputs.len() > 2 && self.may_change(i, &table) {
            if self.pinned[i] {
                self.plan.buffers[table.buffer].place = Place::Own;
            }
            self.set_place(i, table.buffer);
            table.clone()
        } else {
            self.whole_result(i)
        };
        Ok(Work::Index(IndexWork {
            kind,
            table,
            indices,
            updates,
            out,
            table_shape,
            indices_shape,
            axis,
            ignored,
        }))
    }

    /// A node's indices after a check against a bound; equal checks are shared by all uses.
    fn looked_at(
        &mut self,
        node: usize,
        indices: Operand,
        limit: usize,
        ignored: Option<i64>,
        label: &str,
    ) -> Operand {
        let same =
            |of: &(Operand, usize, Option<i64>, Operand)| (&of.0, of.1, of.2) == (&indices, limit, ignored);
        if let Some((.., out)) = self.looked_at.iter().find(|of| same(of)) {
            return out.clone();
        }
        let shape = self.shape(node).to_vec();
        let buffer = self.scratch(DType::I32, element_count(&shape).unwrap_or(0));
        let out = Operand { buffer, dtype: DType::I32, offset: 0, strides: indices.strides.clone() };
        self.looked_at.push((indices.clone(), limit, ignored, out.clone()));
        self.push(Work::Index(checked(indices, out.clone(), limit, shape, ignored)), label.into());
        out
    }

    fn check(&mut self, i: usize, classes: usize, ignored: Option<i64>) -> Result<Work> {
        let labels = self.nodes[i].inputs[0];
        let indices = self.contiguous(labels)?;
        let out = self.whole_result(i);
        Ok(Work::Index(checked(indices, out, classes, self.shape(labels).to_vec(), ignored)))
    }

    /// Whether a look-up that updates a table may do it in place: a step has computed the table, for this use alone.
    fn may_change(&self, i: usize, table: &Operand) -> bool {
        let inputs = &self.nodes[i].inputs;
        let t = inputs[0];
        let computed = !matches!(self.nodes[t].work, None | Some(Lowering::View(_)));
        let whole = self.plan.buffers[table.buffer].elements == element_count(self.shape(t)).unwrap_or(0);
        computed
            && whole
            && table.offset == 0
            && matches!(self.plan.buffers[table.buffer].place, Place::Scratch)
            && self.users[t] == [i]
            && !inputs[1..].contains(&t)
            && !self.pinned[t]
            && !self.stored_in.contains_key(&i)
    }

    fn pool(&mut self, i: usize, form: crate::graph::PoolForm, gradient: bool) -> Result<Work> {
        let inputs = self.nodes[i].inputs.clone();
        let x = self.contiguous(inputs[0])?;
        let up = if gradient { Some(self.contiguous(inputs[1])?) } else { None };
        let s = self.shape(inputs[0]);
        let o = if gradient { self.shape(inputs[1]) } else { self.shape(i) };
        let (planes, input, output) = (s[0] * s[1], [s[2], s[3]], [o[2], o[3]]);
        let out = self.whole_result(i);
        Ok(Work::Pool(Pool { form, planes, input, output, x, up, out }))
    }

    /// A separate buffer with a value's contiguous elements, for a graph's output.
    pub(super) fn own_copy(&mut self, node: usize) -> Result<usize> {
        self.once = false;
        let buffer = self.buffer(self.dtype(node), element_count(self.shape(node)).unwrap_or(0), Place::Own);
        self.copy_to(node, buffer, 0, &contiguous_strides(self.shape(node)), "output")?;
        Ok(buffer)
    }
}

/// Converts a product whose B is the same for all batches into one product with more rows, if the rows of all batches are
/// evenly spaced.
fn fold_batch(p: &mut Product) {
    while let Some(&last) = p.batch.last() {
        let axis = p.batch.len() - 1;
        let rows = axis + 1;
        let even = |o: &Operand| last == 1 || p.m == 1 || o.strides[axis] == o.strides[rows] * p.m as isize;
        if p.b.strides[axis] != 0 && last != 1 || !even(&p.a) || !even(&p.out) {
            return;
        }
        for o in [&mut p.a, &mut p.out] {
            if p.m == 1 && last != 1 {
                o.strides[rows] = o.strides[axis];
            }
            o.strides.remove(axis);
        }
        p.b.strides.remove(axis);
        p.m *= last;
        p.batch.pop();
    }
}

/// A check of all indices against a bound; its result is the indices as i32.
fn checked(
    indices: Operand,
    out: Operand,
    limit: usize,
    shape: Vec<usize>,
    ignored: Option<i64>,
) -> IndexWork {
    IndexWork {
        kind: IndexKind::Check,
        table: indices.clone(),
        indices,
        updates: None,
        out,
        table_shape: vec![limit],
        indices_shape: shape,
        axis: 0,
        ignored,
    }
}
