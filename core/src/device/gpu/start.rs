//! Initialises an executor's run on the worker: memory, constants, bindings, init steps; and converts narrow elements between
//! host and device.

use super::prepared::{Prepared, Small};
use super::refusal::{Refusals, Watch};
use super::run::{Heap, Parcel, Run, Shared};
use super::worker::WorkerState;
use crate::error::Result;
use crate::plan::Place;
use crate::target::gpu::forms::Plan;
use crate::tensor::DType;
use blade_graphics as blade;
use std::sync::{Arc, Mutex};

/// Allocates memory, uploads constants, binds, and runs the init steps.
pub fn start(
    desk: &mut WorkerState,
    plan: &Plan,
    prepared: &Prepared,
    shared: &Shared,
    inputs: &[Small],
    outputs: &[Small],
    log: &Arc<Mutex<Refusals>>,
) -> Result<Run> {
    let context = desk.context.clone();
    let (p, chunk) = (&prepared.program, context.limits.binding);
    let mut arena = Heap::new(&context, p.memory.arena, chunk, "intermediate values")?;
    let mut own = match Heap::new(&context, p.memory.own, chunk, "inputs, outputs and constants") {
        Ok(own) => own,
        Err(e) => {
            arena.free(&context);
            return Err(e);
        }
    };
    let words = p.schedule.lookups.len();
    let errors = match context.allocate(words.max(4) * 4, blade::Memory::DeviceTransient, "errors") {
        Ok(errors) => errors,
        Err(e) => {
            arena.free(&context);
            own.free(&context);
            return Err(e);
        }
    };
    let mut r = Run::new(plan, [arena, own], errors, shared);
    let lookups = p.schedule.lookups.clone();
    r.watch = Watch { down: vec![None; lookups.len()], lookups, log: log.clone(), ..Watch::default() };
    let outcome = fill(desk, plan, prepared, inputs, outputs, &mut r);
    match outcome {
        Ok(()) => Ok(r),
        Err(e) => {
            r.close(&context);
            Err(e)
        }
    }
}

fn fill(
    desk: &mut WorkerState,
    plan: &Plan,
    prepared: &Prepared,
    inputs: &[Small],
    outputs: &[Small],
    r: &mut Run,
) -> Result<()> {
    let context = desk.context.clone();
    let p = &prepared.program;
    desk.transfer.fill(&r.own.pieces(), 0)?;
    desk.transfer.fill(&[(r.errors.buffer.at(0), r.errors.bytes)], 0xff)?;
    for (id, b) in plan.buffers.iter().enumerate() {
        if let Place::Constant(t) = &b.place {
            desk.transfer.upload_pieces(r.pieces(p, id), t.bytes())?;
        }
    }
    r.once = r.bind(p, &p.schedule.init_steps, &prepared.pipelines);
    if !r.once.is_empty() {
        Run::run_now(&context, &r.once)?;
    }
    r.steps = r.bind(p, &p.schedule.steps, &prepared.pipelines);
    r.watch.indices = p.schedule.lookups.iter().map(|l| r.pieces(p, l.indices.buffer).collect()).collect();
    let parcel = |s: &Small| Parcel {
        piece: r.own.at(p.memory.places[s.buffer][0]),
        at: s.at,
        bytes: p.storage.buffers[s.buffer].bytes(),
    };
    let uploads: Vec<Parcel> = inputs.iter().map(parcel).collect();
    let mut downloads = vec![];
    if !p.schedule.lookups.is_empty() {
        downloads.push(Parcel { piece: r.errors.buffer.at(0), at: 0, bytes: p.schedule.lookups.len() * 4 });
    }
    downloads.extend(outputs.iter().map(parcel));
    (r.uploads, r.downloads) = (uploads, downloads);
    (0..p.schedule.lookups.len()).filter(|&i| p.schedule.lookups[i].computed).for_each(|i| r.watch(i));
    r.prepare(&context)
}

/// Packed 8-bit and 16-bit elements, widened to 32 bits each.
pub fn widened(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let halves = |f: fn(u16) -> f32| {
        bytes.chunks_exact(2).flat_map(|b| f(u16::from_le_bytes([b[0], b[1]])).to_le_bytes()).collect()
    };
    match dtype {
        DType::F16 => halves(|b| half::f16::from_bits(b).to_f32()),
        DType::BF16 => halves(|b| half::bf16::from_bits(b).to_f32()),
        _ => bytes.iter().flat_map(|&b| u32::from(b).to_le_bytes()).collect(),
    }
}

/// The opposite of [`widened`].
pub fn narrowed(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let words = bytes.chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
    match dtype {
        DType::F16 => words.flat_map(|b| half::f16::from_f32(f32::from_le_bytes(b)).to_le_bytes()).collect(),
        DType::BF16 => {
            words.flat_map(|b| half::bf16::from_f32(f32::from_le_bytes(b)).to_le_bytes()).collect()
        }
        _ => words.map(|b| b[0]).collect(),
    }
}
