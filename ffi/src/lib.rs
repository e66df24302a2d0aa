//! Weft for C and C++: one header, one library. Translation only: every function checks its arguments (`arguments`), finds the
//! objects of its handles (`handle`), calls the engine, and writes the results; `guard` turns errors and panics into statuses.
//! Ownership and valid arguments are documented in the header's preamble (`bindings/generate/src/preamble.h`). Each other
//! module is a section of the header. Features that C needs are in the engine (`session/bytes.rs`, `session/train.rs`,
//! `device/lifecycle.rs`, `gpu/suspend.rs`, `gpu/pending.rs`, `log.rs`).
//!
//! **Handles are numbers, not addresses**: a slot of a table and a generation, so that a freed, forged or foreign one is
//! detected without accessing memory, at the cost of one compare-and-swap per call. The slot counts its users: shared objects
//! have many, others one, and freeing needs exclusive access. A second user gets `WEFT_STATUS_BUSY`, in release builds, too.
//!
//! **Generated** by `cargo run -p weft-bindings`: `ffi/src/generated.rs` (a status for each error, a function for each
//! operation, from the engine's tables), `bindings/c/include/weft.h` (by cbindgen, pinned, from `ffi/src`),
//! `bindings/c/symbols.txt` (the symbols that the shared library must export). `tests/abi/released.txt` has the declarations
//! that programs were compiled against; a test finds removed ones.
//!
//! The crate's library is named `weft`, like the engine's crate: in a target folder their file names differ by extension
//! (`libweft.rlib`, `libweft.so`, `libweft.a`); documentation is generated for the engine only. Rust does not give shared
//! libraries a versioned name: `ffi/build.rs` does. The static library also exports the symbols of Rust's standard library; two
//! such libraries in one program collide.
#![allow(non_camel_case_types)] // types have C's names
#![allow(clippy::too_many_arguments)] // an array takes two arguments
#![allow(clippy::missing_safety_doc)] // the header's preamble documents every caller's obligations

mod artifact;
mod compile;
mod device;
mod error;
#[rustfmt::skip]
mod generated;
mod arguments;
mod graph;
mod guard;
mod handle;
mod inspect;
mod log;
mod ports;
mod session;
mod states;
mod text;
mod training;
mod version;
mod weights;

/// What the apps' library (`bindings/apps`) shares with the C library, which it also contains: the table of handles and the
/// objects in it, so that an object that one of its interfaces made can be used through the others.
pub mod shared {
    pub use crate::arguments::{BytesObject, dtype, dtype_number, name, out, weft_str};
    pub use crate::compile::{Wish, precision};
    pub use crate::error::{
        ErrorObject, STATUS_NAMES, WEFT_STATUS_BUSY, WEFT_STATUS_HANDLE, WEFT_STATUS_NULL,
        WEFT_STATUS_OUT_OF_MEMORY, WEFT_STATUS_PANIC, WEFT_STATUS_STRUCT, WEFT_STATUS_UNKNOWN_NAME,
        WEFT_STATUS_UTF8, weft_error, weft_status,
    };
    pub use crate::guard::{Failure, Outcome, caught, guard, guard_value};
    pub use crate::handle::{Alone, Object, Shared, alone, free, put, share};
    pub use crate::session::weft_session;
    pub use crate::version::WEFT_ABI_VERSION;
}
