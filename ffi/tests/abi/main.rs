//! The library as C sees it: C programs are compiled against the header, linked to the shared library and run, and what they
//! compute is compared with the engine's own interface.
//!
//! Wants gcc (`cc`); clang, valgrind, cmake and pkg-config are used where they are there, and `tests/run` installs them. Where one
//! is not, its test says so on standard error and passes: WEFT_ABI_STRICT=1 makes that a failure.

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
