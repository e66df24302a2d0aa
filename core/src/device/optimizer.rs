//! How training changes parameters: the rules that every device carries out, and which of their settings are sound.

use crate::error::{Error, Result};

/// How training changes parameters after each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// p −= lr · g
    Sgd {
        /// Learning rate, 0 or more.
        lr: f32,
    },
    /// Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    Adam {
        /// Learning rate, 0 or more.
        lr: f32,
        /// Decay of the mean of gradients, 0 or more and below 1.
        beta1: f32,
        /// Decay of the mean of squared gradients, 0 or more and below 1.
        beta2: f32,
        /// Added to the denominator, 0 or more.
        eps: f32,
    },
}

impl Optimizer {
    /// Stochastic gradient descent.
    pub fn sgd(lr: f32) -> Self {
        Optimizer::Sgd { lr }
    }

    /// Adam with its authors' constants.
    pub fn adam(lr: f32) -> Self {
        Optimizer::Adam { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8 }
    }

    /// Whether its settings are numbers that do not ruin weights: a rate that is no number or below 0, a mean that never
    /// forgets or grows, a denominator that may be negative.
    ///
    /// # Errors
    /// [`Error::Argument`] with the first that is not.
    pub fn check(&self) -> Result<()> {
        let (Optimizer::Sgd { lr } | Optimizer::Adam { lr, .. }) = *self;
        check_rate(lr)?;
        let Optimizer::Adam { beta1, beta2, eps, .. } = *self else { return Ok(()) };
        for (what, beta) in [("beta1", beta1), ("beta2", beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return Err(Error::argument(what, "a number from 0, below 1", beta));
            }
        }
        not_below_0("epsilon", eps)
    }

    /// Changes the learning rate and nothing else.
    pub fn set_learning_rate(&mut self, rate: f32) {
        match self {
            Optimizer::Sgd { lr } | Optimizer::Adam { lr, .. } => *lr = rate,
        }
    }
}

/// Whether a learning rate is a finite number, 0 or more.
///
/// # Errors
/// [`Error::Argument`].
pub(crate) fn check_rate(rate: f32) -> Result<()> {
    not_below_0("learning rate", rate)
}

fn not_below_0(what: &str, value: f32) -> Result<()> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(()),
        false => Err(Error::argument(what, "a finite number, 0 or more", value)),
    }
}
