//! `weft devices`, `inspect`, `bench`, `--help`, `--version`: their output.

use crate::{Folder, repository, weft};
use weft::tensor::Tensor;

#[test]
fn help_names_every_command_and_the_version_ends_its_line() {
    let help = weft(&["--help"]);
    for command in [
        "demo",
        "devices",
        "inspect",
        "convert",
        "embed",
        "search",
        "run",
        "explain",
        "bench",
        "train-digits",
    ] {
        assert!(help.out.contains(command), "no {command} in {}", help.out);
        let own = weft(&[command, "--help"]);
        assert!(
            own.status == 0 && own.out.contains("--threads") && own.out.contains("--json"),
            "{}",
            own.out
        );
    }
    assert_eq!(weft(&["--version"]).out, format!("weft {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_processor_is_a_device() {
    let all = weft(&["devices", "--json"]).json();
    let cpu = all.as_array().unwrap().iter().find(|d| d["kind"] == "cpu").unwrap();
    assert!(cpu["threads"].as_u64().unwrap() >= 1, "{cpu}");
    let name = cpu["name"].as_str().unwrap();
    let told = weft(&["devices", "--device", name, "--threads", "1"]);
    assert!(told.status == 0 && told.out.contains("takes cpu, 1 thread."), "{}", told.out);
}

#[test]
fn gpus_are_listed_tested_and_taken_by_name() {
    let all = weft(&["devices", "--json"]).json();
    let gpu = all.as_array().unwrap().iter().find(|d| d["kind"].as_str().unwrap().ends_with("gpu"));
    let gpu = gpu.expect("a GPU, a software one at least");
    assert_eq!(gpu["state"], "passes its self-test", "{gpu}");
    assert!(gpu["limits"]["workgroup_memory"].as_u64().unwrap() >= 16_384, "{gpu}");
    let name = gpu["name"].as_str().unwrap();
    let told = weft(&["devices", "--device", name]);
    assert!(told.status == 0 && told.out.contains(&format!("takes {name}")), "{}", told.out);
    // the same work there as here
    let out = Folder::new();
    let file = out.at("adapted.safetensors");
    let found = weft(&["demo", "--device", "gpu", "--out", &file, "--json"]).json();
    assert_eq!(found["device"]["name"].as_str(), Some(name));
    assert!(found["accuracy_adapted"].as_f64() > found["accuracy_new_user"].as_f64(), "{found}");
    let timed = weft(&[
        "bench",
        "--case",
        "softmax-1024",
        "--device",
        "gpu",
        "--seconds",
        "0",
        "--json",
        "--profile",
    ]);
    let timed = timed.json();
    assert!(timed["dispatches"].as_u64() >= Some(1) && timed["gpu_ms"].as_f64() > Some(0.0), "{timed}");
    assert!(timed["parts"].as_array().is_some_and(|p| !p.is_empty()), "{timed}");
}

#[test]
fn inspect_counts_tensors_parameters_and_bytes() {
    let found =
        weft(&["inspect", &repository("samples/models/digits").display().to_string(), "--json"]).json();
    // 64·64 + 64 + 10·64 + 10
    assert_eq!((found["parameters"].as_u64(), found["bytes"].as_u64()), (Some(4810), Some(19240)));
    assert!(found["architecture"].is_null());

    let folder = Folder::new();
    let ids = Tensor::from_vec([3], vec![1i64, 2, 3]).unwrap();
    let file = folder
        .tensors("m.safetensors", [("w", Tensor::from_vec([2, 3], vec![1.0f32; 6]).unwrap()), ("ids", ids)]);
    let told = weft(&["inspect", &file]);
    assert!(told.out.contains("f32    [2, 3]"), "{}", told.out);
    assert!(told.out.contains("2 tensors, 6 parameters, 48 B"), "{}", told.out);
}

#[test]
fn a_case_is_timed_with_all_its_figures() {
    let list = weft(&["bench", "--list", "--json"]).json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"matmul-1024") && names.len() >= 6, "{names:?}");
    for case in ["mlp-train-64", "softmax-1024"] {
        let found = weft(&["bench", "--case", case, "--seconds", "0", "--json"]).json();
        let number = |key: &str| found[key].as_f64().unwrap_or_else(|| panic!("no {key} in {found}"));
        assert!(number("min_ms") > 0.0 && number("min_ms") <= number("median_ms"), "{found}");
        assert!(
            number("runs") >= 20.0 && number("first_run_ms") > 0.0 && number("compile_ms") > 0.0,
            "{found}"
        );
        if cfg!(target_os = "linux") {
            assert!(number("peak_memory_bytes") > 1e6, "{found}");
        }
    }
}

#[test]
fn a_trace_is_written_where_the_environment_asks() {
    let folder = Folder::new();
    let file = folder.at("trace.json");
    let ran = std::process::Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(["bench", "--case", "gelu", "--device", "gpu", "--seconds", "0", "--profile"])
        .env("WEFT_TRACE", &file)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let has = |category: &str| events.iter().any(|e| e["cat"] == category && e["dur"].as_f64() > Some(0.0));
    assert!(["compile", "upload", "gpu", "read"].iter().filter(|c| has(c)).count() >= 3, "{trace}");
    assert!(events.iter().any(|e| e["tid"] == 0 && e["name"] == "gelu"), "{trace}");
}
