//! `weft.h`, written by cbindgen from `ffi/src`, and the list of its functions.

use std::path::Path;

/// The modules with sections of the header, in its order.
const SECTIONS: &[&str] = &[
    "version",
    "error",
    "arguments",
    "log",
    "device",
    "ports",
    "weights",
    "graph",
    "compile",
    "session",
    "states",
    "training",
    "inspect",
    "artifact",
    "text",
    "generated",
];

/// The header.
pub fn header(root: &Path) -> Result<String, String> {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        cpp_compat: true,
        include_guard: Some("WEFT_H".into()),
        header: Some(include_str!("preamble.h").trim_end().into()),
        after_includes: Some(include_str!("constants.h").trim_end().into()),
        trailer: Some(include_str!("initialisers.h").trim_end().into()),
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(String::from).to_vec(),
        no_includes: true,
        usize_is_size_t: true,
        style: cbindgen::Style::Type,
        documentation_style: cbindgen::DocumentationStyle::Doxy,
        line_length: 110,
        tab_width: 2,
        ..Default::default()
    };
    config.export.exclude = ["WEFT_NUL_TERMINATED", "WEFT_VALUE_NONE"].map(String::from).to_vec();
    config.function.args = cbindgen::Layout::Auto;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for section in SECTIONS {
        builder = builder.with_src(root.join("ffi/src").join(section).with_extension("rs"));
    }
    let mut text = vec![];
    builder.generate().map_err(|e| e.to_string())?.write(&mut text);
    String::from_utf8(text).map_err(|e| e.to_string())
}

/// The header's functions, sorted, one a line: what the shared library exports.
pub fn symbols(root: &Path) -> Result<String, String> {
    let header =
        std::fs::read_to_string(root.join("bindings/c/include/weft.h")).map_err(|e| e.to_string())?;
    let mut names = functions(&header);
    names.sort_unstable();
    Ok(names.iter().map(|n| format!("{n}\n")).collect())
}

/// Names of the functions that a header declares, in its order.
pub fn functions(header: &str) -> Vec<&str> {
    let declares = |line: &&str| !line.starts_with([' ', '*', '/', '#', '}']) && !line.starts_with("typedef");
    let name = |line: &'_ str| -> Option<usize> { line.find('(').filter(|_| line.contains("weft_")) };
    let lines = header.lines().filter(declares);
    lines
        .filter_map(|line| {
            let head = &line[..name(line)?];
            head.rsplit([' ', '*']).next().filter(|n| n.starts_with("weft_"))
        })
        .collect()
}
