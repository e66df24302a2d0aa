//! Self-test of a GPU before it is used: the maximum number of bindings, NaN and rows (`basics`), a few products, a reduction,
//! and half-precision products if they would be used. Some phones have drivers that compute garbage.

use super::Gpu;
use super::Progress;
use super::executor::Executor;
use super::prepared::Prepared;
use super::states::StateMemory;
use super::store::Store;
use crate::error::{Error, Result};
use crate::expr::{Fold, Instr, Kind, Tape};
use crate::plan::{Buffer, Operand, Place, Port, Product, Rowwise, Values};
use crate::profile::Precision;
use crate::target::gpu::GpuPlan;
use crate::target::gpu::forms::{Plan, Step, Work};
use crate::tensor::DType;
use std::sync::Arc;

mod basics;
pub mod turns;

/// Runs the test.
///
/// # Errors
/// [`Error::Device`] with the wrong result, or the driver's error.
pub fn run(gpu: &Arc<Gpu>) -> Result<()> {
    basics::run(gpu)?;
    let refused =
        |why: String| Error::Device { device: gpu.context().name.clone(), why: format!("self-test: {why}") };
    let kinds = [Precision::Full, Precision::Fast];
    let fast = gpu.limits().coop + gpu.limits().coop_f32 > 0;
    for precision in kinds.into_iter().take(if fast { 2 } else { 1 }) {
        // 64 rows use the tiled kernels, 1 row the kernels for single tokens
        for m in [64, 1] {
            let (came, wanted) = sums(gpu, m, precision).map_err(|e| refused(e.to_string()))?;
            let largest = wanted.iter().fold(0.0f64, |a, b| a.max(b.abs()));
            let allowed = largest * if precision == Precision::Fast { 2e-3 } else { 1e-5 };
            for (i, (a, b)) in came.iter().zip(&wanted).enumerate() {
                let off = (f64::from(*a) - b).abs();
                if off.is_nan() || off > allowed {
                    return Err(refused(format!(
                        "row {i} of a {m}-row product ({precision:?}) sums to {a}, not {b}"
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Row sums of A·B, from the GPU and from the CPU; entries vary, with little cancellation.
fn sums(gpu: &Arc<Gpu>, m: usize, precision: Precision) -> Result<(Vec<f32>, Vec<f64>)> {
    let (n, k) = (64, 96);
    let a: Vec<f32> = (0..m * k).map(|i| ((i * 37 + 11) % 64) as f32 / 64.0 - 0.25).collect();
    let b: Vec<f32> = (0..k * n).map(|i| ((i * 53 + 29) % 128) as f32 / 128.0 - 0.375).collect();
    let plan = GpuPlan::new(Arc::new(plan(m, n, k)), gpu.limits(), precision);
    let prepared = Arc::new(Prepared::new(gpu, &plan, &Progress::default())?);
    let store = Store::new(gpu, vec![], &[])?;
    let mut executor = Executor::new(&plan, &prepared, (&store, &[]), (&StateMemory::new(gpu), &[]))?;
    executor.write(0, bytemuck::cast_slice(&a))?;
    executor.write(1, bytemuck::cast_slice(&b))?;
    executor.step(&store, 1)?;
    executor.wait()?;
    let came = bytemuck::pod_collect_to_vec(&executor.read(3)?);
    let at = |r: usize, c: usize| -> f64 {
        (0..k).map(|i| f64::from(a[r * k + i]) * f64::from(b[i * n + c])).sum()
    };
    Ok((came, (0..m).map(|r| (0..n).map(|c| at(r, c)).sum()).collect()))
}

/// a [m, k], b [k, n], their product, and its row sums.
fn plan(m: usize, n: usize, k: usize) -> Plan {
    let buffer = |elements, place| Buffer { dtype: DType::F32, elements, place };
    let (wide, deep) = (n as isize, k as isize);
    let product = Product {
        batch: vec![],
        m,
        n,
        k,
        a: operand(0, &[deep, 1]),
        b: operand(1, &[wide, 1]),
        b_is_weight: false,
        out: operand(2, &[wide, 1]),
        epilogue: None,
    };
    let mut tape = Tape::default();
    let load = tape.push(Instr::Load(0), Kind::F);
    let result = tape.push(Instr::Reduced(0), Kind::F);
    let sums = Rowwise {
        domain: vec![m, n],
        reduced: vec![false, true],
        operands: vec![operand(2, &[wide, 1])],
        tape,
        reductions: vec![(Fold::Sum, load)],
        result,
        per_row: true,
        out: operand(3, &[1, 0]),
        extra_outputs: vec![],
        declared: Default::default(),
    };
    let step = |work| Step { work, label: "self-test".into(), nodes: vec![] };
    Plan {
        values: Values {
            buffers: vec![
                buffer(m * k, Place::Own),
                buffer(k * n, Place::Own),
                buffer(m * n, Place::Scratch),
                buffer(m, Place::Own),
            ],
            inputs: vec![port("a", 0, DType::F32, &[m, k]), port("b", 1, DType::F32, &[k, n])],
            outputs: vec![port("sums", 3, DType::F32, &[m])],
            ..Values::default()
        },
        steps: vec![step(Work::Product(product)), step(Work::Rowwise(sums))],
        init_steps: vec![],
    }
}

/// A f32 operand from the buffer's start.
fn operand(buffer: usize, strides: &[isize]) -> Operand {
    Operand { buffer, dtype: DType::F32, offset: 0, strides: strides.to_vec() }
}

fn port(name: &str, buffer: usize, dtype: DType, shape: &[usize]) -> Port {
    Port { name: name.into(), buffer, dtype, shape: shape.to_vec(), trainable: false }
}
