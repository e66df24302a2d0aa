//! Temporary files next to the target: naming, locking, and removal after a writer died.
//!
//! A name is `.weft-MMMMMMMM-NNNNNNNNNNNNNNNN.tmp`, 35 bytes for any target: M identifies a boot of a machine, N a writer. The
//! writer holds an exclusive lock on the file, which the system releases when the process ends in any way. So a process that
//! acquires the lock knows that the writer is dead, without process ids (which are reused) or clocks.
//!
//! Machines that share a folder may not see each other's locks. A file of another machine is therefore removed only if it has
//! not been written for a day, either; the same applies to file systems without locks.

use super::place::folder_of;
use crate::process::Own;
use std::fs::{DirEntry, File, Metadata, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

const BEGINNING: &str = ".weft-";
const ENDING: &str = ".tmp";
/// A file of another machine that has not been written for this long counts as abandoned.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum attempts to find an unused name.
const TRIES: usize = 1000;

/// A temporary file, locked; removed when dropped, unless it was renamed.
pub(super) struct Temporary {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// Creates a file in a folder, and removes those of dead writers there. A `private` one is readable by its owner only,
    /// others according to the umask.
    pub(super) fn make(folder: &Path, private: bool) -> Result<Temporary> {
        let mut new = OpenOptions::new();
        new.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut new, if private { 0o600 } else { 0o666 });
        let _ = private; // elsewhere a file has its folder's permissions
        for _ in 0..TRIES {
            let path = folder.join(name());
            let file = match new.open(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                made => made?,
            };
            // Between creation and locking another process may have taken it for a dead writer's.
            let lost = matches!(file.try_lock(), Err(TryLockError::WouldBlock)) || !is_at(&file, &path);
            if !lost {
                let made = Temporary { file, path, renamed: false };
                made.sweep();
                return Ok(made);
            }
        }
        Err(Error::new(ErrorKind::AlreadyExists, "every name for a temporary file is taken"))
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Renames it to the target. It stays locked until then, so that it is not taken for a dead writer's.
    pub(super) fn rename_to(mut self, path: &Path) -> Result<()> {
        std::fs::rename(&self.path, path)?;
        self.renamed = true;
        Ok(())
    }

    /// Removes the temporary files of dead writers from its folder, as far as possible.
    fn sweep(&self) {
        // the file system's clock, which may be another machine's
        let now = self.file.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let Ok(entries) = std::fs::read_dir(folder_of(&self.path)) else { return };
        let others = entries.flatten().filter(|e| e.path() != self.path);
        others.for_each(|e| remove_if_dead(&e, now));
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = std::fs::remove_file(&self.path); // the first error is the one to report
        }
    }
}

/// A unique name.
fn name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let parts =
        [now as u64, (now >> 64) as u64, std::process::id().into(), COUNT.fetch_add(1, Ordering::Relaxed)];
    let bytes = parts.iter().flat_map(|p| p.to_le_bytes());
    format!("{BEGINNING}{:08x}-{:016x}{ENDING}", machine(), fnv(bytes))
}

/// The machine in a file's name, if that is the name of a temporary file.
fn machine_of(name: &str) -> Option<u32> {
    let (machine, writer) = name.strip_prefix(BEGINNING)?.strip_suffix(ENDING)?.split_once('-')?;
    let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let well_formed = hex(machine, 8) && hex(writer, 16);
    well_formed.then(|| u32::from_str_radix(machine, 16).ok())?
}

/// Identifies this boot of this machine: Linux has a random id for each boot. Other systems keep locks visible to all machines,
/// and need none.
fn machine() -> u32 {
    static FOUND: Own<OnceLock<u32>> = Own::new(OnceLock::new);
    *FOUND.get_or_init(|| match std::fs::read("/proc/sys/kernel/random/boot_id") {
        Ok(id) if cfg!(any(target_os = "linux", target_os = "android")) => fnv(id) as u32,
        _ => 0,
    })
}

/// FNV-1a, 64 bits (Fowler, Noll, Vo), with the high half folded in.
fn fnv(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.into_iter().fold(0xcbf2_9ce4_8422_2325, step);
    hash ^ hash >> 32
}

fn remove_if_dead(entry: &DirEntry, now: SystemTime) {
    let name = entry.file_name();
    let Some(machine_of_it) = name.to_str().and_then(machine_of) else { return };
    if !entry.file_type().is_ok_and(|t| t.is_file()) {
        return;
    }
    let path = entry.path();
    let Ok(file) = existing(&path) else { return };
    let locked = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => return, // its writer is alive
        Err(TryLockError::Error(_)) => false,
    };
    let written = file.metadata().and_then(|m| m.modified());
    let abandoned = written.is_ok_and(|t| now.duration_since(t).is_ok_and(|age| age > ABANDONED));
    if (locked && machine_of_it == machine() || abandoned) && is_at(&file, &path) {
        let _ = std::fs::remove_file(&path);
    }
}

/// Opens a file with that name, but nothing else that may have replaced it in the meantime.
fn existing(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, flags.bits() as i32);
    }
    options.open(path)
}

/// Whether the name still refers to the open file.
fn is_at(file: &File, path: &Path) -> bool {
    let both = file.metadata().and_then(|open| Ok((open, std::fs::symlink_metadata(path)?)));
    both.is_ok_and(|(open, there)| there.is_file() && same(&open, &there))
}

#[cfg(unix)]
fn same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Without inode numbers the names, which are unique, must suffice.
#[cfg(not(unix))]
fn same(_: &Metadata, _: &Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_of_one_length_and_found_again() {
        let names: std::collections::BTreeSet<String> = (0..1000).map(|_| name()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names.iter().all(|n| n.len() == 35 && machine_of(n) == Some(machine())));
        for other in [
            ".weft-0-0.tmp",
            ".weft-00000000-0000000000000000.tmp~",
            "weft-00000000-0000000000000000.tmp",
            "",
        ] {
            assert_eq!(machine_of(other), None, "{other}");
        }
        // the offset basis and a published value of FNV-1a: "a" is af63dc4c8601ec8c
        assert_eq!(fnv([]), 0xcbf2_9ce4_8422_2325 ^ 0xcbf2_9ce4);
        assert_eq!(fnv(*b"a"), 0xaf63_dc4c_8601_ec8c ^ 0xaf63_dc4c);
    }
}
