//! Refused steps on a GPU: the look-ups that the host checks before a step starts, those that only the GPU can check, and the
//! refusals already reported.
//!
//! Indices in inputs, constants or results of init steps are checked by the host: a step refused for these is never submitted,
//! and valid steps cost nothing. Indices that a step computes are checked by its kernels: each look-up has a word of the error
//! buffer, which is reset at the start of each step, receives the smallest position of a bad index, and prevents later kernels
//! from writing to states and parameters. When a step completes, its words are read, together with the indices.

use crate::device::lock;
use crate::error::{Error, Result};
use crate::target::gpu::program::Lookup;
use crate::tensor::DType;
use blade_graphics as blade;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Maximum number of unreported refused steps that are remembered.
const UNTOLD: usize = 64;

/// A bad index: its position and value.
pub type Bad = (usize, i64);

/// A session's refused steps.
#[derive(Default)]
pub struct Refusals {
    untold: VecDeque<(u64, Error)>,
    latest: Option<(u64, Error)>,
    /// Number of steps refused after they had been counted, since counting started.
    counted: u64,
}

impl Refusals {
    /// Records a refused step.
    pub fn add(&mut self, step: u64, look: &Lookup, bad: Bad) {
        let error = look.refused(bad).of_step(step);
        if self.latest.as_ref().is_none_or(|l| l.0 < step) {
            self.latest = Some((step, error.clone()));
        }
        if self.untold.len() < UNTOLD {
            let at = self.untold.partition_point(|u| u.0 < step);
            self.untold.insert(at, (step, error));
        }
    }

    /// Reports the earliest unreported refused step, as an error, once.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`].
    pub fn tell(&mut self) -> Result<()> {
        self.untold.pop_front().map_or(Ok(()), |(_, e)| Err(e))
    }

    /// Why that step was refused, if it was, and no later one.
    pub fn of(&self, step: u64) -> Option<Error> {
        self.latest.as_ref().filter(|l| l.0 == step).map(|l| l.1.clone())
    }

    /// Restarts counting.
    pub fn count_anew(&mut self) {
        self.counted = 0;
    }
}

impl Lookup {
    /// The first bad index in the bytes of the indices' buffer.
    pub fn first_bad(&self, bytes: &[u8]) -> Option<Bad> {
        let good = |i: i64| (0..self.limit as i64).contains(&i) || Some(i) == self.ignored;
        let from = bytes.get(self.byte(0)..)?.chunks_exact(self.size()).take(self.count);
        from.map(|b| number(self.indices.dtype, b)).enumerate().find(|(_, i)| !good(*i))
    }

    /// The index at a position.
    pub fn index(&self, bytes: &[u8], position: usize) -> i64 {
        let at = self.byte(position);
        bytes.get(at..at + self.size()).map_or(0, |b| number(self.indices.dtype, b))
    }

    /// Bytes from the start of the indices' buffer to their end.
    pub fn bytes(&self) -> usize {
        self.byte(self.count)
    }

    fn byte(&self, position: usize) -> usize {
        (self.indices.offset.max(0) as usize + position) * self.size()
    }

    fn size(&self) -> usize {
        if self.indices.dtype == DType::I64 { 8 } else { 4 }
    }

    /// The error of a bad index.
    pub fn refused(&self, (position, index): Bad) -> Error {
        let (node, limit) = (self.label.clone(), self.limit);
        Error::IndexOutOfRange { step: None, node, index, position, limit }
    }
}

fn number(dtype: DType, bytes: &[u8]) -> i64 {
    let word = |at: usize| bytes.get(at..at + 4).map_or([0; 4], |b| [b[0], b[1], b[2], b[3]]);
    let low = u32::from_le_bytes(word(0));
    match dtype {
        DType::I64 => i64::from(low) | i64::from(i32::from_le_bytes(word(4))) << 32,
        DType::I32 => i64::from(low as i32),
        _ => i64::from(low),
    }
}

/// The first word that is set: its look-up's number and the position.
pub fn first_word(words: &[u8], among: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let words = words.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let found = words.enumerate().find(|&(i, w)| w != u32::MAX && among(i))?;
    Some((found.0, found.1 as usize))
}

/// A run's look-ups that the GPU checks.
#[derive(Default)]
pub struct Watch {
    /// Every look-up of the program.
    pub lookups: Vec<Lookup>,
    /// The numbers of those that only the GPU can check.
    pub computed: Vec<usize>,
    /// The buffers of all indices, in pieces.
    pub indices: Vec<Vec<blade::BufferPiece>>,
    /// For each look-up, the offset of its indices among a step's downloaded results, if they are few enough.
    pub down: Vec<Option<usize>>,
    /// The recorded refusals.
    pub log: Arc<Mutex<Refusals>>,
    /// Refused steps whose indices have not been read yet: step, look-up, position. No step runs in the meantime.
    pub unread: Vec<(u64, usize, usize)>,
}

impl Watch {
    /// Whether the GPU checks anything.
    pub fn is_needed(&self) -> bool {
        !self.computed.is_empty()
    }

    /// Whether a step must complete before the next one would overwrite its bad index.
    pub fn waits(&self) -> bool {
        self.computed.iter().any(|&i| self.down[i].is_none())
    }

    /// Checks a step's downloaded words.
    pub fn look(&mut self, step: u64, bytes: &[u8]) {
        let words = &bytes[..(self.lookups.len() * 4).min(bytes.len())];
        let Some((look, position)) = first_word(words, |i| self.computed.contains(&i)) else { return };
        lock(&self.log).counted += 1;
        match self.down[look] {
            Some(at) => {
                let index = self.lookups[look].index(&bytes[at..], position);
                lock(&self.log).add(step, &self.lookups[look], (position, index));
            }
            None => self.unread.push((step, look, position)),
        }
    }

    /// Number of steps refused after they were counted.
    pub fn counted(&self) -> u64 {
        lock(&self.log).counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Operand;

    fn look(dtype: DType, offset: isize, count: usize, ignored: Option<i64>) -> Lookup {
        let indices = Operand { buffer: 0, dtype, offset, strides: vec![1] };
        Lookup { label: "words".into(), indices, limit: 5, count, ignored, once: false, computed: false }
    }

    #[test]
    fn bad_indices_are_found_in_bytes_of_every_dtype_as_they_are_elsewhere() {
        let bytes = |all: &[i64]| all.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
        let narrow = |all: &[i32]| all.iter().flat_map(|i| i.to_le_bytes()).collect::<Vec<u8>>();
        let (wide, short) = (look(DType::I64, 1, 3, None), look(DType::I32, 1, 3, Some(-100)));
        // values outside the look-up's own indices are ignored
        assert_eq!(wide.first_bad(&bytes(&[9, 4, 0, 1, 9])), None);
        assert_eq!(wide.first_bad(&bytes(&[9, 4, 1 << 32, -1])), Some((1, 1 << 32)));
        assert_eq!(wide.first_bad(&bytes(&[0, i64::MIN, 1, 1])), Some((0, i64::MIN)));
        assert_eq!(short.first_bad(&narrow(&[7, -100, 4, -1])), Some((2, -1)));
        let words = look(DType::U32, 0, 2, None);
        assert_eq!(words.first_bad(&narrow(&[0, -1])), Some((1, i64::from(u32::MAX))));
        assert_eq!(words.index(&narrow(&[3, 2]), 1), 2);
    }

    #[test]
    fn refused_steps_are_told_once_each_the_earliest_first() {
        let (mut log, l) = (Refusals::default(), look(DType::I32, 0, 1, None));
        // the host's refusal of a step may be known before that of an earlier, pending one
        for step in [7, 3, 5] {
            log.add(step, &l, (0, step as i64 + 10));
        }
        assert!(log.of(5).is_none());
        assert_eq!(log.of(7), Some(l.refused((0, 17)).of_step(7)));
        let told: Vec<Error> = std::iter::from_fn(|| log.tell().err()).collect();
        let wanted = [3, 5, 7].map(|step| l.refused((0, step + 10)).of_step(step as u64));
        assert_eq!(told, wanted);
        (0..100).for_each(|step| log.add(10 + step, &l, (0, 9)));
        assert_eq!(std::iter::from_fn(|| log.tell().err()).count(), UNTOLD);
        assert!(log.of(109).is_some());
    }
}
