//! Text encoders of every family against results recorded from transformers and sentence-transformers, in the current and in
//! older folder layouts: see tests/golden/encoders.py.

#[path = "devices/mod.rs"]
mod devices;
mod model_folders;

use model_folders::{copy, golden};
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use weft::device::Device;
use weft::load;
use weft::models::{Encoder, Prompt, Similarity};
use weft::tensor::Weights;
use weft::text::Tokenizer;

/// What was recorded of a folder.
struct Recorded(Json);

impl Recorded {
    fn of(name: &str) -> Recorded {
        Recorded(serde_json::from_slice(&std::fs::read(golden(name).join("expected.json")).unwrap()).unwrap())
    }
    fn texts(&self) -> Vec<String> {
        let all = self.0["texts"].as_array().unwrap().iter();
        all.map(|t| t.as_str().unwrap().to_string()).collect()
    }
    fn ids(&self) -> Vec<Vec<u32>> {
        let row = |r: &Json| r.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
        self.0["ids"].as_array().unwrap().iter().map(row).collect()
    }
    fn vectors(&self, key: &str) -> Vec<Vec<f64>> {
        let found = key.split('/').fold(&self.0, |v, k| &v[k]);
        let row = |r: &Json| r.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        found.as_array().unwrap_or_else(|| panic!("{key}")).iter().map(row).collect()
    }
}

/// A copy of a recorded folder, to be changed.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    fn of(name: &str, what: &str) -> Folder {
        let to = std::env::temp_dir().join(format!("weft-encoders-{}-{name}-{what}", std::process::id()));
        copy(&golden(name), &to);
        Folder(to)
    }
    fn write(&self, name: &str, json: &Json) {
        std::fs::create_dir_all(self.0.join(name).parent().unwrap()).unwrap();
        std::fs::write(self.0.join(name), json.to_string()).unwrap();
    }
    fn json(&self, name: &str) -> Json {
        serde_json::from_slice(&std::fs::read(self.0.join(name)).unwrap()).unwrap()
    }
    fn change(&self, name: &str, key: &str, value: Json) {
        let mut all = self.json(name);
        all[key] = value;
        self.write(name, &all);
    }
    fn drop_key(&self, name: &str, key: &str) {
        let mut all = self.json(name);
        all.as_object_mut().unwrap().remove(key).unwrap_or_else(|| panic!("{key}"));
        self.write(name, &all);
    }
    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).unwrap();
    }
    /// Modules of older sentence-transformers: one way of pooling, named by flags.
    fn pool(&self, mode: &str) {
        self.write(
            "modules.json",
            &json!([
                {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]),
        );
        self.write("1_Pooling/config.json", &json!({"word_embedding_dimension": 32, (mode): true}));
    }
    fn open(&self) -> Encoder {
        Encoder::open(&self.0, &Device::cpu(1)).unwrap_or_else(|e| panic!("{e}"))
    }
    fn refusal(&self) -> String {
        Encoder::open(&self.0, &Device::cpu(1)).expect_err("refused").to_string()
    }
}

/// Embeds texts together and each alone, and compares with what was recorded, relative to each vector's largest element.
fn compare(encoder: &mut Encoder, texts: &[String], wanted: &[Vec<f64>], tolerance: f64, what: &str) {
    let far = |e: &[f32], w: &[f64]| {
        assert_eq!(e.len(), w.len(), "{what}");
        let largest = w.iter().fold(0f64, |m, v| m.max(v.abs()));
        e.iter().zip(w).fold(0f64, |m, (a, b)| m.max((f64::from(*a) - b).abs())) / largest
    };
    let together = encoder.embed(texts).unwrap();
    for ((text, found), wanted) in texts.iter().zip(&together).zip(wanted) {
        let batched = far(&found.embedding, wanted);
        let alone = far(&encoder.embed(&[text]).unwrap()[0].embedding, wanted);
        let shown: String = text.chars().take(30).collect();
        assert!(
            batched <= tolerance && alone <= tolerance,
            "{what}, {shown:?}: {batched:.1e}, alone {alone:.1e}"
        );
    }
}

fn check_ids(encoder: &mut Encoder, recorded: &Recorded, what: &str) {
    let texts = recorded.texts();
    for (found, (text, ids)) in encoder.embed(&texts).unwrap().iter().zip(texts.iter().zip(recorded.ids())) {
        assert_eq!(found.token_ids, ids, "{what}: {text:?}");
    }
}

/// Folder, the flag of its pooling, what was recorded.
const FAMILIES: [(&str, &str, &str); 6] = [
    ("distilbert", "pooling_mode_mean_tokens", "mean"),
    ("roberta", "pooling_mode_lasttoken", "lasttoken"),
    ("xlm-roberta", "pooling_mode_weightedmean_tokens", "weightedmean"),
    ("camembert", "pooling_mode_mean_tokens", "mean"),
    ("mpnet", "pooling_mode_mean_tokens", "mean"),
    ("modernbert", "pooling_mode_mean_tokens", "mean"),
];

#[test]
fn every_family_is_what_was_recorded_on_every_device() {
    for (name, flag, key) in FAMILIES {
        let (folder, recorded) = (Folder::of(name, "family"), Recorded::of(name));
        folder.pool(flag);
        for t in devices::all() {
            let mut encoder = Encoder::open_with(&folder.0, &t.device, t.precision).unwrap();
            assert!(encoder.warnings().is_empty(), "{name}: {:?}", encoder.warnings());
            assert_eq!(encoder.config().architecture(), name);
            check_ids(&mut encoder, &recorded, name);
            let what = format!("{name} on {}", t.name());
            compare(&mut encoder, &recorded.texts(), &recorded.vectors(key), t.tolerance(1e-5), &what);
        }
    }
}

#[test]
fn a_folder_of_sentence_transformers_today_is_computed_module_by_module() {
    let recorded = Recorded::of("bert");
    for t in devices::all() {
        let mut encoder = Encoder::open_with(golden("bert"), &t.device, t.precision).unwrap();
        assert!(encoder.warnings().is_empty(), "{:?}", encoder.warnings());
        assert_eq!(
            (encoder.hidden_size(), encoder.max_tokens(), encoder.similarity()),
            (9, 24, Similarity::Dot)
        );
        assert_eq!(encoder.prompt(), "the red ");
        let (texts, tolerance) = (recorded.texts(), t.tolerance(1e-5));
        let name = t.name();
        compare(
            &mut encoder,
            &texts,
            &recorded.vectors("embeddings"),
            tolerance,
            &format!("default, {name}"),
        );
        encoder.set_prompt(Prompt::Name("query")).unwrap();
        compare(&mut encoder, &texts, &recorded.vectors("query"), tolerance, &format!("query, {name}"));
        encoder.set_prompt(Prompt::None).unwrap();
        check_ids(&mut encoder, &recorded, "bert");
        compare(&mut encoder, &texts, &recorded.vectors("none"), tolerance, &format!("none, {name}"));
        encoder.set_prompt(Prompt::Text("query: ")).unwrap();
        compare(&mut encoder, &texts[..1], &recorded.vectors("query")[..1], tolerance, "its text");
    }
    let mut encoder = Encoder::open(golden("bert"), &Device::cpu(1)).unwrap();
    let said = encoder.set_prompt(Prompt::Name("blue")).unwrap_err().to_string();
    assert_eq!(said, "no prompt named \"blue\"; there are: document, query, red");
    assert_eq!(
        encoder.sentence_config().in_words(),
        "mean + max pooling, dense 64 to 20 (GELU), layer norm, dense 20 to 20 (Tanh), dense 20 to 12 (Identity), \
         normalised, the first 9 components"
    );
}

#[test]
fn every_way_of_pooling_is_what_was_recorded_however_it_is_said() {
    let (folder, recorded) = (Folder::of("bert", "pooling"), Recorded::of("bert"));
    folder.remove("config_sentence_transformers.json");
    // the recorded vectors have no limit
    folder.drop_key("sentence_bert_config.json", "max_seq_length");
    let texts = recorded.texts();
    let old = [
        ("cls", "pooling_mode_cls_token"),
        ("max", "pooling_mode_max_tokens"),
        ("mean", "pooling_mode_mean_tokens"),
        ("mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens"),
        ("weightedmean", "pooling_mode_weightedmean_tokens"),
        ("lasttoken", "pooling_mode_lasttoken"),
    ];
    for (mode, flag) in old {
        folder.pool(flag);
        let wanted = recorded.vectors(&format!("poolings/{mode}"));
        compare(&mut folder.open(), &texts, &wanted, 1e-5, flag);
        folder.write("1_Pooling/config.json", &json!({"embedding_dimension": 32, "pooling_mode": mode}));
        compare(&mut folder.open(), &texts, &wanted, 1e-5, mode);
        // prompts are there, and their tokens are not pooled
        let without = json!({"embedding_dimension": 32, "pooling_mode": [mode], "include_prompt": false});
        folder.write("1_Pooling/config.json", &without);
        let mut encoder = folder.open();
        compare(&mut encoder, &texts, &wanted, 1e-5, "no prompt to leave out");
        encoder.set_prompt(Prompt::Text("query: ")).unwrap();
        let wanted = recorded.vectors(&format!("without_prompt/{mode}"));
        // a text that is all prompt has nothing to pool: what is left is 0 / 0
        let some: Vec<usize> = (0..texts.len()).filter(|&i| !texts[i].is_empty()).collect();
        let (texts, wanted): (Vec<String>, Vec<Vec<f64>>) =
            some.iter().map(|&i| (texts[i].clone(), wanted[i].clone())).unzip();
        compare(&mut encoder, &texts, &wanted, 1e-5, &format!("{mode} without the prompt"));
    }
    folder.write("1_Pooling/config.json", &json!({"pooling_mode": ["mean", "cls", "lasttoken"]}));
    compare(&mut folder.open(), &texts, &recorded.vectors("poolings/mean+cls+lasttoken"), 1e-5, "three");
    // no mode is the mean
    for config in
        [json!({"word_embedding_dimension": 32}), json!({"embedding_dimension": 32, "pooling_mode": null})]
    {
        folder.write("1_Pooling/config.json", &config);
        compare(&mut folder.open(), &texts, &recorded.vectors("poolings/mean"), 1e-5, "no mode");
    }
}

#[test]
fn a_prompt_left_out_is_left_out_on_every_device() {
    let (folder, recorded) = (Folder::of("bert", "prompt"), Recorded::of("bert"));
    folder.remove("config_sentence_transformers.json");
    folder.drop_key("sentence_bert_config.json", "max_seq_length");
    folder.pool("pooling_mode_mean_tokens");
    let modes = ["cls", "max", "mean", "weightedmean", "lasttoken"];
    folder.write("1_Pooling/config.json", &json!({"pooling_mode": modes, "include_prompt": false}));
    let one = |mode: &str| recorded.vectors(&format!("without_prompt/{mode}"))[0].clone();
    let wanted = [modes.iter().flat_map(|m| one(m)).collect::<Vec<f64>>()];
    for t in devices::all() {
        let mut encoder = Encoder::open_with(&folder.0, &t.device, t.precision).unwrap();
        encoder.set_prompt(Prompt::Text("query: ")).unwrap();
        compare(&mut encoder, &recorded.texts()[..1], &wanted, t.tolerance(1e-5), &t.name());
    }
}

#[test]
fn vocabulary_files_alone_make_the_same_tokenizer() {
    // DistilBERT's folder has vocab.txt alone; of the others tokenizer.json is taken away
    let (bert, recorded) = (Folder::of("distilbert", "as-bert"), Recorded::of("distilbert"));
    bert.pool("pooling_mode_mean_tokens");
    for class in [json!("BertTokenizer"), json!("DistilBertTokenizerFast"), Json::Null] {
        bert.change("tokenizer_config.json", "tokenizer_class", class);
        check_ids(&mut bert.open(), &recorded, "vocab.txt");
    }
    // cased, as the settings say
    bert.change("tokenizer_config.json", "do_lower_case", json!(false));
    assert_ne!(bert.open().embed(&["The"]).unwrap()[0].token_ids, recorded.ids()[0][..2]);
    let cased = bert.open().embed(&["The"]).unwrap()[0].token_ids.clone();
    let lower = bert.open().embed(&["the"]).unwrap()[0].token_ids.clone();
    assert!(cased != lower && cased.contains(&1), "{cased:?}");
    let (roberta, recorded) = (Folder::of("roberta", "vocabulary"), Recorded::of("roberta"));
    roberta.pool("pooling_mode_lasttoken");
    roberta.remove("tokenizer.json");
    check_ids(&mut roberta.open(), &recorded, "vocab.json");
    roberta.remove("tokenizer_config.json");
    check_ids(&mut roberta.open(), &recorded, "vocab.json without settings");
    roberta.remove("merges.txt");
    let said = roberta.refusal();
    assert!(said.contains("there is no tokenizer.json, and vocab.json is not read without it"), "{said}");
    let xlm = Folder::of("xlm-roberta", "sentencepiece");
    xlm.remove("tokenizer.json");
    assert!(xlm.refusal().contains("tokenizer.json: "), "{}", xlm.refusal());
    std::fs::write(xlm.0.join("sentencepiece.bpe.model"), "x").unwrap();
    assert!(xlm.refusal().contains("sentencepiece.bpe.model of XLMRobertaTokenizer"), "{}", xlm.refusal());
}

#[test]
fn older_configurations_give_the_same() {
    let (folder, recorded) = (Folder::of("modernbert", "older"), Recorded::of("modernbert"));
    folder.pool("pooling_mode_mean_tokens");
    folder.write("config.json", &folder.json("config_older.json"));
    compare(&mut folder.open(), &recorded.texts(), &recorded.vectors("mean"), 1e-5, "older ModernBERT");
    // documented defaults, where nothing is said
    let (folder, recorded) = (Folder::of("bert", "defaults"), Recorded::of("bert"));
    folder.drop_key("config.json", "type_vocab_size");
    folder.change("config.json", "pad_token_id", Json::Null);
    folder.change("config.json", "hidden_act", Json::Null);
    compare(&mut folder.open(), &recorded.texts(), &recorded.vectors("embeddings"), 1e-5, "defaults");
    folder.drop_key("config.json", "max_position_embeddings");
    assert!(folder.refusal().contains("the graph wants f32[512, 32]"), "{}", folder.refusal());
}

#[test]
fn a_transformer_may_lie_in_a_folder_of_its_own() {
    let (folder, recorded) = (Folder::of("bert", "subfolder"), Recorded::of("bert"));
    let inner = folder.0.join("0_Transformer");
    std::fs::create_dir(&inner).unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "sentence_bert_config.json",
    ] {
        std::fs::rename(folder.0.join(file), inner.join(file)).unwrap();
    }
    let mut modules = folder.json("modules.json");
    modules[0]["path"] = json!("0_Transformer");
    folder.write("modules.json", &modules);
    compare(&mut folder.open(), &recorded.texts(), &recorded.vectors("embeddings"), 1e-5, "subfolder");
    std::fs::rename(inner.join("sentence_bert_config.json"), inner.join("sentence_roberta_config.json"))
        .unwrap();
    compare(&mut folder.open(), &recorded.texts(), &recorded.vectors("embeddings"), 1e-5, "its older name");
}

#[test]
fn names_of_weights_may_have_any_prefix_and_norms_their_older_names() {
    let (folder, recorded) = (Folder::of("bert", "prefix"), Recorded::of("bert"));
    let weights = load::weights(&folder.0).unwrap();
    for prefix in ["bert.", "model.", "0.auto_model.", "transformer.", "encoder.model.bert."] {
        let older = |name: &str| {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        };
        let renamed: Weights =
            weights.iter().map(|(n, t)| (format!("{prefix}{}", older(n)), t.clone())).collect();
        load::save(folder.0.join("model.safetensors"), &renamed).unwrap();
        let mut encoder = folder.open();
        assert!(encoder.warnings().is_empty(), "{prefix}: {:?}", encoder.warnings());
        compare(&mut encoder, &recorded.texts()[..2], &recorded.vectors("embeddings")[..2], 1e-5, prefix);
    }
}

#[test]
fn limits_come_from_the_sentence_encoder_then_the_tokenizer_then_the_positions() {
    let folder = Folder::of("bert", "limits");
    let name = "tokenizer_config.json";
    let limit = || folder.open().max_tokens();
    assert_eq!(limit(), 24);
    folder.change(name, "model_max_length", json!(16));
    assert_eq!(limit(), 24);
    folder.drop_key("sentence_bert_config.json", "max_seq_length");
    assert_eq!(limit(), 16);
    for none in [json!(1e30), json!(1e30 as u128 as f64), Json::Null, json!(5000)] {
        folder.change(name, "model_max_length", none);
        assert_eq!(limit(), 80);
    }
    // a long text loses its beginning where the tokenizer says so
    folder.change(name, "model_max_length", json!(6));
    let text = "the cat sings over a red river";
    let kept = |f: &Folder| {
        let mut encoder = f.open();
        encoder.set_prompt(Prompt::None).unwrap();
        let ids = encoder.embed(&[text]).unwrap()[0].token_ids.clone();
        encoder.tokenizer().decode(&ids, true).unwrap()
    };
    assert_eq!(kept(&folder), "the cat sings over");
    folder.change(name, "truncation_side", json!("left"));
    assert_eq!(kept(&folder), "over a red river");
    folder.change(name, "truncation_side", json!("up"));
    assert!(folder.refusal().contains("wanted left or right, found truncation_side = \"up\""));
}

#[test]
fn a_padding_id_outside_the_table_is_masked_all_the_same() {
    let (folder, recorded) = (Folder::of("bert", "padding"), Recorded::of("bert"));
    let mut tokenizer = folder.json("tokenizer.json");
    tokenizer["padding"] = json!({"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 9999, "pad_type_id": 0, "pad_token": "[PAD]"});
    folder.write("tokenizer.json", &tokenizer);
    folder.drop_key("tokenizer_config.json", "pad_token");
    compare(&mut folder.open(), &recorded.texts(), &recorded.vectors("embeddings"), 1e-5, "padding");
}

/// Tokenizers that transformers makes of vocabulary files and settings: tests/golden/tokenizer_settings.py.
#[test]
fn settings_of_a_tokenizer_are_followed_with_and_without_a_tokenizer_json() {
    let all: Json = serde_json::from_slice(&std::fs::read(golden("tokenizers.json")).unwrap()).unwrap();
    let texts: Vec<&str> = all["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    let row =
        |r: &Json| -> Vec<u32> { r.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect() };
    let of_class = |class: &str| match class {
        "DistilBertTokenizer" => "distilbert",
        "MPNetTokenizer" => "mpnet",
        _ => "bert",
    };
    for (at, case) in all["cases"].as_array().unwrap().iter().enumerate() {
        let class = case["class"].as_str().unwrap();
        let f = Folder(std::env::temp_dir().join(format!("weft-settings-{}-{at}", std::process::id())));
        let mut settings = case["settings"].clone();
        settings["tokenizer_class"] = json!(class);
        f.write("tokenizer_config.json", &settings);
        match case["vocabulary"].as_array() {
            Some(tokens) => {
                let lines: String = tokens.iter().map(|t| format!("{}\n", t.as_str().unwrap())).collect();
                std::fs::write(f.0.join("vocab.txt"), lines).unwrap();
            }
            None => {
                for file in ["vocab.json", "merges.txt"] {
                    std::fs::copy(golden("roberta").join(file), f.0.join(file)).unwrap();
                }
            }
        }
        let check = |what: &str| {
            let t = Tokenizer::from_file(&f.0).unwrap_or_else(|e| panic!("{class} {what}: {e}"));
            for (text, ids) in texts.iter().zip(case["ids"].as_array().unwrap()) {
                assert_eq!(
                    t.encode(text, 100).unwrap().ids,
                    row(ids),
                    "{class} {} {what}: {text:?}",
                    case["settings"]
                );
            }
            let pair = t.encode_pair("the cat", "a world", 100).unwrap();
            assert_eq!(pair.ids, row(&case["pair"]), "{class} {what}");
        };
        check("from its vocabulary");
        // the class may be known from the model beside it
        settings.as_object_mut().unwrap().remove("tokenizer_class");
        f.write("tokenizer_config.json", &settings);
        let model = if case["vocabulary"].is_array() { of_class(class) } else { "roberta" };
        f.write("config.json", &json!({"model_type": model}));
        check("from its vocabulary, by the model's type");
    }
    // a tokenizer.json that says otherwise gives way, one of no class does not
    let f = Folder::of("bert", "settings");
    let ids = |f: &Folder| Tokenizer::from_file(&f.0).unwrap().encode("The", 9).unwrap().ids;
    let cased = ids(&f);
    f.change("tokenizer_config.json", "do_lower_case", json!(true));
    assert_ne!(ids(&f), cased);
    f.change("tokenizer_config.json", "tokenizer_class", json!("PreTrainedTokenizerFast"));
    assert_eq!(ids(&f), cased);
}

#[test]
fn threads_share_an_encoder_and_get_what_one_gets() {
    fn shared<T: Send + Sync>() {}
    shared::<(Encoder, Device, Tokenizer, Weights)>();
    shared::<(weft::session::Compiled, weft::session::Parameters, weft::session::Artifact)>();
    fn sent<T: Send>() {}
    sent::<weft::session::Session>();

    let (folder, recorded) = (Folder::of("mpnet", "threads"), Recorded::of("mpnet"));
    folder.pool("pooling_mode_mean_tokens");
    for t in devices::all() {
        let encoder = Encoder::open_with(&folder.0, &t.device, t.precision).unwrap();
        // lengths of many buckets, so that sessions are compiled and left while others run
        let long = recorded.texts().join(" ");
        let words: Vec<&str> = long.split_whitespace().collect();
        let texts: Vec<String> = (0..if t.is_cpu() { 48 } else { 6 })
            .map(|i| words[i % 3..].iter().take(1 + 5 * i).copied().collect::<Vec<_>>().join(" "))
            .collect();
        let alone: Vec<_> = texts.iter().map(|text| encoder.embed(&[text]).unwrap().remove(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (encoder, texts, alone, t) = (&encoder, &texts, &alone, &t);
                scope.spawn(move || {
                    for i in (0..texts.len()).map(|i| (i * 7 + thread * 11) % texts.len()) {
                        let found = encoder.embed(&[&texts[i]]).unwrap().remove(0);
                        assert_eq!(found, alone[i], "text {i} on thread {thread}, {}", t.name());
                    }
                });
            }
        });
        assert!(encoder.memory_summary().total_bytes > 0);
    }
}
