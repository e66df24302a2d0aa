//! A training loop over data in memory.

use super::{Progress, Session};
use crate::error::{Error, Result};
use crate::tensor::{DType, TensorType};

/// One input's elements for all batches, concatenated.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::{Batches, Progress};
///
/// let g = Graph::new();
/// let error = g.term(g.parameter("w", [1])) - g.input("x", DType::F32, [1]);
/// g.set_loss(g.mean_all(error * error));
/// let mut session = Compiler::new(&Device::cpu(1)).compile_training(&g)?.init_zeros()?;
/// session.set_optimizer(Optimizer::sgd(0.25))?;
/// let x: Vec<u8> = [1.0f32, 3.0, 1.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect(); // four batches
/// let data = [Batches { name: "x", dtype: DType::F32, bytes: &x }];
/// session.train(&data, 10, &Progress::default(), &mut |step, all, loss| println!("{step} of {all}: {loss}"))?;
/// assert!((session.read_parameter::<f32>("w")?[0] - 2.0).abs() < 0.5);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Batches<'a> {
    /// The input.
    pub name: &'a str,
    /// Its dtype.
    pub dtype: DType,
    /// The bytes of all batches.
    pub bytes: &'a [u8],
}

impl Session {
    /// Runs a step for each batch, `epochs` times; an optimizer must have been set. After each step, `see` gets the number of
    /// steps done, the total, and the loss. Inputs without batches keep their data.
    ///
    /// # Errors
    /// [`Error::Argument`] for no data, or inputs with different numbers of batches; [`Error::Cancelled`], between two steps;
    /// [`Error::IndexOutOfRange`] for a refused batch. Parameters then have the values after the previous steps, and training
    /// can be continued.
    pub fn train(
        &mut self,
        data: &[Batches<'_>],
        epochs: usize,
        wish: &Progress,
        see: &mut dyn FnMut(usize, usize, f32),
    ) -> Result<()> {
        let sizes = data.iter().map(|d| self.batch_bytes(d)).collect::<Result<Vec<usize>>>()?;
        let batches = data.first().zip(sizes.first()).map_or(0, |(d, size)| d.bytes.len() / size);
        let uneven = data.iter().zip(&sizes).find(|(d, size)| d.bytes.len() != batches * **size);
        if batches == 0 || uneven.is_some() {
            let came = match uneven {
                Some((d, size)) => format!("{} bytes of \"{}\", {size} a batch", d.bytes.len(), d.name),
                None => "none".into(),
            };
            return Err(Error::argument(
                "data",
                format!("whole batches, {} of each input", batches.max(1)),
                came,
            ));
        }
        let all = batches.saturating_mul(epochs);
        for step in 0..all {
            wish.check("training")?;
            for (d, size) in data.iter().zip(&sizes) {
                let from = step % batches * size;
                self.set_input_bytes(d.name, d.dtype, &d.bytes[from..from + size])?;
            }
            self.step()?;
            see(step + 1, all, self.loss()?);
        }
        Ok(())
    }

    fn batch_bytes(&self, data: &Batches<'_>) -> Result<usize> {
        let port = super::run::port("input", data.name, self.inputs())?;
        let bytes = TensorType::new(port.dtype, port.shape.clone()).bytes();
        bytes.filter(|b| *b > 0).ok_or_else(|| Error::internal("an input without bytes"))
    }
}
