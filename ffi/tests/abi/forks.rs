//! Forked children: of idle parents and busy ones, from any thread, and of parents that have called nothing.

use crate::tools::{folder, program, root, run};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

fn forks() -> &'static PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| program(&root().join("tests/abi/forks.c"), &folder("forks").join("forks"), &[]))
}

/// How often; `WEFT_FORKS` says how often instead.
fn children(usual: usize) -> String {
    std::env::var("WEFT_FORKS").unwrap_or_else(|_| usual.to_string())
}

/// On the CPU, and on a GPU where there is one.
fn each_device(when: &str, usual: usize) {
    let gpu = engine::device::Device::gpu().is_ok();
    if !gpu {
        eprintln!("NOT CHECKED: this machine has no GPU, not even a software one");
    }
    for device in ["cpu", "gpu"].into_iter().take(1 + usize::from(gpu)) {
        assert_eq!(run(Command::new(forks()).args([device, when, &children(usual)])), "forked\n", "{device}");
    }
}

#[test]
fn in_a_child_what_the_parent_made_is_refused_and_a_new_cpu_device_works() {
    each_device("idle", 4);
}

#[test]
fn so_it_is_when_other_threads_are_in_the_library_at_that_moment() {
    each_device("working", 10);
}

#[test]
fn any_thread_may_fork() {
    each_device("thread", 4);
}

#[test]
fn a_child_of_a_parent_that_has_called_nothing_uses_every_device() {
    each_device("zygote", 4);
}

#[test]
fn children_under_load_do_as_others() {
    std::thread::scope(|s| {
        for when in ["working", "zygote", "working", "idle"] {
            s.spawn(move || each_device(when, 4));
        }
    });
}
