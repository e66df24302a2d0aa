//! Inputs and outputs as bytes, for bindings to other languages; also without a copy, and with a timeout for waiting.

use super::Session;
use super::io::{OutputKey, into_buffer};
use super::run::{find, wrong_dtype};
use crate::error::{Error, Result};
use crate::plan::{BufferId, Port};
use crate::tensor::{Bytes, DType, TensorType};
use std::time::Duration;

/// Host memory that a session reads, and copies of outputs that it lends to the host.
#[derive(Debug, Default)]
pub struct Host {
    /// Inputs to upload before each step, if the device cannot read host memory.
    sent: Vec<(BufferId, Bytes<'static>)>,
    /// Outputs lent to the host that had to be downloaded.
    lent: Vec<(BufferId, Vec<u8>)>,
}

impl Session {
    /// Sets an input of that dtype from bytes, row-major.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::DType`], [`Error::Length`].
    pub fn set_input_bytes(&mut self, name: &str, dtype: DType, bytes: &[u8]) -> Result<()> {
        let at = find("input", name, self.inputs())?;
        check(&self.inputs()[at], dtype, bytes.len())?;
        self.write_input(at, bytes)
    }

    /// Borrows host memory as an input: each step reads it, until the input is set or borrowed again; its contents may change
    /// between steps. The CPU device copies nothing; a GPU uploads the bytes with each step.
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

    /// Writes an input whose bytes have been checked.
    pub(super) fn write_input(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let buffer = self.inputs()[at].buffer;
        self.executor.write(buffer, bytes)?;
        self.now_given(at);
        Ok(())
    }

    /// Marks an input as set by the caller.
    fn now_given(&mut self, at: usize) {
        let buffer = self.inputs()[at].buffer;
        self.counter = self.counter.filter(|&counted| counted != buffer);
        self.host.sent.retain(|(b, _)| *b != buffer);
        self.given[at] = true;
    }

    /// Before a step: uploads borrowed inputs, and drops lent outputs.
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

    /// Lends the bytes of an output: without a copy on the CPU device; from a GPU they are downloaded once after each step.
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

    /// As [`wait`](Session::wait), with a timeout: returns whether every step is done. A zero timeout polls.
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

/// Checks that the port has that dtype and size.
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
