//! Optimizers of a session on a GPU: their memory and bindings, and which step it is that they make.

use super::Executor;
use crate::device::gpu::context::Context;
use crate::device::gpu::run::{Heap, Ready};
use crate::device::gpu::store::Store;
use crate::device::gpu::transfer::Transfer;
use crate::device::gpu::updates::{Batch, Update, arrange};
use crate::device::lock;
use crate::device::optimizer::Optimizer;
use crate::device::progress::Progress;
use crate::error::Result;
use crate::plan::Place;
use crate::plan::memory::{self, Lifetime};
use crate::target::gpu::ALIGN;
use crate::target::gpu::kernels;

/// What of a step depends on how many came before: an optimizer's rates, an input that counts.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    /// The optimizer, and the number of its step if none before is refused.
    pub optimizer: Option<(Optimizer, u64)>,
    /// Where its rates lie among the inputs.
    pub rates: usize,
    /// Where the input does.
    pub counter: Option<usize>,
}

impl Counts {
    /// Whether it makes a difference how many steps were refused.
    pub fn matter(&self) -> bool {
        matches!(self.optimizer, Some((Optimizer::Adam { .. }, _))) || self.counter.is_some()
    }

    /// Writes them into a step's inputs, where so many steps were counted before that were refused.
    pub fn write(&self, inputs: &mut [u8], refused: u64) {
        if let Some((optimizer, step)) = self.optimizer {
            let rates = rates(optimizer, step.saturating_sub(refused));
            inputs[self.rates..self.rates + 20].copy_from_slice(bytemuck::cast_slice(&rates));
        }
        if let (Some(at), 1..) = (self.counter, refused) {
            let counted = [0, 1, 2, 3].map(|i| inputs[at + i]);
            let steps = u32::from_le_bytes(counted).wrapping_sub(refused as u32);
            inputs[at..at + 4].copy_from_slice(&steps.to_le_bytes());
        }
    }
}

impl Executor {
    /// Makes steps change the parameters, or no longer.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] for Adam's moments, [`Error::DeviceLost`], [`Error::Driver`].
    pub fn set_optimizer(&mut self, optimizer: Optimizer, store: &Store, positions: &[usize]) -> Result<()> {
        let adam = matches!(optimizer, Optimizer::Adam { .. });
        let chunk = self.gpu.limits().binding;
        let (updates, moments) = self.planned(store, positions, adam);
        let batches = arrange(&updates, chunk);
        let words = self.prepared.program.lookups.len();
        let (texts, grids): (Vec<String>, Vec<[u32; 3]>) =
            batches.iter().map(|b| kernels::update::kernel(adam, b.table.len(), words)).unzip();
        let bindings = vec![if adam { 7 } else { 5 }; texts.len()];
        let pipelines =
            self.gpu.pipelines().get(self.gpu.context(), &texts, &bindings, &Progress::default())?;
        let weights: Vec<_> = batches.iter().filter_map(|b| store.at(b.parameters)).collect();
        self.updates = batches.len();
        self.on_run(move |r, transfer, context| {
            r.told(context, transfer)?;
            r.forget(context)?;
            let made = memory_of(context, transfer, (&batches, &grids), (moments, chunk))?;
            r.kept.drain(..).for_each(|mut h| h.free(context));
            // the rates are the last of what goes up
            let rates = r.uploads.last().map_or(r.errors.buffer.at(0), |p| p.piece);
            let mut updates = vec![];
            for (i, (b, weights)) in batches.iter().zip(weights).enumerate() {
                let heap = if b.own { &r.own } else { &r.arena };
                let table = Batch::piece(&made[i], 0);
                let mut pieces =
                    vec![weights, Batch::piece(heap, b.gradients), r.errors.buffer.at(0), rates, table];
                pieces.extend(made[batches.len()..].iter().map(|heap| Batch::piece(heap, b.moments)));
                let (pipeline, groups) = (pipelines[i].clone(), grids[i]);
                updates.push(Ready { pipeline, pieces, groups, barrier: i == 0, step: None });
            }
            (r.updates, r.kept) = (updates, made);
            Ok(())
        })?;
        lock(&self.log).count_anew();
        self.moments = 2 * moments;
        self.optimizer = Some((optimizer, 0));
        Ok(())
    }

    /// What the optimizer changes, and the bytes of each of Adam's moments.
    fn planned(&self, store: &Store, positions: &[usize], adam: bool) -> (Vec<Update>, usize) {
        let (p, plan) = (&self.prepared.program, &self.plan);
        let chunk = self.gpu.limits().binding;
        let mut lives: Vec<Lifetime> = vec![];
        let mut updates: Vec<Update> = vec![];
        for g in &plan.gradients {
            let elements: usize = plan.parameters[g.parameter].shape.iter().product();
            let parameter = store.places(positions[g.parameter]);
            let left = |n: usize| (elements * 4 - n * chunk).min(chunk);
            let piece = |n: usize| Lifetime { bytes: left(n).next_multiple_of(16), from: 0, to: 0 };
            lives.extend((0..parameter.len()).map(piece));
            updates.push(Update {
                elements,
                parameter,
                gradient: p.places[g.buffer].iter().map(|r| r.at).collect(),
                offset: g.offset,
                own: !matches!(plan.buffers[g.buffer].place, Place::Scratch),
                alone: plan.outputs.iter().any(|o| o.buffer == g.buffer),
                moments: vec![],
            });
        }
        if !adam {
            return (updates, 0);
        }
        let (places, total) = memory::place(&lives, ALIGN, chunk);
        let mut places = places.into_iter();
        for u in &mut updates {
            u.moments = places.by_ref().take(u.parameter.len()).collect();
        }
        (updates, total)
    }

    /// The optimizer and how many steps it has made.
    pub fn optimizer_mut(&mut self) -> &mut Option<(Optimizer, u64)> {
        &mut self.optimizer
    }
}

/// Memory of an optimizer: a table for each batch, then, if they have bytes, the two moments, zeros.
fn memory_of(
    context: &Context,
    transfer: &mut Transfer,
    (batches, grids): (&[Batch], &[[u32; 3]]),
    (moments, chunk): (usize, usize),
) -> Result<Vec<Heap>> {
    let mut made: Vec<Heap> = vec![];
    let mut make = |made: &mut Vec<Heap>| -> Result<()> {
        for (batch, &groups) in batches.iter().zip(grids) {
            let table = batch.bytes(groups);
            made.push(Heap::new(context, table.len(), table.len(), "optimizer tables")?);
            transfer.upload(Batch::piece(&made[made.len() - 1], 0), &table)?;
        }
        for _ in 0..if moments > 0 { 2 } else { 0 } {
            made.push(Heap::new(context, moments, chunk, "adam state")?);
        }
        let pieces: Vec<_> = made[batches.len()..].iter().flat_map(Heap::pieces).collect();
        transfer.fill(&pieces, 0)
    };
    match make(&mut made) {
        Ok(()) => Ok(made),
        Err(e) => {
            made.iter_mut().for_each(|h| h.free(context));
            Err(e)
        }
    }
}

/// What the update kernels take: see [`super::kernels::update`].
fn rates(optimizer: Optimizer, step: u64) -> [f32; 5] {
    match optimizer {
        Optimizer::Sgd { lr } => [lr, 0.0, 0.0, 0.0, 0.0],
        Optimizer::Adam { lr, beta1, beta2, eps } => {
            let correct = |b: f32| (1.0 - f64::from(b).powf(step as f64)) as f32;
            [lr / correct(beta1), beta1, beta2, eps, correct(beta2).sqrt().recip()]
        }
    }
}
