//! Every option of a model's folder: for a value of the wrong type the error names file, key, expected and actual value; an
//! unsupported value is refused by name; one without effect is accepted.

mod model_folders;

use model_folders::{copy, golden};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};
use weft::device::Device;
use weft::error::Error;
use weft::models::{Encoder, LlamaConfig};

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A copy of one of the folders of tests/golden/encoders.
fn folder(name: &str) -> Folder {
    let id = format!("{}-{:?}-{name}", std::process::id(), std::thread::current().id());
    let to = std::env::temp_dir().join(format!("weft-options-{}", id.replace(['(', ')'], "")));
    copy(&golden(name), &to);
    Folder(to)
}

impl Folder {
    fn read(&self, file: &str) -> Json {
        std::fs::read(self.0.join(file)).map_or_else(|_| json!({}), |b| serde_json::from_slice(&b).unwrap())
    }
    /// Opens it with one value changed, which is changed back. A dot leads into a section.
    fn with(&self, file: &str, key: &str, value: &Json) -> weft::error::Result<Encoder> {
        let before = std::fs::read(self.0.join(file)).ok();
        let mut all = self.read(file);
        let mut place = &mut all;
        for part in key.split('.') {
            place = &mut place[part];
        }
        *place = value.clone();
        std::fs::write(self.0.join(file), all.to_string()).unwrap();
        let opened = Encoder::open(&self.0, &Device::cpu(1));
        match before {
            Some(bytes) => std::fs::write(self.0.join(file), bytes).unwrap(),
            None => std::fs::remove_file(self.0.join(file)).unwrap(),
        }
        opened
    }
}

const NUMBER: &str = "number";
const WHOLE: &str = "whole";
const FLAG: &str = "flag";
const TEXT: &str = "text";
const OBJECT: &str = "object";
const TEXTS: &str = "texts";

/// Values that are not of a type.
fn others(kind: &str) -> Vec<Json> {
    let all = [
        (NUMBER, json!(0.5)),
        (WHOLE, json!(3)),
        (FLAG, json!(true)),
        (TEXT, json!("0.5")),
        (OBJECT, json!({"a": 1})),
        (TEXTS, json!(["a"])),
    ];
    let same = |k: &str| k == kind || (kind == NUMBER && k == WHOLE);
    let mut found: Vec<Json> = all.into_iter().filter(|(k, _)| !same(k)).map(|(_, v)| v).collect();
    match kind {
        WHOLE => found.extend([json!(-1), json!(1.5), json!(1e300)]),
        TEXTS => found.extend([json!([1]), json!([null])]),
        _ => {}
    }
    found
}

/// Keys with their types.
type Keys = &'static [(&'static str, &'static str)];

/// Every option that is read: folder, file, key, type.
const READ: &[(&str, &str, Keys)] = &[
    (
        "bert",
        "config.json",
        &[
            ("model_type", TEXT),
            ("hidden_size", WHOLE),
            ("intermediate_size", WHOLE),
            ("num_hidden_layers", WHOLE),
            ("num_attention_heads", WHOLE),
            ("vocab_size", WHOLE),
            ("max_position_embeddings", WHOLE),
            ("type_vocab_size", WHOLE),
            ("layer_norm_eps", NUMBER),
            ("hidden_act", TEXT),
            ("embedding_size", WHOLE),
            ("position_embedding_type", TEXT),
            ("is_decoder", FLAG),
            ("add_cross_attention", FLAG),
            ("is_encoder_decoder", FLAG),
            ("is_causal", FLAG),
        ],
    ),
    (
        "distilbert",
        "config.json",
        &[
            ("dim", WHOLE),
            ("n_layers", WHOLE),
            ("n_heads", WHOLE),
            ("hidden_dim", WHOLE),
            ("activation", TEXT),
        ],
    ),
    ("roberta", "config.json", &[("pad_token_id", WHOLE)]),
    ("mpnet", "config.json", &[("relative_attention_num_buckets", WHOLE)]),
    (
        "modernbert",
        "config.json",
        &[
            ("norm_eps", NUMBER),
            ("hidden_activation", TEXT),
            ("norm_bias", FLAG),
            ("attention_bias", FLAG),
            ("mlp_bias", FLAG),
            ("layer_types", TEXTS),
            ("local_attention", WHOLE),
            ("global_attn_every_n_layers", WHOLE),
            ("rope_parameters", OBJECT),
            ("rope_scaling", OBJECT),
            ("rope_parameters.full_attention", OBJECT),
            ("rope_parameters.sliding_attention.rope_theta", NUMBER),
            ("rope_parameters.full_attention.rope_type", TEXT),
            ("rope_parameters.full_attention.partial_rotary_factor", NUMBER),
            ("global_rope_theta", NUMBER),
            ("local_rope_theta", NUMBER),
            ("partial_rotary_factor", NUMBER),
        ],
    ),
    (
        "bert",
        "sentence_bert_config.json",
        &[
            ("max_seq_length", WHOLE),
            ("do_lower_case", FLAG),
            ("transformer_task", TEXT),
            ("module_output_name", TEXT),
            ("modality_config", OBJECT),
            ("modality_config.text", OBJECT),
            ("modality_config.text.method", TEXT),
            ("model_args", OBJECT),
            ("tokenizer_args", OBJECT),
        ],
    ),
    (
        "bert",
        "config_sentence_transformers.json",
        &[
            ("prompts", OBJECT),
            ("prompts.query", TEXT),
            ("default_prompt_name", TEXT),
            ("truncate_dim", WHOLE),
            ("similarity_fn_name", TEXT),
            ("model_type", TEXT),
        ],
    ),
    ("bert", "1_Pooling/config.json", &[("include_prompt", FLAG), ("pooling_mode_max_tokens", FLAG)]),
    (
        "bert",
        "2_Dense/config.json",
        &[
            ("in_features", WHOLE),
            ("out_features", WHOLE),
            ("bias", FLAG),
            ("activation_function", TEXT),
            ("use_residual", FLAG),
            ("module_input_name", TEXT),
            ("module_output_name", TEXT),
        ],
    ),
    ("bert", "3_LayerNorm/config.json", &[("dimension", WHOLE)]),
    ("bert", "6_Normalize/config.json", &[("module_input_name", TEXT)]),
    (
        "bert",
        "tokenizer_config.json",
        &[
            ("do_lower_case", FLAG),
            ("strip_accents", FLAG),
            ("tokenize_chinese_chars", FLAG),
            ("model_max_length", NUMBER),
            ("truncation_side", TEXT),
            ("tokenizer_class", TEXT),
            ("add_prefix_space", FLAG),
            ("added_tokens_decoder", OBJECT),
            ("split_special_tokens", FLAG),
            ("do_basic_tokenize", FLAG),
        ],
    ),
];

#[test]
fn a_value_of_the_wrong_type_names_file_key_wanted_and_came() {
    let mut count = 0;
    for (name, file, keys) in READ {
        let f = folder(name);
        for (key, kind) in *keys {
            for value in others(kind) {
                let error = f.with(file, key, &value).err();
                let error = error.unwrap_or_else(|| panic!("{name}/{file}: {key} = {value} was taken"));
                // a huge number of tokens is no limit, one that is not whole is of the wrong type
                let Error::Config { file: said, wanted, came, .. } = &error else {
                    panic!("{name}/{file}: {key} = {value}: {error:?}");
                };
                assert!(
                    said.ends_with(file) && wanted.starts_with('a') | wanted.starts_with("true"),
                    "{error}"
                );
                assert!(came.starts_with(&format!("{key} = ")), "{key} = {value}: {error}");
                count += 1;
            }
            // null is as if it were not there; sizes and a module's own must be
            if let Err(error) = f.with(file, key, &Json::Null) {
                let fine = matches!(&error, Error::Config { came, .. } if *came == format!("{key} = null"))
                    || matches!(
                        error,
                        Error::WeightType { .. } | Error::MissingWeight { .. } | Error::Architecture { .. }
                    )
                    || matches!(error, Error::UnknownName { .. }) && key == &"prompts"
                    || error.to_string().contains("components of");
                assert!(fine, "{name}/{file}: {key} = null: {error:?}");
            }
        }
    }
    assert!(count > 400, "{count}");
}

#[test]
fn what_would_be_computed_wrongly_is_refused_by_name() {
    let sentence = "sentence_bert_config.json";
    let (refused, config) = ("is not supported", "config.json");
    for (name, file, key, value, says) in [
        ("bert", config, "position_embedding_type", json!("relative_key_query"), refused),
        ("bert", config, "is_decoder", json!(true), refused),
        ("bert", config, "add_cross_attention", json!(true), refused),
        ("bert", config, "pruned_heads", json!({"0": [1]}), refused),
        ("bert", config, "quantization_config", json!({"bits": 4}), refused),
        ("bert", config, "embedding_size", json!(16), refused),
        ("bert", config, "hidden_act", json!("quick_gelu"), refused),
        ("bert", config, "num_attention_heads", json!(5), "a divisor of hidden_size 32"),
        ("bert", config, "model_type", json!("electra"), "architecture \"electra\" is not supported"),
        ("distilbert", config, "n_heads", json!(5), "a divisor of dim 32"),
        ("roberta", config, "pad_token_id", json!(129), "max_position_embeddings"),
        ("mpnet", config, "relative_attention_num_buckets", json!(16), refused),
        ("modernbert", config, "layer_types", json!(["full_attention"]), "one for each of 4 layers"),
        ("modernbert", config, "layer_types", json!(vec!["chunked_attention"; 4]), "chunked_attention"),
        ("modernbert", config, "rope_parameters.rope_theta", json!(5.0), "rope_parameters.rope_theta"),
        (
            "modernbert",
            config,
            "rope_parameters.full_attention.rope_type",
            json!("dynamic"),
            "rope_type = \"dynamic\"",
        ),
        ("modernbert", config, "rope_parameters.full_attention.type", json!("x"), ""),
        (
            "modernbert",
            config,
            "rope_scaling",
            json!({"type": "longrope"}),
            "rope_scaling.type = \"longrope\"",
        ),
        ("modernbert", config, "partial_rotary_factor", json!(0.5), "partial_rotary_factor = 0.5"),
        ("bert", sentence, "transformer_task", json!("fill-mask"), refused),
        ("bert", sentence, "query_expansion", json!({"strategy": "fixed", "length": 8}), "query_expansion"),
        ("bert", sentence, "processing_kwargs", json!({"text": {"max_length": 4}}), "processing_kwargs"),
        ("bert", sentence, "model_kwargs", json!({"num_hidden_layers": 1}), "model_kwargs.num_hidden_layers"),
        (
            "bert",
            sentence,
            "modality_config",
            json!({"text": {"method_output_name": "logits"}}),
            "method_output_name",
        ),
        ("bert", "config_sentence_transformers.json", "model_type", json!("SparseEncoder"), refused),
        ("bert", "config_sentence_transformers.json", "similarity_fn_name", json!("maxsim"), refused),
        (
            "bert",
            "config_sentence_transformers.json",
            "default_prompt_name",
            json!("blue"),
            "no prompt named \"blue\"",
        ),
        ("bert", "config_sentence_transformers.json", "truncate_dim", json!(0), "truncate_dim = 0"),
        ("bert", "1_Pooling/config.json", "pooling_mode", json!("attention"), "pooling_mode = \"attention\""),
        ("bert", "1_Pooling/config.json", "pooling_mode", json!(["mean", "median"]), "\"median\""),
        ("bert", "1_Pooling/config.json", "pooling_mode", json!([]), "at least one way of pooling"),
        ("bert", "1_Pooling/config.json", "pooling_mode", json!(true), "a text or a list of texts"),
        ("bert", "1_Pooling/config.json", "pooling_mode_new", json!(true), "pooling = pooling_mode_new"),
        ("bert", "2_Dense/config.json", "activation_function", json!("my.module.Snake"), refused),
        (
            "bert",
            "2_Dense/config.json",
            "activation_function",
            json!("torch.nn.modules.activation.Mish"),
            "Mish",
        ),
        ("bert", "2_Dense/config.json", "module_input_name", json!("token_embeddings"), refused),
        ("bert", "2_Dense/config.json", "in_features", json!(32), "components of 2_Dense = 32"),
        ("bert", "3_LayerNorm/config.json", "dimension", json!(21), "components of 3_LayerNorm = 21"),
        ("bert", "tokenizer_config.json", "model_max_length", json!(0), "a whole number above 0"),
        ("bert", "tokenizer_config.json", "split_special_tokens", json!(true), "split_special_tokens = true"),
        (
            "bert",
            "tokenizer_config.json",
            "added_tokens_decoder",
            json!({"99": {"content": "<new>"}}),
            "gives it id 99",
        ),
    ] {
        let error = folder(name).with(file, key, &value).err();
        match error {
            Some(e) => assert!(e.to_string().contains(says), "{name}/{file}: {key} = {value}: {e}"),
            // the newer key wins
            None => assert!(says.is_empty(), "{name}/{file}: {key} = {value} was taken"),
        }
    }
    let f = folder("bert");
    std::fs::write(f.0.join("adapter_config.json"), "{}").unwrap();
    let said = Encoder::open(&f.0, &Device::cpu(1)).err().unwrap().to_string();
    assert!(said.contains("adapter_config.json"), "{said}");
}

#[test]
fn what_changes_nothing_is_let_through() {
    for (name, file, key, value) in [
        ("bert", "config.json", "hidden_size", json!(32.0)),
        ("bert", "config.json", "layer_norm_eps", json!(1)),
        ("bert", "config.json", "pruned_heads", json!({})),
        ("bert", "config.json", "pad_token_id", json!(7777)),
        ("bert", "config.json", "hidden_act", json!("gelu_python")),
        ("bert", "config.json", "torch_dtype", json!("float16")),
        ("distilbert", "config.json", "sinusoidal_pos_embds", json!(true)),
        ("modernbert", "config.json", "reference_compile", json!(false)),
        ("modernbert", "config.json", "sparse_prediction", json!(true)),
        ("bert", "sentence_bert_config.json", "unpad_inputs", json!(false)),
        ("bert", "sentence_bert_config.json", "model_args", json!({"attn_implementation": "sdpa"})),
        ("bert", "tokenizer_config.json", "padding_side", json!("left")),
        ("bert", "tokenizer_config.json", "model_max_length", json!(1e30)),
    ] {
        let opened = folder(name).with(file, key, &value);
        assert!(opened.is_ok(), "{name}/{file}: {key} = {value}: {}", opened.err().unwrap());
    }
}

#[test]
fn the_order_of_modules_and_modules_that_are_not_known_are_refused_by_name() {
    let f = folder("bert");
    let before = f.read("modules.json");
    let kind = |name: &str| json!({"type": format!("sentence_transformers.models.{name}"), "path": format!("x_{name}")});
    let root = json!({"type": "sentence_transformers.models.Transformer", "path": ""});
    let pool = before[1].clone();
    for (modules, says) in [
        (json!([]), "modules.json = none is not supported (supported: a Transformer first)"),
        (json!([root]), "a Pooling"),
        (json!([pool, root]), "order of modules.json"),
        (json!([root, pool, pool]), "order of modules.json"),
        (json!([root, before[2], pool]), "order of modules.json"),
        (json!([root, pool, kind("WeightedLayerPooling")]), "models.WeightedLayerPooling"),
        (json!([root, pool, kind("CNN")]), "models.CNN"),
        (json!([{"type": "custom_st.Transformer", "path": ""}, pool]), "custom_st.Transformer"),
        (
            json!([root, {"type": "sentence_transformers.models.Pooling", "path": "../x"}]),
            "a folder inside the model's",
        ),
        (
            json!([root, {"type": "sentence_transformers.models.Pooling", "path": "/etc"}]),
            "a folder inside the model's",
        ),
        (json!([root, {"path": ""}]), "no type"),
        (json!([root, {"type": 3}]), "type = 3"),
        (json!([root, kind("Pooling")]), "no file x_Pooling/config.json"),
        (json!([root, pool, kind("Dense")]), "no in_features"),
        (json!({"a": 1}), "wanted a list"),
        (json!([1]), "wanted an object, found 1"),
    ] {
        std::fs::write(f.0.join("modules.json"), modules.to_string()).unwrap();
        let said = Encoder::open(&f.0, &Device::cpu(1)).expect_err(says).to_string();
        assert!(said.contains(says), "{modules}: {said}");
    }
    // nothing is dropped when a model is used
    let modules = json!([root, pool, kind("Dropout"), before[2]]);
    std::fs::write(f.0.join("modules.json"), modules.to_string()).unwrap();
    assert_eq!(Encoder::open(&f.0, &Device::cpu(1)).unwrap().hidden_size(), 9);
}

#[test]
fn files_with_a_byte_order_mark_are_read() {
    let f = folder("bert");
    for file in
        ["config.json", "modules.json", "tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"]
    {
        let mut marked = "\u{feff}".as_bytes().to_vec();
        marked.extend(std::fs::read(f.0.join(file)).unwrap());
        std::fs::write(f.0.join(file), marked).unwrap();
    }
    assert_eq!(Encoder::open(&f.0, &Device::cpu(1)).unwrap().hidden_size(), 9);
}

/// The options of a Llama, whose configuration has no folder.
#[test]
fn a_llamas_options_are_read_by_type_too() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/llama_tiny.json");
    let plain: Json = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let with = |key: &str, value: &Json| {
        let mut all = plain.clone();
        all[key] = value.clone();
        LlamaConfig::from_json(&all)
    };
    for (key, kind) in [
        ("model_type", TEXT),
        ("hidden_size", WHOLE),
        ("intermediate_size", WHOLE),
        ("num_hidden_layers", WHOLE),
        ("num_attention_heads", WHOLE),
        ("num_key_value_heads", WHOLE),
        ("head_dim", WHOLE),
        ("vocab_size", WHOLE),
        ("max_position_embeddings", WHOLE),
        ("rope_theta", NUMBER),
        ("rope_scaling", OBJECT),
        ("rope_parameters", OBJECT),
        ("rms_norm_eps", NUMBER),
        ("hidden_act", TEXT),
        ("attention_bias", FLAG),
        ("mlp_bias", FLAG),
        ("tie_word_embeddings", FLAG),
        ("pretraining_tp", WHOLE),
        ("rope_interleaved", FLAG),
        ("partial_rotary_factor", NUMBER),
        ("is_causal", FLAG),
        ("use_bidirectional_attention", FLAG),
    ] {
        for value in others(kind) {
            let error = with(key, &value).err().unwrap_or_else(|| panic!("{key} = {value} was taken"));
            let named = matches!(&error, Error::Config { file, came, .. }
                if file == "config.json" && came.starts_with(&format!("{key} = ")));
            assert!(named && error.to_string().contains("llama"), "{key} = {value}: {error}");
        }
    }
    for (key, value, says) in [
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0}), "rope_scaling.type = \"dynamic\""),
        (
            "rope_scaling",
            json!({"rope_type": "longrope", "factor": 2.0}),
            "rope_scaling.rope_type = \"longrope\"",
        ),
        ("rope_scaling", json!({"type": "linear"}), "no rope_scaling.factor"),
        ("rope_scaling", json!({"type": "linear", "factor": "2"}), "rope_scaling.factor = \"2\""),
        ("rope_scaling", json!({"type": "linear", "factor": 0}), "rope_scaling.factor = 0"),
        ("rope_parameters", json!({"type": "dynamic", "factor": 2.0}), "rope_parameters.type = \"dynamic\""),
        (
            "rope_parameters",
            json!({"rope_type": "llama3", "factor": 8.0}),
            "no rope_parameters.low_freq_factor",
        ),
        ("rope_parameters", json!({"rope_type": 3}), "rope_parameters.rope_type = 3"),
        (
            "rope_parameters",
            json!({"partial_rotary_factor": 0.5}),
            "rope_parameters.partial_rotary_factor = 0.5",
        ),
        ("partial_rotary_factor", json!(0.25), "partial_rotary_factor = 0.25"),
        ("use_bidirectional_attention", json!(true), "use_bidirectional_attention = true"),
    ] {
        let error = with(key, &value).err().unwrap_or_else(|| panic!("{key} = {value} was taken"));
        assert!(error.to_string().contains(says), "{key} = {value}: {error}");
    }
}
