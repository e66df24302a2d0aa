//! Writes what is generated: the C functions of the operations, the header, the list of exported symbols, the operations as
//! functions in Kotlin and Swift. Pure functions of the engine's tables and of `ffi/src`; `main` writes the files, a test compares them
//! with the committed ones.

mod description;
mod header;
mod kotlin;
mod operations;
mod swift;

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What makes a file's text, given the repository.
pub type Make = fn(&Path) -> Result<String, String>;

/// The generated files, by their paths in the repository, in the order in which they depend on each other, with what they should
/// hold. Later ones are made of earlier ones as they are on disk.
pub fn files() -> Vec<(&'static str, Make)> {
    vec![
        ("ffi/src/generated.rs", operations::source),
        ("bindings/c/include/weft.h", header::header),
        ("bindings/c/symbols.txt", header::symbols),
        ("bindings/kotlin/src/generated/kotlin/dev/weft/Operations.kt", kotlin::source),
        ("bindings/swift/Sources/Weft/Operations.swift", swift::source),
        ("bindings/swift/Tests/WeftTests/CallsOfOperations.swift", swift::calls),
    ]
}
