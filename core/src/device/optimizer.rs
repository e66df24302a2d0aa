//! How training changes parameters: the rules that every device carries out.

/// How training changes parameters after each step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// p −= lr · g
    Sgd {
        /// Learning rate.
        lr: f32,
    },
    /// Kingma & Ba 2015, arXiv:1412.6980, algorithm 1.
    Adam {
        /// Learning rate.
        lr: f32,
        /// Decay of the mean of gradients.
        beta1: f32,
        /// Decay of the mean of squared gradients.
        beta2: f32,
        /// Added to the denominator.
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

    /// Changes the learning rate and nothing else.
    pub fn set_learning_rate(&mut self, rate: f32) {
        match self {
            Optimizer::Sgd { lr } | Optimizer::Adam { lr, .. } => *lr = rate,
        }
    }
}
