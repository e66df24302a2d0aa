//! Weights on a GPU, shared by sessions.

use super::Gpu;
use super::program::{ALIGN, Region};
use super::run::Heap;
use crate::error::Result;
use crate::plan::memory::{self, Lifetime};
use crate::tensor::{Bytes, Tensor, TensorType};
use blade_graphics as blade;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A set of weights in the device's memory.
pub struct Store {
    gpu: Arc<Gpu>,
    /// Names and types, in the order of the first plan's.
    pub parameters: Vec<(String, TensorType)>,
    /// The pieces of each.
    places: Vec<Vec<Region>>,
    heap: Option<Heap>,
    /// Grows with every change.
    version: AtomicU64,
}

impl Store {
    /// Takes memory for parameters; each is then given its bytes (`None`: zeros).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(
        gpu: &Arc<Gpu>,
        parameters: Vec<(String, TensorType, Option<Tensor<'static>>)>,
    ) -> Result<Store> {
        let chunk = gpu.context().limits.binding;
        let mut pieces: Vec<(usize, Lifetime)> = vec![];
        for (i, (_, ty, _)) in parameters.iter().enumerate() {
            let bytes = ty.bytes().unwrap_or(0).max(1).next_multiple_of(16);
            let count = bytes.div_ceil(chunk);
            let piece = |n: usize| (i, Lifetime { bytes: (bytes - n * chunk).min(chunk), from: 0, to: 0 });
            pieces.extend((0..count).map(piece));
        }
        let lives: Vec<Lifetime> = pieces.iter().map(|p| p.1).collect();
        let (offsets, total) = memory::place(&lives, ALIGN, chunk);
        let mut places = vec![vec![]; parameters.len()];
        for ((i, life), at) in pieces.into_iter().zip(offsets) {
            places[i].push(Region { at, bytes: life.bytes });
        }
        let heap = gpu.call(move |desk| {
            let mut heap = Heap::new(&desk.context, total, chunk, "weights")?;
            if let Err(e) = desk.transfer.fill(&heap.pieces(), 0) {
                heap.free(&desk.context);
                return Err(e);
            }
            Ok(heap)
        })?;
        let mut store = Store {
            gpu: gpu.clone(),
            parameters: vec![],
            places,
            heap: Some(heap),
            version: AtomicU64::new(0),
        };
        let (mut names, mut given) = (vec![], vec![]);
        for (i, (name, ty, tensor)) in parameters.into_iter().enumerate() {
            names.push((name, ty));
            given.extend(tensor.map(|t| (i, t)));
        }
        store.parameters = names;
        let all: Vec<(Vec<blade::BufferPiece>, Tensor<'static>)> =
            given.into_iter().map(|(i, t)| (store.pieces(i), t)).collect();
        gpu.call(move |desk| {
            all.into_iter().try_for_each(|(pieces, t)| desk.transfer.upload_pieces(pieces, t.bytes()))
        })?;
        Ok(store)
    }

    /// The device it is on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// Where the pieces of a parameter begin.
    pub fn pieces(&self, parameter: usize) -> Vec<blade::BufferPiece> {
        let at = |r: &Region| self.heap.as_ref().map(|h| h.at(*r));
        self.places[parameter].iter().filter_map(at).collect()
    }

    /// Where these lie in the heap of weights, in bytes.
    pub fn places(&self, parameter: usize) -> Vec<usize> {
        self.places[parameter].iter().map(|r| r.at).collect()
    }

    /// A place of the heap of weights.
    pub fn at(&self, at: usize) -> Option<blade::BufferPiece> {
        self.heap.as_ref().map(|h| h.at(Region { at, bytes: 0 }))
    }

    /// Gives a parameter other bytes, as many as it has.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn write(&self, parameter: usize, bytes: &[u8]) -> Result<()> {
        let (pieces, bytes) = (self.pieces(parameter), bytes.to_vec());
        self.changed();
        self.gpu.call(move |desk| desk.transfer.upload_pieces(pieces, &bytes))
    }

    /// Which state of the weights it is: sessions that computed something from another compute it again.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Takes note that work which changes them has been or is about to be posted.
    pub fn changed(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// A parameter's bytes.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn read(&self, parameter: usize) -> Result<Vec<u8>> {
        let pieces = self.pieces(parameter);
        let bytes = self.parameters[parameter].1.bytes().unwrap_or(0);
        self.gpu.call(move |desk| desk.transfer.download_pieces(pieces, bytes))
    }

    /// A parameter as a host tensor.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn tensor(&self, parameter: usize) -> Result<Tensor<'static>> {
        let ty = &self.parameters[parameter].1;
        Tensor::from_bytes(ty.dtype, ty.shape.clone(), Bytes::from_vec(self.read(parameter)?))
    }

    /// Sizes of the parameters.
    pub fn sizes(&self) -> Vec<usize> {
        self.parameters.iter().map(|p| p.1.bytes().unwrap_or(0)).collect()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(mut heap) = self.heap.take() {
            self.gpu.post(move |desk| {
                // steps under way may still read it
                desk.settle()?;
                heap.free(&desk.context);
                Ok(())
            });
        }
    }
}

/// A host application's buffer in the place of one of the session's.
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// Where it begins.
    pub piece: blade::BufferPiece,
    /// Bytes from there on.
    pub bytes: u64,
}
