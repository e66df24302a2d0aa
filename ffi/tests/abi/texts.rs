//! Texts returned by the library are NUL-terminated, and structures are versioned or frozen: derived from the header's
//! declarations, so that new functions and structures are covered automatically.

use crate::misuse::{Function, functions};
use crate::tools::{folder, minilm, program, root, run};
use std::collections::BTreeSet;
use std::process::Command;

/// A structure of the header: its name and its fields' types and names.
struct Structure {
    name: String,
    about: String,
    fields: Vec<(String, String)>,
}

fn structures() -> Vec<Structure> {
    let header = std::fs::read_to_string(root().join("bindings/c/include/weft.h")).unwrap();
    let mut all = vec![];
    for (at, _) in header.match_indices("typedef struct {") {
        let (inside, rest) = header[at + 16..].split_once("\n} ").unwrap();
        let about = &header[header[..at].rfind("/**").unwrap()..at];
        let code: String = inside.split("/**").map(|part| part.rsplit("*/").next().unwrap()).collect();
        let fields = code.split(';').map(str::trim).filter(|f| !f.is_empty()).map(|field| {
            let split = field.rfind([' ', '*']).unwrap() + 1;
            (field[..split].trim().to_string(), field[split..].to_string())
        });
        let name = rest.split(';').next().unwrap().to_string();
        all.push(Structure {
            name,
            about: about.split_whitespace().collect::<Vec<_>>().join(" "),
            fields: fields.collect(),
        });
    }
    all
}

#[test]
fn every_structure_begins_with_its_size_or_says_that_it_is_frozen() {
    let all = structures();
    assert!(all.len() >= 10, "{} structures", all.len());
    let mut frozen = vec![];
    for s in &all {
        let sized = s.fields[0] == ("size_t".to_string(), "struct_size".to_string());
        let says = s.about.contains("Frozen: this structure * stays as it is")
            || s.about.contains("Frozen: this structure stays as it is");
        assert!(sized != says, "{}: begins with {:?}, its text: {}", s.name, s.fields[0], s.about);
        frozen.extend(says.then_some(s.name.as_str()));
    }
    let preamble = std::fs::read_to_string(root().join("bindings/generate/src/preamble.h")).unwrap();
    assert!(
        frozen.iter().all(|name| preamble.contains(name)),
        "the preamble does not name all of {frozen:?}"
    );
}

/// Declares in C what looks at the texts that a function shows; `None` if it shows none.
fn looks_at(f: &Function, with_texts: &[(String, Vec<String>)]) -> Option<String> {
    let mut looks = vec![];
    for (ty, name) in &f.parameters {
        match ty.as_str() {
            "weft_str *" => looks.push(format!("ends(\"{}\", *{name})", f.name)),
            // a file is no text, but a NUL follows it all the same
            "weft_bytes **" => {
                let look = if name == "file" { "followed" } else { "whole" };
                looks.push(format!("if ({name} != NULL && *{name} != NULL) {look}(\"{}\", *{name})", f.name));
            }
            ty => {
                let found = with_texts.iter().find(|(s, _)| *ty == format!("{s} *"));
                for field in found.iter().flat_map(|(_, fields)| fields) {
                    looks.push(format!(
                        "if ({name}->struct_size > offsetof({}, {field})) ends(\"{}.{field}\", {name}->{field})",
                        found.unwrap().0, f.name
                    ));
                }
            }
        }
    }
    let parameters: Vec<String> = f.parameters.iter().map(|(t, n)| format!("{t} {n}")).collect();
    let names: Vec<&str> = f.parameters.iter().map(|(_, n)| n.as_str()).collect();
    let (name, call) = (&f.name, format!("{}({})", f.name, names.join(", ")));
    let parameters = if parameters.is_empty() { "void".into() } else { parameters.join(", ") };
    let look = match f.result.as_str() {
        "weft_str" => format!("  ends(\"{name}\", result_);\n"),
        "const char *" => format!("  seen(\"{name}\", strlen(result_));\n"),
        _ if looks.is_empty() => return None,
        _ => format!("  if (result_ == WEFT_STATUS_OK) {{\n    {};\n  }}\n", looks.join(";\n    ")),
    };
    let result = &f.result;
    let wrapper = format!(
        "static {result} looked_{name}({parameters}) {{\n  {result} result_ = {call};\n{look}  return result_;\n}}\n"
    );
    Some(format!("__attribute__((unused)) {wrapper}#define {name}(...) looked_{name}(__VA_ARGS__)\n"))
}

const LOOKS: &str = r#"#ifndef LOOKS_H
#define LOOKS_H
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft.h>
__attribute__((unused)) static void seen(const char *what, size_t length) {
  if (length > 0) fprintf(stderr, "text of %s\n", what);
}
__attribute__((unused)) static void ends(const char *what, weft_str text) {
  if (text.data == NULL || strlen(text.data) != text.length) {
    fprintf(stderr, "%s: a text of %zu bytes does not end with NUL\n", what, text.length);
    exit(3);
  }
  seen(what, text.length);
}
__attribute__((unused)) static void followed(const char *what, weft_bytes *bytes) {
  const uint8_t *data = NULL;
  size_t length = 0;
  if (weft_bytes_data(bytes, &data, &length, NULL) != WEFT_STATUS_OK || data[length] != 0) {
    fprintf(stderr, "%s: no NUL after %zu bytes\n", what, length);
    exit(3);
  }
  seen(what, length);
}
__attribute__((unused)) static void whole(const char *what, weft_bytes *bytes) {
  const uint8_t *data = NULL;
  size_t length = 0;
  if (weft_bytes_data(bytes, &data, &length, NULL) != WEFT_STATUS_OK) exit(3);
  ends(what, (weft_str){(const char *)data, length});
}
"#;

#[test]
fn every_text_that_the_library_shows_ends_with_nul() {
    let texts = |s: Structure| {
        let fields: Vec<String> =
            s.fields.into_iter().filter(|(t, n)| t == "weft_str" && n != "texts").map(|f| f.1).collect();
        (s.name, fields)
    };
    let with_texts: Vec<(String, Vec<String>)> =
        structures().into_iter().map(texts).filter(|(_, fields)| !fields.is_empty()).collect();
    let mut source = String::from(LOOKS);
    let mut wanted = BTreeSet::new();
    for f in functions() {
        let Some(text) = looks_at(&f, &with_texts) else { continue };
        let quoted = text.split('"').skip(1).step_by(2).filter(|n| n.starts_with("weft_"));
        wanted.extend(quoted.map(String::from));
        source.push_str(&text);
    }
    source.push_str("#endif\n");
    // callbacks that are shown texts: their own functions look (`every_call.c`, `calls_sessions.h`)
    let header = std::fs::read_to_string(root().join("bindings/c/include/weft.h")).unwrap();
    for (at, _) in header.match_indices("typedef ") {
        let declared = header[at..].split(';').next().unwrap();
        let shows =
            |s: &str| declared.contains(&format!("{s} ")) || declared.contains(&format!("const {s} *"));
        if declared.contains("(*") && (shows("weft_str") || with_texts.iter().any(|(s, _)| shows(s))) {
            let name = declared.split("(*").nth(1).unwrap().split(')').next().unwrap();
            wanted.insert(name.to_string());
        }
    }
    assert!(wanted.len() > 20, "{wanted:?}");

    let at = folder("texts");
    let looks = at.join("looks.h");
    std::fs::write(&looks, source).unwrap();
    let include = ["-include", looks.to_str().unwrap(), "-DLOOKS"];
    let built = program(&root().join("tests/abi/every_call.c"), &at.join("every_call"), &include);
    let mut found = BTreeSet::new();
    for device in ["cpu", "gpu"] {
        if device == "gpu" && engine::device::Device::gpu().is_err() {
            continue;
        }
        let mut command = Command::new(&built);
        command.arg(device).arg(folder(&format!("texts-{device}")));
        command.args(minilm());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{device}: {said}");
        found.extend(said.lines().filter_map(|l| l.strip_prefix("text of ")).map(String::from));
    }
    // empty by what they say, or but for drivers that cannot be used
    for empty in ["weft_artifact_weight.name", "weft_graph_value_info.name"] {
        assert!(wanted.remove(empty), "{empty}");
    }
    for empty in ["weft_device_list_get.refused", "weft_device_get_info.refused"] {
        assert!(wanted.remove(empty), "{empty}");
    }
    let unseen: Vec<_> = wanted.difference(&found).collect();
    assert!(unseen.is_empty(), "every_call sees no text of {unseen:?}: let it make one that is not empty");
    // the same by the way that most go: an error through %s
    assert_eq!(
        run(&mut Command::new(program(&root().join("tests/abi/printed.c"), &at.join("printed"), &[]))),
        "weft_device_open: device no such device\n"
    );
}
