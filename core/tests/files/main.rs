//! Writing files as a user, on a Unix system: permissions, links, devices and pipes, full disks, killed writers.
//!
//! If run as root, `tests/run` runs these tests a second time as a user without privileges, since root is allowed what others
//! are refused. Tests that need one of the two say so when run as the other.
#![cfg(unix)]

mod deaths;
mod links;
mod refused;
mod rights;
mod through;

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use weft::error::Error;
use weft::load::write_atomically;

/// An empty folder of a test's own, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("weft-files-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file of that mode.
    fn file(&self, name: &str, contents: &str, mode: u32) -> PathBuf {
        let path = self.at(name);
        std::fs::write(&path, contents).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Names of what is in it.
    fn names(&self) -> Vec<String> {
        let name = |n: OsString| n.into_string().unwrap();
        let mut all: Vec<String> =
            std::fs::read_dir(&self.0).unwrap().map(|e| name(e.unwrap().file_name())).collect();
        all.sort();
        all
    }

    /// Its temporary files.
    fn temporaries(&self) -> Vec<PathBuf> {
        let all = self.names().into_iter().filter(|n| n.starts_with(".weft-") && n.ends_with(".tmp"));
        all.map(|n| self.at(&n)).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::set_permissions(&self.0, std::fs::Permissions::from_mode(0o700));
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(path: impl AsRef<Path>, text: &str) -> weft::error::Result<()> {
    write_atomically(path, |out| out.write_all(text.as_bytes()))
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn mode(path: impl AsRef<Path>) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// It failed as the system's refusal of that path.
#[track_caller]
fn refuses(done: weft::error::Result<()>, path: &Path, why: &str) {
    match done {
        Err(Error::Io { path: p, doing, why: w, .. }) => {
            assert_eq!((p.as_path(), doing.as_str()), (path, "write"), "{w}");
            assert!(w.contains(why), "wanted {why:?} in {w:?}");
        }
        other => panic!("wanted a refusal of {}, got {other:?}", path.display()),
    }
}

fn is_root() -> bool {
    Folder::new().0.metadata().unwrap().uid() == 0
}

/// Root may do everything: says so, and that a test shows nothing then.
fn only_as_user(what: &str) -> bool {
    if is_root() {
        eprintln!("not checked as root: {what}");
    }
    !is_root()
}

/// Only root may do that: says so.
fn only_as_root(what: &str) -> bool {
    if !is_root() {
        eprintln!("not checked as an ordinary user: {what}");
    }
    is_root()
}

/// Environment variable that makes a run of this binary a writer: see [`child`].
const WRITER: &str = "WEFT_TEST_WRITES";

/// This binary again as a process that writes `text` to `path`, begun by a shell after `before`, which may redirect the
/// writer `$0` too: `umask 027; exec "$0" "$@"`.
fn child(script: &str, path: &Path, text: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(std::env::current_exe().unwrap());
    shell.args(["a_writer_that_other_tests_begin", "--exact", "--nocapture", "--test-threads=1", "--quiet"]);
    shell.env(WRITER, path).env("WEFT_TEST_TEXT", text);
    shell.stdin(Stdio::null());
    shell
}

/// Not a test of its own: what [`child`] runs. A text of "wait" is written in halves, with an endless pause between.
#[test]
fn a_writer_that_other_tests_begin() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let text = std::env::var("WEFT_TEST_TEXT").unwrap();
    let done = write_atomically(PathBuf::from(path), |out| {
        if text == "wait" {
            // more than is gathered before it is written
            out.write_all(&vec![b'h'; 3 << 20])?;
            std::thread::sleep(std::time::Duration::from_secs(300));
        }
        out.write_all(text.as_bytes())
    });
    match done {
        Ok(()) => std::process::exit(0),
        Err(e) => {
            eprintln!("{e}");
            std::process::exit(if matches!(e, Error::Io { .. }) { 40 } else { 1 });
        }
    }
}
