//! A folder of compiled graphs: compile or load in one call. Entries are artifacts, named by a hash of all that they
//! depend on; written atomically, so that other processes see whole ones only; verified as any artifact is.
//!
//! What goes wrong with the folder is nobody's error: then the graph is compiled.

use super::{Compiled, Optimization};
use crate::device::Device;
use crate::device::gpu::Progress;
use crate::optimise::Group;
use crate::plan::FORMAT;
use crate::profile::{DeviceProfile, Precision, TunedProduct};
use std::fs::{File, read_dir, remove_file};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How entries' names end.
const ENDING: &str = "weftc";

/// A cache in a folder.
pub(super) struct Cache {
    dir: PathBuf,
    most: u64,
}

/// What a plan depends on beside the graph.
pub(super) struct Options<'a> {
    pub(super) profile: &'a DeviceProfile,
    pub(super) precision: Precision,
    pub(super) no_fusion: bool,
    pub(super) groups: &'a [Group],
    pub(super) without: &'a [Optimization],
    pub(super) tuned: &'a [TunedProduct],
    pub(super) training: bool,
    /// Operations that are not the engine's own, and their versions.
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

    /// The name of a graph's entry: of its text (constants included), all options, the device and the engine.
    pub(super) fn key(&self, graph: &str, options: &Options<'_>) -> String {
        // a new option is an error here
        let Options { profile, precision, no_fusion, groups, without, tuned, training, foreign } = options;
        let groups: Vec<&str> = groups.iter().map(|g| g.name()).collect();
        // times are no part of what is compiled
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

    /// The entry, if it is there and good; it then counts as used.
    pub(super) fn load(&self, key: &str, device: Option<&Device>, progress: &Progress) -> Option<Compiled> {
        let path = self.path(key);
        let compiled = Compiled::load_for(device, &path, progress).ok()?;
        let _ = File::options().append(true).open(&path).and_then(|f| f.set_modified(SystemTime::now()));
        Some(compiled)
    }

    /// Keeps a compiled graph, and makes room.
    pub(super) fn store(&self, key: &str, compiled: &Compiled) {
        if std::fs::create_dir_all(&self.dir).is_ok() && compiled.save(self.path(key)).is_ok() {
            self.evict(key);
        }
    }

    /// Removes entries, those used longest ago first, until the rest fits. The newest stays even alone too large: else each
    /// run would write it anew.
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
            // another process may have been faster
            let _ = remove_file(&e.path);
            total = total.saturating_sub(e.bytes);
        }
    }
}

/// A file that is the cache's own: by its name.
fn entry(file: &std::fs::DirEntry) -> Option<Entry> {
    let path = file.path();
    let (stem, ending) = path.file_name()?.to_str()?.split_once('.')?;
    let ours = stem.len() == 64 && stem.bytes().all(|b| b.is_ascii_hexdigit()) && ending == ENDING;
    let about = file.metadata().ok().filter(|_| ours)?;
    Some(Entry { bytes: about.len(), used: about.modified().ok()?, path })
}
