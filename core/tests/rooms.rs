//! The order of rooms: each imports only from those above it in the list. Also: file sizes, module openings,
//! and where `unsafe` lives.

use std::path::{Path, PathBuf};

/// The rooms of `core/src`, each may use those before it.
const ROOMS: &[&str] = &[
    "error",
    "order",
    "process",
    "stack",
    "log",
    "file",
    "config",
    "tensor",
    "expr",
    "profile",
    "graph",
    "ops",
    "reference",
    "autodiff",
    "optimise",
    "plan",
    "optimizer",
    "target",
    "device",
    "session",
    "train",
    "load",
    "text",
    "models",
    "prelude",
];

/// The files that may say `unsafe` besides the CPU device's kernels.
const UNSAFE: &[&str] = &[
    "process.rs",
    "stack.rs",
    "file/place.rs",
    "tensor/host.rs",
    "load/file.rs",
    "device/gpu/ask_vulkan.rs",
    "device/gpu/context.rs",
    "device/gpu/run.rs",
    "device/gpu/transfer.rs",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|e| e == "rs") {
            all.push(path);
        }
    }
}

fn sources() -> Vec<(String, String)> {
    let mut all = vec![];
    files(&source(), &mut all);
    let name = |p: &PathBuf| p.strip_prefix(source()).unwrap().display().to_string();
    all.iter().map(|p| (name(p), std::fs::read_to_string(p).unwrap())).collect()
}

/// Rooms that a file names: `crate::x` and the parts of `use crate::{x::…, y::…}`.
fn imports(text: &str) -> Vec<String> {
    let code: String =
        text.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut found = vec![];
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + 7..];
        let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (0, true);
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if start && c.is_alphabetic() => {
                        found.push(ident(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.push(ident(rest));
        }
    }
    found
}

#[test]
fn rooms_import_only_from_rooms_above() {
    let place = |room: &str| ROOMS.iter().position(|r| *r == room);
    let mut wrong = vec![];
    for (file, text) in sources() {
        let room = file.split(['/', '.']).next().unwrap().to_string();
        if room == "lib" {
            continue;
        }
        let own = place(&room).unwrap_or_else(|| panic!("{file} is in no room of the list"));
        for import in imports(&text) {
            match place(&import) {
                Some(other) if other > own => wrong.push(format!("{file} imports {import}, a room below")),
                Some(_) => {}
                // `crate::` inside the op! macro's own path, or an item of lib.rs, of which there are none
                None => wrong.push(format!("{file} imports crate::{import}, which is no room")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_finder_sees_groups_and_paths() {
    let text = "use crate::{error::Result, plan::{self, Step}};\nlet x = crate::tensor::X; // crate::device";
    assert_eq!(imports(text), ["error", "plan", "tensor"]);
}

#[test]
fn files_are_short_and_open_with_their_job() {
    for (file, text) in sources() {
        assert!(text.lines().count() <= 600, "{file} has {} lines", text.lines().count());
        assert!(text.starts_with("//!"), "{file} does not open with its job");
    }
}

#[test]
fn unsafe_lives_in_named_places() {
    for (file, text) in sources() {
        let uses = text.lines().any(|l| l.split("//").next().unwrap_or("").contains("unsafe "));
        let named = file.starts_with("device/cpu/") || UNSAFE.contains(&file.as_str());
        assert!(!uses || named, "{file} uses unsafe: not one of the named files");
    }
}
