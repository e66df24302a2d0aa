//! The forms of work with shapes of their own: what their kernels take for granted.

use super::reach::{MOST, bounded, count};
use super::{Checked, Checker, refuse, too_large};
use crate::plan::step::FEW_COLUMNS;
use crate::plan::{
    Attention, AttentionGrad, AttentionInputs, Convolution, IndexKind, IndexWork, Kept, Operand, Pages, Pool,
    Product, Scan,
};
use crate::tensor::DType;

/// Most products of a batch: each takes memory of its own.
const MOST_BATCHES: usize = 1 << 24;
/// Most elements of a plane as windows see it, padding counted in.
const MOST_PLANE: u128 = 1 << 34;
/// What positions along an axis stay below: kernels count them in 31 bits.
const MOST_POSITION: u128 = 1 << 31;

/// Neighbours along the last axis are neighbours in memory.
fn adjacent(o: &Operand, size: usize) -> Checked<()> {
    match o.strides.last() {
        Some(1) => Ok(()),
        _ if size == 1 => Ok(()),
        _ => refuse("stride 1 along the last axis", format!("{:?}", o.strides)),
    }
}

fn all_f32(operands: &[&Operand]) -> Checked<()> {
    match operands.iter().find(|o| o.dtype != DType::F32) {
        Some(o) => refuse("f32", o.dtype),
        None => Ok(()),
    }
}

impl Checker<'_> {
    pub(super) fn product(&self, w: &Product) -> Checked<()> {
        let Product {
            batch,
            m,
            n,
            k,
            a,
            b,
            b_is_weight,
            out,
            epilogue,
            prologue,
            halves,
            beside: _,
            extra_outputs,
        } = w;
        let (m, n, k) = (*m, *n, *k);
        let batches = count(batch)?;
        if batches > MOST_BATCHES {
            return too_large(format!("at most {MOST_BATCHES} products"), batches);
        }
        let over = |outer: usize, inner: usize| [batch.as_slice(), &[outer, inner]].concat();
        bounded(&[batches, m, n, k, 16])?;
        bounded(&[batches, n, k, 32])?;
        all_f32(&[a, out])?;
        let packs = *b_is_weight && matches!(b.dtype, DType::F16 | DType::BF16);
        if b.dtype != DType::F32 && !packs {
            return refuse("f32, or f16 or bf16 of a weight", b.dtype);
        }
        self.reads(a, &over(m, k))?;
        let columns = if *halves { count(&[2, n])? } else { n };
        self.reads(b, &over(k, columns))?;
        self.writes(out, &over(m, n))?;
        adjacent(out, n)?;
        self.apart(out, [a, b])?;
        if *b_is_weight && batch.iter().zip(&b.strides).any(|(n, s)| *n > 1 && *s != 0) {
            return refuse("a weight that all products share", format!("strides {:?}", b.strides));
        }
        if (prologue.is_some() || *halves) && n <= FEW_COLUMNS {
            return refuse(format!("more than {FEW_COLUMNS} columns of norms and halves"), n);
        }
        if let Some(p) = prologue {
            self.prologue(p, a, out, k)?;
        }
        if *halves && epilogue.is_none() {
            return refuse("an epilogue that joins the halves", "none");
        }
        let given = prologue.iter().flat_map(|p| &p.operands);
        let reads: Vec<&Operand> = [a, b].into_iter().chain(given).collect();
        self.epilogue(
            epilogue,
            extra_outputs,
            (&reads, out),
            [count(&[batches, m])?, n, 1 + usize::from(*halves)],
        )
    }

    pub(super) fn convolution(&self, w: &Convolution) -> Checked<()> {
        let Convolution { form, input, input_shape, weight, weight_shape, out, out_shape, epilogue } = w;
        let (&[n, c, h, wd], &[o, cg, kh, kw], &[on, oo, oh, ow]) = (input_shape, weight_shape, out_shape);
        all_f32(&[input, weight, out])?;
        self.reads(input, input_shape)?;
        self.reads(weight, weight_shape)?;
        let elements = count(out_shape)?;
        self.writes_run_as(out, DType::F32, elements)?;
        self.apart(out, [input, weight])?;
        let groups = form.groups;
        let agrees = n == on && o == oo && groups > 0 && o.is_multiple_of(groups);
        if !agrees || cg.checked_mul(groups) != Some(c) {
            let came = format!("{input_shape:?}, {weight_shape:?}, {out_shape:?} in {groups} groups");
            return refuse("shapes of a convolution", came);
        }
        let mut plane = 1u128;
        for (axis, size, kernel, out) in [(0, h, kh, oh), (1, wd, kw, ow)] {
            let (stride, dilation, spread) =
                (form.stride[axis], form.dilation[axis], form.input_dilation[axis]);
            let pad = form.pad_before[axis].unsigned_abs();
            if [stride, dilation, spread].contains(&0)
                || [stride, dilation, spread, pad].iter().any(|v| *v > MOST)
            {
                return too_large("steps of 1 and more", format!("{form:?}"));
            }
            let of = |n: usize, step: usize| n as u128 * step as u128;
            // outputs are computed by whole vectors: windows are read that far past the last
            let seen = of(out - 1, stride) + of(kernel - 1, dilation) + 1 + of(axis * 16, stride);
            if seen + pad as u128 + of(size - 1, spread) >= MOST_POSITION {
                return too_large("positions of 31 bits", format!("{form:?} over {size}, {out} results"));
            }
            plane *= seen;
        }
        if plane > MOST_PLANE {
            return too_large(format!("planes of at most {MOST_PLANE} elements with their padding"), plane);
        }
        bounded(&[elements, cg, kh, kw, 16])?;
        bounded(&[o, cg, kh, kw, 16])?;
        self.epilogue(epilogue, &[], (&[input, weight], out), [count(&[n, o])?, count(&[oh, ow])?, 1])
    }

    fn attention_inputs(&self, w: &AttentionInputs) -> Checked<()> {
        let AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages } = w;
        let &[b, h, h_kv, l, s, d, d_v] = &[*b, *h, *h_kv, *l, *s, *d, *d_v];
        all_f32(&[q])?;
        all_f32(&mask.iter().collect::<Vec<_>>())?;
        match pages {
            None => all_f32(&[k, v])?,
            Some(pages) => self.pages(w, pages)?,
        }
        self.reads(q, &[b, h, l, d])?;
        let (rows, sequences) = w.stored();
        self.reads(k, &[sequences, h_kv, rows, d])?;
        self.reads(v, &[sequences, h_kv, rows, d_v])?;
        mask.iter().try_for_each(|m| self.reads(m, &[b, h, l, s]))?;
        [(q, d), (k, d), (v, d_v)].iter().try_for_each(|(o, n)| adjacent(o, *n))?;
        if !h.is_multiple_of(h_kv) {
            return refuse(format!("heads that {h_kv} key heads divide"), h);
        }
        if form.masked != mask.is_some() || !form.scale.is_finite() {
            return refuse("a finite scale, and a mask where the form has one", format!("{form:?}"));
        }
        if [l, s, form.window].iter().any(|n| *n as u128 >= MOST_POSITION) {
            return too_large("positions of 31 bits", format!("{l} queries, {s} keys, {form:?}"));
        }
        bounded(&[b, h, l, s, d.max(d_v), 16])?;
        bounded(&[b, h, l.max(s), d.max(d_v), 64])
    }

    /// Keys and values in blocks of a cache.
    fn pages(&self, w: &AttentionInputs, pages: &Pages) -> Checked<()> {
        let Pages { rows, block, table, lengths } = pages;
        let stored = matches!(w.k.dtype, DType::F32 | DType::F16 | DType::BF16) && w.k.dtype == w.v.dtype;
        if !stored {
            return refuse("keys and values of f32, f16 or bf16", format!("{} and {}", w.k.dtype, w.v.dtype));
        }
        let whole = |n: usize| n > 0 && *block > 0 && n.is_multiple_of(*block);
        if !whole(*rows) || !whole(w.s) {
            return refuse(
                format!("caches of whole blocks of {block} rows"),
                format!("{rows} rows, {} keys", w.s),
            );
        }
        if w.form.causal || w.mask.is_some() || *rows as u128 >= MOST_POSITION {
            return refuse(
                "keys that lengths alone hide, of 31 bits",
                format!("{:?} over {rows} rows", w.form),
            );
        }
        bounded(&[*rows, w.h_kv, w.d.max(w.d_v), 16])?;
        if !matches!(table.dtype, DType::U32 | DType::I32) {
            return refuse("a table of u32 or i32", table.dtype);
        }
        self.reads_run(table, count(&[w.b, w.s / block])?)?;
        self.reads_run_as(lengths, DType::U32, count(&[w.b, w.l])?)
    }

    pub(super) fn attention(&self, w: &Attention) -> Checked<()> {
        let Attention { inputs, out, kept } = w;
        self.attention_inputs(inputs)?;
        all_f32(&[out])?;
        self.writes(out, &[inputs.b, inputs.h, inputs.l, inputs.d_v])?;
        adjacent(out, inputs.d_v)?;
        self.apart(out, inputs.operands())?;
        kept.iter().try_for_each(|rows| {
            self.writes_run_as(rows, DType::F32, count(&[inputs.b, inputs.h, inputs.l, 2])?)?;
            self.apart(rows, inputs.operands().chain([out]))
        })
    }

    pub(super) fn attention_grad(&self, w: &AttentionGrad) -> Checked<()> {
        let AttentionGrad { inputs, up, outs, kept } = w;
        self.attention_inputs(inputs)?;
        if inputs.pages.is_some() {
            return refuse("gradients of attention over keys that lie together", "keys in blocks");
        }
        let &AttentionInputs { b, h, h_kv, l, s, d, d_v, .. } = inputs;
        self.reads_as(up, DType::F32, &[b, h, l, d_v])?;
        adjacent(up, d_v)?;
        if let Some(Kept { out, rows }) = kept {
            self.reads_as(out, DType::F32, &[b, h, l, d_v])?;
            adjacent(out, d_v)?;
            self.reads_run_as(rows, DType::F32, count(&[b, h, l, 2])?)?;
        }
        let kept: Vec<&Operand> = kept.iter().flat_map(|k| [&k.out, &k.rows]).collect();
        let shapes = [[b, h, l, d], [b, h_kv, s, d], [b, h_kv, s, d_v]];
        all_f32(&outs.iter().collect::<Vec<_>>())?;
        // they may lie among each other in one buffer, as their readers walk them
        outs.iter().zip(shapes).try_for_each(|(out, shape)| {
            self.writes(out, &shape)?;
            self.apart(out, inputs.operands().chain([up]).chain(kept.iter().copied()))
        })
    }

    /// Indices as i32, with no table that is stored.
    fn checked_indices(&self, w: &IndexWork, limit: usize, indexed: usize) -> Checked<()> {
        let IndexWork { kind, table, indices, updates, out, table_shape, axis, .. } = w;
        counts(indices)?;
        let alone = table == indices && updates.is_none();
        if !alone || *axis != 0 || table_shape.len() != 1 || limit > i32::MAX as usize {
            let wanted = "indices below one size of 31 bits, and nothing else that is read";
            return refuse(wanted, format!("{kind:?} of {table_shape:?}"));
        }
        self.reads_run(indices, indexed)?;
        self.writes_run_as(out, DType::I32, indexed)?;
        self.apart(out, [indices])
    }

    pub(super) fn index(&self, w: &IndexWork) -> Checked<()> {
        let IndexWork { kind, table, indices, updates, out, table_shape, indices_shape, axis, ignored } = w;
        let (elements, indexed) = (count(table_shape)?, count(indices_shape)?);
        if *kind == IndexKind::Check {
            return self.checked_indices(w, elements, indexed);
        }
        if ignored.is_some() && *kind != IndexKind::TakePut {
            return refuse("an index that is ignored in checks and by what writes rows", format!("{kind:?}"));
        }
        if *axis >= table_shape.len() {
            return refuse(format!("one of {} axes", table_shape.len()), axis);
        }
        counts(indices)?;
        let adds = matches!(kind, IndexKind::TakeAdd | IndexKind::ScatterAdd);
        if adds && !matches!(table.dtype, DType::F32 | DType::I32 | DType::U32 | DType::I64) {
            return refuse("sums of f32, i32, u32 or i64", table.dtype);
        }
        let whole = matches!(kind, IndexKind::Take | IndexKind::TakeAdd | IndexKind::TakePut);
        let smaller = |(a, (i, t)): (usize, (&usize, &usize))| a == *axis || i <= t;
        let fits = indices_shape.len() == table_shape.len()
            && indices_shape.iter().zip(table_shape).enumerate().all(smaller);
        if !whole && !fits {
            let wanted = format!("indices inside {table_shape:?} but for axis {axis}");
            return refuse(wanted, format!("{indices_shape:?}"));
        }
        // whole slices: [outer, indices, inner]
        let slices = count(&[elements / table_shape[*axis], indexed])?;
        let moved = if whole { slices } else { indexed };
        bounded(&[moved.max(elements), 64])?;
        self.reads_run(table, elements)?;
        self.reads_run(indices, indexed)?;
        let written = matches!(kind, IndexKind::TakeAdd | IndexKind::TakePut | IndexKind::ScatterAdd);
        self.writes_run_as(out, table.dtype, if written { elements } else { moved })?;
        match (updates, written) {
            (Some(u), true) => self.reads_run_as(u, table.dtype, moved)?,
            (None, false) => {}
            _ => return refuse("updates of the forms that write, of no others", format!("{kind:?}")),
        }
        self.apart(out, updates.iter().chain([indices]))?;
        if table.buffer == out.buffer && !(written && table.offset == out.offset) {
            return refuse("a table apart from the result, or the result itself", format!("{kind:?}"));
        }
        Ok(())
    }

    pub(super) fn scan(&self, w: &Scan) -> Checked<()> {
        let Scan { input, out, outer, n, inner } = w;
        let elements = count(&[*outer, *n, *inner])?;
        if !matches!(input.dtype, DType::F32 | DType::I32 | DType::U32) {
            return refuse("sums of f32, i32 or u32", input.dtype);
        }
        self.reads_run(input, elements)?;
        self.writes_run_as(out, input.dtype, elements)?;
        self.apart(out, [input])
    }

    pub(super) fn pool(&self, w: &Pool) -> Checked<()> {
        let Pool { form, planes, input, output, x, up, out } = w;
        for axis in 0..2 {
            let [kernel, stride, padding] = [form.kernel[axis], form.stride[axis], form.padding[axis]];
            let padded = input[axis] as u128 + 2 * padding as u128;
            let fits = kernel > 0 && stride > 0 && padding <= kernel / 2 && padded >= kernel as u128;
            let count = if fits { (padded - kernel as u128) / stride as u128 + 1 } else { 0 };
            let far = padded + kernel as u128 + stride as u128;
            if far >= MOST_POSITION {
                return too_large("positions of 31 bits", format!("{form:?} over {}", input[axis]));
            }
            if count != output[axis] as u128 {
                let came = format!("{form:?}: {} from {}", output[axis], input[axis]);
                return refuse("as many windows as fit", came);
            }
        }
        let (from, to) = (count(&[*planes, input[0], input[1]])?, count(&[*planes, output[0], output[1]])?);
        bounded(&[to, form.kernel[0], form.kernel[1], 16])?;
        self.reads_run_as(x, DType::F32, from)?;
        up.iter().try_for_each(|up| self.reads_run_as(up, DType::F32, to))?;
        self.writes_run_as(out, DType::F32, if up.is_some() { from } else { to })?;
        self.apart(out, up.iter().chain([x]))
    }

    pub(super) fn dequantise(&self, from: &Operand, to: &Operand) -> Checked<()> {
        let (source, result) = (self.buffer(from.buffer)?, self.buffer(to.buffer)?);
        let whole = from.offset == 0 && to.offset == 0 && source.elements == result.elements;
        if !from.dtype.is_block() || source.dtype != from.dtype || !whole {
            let came = format!("{} {} to {}", source.elements, from.dtype, result.elements);
            return refuse("a whole buffer of a block format, and as many f32", came);
        }
        self.writes_run_as(to, DType::F32, result.elements)
    }
}

/// Indices of a dtype that look-ups count by.
fn counts(indices: &Operand) -> Checked<()> {
    match indices.dtype {
        DType::I32 | DType::U32 | DType::I64 => Ok(()),
        other => refuse("indices of i32, u32 or i64", other),
    }
}
