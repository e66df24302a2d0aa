//! Optimizers: the passes of a rule over each parameter, as steps of rows ([`rowwise`](super::rowwise)) that write parameters
//! and states in place.

use super::bases::Bases;
use super::buffer::Buffer;
use super::executor::Executor;
use super::parameters::{Store, allocate};
use super::rowwise::{PreparedRowwise, RowScratch};
use super::threads::ThreadPool;
use crate::error::{Error, Result};
use crate::expr::{Binary, Fold, Instr, Kind, Reg};
use crate::optimizer::{Geometry, Pass, Source, Span, Target, Training, Update};
use crate::plan::{Operand, RowResult, Rowwise, Values};
use crate::tensor::DType;

/// Values of a mean over everything above which rows are summed first, each by whichever thread comes to it.
const ONE_ROW: usize = 1 << 16;

/// An optimizer with its states, over the parameters of a session.
pub struct Updates {
    /// The optimizer.
    pub training: Training,
    /// How many steps it has made.
    pub step: u64,
    /// The learning rate.
    pub rate: f32,
    scalars: Vec<f32>,
    /// Of each parameter: the first of its addresses, and its work.
    members: Vec<(usize, Vec<PreparedRowwise>)>,
    /// The scalars; then of each parameter it, its gradient, its states, kept values, means, and one more.
    bases: Vec<*mut u8>,
    /// States, in the order of [`Training::states`].
    states: Vec<Buffer>,
    _kept: Vec<Buffer>,
    scratch: RowScratch,
}

// SAFETY: the addresses point into memory that the updates own, or are written anew before each run.
unsafe impl Send for Updates {}

impl Updates {
    /// States at their initial values, and the work of each parameter.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(training: Training, pool: &ThreadPool) -> Result<Updates> {
        let wanted = training.state_bytes();
        if let Some(most) = super::most_memory().filter(|most| wanted as u64 > *most) {
            let what = format!("the optimizer's states, where there are {most}");
            return Err(Error::OutOfMemory { wanted: wanted as u64, what });
        }
        let mut scalars = vec![0f32; training.scalar_count().max(1)];
        let mut u = Updates {
            step: 0,
            rate: training.optimizer.learning_rate(),
            members: vec![],
            bases: vec![scalars.as_mut_ptr().cast()],
            scalars,
            states: vec![],
            _kept: vec![],
            scratch: RowScratch::default(),
            training,
        };
        for (i, m) in u.training.members.iter().enumerate() {
            let (update, first, of) = (u.training.update(i), u.bases.len(), m.geometry);
            u.bases.extend([std::ptr::null_mut(); 2]);
            for state in &update.states {
                let elements = of.count(state.span);
                let memory = allocate(elements * 4, "an optimizer's state")?;
                // SAFETY: fresh memory of so many elements.
                let all = unsafe { std::slice::from_raw_parts_mut(memory.pointer().cast::<f32>(), elements) };
                if state.initial != 0.0 {
                    all.fill(state.initial);
                }
                u.bases.push(memory.pointer());
                u.states.push(memory);
            }
            let means = update.means.iter().map(|m| m.1);
            let rows = of.count(Span::Row);
            let small = update.kept.iter().copied().chain(means).map(|span| of.count(span));
            for elements in small.chain((!update.means.is_empty()).then_some(rows)) {
                let memory = allocate(elements * 4, "an optimizer's means")?;
                u.bases.push(memory.pointer());
                u._kept.push(memory);
            }
            let at = Places { update, of, first, scalars: m.scalars };
            let steps = update.passes.iter().flat_map(|pass| at.steps(pass));
            let work = steps.map(|step| PreparedRowwise::new(&step)).collect::<Result<Vec<_>>>()?;
            u.members.push((first, work));
        }
        let all = u.members.iter().flat_map(|m| &m.1);
        let each = all.map(PreparedRowwise::scratch_bytes_per_worker).max().unwrap_or(0);
        let short = || Error::OutOfMemory { wanted: each as u64, what: "scratch of the optimizer".into() };
        u.scratch = RowScratch::try_new(pool.threads(), each).ok_or_else(short)?;
        Ok(u)
    }

    /// One step more: changes the parameters by their gradients, of which `executor` has computed the plan's.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], before anything is changed.
    pub fn apply(
        &mut self,
        pool: &ThreadPool,
        plan: &Values,
        executor: &Executor,
        store: &mut Store,
        positions: &[usize],
    ) -> Result<()> {
        for ((gradient, m), work) in plan.gradients.iter().zip(&self.training.members).zip(&self.members) {
            let bytes = m.geometry.count(Span::Element) * 4;
            let p = store.parameters[positions[gradient.parameter]].bytes_mut()?;
            let g = executor.read(gradient.buffer).get(gradient.offset * 4..).unwrap_or(&[]);
            if p.len() < bytes || g.len() < bytes {
                return Err(Error::internal(format!("a gradient of another size than \"{}\"", m.name)));
            }
            self.bases[work.0] = p.as_mut_ptr();
            self.bases[work.0 + 1] = g.as_ptr().cast_mut();
        }
        self.step += 1;
        self.training.scalars(self.rate, self.step, &mut self.scalars);
        self.bases[0] = self.scalars.as_mut_ptr().cast();
        for step in self.members.iter().flat_map(|m| &m.1) {
            // SAFETY: operands lie in memory of their spans' sizes, those of parameters and gradients by the check above; the
            // store is borrowed for writing, and gradients are only read.
            unsafe { step.run(pool, Bases(&self.bases), &mut self.scratch) };
        }
        store.version += 1;
        Ok(())
    }

    /// The bytes of a state, by its place in [`Training::states`].
    pub fn state(&self, at: usize) -> &[u8] {
        let memory = &self.states[at];
        let bytes = self.sizes()[at];
        // SAFETY: so many bytes were allocated; nobody writes while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(memory.pointer(), bytes) }
    }

    /// Gives a state other bytes, as many as it has.
    pub fn set_state(&mut self, at: usize, bytes: &[u8]) {
        let n = bytes.len().min(self.sizes()[at]);
        // SAFETY: as above, and `&mut self` excludes everybody else.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.states[at].pointer(), n) };
    }

    /// Bytes of each state.
    pub fn sizes(&self) -> Vec<usize> {
        self.training.states().map(|s| s.shape.iter().product::<usize>() * 4).collect()
    }
}

/// Where a parameter's values are among the bases.
struct Places<'a> {
    update: &'a Update,
    of: Geometry,
    first: usize,
    scalars: usize,
}

impl Places<'_> {
    /// An operand over the three axes of a parameter.
    fn operand(&self, buffer: usize, span: Span, offset: usize) -> Operand {
        let ([_, rows, columns], has) = (self.of.axes(span), span.axes());
        let steps = [rows * columns, columns, 1];
        let strides = [0, 1, 2].map(|i| if has[i] { steps[i] as isize } else { 0 }).to_vec();
        Operand { buffer, dtype: DType::F32, offset: offset as isize, strides }
    }

    fn source(&self, source: Source) -> Operand {
        let u = self.update;
        let (states, kept) = (self.first + 2, self.first + 2 + u.states.len());
        let (buffer, offset) = match source {
            Source::Parameter => (self.first, 0),
            Source::Gradient => (self.first + 1, 0),
            Source::State(i) => (states + i, 0),
            Source::Kept(i) => (kept + i, 0),
            Source::Mean(i) => (kept + u.kept.len() + i, 0),
            Source::Scalar(i) => (0, self.scalars + i),
        };
        self.operand(buffer, source.span(u), offset)
    }

    /// The steps of a pass.
    fn steps(&self, pass: &Pass) -> Vec<Rowwise> {
        let domain = self.of.axes(pass.over).to_vec();
        let operands: Vec<Operand> = pass.loads.iter().map(|s| self.source(*s)).collect();
        if let [(Target::Mean(k), reg)] = pass.results[..] {
            return self.mean(pass, operands, domain, k, reg);
        }
        let out = |target: Target| match target {
            Target::Parameter => self.source(Source::Parameter),
            Target::State(i) => self.source(Source::State(i)),
            Target::Kept(i) => self.source(Source::Kept(i)),
            Target::Mean(i) => self.source(Source::Mean(i)),
        };
        let Some((&(target, result), others)) = pass.results.split_first() else { return vec![] };
        let extra_outputs = others.iter().map(|&(t, result)| RowResult { result, out: out(t) }).collect();
        vec![Rowwise {
            reduced: vec![false; domain.len()],
            domain,
            operands,
            tape: pass.tape.clone(),
            reductions: vec![],
            result,
            per_row: false,
            out: out(target),
            extra_outputs,
            declared: Default::default(),
        }]
    }

    /// A mean; one of much over everything by way of rows.
    fn mean(
        &self,
        pass: &Pass,
        operands: Vec<Operand>,
        domain: Vec<usize>,
        k: usize,
        reg: Reg,
    ) -> Vec<Rowwise> {
        let u = self.update;
        let (from, to) = u.means[k];
        let (had, has) = (from.axes(), to.axes());
        let reduced = |kept: [bool; 3]| [0, 1, 2].map(|i| had[i] && !kept[i]).to_vec();
        let mut tape = pass.tape.clone();
        let sum = tape.push(Instr::Reduced(0), Kind::F);
        let count = tape.literal((self.of.count(from) / self.of.count(to)) as f64, Kind::F);
        let mean = tape.push(Instr::Binary(Binary::Div, sum, count), Kind::F);
        let out = self.source(Source::Mean(k));
        let whole = Rowwise {
            reduced: reduced(has),
            domain: domain.clone(),
            operands,
            tape,
            reductions: vec![(Fold::Sum, reg)],
            result: mean,
            per_row: true,
            out: out.clone(),
            extra_outputs: vec![],
            declared: Default::default(),
        };
        if to != Span::Whole || from != Span::Element || self.of.count(from) <= ONE_ROW {
            return vec![whole];
        }
        let last = self.first + 2 + u.states.len() + u.kept.len() + u.means.len();
        let rows = self.operand(last, Span::Row, 0);
        let sums =
            Rowwise { reduced: vec![false, false, true], result: sum, out: rows.clone(), ..whole.clone() };
        let mut tape = crate::expr::Tape::default();
        let row = tape.push(Instr::Load(0), Kind::F);
        let sum = tape.push(Instr::Reduced(0), Kind::F);
        let count = tape.literal(self.of.count(from) as f64, Kind::F);
        let mean = tape.push(Instr::Binary(Binary::Div, sum, count), Kind::F);
        let joined = Rowwise {
            domain: vec![domain[0], domain[1], 1],
            reduced: vec![true; 3],
            operands: vec![rows],
            tape,
            reductions: vec![(Fold::Sum, row)],
            result: mean,
            per_row: true,
            out,
            extra_outputs: vec![],
            declared: Default::default(),
        };
        vec![sums, joined]
    }
}
