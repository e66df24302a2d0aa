//! Attention and its gradient.

use crate::graph::AttentionForm;
use crate::plan::facts::{Facts, Written, counted};
use crate::plan::verify::{
    Checked, Checker, MOST_POSITION, adjacent, all_f32, bounded, count, refuse, too_large,
};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{Form, Operand, StepCost};
use crate::tensor::DType;

/// softmax(q·kᵀ·scale + mask)·v, in f32. Stride 1 along the last axis of out.
#[derive(Debug, Clone)]
pub struct Attention {
    /// What it reads.
    pub inputs: AttentionInputs,
    /// Over `[b, h, l, d_v]`.
    pub out: Operand,
}

/// Gradients of [`Attention`] with respect to q, k and v, in f32. Stride 1 along the last axis of up.
#[derive(Debug, Clone)]
pub struct AttentionGrad {
    /// What the attention reads.
    pub inputs: AttentionInputs,
    /// Gradient of the output, over `[b, h, l, d_v]`.
    pub up: Operand,
    /// dq over `[b, h, l, d]`, dk over `[b, h_kv, s, d]`, dv over `[b, h_kv, s, d_v]`, of any strides.
    pub outs: [Operand; 3],
}

/// What attention reads. Stride 1 along the last axis of q, k and v.
#[derive(Debug, Clone)]
pub struct AttentionInputs {
    /// Scale, causality, window.
    pub form: AttentionForm,
    /// Batch.
    pub b: usize,
    /// Query heads.
    pub h: usize,
    /// Key and value heads; divides `h`; query head i uses key head i / (h / h_kv).
    pub h_kv: usize,
    /// Queries.
    pub l: usize,
    /// Keys.
    pub s: usize,
    /// Head size.
    pub d: usize,
    /// Head size of the values and the output.
    pub d_v: usize,
    /// Over `[b, h, l, d]`.
    pub q: Operand,
    /// Over `[b, h_kv, s, d]`.
    pub k: Operand,
    /// Over `[b, h_kv, s, d_v]`.
    pub v: Operand,
    /// f32, over `[b, h, l, s]`, any strides.
    pub mask: Option<Operand>,
    /// Where keys and values are rows of a cache that all sequences share, which of them are a sequence's.
    pub pages: Option<Pages>,
}

/// Keys and values in blocks of a cache: `k` and `v` are then f32, f16 or bf16, over `[1, h_kv, rows, d]`, and `s` is how many keys a
/// sequence may have. What a query sees is in `lengths`, and the form's window counts from there; nothing is causal or masked beside.
#[derive(Debug, Clone)]
pub struct Pages {
    /// Rows of the cache, a multiple of `block`.
    pub rows: usize,
    /// Rows of a block: key j of sequence b is row `table[b, j / block] · block + j mod block`. `s` is a multiple.
    pub block: usize,
    /// u32 or i32, contiguous over `[b, s / block]`; entries that are no block are taken as the last.
    pub table: Operand,
    /// u32, contiguous over `[b, l]`: how many keys each query sees; beyond s, s.
    pub lengths: Operand,
}

impl AttentionInputs {
    /// q, k, v, and the mask, the table and the lengths if there are any.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        let pages = self.pages.iter().flat_map(|p| [&p.table, &p.lengths]);
        [&self.q, &self.k, &self.v].into_iter().chain(&self.mask).chain(pages)
    }

    /// The same, to be changed.
    fn operands_mut(&mut self) -> impl Iterator<Item = &mut Operand> {
        let pages = self.pages.iter_mut().flat_map(|p| [&mut p.table, &mut p.lengths]);
        [&mut self.q, &mut self.k, &mut self.v].into_iter().chain(&mut self.mask).chain(pages)
    }

    /// Rows that keys and values are read from, and sequences that have rows of their own.
    pub(crate) fn stored(&self) -> (usize, usize) {
        self.pages.as_ref().map_or((self.s, self.b), |p| (p.rows, 1))
    }

    /// What attention of them is.
    fn facts(&self) -> Facts {
        let keys = self.s.max(self.stored().0);
        let (queries, keys) = (counted(&[self.b, self.h, self.l]), counted(&[self.b, self.h_kv, keys]));
        Facts {
            sort: "attention",
            counted: queries.max(keys).saturating_mul(self.d.max(self.d_v)).max(self.form.window),
            depth: self.s.saturating_mul(self.d),
            on_matrices: true,
            ..Facts::NONE
        }
    }

    /// Adds what attention reads; gives the pairs of a query and a key that it looks at.
    fn pairs(&self, to: &mut StepCost) -> f64 {
        to.reads(&self.q, &[self.b, self.h, self.l, self.d]);
        to.reads(&self.k, &[self.b, self.h_kv, self.s, self.d]);
        to.reads(&self.v, &[self.b, self.h_kv, self.s, self.d_v]);
        self.mask.iter().for_each(|m| to.reads(m, &[self.b, self.h, self.l, self.s]));
        if let Some(pages) = &self.pages {
            to.reads(&pages.table, &[self.b, self.s / pages.block]);
            to.reads(&pages.lengths, &[self.b, self.l]);
        }
        let seen = |i: usize| {
            let end =
                if self.form.causal { (i + 1 + self.s).saturating_sub(self.l).min(self.s) } else { self.s };
            let begin = match self.form.window {
                0 => 0,
                window => (i + 1 + self.s).saturating_sub(self.l + window),
            };
            end.saturating_sub(begin) as f64
        };
        (self.b * self.h) as f64 * (0..self.l).map(seen).sum::<f64>()
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages } = self;
        let &[b, h, h_kv, l, s, d, d_v] = &[*b, *h, *h_kv, *l, *s, *d, *d_v];
        all_f32(&[q])?;
        all_f32(&mask.iter().collect::<Vec<_>>())?;
        match pages {
            None => all_f32(&[k, v])?,
            Some(pages) => self.verify_pages(checker, pages)?,
        }
        checker.reads(q, &[b, h, l, d])?;
        let (rows, sequences) = self.stored();
        checker.reads(k, &[sequences, h_kv, rows, d])?;
        checker.reads(v, &[sequences, h_kv, rows, d_v])?;
        mask.iter().try_for_each(|m| checker.reads(m, &[b, h, l, s]))?;
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
    fn verify_pages(&self, checker: &Checker<'_>, pages: &Pages) -> Checked<()> {
        let Pages { rows, block, table, lengths } = pages;
        let stored =
            matches!(self.k.dtype, DType::F32 | DType::F16 | DType::BF16) && self.k.dtype == self.v.dtype;
        if !stored {
            return refuse(
                "keys and values of f32, f16 or bf16",
                format!("{} and {}", self.k.dtype, self.v.dtype),
            );
        }
        let whole = |n: usize| n > 0 && *block > 0 && n.is_multiple_of(*block);
        if !whole(*rows) || !whole(self.s) {
            return refuse(
                format!("caches of whole blocks of {block} rows"),
                format!("{rows} rows, {} keys", self.s),
            );
        }
        if self.form.causal || self.mask.is_some() || *rows as u128 >= MOST_POSITION {
            return refuse(
                "keys that lengths alone hide, of 31 bits",
                format!("{:?} over {rows} rows", self.form),
            );
        }
        bounded(&[*rows, self.h_kv, self.d.max(self.d_v), 16])?;
        if !matches!(table.dtype, DType::U32 | DType::I32) {
            return refuse("a table of u32 or i32", table.dtype);
        }
        checker.reads_run(table, count(&[self.b, self.s / block])?)?;
        checker.reads_run_as(lengths, DType::U32, count(&[self.b, self.l])?)
    }

    fn write(&self, to: &mut Writer) {
        let AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages } = self;
        let AttentionForm { scale, causal, window, masked } = form;
        to.real(*scale);
        to.flag(*causal);
        to.size(*window);
        to.flag(*masked);
        [b, h, h_kv, l, s, d, d_v].into_iter().for_each(|v| to.size(*v));
        [q, k, v].into_iter().for_each(|o| to.operand(o));
        to.maybe(mask.as_ref(), Writer::operand);
        to.maybe(pages.as_ref(), |w, Pages { rows, block, table, lengths }| {
            [rows, block].into_iter().for_each(|v| w.size(*v));
            [table, lengths].into_iter().for_each(|o| w.operand(o));
        });
    }

    fn read(from: &mut Reader) -> Read<AttentionInputs> {
        let form = AttentionForm {
            scale: from.real()?,
            causal: from.flag()?,
            window: from.size()?,
            masked: from.flag()?,
        };
        let [b, h, h_kv, l, s, d, d_v] = from.several(Reader::size)?;
        let (q, k, v) = (from.operand()?, from.operand()?, from.operand()?);
        let mask = from.maybe(Reader::operand)?;
        let pages = from.maybe(|r| {
            let [rows, block] = r.several(Reader::size)?;
            Ok(Pages { rows, block, table: r.operand()?, lengths: r.operand()? })
        })?;
        Ok(AttentionInputs { form, b, h, h_kv, l, s, d, d_v, q, k, v, mask, pages })
    }
}

impl Form for Attention {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        self.inputs.operands().for_each(|o| f(o, false));
        f(&self.out, true);
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        self.inputs.operands_mut().chain([&mut self.out]).collect()
    }

    fn facts(&self) -> Facts {
        self.inputs.facts()
    }

    fn add_cost(&self, to: &mut StepCost) {
        let i = &self.inputs;
        let pairs = i.pairs(to);
        to.writes(&self.out, &[i.b, i.h, i.l, i.d_v]);
        to.operations += 2.0 * pairs * (i.d + i.d_v) as f64;
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let Attention { inputs, out } = self;
        inputs.verify(checker)?;
        all_f32(&[out])?;
        checker.writes(out, &[inputs.b, inputs.h, inputs.l, inputs.d_v])?;
        adjacent(out, inputs.d_v)?;
        checker.apart(out, inputs.operands())
    }

    fn write(&self, to: &mut Writer) {
        let Attention { inputs, out } = self;
        inputs.write(to);
        to.operand(out);
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        Ok(Some(Attention { inputs: AttentionInputs::read(from)?, out: from.operand()? }))
    }
}

impl AttentionGrad {
    /// The shapes of its results.
    pub fn shapes(&self) -> [[usize; 4]; 3] {
        let i = &self.inputs;
        [[i.b, i.h, i.l, i.d], [i.b, i.h_kv, i.s, i.d], [i.b, i.h_kv, i.s, i.d_v]]
    }
}

impl Form for AttentionGrad {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        self.inputs.operands().chain([&self.up]).for_each(|o| f(o, false));
        self.outs.iter().for_each(|o| f(o, true));
    }

    fn for_each_result(&self, f: &mut dyn FnMut(&Operand, &[usize])) {
        self.outs.iter().zip(self.shapes()).for_each(|(out, shape)| f(out, &shape));
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        self.inputs.operands_mut().chain([&mut self.up]).chain(&mut self.outs).collect()
    }

    fn facts(&self) -> Facts {
        Facts {
            sort: "attention gradient",
            on_matrices: false,
            written: Written::Parts,
            ..self.inputs.facts()
        }
    }

    fn add_cost(&self, to: &mut StepCost) {
        let i = &self.inputs;
        let pairs = i.pairs(to);
        to.reads(&self.up, &[i.b, i.h, i.l, i.d_v]);
        self.outs.iter().zip(self.shapes()).for_each(|(out, shape)| to.writes(out, &shape));
        // scores again, dq and dk; the weights' gradient and dv
        to.operations += 2.0 * pairs * (3 * i.d + 2 * i.d_v) as f64;
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        let AttentionGrad { inputs, up, outs } = self;
        inputs.verify(checker)?;
        if inputs.pages.is_some() {
            return refuse("gradients of attention over keys that lie together", "keys in blocks");
        }
        let &AttentionInputs { b, h, h_kv, l, s, d, d_v, .. } = inputs;
        checker.reads_as(up, DType::F32, &[b, h, l, d_v])?;
        adjacent(up, d_v)?;
        let shapes = [[b, h, l, d], [b, h_kv, s, d], [b, h_kv, s, d_v]];
        all_f32(&outs.iter().collect::<Vec<_>>())?;
        // they may lie among each other in one buffer, as their readers walk them
        outs.iter().zip(shapes).try_for_each(|(out, shape)| {
            checker.writes(out, &shape)?;
            checker.apart(out, inputs.operands().chain([up]))
        })
    }

    fn write(&self, to: &mut Writer) {
        let AttentionGrad { inputs, up, outs } = self;
        inputs.write(to);
        to.operand(up);
        outs.iter().for_each(|o| to.operand(o));
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        let (inputs, up) = (AttentionInputs::read(from)?, from.operand()?);
        let outs = [from.operand()?, from.operand()?, from.operand()?];
        Ok(Some(AttentionGrad { inputs, up, outs }))
    }
}
