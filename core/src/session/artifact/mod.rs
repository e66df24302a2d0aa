//! Compiled graphs as files: compiled once, on this machine or another, and loaded without the graph or the optimiser.
//!
//! An artifact contains one or more named graphs over one set of weights (prefill and decode, training and evaluation), their
//! constants, and a manifest of the weights they need; the weights themselves come from safetensors.
//!
//! **Artifacts are untrusted input.** The file states its format, engine and device, and carries a hash of its contents. A
//! mismatch or malformed content is [`Error::Artifact`]; the caller should then compile again. The hash only detects damage:
//! anybody can compute one. [`plan::verify`](crate::plan::verify()) is what keeps a malicious artifact within its own memory.
//!
//! **Kernels are not stored.** A GPU kernel can do anything to the memory bound to it, and no check of WGSL text would be as
//! sound as generating it from a verified plan; `tests/bench/RESULTS.md` has the time that takes. The artifact contains the
//! kernels' hash instead: an engine that would generate other kernels refuses it, rather than compute differently from what was
//! tested. CPU kernels are part of the engine.
//!
//! **Verification.** The content is a plan, serialised field by field (`plan/wire`), with constants, a manifest of the weights
//! and the device profile. Lengths are bounded by the remaining bytes, and `plan/verify` proves that every operand, tape, place
//! and port stays inside its buffers; its module comment lists what the executors rely on. The planner's own plans are
//! verified, too. A new field in a form of work does not compile until `wire` writes and reads it, and `verify` checks it;
//! raise `plan::FORMAT` then. `Compiled::weight_report` (`session/weight_report`) reports the transformations of each weight at
//! init (none, concatenated, folded, transposed, packed, …), for which nodes and in how many bytes: derived from the
//! `TargetPlan`, not stored.
//! packed…), for which nodes and in how many bytes: read off the `TargetPlan`, not stored.

mod form;

use super::{Compiled, Parameters, Session, WeightReport};
use crate::device::Device;
use crate::device::gpu::Progress;
use crate::error::{Error, Result};
use crate::file::write_atomically;
use crate::plan::Port;
use crate::profile::DeviceProfile;
use crate::stack::deep;
use crate::tensor::{TensorType, Weights};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;

/// A weight that the graphs of an artifact need.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.neg(g.parameter("w", [2])));
/// let mut artifact = Artifact::new();
/// artifact.add("main", &Compiler::new(&Device::cpu(1)).compile(&g)?)?;
/// assert_eq!((artifact.weights()[0].name.as_str(), artifact.weights()[0].trainable), ("w", true));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Weight {
    /// Its name.
    pub name: String,
    /// Dtype and shape.
    pub ty: TensorType,
    /// Whether some graph trains it.
    pub trainable: bool,
    /// Transformations of the file's tensor that give this weight, in order: names and parameters. Always empty at present;
    /// transformations by the graphs are in their [report](Compiled::weight_report).
    pub transformations: Vec<(String, String)>,
}

/// Named compiled graphs over one set of weights.
///
/// ```
/// use weft::prelude::*;
///
/// let graph = |batch: usize| {
///     let g = Graph::new();
///     g.output("y", g.linear(g.input("x", DType::F32, [batch, 2]), g.parameter("w", [1, 2]), None));
///     g
/// };
/// let device = Device::cpu(1);
/// let compiler = Compiler::new(&device);
/// let mut artifact = Artifact::new();
/// artifact.add("one", &compiler.compile(&graph(1))?)?;
/// artifact.add("many", &compiler.compile(&graph(8))?)?;
/// let bytes = artifact.to_bytes()?; // or save to a file
///
/// let mut weights = Weights::new();
/// weights.insert("w", Tensor::from_vec([1, 2], vec![1.0f32, 10.0])?);
/// let mut sessions = Artifact::from_bytes(&device, bytes)?.init_all(&weights)?;
/// let (name, session) = &mut sessions[0];
/// assert_eq!(session.run(&[("x", &[3.0f32, 4.0])])?.read::<f32>("y")?, [43.0]);
/// assert_eq!(name, "one");
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Artifact {
    graphs: Vec<(String, Compiled)>,
    metadata: BTreeMap<String, String>,
}

impl std::fmt::Debug for Artifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let graphs = self.graphs.iter().map(|(name, graph)| (name, graph));
        f.debug_map().entries(graphs).finish()
    }
}

impl Artifact {
    /// An artifact without graphs.
    pub fn new() -> Artifact {
        Artifact::default()
    }

    /// Adds a graph.
    ///
    /// # Errors
    /// [`Error::Argument`] if the name is taken, or if the graph was compiled for another device than the others or has a
    /// weight of a different type.
    pub fn add(&mut self, name: impl Into<String>, compiled: &Compiled) -> Result<()> {
        let name = name.into();
        if self.graphs.iter().any(|(n, _)| *n == name) {
            return Err(Error::argument(
                "artifact",
                "graphs of different names",
                format!("another \"{name}\""),
            ));
        }
        if let Some((_, first)) = self.graphs.first()
            && first.profile() != compiled.profile()
        {
            let (wanted, came) = (&first.profile().name, &compiled.profile().name);
            return Err(Error::argument(
                "artifact",
                format!("graphs for {wanted}"),
                format!("one for {came}"),
            ));
        }
        let manifest = self.weights();
        for port in compiled.parameters() {
            let ty = TensorType::new(port.dtype, port.shape.clone());
            if let Some(w) = manifest.iter().find(|w| w.name == port.name && w.ty != ty) {
                let wanted = format!("\"{}\" of {}", w.name, w.ty);
                return Err(Error::argument("artifact", wanted, format!("{ty} in \"{name}\"")));
            }
        }
        self.graphs.push((name, compiled.clone()));
        Ok(())
    }

    /// The graph of that name.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn get(&self, name: &str) -> Result<&Compiled> {
        let at = super::run::find_among("graph", name, self.names())?;
        Ok(&self.graphs[at].1)
    }

    /// Names of the graphs, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.graphs.iter().map(|(name, _)| name.as_str())
    }

    /// The device profile that its graphs are compiled for; `None` without graphs.
    pub fn profile(&self) -> Option<&DeviceProfile> {
        self.graphs.first().map(|(_, c)| c.profile())
    }

    /// The weights that its graphs need.
    pub fn weights(&self) -> Vec<Weight> {
        let mut all: Vec<Weight> = vec![];
        let mut at: BTreeMap<&str, usize> = BTreeMap::new();
        for port in self.graphs.iter().flat_map(|(_, c)| c.parameters()) {
            let i = *at.entry(&port.name).or_insert_with(|| {
                let ty = TensorType::new(port.dtype, port.shape.clone());
                all.push(Weight { name: port.name.clone(), ty, trainable: false, transformations: vec![] });
                all.len() - 1
            });
            all[i].trainable |= port.trainable;
        }
        all
    }

    /// The transformations of each graph's weights at init: see [`Compiled::weight_report`].
    pub fn weight_reports(&self) -> impl Iterator<Item = (&str, WeightReport)> {
        self.graphs.iter().map(|(name, compiled)| (name.as_str(), compiled.weight_report()))
    }

    /// Application-defined metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Application-defined metadata, mutable: for example the model's name and source.
    pub fn metadata_mut(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.metadata
    }

    /// Creates a session of each graph, all over one set of weights.
    ///
    /// # Errors
    /// As [`Compiled::init`]; [`Error::Argument`] if there are no graphs.
    pub fn init_all(&self, weights: &Weights) -> Result<Vec<(String, Session)>> {
        let Some((_, first)) = self.graphs.first() else {
            return Err(Error::argument("artifact", "at least one graph", "none"));
        };
        let port = |w: Weight| Port {
            name: w.name,
            buffer: 0,
            dtype: w.ty.dtype,
            shape: w.ty.shape,
            trainable: w.trainable,
        };
        let ports: Vec<Port> = self.weights().into_iter().map(port).collect();
        let adjacent: Vec<Vec<String>> = self.graphs.iter().flat_map(|(_, c)| c.adjacent()).collect();
        let (parameters, warnings) = Parameters::bind(first.here()?.0, &ports, weights, &adjacent)?;
        let session = |(name, compiled): &(String, Compiled)| {
            let session = Session::new(compiled, parameters.clone(), None, warnings.clone())?;
            Ok((name.clone(), session))
        };
        self.graphs.iter().map(session).collect()
    }

    /// Serialises the artifact.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no graphs.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        form::write(self)
    }

    /// Writes it to a file, atomically.
    ///
    /// # Errors
    /// As [`to_bytes`](Artifact::to_bytes); [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let bytes = self.to_bytes()?;
        write_atomically(path, |out| out.write_all(&bytes))
    }

    /// Reads an artifact that was made for this kind of device, and compiles its kernels.
    ///
    /// # Errors
    /// [`Error::Artifact`] for other files, damaged artifacts, and those for another engine or device; errors of compiling
    /// kernels.
    pub fn from_bytes(device: &Device, bytes: impl Into<Vec<u8>>) -> Result<Artifact> {
        let bytes = bytes.into();
        deep(|| form::read(bytes, "bytes")?.on(device, "bytes", &Progress::default()))
    }

    /// As [`from_bytes`](Artifact::from_bytes), from a file.
    ///
    /// # Errors
    /// [`Error::Io`]; as [`from_bytes`](Artifact::from_bytes).
    pub fn load(device: &Device, path: impl AsRef<Path>) -> Result<Artifact> {
        Artifact::load_with(device, path, &Progress::default())
    }

    /// As [`load`](Artifact::load), with progress in compiled kernels, and cancellable.
    ///
    /// # Errors
    /// As [`load`](Artifact::load); [`Error::Cancelled`].
    pub fn load_with(device: &Device, path: impl AsRef<Path>, progress: &Progress) -> Result<Artifact> {
        let path = path.as_ref();
        let file = path.display().to_string();
        deep(|| form::read(read_file(path)?, &file)?.on(device, &file, progress))
    }

    /// Reads and verifies an artifact without its device, for inspection. Its graphs cannot run.
    ///
    /// # Errors
    /// As [`load`](Artifact::load), except for errors of the device.
    pub fn inspect(path: impl AsRef<Path>) -> Result<Artifact> {
        let path = path.as_ref();
        deep(|| form::read(read_file(path)?, &path.display().to_string()))
    }

    /// Prepares the graphs on a device, if they are for it.
    fn on(self, device: &Device, file: &str, progress: &Progress) -> Result<Artifact> {
        device.check()?;
        let refused = |what: &str, wanted: String, came: String| Error::Artifact {
            file: file.into(),
            what: what.into(),
            wanted,
            came,
        };
        if let Some(profile) = self.profile() {
            profile.runs_on(&device.profile()).map_err(|(wanted, came)| refused("device", wanted, came))?;
        }
        let on = |(name, compiled): (String, Compiled)| {
            let stored = compiled.kernels;
            let made = compiled.on(device, progress)?;
            if made.kernels != stored {
                let wanted = format!("kernels of hash {}", form::hex(stored));
                return Err(refused("kernels", wanted, format!("{} in \"{name}\"", form::hex(made.kernels))));
            }
            Ok((name, made))
        };
        let graphs = self.graphs.into_iter().map(on).collect::<Result<_>>()?;
        Ok(Artifact { graphs, metadata: self.metadata })
    }
}

/// The graph name used by [`Compiled::save`].
const ALONE: &str = "main";

impl Compiled {
    /// An artifact with this graph only, named "main".
    fn alone(&self) -> Result<Artifact> {
        let mut artifact = Artifact::new();
        artifact.add(ALONE, self)?;
        Ok(artifact)
    }

    /// Serialises the compiled graph: an [`Artifact`] of one graph, "main".
    ///
    /// # Errors
    /// [`Error::Internal`].
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        self.alone()?.to_bytes()
    }

    /// Writes the compiled graph to a file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.alone()?.save(path)
    }

    /// Loads a compiled graph: see [`Artifact::from_bytes`].
    ///
    /// # Errors
    /// As there; [`Error::UnknownName`] for an artifact without a graph "main".
    pub fn from_bytes(device: &Device, bytes: impl Into<Vec<u8>>) -> Result<Compiled> {
        Artifact::from_bytes(device, bytes)?.get(ALONE).cloned()
    }

    /// Loads a compiled graph from a file: see [`Artifact::load`].
    ///
    /// # Errors
    /// As there; [`Error::UnknownName`] for an artifact without a graph "main".
    pub fn load(device: &Device, path: impl AsRef<Path>) -> Result<Compiled> {
        Artifact::load(device, path)?.get(ALONE).cloned()
    }

    /// Loads from the cache: onto a device, if there is one.
    #[cfg(feature = "compiler")]
    pub(super) fn load_for(device: Option<&Device>, path: &Path, progress: &Progress) -> Result<Compiled> {
        let artifact = match device {
            Some(device) => Artifact::load_with(device, path, progress)?,
            None => Artifact::inspect(path)?,
        };
        artifact.get(ALONE).cloned()
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| Error::io(path, "read", &e))
}

/// SHA-256 of parts, each prefixed with its length.
pub(super) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}
