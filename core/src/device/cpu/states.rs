//! States in main memory, which sessions of several plans read and write in turns. Never moved: sessions keep addresses.

use super::buffer::Buffer;
use super::parameters::allocate;
use crate::error::{Error, Result};
use crate::tensor::copied;

/// The memory of a set of states, each zeros when it is new.
#[derive(Default)]
pub struct StateMemory {
    states: Vec<(Buffer, usize)>,
}

impl StateMemory {
    /// Memory for more states of so many bytes each.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; nothing is added then.
    pub fn extend(&mut self, sizes: &[usize]) -> Result<()> {
        let what = "a set of states";
        let held = self.states.iter().map(|s| s.1);
        let all = held.chain(sizes.iter().copied()).fold(0, usize::saturating_add) as u64;
        if let Some(most) = super::most_memory().filter(|most| all > *most) {
            return Err(Error::OutOfMemory { wanted: all, what: format!("{what}, where there are {most}") });
        }
        let state = |&bytes: &usize| Ok((allocate(bytes, what)?, bytes));
        let more = sizes.iter().map(state).collect::<Result<Vec<_>>>()?;
        self.states.extend(more);
        Ok(())
    }

    /// Where a state begins, as long as the set lives.
    pub fn base(&self, state: usize) -> *mut u8 {
        self.states[state].0.pointer()
    }

    /// A copy of a state's bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn read(&self, state: usize) -> Result<Vec<u8>> {
        let (buffer, bytes) = &self.states[state];
        // SAFETY: the buffer has so many bytes, and steps that write them hold the set as `&mut`.
        copied(unsafe { std::slice::from_raw_parts(buffer.pointer(), *bytes) }, "a state that is read")
    }

    /// A state's bytes, to change.
    pub fn bytes_mut(&mut self, state: usize) -> &mut [u8] {
        let (buffer, bytes) = &self.states[state];
        // SAFETY: as above; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(buffer.pointer(), *bytes) }
    }
}
