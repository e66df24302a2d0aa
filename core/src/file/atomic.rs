//! Replaces a file atomically: a crash leaves the old one or the new one, never a part.

use super::place::{self, Place};
use super::rights;
use super::temporary::Temporary;
use crate::error::{Error, Result};
use std::fs::{File, Metadata};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

/// Size of the write buffer.
const BUFFER: usize = 1 << 20;

/// Writes a file atomically: into a temporary file in the same folder, synced to disk and renamed over the target; then syncs
/// the folder.
///
/// * A symbolic link is followed and kept: its target is replaced, or created if it does not exist.
/// * A replaced file keeps its mode, and its owner and group if the system permits. On Linux its access control list and
///   `user.*` attributes are kept, too. The temporary file is never readable by anyone who cannot read the old one. A new
///   file has the mode given by the process's umask.
/// * If a file has several names (hard links), only this name refers to the new contents; the others keep the old file.
/// * A file that this process may not write is not replaced, even if the folder's permissions would allow it.
/// * A device, a named pipe or a socket is written in place: this is not atomic, and opening a pipe waits for a reader. The
///   same holds for the targets of `/dev/stdout` and `/dev/fd/N`.
/// * A killed writer leaves a temporary file `.weft-….tmp`, which the next write in that folder removes.
///
/// # Errors
/// [`Error::Io`] if the system refuses, for folders, and for errors of `write`: the old file is then unchanged, and the
/// temporary one removed. (Only if syncing the folder fails, the new file is already in place.) [`Error::Argument`] for a path
/// without a file name.
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let refused = |e: std::io::Error| Error::io(path, "write", &e);
    match place::find(path)? {
        Place::Through(file) => through(file, write).map_err(refused),
        Place::File { at, old } => replace(path, &at, old.as_ref(), write),
    }
}

/// Writes to a file that is not a regular one.
fn through(file: File, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let file = fill(file, write)?;
    if place::is_disk(&file) { file.sync_all() } else { Ok(()) }
}

/// Replaces or creates the file at `at`; errors name `path`.
fn replace(
    path: &Path,
    at: &Path,
    old: Option<&Metadata>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let refused = |e: std::io::Error| Error::io(path, "write", &e);
    if old.is_some() {
        rights::may_write(at).map_err(refused)?;
    }
    let folder = place::folder_of(at);
    let temporary = Temporary::make(folder, old.is_some()).map_err(|e| {
        let why = format!("no file can be made in {}: {e}", folder.display());
        Error::refused(path, "write", why)
    })?;
    fill(temporary.file(), write).map_err(refused)?;
    if let Some(old) = old {
        rights::carry_over(old, at, temporary.file()).map_err(refused)?;
    }
    temporary.file().sync_all().map_err(refused)?;
    temporary.rename_to(at).map_err(refused)?;
    sync_folder(folder).map_err(|e| Error::io(path, "sync the folder of", &e))
}

fn fill<F: Write>(file: F, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<F> {
    let mut out = BufWriter::with_capacity(BUFFER, file);
    match write(&mut out) {
        Ok(()) => out.into_inner().map_err(std::io::IntoInnerError::into_error),
        Err(e) => {
            let _ = out.into_parts(); // discards the buffer
            Err(e)
        }
    }
}

/// Makes the rename durable. Only possible and necessary on Unix; some file systems cannot, and a folder that is writable but
/// not readable cannot be opened.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match File::open(folder).and_then(|f| f.sync_all()) {
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        done => done,
    }
}
