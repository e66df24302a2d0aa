//! A program that calls every function: plain, on software Vulkan, under sanitizers, under valgrind.

use crate::tools::{folder, has, program, root, run, valgrind, without_drivers};
use std::path::Path;
use std::process::Command;

fn every_call(out: &Path, more: &[&str]) -> std::path::PathBuf {
    program(&root().join("tests/abi/every_call.c"), &out.join("every_call"), more)
}

#[test]
fn every_function_is_called_by_the_programs_of_these_tests() {
    // the program and what its parts include
    let parts = ["every_call.c", "every_call.h", "calls_graphs.h", "calls_sessions.h", "check.h"];
    let read = |name: &str| std::fs::read_to_string(root().join("tests/abi").join(name)).unwrap();
    let text: String = parts.into_iter().map(read).collect();
    let listed = std::fs::read_to_string(root().join("bindings/c/symbols.txt")).unwrap();
    // operations are called by the program of `operations`, which goes through the engine's table
    let missing: Vec<&str> =
        listed.lines().filter(|n| !n.starts_with("weft_op_") && !text.contains(&format!("{n}("))).collect();
    assert!(missing.is_empty(), "the parts of tests/abi/every_call.c do not call {missing:?}");
    for name in listed.lines().filter_map(|n| n.strip_prefix("weft_op_")) {
        assert!(engine::ops::find(name).is_some(), "weft_op_{name} is no operation");
    }
}

#[test]
fn every_function_does_what_it_says_on_the_cpu() {
    let at = folder("calls-cpu");
    let mut command = Command::new(every_call(&at, &[]));
    command.arg("cpu").arg(folder("calls-cpu-files"));
    if let Some(model) = crate::tools::minilm() {
        command.arg(model);
    }
    assert_eq!(run(&mut command), "every call\n");
}

#[test]
fn every_function_does_what_it_says_on_a_gpu() {
    if engine::device::Device::gpu().is_err() {
        assert!(
            std::env::var_os("WEFT_ABI_STRICT").is_none(),
            "this machine has no GPU, not even a software one"
        );
        eprintln!("NOT CHECKED: this machine has no GPU, not even a software one");
        return;
    }
    let at = folder("calls-gpu");
    assert_eq!(
        run(Command::new(every_call(&at, &[])).arg("gpu").arg(folder("calls-gpu-files"))),
        "every call\n"
    );
}

#[test]
fn sanitizers_find_nothing_in_every_call() {
    let at = folder("calls-sanitized");
    let flags = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];
    let mut command = Command::new(every_call(&at, &flags));
    command.env("ASAN_OPTIONS", "detect_leaks=1:strict_string_checks=1:detect_stack_use_after_return=1");
    command.arg("cpu").arg(folder("calls-sanitized-files"));
    assert_eq!(run(without_drivers(&mut command)), "every call\n");
}

#[test]
fn valgrind_finds_nothing_in_every_call() {
    if !has("valgrind") {
        return;
    }
    let at = folder("calls-valgrind");
    let built = every_call(&at, &[]);
    let mut command = valgrind(&root().join("platforms/desktop/weft.supp"));
    command.arg(built).arg("cpu").arg(folder("calls-valgrind-files"));
    assert_eq!(run(without_drivers(&mut command)), "every call\n");
}

#[test]
fn every_function_is_content_with_the_stack_that_the_header_asks_for() {
    let header = std::fs::read_to_string(root().join("bindings/c/include/weft.h")).unwrap();
    let words = header.split_whitespace().filter(|w| *w != "*").collect::<Vec<_>>().join(" ");
    let asked = words.split("A calling thread needs at least ").nth(1).unwrap();
    let kib: usize = asked.split(' ').next().unwrap().parse().unwrap();
    let at = folder("calls-stack");
    let built = every_call(&at, &[]);
    for device in ["cpu", "gpu"] {
        if device == "gpu" && engine::device::Device::gpu().is_err() {
            continue;
        }
        let mut command = Command::new(&built);
        command.env("WEFT_TEST_STACK", (kib << 10).to_string()).arg(device);
        command.arg(folder(&format!("calls-stack-{device}"))).args(crate::tools::minilm());
        assert_eq!(run(&mut command), "every call\n");
    }
}

#[test]
fn a_trace_that_the_environment_asks_for_is_written_on_request_and_at_exit() {
    let at = folder("calls-trace");
    let trace = at.join("asked.json");
    // on request: the program looks for it itself
    let mut command = Command::new(every_call(&at, &[]));
    command.arg("cpu").arg(folder("calls-trace-files")).env("WEFT_TRACE", &trace);
    assert_eq!(run(&mut command), "every call\n");
    // at exit: a program that knows nothing of it
    std::fs::remove_file(&trace).unwrap();
    let quickstart = program(&root().join("samples/c/quickstart/quickstart.c"), &at.join("quickstart"), &[]);
    let mut command = Command::new(quickstart);
    command.arg(crate::tools::classifier()).arg(crate::tools::digits()).env("WEFT_TRACE", &trace);
    run(&mut command);
    let text = std::fs::read_to_string(&trace).unwrap();
    for wanted in ["\"traceEvents\"", "\"name\":\"optimise\"", "\"ph\":\"X\""] {
        assert!(text.contains(wanted), "{wanted} is not in {text}");
    }
}
