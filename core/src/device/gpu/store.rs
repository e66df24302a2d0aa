//! Weights on a GPU, shared by sessions.

use super::Gpu;
use super::run::Heap;
use crate::error::Result;
use crate::plan::memory::{self, Lifetime};
use crate::target::gpu::{ALIGN, program::Region};
use crate::tensor::{Bytes, Tensor, TensorType};
use blade_graphics as blade;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A set of weights in the device's memory.
pub struct Store {
    gpu: Arc<Gpu>,
    /// Names and types, in the order of the first plan's parameters.
    pub parameters: Vec<(String, TensorType)>,
    /// The pieces of each.
    places: Vec<Vec<Region>>,
    heap: Option<Heap>,
    /// Incremented with every change.
    version: AtomicU64,
}

impl Store {
    /// Allocates parameters and uploads their bytes (`None`: zeros). Parameters in a group of `adjacent` are placed adjacently,
    /// if memory allows it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::DeviceLost`].
    pub fn new(
        gpu: &Arc<Gpu>,
        parameters: Vec<(String, TensorType, Option<Tensor<'static>>)>,
        adjacent: &[Vec<String>],
    ) -> Result<Store> {
        let version = AtomicU64::new(0);
        let mut store = Store { gpu: gpu.clone(), parameters: vec![], places: vec![], heap: None, version };
        store.extend(parameters, adjacent)?;
        Ok(store)
    }

    /// Allocates more parameters. Existing ones keep their addresses, so sessions are not disturbed.
    ///
    /// # Errors
    /// As [`new`](Store::new); nothing is added then.
    pub fn extend(
        &mut self,
        parameters: Vec<(String, TensorType, Option<Tensor<'static>>)>,
        adjacent: &[Vec<String>],
    ) -> Result<()> {
        let chunk = self.gpu.context().limits.binding;
        let sizes: Vec<usize> =
            parameters.iter().map(|p| p.1.bytes().unwrap_or(0).max(1).next_multiple_of(16)).collect();
        let number = |name: &String| parameters.iter().position(|p| p.0 == *name);
        let named: Vec<Vec<usize>> =
            adjacent.iter().filter_map(|run| run.iter().map(number).collect()).collect();
        let (places, total) = lay_out(&sizes, &named, chunk);
        let places = grow(&self.gpu, &mut self.heap, (places, total, chunk), "weights")?;
        let before = self.parameters.len();
        self.places.extend(places);
        let mut given = vec![];
        for (i, (name, ty, tensor)) in parameters.into_iter().enumerate() {
            self.parameters.push((name, ty));
            given.extend(tensor.map(|t| (before + i, t)));
        }
        let all: Vec<(Vec<blade::BufferPiece>, Tensor<'static>)> =
            given.into_iter().map(|(i, t)| (self.pieces(i), t)).collect();
        let sent = self.gpu.call(move |desk| {
            all.into_iter().try_for_each(|(pieces, t)| desk.transfer.upload_pieces(pieces, t.bytes()))
        });
        if sent.is_err() {
            // their memory stays allocated, without names
            self.parameters.truncate(before);
            self.places.truncate(before);
        }
        sent
    }

    /// Whether parameters are adjacent in memory.
    pub fn adjoin(&self, parameters: &[usize]) -> bool {
        let one = |i: &usize| match self.places[*i].as_slice() {
            [only] => Some(*only),
            _ => None,
        };
        let Some(all) = parameters.iter().map(one).collect::<Option<Vec<Region>>>() else { return false };
        let same_chunk = |a: Region, b: Region| self.heap.as_ref().is_some_and(|h| h.in_one_chunk(a, b));
        all.windows(2).all(|w| w[0].at + w[0].bytes == w[1].at && same_chunk(w[0], w[1]))
    }

    /// The device it is on.
    pub fn gpu(&self) -> &Arc<Gpu> {
        &self.gpu
    }

    /// The starts of a parameter's pieces.
    pub fn pieces(&self, parameter: usize) -> Vec<blade::BufferPiece> {
        let at = |r: &Region| self.heap.as_ref().map(|h| h.at(*r));
        self.places[parameter].iter().filter_map(at).collect()
    }

    /// Their byte offsets in the heap of weights.
    pub fn places(&self, parameter: usize) -> Vec<usize> {
        self.places[parameter].iter().map(|r| r.at).collect()
    }

    /// The buffer at a byte offset in the heap of weights.
    pub fn at(&self, at: usize) -> Option<blade::BufferPiece> {
        self.heap.as_ref().map(|h| h.at(Region { at, bytes: 0 }))
    }

    /// Overwrites a parameter's bytes; the size must match.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn write(&self, parameter: usize, bytes: &[u8]) -> Result<()> {
        let (pieces, bytes) =
            (self.pieces(parameter), crate::tensor::copied(bytes, "a weight on its way to the device")?);
        self.changed();
        self.gpu.call(move |desk| desk.transfer.upload_pieces(pieces, &bytes))
    }

    /// The version of the weights: sessions recompute folded weights when it has changed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Notes that work that changes the weights has been, or is about to be, posted.
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

/// Appends zeroed memory to a heap, in chunks of one binding, and converts the new regions' offsets to offsets in the whole
/// heap.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::DeviceLost`]; nothing is added then.
pub fn grow(
    gpu: &Gpu,
    heap: &mut Option<Heap>,
    (places, total, chunk): (Vec<Vec<Region>>, usize, usize),
    what: &'static str,
) -> Result<Vec<Vec<Region>>> {
    let more = gpu.call(move |desk| {
        let mut more = Heap::new(&desk.context, total, chunk, what)?;
        if let Err(e) = desk.transfer.fill(&more.pieces(), 0) {
            more.free(&desk.context);
            return Err(e);
        }
        Ok(more)
    })?;
    let base = match heap {
        Some(own) => own.append(more),
        empty => {
            *empty = Some(more);
            0
        }
    };
    let moved = |place: Vec<Region>| place.into_iter().map(|r| Region { at: base + r.at, ..r }).collect();
    Ok(places.into_iter().map(moved).collect())
}

/// Regions of parameters with those sizes, and total memory. A group of parameters is adjacent if the size of each is a
/// multiple of the alignment, no other group contains one of them, and all of it fits into a binding.
pub fn lay_out(sizes: &[usize], adjacent: &[Vec<usize>], chunk: usize) -> (Vec<Vec<Region>>, usize) {
    let mut free = vec![true; sizes.len()];
    let mut runs: Vec<Vec<usize>> = vec![];
    for run in adjacent {
        let sum: usize = run.iter().map(|&i| sizes[i]).sum();
        if sum <= chunk && run.iter().all(|&i| free[i] && sizes[i].is_multiple_of(ALIGN)) {
            run.iter().for_each(|&i| free[i] = false);
            runs.push(run.clone());
        }
    }
    runs.extend((0..sizes.len()).filter(|&i| free[i]).map(|i| vec![i]));
    let mut pieces: Vec<(usize, Lifetime)> = vec![];
    for (n, run) in runs.iter().enumerate() {
        let bytes: usize = run.iter().map(|&i| sizes[i]).sum();
        let piece = |i: usize| (n, Lifetime { bytes: (bytes - i * chunk).min(chunk), from: 0, to: 0 });
        pieces.extend((0..bytes.div_ceil(chunk)).map(piece));
    }
    let lives: Vec<Lifetime> = pieces.iter().map(|p| p.1).collect();
    let (offsets, total) = memory::place(&lives, ALIGN, chunk);
    let mut places = vec![vec![]; sizes.len()];
    for ((n, life), mut at) in pieces.into_iter().zip(offsets) {
        for &i in &runs[n] {
            let bytes = if runs[n].len() > 1 { sizes[i] } else { life.bytes };
            places[i].push(Region { at, bytes });
            at += bytes;
        }
    }
    (places, total)
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(mut heap) = self.heap.take() {
            self.gpu.post(move |desk| {
                // pending steps may still read it
                desk.settle()?;
                heap.free(&desk.context);
                Ok(())
            });
        }
    }
}

/// A host application's buffer, used in place of one of the session's.
///
/// ```no_run
/// use weft::prelude::*;
///
/// fn show_where_it_lies(session: &mut Session) -> weft::error::Result<u64> {
///     let picture = session.shared_output("picture")?; // for a renderer of the same context
///     Ok(picture.bytes)
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Foreign {
    /// Its start.
    pub piece: blade::BufferPiece,
    /// Bytes from there on.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_that_belong_together_lie_so_and_no_two_overlap() {
        let sizes = [512, 80, 1024, 256, 4096, 768, 256, 48];
        // the second group shares one with the first, a size of the third is no multiple of the alignment, the fourth is too
        // long
        let adjacent = [vec![3, 0, 2], vec![2, 6], vec![1, 6], vec![4, 5]];
        let (places, total) = lay_out(&sizes, &adjacent, 4096);
        let at: Vec<usize> = places.iter().map(|p| p[0].at).collect();
        assert_eq!((at[0], at[2]), (at[3] + 256, at[3] + 256 + 512));
        let mut all: Vec<Region> = places.concat();
        all.sort_by_key(|r| r.at);
        assert!(all.windows(2).all(|w| w[0].at + w[0].bytes <= w[1].at));
        assert!(all.iter().all(|r| r.at + r.bytes <= total && r.at / 4096 == (r.at + r.bytes - 1) / 4096));
        // parameters larger than a binding are divided into pieces
        let (places, _) = lay_out(&sizes, &[], 1024);
        assert_eq!(places[4].iter().map(|r| r.bytes).collect::<Vec<_>>(), [1024; 4]);
    }
}
