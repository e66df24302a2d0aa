//! A cache folder of compiled graphs: compile or load in one call. Entries are artifacts, named by a hash of all their inputs;
//! written atomically, so that other processes only see complete ones; verified like any artifact.
//!
//! Errors of the folder are not reported: the graph is compiled instead.

use super::{Compiled, Optimization};
use crate::device::Device;
use crate::device::gpu::Progress;
use crate::optimise::Group;
use crate::plan::FORMAT;
use crate::profile::{DeviceProfile, Precision, TunedProduct};
use std::fs::{File, read_dir, remove_file};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// File extension of entries.
const ENDING: &str = "weftc";

/// A cache in a folder.
pub(super) struct Cache {
    dir: PathBuf,
    most: u64,
}

/// The inputs of a plan other than the graph.
pub(super) struct Options<'a> {
    pub(super) profile: &'a DeviceProfile,
    pub(super) precision: Precision,
    pub(super) no_fusion: bool,
    pub(super) groups: &'a [Group],
    pub(super) without: &'a [Optimization],
    pub(super) tuned: &'a [TunedProduct],
    pub(super) training: bool,
    /// Operations defined outside the engine, and their versions.
    pub(super) foreign: &'a [(&'static str, u32)],
}

/// A file of the cache.
struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

impl Cache {
    pub(super) fn new(dir: &Path, most: u64) -> Cache {
        Cache { dir: dir.into(), most }
    }

    /// The name of a graph's entry: a hash of its text (constants included), all options, the device and the engine.
    pub(super) fn key(&self, graph: &str, options: &Options<'_>) -> String {
        // destructured, so that a new option does not compile until it is handled
        let Options { profile, precision, no_fusion, groups, without, tuned, training, foreign } = options;
        let groups: Vec<&str> = groups.iter().map(|g| g.name()).collect();
        // measured times do not affect the compiled graph
        let tuned: Vec<_> = tuned.iter().map(|p| (p.class, p.transpose_weight, p.cut)).collect();
        let options = format!(
            "{precision} no_fusion={no_fusion} training={training} without={without:?} rules={} tuned={tuned:?} foreign={foreign:?}",
            groups.join(",")
        );
        let engine = concat!(env!("CARGO_PKG_VERSION"), " cache 3");
        let format = FORMAT.to_string();
        let parts = [engine, &format, crate::optimise::version(), &profile.to_string(), &options, graph];
        let hash = super::artifact::hash(parts.map(str::as_bytes));
        hash.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(key).with_extension(ENDING)
    }

    /// Loads an entry, if it exists and is valid, and marks it as recently used.
    pub(super) fn load(&self, key: &str, device: Option<&Device>, progress: &Progress) -> Option<Compiled> {
        let path = self.path(key);
        let compiled = Compiled::load_for(device, &path, progress).ok()?;
        let _ = File::options().append(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
        Some(compiled)
    }

    /// Stores a compiled graph, and evicts old entries.
    pub(super) fn store(&self, key: &str, compiled: &Compiled) {
        if std::fs::create_dir_all(&self.dir).is_ok() && compiled.save(self.path(key)).is_ok() {
            self.evict(key);
        }
    }

    /// Evicts entries, least recently used first, until the rest fits. The newest stays even if it alone is too large:
    /// otherwise each run would write it again.
    fn evict(&self, newest: &str) {
        let Ok(files) = read_dir(&self.dir) else { return };
        let mut entries: Vec<Entry> = files.filter_map(|f| entry(&f.ok()?)).collect();
        let mut total: u64 = entries.iter().map(|e| e.bytes).sum();
        entries.retain(|e| e.path != self.path(newest));
        crate::order::sort_by_key(&mut entries, |e| e.used);
        for e in entries {
            if total <= self.most {
                return;
            }
            // another process may have removed it first
            let _ = remove_file(&e.path);
            total = total.saturating_sub(e.bytes);
        }
    }
}

/// An entry of the cache, recognised by its file name.
fn entry(file: &std::fs::DirEntry) -> Option<Entry> {
    let path = file.path();
    let (stem, ending) = path.file_name()?.to_str()?.split_once('.')?;
    let ours = stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit()) && ending == ENDING;
    let about = file.metadata().ok().filter(|_| ours)?;
    Some(Entry { bytes: about.len(), used: about.modified().ok()?, path })
}
