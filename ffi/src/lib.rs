//! Weft for C and C++: one header, one library. Translation only: every function checks what it is given, calls the
//! engine, and writes the result out. What it may be given, and who owns what, is in the header's preamble
//! (`bindings/generate/src/preamble.h`).
//!
//! `guard` turns errors and panics into statuses, `handle` turns handles into the engine's objects, `given` reads what C
//! passes; the other modules are the header's sections. `generated.rs` is written by `bindings/generate` from the engine's
//! tables of operations and errors.
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
mod text;
mod training;
mod version;
mod weights;
