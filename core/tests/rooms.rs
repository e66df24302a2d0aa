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

/// The order inside rooms: what is in a folder, each of which may use those before it. A folder's own `mod.rs` may use all
/// of it, and all may use the items that stand there.
const INSIDE: &[(&str, &[&str])] = &[
    ("plan", &["step", "uses", "memory", "bounds"]),
    ("target", &["launches", "cpu", "gpu", "forecast", "wire"]),
    (
        "target/gpu",
        &[
            "forms",
            "storage",
            "wgsl",
            "kernels",
            "updates",
            "kernel_cache",
            "schedule",
            "memory",
            "program",
            "forecast",
            "passes",
            "wire",
        ],
    ),
    (
        "device",
        &["life", "lifecycle", "progress", "observer", "trace", "cpu", "gpu", "no_gpu", "states", "executor"],
    ),
    (
        "device/gpu",
        &[
            "limits",
            "facts",
            "ask_metal",
            "ask_vulkan",
            "ending",
            "process_exit",
            "adapters",
            "panics",
            "context",
            "pending",
            "clock",
            "transfer",
            "pipelines",
            "refusal",
            "run",
            "worker",
            "store",
            "updates",
            "prepared",
            "start",
            "states",
            "suspend",
            "executor",
            "selftest",
        ],
    ),
];

/// The files that may say `unsafe` besides the CPU device's kernels.
const UNSAFE: &[&str] = &[
    "stack.rs",
    "file/place.rs",
    "tensor/host.rs",
    "load/file.rs",
    "device/gpu/ask_vulkan.rs",
    "device/gpu/context.rs",
    "device/gpu/run.rs",
    "device/gpu/transfer.rs",
];

/// The package of the CPU's loops.
fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/src")
}

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
    sources_of(&source())
}

fn sources_of(folder: &Path) -> Vec<(String, String)> {
    let mut all = vec![];
    files(folder, &mut all);
    let name = |p: &PathBuf| p.strip_prefix(folder).unwrap().display().to_string();
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

/// The neighbours in a folder that a file names: `super::x` in the folder's own files, and `crate::folder::x` anywhere.
fn neighbours(folder: &str, inside: &str, text: &str) -> Vec<String> {
    let path = format!("crate::{}::", folder.replace('/', "::"));
    let module = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    let above = "super::".repeat(module.split('/').count());
    let code: Vec<&str> = text.lines().map(|l| l.split("//").next().unwrap_or("")).collect();
    let code = code.join("\n");
    let ident = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = vec![];
    for prefix in [path.as_str(), above.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == ':' || c == '_') {
                continue;
            }
            match code[at + prefix.len()..].strip_prefix('{') {
                Some(group) => {
                    found.extend(group.split('}').next().unwrap().split(',').map(|p| ident(p.trim())))
                }
                None => found.push(ident(&code[at + prefix.len()..])),
            }
        }
    }
    found.retain(|f| f != "super");
    found
}

#[test]
fn rooms_inside_rooms_are_in_order() {
    let mut wrong = vec![];
    let (mut seen, mut uses) = (0, 0);
    for (folder, order) in INSIDE {
        let place = |name: &str| order.iter().position(|r| *r == name);
        for (file, text) in sources() {
            let Some(inside) = file.strip_prefix(&format!("{folder}/")) else { continue };
            let own = inside.split(['/', '.']).next().unwrap();
            let Some(at) = place(own) else {
                // of the planner only some are in order yet
                assert!(own == "mod" || *folder == "plan", "{file} has no place in {folder}'s order");
                continue;
            };
            seen += 1;
            for other in neighbours(folder, inside, &text) {
                match place(&other) {
                    Some(other_at) if other_at > at => {
                        wrong.push(format!("{file} uses {folder}/{other}, below it"))
                    }
                    Some(_) => uses += 1,
                    None => {}
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 100 && uses > 100, "{uses} uses in {seen} files");
}

#[test]
fn neighbours_are_found_by_either_path() {
    let text = "use super::run::Run;\nuse crate::device::gpu::{store, worker::Desk}; // super::z";
    assert_eq!(neighbours("device/gpu", "start.rs", text), ["store", "worker", "run"]);
    let text = "use super::Executor;\nuse super::super::run::Run;";
    assert_eq!(neighbours("device/gpu", "executor/look.rs", text), ["run"]);
    assert_eq!(neighbours("device/gpu", "executor/mod.rs", text), ["Executor"]);
}

#[test]
fn the_import_finder_sees_groups_and_paths() {
    let text = "use crate::{error::Result, plan::{self, Step}};\nlet x = crate::tensor::X; // crate::device";
    assert_eq!(imports(text), ["error", "plan", "tensor"]);
}

#[test]
fn files_are_short_and_open_with_their_job() {
    for (file, text) in sources().into_iter().chain(sources_of(&kernels())) {
        assert!(text.lines().count() <= 600, "{file} has {} lines", text.lines().count());
        assert!(text.starts_with("//!"), "{file} does not open with its job");
    }
}

/// What `weft` calls of the kernels must be compiled with them: a public function that is generic, or small enough for the compiler
/// to take it along, is compiled for size by its caller.
#[test]
fn kernels_are_compiled_where_they_stand() {
    let mut seen = 0;
    for file in ["arithmetic.rs", "dots.rs", "softmax.rs", "windows.rs", "vmath/mod.rs"] {
        let text = std::fs::read_to_string(kernels().join(file)).unwrap();
        let mut before = "";
        for line in text.lines() {
            let start = line.trim_start();
            let enters = start.starts_with("pub fn ") || start.starts_with("pub unsafe fn ");
            let copy = start.contains("<const "); // of a private module
            // those that forward to functions of the type, and arithmetic of one number
            let forwards =
                ["<T: Lanes>(", "<T: Integer>(", "fn join_arg", "fn pairs"].iter().any(|p| start.contains(p));
            if enters && !forwards && !copy {
                assert_eq!(before.trim(), "#[inline(never)]", "{file}: {line}");
                seen += 1;
            }
            before = line;
        }
    }
    assert!(seen >= 18, "{seen}");
}

#[test]
fn unsafe_lives_in_named_places() {
    for (file, text) in sources() {
        let uses = text.lines().any(|l| l.split("//").next().unwrap_or("").contains("unsafe "));
        let named = file.starts_with("device/cpu/") || UNSAFE.contains(&file.as_str());
        assert!(!uses || named, "{file} uses unsafe: not one of the named files");
    }
}

/// Rooms that are part of the API: those that `lib.rs` declares `pub`.
fn public_rooms() -> Vec<String> {
    let lib = std::fs::read_to_string(source().join("lib.rs")).unwrap();
    let room = |l: &str| l.strip_prefix("pub mod ")?.strip_suffix(';').map(String::from);
    lib.lines().filter_map(room).collect()
}

/// Types that a room shows: those that its root declares or takes up from its files, by `pub use` without a word on features.
fn shown(root: &str) -> Vec<String> {
    let mut all: Vec<String> = root.lines().filter_map(|l| declared(l).map(String::from)).collect();
    for (at, _) in root.match_indices("\npub use ") {
        let hidden = root[..at].lines().last().is_some_and(|l| l.contains("doc(hidden)"));
        let text = root[at + 9..].split(';').next().unwrap_or("");
        let names =
            text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|n| !hidden && !n.is_empty());
        // types begin with a capital and go on in small letters; constants do not
        let is_type = |n: &&str| n.starts_with(char::is_uppercase) && n.chars().any(char::is_lowercase);
        all.extend(names.filter(is_type).map(String::from));
    }
    all
}

/// The type that a line declares for all to see.
fn declared(line: &str) -> Option<&str> {
    let rest = ["pub struct ", "pub enum ", "pub trait ", "pub type "]
        .iter()
        .find_map(|word| line.strip_prefix(word))?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// Declared by macros, which write their examples.
const BY_MACROS: [&str; 2] = ["Error", "Options"];

#[test]
fn every_public_type_has_an_example() {
    let sources = sources();
    let mut documented = std::collections::HashSet::new();
    for (_, text) in &sources {
        let lines: Vec<&str> = text.lines().collect();
        for (i, name) in lines.iter().enumerate().filter_map(|(i, l)| declared(l).map(|name| (i, name))) {
            let above =
                lines[..i].iter().rev().take_while(|l| ["///", "#[", "// "].iter().any(|p| l.starts_with(p)));
            if above.into_iter().any(|l| l.starts_with("/// ```")) {
                documented.insert(name.to_string());
            }
        }
    }
    let mut bare = vec![];
    for room in public_rooms() {
        let (folder, file) = (format!("{room}/mod.rs"), format!("{room}.rs"));
        let root = &sources.iter().find(|(name, _)| *name == folder || *name == file).unwrap().1;
        let names = shown(root).into_iter().filter(|n| !BY_MACROS.iter().any(|m| n.ends_with(m)));
        bare.extend(names.filter(|n| !documented.contains(n)).map(|n| format!("{room}::{n}")));
    }
    assert!(bare.is_empty(), "without an example: {}", bare.join(", "));
    assert!(documented.len() > 100, "{} found", documented.len());
}
