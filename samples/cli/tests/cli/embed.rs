//! `weft embed`, `search`, `inspect` and `bench` on a real model, where `samples/models/fetch minilm` has brought it
//! (tests/run does before these run).

use crate::{Folder, Ran, command, repository, weft};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

/// The model's folder; says so where it is not there.
fn minilm(test: &str) -> Option<String> {
    let folder = repository("samples/models/minilm");
    if folder.join("config.json").exists() {
        return Some(folder.display().to_string());
    }
    println!("NOT CHECKED: {test}: no model; `samples/models/fetch minilm` brings it");
    None
}

/// The recorded sentences: text, token ids, embedding, by another implementation.
fn recorded() -> Vec<Value> {
    let file = std::fs::read_to_string(repository("tests/golden/minilm_sentences.json")).unwrap();
    let all: Value = serde_json::from_str(&file).unwrap();
    all["items"].as_array().unwrap().clone()
}

fn rows(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.status, 0, "{}", ran.err);
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(rows: &[Value], items: &[Value]) {
    assert_eq!(rows.len(), items.len());
    for (row, item) in rows.iter().zip(items) {
        assert_eq!((&row["text"], &row["token_ids"]), (&item["text"], &item["token_ids"]));
        let numbers = |v: &Value| {
            v["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<_>>()
        };
        let (got, wanted) = (numbers(row), numbers(item));
        assert_eq!(got.len(), wanted.len());
        let off = got.iter().zip(&wanted).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off <= 1e-5, "{} is off by {off}", row["text"]);
    }
}

#[test]
fn embeddings_are_those_recorded_from_arguments_and_from_lines() {
    let Some(model) = minilm("embeddings") else { return };
    let items = recorded();
    let texts: Vec<&str> = items.iter().map(|i| i["text"].as_str().unwrap()).collect();
    let mut args = vec!["embed", "--model", &model, "--json", "--"];
    args.extend(&texts);
    check(&rows(&weft(&args)), &items);

    let single: Vec<Value> =
        items.iter().filter(|i| !i["text"].as_str().unwrap().contains('\n')).cloned().collect();
    let mut child = command(&["embed", "--model", &model, "--json"]);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: String = single.iter().map(|i| format!("{}\n", i["text"].as_str().unwrap())).collect();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    check(&rows(&child.wait_with_output().unwrap().into()), &single);
}

#[test]
fn people_see_how_alike_texts_are() {
    let Some(model) = minilm("how alike") else { return };
    let ran =
        weft(&["embed", "--model", &model, "A cat sleeps.", "A kitten is asleep.", "Interest rates rose."]);
    let table: Vec<&str> = ran.out.lines().skip_while(|l| !l.starts_with("how alike")).collect();
    let number = |row: usize, column: usize| -> f32 {
        table[row + 2].split_whitespace().rev().nth(2 - column).unwrap().parse().unwrap()
    };
    assert!(number(0, 1) > 0.6 && number(0, 2) < 0.3 && number(0, 0) == 1.0, "{}", ran.out);
}

#[test]
fn search_finds_the_passage_that_answers() {
    let Some(model) = minilm("search") else { return };
    let folder = Folder::new();
    let pets = folder.file("pets.txt", "Cats sleep for most of the day, often in the sun.\n\nDogs want to go out in every weather, and they bark.\n");
    let money =
        folder.file("money.txt", "The central bank raised its interest rate by half a point today.\n");
    let args = ["search", "--model", &model, "--index", &pets, &money, "monetary policy"];
    let found = weft(&[&args[..], &["--json"]].concat()).json();
    let results = found["results"].as_array().unwrap();
    assert_eq!((found["passages"].as_u64(), results.len()), (Some(3), 3));
    assert!(results[0]["file"].as_str().unwrap().ends_with("money.txt"), "{found}");
    let scores: Vec<f64> = results.iter().map(|r| r["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");

    let told = weft(&[
        "search",
        "what does a kitten do all day?",
        "--model",
        &model,
        "--top",
        "1",
        "--index",
        &pets,
        &money,
    ]);
    assert!(told.out.contains("pets.txt:1") && !told.out.contains("money.txt"), "{}", told.out);
}

#[test]
fn the_model_is_inspected_and_timed() {
    let Some(model) = minilm("inspect and bench") else { return };
    let found = weft(&["inspect", &model, "--json"]).json();
    assert_eq!(found["architecture"], "BertModel (bert)");
    assert_eq!(found["parameters"], 22_713_216);
    let (needed, held) = (found["memory"]["total_bytes"].as_u64().unwrap(), found["bytes"].as_u64().unwrap());
    assert!(needed > held && needed < held * 4, "{needed} for {held}");

    let found =
        weft(&["bench", "--model", &model, "--batch", "2", "--tokens", "16", "--seconds", "0", "--json"])
            .json();
    // what tests/bench/compare.py reads
    let keys = [
        "median_ms",
        "min_ms",
        "runs",
        "first_run_ms",
        "compile_ms",
        "open_to_first_ms",
        "peak_memory_bytes",
        "gflop",
    ];
    for key in keys.iter().filter(|k| cfg!(target_os = "linux") || **k != "peak_memory_bytes") {
        assert!(found[key].as_f64().is_some_and(|v| v > 0.0), "{key} in {found}");
    }
    // 6 layers of 2·16·(4·384² + 2·384·1536) + 4·16²·384, twice
    let gflop =
        2.0 * 6.0 * (2.0 * 16.0 * (4.0 * 384.0 * 384.0 + 2.0 * 384.0 * 1536.0) + 4.0 * 256.0 * 384.0) / 1e9;
    assert!((found["gflop"].as_f64().unwrap() - gflop).abs() < 1e-9);
}
