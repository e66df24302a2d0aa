//! Writes a file so that a crash leaves the old one or the new one, never a part.

use super::place::{self, Place};
use super::rights;
use super::temporary::Temporary;
use crate::error::{Error, Result};
use std::fs::{File, Metadata};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

/// Bytes that are gathered before they are written.
const BUFFER: usize = 1 << 20;

/// Writes a file crash-atomically: into a temporary file beside it, synced to the disk, renamed over it, and the folder
/// synced.
///
/// * A symbolic link is followed, and stays: the file that it leads to is replaced, or made where it leads to none.
/// * A file that is replaced keeps its mode, and owner and group where the system lets us give files away. On Linux its
///   access control list and `user.*` attributes are kept too. Nobody can read the temporary file who cannot read the
///   old one. A new file has the mode that the process's umask leaves.
/// * Of a file with several names (hard links) this name alone leads to what is written; the others keep the old file.
/// * A file that this process may not write is not replaced, though the folder would allow it.
/// * A device, a named pipe or a socket is written to, as it is: there nothing is atomic, and opening a pipe waits for a
///   reader. The same is true of what `/dev/stdout` and `/dev/fd/N` stand for, whatever it is.
/// * A writer that is killed leaves a temporary file `.weft-….tmp`, which the next write in that folder removes.
///
/// # Errors
/// [`Error::Io`] where the system refuses, for folders, and for whatever `write` returns: the old file is as it was
/// then, and the temporary one is gone. (Only if the folder cannot be synced the new file is in its place.)
/// [`Error::Argument`] for a path without a file's name.
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

/// Writes to what is no regular file.
fn through(file: File, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let file = fill(file, write)?;
    if place::is_disk(&file) { file.sync_all() } else { Ok(()) }
}

/// Replaces the file at `at`, or makes it, for somebody who calls it `path`.
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
            let _ = out.into_parts(); // what was gathered is not written any more
            Err(e)
        }
    }
}

/// Makes the renaming itself last. Only Unix can and needs to; some file systems cannot, and a folder that may be
/// written but not read cannot be opened.
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
