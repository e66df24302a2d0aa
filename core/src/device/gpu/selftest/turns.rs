//! Measures how many loop iterations an invocation may make: drivers may silently end loops (Mesa's lavapipe after 65,535
//! iterations of all loops together). A kernel with the maximum number of iterations must count correctly, or the limit is
//! lowered.

use super::{operand, port};
use crate::device::gpu::executor::Executor;
use crate::device::gpu::prepared::Prepared;
use crate::device::gpu::states::StateMemory;
use crate::device::gpu::store::Store;
use crate::device::gpu::{Gpu, Progress};
use crate::error::{Error, Result};
use crate::expr::{Instr, Kind, Tape};
use crate::plan::{Buffer, Place, Rowwise, Values};
use crate::profile::Limits;
use crate::profile::Precision;
use crate::target::gpu::GpuPlan;
use crate::target::gpu::forms::{Plan, Step, Work};
use crate::tensor::DType;
use std::sync::Arc;

const THREADS: usize = 64;
/// A linear congruential step, which no compiler replaces by a closed form (Knuth 1997, "The Art of Computer Programming" 2,
/// 3.2.1; the multiplier is that of Numerical Recipes).
const FACTOR: u32 = 1_664_525;

/// The number of iterations, within the limits, for which loops are correct.
///
/// # Errors
/// [`Error::Device`] if they are wrong for the minimum that kernels need, or the driver's error.
pub fn most(gpu: &Arc<Gpu>) -> Result<usize> {
    let name = &gpu.context().name;
    found(gpu.limits().turns, |turns| counts(gpu, turns)).map_err(|e| match e {
        Error::Device { why, .. } => Error::Device { device: name.clone(), why: format!("self-test: {why}") },
        other => other,
    })
}

/// The largest correct number of iterations among `most` and its successive halves.
fn found(most: usize, mut right: impl FnMut(usize) -> Result<bool>) -> Result<usize> {
    let mut turns = most;
    while !right(turns)? {
        if turns <= Limits::FEWEST_TURNS {
            let why = format!("loops end before their {turns}th turn");
            return Err(Error::Device { device: "gpu".into(), why });
        }
        turns = (turns / 2).max(Limits::FEWEST_TURNS);
    }
    Ok(turns)
}

/// Half of the iterations in nested loops (including those of the outer one), the other half in a single loop.
fn loops(turns: usize) -> [usize; 3] {
    let columns = 255;
    let rows = turns / 2 / (columns + 1);
    [rows, columns, turns - rows * (columns + 1)]
}

/// Whether a kernel with that many iterations per invocation gives correct results.
fn counts(gpu: &Arc<Gpu>, turns: usize) -> Result<bool> {
    let [rows, columns, rest] = loops(turns);
    let plan = GpuPlan::new(Arc::new(plan()), gpu.limits(), Precision::Full);
    let mut program = plan.program(gpu.limits())?;
    let turn = format!("x = x * {FACTOR}u + b0[n & {}u];", THREADS - 1);
    program.texts = vec![format!(
        "var<storage, read> b0: array<u32>;\nvar<storage, read_write> b1: array<u32>;\n\
         @compute @workgroup_size({THREADS})\nfn main(@builtin(local_invocation_index) lid: u32) {{\nvar x = b0[lid];\n\
         for (var m = 0u; m < {rows}u; m++) {{ for (var n = 0u; n < {columns}u; n++) {{ {turn} }} }}\n\
         for (var n = 0u; n < {rest}u; n++) {{ {turn} }}\nb1[lid] = x;\n}}\n"
    )];
    let prepared = Arc::new(Prepared::compile(gpu, program, &Progress::default())?);
    let store = Store::new(gpu, vec![], &[])?;
    let mut executor = Executor::new(&plan, &prepared, (&store, &[]), (&StateMemory::new(gpu), &[]))?;
    let given: Vec<u32> = (0..THREADS as u32).map(|i| i.wrapping_mul(2_654_435_761) | 1).collect();
    executor.write(0, bytemuck::cast_slice(&given))?;
    executor.step(&store, 1)?;
    executor.wait()?;
    let came: Vec<u32> = bytemuck::pod_collect_to_vec(&executor.read(1)?);
    let turn = |x: u32, n: usize| x.wrapping_mul(FACTOR).wrapping_add(given[n % THREADS]);
    let wanted = given.iter().map(|&x| {
        let x = (0..rows).fold(x, |x, _| (0..columns).fold(x, turn));
        (0..rest).fold(x, turn)
    });
    Ok(came.iter().copied().eq(wanted))
}

/// A copy with one element per thread, whose kernel is replaced by another with the same bindings.
fn plan() -> Plan {
    let buffer = Buffer { dtype: DType::U32, elements: THREADS, place: Place::Own };
    let mut tape = Tape::default();
    let result = tape.push(Instr::Load(0), Kind::U);
    let of = |buffer| crate::plan::Operand { dtype: DType::U32, ..operand(buffer, &[1]) };
    let copy = Rowwise {
        domain: vec![THREADS],
        reduced: vec![false],
        operands: vec![of(0)],
        tape,
        reductions: vec![],
        result,
        per_row: false,
        out: of(1),
        extra_outputs: vec![],
        declared: Default::default(),
    };
    Plan {
        values: Values {
            buffers: vec![buffer.clone(), buffer],
            inputs: vec![port("from", 0, DType::U32, &[THREADS])],
            outputs: vec![port("to", 1, DType::U32, &[THREADS])],
            ..Values::default()
        },
        steps: vec![Step { work: Work::Rowwise(copy), label: "self-test".into(), nodes: vec![] }],
        init_steps: vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_turns_that_are_right_are_found_or_the_driver_is_refused() {
        for (driver, wanted) in
            [(usize::MAX, 32_768), (32_768, 32_768), (32_767, 16_384), (5000, 4096), (4096, 4096)]
        {
            assert_eq!(found(32_768, |turns| Ok(turns <= driver)).unwrap(), wanted, "{driver}");
        }
        let e = found(32_768, |turns| Ok(turns <= 4095)).unwrap_err().to_string();
        assert!(e.contains("loops end before their 4096th turn"), "{e}");
    }

    #[test]
    fn the_test_takes_as_many_turns_as_it_says() {
        for turns in [4096, 10_000, 32_768, 65_535] {
            let [rows, columns, rest] = loops(turns);
            assert_eq!(rows * (columns + 1) + rest, turns);
            assert!(rows > 0 && rest > 0);
        }
    }
}
