//! Whole processes: one that exits with work in flight, and one under the driver's validation layer.

use super::{devices, small};
use std::process::{Command, Output};

/// This test binary again, with one test and an environment.
pub fn again(test: &str, name: &str, value: &str) -> Output {
    let exe = std::env::current_exe().unwrap();
    let mut command = Command::new(exe);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(name, value);
    command.output().unwrap()
}

/// Ends this process with the GPU in the midst of what is named; never returns.
fn end_amid(what: &str) -> ! {
    let device = devices::gpu().device;
    match what {
        "steps" => {
            let mut s = small(&device, 200_000);
            for _ in 0..3 {
                s.step().unwrap();
            }
        }
        // several threads compile kernels that nobody compiled before, and run them
        "compiling" => {
            let (begun, waiting) = std::sync::mpsc::channel();
            for t in 0..3 {
                let (device, begun) = (device.clone(), begun.clone());
                std::thread::spawn(move || {
                    for i in 1.. {
                        let _ = begun.send(());
                        small(&device, 3 * i + t).step().unwrap();
                    }
                });
            }
            (0..8 + std::process::id() % 8).for_each(|_| waiting.recv().unwrap());
        }
        other => panic!("{other}"),
    }
    std::process::exit(17)
}

#[test]
fn a_process_may_end_with_work_under_way() {
    if let Some(what) = std::env::var_os("WEFT_TEST_EXITS") {
        end_amid(what.to_str().unwrap());
    }
    // `WEFT_EXITS` says how many there are, six at a time
    let many = std::env::var("WEFT_EXITS").ok().map(|n| n.parse::<usize>().unwrap());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let one_after_the_other = || loop {
        let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if i >= many.unwrap_or(10) {
            return;
        }
        let what = ["steps", "compiling"][i % 2];
        let out = again("process::a_process_may_end_with_work_under_way", "WEFT_TEST_EXITS", what);
        let said = String::from_utf8_lossy(&out.stderr).to_string();
        assert_eq!(out.status.code(), Some(17), "{i}, {what}, {:?}: {said}", out.status);
    };
    std::thread::scope(|s| {
        (0..many.map_or(1, |_| 6)).for_each(|_| drop(s.spawn(one_after_the_other)));
    });
}

/// What the validation layer says while a test runs; the test must pass.
fn heard(test: &str) -> Vec<String> {
    let out = again(test, "WEFT_VALIDATION", "1");
    let said = [out.stdout, out.stderr].map(|b| String::from_utf8_lossy(&b).to_string()).join("\n");
    assert!(out.status.success() && said.contains("1 passed"), "{said}");
    said.lines().filter(|l| l.contains("VUID") || l.contains("Validation Error")).map(String::from).collect()
}

/// Run under the layer only: binds more of a buffer than this driver allows, which the layer must complain of.
#[test]
fn what_the_validation_layer_must_complain_of() {
    if std::env::var_os("WEFT_VALIDATION").is_none() {
        return;
    }
    let whole = devices::gpu().device.as_gpu().unwrap().limited(|l| l.binding = (4 << 30) - 256).unwrap();
    let g = weft::graph::Graph::new();
    let x = g.input("x", weft::tensor::DType::F32, [34 << 20]);
    g.output("y", g.sum(x, &[0], false));
    let device = weft::device::Device::from_gpu(whole);
    let mut s = weft::session::Compiler::new(&device).compile(&g).unwrap().init_zeros().unwrap();
    s.set_input("x", &vec![1.0; 34 << 20]).unwrap();
    s.step().unwrap();
    s.wait().unwrap();
}

#[test]
fn the_validation_layer_has_nothing_to_say() {
    if std::env::var_os("WEFT_VALIDATION").is_some() {
        return;
    }
    // silence means something only where the layer is there and speaks; devices with longer bindings allow what it must
    // complain of
    if devices::gpu().device.as_gpu().unwrap().limits().binding < (34 << 20) * 4 {
        let control = heard("process::what_the_validation_layer_must_complain_of");
        assert!(!control.is_empty(), "the validation layer does not speak: install vulkan-validationlayers");
    }
    let tests = [
        "training::both_optimizers_follow_the_cpu",
        "training::a_label_outside_its_table_changes_nothing_and_is_named",
        "sharing::what_is_longer_than_a_binding_is_held_in_pieces",
        "faults::two_sessions_on_two_threads_make_a_thousand_steps",
    ];
    for test in tests {
        let complaints = heard(test);
        assert!(complaints.is_empty(), "{test}: {}", complaints.join("\n"));
    }
}
