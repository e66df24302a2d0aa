//! Failures: message, advice, exit status.

use crate::{Folder, Ran, command, repository, weft};
use std::process::Stdio;
use weft::tensor::Tensor;

const DOUBLE: &str = "weft 1\ninput x: f32[2]\ny = add(x, x)\noutput y = y\n";

fn run(folder: &Folder, graph: &str, more: &[&str]) -> Ran {
    let graph = folder.file("g.weft", graph);
    let out = folder.at("o.safetensors");
    let mut args = vec!["run", &graph, "--outputs", &out];
    args.extend(more);
    weft(&args)
}

#[test]
fn a_graph_that_is_wrong_is_named_with_its_place() {
    let folder = Folder::new();
    run(&folder, "weft 1\ninput x f32[2]\n", &[])
        .says(1, &["g.weft", "line 2, column 9", "samples/graphs/README.md"]);
    run(&folder, "weft 1\ninput x: f32[2]\ny = dubble(x)\n", &[]).says(1, &["line 3", "operation", "dubble"]);
    run(&folder, "weft 1\ninput x: f32[2]\ny = add(x, z)\n", &[]).says(1, &["line 3", "z", "not defined"]);
    run(&folder, "weft 1\na = neg(b)\nb = neg(a)\noutput a = a\n", &[]).says(1, &["circle", "a", "b"]);
    let wrong =
        "weft 1\ninput x: f32[2, 3]\ny = matmul(x, x, transpose_a=false, transpose_b=false)\noutput y = y\n";
    run(&folder, wrong, &[]).says(1, &["matmul: inner dimensions must agree: [2, 3] × [2, 3]"]);
    run(&folder, "", &[]).says(1, &["weft 1"]);
    run(&folder, "weft 1\ninput x: f32[2]\n", &[]).says(1, &["no outputs"]);
    run(&folder, DOUBLE, &["--backward"]).says(1, &["no loss is set", "--backward needs a line `loss NAME`"]);
    weft(&["run", &folder.at("none.weft"), "--outputs", &folder.at("o")])
        .says(1, &["cannot read", "none.weft"]);
}

#[test]
fn inputs_that_do_not_fit_are_refused_by_name() {
    let folder = Folder::new();
    let given = |tensor| folder.tensors("i.safetensors", [("x", tensor)]);
    run(&folder, DOUBLE, &[]).says(1, &["\"x\"", "--inputs"]);
    let long = given(Tensor::from_vec([3], vec![1.0f32, 2.0, 3.0]).unwrap());
    run(&folder, DOUBLE, &["--inputs", &long]).says(1, &["\"x\" is f32[2], but f32[3] came"]);
    let ids = given(Tensor::from_vec([2], vec![1i32, 2]).unwrap());
    run(&folder, DOUBLE, &["--inputs", &ids]).says(1, &["\"x\" holds f32 elements, but i32 came"]);
    let other = folder.tensors("i.safetensors", [("y", Tensor::from_vec([2], vec![1.0f32, 2.0]).unwrap())]);
    run(&folder, DOUBLE, &["--inputs", &other]).says(1, &["warning: tensor \"y\" is not an input", "\"x\""]);
    assert!(!std::path::Path::new(&folder.at("o.safetensors")).exists(), "a failed run wrote its outputs");
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let folder = Folder::new();
    let graph = "weft 1\nparam w: f32[2]\ny = neg(w)\noutput y = y\n";
    run(&folder, graph, &[]).says(1, &["weight \"w\" (f32[2]) is missing", "--weights"]);
    let other = folder.tensors("w.safetensors", [("v", Tensor::from_vec([2], vec![1.0f32, 2.0]).unwrap())]);
    run(&folder, graph, &["--weights", &other]).says(1, &["weight \"w\"", "missing", "weft inspect"]);
    let long = folder.tensors("w.safetensors", [("w", Tensor::from_vec([3], vec![1.0f32; 3]).unwrap())]);
    run(&folder, graph, &["--weights", &long]).says(1, &["the graph wants f32[2], the weights have f32[3]"]);
    let bytes = std::fs::read(&long).unwrap();
    std::fs::write(folder.at("short.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    run(&folder, graph, &["--weights", &folder.at("short.safetensors")])
        .says(1, &["not a valid safetensors file"]);
    weft(&["inspect", &folder.at("short.safetensors")]).says(1, &["not a valid safetensors file"]);
    run(&folder, graph, &["--weights", &folder.at("none")]).says(1, &["cannot open", "none"]);
}

#[test]
fn outputs_that_cannot_be_written_leave_nothing() {
    let folder = Folder::new();
    let graph = folder.file("g.weft", "weft 1\nconst x: f32[2] = [1, 2]\ny = neg(x)\noutput y = y\n");
    let out = folder.at("absent/o.safetensors");
    weft(&["run", &graph, "--outputs", &out]).says(1, &["absent"]);
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[test]
fn unknown_devices_folders_and_cases_are_named_with_what_there_is() {
    let folder = Folder::new();
    weft(&["devices", "--device", "tpu"]).says(1, &["device tpu", "cpu", "weft devices"]);
    weft(&["demo", "--device", "7"]).says(1, &["device 7"]);
    let empty = folder.0.display().to_string();
    weft(&["inspect", &empty]).says(1, &["model.safetensors"]);
    weft(&["inspect", &folder.at("none")]).says(1, &["cannot open", "none"]);
    weft(&["embed", "--model", &empty, "hello"]).says(1, &["samples/models/fetch minilm"]);
    let search = ["search", "--model", &empty, "--index", &folder.file("a.txt", "Some words."), "what"];
    weft(&search).says(1, &["samples/models/fetch minilm"]);
    weft(&["search", "--model", &empty, "--index", &folder.at("none.txt"), "what"])
        .says(1, &["cannot read", "none.txt", "quotes"]);
    weft(&["bench", "--case", "none"]).says(1, &["matmul-1024", "mlp-train-64"]);
}

#[test]
fn an_architecture_that_is_not_known_is_refused_by_name() {
    let folder = Folder::new();
    folder.file("config.json", r#"{"architectures": ["MambaForCausalLM"], "model_type": "mamba"}"#);
    folder.tensors("model.safetensors", [("w", Tensor::from_vec([2], vec![1.0f32, 2.0]).unwrap())]);
    let model = folder.0.display().to_string();
    weft(&["embed", "--model", &model, "hello"])
        .says(1, &["architecture \"mamba\" is not supported", "bert"]);
    // to look at it is allowed, and says so
    let found = weft(&["inspect", &model, "--json"]).json();
    assert_eq!(found["architecture"], "MambaForCausalLM (mamba)");
    assert!(found["memory_unknown"].as_str().unwrap().contains("mamba"), "{found}");
}

#[test]
fn a_command_that_makes_no_sense_ends_with_2() {
    weft(&[]).says(2, &["Usage"]);
    weft(&["dance"]).says(2, &["dance", "--help"]);
    weft(&["run"]).says(2, &["GRAPH"]);
    weft(&["bench"]).says(2, &["--model"]);
    weft(&["bench", "--list", "--case", "gelu"]).says(2, &["cannot be used"]);
    weft(&["bench", "--model", "m", "--batch", "0"]).says(2, &["above 0"]);
    weft(&["demo", "--threads", "many"]).says(2, &["whole number"]);
    weft(&["search", "--model", "m", "--index", "a.txt"]).says(2, &["QUERY"]);
}

#[test]
fn a_reader_that_leaves_early_is_not_an_error() {
    let model = repository("samples/models/digits").display().to_string();
    for args in [&["inspect", &model][..], &["devices"], &["bench", "--list"], &["--help"]] {
        let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended: Ran = child.wait_with_output().unwrap().into();
        ended.says(0, &[]);
    }
}
