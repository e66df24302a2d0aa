//! A command's failure, with its exit status and advice.

use crate::output::note;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command stopped.
#[derive(Debug)]
pub enum Failure {
    /// Invalid command line: status 2.
    Usage(String),
    /// Failure: status 1. The message, and advice.
    Failed { what: String, advice: String },
    /// Standard output was closed: status 0, silently.
    NobodyReads,
}

impl Failure {
    /// A failure without advice.
    pub fn new(what: impl Display) -> Failure {
        Failure::Failed { what: what.to_string(), advice: String::new() }
    }

    /// A failure to read a file.
    pub fn reading(path: &Path, why: &std::io::Error) -> Failure {
        weft::error::Error::io(path, "read", why).into()
    }

    /// The same with other advice.
    pub fn advise(self, advice: impl Display) -> Failure {
        match self {
            Failure::Failed { what, .. } => Failure::Failed { what, advice: advice.to_string() },
            other => other,
        }
    }

    /// The same with the name of the file.
    pub fn within(self, path: &Path) -> Failure {
        match self {
            Failure::Failed { what, advice } => {
                Failure::Failed { what: format!("{}: {what}", path.display()), advice }
            }
            other => other,
        }
    }

    /// Prints the failure to standard error and returns the exit status.
    pub fn report(self) -> ExitCode {
        match self {
            Failure::NobodyReads => ExitCode::SUCCESS,
            Failure::Usage(what) => {
                note(format_args!("error: {what}\n\nFor more information, try '--help'."));
                ExitCode::from(2)
            }
            Failure::Failed { what, advice } => {
                note(format_args!("error: {what}"));
                if !advice.is_empty() {
                    note(format_args!("  {advice}"));
                }
                ExitCode::FAILURE
            }
        }
    }
}

impl From<weft::error::Error> for Failure {
    fn from(e: weft::error::Error) -> Failure {
        let advice = advice(&e);
        Failure::Failed { what: e.to_string(), advice: advice.into() }
    }
}

/// Only writes to standard output fail with a bare system error; errors of files contain their names.
impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        match e.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::new(format!("cannot write to standard output: {e}")),
        }
    }
}

/// Advice for an error whose message has none.
fn advice(e: &weft::error::Error) -> &'static str {
    use weft::error::Error as E;
    match e {
        E::Parse { .. } | E::Cycle { .. } => {
            "The graph's text form is described in samples/graphs/README.md."
        }
        E::MissingWeight { .. } | E::WeightType { .. } => {
            "`weft inspect` lists what a weights file holds; the graph's `param` lines are what it wants."
        }
        E::Artifact { .. } => "`weft compile` makes it anew, for the device and the version that are here.",
        E::Safetensors { .. } => "Is the file complete? `weft inspect` reads only its header.",
        E::Architecture { .. } | E::ModelOption { .. } => {
            "Any graph can be run with `weft run`; `weft inspect` shows what the folder holds."
        }
        E::Device { .. } => "`weft devices` lists the devices there are.",
        E::DeviceLost { .. } | E::Driver { .. } => "--device cpu computes without a GPU.",
        E::OutOfMemory { .. } => "Try a smaller batch or fewer tokens.",
        _ => "",
    }
}
