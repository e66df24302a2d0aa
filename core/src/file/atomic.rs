//! Replaces a file so that a crash leaves the old one or the new one, never a part.

use crate::error::{Error, Result};
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Writes a file crash-atomically: into a new file beside it, synced to the disk, renamed over it, and the folder
/// synced. On an error the old file is as it was and the new one is gone.
///
/// # Errors
/// [`Error::Io`] where the system refuses; whatever `write` returns as its own.
pub fn write_atomically(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<()> {
    let path = path.as_ref();
    let refused = |e: std::io::Error| Error::io(path, "write", &e);
    let (file, beside) = create_beside(path)?;
    fill(file, write).and_then(|()| std::fs::rename(&beside, path)).map_err(|e| {
        let _ = std::fs::remove_file(&beside); // the first error is the one to tell
        refused(e)
    })?;
    sync_folder(path).map_err(refused)
}

fn fill(file: File, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, file);
    write(&mut out)?;
    out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// A new file beside `path`. A name may be taken by what a killed process of the same number left behind.
fn create_beside(path: &Path) -> Result<(File, PathBuf)> {
    const TRIES: usize = 1000;
    let mut tries = 0;
    loop {
        let beside = beside(path)?;
        match OpenOptions::new().write(true).create_new(true).open(&beside) {
            Ok(file) => return Ok((file, beside)),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && tries < TRIES => tries += 1,
            Err(e) => return Err(Error::io(path, "write", &e)),
        }
    }
}

/// A name beside `path` that nobody else uses: `.name.pid-count.tmp`.
fn beside(path: &Path) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::argument("path", "the name of a file to write", path.display()));
    };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(hidden))
}

/// Makes the renaming itself last. Only Unix can and needs to.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}
