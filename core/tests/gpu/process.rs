//! Whole processes: one that ends with work under way, and one under the driver's validation layer.

use super::{devices, small};
use std::process::{Command, Output};

/// This test binary again, with one test and an environment.
fn again(test: &str, name: &str, value: &str) -> Output {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(exe);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(name, value);
    command.output().unwrap()
}

#[test]
fn a_process_may_end_with_work_under_way() {
    if std::env::var_os("WEFT_TEST_EXITS").is_some() {
        let mut s = small(&devices::gpu().device, 200_000);
        for _ in 0..3 {
            s.step().unwrap();
        }
        std::process::exit(17);
    }
    for _ in 0..5 {
        let out = again("process::a_process_may_end_with_work_under_way", "WEFT_TEST_EXITS", "1");
        let said = String::from_utf8_lossy(&out.stderr).to_string();
        assert_eq!(out.status.code(), Some(17), "{said}");
    }
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    let tests = [
        "training::both_optimizers_follow_the_cpu",
        "faults::two_sessions_on_two_threads_make_a_thousand_steps",
    ];
    if std::env::var_os("WEFT_VALIDATION").is_some() {
        return;
    }
    for test in tests {
        let out = again(test, "WEFT_VALIDATION", "1");
        let said = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).to_string()).join("\n");
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
        // without the layer there would be nothing to hear
        assert!(!said.contains("Requested layer is not found"), "install vulkan-validationlayers:\n{said}");
        let complaints: Vec<&str> =
            said.lines().filter(|l| l.contains("VUID") || l.contains("Validation Error")).collect();
        assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    }
}
