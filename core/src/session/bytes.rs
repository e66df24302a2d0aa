//! Inputs and outputs as bytes: what other languages give and take. Also without a copy, and with an end to waiting.

use super::Session;
use super::io::{OutputKey, into_buffer};
use super::run::{find, wrong_dtype};
use crate::error::{Error, Result};
use crate::plan::{BufferId, Port};
use crate::tensor::{Bytes, DType, TensorType};
use std::time::Duration;

/// The host's memory that a session reads, and copies that it keeps for the host.
#[derive(Debug, Default)]
pub struct Host {
    /// Inputs to send before each step, where the device does not read the host's memory.
    sent: Vec<(BufferId, Bytes<'static>)>,
    /// Outputs lent to the host, where they had to be fetched.
    lent: Vec<(BufferId, Vec<u8>)>,
}

impl Session {
    /// Gives an input of that dtype its elements as bytes, row-major.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::DType`], [`Error::Length`].
    pub fn set_input_bytes(&mut self, name: &str, dtype: DType, bytes: &[u8]) -> Result<()> {
        let at = find("input", name, self.inputs())?;
        check(&self.inputs()[at], dtype, bytes.len())?;
        self.write_input(at, bytes)
    }

    /// Reads an input where it lies in the host's memory, at each step, until the input is set or borrowed again; what it
    /// holds may change between steps. The CPU device copies nothing; a GPU is sent the bytes with each step.
    ///
    /// # Errors
    /// As [`set_input_bytes`](Session::set_input_bytes); [`Error::Argument`] if the bytes are not aligned for the dtype.
    pub fn borrow_input(&mut self, name: &str, dtype: DType, bytes: &Bytes<'static>) -> Result<()> {
        self.check()?;
        let at = find("input", name, self.inputs())?;
        let port = &self.inputs()[at];
        check(port, dtype, bytes.len())?;
        let align = dtype.size().unwrap_or(2);
        if !bytes.as_ptr().addr().is_multiple_of(align) {
            let came = format!("an address of {:#x}", bytes.as_ptr().addr());
            return Err(Error::argument(
                format!("input \"{name}\""),
                format!("alignment to {align} bytes"),
                came,
            ));
        }
        let buffer = port.buffer;
        self.now_given(at);
        if !self.executor.borrow(buffer, bytes) {
            self.host.sent.push((buffer, bytes.clone()));
        }
        Ok(())
    }

    /// Writes an input whose bytes were checked.
    pub(super) fn write_input(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let buffer = self.inputs()[at].buffer;
        self.executor.write(buffer, bytes)?;
        self.now_given(at);
        Ok(())
    }

    /// The input has data of the caller's.
    fn now_given(&mut self, at: usize) {
        let buffer = self.inputs()[at].buffer;
        self.counter = self.counter.filter(|&counted| counted != buffer);
        self.host.sent.retain(|(b, _)| *b != buffer);
        self.given[at] = true;
    }

    /// Before a step: sends what is borrowed, and takes back what was lent.
    pub(super) fn send_borrowed(&mut self) -> Result<()> {
        self.host.lent.clear();
        let (executor, sent) = (&mut self.executor, &self.host.sent);
        sent.iter().try_for_each(|(buffer, bytes)| executor.write(*buffer, bytes))
    }

    /// Copies an output of that dtype into the caller's memory.
    ///
    /// # Errors
    /// As [`read_output`](Session::read_output); [`Error::Length`] if the slice is not its size.
    pub fn read_output_bytes(&self, key: impl OutputKey, dtype: DType, into: &mut [u8]) -> Result<()> {
        let port = &self.outputs()[key.find(self.outputs())?];
        check(port, dtype, into.len()).map_err(|e| into_buffer(e, "bytes", into.len()))?;
        self.ready("the output")?;
        into.copy_from_slice(&self.executor.read(port.buffer)?);
        Ok(())
    }

    /// The bytes of an output where they lie: without a copy on the CPU device; from a GPU they are fetched once after
    /// each step.
    ///
    /// # Errors
    /// As [`read_output`](Session::read_output).
    pub fn lend_output(&mut self, key: impl OutputKey) -> Result<&[u8]> {
        let buffer = self.outputs()[key.find(self.outputs())?].buffer;
        self.ready("the output")?;
        if self.executor.as_gpu().is_some() && !self.host.lent.iter().any(|(b, _)| *b == buffer) {
            let fetched = self.executor.read(buffer)?.into_owned();
            self.host.lent.push((buffer, fetched));
        }
        match self.host.lent.iter().find(|(b, _)| *b == buffer) {
            Some((_, bytes)) => Ok(bytes),
            None => match self.executor.read(buffer)? {
                std::borrow::Cow::Borrowed(bytes) => Ok(bytes),
                std::borrow::Cow::Owned(_) => Err(Error::internal("an output that could not be lent")),
            },
        }
    }

    /// As [`wait`](Session::wait), for so long at most: says whether every step is done. With no time at all it only asks.
    ///
    /// # Errors
    /// As [`wait`](Session::wait).
    pub fn wait_for(&mut self, time: Duration) -> Result<bool> {
        self.check()?;
        let outcome = self.executor.wait_for(time);
        self.heard(&outcome);
        outcome
    }
}

/// The port takes elements of that dtype in so many bytes.
fn check(port: &Port, dtype: DType, bytes: usize) -> Result<()> {
    if port.dtype != dtype {
        return Err(wrong_dtype(&port.name, port.dtype, dtype));
    }
    let ty = TensorType::new(port.dtype, port.shape.clone());
    match ty.bytes() {
        Some(wanted) if wanted == bytes => Ok(()),
        wanted => {
            let wanted = format!("{ty} ({} bytes)", wanted.unwrap_or(0));
            Err(Error::Length { name: port.name.clone(), wanted, came: format!("{bytes} bytes") })
        }
    }
}
