//! `weft explain`, and `weft bench`'s measurements of devices and of compiling.

use crate::{Folder, repository, weft};
use serde_json::Value;
use weft::profile::DeviceProfile;

const GRAPH: &str = "weft 1
input x: f32[8, 64]
param q: f32[64, 64]
param k: f32[64, 64]
param v: f32[64, 64]
a = linear(x, q)
b = linear(x, k)
c = linear(x, v)
ab = mul(a, b)
y = add(ab, c)
m = reduce_max(y, axes=[-1], keepdim=true)
z = sub(y, m)
e = exp(z)
s = sum(e, axes=[-1], keepdim=true)
p = div(e, s)
output p = p
";

const GPU: &str = "weft-profile 1
name Far GPU
kind discrete gpu
threads 0
memory 0
gpu.units 64
";

fn one(all: &Value) -> &Value {
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 1);
    &all[0]
}

#[test]
fn a_graph_is_explained_for_devices_that_are_not_here() {
    let folder = Folder::new();
    let (graph, gpu) = (folder.file("g.weft", GRAPH), folder.file("gpu.profile", GPU));
    let cpu = folder.file("cpu.profile", "weft-profile 1\nname Far CPU\nkind cpu\nthreads 4\n");
    let both = weft(&["explain", &graph, "--profile", &gpu, "--profile", &cpu, "--json"]).json();
    let [on_gpu, on_cpu] = both.as_array().unwrap().as_slice() else { panic!("{both}") };
    assert_eq!((on_gpu["device"].as_str(), on_cpu["device"].as_str()), (Some("Far GPU"), Some("Far CPU")));
    for found in [on_gpu, on_cpu] {
        // ten operations as written, of which the last five are a softmax
        assert_eq!(found["before"]["nodes"], 10, "{found}");
        let (before, after) = (&found["before"], &found["after"]);
        for key in ["dispatches", "estimated_us", "written_bytes"] {
            assert!(after[key].as_f64() < before[key].as_f64(), "{key} {found}");
        }
        assert_eq!(after["memory"]["weights"], 3 * 64 * 64 * 4);
        let parts =
            || found["segments"].as_array().unwrap().iter().flat_map(|s| s["parts"].as_array().unwrap());
        let softmax = parts().find(|p| p["operations"].to_string().contains("softmax")).expect("a softmax");
        assert!(softmax["rules"].to_string().contains("softmax-longhand"), "{softmax}");
        let repeated: u64 = found["segments"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["times"].as_u64().unwrap() * s["parts"].as_array().unwrap().len() as u64)
            .sum();
        assert_eq!(after["dispatches"].as_u64(), Some(repeated));
    }
    // on the GPU alone, three products of one input are one
    let products = |found: &Value| {
        let of = |s: &Value| s["parts"].to_string().matches("\"sort\":\"product\"").count();
        let all = found["segments"].as_array().unwrap().iter();
        all.map(|s| s["times"].as_u64().unwrap() as usize * of(s)).sum::<usize>()
    };
    assert_eq!((products(on_gpu), products(on_cpu)), (1, 3));
    let told = weft(&["explain", &graph, "--profile", &gpu]).out;
    for wanted in ["Far GPU", "as written", "compiled", "pack-three", "softmax", "estimated time a step"] {
        assert!(told.contains(wanted), "no {wanted} in {told}");
    }
    let without = weft(&["explain", &graph, "--profile", &gpu, "--without", "rules", "--json"]).json();
    assert_eq!(products(one(&without)), 3);
}

#[test]
fn a_model_is_explained_layer_by_layer_on_the_devices_of_this_machine() {
    let folder = Folder::new();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(repository("tests/golden/llama_tiny.json")).unwrap()).unwrap();
    config["num_hidden_layers"] = 12.into();
    folder.file("config.json", &config.to_string());
    let model = folder.0.display().to_string();
    let all = weft(&["explain", &model, "--tokens", "8", "--training", "--json"]).json();
    let all = all.as_array().unwrap();
    // forward, training and decoding, each on the CPU and a GPU, a software one at least
    assert!(
        all.len() >= 6 && all.iter().any(|e| e["kind"] == "cpu") && all.iter().any(|e| e["kind"] != "cpu")
    );
    for found in all {
        let times = found["segments"].as_array().unwrap().iter().map(|s| s["times"].as_u64().unwrap());
        assert!((10..=12).contains(&times.max().unwrap()), "{} {}", found["graph"], found["segments"]);
        assert!(found["problem"].is_null());
    }
    let told = weft(&["explain", &model, "--tokens", "8", "--device", "cpu"]).out;
    assert!(told.contains("× 1") && told.contains("rms_norm"), "{told}");
}

#[test]
fn what_cannot_be_explained_says_why() {
    let folder = Folder::new();
    let graph = folder.file("g.weft", GRAPH);
    weft(&["explain", &graph, "--device", "cpu", "--training"]).says(1, &["g.weft", "loss"]);
    let wrong = folder.file("wrong.profile", "weft-profile 1\nname x\nkind tpu\n");
    weft(&["explain", &graph, "--profile", &wrong]).says(1, &["wrong.profile", "kind tpu"]);
    weft(&["explain", &folder.at("none.weft")]).says(1, &["none.weft"]);
    weft(&["explain", "--case", "none"]).says(1, &["no case", "minilm-1x16"]);
    weft(&["explain"]).says(2, &["--case"]);
    weft(&["explain", &graph, "--without", "magic"]).says(2, &["magic"]);
}

#[test]
fn a_measured_profile_is_one_that_is_used() {
    for device in ["cpu", "gpu"] {
        let folder = Folder::new();
        let file = folder.at("here.profile");
        let args = ["bench", "--profile-device", "-o", &file, "--seconds", "0", "--device", device, "--json"];
        let told = weft(&args).json();
        for key in ["start_us", "bytes_per_us", "f32_per_us"] {
            let value = told[key].as_f64().unwrap();
            assert!(value.is_finite() && value > 0.0, "{key} {told}");
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let profile: DeviceProfile = text.parse().unwrap();
        assert_eq!(profile.costs.bytes_per_us, told["bytes_per_us"].as_f64().unwrap());
        assert_eq!(profile.costs.packs, told["packs"].as_bool().unwrap());
        // all but the costs is the device's own
        let own: DeviceProfile = weft(&["devices", "--profile", "--device", device]).out.parse().unwrap();
        assert_eq!(DeviceProfile { costs: own.costs.clone(), ..profile.clone() }, own);
        // a step of one launch takes what starting it and its work take
        let graph = folder.file("g.weft", "weft 1\ninput x: f32[1024]\ny = exp(x)\noutput y = y\n");
        let found = weft(&["explain", &graph, "--profile", &file, "--json"]).json();
        let wanted = profile.costs.start_us
            + (2.0 * 4096.0 / profile.costs.bytes_per_us).max(1024.0 / profile.costs.f32_per_us);
        let came = one(&found)["after"]["estimated_us"].as_f64().unwrap();
        assert!((came - wanted).abs() < 1e-6 * wanted, "{came} {wanted}");
        weft(&["compile", &graph, "-o", &folder.at("g.weftc"), "--profile", &file]).says(0, &[]);
    }
    weft(&["bench", "--case", "gelu", "-o", "x"]).says(2, &["--profile-device"]);
}

#[test]
fn compiling_is_timed_and_its_memory_counted() {
    let found =
        weft(&["bench", "--compile", "minilm-1x16", "--seconds", "0", "--device", "cpu", "--json"]).json();
    let number = |key: &str| found[key].as_f64().unwrap_or_else(|| panic!("no {key} in {found}"));
    assert!(number("min_plan_ms") > 0.0 && number("min_plan_ms") <= number("median_plan_ms"));
    assert!(number("first_plan_ms") > 0.0 && number("median_load_ms") > 0.0 && number("runs") >= 5.0);
    assert!(number("blocks") < number("segments") && number("steps") > 6.0, "{found}");
    if cfg!(target_os = "linux") {
        // something, and not the model's 90 MB: compiling needs no weights
        assert!((1e4..8e7).contains(&number("peak_growth_bytes")), "{found}");
    }
    let told = weft(&["bench", "--compile", "gelu", "--seconds", "0", "--device", "cpu"]);
    assert!(told.status == 0 && told.out.contains("from graph to plan, median"), "{}", told.out);
}

#[test]
fn an_adapter_is_timed_in_both_orders_of_its_products() {
    for case in ["lora-1", "lora-512"] {
        let found = weft(&["bench", "--case", case, "--seconds", "0", "--device", "cpu", "--json"]).json();
        let orders = found["associations"]["orders"].as_array().unwrap();
        assert_eq!(orders.len(), 2, "{found}");
        assert!(orders.iter().all(|o| o["median_ms"].as_f64() > Some(0.0)));
        assert_eq!(orders.iter().filter(|o| o["chosen"] == true).count(), 1, "{found}");
        // how long they took is the machine's; which of them was chosen is the profile's
        let fastest = |o: &&Value| o["median_ms"].as_f64().unwrap();
        let best = orders.iter().min_by(|a, b| fastest(a).total_cmp(&fastest(b))).unwrap();
        assert_eq!(found["associations"]["chosen_is_fastest"], best["chosen"], "{found}");
    }
}

#[test]
fn longhand_maths_compiles_to_the_same_work() {
    let gpu = ["--device", "gpu", "--seconds", "0", "--json"];
    let steps =
        |case: &str| weft(&[&["bench", "--compile", case], &gpu[..]].concat()).json()["steps"].clone();
    assert_eq!(steps("minilm-longhand-1x128"), steps("minilm-1x128"));
    // and the explanation counts the same bytes
    let moved = |case: &str| {
        let found = weft(&["explain", "--case", case, "--device", "gpu", "--json"]).json();
        let after = &one(&found)["after"];
        [after["read_bytes"].as_f64().unwrap(), after["written_bytes"].as_f64().unwrap()]
    };
    assert_eq!(moved("minilm-longhand-1x128"), moved("minilm-1x128"));
}
