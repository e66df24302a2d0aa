//! The library inside the Swift and Kotlin packages. It has three interfaces over one table of handles (`ffi/src/handle.rs`), so an
//! object that one of them made can be used through the others:
//!
//! - the C ABI, which is the C library itself (`abi`), and a few functions beside it (`swift`): Swift's data plane;
//! - uniffi's functions, the control plane of both languages: devices, compilation, artifacts, weights, sessions, encoders, logs.
//!   A uniffi object is a handle of the table (`owned`);
//! - JNI functions (`jni`, a feature), Kotlin's data plane: what carries tensors, or is called in every step. A call through JNA, which
//!   uniffi's Kotlin uses, takes 11 to 34 µs; a JNI call takes nanoseconds.
//!
//! Every function returns errors as [`WeftError`]: a kind, its code, who failed, what was wanted, what came. Panics are errors, too.

mod artifact;
mod compile;
mod device;
mod encoder;
mod error;
mod graph;
#[cfg(feature = "jni")]
mod jni;
mod logging;
mod owned;
mod session;
mod swift;
mod types;
mod version;
mod weights;

pub use artifact::*;
pub use compile::*;
pub use device::*;
pub use encoder::*;
pub use error::*;
pub use graph::*;
pub use logging::*;
pub use session::*;
pub use types::*;
pub use version::*;
pub use weights::*;

uniffi::setup_scaffolding!();
