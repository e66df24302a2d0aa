//! `weft embed`, `search`, `inspect` and `compile` on the tiny text encoders of tests/golden/encoders.

use crate::{Folder, Ran, repository, weft};
use serde_json::Value;

fn model(name: &str) -> String {
    repository("tests/golden/encoders").join(name).display().to_string()
}

fn expected(name: &str) -> Value {
    let file = repository("tests/golden/encoders").join(name).join("expected.json");
    serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The first text's embedding as it was recorded under a key, against what a command printed.
fn check(ran: &Ran, wanted: &Value) {
    assert_eq!(ran.status, 0, "{}", ran.err);
    let row: Value = serde_json::from_str(ran.out.lines().next().unwrap()).unwrap();
    let numbers = |v: &Value| v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<f64>>();
    let (found, wanted) = (numbers(&row["embedding"]), numbers(wanted));
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f64, |m, v| m.max(v.abs()));
    let off = found.iter().zip(&wanted).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    assert!(off <= 1e-5 * largest, "off by {off}");
}

#[test]
fn prompts_stand_before_texts_by_name_and_by_text() {
    let (bert, all) = (model("bert"), expected("bert"));
    let text = all["texts"][0].as_str().unwrap();
    let embed = |more: &[&str]| {
        let mut args = vec!["embed", "--model", &bert, "--json", "--device", "cpu"];
        args.extend(more);
        args.extend(["--", text]);
        weft(&args)
    };
    check(&embed(&[]), &all["embeddings"][0]);
    check(&embed(&["--prompt-name", "query"]), &all["query"][0]);
    check(&embed(&["--prompt-name", "document"]), &all["none"][0]);
    check(&embed(&["--prompt", "query: "]), &all["query"][0]);
    let refused = embed(&["--prompt-name", "blue"]);
    assert!(
        refused.status != 0 && refused.err.contains("there are: document, query, red"),
        "{}",
        refused.err
    );
    assert_ne!(embed(&["--prompt-name", "red", "--prompt", "x"]).status, 0);
}

#[test]
fn inspect_tells_architecture_pooling_prompts_and_dimensions() {
    let told = weft(&["inspect", &model("bert")]);
    for part in [
        "architecture: BertModel (bert)",
        "9 components of at most 24 tokens; mean + max pooling, dense 64 to 20 (GELU), layer norm",
        "normalised, the first 9 components",
        "compared by: dot",
        "texts are lower-cased",
        "prompt red (default): \"the red \"",
        "prompt query: \"query: \"",
        "memory needed at 1 × 80 tokens",
    ] {
        assert!(told.out.contains(part), "no {part:?} in {}", told.out);
    }
    let json = weft(&["inspect", &model("bert"), "--json"]).json();
    let s = &json["sentence"];
    assert_eq!((&s["dimensions"], &s["default_prompt"]), (&Value::from(9), &Value::from("red")));
    assert_eq!(s["prompts"]["query"], "query: ");
    assert_eq!((&s["max_tokens"], &s["lower_case"]), (&Value::from(24), &Value::from(true)));
    let told = weft(&["inspect", &model("mpnet")]);
    assert!(told.out.contains("(mpnet)") && told.out.contains("of at most 200 tokens"), "{}", told.out);
}

#[test]
fn what_cannot_be_run_is_inspected_all_the_same() {
    let out = Folder::new();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(format!("{}/{name}", model("xlm-roberta")), out.at(name)).unwrap();
    }
    out.file("modules.json", "[{\"type\": \"sentence_transformers.models.CNN\", \"path\": \"\"}]");
    let folder = std::path::Path::new(&out.at("config.json")).parent().unwrap().display().to_string();
    let told = weft(&["inspect", &folder]);
    assert!(told.status == 0 && told.out.contains("embeddings.word_embeddings.weight"), "{}", told.err);
    assert!(told.out.contains("unknown") && told.out.contains("models.CNN"), "{}", told.out);
}

#[test]
fn search_asks_with_the_models_query_prompt() {
    let out = Folder::new();
    let file = out.file(
        "texts.txt",
        "the cat sings over the red river, hello world.\n\na red dog walks under the blue rain, hello.\n",
    );
    let bert = model("bert");
    let search = |more: &[&str]| {
        let mut args = vec!["search", "--model", &bert, "--json", "--device", "cpu", "--index", &file];
        args.extend(more);
        args.extend(["--", "what does the cat sing?"]);
        weft(&args).json()
    };
    let scores = |found: &Value| -> Vec<f64> {
        let all = found["results"].as_array().unwrap().iter();
        all.map(|r| r["score"].as_f64().unwrap()).collect()
    };
    let plain = search(&[]);
    assert_eq!(plain["results"].as_array().unwrap().len(), 2, "{plain}");
    assert_eq!(
        scores(&plain),
        scores(&search(&["--prompt-name", "query", "--passage-prompt-name", "document"]))
    );
    assert_ne!(scores(&plain), scores(&search(&["--prompt-name", "red"])));
    assert_ne!(scores(&plain), scores(&search(&["--passage-prompt-name", "red"])));
}

#[test]
fn an_artifact_of_an_encoder_embeds_as_its_folder_does() {
    let out = Folder::new();
    let file = out.at("encoder.weftc");
    let all = expected("modernbert");
    let modernbert = model("modernbert");
    let compiled = weft(&["compile", &modernbert, "-o", &file, "--tokens", "16", "--device", "cpu"]);
    assert_eq!(compiled.status, 0, "{}", compiled.err);
    let text = all["texts"][0].as_str().unwrap();
    let embed = |more: &[&str]| {
        let mut args = vec!["embed", "--model", &modernbert, "--json", "--device", "cpu"];
        args.extend(more);
        args.extend(["--", text]);
        weft(&args)
    };
    let (with, without) = (embed(&["--artifact", &file]), embed(&[]));
    assert_eq!((with.status, &with.out), (0, &without.out), "{}", with.err);
    assert!(with.err.contains("brings 1 compiled sizes"), "{}", with.err);
}
