//! Errors for apps: the engine's, with the C library's for handles and panics, as one type.

use abi::shared::{self as statuses, Failure};
use engine::error::Error;

/// Declares [`ErrorKind`]: the kinds of the C library, and those of the engine.
macro_rules! kinds {
    ($( $(#[$doc:meta])* $name:ident = $code:expr ),* $(,)?) => {
        /// What sort of error it is. The codes are those of the C library's `WEFT_STATUS_…`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
        pub enum ErrorKind { $( $(#[$doc])* $name ),* }

        impl ErrorKind {
            /// Every kind with its code.
            pub const ALL: &'static [(u32, ErrorKind)] = &[$( ($code, ErrorKind::$name) ),*];
        }
    };
}

kinds! {
    /// A reference that must not be null is null.
    Null = statuses::WEFT_STATUS_NULL,
    /// The object was closed.
    Closed = statuses::WEFT_STATUS_HANDLE,
    /// Another call is using the object, which cannot be shared.
    Busy = statuses::WEFT_STATUS_BUSY,
    /// A text is not valid Unicode.
    Unicode = statuses::WEFT_STATUS_UTF8,
    /// The library panicked: a defect of Weft.
    Panic = statuses::WEFT_STATUS_PANIC,
    /// An operation was given inputs or attributes it does not accept.
    Op = 100,
    /// The graph as a whole is malformed.
    Graph = 101,
    /// Values of a graph's text form depend on each other in a cycle.
    Cycle = 102,
    /// The text form of a graph does not parse.
    Parse = 103,
    /// An operation has no gradient with respect to an input that needs one.
    NoGradient = 104,
    /// The weights lack one that the graph needs.
    MissingWeight = 200,
    /// A weight's shape or dtype differs from the graph's parameter.
    WeightType = 201,
    /// No input, output or parameter of that name.
    UnknownName = 300,
    /// Data of the wrong length.
    Length = 301,
    /// Data of the wrong dtype.
    DType = 302,
    /// A step without data for an input.
    InputNotSet = 303,
    /// An output index outside the session's outputs.
    OutputIndex = 304,
    /// A step was refused: an index in its data is outside its table.
    IndexOutOfRange = 305,
    /// Results were asked for before a step.
    NotRun = 306,
    /// An argument outside its range.
    Argument = 307,
    /// A file could not be read or written.
    Io = 400,
    /// A file is not valid safetensors.
    Safetensors = 401,
    /// A configuration file is not as it should be.
    Config = 402,
    /// A file cannot be loaded as an artifact.
    Artifact = 403,
    /// A model's architecture is not supported.
    Architecture = 500,
    /// An option of a model is not supported.
    ModelOption = 501,
    /// A tokenizer could not be read or used.
    Tokenizer = 502,
    /// A device cannot be used.
    Device = 600,
    /// Not enough memory.
    OutOfMemory = 601,
    /// The device no longer responds.
    DeviceLost = 602,
    /// A GPU driver failed.
    Driver = 603,
    /// The caller cancelled the work.
    Cancelled = 604,
    /// The device is suspended.
    Suspended = 605,
    /// The object was made before the process was forked.
    Forked = 606,
    /// A defect of Weft.
    Internal = 900,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
pub struct ErrorDetails {
    /// What sort of error it is.
    pub kind: ErrorKind,
    /// Its stable number.
    pub code: i32,
    /// A sentence: who failed, what was wanted, what came.
    pub message: String,
    /// What was wanted, where the kind has it.
    pub wanted: Option<String>,
    /// What came, where the kind has it.
    pub came: Option<String>,
    /// The graph's node, where there is one.
    pub node: Option<String>,
}

/// The error of every function of this library.
#[derive(Debug, Clone, PartialEq, uniffi::Error)]
pub enum WeftError {
    /// What went wrong.
    Failed {
        /// The details.
        details: ErrorDetails,
    },
}

/// The outcome of every function of this library.
pub type Result<T, E = WeftError> = std::result::Result<T, E>;

impl WeftError {
    /// An error of a code, without further details.
    pub fn new(code: u32, message: String) -> WeftError {
        let known = ErrorKind::ALL.iter().find(|(c, _)| *c == code);
        let kind = known.map_or(ErrorKind::Internal, |(_, kind)| *kind);
        let code = code as i32; // below 1000
        WeftError::Failed {
            details: ErrorDetails { kind, code, message, wanted: None, came: None, node: None },
        }
    }

    /// The details.
    pub fn details(&self) -> &ErrorDetails {
        let WeftError::Failed { details } = self;
        details
    }
}

impl std::fmt::Display for WeftError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.details().message)
    }
}

impl std::error::Error for WeftError {}

impl From<Failure> for WeftError {
    fn from(failure: Failure) -> WeftError {
        match failure.cause {
            Some(cause) => (*cause).into(),
            None => WeftError::new(failure.status, failure.message),
        }
    }
}

impl From<Error> for WeftError {
    fn from(e: Error) -> WeftError {
        let WeftError::Failed { mut details } = WeftError::new(e.code(), e.to_string());
        (details.wanted, details.came) = wanted_and_came(&e);
        details.node = node(&e);
        WeftError::Failed { details }
    }
}

/// The node that an error is about.
pub(crate) fn node(e: &Error) -> Option<String> {
    match e {
        Error::Op { node, .. } | Error::NoGradient { node, .. } | Error::IndexOutOfRange { node, .. } => {
            Some(node.clone())
        }
        _ => None,
    }
}

/// What was wanted and what came, of an error that has both, or says one of them in other words.
pub(crate) fn wanted_and_came(e: &Error) -> (Option<String>, Option<String>) {
    match e {
        Error::Op { wanted, came, .. }
        | Error::Parse { wanted, came, .. }
        | Error::MissingWeight { wanted, came, .. }
        | Error::WeightType { wanted, came, .. }
        | Error::Length { wanted, came, .. }
        | Error::DType { wanted, came, .. }
        | Error::Argument { wanted, came, .. }
        | Error::Safetensors { wanted, came, .. }
        | Error::Config { wanted, came, .. }
        | Error::Artifact { wanted, came, .. }
        | Error::ModelOption { wanted, came, .. } => (Some(wanted.clone()), Some(came.clone())),
        Error::UnknownName { name, known, .. } | Error::Architecture { name, known } => {
            (Some(known.clone()), Some(name.clone()))
        }
        Error::OutputIndex { index, count } => (Some(format!("less than {count}")), Some(index.to_string())),
        Error::IndexOutOfRange { index, limit, .. } => (Some(format!("0..{limit}")), Some(index.to_string())),
        Error::OutOfMemory { wanted, .. } => (Some(format!("{wanted} bytes")), None),
        _ => (None, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_engine_has_its_kind_by_name() {
        let of_engine = ErrorKind::ALL.iter().filter(|(code, _)| *code >= 100);
        let kinds: Vec<(u32, String)> = of_engine.map(|(code, kind)| (*code, format!("{kind:?}"))).collect();
        let codes: Vec<(u32, String)> =
            Error::CODES.iter().map(|(code, name)| (*code, name.to_string())).collect();
        assert_eq!(kinds, codes);
    }

    #[test]
    fn details_say_what_was_wanted_what_came_and_where() {
        let op = |node: &str| Error::Op {
            op: "matmul".into(),
            node: node.into(),
            wanted: "inner dimensions must agree".into(),
            came: "[2, 3] × [4, 5]".into(),
        };
        let error = WeftError::from(op("logits"));
        let details = error.details();
        assert_eq!((details.kind, details.code), (ErrorKind::Op, 100));
        assert_eq!(details.wanted.as_deref(), Some("inner dimensions must agree"));
        assert_eq!(details.came.as_deref(), Some("[2, 3] × [4, 5]"));
        assert_eq!(details.node.as_deref(), Some("logits"));
        assert_eq!(details.message, op("logits").to_string());
    }
}
