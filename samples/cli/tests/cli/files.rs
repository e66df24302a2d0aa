//! Output files of commands: permissions, links, pipes, devices, standard output.
#![cfg(unix)]

use crate::{Folder, command, weft};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use weft::tensor::{Bytes, Tensor, Weights};

const GRAPH: &str = "weft 1\ninput x: f32[2]\ny = add(x, x)\noutput y = y\n";

/// The graph's folder, and the arguments that run it but for where to.
fn doubling() -> (Folder, [String; 4]) {
    let folder = Folder::new();
    let graph = folder.file("g.weft", GRAPH);
    let inputs = folder.tensors("i.safetensors", [("x", Tensor::from_vec([2], vec![1f32, 2.5]).unwrap())]);
    (folder, ["run".into(), graph, "--inputs".into(), inputs])
}

fn run(args: &[String; 4], outputs: &str, more: &[&str]) -> Command {
    let mut all: Vec<&str> = args.iter().map(String::as_str).collect();
    all.extend(["--device", "cpu", "--outputs", outputs]);
    all.extend(more);
    command(&all)
}

fn is_doubled(weights: &Weights) {
    assert_eq!(weights.len(), 1);
    assert_eq!(weights.get("y").unwrap().to_vec::<f32>().unwrap(), [2.0, 5.0]);
}

#[test]
fn outputs_keep_the_mode_and_go_through_links() {
    let (folder, args) = doubling();
    let file = folder.file("private", "old");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    symlink("private", folder.at("link")).unwrap();
    let ran = run(&args, &folder.at("link"), &[]).output().unwrap();
    assert!(ran.status.success());
    is_doubled(&weft::load::weights(&file).unwrap());
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    assert!(std::fs::symlink_metadata(folder.at("link")).unwrap().is_symlink());
    // a long name
    let long = folder.at(&"n".repeat(250));
    assert!(run(&args, &long, &[]).output().unwrap().status.success());
    is_doubled(&weft::load::weights(&long).unwrap());
}

#[test]
fn outputs_go_through_a_pipe_and_a_device() {
    let (folder, args) = doubling();
    let pipe = folder.at("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let child = run(&args, &pipe, &[]).stdout(Stdio::piped()).spawn().unwrap();
    is_doubled(&weft::load::safetensors_bytes(Bytes::from_vec(std::fs::read(&pipe).unwrap())).unwrap());
    let ran = child.wait_with_output().unwrap();
    assert!(ran.status.success() && String::from_utf8_lossy(&ran.stdout).contains("f32[2]"));
    assert!(std::fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert!(run(&args, "/dev/null", &[]).output().unwrap().status.success());
    assert!(std::fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    let ran: crate::Ran = run(&args, "/dev/full", &[]).output().unwrap().into();
    ran.says(1, &["cannot write /dev/full: No space left"]);
    // beside a pipe no file can be made
    let ran: crate::Ran = run(&args, &pipe, &["--tap", "safetensors"]).output().unwrap().into();
    ran.says(2, &["give --outputs a file"]);
    let ran = weft(&["run", &args[1], "--inputs", &args[3], "--device", "cpu", "--outputs", &folder.at("")]);
    ran.says(1, &["path: wanted the name of a file to write"]);
}

/// What is told goes to standard error where the file itself is standard output.
#[test]
fn standard_output_has_the_file_alone() {
    let (folder, args) = doubling();
    for path in ["/dev/stdout", "/dev/fd/1"] {
        for json in [&[][..], &["--json"]] {
            let ran = run(&args, path, json).output().unwrap();
            assert!(ran.status.success());
            is_doubled(&weft::load::safetensors_bytes(Bytes::from_vec(ran.stdout)).unwrap());
            assert!(String::from_utf8_lossy(&ran.stderr).contains("f32"));
        }
    }
    // a redirection, and a file that is named twice
    let out = folder.at("out");
    for path in ["/dev/stdout", &out] {
        let file = std::fs::File::create(&out).unwrap();
        let ran = run(&args, path, &[]).stdout(file).output().unwrap();
        assert!(ran.status.success());
        is_doubled(&weft::load::weights(&out).unwrap());
    }
    let ran = command(&["compile", &args[1], "--device", "cpu", "-o", "/dev/stdout"]).output().unwrap();
    assert!(ran.status.success() && ran.stdout.starts_with(b"\x93WEFT"));
    assert!(String::from_utf8_lossy(&ran.stderr).contains("compiled main for cpu"));
    let artifact = folder.at("a.weftc");
    std::fs::write(&artifact, ran.stdout).unwrap();
    assert!(weft(&["inspect", &artifact]).out.contains("main"));
    assert!(Path::new(&artifact).exists());
}
