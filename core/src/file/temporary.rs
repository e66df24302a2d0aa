//! Temporary files beside those that are written: how they are named, locked and, where a writer died, removed.
//!
//! A name is `.weft-MMMMMMMM-NNNNNNNNNNNNNNNN.tmp`, of 35 bytes whatever the target is called: M tells machines apart
//! (and one machine's starts), N writers. Its writer holds an exclusive lock on the file, which the system drops when the
//! process ends, however that happens. So whoever gets the lock knows that the writer is dead: no process numbers, which
//! are used again, and no clocks are asked.
//!
//! Folders that several machines share may not show one machine's locks to another. A file of another machine is therefore
//! removed only if nobody has written to it for a day as well; the same goes for file systems without locks.

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
/// A file of another machine to which nobody has written for so long is nobody's.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);
/// Names that are tried: one may be taken.
const TRIES: usize = 1000;

/// A temporary file, locked; gone when it is dropped, unless it was renamed.
pub(super) struct Temporary {
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl Temporary {
    /// A new file in a folder, from which what dead writers left is removed. A `private` one can be read by its owner
    /// alone, the others by whom the umask lets.
    pub(super) fn make(folder: &Path, private: bool) -> Result<Temporary> {
        let mut new = OpenOptions::new();
        new.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut new, if private { 0o600 } else { 0o666 });
        let _ = private; // elsewhere a file has its folder's rights
        for _ in 0..TRIES {
            let path = folder.join(name());
            let file = match new.open(&path) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                made => made?,
            };
            // Between making and locking it somebody may have taken it for a dead writer's.
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

    /// Gives it its name. It stays locked until then: nobody takes it for a dead writer's.
    pub(super) fn rename_to(mut self, path: &Path) -> Result<()> {
        std::fs::rename(&self.path, path)?;
        self.renamed = true;
        Ok(())
    }

    /// Removes the temporary files of dead writers from its folder. What cannot be removed stays.
    fn sweep(&self) {
        // the file system's own clock, which may be another machine's
        let now = self.file.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let Ok(entries) = std::fs::read_dir(folder_of(&self.path)) else { return };
        let others = entries.flatten().filter(|e| e.path() != self.path);
        others.for_each(|e| remove_if_dead(&e, now));
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = std::fs::remove_file(&self.path); // the first error is the one to tell
        }
    }
}

/// A name that nobody else uses.
fn name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let parts =
        [now as u64, (now >> 64) as u64, std::process::id().into(), COUNT.fetch_add(1, Ordering::Relaxed)];
    let bytes = parts.iter().flat_map(|p| p.to_le_bytes());
    format!("{BEGINNING}{:08x}-{:016x}{ENDING}", machine(), fnv(bytes))
}

/// The machine in a temporary file's name, if it is the name of one.
fn machine_of(name: &str) -> Option<u32> {
    let (machine, writer) = name.strip_prefix(BEGINNING)?.strip_suffix(ENDING)?.split_once('-')?;
    let hex = |text: &str, digits| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    let well_formed = hex(machine, 8) && hex(writer, 16);
    well_formed.then(|| u32::from_str_radix(machine, 16).ok())?
}

/// Tells this machine, as long as it runs, from others: Linux gives each start a random number. Other systems keep locks
/// where all machines see them, and need none.
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
        Err(TryLockError::WouldBlock) => return, // its writer lives
        Err(TryLockError::Error(_)) => false,
    };
    let written = file.metadata().and_then(|m| m.modified());
    let abandoned = written.is_ok_and(|t| now.duration_since(t).is_ok_and(|age| age > ABANDONED));
    if (locked && machine_of_it == machine() || abandoned) && is_at(&file, &path) {
        let _ = std::fs::remove_file(&path);
    }
}

/// Opens a file of that name, and nothing else that somebody may have put there meanwhile.
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

/// Whether the open file is still the one of that name.
fn is_at(file: &File, path: &Path) -> bool {
    let both = file.metadata().and_then(|open| Ok((open, std::fs::symlink_metadata(path)?)));
    both.is_ok_and(|(open, there)| there.is_file() && same(&open, &there))
}

#[cfg(unix)]
fn same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Where files have no numbers the names alone, which are used once, must do.
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
