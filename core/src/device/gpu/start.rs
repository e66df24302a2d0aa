//! What an executor asks the worker to do beside steps: a run's memory, constants and bindings at its start, the errors
//! of its look-ups; and the forms of narrow elements on both sides.

use super::executor::{Prepared, Small};
use super::program::{ALIGN, Program, Region};
use super::run::{Heap, Parcel, Run};
use super::worker::Desk;
use crate::error::{Error, Result};
use crate::plan::{Place, Plan};
use crate::tensor::DType;
use blade_graphics as blade;

/// What a step's look-ups said.
pub fn checked(desk: &mut Desk, run: u64, program: &Program) -> Result<()> {
    let context = desk.context.clone();
    let Some(r) = desk.runs.get_mut(&run) else { return Ok(()) };
    let Some((word, position)) = r.take_errors(&context, &mut desk.transfer)? else { return Ok(()) };
    let look = &program.lookups[word];
    // the indices are still there: they live until the step's end
    let o = &look.indices;
    let held = &program.layouts.buffers[o.buffer];
    let mut bytes = vec![0u8; held.bytes()];
    let Some(first) = r.pieces(program, o.buffer).next() else { return Ok(()) };
    desk.transfer.download(first, &mut bytes)?;
    let at = (o.offset.max(0) as usize + position as usize) * if o.dtype == DType::I64 { 8 } else { 4 };
    let four = |at: usize| bytes.get(at..at + 4).map_or([0; 4], |b| [b[0], b[1], b[2], b[3]]);
    let index = match o.dtype {
        DType::I64 => {
            i64::from(u32::from_le_bytes(four(at))) | i64::from(i32::from_le_bytes(four(at + 4))) << 32
        }
        DType::I32 => i64::from(i32::from_le_bytes(four(at))),
        _ => i64::from(u32::from_le_bytes(four(at))),
    };
    Err(Error::IndexOutOfRange {
        node: look.label.clone(),
        index,
        position: position as usize,
        limit: look.limit,
    })
}

/// Memory, constants, bindings, and the steps that run once.
pub fn start(
    desk: &mut Desk,
    plan: &Plan,
    prepared: &Prepared,
    parameters: &[Vec<blade::BufferPiece>],
    (inputs, rates): (&[Small], usize),
    outputs: &[Small],
) -> Result<Run> {
    let context = desk.context.clone();
    let (p, chunk) = (&prepared.program, context.limits.binding);
    let mut arena = Heap::new(&context, p.arena, chunk, "intermediate values")?;
    // the optimizer's rates stand behind the session's own buffers
    let at_rates = p.own.next_multiple_of(ALIGN);
    let own_bytes = if plan.gradients.is_empty() { p.own } else { at_rates + 64 };
    let mut own = match Heap::new(&context, own_bytes, chunk, "inputs, outputs and constants") {
        Ok(own) => own,
        Err(e) => {
            arena.free(&context);
            return Err(e);
        }
    };
    let words = p.lookups.len();
    let errors = match context.allocate((words + 1).max(4) * 4, blade::Memory::DeviceTransient, "errors") {
        Ok(errors) => errors,
        Err(e) => {
            arena.free(&context);
            own.free(&context);
            return Err(e);
        }
    };
    let mut r = Run::new(plan, arena, own, errors, words);
    let outcome = fill(desk, plan, prepared, parameters, (inputs, rates), outputs, &mut r);
    match outcome {
        Ok(()) => Ok(r),
        Err(e) => {
            r.close(&context);
            Err(e)
        }
    }
}

fn fill(
    desk: &mut Desk,
    plan: &Plan,
    prepared: &Prepared,
    parameters: &[Vec<blade::BufferPiece>],
    (inputs, rates): (&[Small], usize),
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
    let parameter = |id: usize, n: usize| match plan.buffers[id].place {
        Place::Parameter(i) => parameters[i].get(n).copied(),
        _ => None,
    };
    r.once = r.bind(p, &p.once, &prepared.pipelines, &parameter);
    if !r.once.is_empty() {
        Run::run_now(&context, &r.once)?;
    }
    r.steps = r.bind(p, &p.steps, &prepared.pipelines, &parameter);
    let parcel = |s: &Small| Parcel {
        piece: r.own.at(p.places[s.buffer][0]),
        at: s.at,
        bytes: p.layouts.buffers[s.buffer].bytes(),
    };
    let mut uploads: Vec<Parcel> = inputs.iter().map(parcel).collect();
    if !plan.gradients.is_empty() {
        let at = p.own.next_multiple_of(ALIGN);
        let piece = r.own.at(Region { at, bytes: 32 });
        uploads.push(Parcel { piece, at: rates, bytes: 32 });
    }
    let mut downloads = vec![];
    if r.words > 0 {
        downloads.push(Parcel { piece: r.errors.buffer.at(0), at: 0, bytes: r.words * 4 + 4 });
    }
    downloads.extend(outputs.iter().map(parcel));
    (r.uploads, r.downloads) = (uploads, downloads);
    r.prepare(&context)
}

/// Packed elements of 8 and 16 bits as 32 bits each.
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
