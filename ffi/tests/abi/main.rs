//! The library as seen from C: C programs are compiled against the header, linked to the shared library and run, and their
//! results are compared with the engine's own interface.
//!
//! Needs gcc (`cc`); clang, valgrind, cmake and pkg-config are used if present, and `tests/run` installs them. If one is
//! missing, its test says so on standard error and passes: WEFT_ABI_STRICT=1 makes that a failure.

#![cfg(target_os = "linux")]

mod calls;
mod forks;
mod headers;
mod misuse;
mod operations;
mod overhead;
mod packages;
mod source;
mod symbols;
mod texts;
mod tools;
