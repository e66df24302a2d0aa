//! Malicious artifacts: thousands with random changes and a valid hash, so that the verifier, not the hash, is tested. Each is
//! refused, or a session of it runs without harm.

use super::devices;
use super::models::{Model, run, small, weights};
use super::refusals::rehash;
use weft::device::Device;
use weft::internals::target::gpu::forms::{GpuForm, GpuProduct, Plan, Work};
use weft::internals::target::gpu::program::program;
use weft::profile::{Limits, Precision};
use weft::session::{Compiled, Compiler};

/// Words that differ from call to call and not from run to run.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % below.max(1)
    }
}

/// About how much a step of the plan computes, and how much memory it takes.
fn cost(plan: &Plan) -> (f64, f64) {
    let product = |sizes: &[usize]| sizes.iter().map(|n| *n as f64).product::<f64>();
    let of = |work: &Work| match work {
        Work::Rowwise(w) => product(&w.domain) * w.tape.code.len() as f64,
        Work::Product(w) | Work::Own(GpuForm::Product(GpuProduct { product: w, .. })) => {
            product(&w.batch) * w.m as f64 * w.n as f64 * w.k as f64
        }
        Work::Convolution(w) => {
            let reach = |a: usize| {
                (w.out_shape[2 + a] * w.form.stride[a] + w.weight_shape[2 + a] * w.form.dilation[a]) as f64
            };
            product(&w.out_shape) * product(&w.weight_shape[1..])
                + reach(0) * reach(1) * product(&w.out_shape[..2])
        }
        Work::Attention(w) | Work::Own(GpuForm::Attention(w, _)) => {
            product(&[w.inputs.b, w.inputs.h, w.inputs.l, w.inputs.s, w.inputs.d])
        }
        Work::AttentionGrad(w) | Work::Own(GpuForm::AttentionGrad(w, _)) => {
            product(&[w.inputs.b, w.inputs.h, w.inputs.l, w.inputs.s, w.inputs.d])
        }
        Work::Index(w) => product(&w.table_shape) + product(&w.indices_shape) * product(&w.table_shape),
        Work::Scan(w) => product(&[w.outer, w.n, w.inner]),
        Work::Pool(w) => product(&[w.planes, w.output[0], w.output[1]]) * product(&w.form.kernel),
        Work::Dequantise(w) => plan.buffers[w.to.buffer].elements as f64,
    };
    let work = plan.init_steps.iter().chain(&plan.steps).map(|s| of(&s.work)).sum();
    let memory: f64 = plan.buffers.iter().map(|b| b.bytes() as f64).sum();
    (work, memory)
}

/// What became of changed artifacts.
#[derive(Default, Debug)]
struct Fates {
    refused: usize,
    ran: usize,
    failed: usize,
    /// Verified, but more work or memory than a test has time for.
    large: usize,
}

/// Changes a few bytes beyond the head.
fn damage(bytes: &mut [u8], dice: &mut Dice) {
    let at = 64 + dice.roll(bytes.len() - 64);
    match dice.roll(4) {
        0 => bytes[at] ^= 1 << dice.roll(8),
        1 => bytes[at] = dice.roll(256) as u8,
        // small numbers make plausible plans
        2 => bytes[at] = bytes[at].wrapping_add(dice.roll(5) as u8).wrapping_sub(2),
        _ => {
            let n = (1 + dice.roll(10)).min(bytes.len() - at);
            bytes[at..at + n].fill([0xff, 0, 0x80][dice.roll(3)]);
        }
    }
    rehash(bytes);
}

fn attack(device: &Device, model: &Model, times: usize, fates: &mut Fates) {
    let good = model.compile(&Compiler::new(device)).to_bytes().unwrap();
    let mut dice = Dice(good.len() as u64);
    for _ in 0..times {
        let mut bytes = good.clone();
        damage(&mut bytes, &mut dice);
        let Ok(compiled) = Compiled::from_bytes(device, bytes) else {
            fates.refused += 1;
            continue;
        };
        let (work, memory) = cost(&compiled.plan());
        let memory = memory + compiled.target().scratch_bytes() as f64;
        if work > 3e7 || memory > 64e6 {
            fates.large += 1;
            continue;
        }
        // kernels of any GPU are written or refused, never a panic
        for limits in [Limits::least(), Limits::large()] {
            let _ = program(&compiled.plan(), &limits, Precision::Fast);
        }
        let session = compiled.init(&weights(compiled.parameters()));
        let training = !compiled.plan().gradients.is_empty();
        match session.and_then(|mut s| run(&mut s, training)) {
            Ok(_) => fates.ran += 1,
            Err(_) => fates.failed += 1,
        }
    }
}

#[test]
fn ten_thousand_changed_artifacts_are_refused_or_run_on_the_cpu() {
    let (cpu, mut fates) = (Device::cpu(2), Fates::default());
    for model in small() {
        attack(&cpu, &model, 1500, &mut fates);
    }
    eprintln!("{fates:?}");
    assert!(fates.refused > 3000, "the verifier lets too much pass: {fates:?}");
    assert!(fates.ran > 300, "hardly anything was run: {fates:?}");
    assert!(fates.large < 500, "too much was left out: {fates:?}");
}

#[test]
fn changed_artifacts_are_refused_or_run_on_a_gpu() {
    let (gpu, mut fates) = (devices::gpu().device, Fates::default());
    for model in small().into_iter().rev().take(2) {
        attack(&gpu, &model, 150, &mut fates);
    }
    eprintln!("{fates:?}");
    assert!(fates.refused > 50 && fates.ran > 5, "{fates:?}");
}
