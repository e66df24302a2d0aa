//! `weft tune` and the commands that use its files: measured once, used by others, refused on other devices.

use crate::{Folder, weft};
use weft::tensor::{Tensor, Weights};

const GRAPH: &str = "weft 1
input x: f32[24, 32]
param w: f32[40, 32]
param v: f32[16, 40]
y = linear(x, w)
z = relu(y)
u = linear(z, v)
output u = u
";

fn numbers(shape: [usize; 2], seed: usize) -> Tensor<'static> {
    let count = shape[0] * shape[1];
    let all = (0..count).map(|i| ((i * 37 + seed) % 101) as f32 / 50.5 - 1.0).collect();
    Tensor::from_vec(shape, all).unwrap()
}

fn outputs(path: &str) -> Weights {
    weft::load::weights(path).unwrap()
}

#[test]
fn what_is_measured_is_written_and_followed() {
    let folder = Folder::new();
    let (graph, tuning) = (folder.file("g.weft", GRAPH), folder.at("t.tuning"));
    let tune = ["tune", &graph, "-o", &tuning, "--device", "gpu", "--cuts", "4", "--json"];
    let told = weft(&tune).json();
    let products = told["products"].as_array().unwrap();
    assert_eq!(products.len(), 2);
    for p in products {
        let [rule, best] = ["rule_us", "us"].map(|t| p[t].as_f64().unwrap());
        assert!(best > 0.0 && best <= rule && p["tried"].as_u64().unwrap() >= 4, "{p}");
        assert!(p["wrong"].as_array().unwrap().is_empty() && p["failed"].is_null(), "{p}");
    }
    // what the file has is not measured again
    assert!(weft(&tune).json()["products"].as_array().unwrap().is_empty());

    let weights = folder.tensors("w.safetensors", [("w", numbers([40, 32], 1)), ("v", numbers([16, 40], 2))]);
    let inputs = folder.tensors("i.safetensors", [("x", numbers([24, 32], 3))]);
    let run = |what: &str, more: &[&str]| {
        let out = folder.at("o.safetensors");
        let all = ["run", what, "--weights", &weights, "--inputs", &inputs, "--outputs", &out];
        weft(&[&all, more].concat()).says(0, &[]);
        outputs(&out).get("u").unwrap().to_f64()
    };
    let wanted = run(&graph, &["--device", "cpu"]);
    let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    let near = |came: Vec<f64>| came.iter().zip(&wanted).all(|(a, b)| (a - b).abs() <= 1e-5 * largest);
    assert!(largest > 0.1 && near(run(&graph, &["--device", "gpu", "--tuning", &tuning])));
    // an artifact has it in it
    let artifact = folder.at("g.weftc");
    weft(&["compile", &graph, "-o", &artifact, "--device", "gpu", "--tuning", &tuning]).says(0, &[]);
    assert!(near(run(&artifact, &["--device", "gpu"])));
}

#[test]
fn tunings_that_do_not_fit_are_refused_with_the_reason() {
    let folder = Folder::new();
    let graph = folder.file("g.weft", GRAPH);
    let out = folder.at("o.weftc");
    let compile = |tuning: &str, device: &str| {
        weft(&["compile", &graph, "-o", &out, "--device", device, "--tuning", tuning])
    };
    let other = folder.file("other", "weft-tuning 1\ndevice Some GPU\ngpu.threads 256\n");
    compile(&other, "gpu").says(1, &["other", "measurements of", "Some GPU", "weft tune"]);
    compile(&other, "cpu").says(1, &["measurements of", "Some GPU"]);
    let damaged = folder.file("damaged", "weft-tuning 1\ndevice x\nproduct 1 2 3\n");
    compile(&damaged, "gpu").says(1, &["damaged", "product 1 2 3"]);
    compile(&folder.at("none"), "gpu").says(1, &["none", "cannot read"]);
    weft(&["tune", &graph, "-o", &damaged, "--device", "gpu"]).says(1, &["damaged", "product 1 2 3"]);
    weft(&["tune", &graph, "-o", &out, "--device", "cpu"]).says(1, &["nothing to tune on the CPU"]);
    weft(&["tune", &graph, "-o", &out, "--tuning", &other]).says(2, &["--tuning"]);
    weft(&["tune", "-o", &out]).says(2, &["--case"]);
    weft(&["tune", "--case", "nonsense", "-o", &out, "--device", "gpu"]).says(1, &["no case \"nonsense\""]);
}
