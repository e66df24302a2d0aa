//! Artifacts: compiled graphs over one set of weights, as a file.

use crate::compile::{NativeCancel, NativeCompiled, ProgressListener, reporting};
use crate::device::NativeDevice;
use crate::error::Result;
use crate::owned::{Handle, Owned};
use abi::shared::caught;
use engine::session::Artifact;
use std::sync::Arc;

/// Compiled graphs over one set of weights. Reading calls may run at once; adding a graph needs it alone.
#[derive(uniffi::Object)]
pub struct NativeArtifact {
    pub(crate) of: Owned<Artifact>,
}

#[uniffi::export]
impl NativeArtifact {
    /// One without graphs.
    #[uniffi::constructor]
    pub fn new() -> Result<Arc<NativeArtifact>> {
        caught("artifact_new", || Ok(Arc::new(NativeArtifact { of: Owned::new(Artifact::new())? })))
    }

    /// Loads one; a GPU's kernels are compiled by its driver meanwhile.
    #[uniffi::constructor]
    pub fn load(
        device: Arc<NativeDevice>,
        path: String,
        cancel: Option<Arc<NativeCancel>>,
        listener: Option<Arc<dyn ProgressListener>>,
    ) -> Result<Arc<NativeArtifact>> {
        caught("artifact_load", || {
            let progress = reporting(cancel.as_deref(), listener)?;
            let found = Artifact::load_with(&*device.of.share()?, path, &progress)?;
            Ok(Arc::new(NativeArtifact { of: Owned::new(found)? }))
        })
    }

    /// Adds a compiled graph under a name.
    pub fn add(&self, name: String, compiled: Arc<NativeCompiled>) -> Result<()> {
        caught("artifact_add", || Ok(self.of.alone()?.add(name, &*compiled.of.share()?)?))
    }

    /// Names of its graphs.
    pub fn names(&self) -> Result<Vec<String>> {
        caught("artifact_names", || Ok(self.of.share()?.names().map(String::from).collect()))
    }

    /// A graph by its name.
    pub fn graph(&self, name: String) -> Result<Arc<NativeCompiled>> {
        caught("artifact_graph", || NativeCompiled::of(self.of.share()?.get(&name)?.clone()))
    }

    /// Saves it.
    pub fn save(&self, path: String) -> Result<()> {
        caught("artifact_save", || Ok(self.of.share()?.save(path)?))
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees it. Graphs and sessions that came from it stay.
    pub fn release(&self) -> Result<()> {
        caught("artifact_release", || self.of.close())
    }
}
