//! The `models` room: a tiny BERT folder against an independent f64 computation, with each pooling and in
//! f16; and the folders that must be refused by name.

use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use weft::device::Device;
use weft::internals::expr::{philox_word, uniform};
use weft::load;
use weft::models::Encoder;
use weft::tensor::{DType, Tensor, TensorType, Weights};

const H: usize = 8;
const HEADS: usize = 2;
const INNER: usize = 12;
const LAYERS: usize = 2;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn write(&self, name: &str, json: &Json) {
        std::fs::create_dir_all(self.0.join(name).parent().unwrap()).unwrap();
        std::fs::write(self.0.join(name), json.to_string()).unwrap();
    }
    fn open(&self) -> weft::error::Result<Encoder> {
        Encoder::open(&self.0, &Device::cpu(1))
    }
    fn refusal(&self) -> String {
        self.open().expect_err("refused").to_string()
    }
}

fn config() -> Json {
    json!({
        "model_type": "bert", "hidden_size": H, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "vocab_size": 12, "max_position_embeddings": 32, "type_vocab_size": 2,
        "layer_norm_eps": 1e-5, "hidden_act": "gelu", "position_embedding_type": "absolute",
    })
}

fn tokenizer() -> Json {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c", "d", "e", "f", "g", "h"];
    let vocab: serde_json::Map<String, Json> =
        words.iter().enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    })
}

fn weights(dtype: DType) -> Weights {
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        ("embeddings.word_embeddings.weight".into(), vec![12, H]),
        ("embeddings.position_embeddings.weight".into(), vec![32, H]),
        ("embeddings.token_type_embeddings.weight".into(), vec![2, H]),
        ("embeddings.LayerNorm.weight".into(), vec![H]),
        ("embeddings.LayerNorm.bias".into(), vec![H]),
    ];
    for l in 0..LAYERS {
        let parts: [(&str, usize, usize); 6] = [
            ("attention.self.query", H, H),
            ("attention.self.key", H, H),
            ("attention.self.value", H, H),
            ("attention.output.dense", H, H),
            ("intermediate.dense", INNER, H),
            ("output.dense", H, INNER),
        ];
        for (name, to, from) in parts {
            shapes.push((format!("encoder.layer.{l}.{name}.weight"), vec![to, from]));
            shapes.push((format!("encoder.layer.{l}.{name}.bias"), vec![to]));
        }
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{l}.{name}.weight"), vec![H]));
            shapes.push((format!("encoder.layer.{l}.{name}.bias"), vec![H]));
        }
    }
    let tensor = |(seed, (name, shape)): (usize, (String, Vec<usize>))| {
        let n = shape.iter().product::<usize>() as u64;
        let values: Vec<f64> = (0..n).map(|i| uniform(philox_word(seed as u64, 3, i)) * 1.6 - 0.8).collect();
        (name, Tensor::from_f64(&TensorType::new(dtype, shape), &values).unwrap())
    };
    shapes.into_iter().enumerate().map(tensor).collect()
}

fn folder(name: &str, dtype: DType) -> Folder {
    let f = Folder(std::env::temp_dir().join(format!("weft-models-{}-{name}", std::process::id())));
    std::fs::create_dir_all(&f.0).unwrap();
    f.write("config.json", &config());
    f.write("tokenizer.json", &tokenizer());
    load::save(f.0.join("model.safetensors"), &weights(dtype)).unwrap();
    f
}

fn with_pooling(f: &Folder, mode: &str, normalise: bool) {
    let mut modules = vec![
        json!({"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}),
        json!({"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}),
    ];
    if normalise {
        modules
            .push(json!({"idx": 2, "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}));
    }
    f.write("modules.json", &json!(modules));
    let mut pooling = serde_json::Map::new();
    for m in ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"] {
        pooling.insert(format!("pooling_mode_{m}"), json!(m == mode));
    }
    f.write("1_Pooling/config.json", &Json::Object(pooling));
}

/// BERT once more, in f64, one text, row by row, from the paper: nothing of the engine but its weights.
struct Plain<'a>(&'a Weights);

impl Plain<'_> {
    fn get(&self, name: &str) -> Vec<f64> {
        self.0.get(name).unwrap_or_else(|| panic!("{name}")).to_f64()
    }
    fn dense(&self, rows: &[Vec<f64>], name: &str) -> Vec<Vec<f64>> {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let row = |x: &Vec<f64>| {
            b.iter()
                .enumerate()
                .map(|(o, b)| b + x.iter().enumerate().map(|(i, x)| x * w[o * x_len(rows) + i]).sum::<f64>())
                .collect()
        };
        rows.iter().map(row).collect()
    }
    fn norm(&self, rows: &[Vec<f64>], name: &str) -> Vec<Vec<f64>> {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let row = |x: &Vec<f64>| {
            let mean = x.iter().sum::<f64>() / H as f64;
            let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / H as f64;
            (0..H).map(|i| (x[i] - mean) / (var + 1e-5).sqrt() * w[i] + b[i]).collect()
        };
        rows.iter().map(row).collect()
    }
    fn states(&self, ids: &[u32]) -> Vec<Vec<f64>> {
        let table = |n: &str| self.get(&format!("embeddings.{n}_embeddings.weight"));
        let (words, places, kinds) = (table("word"), table("position"), table("token_type"));
        let sum = |(p, &id): (usize, &u32)| {
            (0..H).map(|i| words[id as usize * H + i] + places[p * H + i] + kinds[i]).collect()
        };
        let mut x = self.norm(&ids.iter().enumerate().map(sum).collect::<Vec<_>>(), "embeddings.LayerNorm");
        for l in 0..LAYERS {
            let at = |n: &str| format!("encoder.layer.{l}.{n}");
            let [q, k, v] =
                ["query", "key", "value"].map(|n| self.dense(&x, &at(&format!("attention.self.{n}"))));
            let d = H / HEADS;
            let mut seen = vec![vec![0.0; H]; x.len()];
            for head in 0..HEADS {
                for (i, out) in seen.iter_mut().enumerate() {
                    let c = head * d..(head + 1) * d;
                    let dot =
                        |j: usize| c.clone().map(|e| q[i][e] * k[j][e]).sum::<f64>() / (d as f64).sqrt();
                    let e: Vec<f64> = (0..x.len()).map(|j| dot(j).exp()).collect();
                    let total: f64 = e.iter().sum();
                    c.clone().for_each(|f| out[f] = (0..x.len()).map(|j| e[j] / total * v[j][f]).sum());
                }
            }
            let add = |a: Vec<Vec<f64>>, b: &[Vec<f64>]| -> Vec<Vec<f64>> {
                a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
            };
            x = self.norm(
                &add(self.dense(&seen, &at("attention.output.dense")), &x),
                &at("attention.output.LayerNorm"),
            );
            let mut y = self.dense(&x, &at("intermediate.dense"));
            let gelu = |v: &mut f64| *v = *v * 0.5 * (1.0 + libm::erf(*v / 2f64.sqrt()));
            y.iter_mut().flatten().for_each(gelu);
            x = self.norm(&add(self.dense(&y, &at("output.dense")), &x), &at("output.LayerNorm"));
        }
        x
    }
}

fn x_len(rows: &[Vec<f64>]) -> usize {
    rows[0].len()
}

#[test]
fn every_pooling_and_dtype_equals_the_plain_computation() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let f = folder(&format!("pooling-{dtype}"), dtype);
        for (mode, normalise) in
            [("mean_tokens", true), ("mean_tokens", false), ("cls_token", false), ("max_tokens", true)]
        {
            with_pooling(&f, mode, normalise);
            let texts = ["a b c", "d", "e f g h a b c d e f g h", "b b", "zz a"];
            let found = f.open().unwrap().embed(&texts).unwrap();
            let weights = weights(dtype);
            for (text, e) in texts.iter().zip(&found) {
                assert_eq!(e.token_ids.len(), text.split(' ').count() + 2);
                let states = Plain(&weights).states(&e.token_ids);
                let column = |i: usize| states.iter().map(move |s| s[i]);
                let mut wanted: Vec<f64> = (0..H)
                    .map(|i| match mode {
                        "mean_tokens" => column(i).sum::<f64>() / states.len() as f64,
                        "cls_token" => states[0][i],
                        _ => column(i).fold(f64::NEG_INFINITY, f64::max),
                    })
                    .collect();
                if normalise {
                    let length = wanted.iter().map(|v| v * v).sum::<f64>().sqrt();
                    wanted.iter_mut().for_each(|v| *v /= length);
                }
                for (a, b) in e.embedding.iter().zip(&wanted) {
                    assert!((f64::from(*a) - b).abs() < 1e-5, "{dtype} {mode} {text}: {a}, wanted {b}");
                }
            }
        }
    }
}

#[test]
fn what_would_be_computed_wrongly_is_refused_by_name() {
    let f = folder("refused", DType::F32);
    let with = |key: &str, v: Json| {
        let mut c = config();
        c[key] = v;
        f.write("config.json", &c);
        f.refusal()
    };
    assert_eq!(
        with("model_type", json!("mamba")),
        "architecture \"mamba\" is not supported; supported: bert, roberta, xlm-roberta, camembert, distilbert, mpnet, \
         modernbert"
    );
    assert_eq!(
        with("hidden_act", json!("mish")),
        "bert: option hidden_act = mish is not supported (supported: gelu, gelu_new, gelu_pytorch_tanh, relu, silu)"
    );
    assert_eq!(
        with("position_embedding_type", json!("relative_key")),
        "bert: option position_embedding_type = \"relative_key\" is not supported (supported: \"absolute\")"
    );
    assert!(with("is_decoder", json!(true)).contains("is_decoder = true"));
    assert!(with("num_attention_heads", json!(3)).contains("a divisor of hidden_size 8"));
    assert!(with("hidden_size", json!("wide")).contains("hidden_size = \"wide\""));
    assert!(with("quantization_config", json!({"bits": 4})).contains("quantization_config"));
    assert_eq!(
        with("vocab_size", json!(13)),
        "weight \"embeddings.word_embeddings.weight\": the graph wants f32[13, 8], the weights have f32[12, 8]"
    );
    std::fs::write(f.0.join("config.json"), "[1").unwrap();
    assert!(f.refusal().contains("config.json: wanted JSON"), "{}", f.refusal());
    std::fs::remove_file(f.0.join("config.json")).unwrap();
    assert!(f.refusal().starts_with("cannot read "), "{}", f.refusal());
}

#[test]
fn modules_and_pooling_that_are_not_known_are_refused_by_name() {
    let f = folder("modules", DType::F32);
    with_pooling(&f, "sum_tokens", true);
    f.write("1_Pooling/config.json", &json!({"pooling_mode_sum_tokens": true}));
    assert!(f.refusal().contains("pooling = pooling_mode_sum_tokens"), "{}", f.refusal());
    f.write("modules.json", &json!([{"type": "sentence_transformers.models.CNN", "path": "2_CNN"}]));
    assert!(f.refusal().contains("modules.json = sentence_transformers.models.CNN"), "{}", f.refusal());
    f.write("modules.json", &json!([{"type": "sentence_transformers.models.Pooling", "path": "../../etc"}]));
    assert!(f.refusal().contains("a folder inside the model's"), "{}", f.refusal());
    assert!(Encoder::open(Path::new("/nonexistent/model"), &Device::cpu(1)).is_err());
}

#[test]
fn a_batch_of_nothing_and_a_text_too_long_for_the_model_are_refused() {
    let f = folder("batch", DType::F32);
    let e = f.open().unwrap();
    let said = |r: weft::error::Result<weft::session::Session>| r.err().unwrap().to_string();
    assert_eq!(said(e.forward_session(0, 8)), "batch: wanted at least one text of 1 to 32 tokens, got 0 × 8");
    assert!(said(e.forward_session(1, 33)).contains("1 × 33"));
    assert_eq!(e.embed(&["a ".repeat(100)]).unwrap()[0].token_ids.len(), 32);
}
