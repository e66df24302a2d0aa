//! Basic capabilities: a kernel with the maximum number of bindings reads all of them, NaN and infinities are distinguished
//! from numbers and from each other, and threads that share a row combine all of its elements.

use crate::device::gpu::executor::Executor;
use crate::device::gpu::prepared::Prepared;
use crate::device::gpu::states::StateMemory;
use crate::device::gpu::store::Store;
use crate::device::gpu::{Gpu, Progress};
use crate::error::{Error, Result};
use crate::expr::{Binary, Compare, Fold, Instr, Kind, Tape};
use crate::plan::{Buffer, Operand, Place, Port, Rowwise, Values};
use crate::profile::Precision;
use crate::target::gpu::GpuPlan;
use crate::target::gpu::forms::{Plan, Step, Work};
use crate::tensor::DType;
use std::sync::Arc;

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// Runs these tests.
///
/// # Errors
/// [`Error::Device`] with the wrong result, or the driver's error.
pub fn run(gpu: &Arc<Gpu>) -> Result<()> {
    let refused =
        |why: String| Error::Device { device: gpu.context().name.clone(), why: format!("self-test: {why}") };
    for (what, test) in
        [("a sum of many buffers", sum(gpu.limits().bindings)), ("NaN", choices()), ("rows", rows())]
    {
        let came = test.run(gpu).map_err(|e| refused(format!("{what}: {e}")))?;
        if let Some((i, (a, b))) = different(&came, &test.wanted) {
            return Err(refused(format!("{what}: element {i} is {a}, not {b}")));
        }
    }
    Ok(())
}

/// The first pair of different numbers; NaNs are equal to each other, zeros of different sign are not.
fn different(came: &[f32], wanted: &[f32]) -> Option<(usize, (f32, f32))> {
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    let missing = wanted.iter().skip(came.len()).map(|b| (NAN, *b));
    let pairs = came.iter().copied().zip(wanted.iter().copied()).chain(missing);
    pairs.enumerate().find(|(_, (a, b))| !same(*a, *b))
}

/// One step with its inputs and expected output.
struct Test {
    work: Rowwise,
    inputs: Vec<Vec<f32>>,
    wanted: Vec<f32>,
}

impl Test {
    fn run(&self, gpu: &Arc<Gpu>) -> Result<Vec<f32>> {
        let buffer = |v: &Vec<f32>| Buffer { dtype: DType::F32, elements: v.len(), place: Place::Own };
        let port = |buffer: usize, v: &Vec<f32>| Port {
            name: format!("{buffer}"),
            buffer,
            dtype: DType::F32,
            shape: vec![v.len()],
            trainable: false,
        };
        let first = self.inputs.len();
        let step = Step { work: Work::Rowwise(self.work.clone()), label: "self-test".into(), nodes: vec![] };
        let plan = Plan {
            values: Values {
                buffers: self.inputs.iter().chain([&self.wanted]).map(buffer).collect(),
                inputs: self.inputs.iter().enumerate().map(|(i, v)| port(i, v)).collect(),
                outputs: vec![port(first, &self.wanted)],
                ..Values::default()
            },
            steps: vec![step],
            init_steps: vec![],
        };
        let plan = GpuPlan::new(Arc::new(plan), gpu.limits(), Precision::Full);
        let prepared = Arc::new(Prepared::new(gpu, &plan, &Progress::default())?);
        let store = Store::new(gpu, vec![], &[])?;
        let mut executor = Executor::new(&plan, &prepared, (&store, &[]), (&StateMemory::new(gpu), &[]))?;
        for (i, values) in self.inputs.iter().enumerate() {
            executor.write(i, bytemuck::cast_slice(values))?;
        }
        executor.step(&store, 1)?;
        executor.wait()?;
        Ok(bytemuck::pod_collect_to_vec(&executor.read(first)?))
    }
}

fn operand(buffer: usize, strides: &[isize]) -> Operand {
    Operand { buffer, dtype: DType::F32, offset: 0, strides: strides.to_vec() }
}

/// A sum of as many buffers as a kernel may bind besides its result, each with a different power of two or its neighbour.
fn sum(bindings: usize) -> Test {
    let count = bindings - 1;
    let inputs: Vec<Vec<f32>> =
        (0..count).map(|n| (0..3).map(|i| ((n * 5 + i * 3) % 97 + 1) as f32).collect()).collect();
    let mut tape = Tape::default();
    let loads: Vec<_> = (0..count).map(|n| tape.push(Instr::Load(n), Kind::F)).collect();
    let result =
        loads[1..].iter().fold(loads[0], |sum, &r| tape.push(Instr::Binary(Binary::Add, sum, r), Kind::F));
    // integers below 2²⁴: exact in any order
    let total = |i: usize| inputs.iter().map(|v| v[i]).sum();
    let wanted = (0..3).map(total).collect();
    let operands = (0..count).map(|n| operand(n, &[1])).collect();
    Test { work: pointwise(3, operands, tape, result, count), inputs, wanted }
}

/// max(x, y) + 1 where x is a number, y where x is NaN.
fn choices() -> Test {
    let x = vec![NAN, 1.0, INF, -INF, -0.0, 3.0, NAN, INF];
    let y = vec![1.0, NAN, 2.0, 5.0, -2.0, -INF, NAN, -INF];
    let mut tape = Tape::default();
    let [a, b] = [0, 1].map(|n| tape.push(Instr::Load(n), Kind::F));
    let one = tape.push(Instr::Const(1f32.to_bits()), Kind::F);
    let most = tape.push(Instr::Binary(Binary::Max, a, b), Kind::F);
    let more = tape.push(Instr::Binary(Binary::Add, most, one), Kind::F);
    let number = tape.push(Instr::Compare(Compare::Eq, a, a), Kind::B);
    let result = tape.push(Instr::Select(number, more, b), Kind::F);
    let wanted = vec![1.0, NAN, INF, 6.0, 1.0, 4.0, NAN, INF];
    let operands = (0..2).map(|n| operand(n, &[1])).collect();
    Test { work: pointwise(8, operands, tape, result, 2), inputs: vec![x, y], wanted }
}

fn pointwise(n: usize, operands: Vec<Operand>, tape: Tape, result: usize, out: usize) -> Rowwise {
    Rowwise {
        domain: vec![n],
        reduced: vec![false],
        operands,
        tape,
        reductions: vec![],
        result,
        per_row: false,
        out: operand(out, &[1]),
        extra_outputs: vec![],
        declared: Default::default(),
    }
}

/// The maximum of each of some rows, minus its sum: a row of negative numbers, one with an infinity, one with a NaN.
fn rows() -> Test {
    let (rows, length) = (4, 1000);
    let mut x: Vec<f32> = (0..rows * length).map(|i| -1.0 - ((i * 37) % 64) as f32).collect();
    x[length + 501] = -INF;
    x[2 * length + 777] = NAN;
    x[3 * length + 999] = 0.5;
    let mut tape = Tape::default();
    let load = tape.push(Instr::Load(0), Kind::F);
    let [most, sum] = [0, 1].map(|n| tape.push(Instr::Reduced(n), Kind::F));
    let result = tape.push(Instr::Binary(Binary::Sub, most, sum), Kind::F);
    let wanted = x.chunks(length).map(|row| {
        let most = row.iter().fold(-INF, |m, &v| if m.is_nan() || v.is_nan() { NAN } else { m.max(v) });
        most - row.iter().sum::<f32>()
    });
    let wanted = wanted.collect();
    let work = Rowwise {
        domain: vec![rows, length],
        reduced: vec![false, true],
        operands: vec![operand(0, &[length as isize, 1])],
        tape,
        reductions: vec![(Fold::Max, load), (Fold::Sum, load)],
        result,
        per_row: true,
        out: operand(1, &[1, 0]),
        extra_outputs: vec![],
        declared: Default::default(),
    };
    Test { work, inputs: vec![x], wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_is_right_and_what_is_wrong_is_told() {
        assert_eq!(sum(4).wanted, [6.0 + 11.0 + 1.0, 9.0 + 14.0 + 4.0, 12.0 + 17.0 + 7.0]);
        let wanted = rows().wanted;
        assert!(wanted[1] == INF && wanted[2].is_nan() && wanted[3] > 30_000.0, "{wanted:?}");
        assert_eq!(different(&[NAN, -0.0], &[NAN, -0.0]), None);
        assert!(different(&[0.0], &[-0.0]).is_some() && different(&[1.0], &[NAN]).is_some());
        assert!(different(&[], &[1.0]).is_some(), "nothing is not right");
    }
}
