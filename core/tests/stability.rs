//! README's promises of stability: artifacts of earlier versions are refused or read, never misread; graphs in their text form
//! still parse, with the same meaning.
//!
//! `WEFT_WRITE_GOLDEN=1 cargo test -p weft --test stability` writes the files missing for this version. Files of a released
//! version are never changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft::device::Device;
use weft::error::Error;
use weft::graph::{Array, Graph};
use weft::internals::plan::FORMAT;
use weft::load;
use weft::ops;
use weft::profile::{Costs, DeviceKind, DeviceProfile, Limits};
use weft::session::{Artifact, Compiler};
use weft::tensor::Weights;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn writes() -> bool {
    std::env::var_os("WEFT_WRITE_GOLDEN").is_some()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The classifier of samples/graphs, with its weights and four digits to read.
fn classifier() -> (Graph, Weights, Weights) {
    let file = |name: &str| load::safetensors(root().join(name)).unwrap();
    let graph = Graph::parse(&read("samples/graphs/classifier.weft")).unwrap();
    (graph, file("samples/models/digits/model.safetensors"), file("samples/graphs/digits.safetensors"))
}

/// A phone's GPU, which need not be there.
fn phone() -> DeviceProfile {
    DeviceProfile {
        name: "a phone's".into(),
        kind: DeviceKind::Integrated,
        threads: 0,
        memory: 4 << 30,
        gpu: Some(Limits::least()),
        costs: Costs::gpu(4, false),
    }
}

/// This version's artifact of the classifier: to run, and to train where `training`.
fn artifact(compiler: &Compiler) -> Artifact {
    let graph = classifier().0;
    let mut artifact = Artifact::new();
    artifact.add("main", &compiler.compile(&graph).unwrap()).unwrap();
    artifact.add("training", &compiler.compile_training(&graph).unwrap()).unwrap();
    artifact
}

/// Runs every graph of a loaded artifact, and compares it with the graph itself computed in f64.
fn check(artifact: &Artifact, file: &str) {
    let (graph, weights, inputs) = classifier();
    let mut arrays = BTreeMap::new();
    for (name, tensor) in weights.iter().chain(inputs.iter()) {
        arrays.insert(name.to_string(), Array::from_tensor(tensor));
    }
    let wanted = weft::reference::run(&graph, &arrays).unwrap();
    for (name, mut session) in artifact.init_all(&weights).unwrap() {
        let outputs = session
            .run(&[("pixels", inputs.get("pixels").unwrap()), ("labels", inputs.get("labels").unwrap())]);
        for (output, came) in outputs.unwrap().iter() {
            let wanted = &wanted[output];
            for (came, wanted) in came.to_f64().iter().zip(&wanted.data) {
                assert!(
                    (came - wanted).abs() <= 1e-6 * (1.0 + wanted.abs()),
                    "{file}, {name}, {output}: {came} for {wanted}"
                );
            }
        }
    }
}

/// The committed artifacts of a sort: the number of their format, and where they are.
fn committed(ending: &str) -> Vec<(u32, PathBuf)> {
    let folder = root().join("tests/golden/artifacts");
    let names = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let number = |n: &str| n.strip_prefix("format-")?.strip_suffix(ending)?.parse().ok();
    let mut all: Vec<(u32, PathBuf)> = names.filter_map(|n| Some((number(&n)?, folder.join(&n)))).collect();
    all.sort();
    all
}

fn write_current(ending: &str, compiler: &Compiler) {
    if writes() {
        artifact(compiler)
            .save(root().join(format!("tests/golden/artifacts/format-{FORMAT}{ending}")))
            .unwrap();
    }
}

/// An artifact of another format is refused as such; one of this format was written by a plan of the same form, so it is read.
fn expect(format: u32, path: &Path, loaded: Result<Artifact, Error>) -> Option<Artifact> {
    match loaded {
        Ok(artifact) if format == FORMAT => Some(artifact),
        Err(Error::Artifact { what, .. }) if format != FORMAT && what == "format" => None,
        other => panic!(
            "{}: {:?}. The form of plans changed without another plan::FORMAT; if no version with format {FORMAT} was \
             released, write it anew: WEFT_WRITE_GOLDEN=1 cargo test -p weft --test stability",
            path.display(),
            other.map(|a| a.names().map(String::from).collect::<Vec<_>>())
        ),
    }
}

#[test]
fn artifacts_of_earlier_versions_are_refused_or_right_on_the_cpu() {
    let cpu = Device::cpu(1);
    write_current(".weftc", &Compiler::new(&cpu));
    let all = committed(".weftc");
    assert!(
        all.len() >= 2 && all.iter().any(|f| f.0 == FORMAT),
        "none of format {FORMAT}: WEFT_WRITE_GOLDEN=1 writes it"
    );
    for (format, path) in all {
        if let Some(artifact) = expect(format, &path, Artifact::load(&cpu, &path)) {
            check(&artifact, &path.display().to_string());
        }
    }
}

#[test]
fn artifacts_of_earlier_versions_are_refused_or_whole_for_gpus() {
    write_current("-gpu.weftc", &Compiler::for_profile(&phone()));
    let all = committed("-gpu.weftc");
    assert!(all.iter().any(|f| f.0 == FORMAT), "none of format {FORMAT}: WEFT_WRITE_GOLDEN=1 writes it");
    for (format, path) in all {
        let Some(artifact) = expect(format, &path, Artifact::inspect(&path)) else { continue };
        assert_eq!(artifact.names().collect::<Vec<_>>(), ["main", "training"]);
        assert_eq!(artifact.profile(), Some(&phone()));
        let names: Vec<String> = artifact.weights().into_iter().map(|w| w.name).collect();
        assert_eq!(names, ["layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias"]);
    }
}

/// A graph of an operation's first sample, in the text form.
fn text_of(op: &'static dyn weft::graph::Op) -> String {
    let g = Graph::new();
    let sample = &op.samples()[0];
    let input = |(i, a): (usize, &Array)| g.input(&format!("x{i}"), a.ty.dtype, a.ty.shape.clone());
    let inputs: Vec<_> = sample.inputs.iter().enumerate().map(input).collect();
    g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
    g.data().unwrap().to_string()
}

#[test]
fn graphs_that_were_written_still_parse_and_print_as_they_were() {
    let path = root().join("tests/golden/graph_texts.json");
    let mut kept: BTreeMap<String, String> = if path.exists() {
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap()
    } else {
        BTreeMap::new()
    };
    for op in ops::all().filter(|_| writes()) {
        // what is there stays as it was written
        kept.entry(op.name().into()).or_insert_with(|| text_of(op));
    }
    if writes() {
        std::fs::write(&path, serde_json::to_string_pretty(&kept).unwrap() + "\n").unwrap();
    }
    for op in ops::all() {
        assert!(kept.contains_key(op.name()), "no text of {}: WEFT_WRITE_GOLDEN=1 writes it", op.name());
    }
    for (op, text) in &kept {
        let graph = Graph::parse(text).unwrap_or_else(|e| panic!("{op}: {e}\n{text}"));
        assert_eq!(graph.data().unwrap().to_string(), *text, "{op}");
    }
}

/// Every statement of the text form as the first version had it, with what it means.
#[test]
fn every_statement_of_the_first_text_form_means_what_it_did() {
    let text = "weft 1
input x: f32[2, 3]               # data
param w: f32[3, 2]
frozen k: f16[2]
const half: f32[] = [0.5]
const rows: i64[2] = [1, -9007199254740993]
const table: q8[1, 32] = hex 0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20003c
state seen: f32[2, 2]
%9 = add(scaled, seen)
y = matmul(x, w, transpose_a=false, transpose_b=false)
scaled = mul(y, half)
next seen = %9
wide = cast(k, dtype=f32)
widened = dequantise(table)
picked = cast(rows, dtype=f32)
output sums = %9
output widened = widened
output wide = wide
output picked = picked
l = sum(%9, axes=[0, 1], keepdim=false)
loss l
";
    let graph = Graph::parse(text).unwrap();
    let again = Graph::parse(&graph.data().unwrap().to_string()).unwrap();
    assert_eq!(again.data().unwrap().to_string(), graph.data().unwrap().to_string());
    use weft::tensor::{Tensor, f16};
    let mut weights = Weights::new();
    weights.insert("w", Tensor::from_vec([3, 2], vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
    weights.insert("k", Tensor::from_vec([2], vec![f16::from_f32(1.5), f16::from_f32(-2.0)]).unwrap());
    let mut session = Compiler::new(&Device::cpu(1)).compile(&graph).unwrap().init(&weights).unwrap();
    for step in 1..3 {
        let outputs = session.run(&[("x", &[1.0f32, 1.0, 1.0, 0.0, 0.0, 2.0])]).unwrap();
        // x·w/2 = [[4.5, 6], [5, 6]], once more with each step
        let sums = [4.5, 6.0, 5.0, 6.0].map(|v| v * step as f32);
        assert_eq!(outputs.read::<f32>("sums").unwrap(), sums);
        assert_eq!(outputs.read::<f32>("loss").unwrap(), [21.5 * step as f32]);
        assert_eq!(outputs.read::<f32>("wide").unwrap(), [1.5, -2.0]);
        assert_eq!(outputs.read::<f32>("picked").unwrap(), [1.0, -9007199254740993i64 as f32]);
        let table: Vec<f32> = (1..33).map(|v| v as f32).collect();
        assert_eq!(outputs.read::<f32>("widened").unwrap(), table);
    }
}

#[test]
fn everything_names_the_same_least_rust() {
    let least = |path: &str, before: &str| {
        let text = read(path);
        let at = text.find(before).unwrap_or_else(|| panic!("{path} does not say {before}")) + before.len();
        text[at..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect::<String>()
    };
    let said = least("Cargo.toml", "rust-version = \"");
    assert_eq!(said.split('.').count(), 2, "{said}");
    assert_eq!(least("samples/rust/Cargo.toml", "rust-version = \""), said);
    assert_eq!(least("README.md", "[Rust](https://rustup.rs) ("), said);
    assert_eq!(least("README.md", "Rust **"), said);
}
