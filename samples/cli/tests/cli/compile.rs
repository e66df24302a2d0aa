//! `weft compile` and the commands that use its artifacts: the same results as without, and refusals with a reason.

use crate::{Folder, repository, weft};
use weft::tensor::{Tensor, Weights};

const GRAPH: &str = "weft 1
input x: f32[1, 2]
param w: f32[2, 1]
y = matmul(x, w, transpose_a=false, transpose_b=false)
output y = y
";

fn row(shape: &[usize], values: &[f32]) -> Tensor<'static> {
    Tensor::from_vec(shape, values.to_vec()).unwrap()
}

fn outputs(path: &str) -> Weights {
    weft::load::weights(path).unwrap()
}

#[test]
fn a_compiled_graph_runs_to_the_same_numbers() {
    let folder = Folder::new();
    let (graph, artifact) = (folder.file("g.weft", GRAPH), folder.at("g.weftc"));
    let made = weft(&["compile", &graph, "-o", &artifact, "--device", "cpu", "--json"]).json();
    assert_eq!((made["graphs"][0].as_str(), made["weights"].as_u64()), (Some("main"), Some(1)));
    let weights = folder.tensors("w.safetensors", [("w", row(&[2, 1], &[3.0, -1.0]))]);
    let inputs = folder.tensors("i.safetensors", [("x", row(&[1, 2], &[1.5, 2.0]))]);
    let out = folder.at("o.safetensors");
    let more = ["--weights", &weights, "--inputs", &inputs, "--outputs", &out, "--device", "cpu"];
    weft(&[&["run", &artifact], &more[..]].concat()).says(0, &[]);
    // 1.5·3 − 2
    assert_eq!(outputs(&out).get("y").unwrap().to_f64(), [2.5]);
    weft(&[&["run", &artifact, "--name", "other"], &more[..]].concat()).says(1, &["graph", "other", "main"]);
    weft(&[&["run", &artifact, "--backward"], &more[..]].concat()).says(2, &["--backward", "text form"]);
    weft(&[&["run", &graph, "--name", "main"], &more[..]].concat()).says(2, &["--name main", "artifacts"]);
    let told = weft(&["inspect", &artifact, "--device", "cpu"]);
    assert!(told.out.contains("main") && told.out.contains("x f32[1, 2]"), "{}", told.out);
    assert_eq!(weft(&["inspect", &artifact, "--json"]).json()["weights"][0]["name"], "w");
}

#[test]
fn an_artifact_that_cannot_be_loaded_says_why() {
    let folder = Folder::new();
    let (graph, artifact) = (folder.file("g.weft", GRAPH), folder.at("g.weftc"));
    weft(&["compile", &graph, "-o", &artifact, "--device", "cpu"]).says(0, &[]);
    let good = std::fs::read(&artifact).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&artifact, bad).unwrap();
    let out = folder.at("o.safetensors");
    let run = |device: &str| weft(&["run", &artifact, "--outputs", &out, "--device", device]);
    run("cpu").says(1, &["g.weftc", "hash", "weft compile"]);
    std::fs::write(&artifact, good).unwrap();
    run("gpu").says(1, &["g.weftc", "device: wanted one compiled for", "found one compiled for", "(cpu)"]);
}

#[test]
fn a_profile_printed_here_compiles_for_here() {
    let folder = Folder::new();
    let text = weft(&["devices", "--profile", "--device", "gpu"]).out;
    let profile = folder.file("gpu.profile", &text);
    let (graph, artifact) = (folder.file("g.weft", GRAPH), folder.at("g.weftc"));
    weft(&["compile", &graph, "-o", &artifact, "--profile", &profile]).says(0, &[]);
    let inputs = folder.tensors("i.safetensors", [("x", row(&[1, 2], &[1.0, 2.0]))]);
    let weights = folder.tensors("w.safetensors", [("w", row(&[2, 1], &[4.0, 8.0]))]);
    let out = folder.at("o.safetensors");
    let more = ["--weights", &weights, "--inputs", &inputs, "--outputs", &out, "--device", "gpu"];
    weft(&[&["run", &artifact], &more[..]].concat()).says(0, &[]);
    assert_eq!(outputs(&out).get("y").unwrap().to_f64(), [20.0]);
    let wrong = folder.file("wrong.profile", "weft-profile 1\nname x\nkind tpu\n");
    weft(&["compile", &graph, "-o", &artifact, "--profile", &wrong])
        .says(1, &["wrong.profile", "kind tpu", "weft devices --profile"]);
}

#[test]
fn a_compiled_encoder_embeds_as_one_that_compiles() {
    let (folder, model) = (Folder::new(), repository("samples/models/minilm").display().to_string());
    let artifact = folder.at("minilm.weftc");
    let made =
        weft(&["compile", &model, "-o", &artifact, "--tokens", "8,16", "--device", "cpu", "--json"]).json();
    assert_eq!(made["graphs"].as_array().unwrap().len(), 2);
    let embed = |more: &[&str]| {
        let args = ["embed", "--model", &model, "--device", "cpu", "--json", "The cat sits outside"];
        weft(&[&args[..], more].concat())
    };
    let (plain, ready) = (embed(&[]), embed(&["--artifact", &artifact]));
    ready.says(0, &["brings 2 compiled sizes"]);
    assert_eq!(plain.json()["embedding"], ready.json()["embedding"]);
    let other = folder.file("g.weft", GRAPH);
    let none = folder.at("g.weftc");
    weft(&["compile", &other, "-o", &none, "--device", "cpu"]).says(0, &[]);
    embed(&["--artifact", &none]).says(1, &["a graph of this encoder", "main"]);
}

#[test]
fn a_llama_folder_compiles_to_its_graphs() {
    let folder = Folder::new();
    let at = |name: &str| repository("tests/golden").join(name);
    std::fs::copy(at("llama_tiny.json"), folder.at("config.json")).unwrap();
    std::fs::copy(at("llama_tiny.safetensors"), folder.at("model.safetensors")).unwrap();
    let (model, artifact) = (folder.0.display().to_string(), folder.at("llama.weftc"));
    let args =
        ["compile", &model, "-o", &artifact, "--tokens", "4,7", "--training", "--device", "cpu", "--json"];
    let made = weft(&args).json();
    let names: Vec<&str> = made["graphs"].as_array().unwrap().iter().filter_map(|n| n.as_str()).collect();
    assert_eq!(names, ["prefill-1x4", "train-1x4", "prefill-1x7", "train-1x7", "decode-7"]);
    let told = weft(&["inspect", &artifact, "--json"]).json();
    assert_eq!(told["graphs"][1]["training"], true);
    // what becomes of the weights: a line a graph, all of each with --weights and in JSON
    let weights = told["graphs"][0]["at_init"]["weights"].as_array().unwrap();
    let query = weights.iter().find(|w| w["name"] == "model.layers.0.self_attn.q_proj.weight").unwrap();
    assert_eq!(query["at_init"][0]["how"], "packed");
    assert!(query["at_init"][0]["bytes"].as_u64().unwrap() > 0);
    let told = weft(&["inspect", &artifact, "--weights"]).out;
    for part in ["prefill-1x4: of ", " packed", "weights of train-1x7", "model.norm.weight f32"] {
        assert!(told.contains(part), "{part} is missing in\n{told}");
    }
    weft(&["inspect", &model, "--weights"]).says(2, &["--weights", "artifact"]);
    let timed =
        weft(&["bench", "--artifact", &artifact, "--seconds", "0", "--device", "cpu", "--json"]).json();
    assert!(timed["median_ms"].as_f64().unwrap() > 0.0 && timed["runs"].as_u64().unwrap() >= 20);
    assert_eq!(timed["graphs"].as_array().unwrap().len(), 5);
}
