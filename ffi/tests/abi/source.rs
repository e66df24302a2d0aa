//! Invariants of the library's source: every function goes through the guard, `unsafe` is explained, files are short.

use crate::tools::root;
use std::path::PathBuf;

fn sources() -> Vec<(PathBuf, String)> {
    let all = std::fs::read_dir(root().join("ffi/src")).unwrap();
    all.map(|e| e.unwrap().path()).map(|p| (p.clone(), std::fs::read_to_string(p).unwrap())).collect()
}

#[test]
fn every_exported_function_goes_through_the_guard_under_its_own_name() {
    let mut count = 0;
    for (path, text) in sources() {
        for (at, _) in text.match_indices("#[unsafe(no_mangle)]") {
            let rest = &text[at..];
            let name = rest.split("fn ").nth(1).unwrap().split('(').next().unwrap();
            let body = &rest[rest.find('{').unwrap()..rest.find("\n}\n").unwrap()];
            let guarded = [format!("guard(\"{name}\""), format!("guard_value(\"{name}\"")];
            assert!(guarded.iter().any(|g| body.contains(g)), "{}: {name} has no guard", path.display());
            count += 1;
        }
    }
    let listed = std::fs::read_to_string(root().join("bindings/c/symbols.txt")).unwrap();
    assert_eq!(count, listed.lines().count(), "functions in the source and in bindings/c/symbols.txt");
}

#[test]
fn files_are_short_and_open_with_their_job() {
    for (path, text) in sources().into_iter().filter(|(p, _)| !p.ends_with("generated.rs")) {
        assert!(text.starts_with("//!"), "{} does not open with its job", path.display());
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
    }
}
