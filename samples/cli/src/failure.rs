//! What ends a command early, and the exit status and advice that go with it.

use crate::output::note;
use std::fmt::Display;
use std::path::Path;
use std::process::ExitCode;

pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command stopped.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense: status 2.
    Usage(String),
    /// It could not be done: status 1. What happened, and what to do about it.
    Failed { what: String, advice: String },
    /// Nobody reads standard output any more: status 0, silently.
    NobodyReads,
}

impl Failure {
    /// A failure that says all there is to say.
    pub fn new(what: impl Display) -> Failure {
        Failure::Failed { what: what.to_string(), advice: String::new() }
    }

    /// A failure to read a file.
    pub fn reading(path: &Path, why: &std::io::Error) -> Failure {
        weft::error::Error::io(path, "read", why).into()
    }

    /// The same with advice, in place of what advice there was.
    pub fn advise(self, advice: impl Display) -> Failure {
        match self {
            Failure::Failed { what, .. } => Failure::Failed { what, advice: advice.to_string() },
            other => other,
        }
    }

    /// The same, saying in which file.
    pub fn within(self, path: &Path) -> Failure {
        match self {
            Failure::Failed { what, advice } => {
                Failure::Failed { what: format!("{}: {what}", path.display()), advice }
            }
            other => other,
        }
    }

    /// Says on standard error what happened and returns the status to exit with.
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

/// Only writing to standard output fails with a bare system error; files are named in theirs.
impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        match e.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::NobodyReads,
            _ => Failure::new(format!("cannot write to standard output: {e}")),
        }
    }
}

/// What to do about an error, where its own message does not say.
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
