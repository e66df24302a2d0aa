//! States on a GPU, which sessions of several plans read and write in turn: memory of their own that runs bind.
//!
//! The worker orders steps: they are recorded and submitted in the order in which they are posted, and each submission waits
//! for the writes of earlier ones. A bad index in a state that refused a step is read before another session can change the
//! state.

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

/// The memory of a set of states on a device, initially zeros.
pub struct StateMemory {
    gpu: Arc<Gpu>,
    /// Identifies the set on the worker.
    pub number: u64,
    /// Number of runs that bind it.
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

    /// Allocates memory for more states. Existing ones keep their addresses, so sessions are not disturbed.
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

    /// The starts of a state's pieces, valid for the set's lifetime.
    pub fn pieces(&self, state: usize) -> Vec<blade::BufferPiece> {
        let at = |r: &Region| self.heap.as_ref().map(|h| h.at(*r));
        self.states[state].1.iter().filter_map(at).collect()
    }

    /// Checks that a plan expects a state's actual storage: `as_planned`, in that many pieces.
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

    /// A state's bytes, narrow elements packed, after all posted steps.
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

    /// Overwrites a state's bytes; the size must match.
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

    /// Zeroes states.
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

    /// Stored sizes of the states.
    pub fn sizes(&self) -> Vec<usize> {
        self.states.iter().map(|s| s.0.bytes()).collect()
    }
}

impl Drop for StateMemory {
    fn drop(&mut self) {
        if let Some(mut heap) = self.heap.take() {
            self.gpu.post(move |desk| {
                // pending steps may still write it
                desk.settle()?;
                heap.free(&desk.context);
                Ok(())
            });
        }
    }
}

impl WorkerState {
    /// Before the states of a set change: reads bad indices in states that refused steps of its runs, except of run `but`.
    ///
    /// # Errors
    /// The device is lost.
    pub fn told_of_set(&mut self, set: u64, but: Option<u64>) -> Result<()> {
        let WorkerState { context, runs, transfer, .. } = self;
        let others = runs.iter_mut().filter(|(run, r)| r.set == set && Some(**run) != but);
        others.filter(|(_, r)| r.watch.waits()).try_for_each(|(_, r)| r.told(context, transfer))
    }
}
