//! all-MiniLM-L6-v2 against embeddings recorded from sentence-transformers. Needs the model's folder:
//! `samples/models/fetch minilm` (tests/run does it).

#[path = "devices/mod.rs"]
mod devices;

use serde_json::Value as Json;
use weft::device::Device;
use weft::models::Encoder;

fn folder() -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/models/minilm");
    assert!(folder.join("config.json").exists(), "no model: run samples/models/fetch minilm first");
    folder
}

fn recorded() -> Vec<(String, Vec<u32>, Vec<f32>)> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/minilm_sentences.json");
    let json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let items = json["items"].as_array().unwrap().iter();
    let numbers = |v: &Json| v.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect::<Vec<f64>>();
    items
        .map(|i| {
            (
                i["text"].as_str().unwrap().to_string(),
                numbers(&i["token_ids"]).iter().map(|&v| v as u32).collect(),
                numbers(&i["embedding"]).iter().map(|&v| v as f32).collect(),
            )
        })
        .collect()
}

fn far(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0.0, |m, (x, y)| m.max((x - y).abs()))
}

#[test]
fn ids_and_embeddings_equal_those_recorded() {
    for t in devices::all() {
        let encoder = Encoder::open_with(folder(), &t.device, t.precision).unwrap();
        assert!(encoder.warnings().is_empty(), "{:?}", encoder.warnings());
        let items = recorded();
        assert_eq!(items.len(), 8);
        let tolerance = t.tolerance(if t.is_cpu() { 1e-5 } else { 2e-5 }) as f32;
        let texts: Vec<&str> = items.iter().map(|i| i.0.as_str()).collect();
        let together = encoder.embed(&texts).unwrap();
        for (i, ((text, ids, wanted), batched)) in items.iter().zip(&together).enumerate() {
            let b = far(&batched.embedding, wanted);
            assert!(b <= tolerance, "{text} in a batch on {}: {b}", t.name());
            assert_eq!(&batched.token_ids, ids, "{text}");
            // every text of its own length on the CPU; on a slow GPU the shortest and the longest
            if !t.is_cpu() && i % 4 != 0 {
                continue;
            }
            let single = &encoder.embed(&[text]).unwrap()[0];
            let a = far(&single.embedding, wanted);
            eprintln!("{a:.1e} {b:.1e} {text:.40} on {}", t.name());
            assert_eq!(&single.token_ids, ids, "{text}");
            assert!(a <= tolerance, "{text} on {}: {a}", t.name());
        }
    }
}

#[test]
fn any_text_has_an_embedding_of_length_one() {
    let encoder = Encoder::open(folder(), &Device::cpu(2)).unwrap();
    let long = "word ".repeat(2000);
    let texts = ["", "🦀🎉", "مرحبا بالعالم", "你好,世界", &long, "a [MASK] b", "\u{0}", "x"];
    let together = encoder.embed(&texts).unwrap();
    for (text, batched) in texts.iter().zip(&together) {
        let single = &encoder.embed(&[text]).unwrap()[0];
        let length: f32 = single.embedding.iter().map(|v| v * v).sum();
        assert!((length - 1.0).abs() < 1e-5, "{text:.20}: {length}");
        assert!(far(&single.embedding, &batched.embedding) < 2e-6, "{text:.20}");
    }
    assert_eq!(together[4].token_ids.len(), 256);
    assert!(together[5].token_ids.contains(&103));
    assert!(encoder.embed::<&str>(&[]).unwrap().is_empty());
}
