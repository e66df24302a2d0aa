//! The error type. Every variant has a stable numeric code, and a message that names who failed, what was wanted and what came.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// The result of every fallible call of Weft.
///
/// ```
/// fn probability(session: &weft::session::Session) -> weft::error::Result<f32> {
///     Ok(session.read_output::<f32>("probability")?[0])
/// }
/// ```
pub type Result<T> = std::result::Result<T, Error>;

macro_rules! errors {
    ($( $(#[$doc:meta])* $code:literal $name:ident { $( $(#[$fdoc:meta])* $field:ident : $ty:ty ),* $(,)? } => $fmt:literal ),* $(,)?) => {
        /// All errors. Codes are stable across versions; see [`Error::code`].
        ///
        /// ```
        /// use weft::error::Error;
        ///
        /// match weft::load::safetensors("no such file") {
        ///     Err(Error::Io { path, why, .. }) => assert!(path.ends_with("no such file"), "{why}"),
        ///     Err(other) => panic!("{other} (code {})", other.code()),
        ///     Ok(_) => unreachable!(),
        /// }
        /// ```
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum Error {
            $( $(#[$doc])* $name { $( $(#[$fdoc])* $field: $ty ),* } ),*
        }

        impl Error {
            /// The stable number of this kind of error (as the C ABI reports it).
            pub fn code(&self) -> u32 {
                match self { $( Error::$name { .. } => $code ),* }
            }

            /// Every code with the name of its variant, for bindings and documentation.
            pub const CODES: &'static [(u32, &'static str)] = &[ $( ($code, stringify!($name)) ),* ];
        }

        impl fmt::Display for Error {
            #[allow(unused_variables)] // a cause is not part of the message
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $( Error::$name { $( $field ),* } => {
                    $( let $field = &Shown($field); )*
                    write!(f, $fmt)
                } ),* }
            }
        }
    };
}

errors! {
    /// An operation was given inputs or attributes it does not accept.
    100 Op {
        /// Name of the operation.
        op: String,
        /// Name of the node, as the graph's text form prints it.
        node: String,
        /// What the operation wants.
        wanted: String,
        /// What it was given.
        came: String,
    } => "{op}: {wanted}: {came} (node \"{node}\")",
    /// The graph as a whole is malformed.
    101 Graph {
        /// What is wrong with it.
        what: String,
    } => "graph: {what}",
    /// Values of the graph's text form depend on each other in a cycle.
    102 Cycle {
        /// The names of the values on the cycle, in order.
        names: String,
    } => "graph: values depend on each other in a circle: {names}",
    /// The text form of a graph does not parse.
    103 Parse {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What was wanted there.
        wanted: String,
        /// What was found.
        came: String,
    } => "graph text, line {line}, column {column}: wanted {wanted}, found {came}",
    /// An operation has no gradient with respect to an input that needs one.
    104 NoGradient {
        /// Name of the operation.
        op: String,
        /// Name of the node.
        node: String,
        /// The reason.
        why: String,
    } => "{op}: no gradient: {why} (node \"{node}\")",
    /// The weights lack one that the graph needs.
    200 MissingWeight {
        /// Name of the parameter.
        name: String,
        /// Its type in the graph.
        wanted: String,
        /// Similar names, or the number of weights.
        came: String,
    } => "weight \"{name}\" ({wanted}) is missing: {came}",
    /// A weight's shape or dtype differs from the graph's parameter.
    201 WeightType {
        /// Name of the parameter.
        name: String,
        /// Its type in the graph.
        wanted: String,
        /// The type of the weight.
        came: String,
    } => "weight \"{name}\": the graph wants {wanted}, the weights have {came}",
    /// No input, output or parameter of that name.
    300 UnknownName {
        /// "input", "output" or "parameter".
        kind: String,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    } => "no {kind} named \"{name}\"; there are: {known}",
    /// Data of the wrong length for an input or parameter.
    301 Length {
        /// Name of the input or parameter.
        name: String,
        /// Its type.
        wanted: String,
        /// Number of elements (or bytes) given.
        came: String,
    } => "\"{name}\" is {wanted}, but {came} came",
    /// Data of the wrong element type for an input or parameter.
    302 DType {
        /// Name of the input or parameter.
        name: String,
        /// Its dtype.
        wanted: String,
        /// The dtype given.
        came: String,
    } => "\"{name}\" holds {wanted} elements, but {came} came",
    /// A step was requested before every input had data.
    303 InputNotSet {
        /// The inputs without data.
        names: String,
    } => "set these inputs before the step: {names}",
    /// An output index beyond the last.
    304 OutputIndex {
        /// The index asked for.
        index: usize,
        /// How many outputs there are.
        count: usize,
    } => "output {index} asked for, but the session has {count} (from 0)",
    /// An index in the data (a token id, a label, a position in a cache) is outside the table it refers to. The step was
    /// refused and has had no effect.
    305 IndexOutOfRange {
        /// The number of the session's refused step, from 1 in the order of calls; `None` outside of steps.
        step: Option<u64>,
        /// Name of the node with the look-up.
        node: String,
        /// The index.
        index: i64,
        /// Position of the index in the indices, flattened.
        position: usize,
        /// The number of entries of the table.
        limit: usize,
    } => "index {index} at position {position} is outside 0..{limit} (node \"{node}\"{step})",
    /// An output was read before a step had computed it, or after a refused step.
    306 NotRun {
        /// What was read; after a refused step also why it was refused.
        what: String,
    } => "{what} is not there yet: run a step first",
    /// An argument outside its valid range.
    307 Argument {
        /// The argument.
        what: String,
        /// Its valid values.
        wanted: String,
        /// What came.
        came: String,
    } => "{what}: wanted {wanted}, got {came}",
    #[non_exhaustive]
    /// The operating system refused a file.
    400 Io {
        /// The file or folder.
        path: PathBuf,
        /// The attempted operation.
        doing: String,
        /// The system's message.
        why: String,
        /// The system's error.
        cause: Cause,
    } => "cannot {doing} {path}: {why}",
    /// A safetensors file is malformed.
    401 Safetensors {
        /// The file, or "bytes".
        file: String,
        /// What the format wants.
        wanted: String,
        /// What the file has.
        came: String,
    } => "{file} is not a valid safetensors file: wanted {wanted}, found {came}",
    #[non_exhaustive]
    /// A JSON or table file (config.json, an index, a CSV) has unexpected contents.
    402 Config {
        /// The file.
        file: String,
        /// The expected contents.
        wanted: String,
        /// The actual contents.
        came: String,
        /// The parser's error, if it failed.
        cause: Cause,
    } => "{file}: wanted {wanted}, found {came}",
    /// A compiled artifact that this engine cannot or must not load on this device: compile again.
    403 Artifact {
        /// The file, or "bytes".
        file: String,
        /// Which part: "magic", "format", "length", "hash", "engine", "device", "kernels", "contents" or "plan".
        what: String,
        /// The expected value.
        wanted: String,
        /// The actual value.
        came: String,
    } => "{file} cannot be loaded as an artifact: {what}: wanted {wanted}, found {came}",
    /// A model with an unsupported architecture.
    500 Architecture {
        /// The architecture's name in `config.json`.
        name: String,
        /// The supported ones.
        known: String,
    } => "architecture \"{name}\" is not supported; supported: {known}",
    /// An unsupported option of a supported architecture.
    501 ModelOption {
        /// The architecture.
        architecture: String,
        /// The option.
        option: String,
        /// The supported values.
        wanted: String,
        /// Its value in the model.
        came: String,
    } => "{architecture}: option {option} = {came} is not supported (supported: {wanted})",
    #[non_exhaustive]
    /// The tokenizer cannot be read, or failed on a text.
    502 Tokenizer {
        /// The file or text.
        what: String,
        /// The tokenizer's message.
        why: String,
        /// The tokenizer's error.
        cause: Cause,
    } => "tokenizer: {what}: {why}",
    /// No such device, or it does not support the request.
    600 Device {
        /// The device.
        device: String,
        /// The reason.
        why: String,
    } => "device {device}: {why}",
    /// Not enough memory.
    601 OutOfMemory {
        /// Bytes requested.
        wanted: u64,
        /// Purpose of the allocation.
        what: String,
    } => "out of memory: {wanted} bytes wanted for {what}",
    /// The device stopped working: its driver reset it, it was unplugged, or an earlier failure left it unusable. Open it
    /// again.
    602 DeviceLost {
        /// The device.
        device: String,
        /// The last known cause.
        why: String,
    } => "device {device} is lost: {why}",
    /// The device's driver failed at, or refused, a valid request.
    603 Driver {
        /// The device.
        device: String,
        /// The driver's message.
        why: String,
    } => "the driver of {device} failed: {why}",
    /// The caller cancelled the operation.
    604 Cancelled {
        /// The cancelled operation.
        what: String,
    } => "cancelled: {what}",
    /// The device is suspended (see `Device::suspend`): resume it first.
    605 Suspended {
        /// The device.
        device: String,
    } => "device {device} is suspended: resume it first",
    /// An object was created before this process was forked, or a GPU is used in a forked child whose parent had used GPU
    /// drivers: a forked child has neither the parent's threads nor its drivers. Create a new object in the child; a child can
    /// use a GPU only if the parent had not used GPU drivers.
    606 Forked {
        /// The object.
        what: String,
        /// Why it cannot be used, and what to do.
        why: String,
    } => "{what} cannot be used in a child of fork: {why}",
    /// A defect of Weft itself, detected before it could do harm.
    900 Internal {
        /// What happened.
        what: String,
    } => "internal error (please report it): {what}",
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { cause, .. } | Error::Config { cause, .. } | Error::Tokenizer { cause, .. } => {
                cause.get()
            }
            _ => None,
        }
    }
}

/// The underlying error of the system or of a library, if there is one: an [`Error`]'s [`source`](std::error::Error::source).
/// Two are equal if their messages are.
///
/// ```
/// use std::error::Error;
///
/// let refused = weft::load::safetensors("no such file").unwrap_err();
/// let cause = refused.source().expect("the system's own error");
/// let cause = cause.downcast_ref::<std::io::Error>().expect("of the system's type");
/// assert_eq!(cause.kind(), std::io::ErrorKind::NotFound);
/// ```
#[derive(Clone, Default)]
pub struct Cause(Option<Arc<dyn std::error::Error + Send + Sync>>);

impl Cause {
    /// No underlying error.
    pub fn none() -> Cause {
        Cause(None)
    }

    /// That error.
    pub fn of(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Cause {
        Cause(Some(Arc::from(error.into())))
    }

    /// The error, if there is one.
    pub fn get(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Cause) -> bool {
        let said = |c: &Cause| c.0.as_ref().map(ToString::to_string);
        said(self) == said(other)
    }
}

impl Error {
    /// An [`Error::Io`] from the system's error.
    pub fn io(path: impl Into<PathBuf>, doing: &str, why: &std::io::Error) -> Self {
        // a copy where possible: errors must be `Clone`
        let cause = match why.raw_os_error() {
            Some(code) => std::io::Error::from_raw_os_error(code),
            None => std::io::Error::new(why.kind(), why.to_string()),
        };
        Error::Io { path: path.into(), doing: doing.into(), why: why.to_string(), cause: Cause::of(cause) }
    }

    /// An [`Error::Io`] for an operation that the system would allow and Weft refuses.
    pub(crate) fn refused(path: impl Into<PathBuf>, doing: &str, why: impl Into<String>) -> Self {
        Error::Io { path: path.into(), doing: doing.into(), why: why.into(), cause: Cause::none() }
    }

    /// An [`Error::Config`] for a parsed file with unexpected contents.
    pub(crate) fn config(
        file: impl Into<String>,
        wanted: impl Into<String>,
        came: impl Into<String>,
    ) -> Self {
        Error::Config { file: file.into(), wanted: wanted.into(), came: came.into(), cause: Cause::none() }
    }

    /// An [`Error::Config`] for a file that its parser cannot read.
    pub(crate) fn unread(file: impl Into<String>, wanted: impl Into<String>, why: serde_json::Error) -> Self {
        let came = why.to_string();
        Error::Config { file: file.into(), wanted: wanted.into(), came, cause: Cause::of(why) }
    }

    /// An [`Error::Tokenizer`] without an underlying library error.
    #[cfg(feature = "text")]
    pub(crate) fn tokenizer(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Tokenizer { what: what.into(), why: why.into(), cause: Cause::none() }
    }

    /// An [`Error::Argument`].
    pub fn argument(what: impl fmt::Display, wanted: impl fmt::Display, came: impl fmt::Display) -> Self {
        Error::Argument { what: what.to_string(), wanted: wanted.to_string(), came: came.to_string() }
    }

    /// The same error with the number of the session's step, if it is the refusal of a step.
    pub(crate) fn of_step(mut self, number: u64) -> Self {
        if let Error::IndexOutOfRange { step, .. } = &mut self {
            *step = Some(number);
        }
        self
    }

    /// An [`Error::Internal`].
    pub fn internal(what: impl fmt::Display) -> Self {
        Error::Internal { what: what.to_string() }
    }
}

/// Allows one format string to show fields of any of the types above.
struct Shown<'a, T>(&'a T);

impl fmt::Display for Shown<'_, String> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Display for Shown<'_, PathBuf> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.display())
    }
}

impl fmt::Display for Shown<'_, Option<u64>> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |step| write!(f, ", step {step}"))
    }
}

macro_rules! shown {
    ($($t:ty),*) => { $( impl fmt::Display for Shown<'_, $t> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}", self.0) }
    } )* };
}
shown!(usize, u64, i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_messages_name_who_wanted_and_came() {
        let mut codes: Vec<u32> = Error::CODES.iter().map(|c| c.0).collect();
        codes.dedup();
        assert_eq!(codes.len(), Error::CODES.len());
        let e = Error::Op {
            op: "matmul".into(),
            node: "logits".into(),
            wanted: "inner dimensions must agree".into(),
            came: "[4, 784] × [512, 10]".into(),
        };
        assert_eq!(
            e.to_string(),
            "matmul: inner dimensions must agree: [4, 784] × [512, 10] (node \"logits\")"
        );
        assert_eq!(e.code(), 100);
    }
}
