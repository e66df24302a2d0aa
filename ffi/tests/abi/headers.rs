//! The headers compile by themselves, with every available compiler; the version's macros.

use crate::tools::{folder, has, root, run};
use std::process::Command;

/// Compiles a text as a language of a standard; twice included headers are no error.
fn compiles(compiler: &str, standard: &str, language: &str, header: &str) {
    if !has(compiler) {
        return;
    }
    let at = folder(&format!("header-{compiler}-{standard}-{header}")).join("twice");
    std::fs::write(
        &at,
        format!("#include \"{header}\"\n#include \"{header}\"\nint main(void) {{ return 0; }}\n"),
    )
    .unwrap();
    let mut command = Command::new(compiler);
    command.args([&format!("-std={standard}"), "-Wall", "-Wextra", "-pedantic", "-Werror", "-x", language]);
    run(command.arg("-fsyntax-only").arg("-I").arg(root().join("bindings/c/include")).arg(&at));
}

#[test]
fn the_header_alone_compiles_as_c11() {
    compiles("gcc", "c11", "c", "weft.h");
    compiles("clang", "c11", "c", "weft.h");
}

#[test]
fn the_headers_alone_compile_as_cpp17() {
    for header in ["weft.h", "weft.hpp"] {
        compiles("g++", "c++17", "c++", header);
        compiles("clang++", "c++17", "c++", header);
    }
}
