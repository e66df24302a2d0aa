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
