//! The shared library exports the header's functions, and nothing else; removed or changed ones are detected.

use crate::tools::{has, library, root, run};
use std::process::Command;

#[test]
fn the_shared_library_exports_exactly_the_listed_functions() {
    if !has("nm") {
        return;
    }
    let out = run(Command::new("nm").args(["-D", "--defined-only"]).arg(library().join("libweft.so")));
    let mut exported: Vec<&str> = out.lines().map(|l| l.split_whitespace().last().unwrap()).collect();
    exported.sort_unstable();
    let listed = std::fs::read_to_string(root().join("bindings/c/symbols.txt")).unwrap();
    let listed: Vec<&str> = listed.lines().collect();
    assert_eq!(exported, listed, "exported symbols, and those of bindings/c/symbols.txt");
}

#[test]
fn the_shared_library_has_its_versioned_name() {
    if !has("readelf") {
        return;
    }
    let out = run(Command::new("readelf").arg("-d").arg(library().join("libweft.so")));
    assert!(out.lines().any(|l| l.contains("SONAME") && l.contains("[libweft.so.0]")), "{out}");
}

/// The declarations of the header, one a line: what a program was compiled against.
fn declarations(header: &str) -> Vec<String> {
    let mut text = String::new();
    let mut rest = header;
    while let Some(at) = rest.find("/*") {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[rest.find("*/").unwrap() + 2..];
    }
    text.push_str(rest);
    let lines = || text.lines().filter(|l| !l.contains("extern \"C\""));
    let constants = lines().filter(|l| l.starts_with("#define WEFT_") && l.split(' ').count() == 3);
    let mut all: Vec<String> = constants.map(String::from).collect();
    let code =
        lines().filter(|l| !l.starts_with(['#', ' ']) || !l.contains('#')).collect::<Vec<_>>().join(" ");
    let (mut depth, mut declaration) = (0, String::new());
    for c in code.chars() {
        depth += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if c == ';' && depth == 0 {
            let words = declaration.split_whitespace().collect::<Vec<_>>().join(" ");
            all.extend(Some(words).filter(|d| d.contains("weft_")));
            declaration.clear();
        } else {
            declaration.push(c);
        }
    }
    all
}

/// Declarations of a released header that one no longer has.
fn missing(released: &[String], header: &str) -> Vec<String> {
    let now = declarations(header);
    released.iter().filter(|d| !now.contains(d)).cloned().collect()
}

fn header() -> String {
    std::fs::read_to_string(root().join("bindings/c/include/weft.h")).unwrap()
}

#[test]
fn nothing_of_the_released_interface_is_removed_or_changed() {
    let path = root().join("tests/abi/released.txt");
    if std::env::var_os("WEFT_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, declarations(&header()).join("\n") + "\n").unwrap();
    }
    let released: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(String::from).collect();
    let missing = missing(&released, &header());
    assert!(
        missing.is_empty(),
        "the header no longer has\n  {}\nNew functions are no matter. If it is meant, raise WEFT_ABI_VERSION and the soname, and \
         write tests/abi/released.txt with WEFT_WRITE_GOLDEN=1 cargo test -p weft-ffi released_interface",
        missing.join("\n  ")
    );
}

#[test]
fn a_removed_or_changed_function_structure_or_number_is_noticed() {
    let released = declarations(&header());
    assert!(released.len() > 300, "{} declarations", released.len());
    let functions = released.iter().filter(|d| d.starts_with("weft_status weft_")).count();
    assert!(functions > 200, "{functions} functions");
    let changes = [
        ("weft_status weft_session_wait(", "weft_status weft_session_await("),
        ("uint64_t nanoseconds,", "uint32_t nanoseconds,"),
        ("#define WEFT_STATUS_BUSY 3", "#define WEFT_STATUS_BUSY 4"),
        ("size_t largest_bytes;", ""),
        ("float learning_rate;", "double learning_rate;"),
        ("typedef uint32_t weft_value;", "typedef uint64_t weft_value;"),
    ];
    for (from, to) in changes {
        assert!(header().contains(from), "{from}");
        assert!(!missing(&released, &header().replacen(from, to, 1)).is_empty(), "{from} became {to}");
    }
    let more = header().replacen(
        "weft_status weft_session_wait(",
        "weft_status weft_new(void);\nweft_status weft_session_wait(",
        1,
    );
    assert!(missing(&released, &more).is_empty(), "a new function is no change");
}
