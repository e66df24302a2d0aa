//! `weft devices`, `inspect`, `bench`, `--help`, `--version`: what they show.

use crate::{Folder, repository, weft};
use weft::tensor::Tensor;

#[test]
fn help_names_every_command_and_the_version_ends_its_line() {
    let help = weft(&["--help"]);
    for command in ["demo", "devices", "inspect", "embed", "search", "run", "bench", "train-digits"] {
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
    assert!(
        told.status == 0 && told.out.contains(name) && told.out.contains("with 1 thread."),
        "{}",
        told.out
    );
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
