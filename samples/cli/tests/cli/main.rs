//! The built `weft` binary, run as by users: its output, files and exit status.

mod compile;
mod convert;
mod demo;
mod embed;
mod encoders;
mod errors;
mod explain;
mod files;
mod run;
mod show;
mod tune;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use weft::tensor::{Tensor, Weights};

/// What a run of the command left behind.
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Ran {
    /// Its one JSON object.
    fn json(&self) -> Value {
        assert_eq!(self.status, 0, "{}", self.err);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }

    /// It ended with that status, says each of these on standard error, and did not panic.
    fn says(&self, status: i32, wanted: &[&str]) {
        assert_eq!(self.status, status, "{}{}", self.out, self.err);
        assert!(!self.err.contains("panicked") && !self.err.contains("RUST_BACKTRACE"), "{}", self.err);
        for wanted in wanted {
            assert!(self.err.contains(wanted), "wanted \"{wanted}\" in: {}", self.err);
        }
    }
}

impl From<Output> for Ran {
    fn from(o: Output) -> Ran {
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        Ran { status: o.status.code().unwrap_or(-1), out: text(o.stdout), err: text(o.stderr) }
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(args).stdin(Stdio::null());
    command
}

fn weft(args: &[&str]) -> Ran {
    command(args).output().unwrap().into()
}

/// A folder of this test's own, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The path of a file in it.
    fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A file in it.
    fn file(&self, name: &str, contents: &str) -> String {
        std::fs::write(self.0.join(name), contents).unwrap();
        self.at(name)
    }

    /// A safetensors file in it.
    fn tensors<const N: usize>(&self, name: &str, tensors: [(&str, Tensor<'static>); N]) -> String {
        let weights: Weights = tensors.into_iter().map(|(n, t)| (n.to_string(), t)).collect();
        weft::load::save(self.0.join(name), &weights).unwrap();
        self.at(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A path in the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
