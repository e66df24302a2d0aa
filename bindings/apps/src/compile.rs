//! From a graph to what a device runs, and from there to sessions over weights.

use crate::device::NativeDevice;
use crate::error::Result;
use crate::graph::NativeGraph;
use crate::owned::{Handle, Owned};
use crate::session::{NativeParameters, NativeSession};
use crate::types::{ComputePrecision, Memory, Ports};
use crate::weights::NativeWeights;
use abi::shared::{Failure, Wish, caught};
use engine::graph::Graph;
use engine::session::{Compiled, Compiler, Progress};
use std::sync::Arc;

/// A request to end something that takes long. Once made it stays: make another object for the next time.
#[derive(uniffi::Object)]
pub struct NativeCancel {
    pub(crate) of: Owned<Wish>,
}

#[uniffi::export]
impl NativeCancel {
    /// A request that is not made yet.
    #[uniffi::constructor]
    pub fn new() -> Result<Arc<NativeCancel>> {
        caught("cancel_new", || Ok(Arc::new(NativeCancel { of: Owned::new(Wish(Progress::default()))? })))
    }

    /// Ends what was given this object, soon. Any thread.
    pub fn request(&self) -> Result<()> {
        caught("cancel_request", || {
            self.of.share()?.0.cancel();
            Ok(())
        })
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees the object.
    pub fn release(&self) -> Result<()> {
        caught("cancel_release", || self.of.close())
    }
}

/// Gets how far a compilation is.
#[uniffi::export(with_foreign)]
pub trait ProgressListener: Send + Sync {
    /// Parts done, of how many, on the thread that compiles: any.
    fn progress(&self, done: i64, all: i64);
}

/// How to compile.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct CompileSettings {
    /// With the backward pass, for a graph with a loss.
    pub training: bool,
    /// How exactly to compute.
    pub precision: ComputePrecision,
    /// A folder that keeps what was compiled.
    pub cache_folder: Option<String>,
    /// Bytes of the folder at most.
    pub cache_bytes: i64,
}

/// The wish of a caller, with reports to a listener.
pub(crate) fn reporting(
    cancel: Option<&NativeCancel>,
    listener: Option<Arc<dyn ProgressListener>>,
) -> Result<Progress> {
    let wish = match cancel {
        Some(cancel) => cancel.of.share()?.0.clone(),
        None => Progress::default(),
    };
    Ok(match listener {
        Some(listener) => wish.reporting(move |done, all| listener.progress(done as i64, all as i64)),
        None => wish,
    })
}

/// A compiled graph, without weights. Immutable; threads may share it.
#[derive(uniffi::Object)]
pub struct NativeCompiled {
    pub(crate) of: Owned<Compiled>,
}

/// Compiles a graph for a device, without weights.
#[uniffi::export]
pub fn compile(
    device: Arc<NativeDevice>,
    graph: Arc<NativeGraph>,
    settings: CompileSettings,
    cancel: Option<Arc<NativeCancel>>,
    listener: Option<Arc<dyn ProgressListener>>,
) -> Result<Arc<NativeCompiled>> {
    caught("compile", || {
        let mut compiler = Compiler::new(&*device.of.share()?)
            .with_precision(settings.precision.into())
            .with_progress(reporting(cancel.as_deref(), listener)?);
        if let Some(folder) = &settings.cache_folder {
            let bytes = settings.cache_bytes;
            let most =
                u64::try_from(bytes).map_err(|_| Failure::argument("cache_bytes", "0 or more", bytes))?;
            compiler = compiler.with_cache(folder, most);
        }
        // a copy shares the contents: others may use the graph while this takes its time
        let graph = Graph::clone(&*graph.of.alone()?);
        let compiled =
            if settings.training { compiler.compile_training(&graph)? } else { compiler.compile(&graph)? };
        NativeCompiled::of(compiled)
    })
}

impl NativeCompiled {
    pub(crate) fn of(compiled: Compiled) -> Result<Arc<NativeCompiled>> {
        Ok(Arc::new(NativeCompiled { of: Owned::new(compiled)? }))
    }
}

#[uniffi::export]
impl NativeCompiled {
    /// Loads a compiled graph that was saved.
    #[uniffi::constructor]
    pub fn load(device: Arc<NativeDevice>, path: String) -> Result<Arc<NativeCompiled>> {
        caught("compiled_load", || NativeCompiled::of(Compiled::load(&*device.of.share()?, path)?))
    }

    /// Saves it, to be loaded without compiling.
    pub fn save(&self, path: String) -> Result<()> {
        caught("compiled_save", || Ok(self.of.share()?.save(path)?))
    }

    /// Its tensors.
    pub fn ports(&self) -> Result<Ports> {
        caught("compiled_ports", || Ports::of(&*self.of.share()?))
    }

    /// Whether it came out of the cache folder.
    pub fn was_cached(&self) -> Result<bool> {
        caught("compiled_was_cached", || Ok(self.of.share()?.was_cached()))
    }

    /// What a session will take.
    pub fn memory(&self) -> Result<Memory> {
        caught("compiled_memory", || Ok(self.of.share()?.memory_summary().into()))
    }

    /// A session over weights, bound by name.
    pub fn init(&self, weights: Arc<NativeWeights>) -> Result<Arc<NativeSession>> {
        caught("compiled_init", || NativeSession::of(self.of.share()?.init(&*weights.of.share()?)?))
    }

    /// A session whose parameters are zeros until they are set.
    pub fn init_zeros(&self) -> Result<Arc<NativeSession>> {
        caught("compiled_init_zeros", || NativeSession::of(self.of.share()?.init_zeros()?))
    }

    /// A session over the parameters of another, shared with it.
    pub fn init_shared(&self, parameters: Arc<NativeParameters>) -> Result<Arc<NativeSession>> {
        caught("compiled_init_shared", || {
            NativeSession::of(self.of.share()?.init_shared(&*parameters.of.share()?)?)
        })
    }

    /// As `init_shared`; parameters that the set lacks are taken from `weights`, and join it.
    pub fn init_shared_with(
        &self,
        parameters: Arc<NativeParameters>,
        weights: Arc<NativeWeights>,
    ) -> Result<Arc<NativeSession>> {
        caught("compiled_init_shared_with", || {
            let (parameters, weights) = (parameters.of.share()?, weights.of.share()?);
            NativeSession::of(self.of.share()?.init_shared_with(&parameters, &weights)?)
        })
    }

    /// Its handle.
    pub fn handle(&self) -> Handle {
        self.of.handle()
    }

    /// Frees it. Its sessions stay.
    pub fn release(&self) -> Result<()> {
        caught("compiled_release", || self.of.close())
    }
}
