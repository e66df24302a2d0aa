//! Forms of steps that only GPUs support, in addition to those of plans: products with a fused norm of A's rows, gated columns
//! or extra outputs, products that run concurrently, attention that stores softmax statistics, and its gradient that reads
//! them. `passes` create them; CPU plans cannot express them.

use crate::expr::{Binary, Instr, Reg, Tape, Unary};
use crate::plan::wire::{Read, Reader, Writer};
use crate::plan::{
    Attention, AttentionGrad, BufferId, Checked, Checker, Facts, Form, Operand, Product, RowResult, StepCost,
    adjacent, count, refuse,
};
use crate::tensor::DType;
use std::ops::Deref;

/// A plan in GPU forms.
pub type Plan = crate::plan::Plan<GpuForm>;
/// A step of such a plan.
pub type Step = crate::plan::Step<GpuForm>;
/// The work of such a step.
pub type Work = crate::plan::Work<GpuForm>;

/// A form that only GPUs support.
#[derive(Debug, Clone)]
pub enum GpuForm {
    /// A product with additional fused work.
    Product(GpuProduct),
    /// Attention that also stores statistics of its rows for the gradient: f32, contiguous over `[b, h, l, 2]`, each row's
    /// largest score and the inverse of its sum of weights.
    Attention(Attention, Operand),
    /// Attention's gradient that reads the forward pass's statistics.
    AttentionGrad(AttentionGrad, SoftmaxStats),
}

/// A product with additional fused work: at least one of these.
#[derive(Debug, Clone)]
pub struct GpuProduct {
    /// The product. With gated columns, its epilogue's `Load(0)` and `Load(1)` are the results of the first and second half,
    /// and `Load(i)` reads `operands[i - 2]`.
    pub product: Product,
    /// A norm of A's rows. It requires stride 1 of A along k; k, A's offset and its other strides must be multiples of 4.
    pub prologue: Option<Prologue>,
    /// B has 2·n columns; the epilogue computes column j of C from the results of columns j and j + n.
    pub gated_columns: bool,
    /// Whether other products with at least as much work in total run concurrently with it.
    pub concurrent: bool,
    /// Further epilogue registers that are stored, over its domain, to buffers other than the product's result.
    pub extra_outputs: Vec<RowResult>,
}

/// A uniform view of a product in either form.
#[derive(Debug, Clone, Copy)]
pub struct ProductView<'a> {
    /// The product.
    pub product: &'a Product,
    /// As [`GpuProduct::prologue`].
    pub prologue: Option<&'a Prologue>,
    /// As [`GpuProduct::gated_columns`].
    pub gated_columns: bool,
    /// As [`GpuProduct::concurrent`].
    pub concurrent: bool,
    /// As [`GpuProduct::extra_outputs`].
    pub extra_outputs: &'a [RowResult],
}

/// A norm of A's rows fused into a product: with Σ a sum along k, C = factor(Σ measured(A)) · (element(A) · B).
#[derive(Debug, Clone)]
pub struct Prologue {
    /// Operands of `element` other than A, along k: one stride each.
    pub operands: Vec<Operand>,
    /// The value multiplied by B instead of an element of A, which is `Load(0)`; `Load(i)` reads `operands[i - 1]`.
    pub element: Formula,
    /// The summand along k, a function of A's element, `Load(0)`. It maps 0 to 0.
    pub measured: Formula,
    /// The factor on the row's results, a function of the sum, `Load(0)`.
    pub factor: Formula,
}

/// A scalar expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Formula {
    /// The code.
    pub tape: Tape,
    /// The result register, an f32.
    pub result: Reg,
}

impl Formula {
    /// Whether it maps zeros to 0: kernels read zeros beyond a row's end.
    pub(super) fn is_zero_of_zero(&self) -> bool {
        let mut zero: Vec<bool> = Vec::with_capacity(self.tape.code.len());
        for (instr, _) in &self.tape.code {
            zero.push(match *instr {
                Instr::Load(_) => true,
                Instr::Binary(Binary::Mul, a, b) => zero[a] || zero[b],
                Instr::Binary(Binary::Add | Binary::Sub | Binary::Max | Binary::Min, a, b) => {
                    zero[a] && zero[b]
                }
                Instr::Unary(Unary::Neg | Unary::Abs | Unary::Sqrt, a) => zero[a],
                _ => false,
            });
        }
        zero[self.result]
    }
}

/// Results of attention's forward pass that its gradient reads.
#[derive(Debug, Clone)]
pub struct SoftmaxStats {
    /// Its output, over `[b, h, l, d_v]`; stride 1 along the last axis.
    pub out: Operand,
    /// Statistics of rows: see [`GpuForm::Attention`].
    pub rows: Operand,
}

/// A product with a norm or gated columns must have more columns than this: the kernels for fewer columns treat A as the wide
/// operand and compute no row sums.
pub const FEW_COLUMNS: usize = 8;

impl Deref for ProductView<'_> {
    type Target = Product;

    fn deref(&self) -> &Product {
        self.product
    }
}

impl<'a> From<&'a Product> for ProductView<'a> {
    fn from(product: &'a Product) -> Self {
        ProductView { product, prologue: None, gated_columns: false, concurrent: false, extra_outputs: &[] }
    }
}

impl<'a> From<&'a GpuProduct> for ProductView<'a> {
    fn from(of: &'a GpuProduct) -> Self {
        let GpuProduct { product, prologue, gated_columns, concurrent, extra_outputs } = of;
        let (gated_columns, concurrent) = (*gated_columns, *concurrent);
        ProductView { product, prologue: prologue.as_ref(), gated_columns, concurrent, extra_outputs }
    }
}

impl ProductView<'_> {
    /// Columns of B.
    pub fn b_columns(&self) -> usize {
        if self.gated_columns { 2 * self.n } else { self.n }
    }
}

impl Work {
    /// The product of this step, in either form.
    pub fn product(&self) -> Option<ProductView<'_>> {
        match self {
            Work::Product(w) => Some(w.into()),
            Work::Own(GpuForm::Product(w)) => Some(w.into()),
            _ => None,
        }
    }

    /// The product of this step, converted to the GPU form, for modification.
    pub fn product_mut(&mut self) -> Option<&mut GpuProduct> {
        if let Work::Product(product) = self {
            let (product, extra_outputs) = (product.clone(), vec![]);
            let more = GpuProduct {
                product,
                prologue: None,
                gated_columns: false,
                concurrent: false,
                extra_outputs,
            };
            *self = Work::Own(GpuForm::Product(more));
        }
        match self {
            Work::Own(GpuForm::Product(w)) => Some(w),
            _ => None,
        }
    }
}

impl From<crate::plan::Plan> for Plan {
    fn from(plan: crate::plan::Plan) -> Plan {
        // CPU plans have no forms of their own to map
        plan.map_own(|none| match none {}).unwrap_or_default()
    }
}

/// The plan in forms that every device supports, if possible; `concurrent` is dropped, since it does not affect results.
pub fn without_own(plan: Plan) -> Option<crate::plan::Plan> {
    plan.map_own(|own| match own {
        GpuForm::Product(w) if w.prologue.is_none() && !w.gated_columns && w.extra_outputs.is_empty() => {
            Some(crate::plan::Work::Product(w.product))
        }
        GpuForm::Product(_) | GpuForm::Attention(..) | GpuForm::AttentionGrad(..) => None,
    })
}

impl Form for GpuForm {
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
        match self {
            GpuForm::Product(GpuProduct { product: w, prologue, extra_outputs, .. }) => {
                [&w.a, &w.b].into_iter().for_each(|o| f(o, false));
                prologue.iter().flat_map(|p| &p.operands).for_each(|o| f(o, false));
                w.epilogue.iter().flat_map(|e| &e.operands).for_each(|o| f(o, false));
                extra_outputs.iter().for_each(|r| f(&r.out, true));
                f(&w.out, true);
            }
            GpuForm::Attention(w, rows) => {
                w.inputs.operands().for_each(|o| f(o, false));
                f(rows, true);
                f(&w.out, true);
            }
            GpuForm::AttentionGrad(w, SoftmaxStats { out, rows }) => {
                w.inputs.operands().chain([&w.up, out, rows]).for_each(|o| f(o, false));
                w.outs.iter().for_each(|o| f(o, true));
            }
        }
    }

    fn for_each_result(&self, f: &mut dyn FnMut(&Operand, &[usize])) {
        match self {
            GpuForm::Product(GpuProduct { product: w, extra_outputs, .. }) => {
                for e in w.epilogue.iter() {
                    extra_outputs.iter().for_each(|r| f(&r.out, &e.domain));
                }
                f(&w.out, &w.domain());
            }
            GpuForm::Attention(..) => {}
            GpuForm::AttentionGrad(w, _) => {
                w.outs.iter().zip(w.shapes()).for_each(|(out, shape)| f(out, &shape));
            }
        }
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        match self {
            GpuForm::Product(GpuProduct { product, prologue, extra_outputs, .. }) => {
                let own = product.operands_mut().into_iter();
                let prologue = prologue.iter_mut().flat_map(|p| &mut p.operands);
                own.chain(prologue).chain(extra_outputs.iter_mut().map(|r| &mut r.out)).collect()
            }
            GpuForm::Attention(w, rows) => w.operands_mut().into_iter().chain([rows]).collect(),
            GpuForm::AttentionGrad(w, SoftmaxStats { out, rows }) => {
                w.operands_mut().into_iter().chain([out, rows]).collect()
            }
        }
    }

    fn facts(&self) -> Facts {
        match self {
            GpuForm::Product(GpuProduct { product, .. }) => product.facts(),
            GpuForm::Attention(w, _) => w.facts(),
            GpuForm::AttentionGrad(w, _) => w.facts(),
        }
    }

    fn add_cost(&self, to: &mut StepCost) {
        match self {
            GpuForm::Product(of) => {
                let w = ProductView::from(of);
                w.add_cost_of(to, w.b_columns());
                for e in w.epilogue.iter() {
                    w.extra_outputs.iter().for_each(|r| to.writes(&r.out, &e.domain));
                }
                if let Some(p) = w.prologue {
                    p.operands.iter().for_each(|o| to.reads(o, &[w.k]));
                    let code = StepCost::length(&p.element.tape) + StepCost::length(&p.measured.tape) + 1.0;
                    let elements: f64 = w.batch.iter().chain([&w.m, &w.k]).map(|&n| n as f64).product();
                    to.operations += elements * code;
                }
            }
            GpuForm::Attention(w, rows) => {
                w.add_cost(to);
                to.writes_elements(rows, rows_of(w));
            }
            GpuForm::AttentionGrad(w, SoftmaxStats { out, rows }) => {
                let i = &w.inputs;
                w.add_cost(to);
                to.reads(out, &[i.b, i.h, i.l, i.d_v]);
                to.reads_elements(rows, (i.b * i.h * i.l * 2) as f64);
            }
        }
    }

    fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
        match self {
            GpuForm::Product(w) => product(checker, w),
            GpuForm::Attention(w, rows) => {
                w.verify(checker)?;
                let i = &w.inputs;
                checker.writes_run_as(rows, DType::F32, count(&[i.b, i.h, i.l, 2])?)?;
                checker.apart(rows, i.operands().chain([&w.out]))
            }
            GpuForm::AttentionGrad(w, SoftmaxStats { out, rows }) => {
                w.verify(checker)?;
                let i = &w.inputs;
                checker.reads_as(out, DType::F32, &[i.b, i.h, i.l, i.d_v])?;
                adjacent(out, i.d_v)?;
                checker.reads_run_as(rows, DType::F32, count(&[i.b, i.h, i.l, 2])?)?;
                w.outs.iter().try_for_each(|result| checker.apart(result, [out, rows]))
            }
        }
    }

    fn packed_weight(&self) -> Option<BufferId> {
        match self {
            GpuForm::Product(GpuProduct { product: w, .. }) => w.packed_weight(),
            GpuForm::Attention(..) | GpuForm::AttentionGrad(..) => None,
        }
    }

    fn write(&self, to: &mut Writer) {
        match self {
            GpuForm::Product(GpuProduct { product, prologue, gated_columns, concurrent, extra_outputs }) => {
                to.byte(PRODUCT);
                product.write(to);
                to.maybe(prologue.as_ref(), |w, Prologue { operands, element, measured, factor }| {
                    w.list(operands, Writer::operand);
                    for Formula { tape, result } in [element, measured, factor] {
                        w.tape(tape);
                        w.size(*result);
                    }
                });
                to.flag(*gated_columns);
                to.flag(*concurrent);
                to.results(extra_outputs);
            }
            GpuForm::Attention(w, rows) => {
                to.byte(ATTENTION);
                w.write(to);
                to.operand(rows);
            }
            GpuForm::AttentionGrad(w, SoftmaxStats { out, rows }) => {
                to.byte(ATTENTION_GRAD);
                w.write(to);
                to.operand(out);
                to.operand(rows);
            }
        }
    }

    fn read(number: u8, from: &mut Reader) -> Read<Option<Self>> {
        Ok(Some(match number {
            PRODUCT => GpuForm::Product(GpuProduct {
                product: from.product()?,
                prologue: from.maybe(|r| {
                    let operands = r.list(Reader::operand)?;
                    let mut formula =
                        || -> Read<Formula> { Ok(Formula { tape: r.tape()?, result: r.size()? }) };
                    Ok(Prologue { operands, element: formula()?, measured: formula()?, factor: formula()? })
                })?,
                gated_columns: from.flag()?,
                concurrent: from.flag()?,
                extra_outputs: from.results()?,
            }),
            ATTENTION => {
                let Some(w) = Attention::read(number, from)? else { return Ok(None) };
                GpuForm::Attention(w, from.operand()?)
            }
            ATTENTION_GRAD => {
                let Some(w) = AttentionGrad::read(number, from)? else { return Ok(None) };
                GpuForm::AttentionGrad(w, SoftmaxStats { out: from.operand()?, rows: from.operand()? })
            }
            _ => return Ok(None),
        }))
    }
}

/// Serialised tags of these forms, above those that all devices share.
const PRODUCT: u8 = 16;
const ATTENTION: u8 = 17;
const ATTENTION_GRAD: u8 = 18;

/// Elements of the softmax statistics.
fn rows_of(w: &Attention) -> f64 {
    (w.inputs.b * w.inputs.h * w.inputs.l * 2) as f64
}

fn product(checker: &Checker<'_>, of: &GpuProduct) -> Checked<()> {
    let GpuProduct { product: w, prologue, gated_columns, concurrent: _, extra_outputs } = of;
    let columns = if *gated_columns { count(&[2, w.n])? } else { w.n };
    w.verify_alone(checker, columns)?;
    if (prologue.is_some() || *gated_columns) && w.n <= FEW_COLUMNS {
        return refuse(format!("more than {FEW_COLUMNS} columns of norms and gates"), w.n);
    }
    if let Some(p) = prologue {
        norm(checker, p, w)?;
    }
    if *gated_columns && w.epilogue.is_none() {
        return refuse("an epilogue that joins the gated columns", "none");
    }
    let given = prologue.iter().flat_map(|p| &p.operands);
    let reads: Vec<&Operand> = [&w.a, &w.b].into_iter().chain(given).collect();
    let rows = count(&[count(&w.batch)?, w.m])?;
    let results = 1 + usize::from(*gated_columns);
    checker.epilogue(&w.epilogue, extra_outputs, (&reads, &w.out), [rows, w.n, results])
}

/// Checks a fused norm of A's rows.
fn norm(checker: &Checker<'_>, p: &Prologue, w: &Product) -> Checked<()> {
    let Prologue { operands, element, measured, factor } = p;
    // rows are read four elements at a time
    let [strides @ .., along] = w.a.strides.as_slice() else { return refuse("rows", "none") };
    let fours = |v: isize| v % 4 == 0;
    if *along != 1 || !w.k.is_multiple_of(4) || !fours(w.a.offset) || !strides.iter().all(|s| fours(*s)) {
        return refuse("rows of whole fours, one after the other", format!("{:?}, {} long", w.a, w.k));
    }
    operands.iter().try_for_each(|o| checker.reads(o, &[w.k]))?;
    checker.apart(&w.out, operands)?;
    for (Formula { tape, result }, operands) in
        [(element, operands.as_slice()), (measured, &[]), (factor, &[])]
    {
        checker.formula(tape, *result, &[w.k], operands)?;
    }
    if !measured.is_zero_of_zero() {
        return refuse("a summand that is 0 for 0", format!("{measured:?}"));
    }
    Ok(())
}
