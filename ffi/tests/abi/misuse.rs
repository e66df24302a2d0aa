//! Misuse: random calls, injected panics, and the programs that do so, which are generated from the header's declarations.

use crate::tools::{folder, program, root, run};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

/// A function of the header.
pub struct Function {
    pub result: String,
    pub name: String,
    /// Types and names of its parameters.
    pub parameters: Vec<(String, String)>,
}

/// The functions that the header declares.
pub fn functions() -> Vec<Function> {
    let header = std::fs::read_to_string(root().join("bindings/c/include/weft.h")).unwrap();
    let listed = std::fs::read_to_string(root().join("bindings/c/symbols.txt")).unwrap();
    let function = |name: &str| {
        let at = header.find(&format!("{name}(")).unwrap();
        let start = header[..at].rfind('\n').unwrap();
        let end = at + header[at..].find(");").unwrap();
        let inside = header[at + name.len() + 1..end].split_whitespace().collect::<Vec<_>>().join(" ");
        let parameter = |p: &str| {
            let split = p.rfind([' ', '*']).unwrap() + 1;
            (p[..split].trim().to_string(), p[split..].to_string())
        };
        let parameters = match inside.as_str() {
            "void" => vec![],
            inside => inside.split(", ").map(parameter).collect(),
        };
        Function { result: header[start..at].trim().into(), name: name.into(), parameters }
    };
    listed.lines().map(function).collect()
}

fn built(name: &str, source: &str) -> PathBuf {
    let at = folder(name);
    let c = at.join(format!("{name}.c"));
    std::fs::write(&c, source).unwrap();
    let include = format!("-I{}", root().join("tests/abi").display());
    program(&c, &at.join(name), &[&include])
}

#[test]
fn a_panic_inside_any_call_is_a_status_with_a_message_and_the_process_goes_on() {
    if !cfg!(debug_assertions) {
        eprintln!("NOT CHECKED: panics are put into debug builds only");
        return;
    }
    let mut source = String::from("#include \"check.h\"\nint main(void) {\n");
    let mut count = 0;
    for f in functions() {
        let _ = writeln!(source, "  setenv(\"WEFT_INJECT_PANIC\", \"{}\", 1);", f.name);
        let reports = f.parameters.last().is_some_and(|(t, _)| t == "weft_error **");
        let given = f.parameters.len() - usize::from(reports);
        let mut arguments = vec!["0"; given];
        if reports {
            arguments.push("&err");
        }
        let call = format!("{}({})", f.name, arguments.join(", "));
        match (f.result.as_str(), reports) {
            ("weft_status", true) => {
                let _ = writeln!(source, "  FAILS(WEFT_STATUS_PANIC, {call});");
                count += 1;
            }
            ("weft_status", false) => {
                let _ = writeln!(source, "  CHECK({call} == WEFT_STATUS_PANIC);");
                count += 1;
            }
            // those that give a value give something harmless
            _ => {
                let _ = writeln!(source, "  (void){call};");
            }
        }
    }
    // FAILS looks at the error with calls of its own, into which nothing is put
    source.push_str(
        "  unsetenv(\"WEFT_INJECT_PANIC\");\n  weft_graph *g = NULL;\n  OK(weft_graph_new(&g, &err));\n",
    );
    source.push_str("  OK(weft_graph_free(g));\n  printf(\"done\\n\");\n  return 0;\n}\n");
    assert!(count > 200, "{count} functions");
    // a panic says so on standard error, too: the host's own hook
    assert_eq!(run(Command::new(built("panics", &source)).env("WEFT_INJECT", "1")), "done\n");
}

/// How an argument of that type is made up; `None` for one of a type that is not known.
fn made_up(f: &Function, at: usize) -> Option<String> {
    let (ty, name) = &f.parameters[at];
    let bare = ty.trim_start_matches("const ").trim();
    let length_of = |n: &str| at > 0 && f.parameters[at - 1].1.trim_end_matches("_form") == n;
    let handle = bare.strip_suffix(" *").filter(|t| HANDLES.contains(t));
    let result = bare.strip_suffix(" **").filter(|t| HANDLES.contains(t));
    let value = |s: &str| Some(s.to_string());
    if ty == "weft_error **" {
        return value("any_err()");
    }
    if let Some(kind) = handle.filter(|_| name != "sessions") {
        return Some(format!("any_handle(K_{kind})"));
    }
    if let Some(kind) = result {
        return Some(match name.as_str() {
            "sessions" => "sessions".into(),
            _ => format!("any_result(K_{kind})"),
        });
    }
    match (ty.as_str(), name.as_str()) {
        // a trace is written in place, which no file that weights are mapped from may be
        ("const char *", "path") if f.name == "weft_trace_finish" => value("any_trace()"),
        ("const char *", "path" | "folder") => value("any_path()"),
        ("const char *", "which") => value("any_device()"),
        ("const char *", _) => value("any_text()"),
        ("size_t", n) if n.ends_with("_length") => value("text_length"),
        ("const void *", _) => value("any_data()"),
        ("void *", "data") => value("(data_length = chance(8) ? huge() : 4 * (draw() % 8), any_place())"),
        ("void *", _) => value("NULL"),
        ("size_t", "data_bytes") => value("data_length"),
        ("size_t", n) if n.ends_with("_count") || n == "count" || n == "rank" || length_of(n) => {
            value("any_count()")
        }
        ("size_t", _) => value("any_size()"),
        ("const size_t *", _) => value("any_sizes()"),
        ("const int64_t *", _) => value("any_ints()"),
        ("const float *", _) | ("float *", _) => value("any_floats()"),
        ("const uint32_t *", _) | ("const weft_value *", _) => value("any_values()"),
        ("const weft_str *", _) => value("any_strings()"),
        ("const weft_batches *", _) => value("any_batches()"),
        ("const weft_setting *", _) => value("any_settings()"),
        ("const weft_parameter_group *", _) => value("any_groups()"),
        ("weft_value *", _) => value("any_value_place()"),
        ("weft_value", _) => value("any_value()"),
        ("int64_t", _) => value("any_int()"),
        ("double", _) | ("float", _) => value("any_real()"),
        ("bool", _) => value("chance(2)"),
        ("weft_dtype", _) => value("any_dtype()"),
        ("uint32_t", "threads") => value("any_threads()"),
        ("uint64_t", _) => value("(uint64_t)any_size()"),
        ("uint32_t", _) => value("(uint32_t)any_int()"),
        ("weft_progress_fn", _) => value("chance(2) ? on_progress : NULL"),
        ("weft_log_fn", _) => value("chance(2) ? on_log : NULL"),
        ("weft_tap_fn", _) => value("chance(2) ? on_tap : NULL"),
        ("weft_release_fn", _) => value("NULL"),
        (t, _) if NUMBERS.contains(&t) => value("(uint32_t)any_small()"),
        (t, _) if t.ends_with(" *") && !t.contains("**") => match bare.strip_suffix(" *").unwrap() {
            s if STRUCTURES.contains(&s) => Some(format!("any_structure(sizeof({s}))")),
            "bool" | "size_t" | "uint64_t" | "float" | "uint32_t" | "const uint8_t" | "weft_str" => {
                value("any_place()")
            }
            _ => None,
        },
        ("const void **", _) | ("const uint8_t **", _) => value("any_place()"),
        _ => None,
    }
}

const HANDLES: &[&str] = &[
    "weft_artifact",
    "weft_bytes",
    "weft_cancel",
    "weft_compiled",
    "weft_device",
    "weft_device_list",
    "weft_encoder",
    "weft_encoding",
    "weft_error",
    "weft_graph",
    "weft_parameters",
    "weft_profile",
    "weft_session",
    "weft_states",
    "weft_tokenizer",
    "weft_weights",
];
const NUMBERS: &[&str] = &[
    "weft_status",
    "weft_allow",
    "weft_log_level",
    "weft_port_kind",
    "weft_precision",
    "weft_profiling",
    "weft_optimizer_kind",
];
const STRUCTURES: &[&str] = &[
    "weft_device_info",
    "weft_tensor_info",
    "weft_compile_options",
    "weft_memory_summary",
    "weft_optimizer",
    "weft_train_options",
    "weft_profile_part",
    "weft_tokens",
];

/// The program that calls at random.
fn caller(name: &str) -> PathBuf {
    let mut source = String::from("#include \"check.h\"\nenum kind {\n");
    for kind in HANDLES {
        let _ = writeln!(source, "  K_{kind},");
    }
    source.push_str("  KINDS\n};\n#include \"random.h\"\n");
    let all = functions();
    for (i, f) in all.iter().enumerate() {
        let _ = writeln!(source, "static weft_status call_{i}(void) {{");
        let mut names = vec![];
        for (at, (ty, name)) in f.parameters.iter().enumerate() {
            let made = made_up(f, at).unwrap_or_else(|| panic!("{}: no value for {ty} {name}", f.name));
            let _ = writeln!(source, "  {ty} a{at} = {made};");
            names.push(format!("a{at}"));
        }
        let call = format!("{}({})", f.name, names.join(", "));
        let _ = match f.result.as_str() {
            "weft_status" => writeln!(source, "  return {call};\n}}"),
            _ => writeln!(source, "  (void){call};\n  return WEFT_STATUS_OK;\n}}"),
        };
    }
    let _ = writeln!(source, "static const struct call calls[] = {{");
    for (i, f) in all.iter().enumerate() {
        let _ = writeln!(source, "  {{\"{}\", call_{i}}},", f.name);
    }
    source.push_str("};\n#include \"random_main.h\"\n");
    built(name, &source)
}

/// So many calls over objects of a device; `WEFT_ABI_CALLS` says how many instead, `WEFT_ABI_SEED` which.
fn calls_at_random(mut command: Command, device: &str, usual: &str) {
    let calls = std::env::var("WEFT_ABI_CALLS").unwrap_or_else(|_| usual.into());
    let seed = std::env::var("WEFT_ABI_SEED").unwrap_or_else(|_| "1".into());
    let files = folder(&format!("random-files-{device}"));
    let out = run(command.arg(calls).arg(seed).arg(files).arg(device));
    print!("{out}");
    assert!(out.ends_with("statuses only\n"), "{out}");
}

#[test]
fn a_million_calls_at_random_meet_statuses_only() {
    let mut command = Command::new(caller("random"));
    command.env("VK_DRIVER_FILES", "/nonexistent").env("VK_ICD_FILENAMES", "/nonexistent");
    calls_at_random(command, "cpu", "1000000");
}

#[test]
fn calls_at_random_on_a_gpu_meet_statuses_only() {
    if engine::device::Device::gpu().is_err() {
        eprintln!("NOT CHECKED: this machine has no GPU, not even a software one");
        return;
    }
    calls_at_random(Command::new(caller("random-gpu")), "gpu", "100000");
}
