//! Weights: named tensors, from safetensors files or made by hand (tensors cross by the data plane).

use crate::error::Result;
use crate::owned::{Handle, Owned};
use crate::types::{ElementType, TensorInfo};
use abi::shared::caught;
use engine::load;
use engine::tensor::Weights;
use std::sync::Arc;

/// Named tensors. Reading calls may run at once; calls that change it need it alone.
#[derive(uniffi::Object)]
pub struct NativeWeights {
    pub(crate) of: Owned<Weights>,
}

impl NativeWeights {
    pub(crate) fn of(weights: Weights) -> Result<Arc<NativeWeights>> {
        Ok(Arc::new(NativeWeights { of: Owned::new(weights)? }))
    }
}

#[uniffi::export]
impl NativeWeights {
    /// No weights, to be inserted.
    #[uniffi::constructor]
    pub fn new() -> Result<Arc<NativeWeights>> {
        caught("weights_new", || NativeWeights::of(Weights::new()))
    }

    /// Maps a safetensors file, a Hugging Face folder, or the index of a sharded set; with the floats in `floats`, if given.
    #[uniffi::constructor]
    pub fn load(path: String, floats: Option<ElementType>) -> Result<Arc<NativeWeights>> {
        caught("weights_load", || {
            NativeWeights::of(match floats {
                Some(dtype) => load::weights_as(path, dtype.dtype()?)?,
                None => load::weights(path)?,
            })
        })
    }

    /// The tensors that can be used, in the order of their names.
    pub fn tensors(&self) -> Result<Vec<TensorInfo>> {
        caught("weights_tensors", || {
            let weights = self.of.share()?;
            let found = weights.iter().map(|(name, t)| TensorInfo::new(name, t.dtype(), t.shape(), false));
            found.collect()
        })
    }

    /// Writes a safetensors file, whole or not at all.
    pub fn save(&self, path: String) -> Result<()> {
        caught("weights_save", || Ok(load::save(path, &*self.of.share()?)?))
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees them. Sessions over them keep what they need.
    pub fn release(&self) -> Result<()> {
        caught("weights_release", || self.of.close())
    }
}
