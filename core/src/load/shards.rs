//! Locates a model's weights: one file, a folder with one, or a set of shards with an index.

use super::file::{Inspection, Opened};
use super::header::{Once, quoted};
use crate::error::{Error, Result};
use crate::file::without_mark;
use crate::stack::deep;
use crate::tensor::{DType, Weights};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const INDEX_ENDING: &str = ".safetensors.index.json";

/// Opens the weights of a model: a safetensors file; an index of shards (`….safetensors.index.json`); or a folder that contains
/// `model.safetensors` or else `model.safetensors.index.json`.
///
/// # Errors
/// [`Error::Io`] for a missing or inaccessible file or shard; [`Error::Safetensors`] for a malformed one; [`Error::Config`] for
/// an invalid index or one that contradicts its shards.
pub fn weights(path: impl AsRef<Path>) -> Result<Weights> {
    let mut all = Weights::new();
    let path = path.as_ref();
    for file in deep(|| open_all(path))? {
        file.add_to(&mut all)?;
    }
    Ok(all)
}

/// As [`weights`], with the floats in one dtype: for example f32 to fine-tune an f16 or bf16 checkpoint. See
/// [`Weights::to_dtype`]. Conversion is in memory; [`convert`](super::convert()) converts on disk with little memory.
///
/// # Errors
/// As [`weights`] and [`Weights::to_dtype`].
pub fn weights_as(path: impl AsRef<Path>, dtype: DType) -> Result<Weights> {
    weights(path)?.to_dtype(dtype)
}

/// Lists the tensors of any path that [`weights`] opens, sorted by name, reading headers alone.
///
/// # Errors
/// As [`weights`].
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection> {
    let mut all = Inspection { tensors: vec![], metadata: BTreeMap::new() };
    let path = path.as_ref();
    for file in deep(|| open_all(path))? {
        file.list_in(&mut all);
    }
    crate::order::sort_by(&mut all.tensors, |a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Every file of a model, without duplicates, checked against the index if there is one.
fn open_all(path: &Path) -> Result<Vec<Opened>> {
    let index = match find(path)? {
        Found::File(file) => return Ok(vec![Opened::file(&file)?]),
        Found::Index(index) => Index::read(index)?,
    };
    let shards = index.shards();
    let mut files: Vec<Opened> =
        shards.iter().map(|s| Opened::file(&index.path.with_file_name(s))).collect::<Result<_>>()?;
    let extra = index.agree(&shards, &files)?;
    for (file, extra) in files.iter_mut().zip(extra) {
        file.leave_out(&extra);
    }
    Ok(files)
}

enum Found {
    File(PathBuf),
    Index(PathBuf),
}

fn find(path: &Path) -> Result<Found> {
    if !path.is_dir() {
        let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
        let is_index = name.ends_with(INDEX_ENDING);
        return Ok(if is_index { Found::Index(path.into()) } else { Found::File(path.into()) });
    }
    let (single, index) = (path.join(SINGLE), path.join(INDEX));
    match (single.exists(), index.exists()) {
        (true, _) => Ok(Found::File(single)),
        (_, true) => Ok(Found::Index(index)),
        _ => Err(Error::refused(path, "find weights in", nothing_in(path))),
    }
}

/// Why a folder has no readable weights, and how to convert them.
fn nothing_in(folder: &Path) -> String {
    let neither = format!("there is neither {SINGLE} nor {INDEX}");
    let has = |name: &str| folder.join(name).exists();
    // a single quote ends a shell's quotation, so each becomes '\''
    let quoted = format!("'{}'", folder.display().to_string().replace('\'', "'\\''"));
    if has(PICKLED) {
        return format!(
            "{neither}, but {PICKLED}, which only Python reads; convert it once: python3 -c \"{CONVERT}\" {quoted}"
        );
    }
    if has(PICKLED_INDEX) {
        return format!(
            "{neither}, but {PICKLED_INDEX}, which only Python reads; convert it once: python3 -c \"{CONVERT_SHARDS}\" {quoted}"
        );
    }
    neither
}

/// PyTorch's own format: pickled, i.e. a program for Python's unpickler.
const PICKLED: &str = "pytorch_model.bin";
const PICKLED_INDEX: &str = "pytorch_model.bin.index.json";

/// Python code that writes model.safetensors next to it: copies weights that share memory, drops what is not a tensor.
const CONVERT: &str = "import sys, torch, safetensors.torch as s; d = sys.argv[1]; \
w = torch.load(d + '/pytorch_model.bin', map_location='cpu', weights_only=True); \
s.save_file({k: v.clone().contiguous() for k, v in w.items() if isinstance(v, torch.Tensor)}, d + '/model.safetensors')";

/// The same for weights in several files, into one.
const CONVERT_SHARDS: &str = "import glob, sys, torch, safetensors.torch as s; d = sys.argv[1]; w = {}; \
[w.update(torch.load(f, map_location='cpu', weights_only=True)) for f in glob.glob(glob.escape(d) + '/pytorch_model-*.bin')]; \
s.save_file({k: v.clone().contiguous() for k, v in w.items() if isinstance(v, torch.Tensor)}, d + '/model.safetensors')";

/// A validated index: `weight_map` from tensor names to file names in the index's own folder.
struct Index {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl Index {
    fn read(path: PathBuf) -> Result<Index> {
        #[derive(Deserialize)]
        struct Raw {
            weight_map: Once<String>,
        }
        let text = std::fs::read(&path).map_err(|e| Error::io(&path, "read", &e))?;
        let raw: Raw = serde_json::from_slice(without_mark(&text)).map_err(|e| {
            Error::unread(path.display().to_string(), "a weight_map from tensors to files", e)
        })?;
        let index = Index { path, weight_map: raw.weight_map.0 };
        if index.weight_map.is_empty() {
            return Err(index.bad("a weight_map from tensors to files", "an empty one".into()));
        }
        for (name, shard) in &index.weight_map {
            // A plain name, on every system: nothing that leads out of the index's folder.
            if shard.is_empty() || shard == "." || shard == ".." || shard.contains(['/', '\\', ':', '\0']) {
                let came = format!("{} for tensor {}", quoted(shard), quoted(name));
                return Err(index.bad("names of files beside the index", came));
            }
        }
        Ok(index)
    }

    /// Every shard once, by name.
    fn shards(&self) -> Vec<&str> {
        self.weight_map.values().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Finds each tensor of the index in its shard. What shards hold beyond the index is welcome; where several hold a
    /// tensor, the index decides. Returns the names that each shard's file has to leave out.
    fn agree(&self, shards: &[&str], files: &[Opened]) -> Result<Vec<HashSet<String>>> {
        let mut places: BTreeMap<&str, Vec<usize>> = BTreeMap::new(); // tensor to shards
        for (i, file) in files.iter().enumerate() {
            file.names().for_each(|name| places.entry(name).or_default().push(i));
        }
        for (name, shard) in &self.weight_map {
            let found = places.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            if !found.iter().any(|i| shards[*i] == shard) {
                let all: Vec<String> = found.iter().map(|i| quoted(shards[*i])).collect();
                let came = if all.is_empty() {
                    "it in no shard".into()
                } else {
                    format!("it in {}", all.join(" and "))
                };
                return Err(self.bad(&format!("tensor {} in {}", quoted(name), quoted(shard)), came));
            }
        }
        let mut extra = vec![HashSet::new(); files.len()];
        for (name, found) in places.into_iter().filter(|(_, found)| found.len() > 1) {
            let named =
                self.weight_map.get(name).and_then(|shard| found.iter().find(|i| shards[**i] == shard));
            if named.is_none() && !found.iter().all(|i| files[*i].has_same(&files[found[0]], name)) {
                let all: Vec<String> = found.iter().map(|i| quoted(shards[*i])).collect();
                let came = format!("different ones in {}", all.join(" and "));
                return Err(self.bad(&format!("the shard of tensor {}", quoted(name)), came));
            }
            let kept = *named.unwrap_or(&found[0]);
            for i in found.into_iter().filter(|i| *i != kept) {
                extra[i].insert(name.to_string());
            }
        }
        Ok(extra)
    }

    fn bad(&self, wanted: &str, came: String) -> Error {
        config(&self.path, wanted, came)
    }
}

fn config(path: &Path, wanted: &str, came: String) -> Error {
    Error::config(path.display().to_string(), wanted, came)
}
