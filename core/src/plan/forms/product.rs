//! Matrix products.

use crate::expr::{Reg, Tape};
use crate::plan::facts::{Facts, Written, counted};
use crate::plan::verify::{Checked, Checker, adjacent, all_f32, bounded, count, refuse, too_large};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{BufferId, Form, Operand, StepCost};
use crate::tensor::DType;

/// Most products of a batch: each takes memory of its own.
const MOST_BATCHES: usize = 1 << 24;

/// C[batch, m, n] = A[batch, m, k] · B[batch, k, n], in f32.
#[derive(Debug, Clone)]
pub struct Product {
    /// Sizes of the batch axes.
    pub batch: Vec<usize>,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// f32, over `[batch…, m, k]`.
    pub a: Operand,
    /// f32 (or f16, bf16 when `b_is_weight`), over `[batch…, k, n]`.
    pub b: Operand,
    /// B is a parameter or constant without batch axes: pack it once.
    pub b_is_weight: bool,
    /// f32, over `[batch…, m, n]`, stride 1 along n.
    pub out: Operand,
    /// Pointwise work on the results.
    pub epilogue: Option<Epilogue>,
}

/// Pointwise work on a product's results before they are stored: `Instr::Load(0)` is the product's
/// own f32 result, `Instr::Load(i)` reads `operands[i - 1]`.
#[derive(Debug, Clone, Default)]
pub struct Epilogue {
    /// Axes; the last are the columns, those before make up batch and row, row-major.
    pub domain: Vec<usize>,
    /// What else is read, over the domain.
    pub operands: Vec<Operand>,
    /// The code.
    pub tape: Tape,
    /// The register that is stored, an f32.
    pub result: Reg,
}

impl Product {
    /// The sizes that its result is walked over.
    pub fn domain(&self) -> Vec<usize> {
        [self.batch.as_slice(), &[self.m, self.n]].concat()
    }

    /// Adds what it moves and computes where B has so many columns.
    pub fn add_cost_of(&self, to: &mut StepCost, columns: usize) {
        let over = |rows: usize, columns: usize| [self.batch.as_slice(), &[rows, columns]].concat();
        to.reads(&self.a, &over(self.m, self.k));
        to.reads(&self.b, &over(self.k, columns));
        to.writes(&self.out, &over(self.m, self.n));
        to.operations += 2.0 * StepCost::count(&over(self.m, columns)) * self.k as f64;
        to.epilogue(&self.epilogue);
    }

    /// Checks all but its epilogue, where B has so many columns.
    ///
    /// # Errors
    /// The first flaw.
    pub(crate) fn verify_alone(&self, checker: &Checker<'_>, columns: usize) -> Checked<()> {
        let Product { batch, m, n, k, a, b, b_is_weight, out, epilogue: _ } = self;
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
        checker.reads(a, &over(m, k))?;
        checker.reads(b, &over(k, columns))?;
        checker.writes(out, &over(m, n))?;
        adjacent(out, n)?;
        checker.apart(out, [a, b])?;
        if *b_is_weight && batch.iter().zip(&b.strides).any(|(n, s)| *n > 1 && *s != 0) {
            return refuse("a weight that all products share", format!("strides {:?}", b.strides));
        }
        count(&[batches, m]).map(drop)
    }
}

impl Form for Product {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        [&self.a, &self.b].into_iter().for_each(|o| f(o, false));
        self.epilogue.iter().flat_map(|e| &e.operands).for_each(|o| f(o, false));
        f(&self.out, true);
    }

    fn for_each_result(&self, f: &mut dyn FnMut(&Operand, &[usize])) {
        f(&self.out, &self.domain());
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        let epilogue = self.epilogue.iter_mut().flat_map(|e| &mut e.operands);
        [&mut self.a, &mut self.b].into_iter().chain(epilogue).chain([&mut self.out]).collect()
    }

    fn facts(&self) -> Facts {
        Facts {
            sort: "product",
            counted: self.m.max(self.n).saturating_mul(self.k).max(counted(&self.batch)),
            depth: self.k,
            on_matrices: true,
            written: Written::Elements(self.batch.iter().product::<usize>() * self.m * self.n),
            ..Facts::NONE
        }
    }

    fn add_cost(&self, to: &mut StepCost) {
        self.add_cost_of(to, self.n);
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        self.verify_alone(checker, self.n)?;
        let rows = count(&self.batch)? * self.m;
        checker.epilogue(&self.epilogue, &[], (&[&self.a, &self.b], &self.out), [rows, self.n, 1])
    }

    fn packed_weight(&self) -> Option<BufferId> {
        self.b_is_weight.then_some(self.b.buffer)
    }

    fn write(&self, to: &mut Writer) {
        let Product { batch, m, n, k, a, b, b_is_weight, out, epilogue } = self;
        to.sizes(batch);
        [m, n, k].into_iter().for_each(|v| to.size(*v));
        to.operand(a);
        to.operand(b);
        to.flag(*b_is_weight);
        to.operand(out);
        to.epilogue(epilogue);
    }

    fn read(_: u8, from: &mut Reader) -> Read<Option<Self>> {
        from.product().map(Some)
    }
}

impl Reader {
    pub(crate) fn product(&mut self) -> Read<Product> {
        Ok(Product {
            batch: self.sizes()?,
            m: self.size()?,
            n: self.size()?,
            k: self.size()?,
            a: self.operand()?,
            b: self.operand()?,
            b_is_weight: self.flag()?,
            out: self.operand()?,
            epilogue: self.epilogue()?,
        })
    }
}
