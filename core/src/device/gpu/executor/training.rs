//! Optimizers of a session on a GPU: their memory and bindings, and their step count.

use super::Executor;
use crate::device::gpu::context::Context;
use crate::device::gpu::run::{Heap, Parcel, Ready};
use crate::device::gpu::store::Store;
use crate::device::gpu::transfer::Transfer;
use crate::device::lock;
use crate::device::progress::Progress;
use crate::error::{Error, Result};
use crate::optimizer::{Member, Span, Training};
use crate::plan::Place;
use crate::plan::memory::{self, Lifetime};
use crate::profile::Limits;
use crate::target::gpu::ALIGN;
use crate::target::gpu::kernels::fits;
use crate::target::gpu::kernels::update::{bound, kernel};
use crate::target::gpu::program::Region;
use crate::target::gpu::updates::{Placed, Small, arrange, cut, element_states, tables, unit};
use crate::target::gpu::wgsl::source::{Kernel, Slot};
use std::sync::Arc;

/// Indices of an optimizer's heaps among the run's.
const TABLES: usize = 0;
const STATES: usize = 1;
const SMALL: usize = 2;

/// A session's optimizer.
pub(super) struct Optimizing {
    training: Arc<Training>,
    rate: f32,
    /// The number of the last posted step.
    pub step: u64,
    /// Offset of its scalars among the inputs.
    scalars: usize,
    /// For each of its states: the heap, and its regions in order.
    states: Vec<(usize, Vec<Region>)>,
    /// Bytes of its memory.
    bytes: usize,
}

/// Inputs of a step that depend on the number of previous steps: an optimizer's scalars, a step counter.
#[derive(Clone)]
pub(super) struct Counts {
    /// The optimizer, its learning rate, the number of its step if no previous one is refused, and the offset of its scalars
    /// among the inputs.
    pub optimizer: Option<(Arc<Training>, f32, u64, usize)>,
    /// The offset of the step counter.
    pub counter: Option<usize>,
}

impl Counts {
    /// Whether they depend on the number of refused steps.
    pub fn matter(&self) -> bool {
        self.optimizer.as_ref().is_some_and(|o| o.0.depends_on_step()) || self.counter.is_some()
    }

    /// Writes them to a step's inputs, given the number of refused steps that were counted.
    pub fn write(&self, inputs: &mut [u8], refused: u64) {
        if let Some((training, rate, step, at)) = &self.optimizer {
            let mut scalars = vec![0f32; training.scalar_count()];
            training.scalars(*rate, step.saturating_sub(refused), &mut scalars);
            inputs[*at..at + scalars.len() * 4].copy_from_slice(bytemuck::cast_slice(&scalars));
        }
        if let (Some(at), 1..) = (self.counter, refused) {
            let counted = [0, 1, 2, 3].map(|i| inputs[at + i]);
            let steps = u32::from_le_bytes(counted).wrapping_sub(refused as u32);
            inputs[at..at + 4].copy_from_slice(&steps.to_le_bytes());
        }
    }
}

/// Memory layout of an optimizer, before allocation.
struct Layout {
    placed: Vec<Placed>,
    states: Vec<(usize, Vec<Region>)>,
    /// States with a non-zero initial value, and the value.
    initial: Vec<(usize, f32)>,
    /// Bytes of per-element states, and of smaller values.
    bytes: [usize; 2],
}

impl Executor {
    /// Sets the optimizer: steps then update the parameters.
    ///
    /// # Errors
    /// [`Error::Device`] for a rule that the device cannot run; [`Error::OutOfMemory`], [`Error::DeviceLost`],
    /// [`Error::Driver`].
    pub fn set_optimizer(&mut self, training: Training, store: &Store, positions: &[usize]) -> Result<()> {
        let limits = self.gpu.limits().clone();
        let layout = self.laid_out(&training, store, positions)?;
        let batches = arrange(&training, &layout.placed, &limits);
        let scalars = training.scalar_count();
        let (table, mut places) = tables(&batches, scalars.next_multiple_of(4));
        places.iter_mut().for_each(|p| p.words = self.prepared.program.schedule.lookups.len());
        let kernels: Vec<Kernel> = batches
            .iter()
            .zip(&places)
            .map(|(b, place)| {
                let update = &training.updates[b.pass.0];
                kernel(update, &update.passes[b.pass.1], *place, &limits)
            })
            .collect();
        for k in &kernels {
            if let Some((wanted, came)) = fits::excess(k, &limits) {
                return Err(self.unfit(&training, format!("it takes {wanted}: {came}")));
            }
        }
        let texts: Vec<String> = kernels.iter().map(|k| k.text.to_string()).collect();
        let bindings: Vec<usize> = kernels.iter().map(|k| k.bindings.len()).collect();
        let pipelines =
            self.gpu.pipelines().get(self.gpu.context(), &texts, &bindings, &Progress::default())?;
        let weights: Vec<_> = batches.iter().map(|b| store.at(b.from[0])).collect();
        let (updates, at) = (batches.len(), self.base_inputs());
        let (sizes, states) = ([table.len() * 4, layout.bytes[0], layout.bytes[1]], layout.states.clone());
        self.on_run(move |r, transfer, context| {
            r.told(context, transfer)?;
            r.forget(context)?;
            let made = memory_of(context, transfer, &table, sizes, &layout, limits.binding)?;
            r.kept.drain(..).for_each(|mut h| h.free(context));
            let piece = |heap: usize, at: usize| made[heap].at(Region { at, bytes: 0 });
            let mut all = vec![];
            for (i, (b, k)) in batches.iter().zip(&kernels).enumerate() {
                let gradients = if b.own { &r.own } else { &r.arena };
                let bind = |slot: Slot| match slot {
                    Slot::Buffer(bound::PARAMETERS, _) => weights[i],
                    Slot::Buffer(bound::GRADIENTS, _) => {
                        Some(gradients.at(Region { at: b.from[1], bytes: 0 }))
                    }
                    Slot::Buffer(bound::STATES, _) => Some(piece(STATES, b.from[2])),
                    Slot::Buffer(bound::SMALL, _) => Some(piece(SMALL, 0)),
                    Slot::Errors => Some(r.errors.buffer.at(0)),
                    _ => Some(piece(TABLES, 0)),
                };
                let pieces = k.bindings.iter().map(|b| bind(b.slot)).collect::<Option<Vec<_>>>();
                let pieces =
                    pieces.ok_or_else(|| Error::internal("an optimizer of weights without memory"))?;
                let barrier = i == 0 || batches[i - 1].level != b.level;
                let pipeline = pipelines[i].clone();
                all.push(Ready { pipeline, pieces, groups: k.groups, barrier, step: None });
            }
            r.scalars = Some(Parcel { piece: piece(TABLES, 0), at, bytes: scalars * 4 });
            (r.updates, r.kept) = (all, made);
            r.prepare(context)
        })?;
        lock(&self.log).count_anew();
        self.updates = updates;
        self.inputs.resize(at + (scalars * 4).next_multiple_of(16), 0);
        let (rate, bytes) = (training.optimizer.learning_rate(), layout_bytes(&states));
        self.optimizer =
            Some(Optimizing { training: Arc::new(training), rate, step: 0, scalars: at, states, bytes });
        Ok(())
    }

    fn unfit(&self, training: &Training, why: String) -> Error {
        let why = format!("optimizer {}: {why}", training.optimizer.rule().name);
        Error::Device { device: self.gpu.context().name.clone(), why }
    }

    /// Bytes of the inputs, without the optimizer's scalars.
    fn base_inputs(&self) -> usize {
        self.optimizer.as_ref().map_or(self.inputs.len(), |o| o.scalars)
    }

    /// The memory layout for all parameters.
    fn laid_out(&self, training: &Training, store: &Store, positions: &[usize]) -> Result<Layout> {
        let (p, plan, limits) = (&self.prepared.program, &self.plan, self.gpu.limits());
        let chunk = limits.binding;
        let mut l = Layout { placed: vec![], states: vec![], initial: vec![], bytes: [0; 2] };
        let mut lives: Vec<Lifetime> = vec![];
        for (i, (g, m)) in plan.gradients.iter().zip(&training.members).enumerate() {
            let update = training.update(i);
            let mut placed = Placed {
                parameter: store.places(positions[g.parameter]),
                gradient: p.memory.places[g.buffer].iter().map(|r| r.at).collect(),
                offset: g.offset,
                own: !matches!(plan.buffers[g.buffer].place, Place::Scratch),
                alone: plan.outputs.iter().any(|o| o.buffer == g.buffer),
                ..Placed::default()
            };
            let count = element_states(update);
            let pieces = pieces(m, count, chunk);
            lives.extend(pieces.iter().map(|bytes| Lifetime { bytes: bytes * count, from: 0, to: 0 }));
            if update.is_elementwise() {
                placed.small.states = vec![None; update.states.len()];
            } else {
                let whole = placed.parameter.len() == 1 && placed.gradient.len() == 1 && pieces.len() <= 1;
                placed.small = match small(training, m, limits, &mut l.bytes[1]) {
                    Some(small) if whole => small,
                    _ => return Err(self.unfit(training, format!("\"{}\" is too large for it", m.name))),
                };
            }
            l.placed.push(placed);
        }
        let (places, total) = memory::place(&lives, ALIGN, chunk);
        l.bytes[0] = if lives.is_empty() { 0 } else { total };
        let mut places = places.into_iter();
        for (i, (m, placed)) in training.members.iter().zip(&mut l.placed).enumerate() {
            let update = training.update(i);
            let pieces = pieces(m, element_states(update), chunk);
            placed.states = places.by_ref().take(pieces.len()).collect();
            let mut number = 0;
            for (state, small) in update.states.iter().zip(&placed.small.states) {
                if state.initial != 0.0 {
                    l.initial.push((l.states.len(), state.initial));
                }
                let bytes = m.geometry.count(state.span) * 4;
                l.states.push(match small {
                    Some(word) => (SMALL, vec![Region { at: word * 4, bytes }]),
                    None => {
                        let each = |(&at, &own): (&usize, &usize)| (at + number * own, own);
                        let runs = placed.states.iter().zip(&pieces).map(each);
                        let mut left = bytes;
                        let region = |(at, own): (usize, usize)| {
                            let bytes = left.min(own);
                            left -= bytes;
                            Region { at, bytes }
                        };
                        let regions = runs.map(region).collect();
                        number += 1;
                        (STATES, regions)
                    }
                });
            }
        }
        if l.bytes[1] > chunk {
            let why = format!("its means take {} bytes, and one binding covers {chunk}", l.bytes[1]);
            return Err(self.unfit(training, why));
        }
        Ok(l)
    }

    /// The optimizer, if one was set.
    pub fn training(&self) -> Option<&Training> {
        self.optimizer.as_ref().map(|o| &*o.training)
    }

    /// Its learning rate.
    pub fn learning_rate_mut(&mut self) -> Option<&mut f32> {
        self.optimizer.as_mut().map(|o| &mut o.rate)
    }

    /// Bytes of its states.
    pub fn optimizer_bytes(&self) -> usize {
        self.optimizer.as_ref().map_or(0, |o| o.bytes)
    }

    /// The inputs of the next step that depend on the number of previous steps.
    pub(super) fn counts(&self) -> Counts {
        let optimizer = self.optimizer.as_ref();
        let optimizer = optimizer.map(|o| (o.training.clone(), o.rate, o.step, o.scalars));
        Counts { optimizer, counter: self.counter }
    }

    /// Its step count. Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn optimizer_steps(&self) -> Result<u64> {
        let step = self.optimizer.as_ref().map_or(0, |o| o.step);
        let refused = self.on_run(|r, transfer, context| {
            r.told(context, transfer)?;
            Ok(r.watch.counted())
        })?;
        Ok(step.saturating_sub(refused))
    }

    /// The bytes of one of its states. Waits for pending steps.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn optimizer_state(&self, at: usize) -> Result<Vec<u8>> {
        let states = self.optimizer.as_ref().map(|o| &o.states);
        let (heap, regions) = states
            .and_then(|s| s.get(at))
            .cloned()
            .ok_or_else(|| Error::internal("a state that is not there"))?;
        self.on_run(move |r, transfer, context| {
            r.settle(context)?;
            let mut all = vec![];
            for region in regions {
                let mut bytes = vec![0; region.bytes];
                transfer.download(r.kept[heap].at(region), &mut bytes)?;
                all.extend(bytes);
            }
            Ok(all)
        })
    }

    /// Overwrites states (sizes must match), and the step count if given.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn set_optimizer_states(&mut self, states: &[(usize, &[u8])], steps: Option<u64>) -> Result<()> {
        let Some(o) = &mut self.optimizer else { return Ok(()) };
        let given: Vec<_> =
            states.iter().map(|(at, bytes)| (o.states[*at].clone(), bytes.to_vec())).collect();
        o.step = steps.unwrap_or(o.step);
        self.on_run(move |r, transfer, context| {
            r.told(context, transfer)?;
            given
                .iter()
                .try_for_each(|((heap, regions), bytes)| put(&r.kept[*heap], regions, transfer, bytes))
        })?;
        if steps.is_some() {
            lock(&self.log).count_anew();
        }
        Ok(())
    }
}

fn put(heap: &Heap, regions: &[Region], transfer: &mut Transfer, bytes: &[u8]) -> Result<()> {
    let mut rest = bytes;
    for region in regions {
        let (own, others) = rest.split_at(region.bytes.min(rest.len()));
        transfer.upload(heap.at(*region), own)?;
        rest = others;
    }
    Ok(())
}

fn layout_bytes(states: &[(usize, Vec<Region>)]) -> usize {
    states.iter().flat_map(|s| &s.1).map(|r| r.bytes).sum()
}

/// Bytes of each per-element state in each piece of a parameter's states.
fn pieces(m: &Member, states: usize, chunk: usize) -> Vec<usize> {
    if states == 0 {
        return vec![];
    }
    let (all, unit) = (m.geometry.count(Span::Element), unit(states, chunk));
    (0..all.div_ceil(unit)).map(|n| ((all - n * unit).min(unit) * 4).next_multiple_of(16)).collect()
}

/// Offsets of a parameter's small values, from `bytes` on; `None` for a mean of too many values.
fn small(training: &Training, m: &Member, limits: &Limits, bytes: &mut usize) -> Option<Small> {
    let (update, of) = (&training.updates[m.update], m.geometry);
    let mut take = |words: usize| {
        let at = *bytes / 4;
        // vec4 accesses may read past the last element
        *bytes += (words * 4 + 16).next_multiple_of(16);
        at
    };
    let states = update.states.iter();
    let states = states.map(|s| (s.span != Span::Element).then(|| take(of.count(s.span)))).collect();
    let kept = update.kept.iter().map(|span| take(of.count(*span))).collect();
    let mut means = vec![];
    for &(from, to) in &update.means {
        let sums = of.count(to);
        means.push(take(cut(of.count(from) / sums, sums, to, limits)?.pieces * sums));
    }
    Some(Small { states, kept, means })
}

/// Allocates an optimizer's memory: tables, and states at their initial values.
fn memory_of(
    context: &Context,
    transfer: &mut Transfer,
    table: &[u32],
    sizes: [usize; 3],
    layout: &Layout,
    chunk: usize,
) -> Result<Vec<Heap>> {
    let mut made: Vec<Heap> = vec![];
    let mut make = |made: &mut Vec<Heap>| -> Result<()> {
        let chunks = [sizes[TABLES].max(4), chunk, chunk];
        let what = ["optimizer tables", "optimizer states", "optimizer means"];
        for ((bytes, chunk), what) in sizes.into_iter().zip(chunks).zip(what) {
            made.push(Heap::new(context, bytes, chunk, what)?);
        }
        transfer.upload(made[TABLES].at(Region { at: 0, bytes: 0 }), bytemuck::cast_slice(table))?;
        let pieces: Vec<_> = made[STATES..].iter().flat_map(Heap::pieces).collect();
        transfer.fill(&pieces, 0)?;
        for (state, value) in &layout.initial {
            let (heap, regions) = &layout.states[*state];
            let values = vec![*value; regions.iter().map(|r| r.bytes / 4).sum()];
            put(&made[*heap], regions, transfer, bytemuck::cast_slice(&values))?;
        }
        Ok(())
    };
    match make(&mut made) {
        Ok(()) => Ok(made),
        Err(e) => {
            made.iter_mut().for_each(|h| h.free(context));
            Err(e)
        }
    }
}
