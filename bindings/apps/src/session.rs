//! Sessions and their parameters: what is asked seldom. Inputs, steps and outputs cross by the data plane.

use crate::error::Result;
use crate::owned::{Handle, Owned};
use crate::types::{Memory, Ports};
use crate::weights::NativeWeights;
use abi::shared::caught;
use engine::optimizer::{Optimizer, RULES};
use engine::session::{Parameters, Session};
use std::collections::HashMap;
use std::sync::Arc;

/// A compiled graph with weights. One call at a time; another at the same time is refused as busy.
#[derive(uniffi::Object)]
pub struct NativeSession {
    pub(crate) of: Owned<Session>,
}

/// An optimizer: its name, learning rate, and the settings that differ from their defaults.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct OptimizerSettings {
    /// "sgd", "adam", "adamw", "laprop", "lion" or "adafactor".
    pub name: String,
    /// Learning rate, 0 or more.
    pub learning_rate: f32,
    /// Settings by the names of torch.optim: "momentum", "weight_decay", "beta1", …
    pub settings: HashMap<String, f32>,
}

/// The names of all optimizers.
#[uniffi::export]
pub fn optimizer_names() -> Vec<String> {
    RULES.iter().map(|rule| rule.name.to_string()).collect()
}

impl NativeSession {
    pub(crate) fn of(session: Session) -> Result<Arc<NativeSession>> {
        Ok(Arc::new(NativeSession { of: Owned::new(session)? }))
    }
}

#[uniffi::export]
impl NativeSession {
    /// Its tensors.
    pub fn ports(&self) -> Result<Ports> {
        caught("session_ports", || Ports::of(self.of.alone()?.compiled()))
    }

    /// What was odd at init and did not matter.
    pub fn warnings(&self) -> Result<Vec<String>> {
        caught("session_warnings", || Ok(self.of.alone()?.warnings().to_vec()))
    }

    /// What the session takes.
    pub fn memory(&self) -> Result<Memory> {
        caught("session_memory", || Ok(self.of.alone()?.memory_summary().into()))
    }

    /// Its weights, to share with another session or to save.
    pub fn parameters(&self) -> Result<Arc<NativeParameters>> {
        caught("session_parameters", || {
            let parameters = self.of.alone()?.parameters();
            Ok(Arc::new(NativeParameters { of: Owned::new(parameters)? }))
        })
    }

    /// Makes every later step change the parameters.
    pub fn set_optimizer(&self, optimizer: OptimizerSettings) -> Result<()> {
        caught("session_set_optimizer", || {
            let mut made = Optimizer::of(Optimizer::named(&optimizer.name)?.rule(), optimizer.learning_rate);
            for (name, value) in &optimizer.settings {
                made = made.with(name, *value)?;
            }
            Ok(self.of.alone()?.set_optimizer(made)?)
        })
    }

    /// Changes the learning rate and nothing else.
    pub fn set_learning_rate(&self, rate: f32) -> Result<()> {
        caught("session_set_learning_rate", || Ok(self.of.alone()?.set_learning_rate(rate)?))
    }

    /// How many steps the optimizer has made.
    pub fn optimizer_steps(&self) -> Result<i64> {
        caught("session_optimizer_steps", || Ok(self.of.alone()?.optimizer_steps()? as i64))
    }

    /// Everything that the optimizer keeps, to be saved.
    pub fn save_optimizer(&self) -> Result<Arc<NativeWeights>> {
        caught("session_save_optimizer", || NativeWeights::of(self.of.alone()?.save_optimizer()?))
    }

    /// Gives the optimizer what `save_optimizer` gave.
    pub fn restore_optimizer(&self, states: Arc<NativeWeights>) -> Result<()> {
        caught("session_restore_optimizer", || {
            let states = states.of.share()?;
            Ok(self.of.alone()?.restore_optimizer(&states)?)
        })
    }

    /// Makes every state of its graph zeros, as after init.
    pub fn reset_state(&self) -> Result<()> {
        caught("session_reset_state", || Ok(self.of.alone()?.reset_state()?))
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees the session, and what it borrowed.
    pub fn release(&self) -> Result<()> {
        caught("session_release", || self.of.close())
    }
}

/// The weights of sessions, in a device's memory. Threads may share it.
#[derive(uniffi::Object)]
pub struct NativeParameters {
    pub(crate) of: Owned<Parameters>,
}

#[uniffi::export]
impl NativeParameters {
    /// The weights as they are now.
    pub fn weights(&self) -> Result<Arc<NativeWeights>> {
        caught("parameters_weights", || NativeWeights::of(self.of.share()?.to_weights()?))
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees the handle; sessions over the weights keep them.
    pub fn release(&self) -> Result<()> {
        caught("parameters_release", || self.of.close())
    }
}
