//! What stays in a session from step to step: read, written, begun anew.

use super::Session;
use super::run::{check_tensor, find_among};
use crate::error::Result;
use crate::plan::StatePort;
use crate::tensor::{Bytes, Tensor, TensorType};

impl Session {
    /// States: name, dtype, shape.
    pub fn states(&self) -> &[StatePort] {
        &self.compiled.plan().states
    }

    /// Makes every state zeros, as after init.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost) on a GPU.
    pub fn reset_state(&mut self) -> Result<()> {
        self.check()?;
        for at in 0..self.states().len() {
            let zeros = crate::tensor::zeros(self.state_bytes(at), "the zeros of a state")?;
            let buffer = self.states()[at].buffer;
            self.executor.write(buffer, &zeros)?;
        }
        Ok(())
    }

    /// What a state is now: zeros before the first step, what it was before a step that was refused.
    ///
    /// # Errors
    /// [`Error::UnknownName`](crate::error::Error::UnknownName).
    pub fn read_state(&self, name: &str) -> Result<Tensor<'static>> {
        let port = &self.states()[self.find_state(name)?];
        self.check()?;
        let bytes = Bytes::from_vec(self.executor.read(port.buffer)?.into_owned());
        Tensor::from_bytes(port.dtype, port.shape.clone(), bytes)
    }

    /// Makes a state what a tensor of its dtype and shape holds: a cache kept from earlier.
    ///
    /// # Errors
    /// [`Error::UnknownName`](crate::error::Error::UnknownName), [`Error::DType`](crate::error::Error::DType), [`Error::Length`](crate::error::Error::Length).
    pub fn write_state(&mut self, name: &str, tensor: &Tensor<'_>) -> Result<()> {
        let port = &self.states()[self.find_state(name)?];
        check_tensor(name, port.dtype, &port.shape, tensor)?;
        self.check()?;
        let buffer = port.buffer;
        self.executor.write(buffer, tensor.contiguous().bytes())
    }

    fn state_bytes(&self, at: usize) -> usize {
        let port = &self.states()[at];
        TensorType::new(port.dtype, port.shape.clone()).bytes().unwrap_or(0)
    }

    fn find_state(&self, name: &str) -> Result<usize> {
        find_among("state", name, self.states().iter().map(|p| p.name.as_str()))
    }
}
