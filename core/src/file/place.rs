//! Resolves the path of a file to write: a file to replace or create, or a target to write in place.

use crate::error::{Error, Result};
use std::fs::{File, Metadata, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Maximum number of symbolic links to follow; as on Linux.
const MOST_LINKS: usize = 40;

/// The target of a path.
pub(super) enum Place {
    /// A regular file, or none yet, at a path that is not a symbolic link.
    File {
        /// The path.
        at: PathBuf,
        /// The existing file's metadata.
        old: Option<Metadata>,
    },
    /// A device, a pipe, a socket, or an already open file, opened for writing.
    Through(File),
}

/// Follows the symbolic links of a path.
///
/// # Errors
/// [`Error::Io`] for a folder, a cycle of links, and if the system refuses; [`Error::Argument`] for a path without a file name.
pub(super) fn find(path: &Path) -> Result<Place> {
    let refused = |e: std::io::Error| Error::io(path, "write", &e);
    let why = |why: &str| Error::refused(path, "write", why);
    if !names_a_file(path) {
        return Err(Error::argument("path", "the name of a file to write", path.display()));
    }
    // Ask the system first: it may forbid following a link that we could read.
    match std::fs::metadata(path) {
        Ok(about) if about.is_dir() => return Err(why("it is a folder, not a file")),
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(refused(e)),
        _ => {}
    }
    let mut at = path.to_path_buf();
    for _ in 0..=MOST_LINKS {
        if let Some(open) = system::already_open(&at) {
            return open.map(Place::Through).map_err(refused);
        }
        let about = match std::fs::symlink_metadata(&at) {
            Err(e) if e.kind() == ErrorKind::NotFound && names_a_file(&at) => {
                return Ok(Place::File { at, old: None });
            }
            about => about.map_err(refused)?,
        };
        if !about.is_symlink() {
            return match system::is_replaced(&about) {
                true => Ok(Place::File { at, old: Some(about) }),
                false => system::open(&at, &about).map(Place::Through).map_err(refused),
            };
        }
        let to = std::fs::read_link(&at).map_err(refused)?;
        at = folder_of(&at).join(to);
    }
    Err(why("its symbolic links go in a circle"))
}

/// Whether a path ends with a file name, not with a folder's form (`w/`, `w/.`).
fn names_a_file(path: &Path) -> bool {
    let name = path.file_name().map(|n| n.as_encoded_bytes());
    name.is_some_and(|n| path.as_os_str().as_encoded_bytes().ends_with(n))
}

/// The folder that a path's last name is in.
pub(super) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether the open file is on a disk, so that it can be synced.
pub(super) fn is_disk(file: &File) -> bool {
    file.metadata().is_ok_and(|about| about.is_file() || system::is_block_device(&about))
}

#[cfg(unix)]
mod system {
    use super::*;
    use rustix::fs::OFlags;
    use std::os::fd::{BorrowedFd, OwnedFd};
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
    use std::os::unix::net::UnixStream;

    pub fn is_replaced(about: &Metadata) -> bool {
        about.is_file()
    }

    pub fn is_block_device(about: &Metadata) -> bool {
        about.file_type().is_block_device()
    }

    pub fn open(at: &Path, about: &Metadata) -> std::io::Result<File> {
        if about.file_type().is_socket() {
            return UnixStream::connect(at).map(|s| File::from(OwnedFd::from(s)));
        }
        // opening a terminal must not make it the controlling one
        OpenOptions::new().write(true).custom_flags(OFlags::NOCTTY.bits() as i32).open(at)
    }

    /// Opens the file behind a path in `/dev/fd` or in a process's `fd` folder. Such a name looks like a link to a file, but
    /// that file must not be replaced: its opener continues with the open one.
    pub fn already_open(at: &Path) -> Option<std::io::Result<File>> {
        let folder = std::fs::canonicalize(folder_of(at)).ok()?;
        if !["/proc", "/dev/fd"].iter().any(|p| folder.starts_with(p)) {
            return None;
        }
        let own = ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"];
        let own = own.iter().any(|f| std::fs::canonicalize(f).is_ok_and(|f| f == folder));
        let number = at.file_name()?.to_str()?.parse::<i32>().ok().filter(|n| *n >= 0);
        match number {
            // Opening by path would write from the start, over existing contents: a duplicate continues at the current
            // position.
            // SAFETY: the number refers to what is open under it; if nothing is, duplicating fails.
            Some(n) if own => Some(unsafe { BorrowedFd::borrow_raw(n) }.try_clone_to_owned().map(File::from)),
            // of another process: append, as the best possible
            _ if std::fs::symlink_metadata(at).is_ok_and(|l| l.is_symlink()) => {
                Some(OpenOptions::new().append(true).open(at))
            }
            _ => None,
        }
    }
}

#[cfg(not(unix))]
mod system {
    use super::*;

    pub fn is_replaced(about: &Metadata) -> bool {
        about.is_file()
    }

    pub fn is_block_device(_: &Metadata) -> bool {
        false
    }

    pub fn open(at: &Path, _: &Metadata) -> std::io::Result<File> {
        OpenOptions::new().write(true).open(at)
    }

    /// A Windows device, by name: `NUL`, `CON`, `COM1`, `\\.\pipe\name`.
    pub fn already_open(at: &Path) -> Option<std::io::Result<File>> {
        let name = at.file_stem()?.to_str()?.to_ascii_uppercase();
        let numbered = |n: &str| n.len() == 4 && (n.starts_with("COM") || n.starts_with("LPT"));
        let device = ["NUL", "CON", "PRN", "AUX", "CONOUT$"].contains(&name.as_str())
            || numbered(&name) && name.ends_with(|c: char| c.is_ascii_digit());
        let device = cfg!(windows) && (device || at.as_os_str().as_encoded_bytes().starts_with(br"\\.\"));
        device.then(|| OpenOptions::new().write(true).open(at))
    }
}
