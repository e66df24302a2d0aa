//! States on a GPU, which sessions of several plans read and write in turns: memory of their own, that runs bind.
//!
//! Steps are ordered by the worker: whoever posts first is recorded and submitted first, and each submission waits for what those
//! before it have written. What a refused step leaves to be read (an index that lies in a state) is read before another session
//! changes it.

use super::Gpu;
use super::run::Heap;
use super::start::{narrowed, widened};
use super::store::{grow, lay_out};
use super::worker::WorkerState;
use crate::error::{Error, Result};
use crate::target::gpu::program::Region;
use crate::target::gpu::storage::{BufferStorage, ElementStorage, Form, state_storage};
use crate::tensor::{TensorType, copied};
use blade_graphics as blade;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The memory of a set of states on a device, each zeros when it is new.
pub struct StateMemory {
    gpu: Arc<Gpu>,
    /// By which the worker knows it.
    pub number: u64,
    /// How many runs bind it.
    pub runs: Arc<AtomicUsize>,
    states: Vec<(BufferStorage, Vec<Region>)>,
    heap: Option<Heap>,
}

impl StateMemory {
    /// An empty set.
    pub fn new(gpu: &Arc<Gpu>) -> StateMemory {
        static SETS: AtomicU64 = AtomicU64::new(0);
        let number = SETS.fetch_add(1, Ordering::Relaxed);
        StateMemory { gpu: gpu.clone(), number, runs: Arc::default(), states: vec![], heap: None }
    }

    /// The device it is on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Memory for more states. Those that are there stay where they are: sessions go on.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`]; nothing is added then.
    pub fn extend(&mut self, types: &[TensorType]) -> Result<()> {
        let limits = self.gpu.limits();
        let stored = |ty: &TensorType| BufferStorage {
            dtype: ty.dtype,
            elements: ty.elements(),
            form: Form::Stored(state_storage(ty.dtype, limits.f16)),
        };
        let more: Vec<BufferStorage> = types.iter().map(stored).collect();
        let sizes: Vec<usize> = more.iter().map(BufferStorage::bytes).collect();
        let chunk = limits.binding;
        let (places, total) = lay_out(&sizes, &[], chunk);
        let places = grow(&self.gpu, &mut self.heap, (places, total, chunk), "a set of states")?;
        self.states.extend(more.into_iter().zip(places));
        Ok(())
    }

    /// Where the pieces of a state begin, as long as the set lives.
    pub fn pieces(&self, state: usize) -> Vec<blade::BufferPiece> {
        let at = |r: &Region| self.heap.as_ref().map(|h| h.at(*r));
        self.states[state].1.iter().filter_map(at).collect()
    }

    /// Whether a plan takes a state to be stored as it is: `as_planned`, in so many pieces.
    ///
    /// # Errors
    /// [`Error::Argument`] if not.
    pub fn check(&self, name: &str, state: usize, as_planned: &BufferStorage, pieces: usize) -> Result<()> {
        let (stored, places) = &self.states[state];
        if stored == as_planned && places.len() == pieces {
            return Ok(());
        }
        let form =
            |s: &BufferStorage, pieces: usize| format!("{:?} of {} in {pieces} pieces", s.form, s.dtype);
        let (wanted, came) = (form(as_planned, pieces), form(stored, places.len()));
        Err(Error::argument(format!("state \"{name}\""), wanted, came))
    }

    /// A state's bytes, narrow elements packed, after all steps that were posted.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn read(&self, state: usize) -> Result<Vec<u8>> {
        let (pieces, stored) = (self.pieces(state), &self.states[state].0);
        let bytes = stored.stored();
        let _span = crate::device::trace::span("read", "state");
        let all = self.gpu.call(move |desk| desk.transfer.download_pieces(pieces, bytes))?;
        Ok(if stored.holds(ElementStorage::U32) { narrowed(stored.dtype, &all) } else { all })
    }

    /// Gives a state other bytes, as many as it has.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn write(&self, state: usize, bytes: &[u8]) -> Result<()> {
        let (pieces, stored) = (self.pieces(state), &self.states[state].0);
        let bytes = match stored.holds(ElementStorage::U32) {
            true => widened(stored.dtype, bytes),
            false => copied(bytes, "a state on its way to the device")?,
        };
        let set = self.number;
        let _span = crate::device::trace::span("upload", "state");
        self.gpu.call(move |desk| {
            desk.told_of_set(set, None)?;
            desk.transfer.upload_pieces(pieces, &bytes)
        })
    }

    /// Makes states zeros.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn reset(&self, states: &[usize]) -> Result<()> {
        let region = |r: &Region| self.heap.as_ref().map(|h| (h.at(*r), r.bytes as u64));
        let all: Vec<(blade::BufferPiece, u64)> =
            states.iter().flat_map(|&s| &self.states[s].1).filter_map(region).collect();
        let set = self.number;
        self.gpu.call(move |desk| {
            desk.told_of_set(set, None)?;
            desk.transfer.fill(&all, 0)
        })
    }

    /// Sizes of the states as they are stored.
    pub fn sizes(&self) -> Vec<usize> {
        self.states.iter().map(|s| s.0.bytes()).collect()
    }
}

impl Drop for StateMemory {
    fn drop(&mut self) {
        if let Some(mut heap) = self.heap.take() {
            self.gpu.post(move |desk| {
                // steps under way may still write it
                desk.settle()?;
                heap.free(&desk.context);
                Ok(())
            });
        }
    }
}

impl WorkerState {
    /// Before the states of a set change: what the steps of its runs, but for one, were refused for is read where it lies in a state.
    ///
    /// # Errors
    /// The device is lost.
    pub fn told_of_set(&mut self, set: u64, but: Option<u64>) -> Result<()> {
        let WorkerState { context, runs, transfer, .. } = self;
        let others = runs.iter_mut().filter(|(run, r)| r.set == set && Some(**run) != but);
        others.filter(|(_, r)| r.watch.waits()).try_for_each(|(_, r)| r.told(context, transfer))
    }
}
