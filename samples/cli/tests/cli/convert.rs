//! `weft convert`, and other commands on dtypes that Weft does not compute with.

use crate::{Folder, weft};
use weft::tensor::{DType, Tensor, TensorType};

/// A safetensors file by hand: entries of name, dtype, shape and bytes, in the order of their data.
fn by_hand(folder: &Folder, name: &str, entries: &[(&str, &str, &str, &[u8])]) -> String {
    let (mut header, mut data) = (vec![r#""__metadata__":{"format":"pt"}"#.to_string()], vec![]);
    for (name, dtype, shape, bytes) in entries {
        let (from, to) = (data.len(), data.len() + bytes.len());
        header
            .push(format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#));
        data.extend_from_slice(bytes);
    }
    let header = format!("{{{}}}", header.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    std::fs::write(folder.at(name), file).unwrap();
    folder.at(name)
}

/// A parameter "w" of two doubles, and tensors that no graph can use.
fn checkpoint(folder: &Folder) -> String {
    let doubles = [0.5f64, -3.0].map(f64::to_le_bytes).concat();
    let entries = [
        ("w", "F64", "[2]", &doubles[..]),
        ("scale", "F8_E4M3", "[3]", &[1, 2, 3]),
        ("packed", "F4", "[2, 2]", &[1, 2]),
        ("steps", "U16", "[1]", &[7, 0]),
    ];
    by_hand(folder, "model.safetensors", &entries)
}

/// loss = Σ (w·x − 1)²
const GRAPH: &str = "weft 1
input x: f32[2]
param w: f32[2]
const one: f32[2] = [1, 1]
y = mul(x, w)
output y = y
l = mse_loss(y, one)
loss l
";

#[test]
fn floats_are_converted_and_everything_else_is_kept() {
    let folder = Folder::new();
    let from = checkpoint(&folder);
    let out = folder.at("out.safetensors");
    for (dtype, wanted) in [("f32", DType::F32), ("f16", DType::F16), ("bf16", DType::BF16)] {
        let ran = weft(&["convert", &from, "-o", &out, "--dtype", dtype]);
        ran.says(0, &[]);
        assert!(ran.out.contains(&format!("converted 1 of 4 tensors to {dtype}")), "{}", ran.out);
        assert!(ran.out.contains("left as they are: 1 F4, 1 F8_E4M3, 1 U16"), "{}", ran.out);
        let found = weft::load::weights(&out).unwrap();
        assert_eq!(found.get("w").unwrap().ty(), TensorType::new(wanted, [2]));
        assert_eq!(found.get("w").unwrap().to_f64(), [0.5, -3.0]);
        assert_eq!(found.metadata()["format"], "pt");
        let dtypes: Vec<_> = found.names().map(|(n, d)| (n, d.name())).collect();
        assert_eq!(dtypes, [("packed", "F4"), ("scale", "F8_E4M3"), ("steps", "U16"), ("w", dtype)]);
    }
    let told = weft(&["convert", &from, "-o", &out, "--dtype", "f32", "--json"]).json();
    assert_eq!((&told["dtype"], &told["converted"][0]), (&"f32".into(), &"w".into()));
    assert_eq!((&told["bytes_before"], &told["bytes"]), (&23.into(), &15.into()));
    assert_eq!(told["unchanged"].as_array().unwrap().len(), 3);
    // onto itself
    weft(&["convert", &from, "-o", &from, "--dtype", "f16"]).says(0, &[]);
    assert_eq!(weft::load::weights(&from).unwrap().get("w").unwrap().dtype(), DType::F16);
}

#[test]
fn folders_of_shards_become_one_file() {
    let folder = Folder::new();
    let half = |v: f64| Tensor::from_f64(&TensorType::new(DType::F16, [1]), &[v]).unwrap();
    folder.tensors("a.safetensors", [("a", half(1.5)), ("both", half(1.0))]);
    folder.tensors("b.safetensors", [("b", half(-2.0)), ("both", half(9.0))]);
    let index = folder.file(
        "model.safetensors.index.json",
        r#"{"weight_map":{"a":"a.safetensors","b":"b.safetensors","both":"b.safetensors"}}"#,
    );
    for from in [folder.at("."), index] {
        let out = folder.at("whole.st");
        weft(&["convert", &from, "-o", &out, "--dtype", "f32"]).says(0, &[]);
        let found = weft::load::weights(&out).unwrap();
        let all: Vec<_> = found.iter().map(|(n, t)| (n, t.to_vec::<f32>().unwrap()[0])).collect();
        assert_eq!(all, [("a", 1.5), ("b", -2.0), ("both", 9.0)]);
        std::fs::remove_file(out).unwrap();
    }
}

#[test]
fn what_cannot_be_converted_is_said_and_nothing_is_written() {
    let folder = Folder::new();
    let large =
        folder.tensors("large.safetensors", [("w", Tensor::from_vec([2], vec![1f32, -1e6]).unwrap())]);
    let out = folder.file("out", "old");
    let convert = |more: &[&str]| {
        let mut args = vec!["convert"];
        args.extend(more);
        weft(&args)
    };
    convert(&[&large, "-o", &out, "--dtype", "f16"])
        .says(1, &["tensor \"w\"", "at most 65504", "-1000000 at position 1"]);
    convert(&[&large, "-o", &out, "--dtype", "i32"]).says(2, &["wanted f32, f16 or bf16"]);
    convert(&[&large, "-o", &out]).says(2, &["--dtype"]);
    convert(&[&folder.at("none"), "-o", &out, "--dtype", "f16"]).says(1, &["cannot open", "No such file"]);
    convert(&[&out, "-o", &out, "--dtype", "f16"]).says(1, &["not a valid safetensors file"]);
    convert(&[&large, "-o", &folder.at("."), "--dtype", "bf16"])
        .says(1, &["is a folder", "model.safetensors"]);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "old");
}

#[test]
fn inspect_lists_every_dtype() {
    let folder = Folder::new();
    let from = checkpoint(&folder);
    let shown = weft(&["inspect", &from, "--device", "cpu"]);
    shown.says(0, &[]);
    for wanted in ["F8_E4M3", "F4", "U16", "F64", "converted to f32", "does not compute with F4", "4 tensors"]
    {
        assert!(shown.out.contains(wanted), "no {wanted} in {}", shown.out);
    }
    let told = weft(&["inspect", &from, "--device", "cpu", "--json"]).json();
    let scale = told["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "scale").unwrap();
    assert_eq!(
        (&scale["dtype"], &scale["bytes"], &scale["used_as"]),
        (&"F8_E4M3".into(), &3.into(), &().into())
    );
}

#[test]
fn a_run_takes_what_the_graph_needs_in_the_dtype_it_is_told() {
    let folder = Folder::new();
    let graph = folder.file("g.weft", GRAPH);
    let x = folder.tensors("x.safetensors", [("x", Tensor::from_vec([2], vec![2f32, 1.0]).unwrap())]);
    let out = folder.at("o.safetensors");
    let run = |weights: &str, inputs: &str, more: &[&str]| {
        let mut args = vec![
            "run",
            &graph,
            "--device",
            "cpu",
            "--weights",
            weights,
            "--inputs",
            inputs,
            "--outputs",
            &out,
        ];
        args.extend(more);
        weft(&args)
    };
    let gradient = || weft::load::weights(&out).unwrap().get("grad.w").unwrap().to_vec::<f32>().unwrap();
    let from = checkpoint(&folder);
    run(&from, &x, &["--backward"]).says(0, &["weight \"scale\" (F8_E4M3[3]) is not used"]);
    // y = (1, −3), dl/dw = 2·(y − 1)·x/2
    assert_eq!(gradient(), [0.0, -4.0]);
    // a checkpoint of f16 trains in f32
    let half = folder.at("half.safetensors");
    weft(&["convert", &from, "-o", &half, "--dtype", "f16"]).says(0, &[]);
    run(&half, &x, &["--backward"]).says(1, &["weight \"w\"", "f16[2]", "--weights-dtype f32 converts"]);
    run(&half, &x, &["--backward", "--weights-dtype", "f32"]).says(0, &[]);
    assert_eq!(gradient(), [0.0, -4.0]);
    run(&half, &x, &["--weights-dtype", "i32"]).says(2, &["wanted f32, f16 or bf16"]);
    // a tensor that is needed and cannot be used
    let eighths = by_hand(&folder, "eighths.st", &[("w", "F8_E5M2", "[2]", &[1, 2])]);
    run(&eighths, &x, &[]).says(1, &["weight \"w\"", "F8_E5M2[2]", "save it as F32, F16 or BF16"]);
    let beyond = [1e300f64, 1.0].map(f64::to_le_bytes).concat();
    let beyond = by_hand(&folder, "beyond.st", &[("w", "F64", "[2]", &beyond)]);
    run(&beyond, &x, &[]).says(1, &["weight \"w\"", "1e300 at position 0, which f32 cannot hold"]);
    let bad = by_hand(&folder, "bad.st", &[("x", "C64", "[2]", &[0; 16])]);
    run(&from, &bad, &[]).says(1, &["input \"x\"", "C64[2]"]);
    let more = by_hand(
        &folder,
        "more.st",
        &[("x", "F64", "[2]", &[2f64, 1.0].map(f64::to_le_bytes).concat()), ("y", "C64", "[1]", &[0; 8])],
    );
    run(&from, &more, &["--backward"]).says(0, &[]);
    assert_eq!(gradient(), [0.0, -4.0]);
}
