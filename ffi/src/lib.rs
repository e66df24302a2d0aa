//! Weft for C and C++: one header, one library. Translation only: every function checks what it is given, calls the
//! engine, and writes the result out. What it may be given, and who owns what, is in the header's preamble
//! (`bindings/generate/src/preamble.h`).
//!
//! `guard` turns errors and panics into statuses, `handle` turns handles into the engine's objects, `given` reads what C
//! passes; the other modules are the header's sections. `generated.rs` is written by `bindings/generate` from the engine's
//! tables of operations and errors.
//!
//! `ffi/src` has a module for each section of the header. A function looks at what it was given (`arguments`), finds the objects of its
//! handles (`handle`), calls the engine, and writes the result out; `guard` turns errors and panics into statuses. What C needs and the
//! engine lacked is in the engine (`session/bytes.rs`, `session/train.rs`, `device/lifecycle.rs`, `gpu/suspend.rs`, `gpu/pending.rs`, `log.rs`).
//!
//! **Handles are numbers, not addresses**: a slot of a table and a generation, so that a freed, forged or foreign one is found out
//! without touching memory, at the cost of one compare-and-swap a call. The slot counts its users: shared objects many, the others one,
//! and freeing is using alone. A second user is told `WEFT_STATUS_BUSY`, in release builds too.
//!
//! **Generated** by `cargo run -p weft-bindings`: `ffi/src/generated.rs` (a status for each error, a function for each operation, from the
//! engine's tables), `bindings/c/include/weft.h` (by cbindgen, pinned, from `ffi/src`), `bindings/c/symbols.txt` (what the shared library
//! must export). `tests/abi/released.txt` has the declarations that programs were compiled against; a test finds those that are gone.
//!
//! The crate's library is called `weft`, as the engine's crate is: Rust's and C's are told apart by their endings in a target folder
//! (`libweft.rlib`, `libweft.so`, `libweft.a`), documentation is written for the engine only. Rust gives shared libraries no versioned
//! name: `ffi/build.rs` does. The static library exports what Rust's standard library exports, too; two of them in one program
//! collide.
#![allow(non_camel_case_types)] // types have the names that C sees
#![allow(clippy::too_many_arguments)] // an array is two
#![allow(clippy::missing_safety_doc)] // the header's preamble says what every function asks of its caller

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
