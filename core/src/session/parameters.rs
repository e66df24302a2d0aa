//! Weights on a device, shared by sessions.

use crate::device::Device;
use crate::device::executor::Store;
use crate::device::observer::{Showing, check_not_shown};
use crate::error::{Error, Result};
use crate::plan::Port;
use crate::process::{self, Born};
use crate::tensor::{StoredDType, Tensor, TensorType, Weights};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A set of weights on a device. Clones share it; a change by one session is seen by all.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.neg(g.parameter("w", [2])));
/// let compiled = Compiler::new(&Device::cpu(1)).compile(&g)?;
/// let mut session = compiled.init_zeros()?;
/// session.set_parameter("w", &[1.0f32, 2.0])?;
/// let weights = session.parameters().to_weights()?; // to save: load::save
/// assert_eq!(weights.get("w").unwrap().to_vec::<f32>()?, [1.0, 2.0]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Clone)]
pub struct Parameters {
    store: Arc<RwLock<Store>>,
    born: Born,
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // does not wait for a session that trains them
        let count = self.store.try_read().ok().map(|store| store.parameters().len());
        f.debug_struct("Parameters").field("tensors", &count).finish_non_exhaustive()
    }
}

impl Parameters {
    /// Binds weights to ports by name, after checking names, dtypes and shapes. Also returns warnings: unused weights.
    pub(super) fn bind(
        device: &Device,
        ports: &[Port],
        weights: &Weights,
        adjacent: &[Vec<String>],
    ) -> Result<(Parameters, Vec<String>)> {
        let stored = bound(ports, weights)?;
        let used = |name: &str| ports.iter().any(|p| p.name == name);
        let extra = weights.held().filter(|(name, _)| !used(name));
        let warnings = extra.map(|(n, t)| format!("weight \"{n}\" ({t}) is not used by the graph")).collect();
        Ok((Parameters::over(Store::new(device, stored, adjacent)?), warnings))
    }

    /// Adds the weights of those ports that the set lacks. Existing sessions over the set are not disturbed, and new ones find
    /// the weights.
    pub(super) fn complete(
        &self,
        device: &Device,
        ports: &[Port],
        weights: &Weights,
        adjacent: &[Vec<String>],
    ) -> Result<()> {
        // locked from the check to the change: others may add the same
        let mut store = self.write()?;
        store.check_device(device)?;
        let known: Vec<&str> = store.parameters().into_iter().map(|p| p.0).collect();
        let (there, missing): (Vec<Port>, Vec<Port>) =
            ports.iter().cloned().partition(|p| known.contains(&p.name.as_str()));
        positions_in(&store, &there)?;
        if missing.is_empty() {
            return Ok(());
        }
        store.extend(bound(&missing, weights)?, adjacent)
    }

    /// Zeroed parameters.
    pub(super) fn zeros(device: &Device, ports: &[Port], adjacent: &[Vec<String>]) -> Result<Parameters> {
        let zeros = |p: &Port| (p.name.clone(), TensorType::new(p.dtype, p.shape.clone()), None);
        let stored = ports.iter().map(zeros).collect();
        Ok(Parameters::over(Store::new(device, stored, adjacent)?))
    }

    fn over(store: Store) -> Parameters {
        Parameters { store: Arc::new(RwLock::new(store)), born: Born::here() }
    }

    /// The positions of a plan's ports in this set.
    pub(super) fn positions(&self, ports: &[Port]) -> Result<Vec<usize>> {
        positions_in(&*self.read()?, ports)
    }

    /// The current weights, as host tensors (unchanged ones are not copied).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Forked`].
    pub fn to_weights(&self) -> Result<Weights> {
        let store = self.read()?;
        let all = store.parameters();
        let tensor = |(i, p): (usize, &(&str, &TensorType))| Ok((p.0.to_string(), store.tensor(i)?));
        all.iter().enumerate().map(tensor).collect::<Result<Weights>>()
    }

    fn check(&self) -> Result<()> {
        process::check(self.born, "a set of weights")?;
        check_not_shown(&*self.store, "weights")
    }

    /// Notes that this thread, which has locked the set, passes values of a step to its caller from now on.
    pub(super) fn show(&self) -> Showing {
        Showing::of(&*self.store)
    }

    /// An identity of the set, and the sizes of its weights.
    pub(super) fn sizes(&self) -> (usize, Vec<usize>) {
        // a forked child sees no weights
        let sizes = self.read().map_or(vec![], |store| store.sizes());
        (Arc::as_ptr(&self.store).addr(), sizes)
    }

    pub(super) fn read(&self) -> Result<RwLockReadGuard<'_, Store>> {
        self.check()?;
        Ok(self.store.read().unwrap_or_else(|e| e.into_inner()))
    }

    pub(super) fn write(&self) -> Result<RwLockWriteGuard<'_, Store>> {
        self.check()?;
        Ok(self.store.write().unwrap_or_else(|e| e.into_inner()))
    }
}

/// The positions of ports among weights.
fn positions_in(store: &Store, ports: &[Port]) -> Result<Vec<usize>> {
    let all = store.parameters();
    let find = |port: &Port| {
        let wanted = TensorType::new(port.dtype, port.shape.clone());
        let at = all.iter().position(|p| p.0 == port.name);
        let at = at.ok_or_else(|| Error::MissingWeight {
            name: port.name.clone(),
            wanted: wanted.to_string(),
            came: format!("the shared set has {} parameters; init_shared_with adds to it", all.len()),
        })?;
        let came = all[at].1;
        if *came != wanted {
            return Err(Error::WeightType {
                name: port.name.clone(),
                wanted: wanted.to_string(),
                came: came.to_string(),
            });
        }
        Ok(at)
    };
    ports.iter().map(find).collect()
}

/// The weights of ports, by name, after checking names, dtypes and shapes.
fn bound(ports: &[Port], weights: &Weights) -> Result<Vec<(String, TensorType, Option<Tensor<'static>>)>> {
    for port in ports {
        let wanted = TensorType::new(port.dtype, port.shape.clone());
        let Some(tensor) = weights.get(&port.name) else {
            let (name, wanted) = (port.name.clone(), wanted.to_string());
            return Err(match weights.unusable(&port.name) {
                Some(came) => Error::WeightType { name, wanted, came: came.into() },
                None => Error::MissingWeight { came: nearest(&name, weights), name, wanted },
            });
        };
        if tensor.ty() != wanted {
            let mut came = tensor.ty().to_string();
            if let Some(StoredDType::Foreign(stored)) = weights.stored_dtype(&port.name) {
                came += &format!(" ({} in the file)", stored.name());
            }
            return Err(Error::WeightType { name: port.name.clone(), wanted: wanted.to_string(), came });
        }
    }
    let mut stored = Vec::with_capacity(ports.len());
    for port in ports {
        if let Some(tensor) = weights.get(&port.name) {
            stored.push((port.name.clone(), tensor.ty(), Some(tensor.contiguous())));
        }
    }
    Ok(stored)
}

/// A hint for a missing weight: one that differs only by a prefix, or the number of weights.
fn nearest(name: &str, weights: &Weights) -> String {
    let last = name.rsplit('.').take(2).collect::<Vec<_>>();
    let like = weights.names().find(|(n, _)| {
        n.ends_with(name) || name.ends_with(n) || n.rsplit('.').take(2).collect::<Vec<_>>() == last
    });
    match like {
        Some((n, _)) => format!("the weights have {} tensors, \"{n}\" among them", weights.len()),
        None => format!("the weights have {} tensors, none of a like name", weights.len()),
    }
}
