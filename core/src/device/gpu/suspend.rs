//! Suspends a GPU while its application is in the background: systems kill applications that submit work then.
//!
//! Calls hold the gate open while they run, and steps while they are posted, so that `suspend` returns between two steps: all
//! accepted work is done, and no more is accepted.

use super::Gpu;
use super::worker::WorkerState;
use crate::error::{Error, Result};
use crate::log::{Level, tell};
use std::sync::{RwLock, RwLockReadGuard};

/// Whether a GPU is suspended.
#[derive(Default)]
pub struct Life {
    suspended: RwLock<bool>,
}

impl Gpu {
    /// Refuses a GPU that was opened before a fork.
    fn born(&self) -> Result<()> {
        crate::process::check(self.context.born, &self.context.name)
    }

    /// Prevents suspension of the GPU for the lifetime of the returned guard.
    ///
    /// # Errors
    /// [`Error::Suspended`], [`Error::Forked`].
    pub(super) fn awake(&self) -> Result<RwLockReadGuard<'_, bool>> {
        self.born()?;
        let state = self.life.suspended.read().unwrap_or_else(|e| e.into_inner());
        match *state {
            true => Err(Error::Suspended { device: self.context.name.clone() }),
            false => Ok(state),
        }
    }

    /// Waits for accepted steps, frees memory that can be recreated, and refuses work from then on.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]; it is suspended nevertheless.
    pub fn suspend(&self) -> Result<()> {
        self.born()?;
        *self.life.suspended.write().unwrap_or_else(|e| e.into_inner()) = true;
        tell(Level::Info, || format!("{}: suspended", self.context.name));
        self.worker.call(|desk| {
            desk.settle()?;
            desk.trim()
        })
    }

    /// Accepts work again.
    pub fn resume(&self) {
        if self.born().is_err() {
            return;
        }
        *self.life.suspended.write().unwrap_or_else(|e| e.into_inner()) = false;
        tell(Level::Info, || format!("{}: resumed", self.context.name));
    }

    /// Whether it is suspended.
    pub fn is_suspended(&self) -> bool {
        self.born().is_ok() && *self.life.suspended.read().unwrap_or_else(|e| e.into_inner())
    }

    /// Frees memory that can be recreated: staging for copies, recorded commands. Also while suspended.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn trim(&self) -> Result<()> {
        self.born()?;
        self.worker.call(WorkerState::trim)
    }
}

impl WorkerState {
    /// Frees memory that can be recreated; the next step or copy takes a little longer.
    fn trim(&mut self) -> Result<()> {
        let context = self.context.clone();
        self.runs.values_mut().try_for_each(|r| r.forget(&context))?;
        let fresh = super::transfer::Transfer::new(&context);
        std::mem::replace(&mut self.transfer, fresh).close(&context);
        Ok(())
    }
}
