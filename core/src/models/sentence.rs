//! A sentence encoder's folder: the transformer, the modules after it, prompts and limits, and the complete graph.

use super::config;
use super::family::EncoderConfig;
use super::modules::{Module, Modules, WHO, unfit};
use super::options::Options;
use super::transformer::Transformer;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::load;
use crate::tensor::{DType, Weights};
use serde_json::Value as Json;
use std::path::{Path, PathBuf};

/// The similarity measure of a model's embeddings.
///
/// ```
/// use weft::models::Similarity;
///
/// assert_eq!(Similarity::Cosine.of(&[1.0, 0.0], &[3.0, 0.0]), 1.0);
/// assert_eq!(Similarity::Euclidean.of(&[1.0, 0.0], &[1.0, 2.0]), -2.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Similarity {
    /// Cosine similarity: 1 for the same direction.
    Cosine,
    /// The dot product.
    Dot,
    /// The Euclidean distance, negated.
    Euclidean,
    /// The Manhattan distance, negated.
    Manhattan,
}

const SIMILARITIES: [(&str, Similarity); 4] = [
    ("cosine", Similarity::Cosine),
    ("dot", Similarity::Dot),
    ("euclidean", Similarity::Euclidean),
    ("manhattan", Similarity::Manhattan),
];

impl Similarity {
    /// The similarity of two vectors; larger is more similar.
    pub fn of(self, a: &[f32], b: &[f32]) -> f32 {
        let pairs = || a.iter().zip(b);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        match self {
            Similarity::Cosine => {
                let lengths = (dot(a, a) * dot(b, b)).sqrt();
                if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
            }
            Similarity::Dot => dot(a, b),
            Similarity::Euclidean => -pairs().map(|(x, y)| (x - y) * (x - y)).sum::<f32>().sqrt(),
            Similarity::Manhattan => -pairs().map(|(x, y)| (x - y).abs()).sum::<f32>(),
        }
    }

    /// Its name in `config_sentence_transformers.json`.
    pub fn name(self) -> &'static str {
        SIMILARITIES.iter().find(|s| s.1 == self).map_or("", |s| s.0)
    }
}

/// The configuration of a sentence-embedding folder, apart from its transformer.
///
/// ```
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
/// let config = weft::models::sentence_config(folder.as_ref())?;
/// assert!(config.prompts.iter().any(|(name, _)| name == "query"));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceConfig {
    /// The modules, in order; one of them pools.
    pub modules: Vec<Module>,
    /// Whether texts are lower-cased before tokenization, in addition to the tokenizer's own normalization.
    pub lower_case: bool,
    /// Maximum tokens of a text; longer texts are truncated.
    pub max_tokens: Option<usize>,
    /// Prompts by name: prefixes of texts.
    pub prompts: Vec<(String, String)>,
    /// The name of the default prompt.
    pub default_prompt: Option<String>,
    /// Number of leading components of an embedding that are kept.
    pub truncate: Option<usize>,
    /// The similarity measure.
    pub similarity: Similarity,
}

/// File names that sentence-transformers has used for the transformer's own options.
const TRANSFORMER_FILES: [&str; 7] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// Keys of `model_args` that affect speed or memory, not results.
const HARMLESS: [&str; 7] = [
    "attn_implementation",
    "device_map",
    "dtype",
    "low_cpu_mem_usage",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
];

/// Reads the folder's `modules.json`, its modules' files and `config_sentence_transformers.json`; without them, mean pooling,
/// normalised, and no prompts.
///
/// # Errors
/// [`Error::ModelOption`] for an unsupported module, pooling mode or option; [`Error::Config`] for a value of the wrong type.
pub fn sentence_config(folder: &Path) -> Result<SentenceConfig> {
    Ok(read(folder)?.1)
}

/// The folder with a sentence encoder's transformer and its tokenizer: the one named in `modules.json`, or the given one.
///
/// # Errors
/// As [`sentence_config`].
pub fn transformer_folder(folder: &Path) -> Result<PathBuf> {
    Ok(read(folder)?.0)
}

fn read(folder: &Path) -> Result<(PathBuf, SentenceConfig)> {
    let modules = Modules::read(folder)?;
    let transformer = match modules.transformer.as_str() {
        "" | "." => folder.to_path_buf(),
        path => folder.join(path),
    };
    let mut found = SentenceConfig {
        modules: modules.then,
        lower_case: false,
        max_tokens: None,
        prompts: vec![],
        default_prompt: None,
        truncate: None,
        similarity: Similarity::Cosine,
    };
    for name in TRANSFORMER_FILES {
        if let Some(c) = Config::read(&transformer.join(name))?.filter(|c| c.keys().next().is_some()) {
            transformer_options(&Options::new(WHO, c), &mut found)?;
            break;
        }
    }
    if let Some(c) = Config::read(&folder.join("config_sentence_transformers.json"))? {
        prompts(&Options::new(WHO, c), &mut found)?;
    }
    Ok((transformer, found))
}

/// `sentence_bert_config.json`, old and new.
fn transformer_options(o: &Options, found: &mut SentenceConfig) -> Result<()> {
    found.lower_case = o.flag_or("do_lower_case", false)?;
    found.max_tokens = o.config().get("max_seq_length").map(|_| o.size("max_seq_length")).transpose()?;
    o.must_say("transformer_task", &["feature-extraction"])?;
    o.must_say("module_output_name", &["token_embeddings"])?;
    if let Some(text) = o.section("modality_config")?.map(|m| m.section("text")).transpose()?.flatten() {
        text.must_say("method", &["forward"])?;
        text.must_say("method_output_name", &["last_hidden_state"])?;
    }
    for key in
        ["query_length", "document_length", "query_expansion", "tokenizer_name_or_path", "processing_kwargs"]
    {
        o.must_lack(key, "none")?;
    }
    for key in
        ["model_args", "model_kwargs", "config_args", "config_kwargs", "tokenizer_args", "processor_kwargs"]
    {
        let Some(section) = o.section(key)? else { continue };
        for name in section.config().keys() {
            if name == "model_max_length" && found.max_tokens.is_none() {
                found.max_tokens = Some(section.size(name)?);
            } else if !HARMLESS.contains(&name) && name != "model_max_length" {
                return Err(section.unfit(name, "none", section.config().get(name).unwrap_or(&Json::Null)));
            }
        }
    }
    Ok(())
}

/// `config_sentence_transformers.json`.
fn prompts(o: &Options, found: &mut SentenceConfig) -> Result<()> {
    o.must_say("model_type", &["SentenceTransformer"])?;
    if let Some(section) = o.section("prompts")? {
        for name in section.config().keys() {
            let text = section.config().text(name)?.unwrap_or("");
            found.prompts.push((name.into(), text.into()));
        }
    }
    found.default_prompt = o.config().text("default_prompt_name")?.map(Into::into);
    if let Some(name) = &found.default_prompt {
        found.prompt(name)?;
    }
    found.truncate = o.config().get("truncate_dim").map(|_| o.size("truncate_dim")).transpose()?;
    if let Some(name) = o.config().text("similarity_fn_name")? {
        let named = SIMILARITIES.iter().find(|s| s.0 == name);
        let wanted = || SIMILARITIES.map(|s| s.0).join(", ");
        found.similarity = named.ok_or_else(|| o.unfit("similarity_fn_name", wanted(), Json::from(name)))?.1;
    }
    Ok(())
}

impl SentenceConfig {
    /// The prompt with a name. Every model has "query" and "document", which are empty unless defined.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a name that the model does not have.
    pub fn prompt(&self, name: &str) -> Result<&str> {
        if let Some((_, text)) = self.prompts.iter().find(|(n, _)| n == name) {
            return Ok(text);
        }
        if ["query", "document"].contains(&name) {
            return Ok("");
        }
        let known: Vec<&str> = self.prompts.iter().map(|(n, _)| n.as_str()).collect();
        Err(Error::UnknownName {
            kind: "prompt".into(),
            name: name.into(),
            known: if known.is_empty() { "query, document (both empty)".into() } else { known.join(", ") },
        })
    }

    /// Whether pooling excludes a prompt's tokens, so that graphs need their number.
    pub fn excludes_prompt(&self) -> bool {
        self.modules.iter().any(|m| matches!(m, Module::Pooling { include_prompt: false, .. }))
    }

    /// A short description of the modules: `mean pooling, dense 768 to 512 (Tanh), normalised`.
    pub fn in_words(&self) -> String {
        let mut words: Vec<String> = self.modules.iter().map(Module::in_words).collect();
        words.extend(self.truncate.map(|n| format!("the first {n} components")));
        words.join(", ")
    }
}

/// A sentence encoder read from its folder: everything needed to build graphs.
///
/// ```
/// use weft::models::SentenceModel;
///
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
/// let model = SentenceModel::open(folder.as_ref())?;
/// let graph = model.graph(2, 8); // two texts of eight tokens
/// assert_eq!(graph.data()?.outputs[0].0, "embedding");
/// # Ok::<(), weft::error::Error>(())
/// ```
pub struct SentenceModel {
    folder: PathBuf,
    encoder: EncoderConfig,
    sentence: SentenceConfig,
    weights: Weights,
    size: usize,
}

impl std::fmt::Debug for SentenceModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SentenceModel")
            .field("folder", &self.folder)
            .field("encoder", &self.encoder)
            .field("sentence", &self.sentence)
            .finish_non_exhaustive()
    }
}

impl SentenceModel {
    /// Reads a folder's configurations and maps its weights.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::ModelOption`] for an unsupported model; errors of reading the folder's files.
    pub fn open(folder: &Path) -> Result<SentenceModel> {
        let (place, sentence) = read(folder)?;
        let encoder = EncoderConfig::read(config::read(&place)?)?;
        let mut size = encoder.hidden;
        for module in &sentence.modules {
            size = module.size(size)?;
        }
        if sentence.truncate == Some(0) {
            return Err(unfit("truncate_dim", "a whole number above 0", "0"));
        }
        if place.join("adapter_config.json").exists() {
            let wanted = "none: merge the adapter into the model's weights first";
            return Err(unfit("adapter_config.json", wanted, "an adapter beside the model"));
        }
        let mut weights = load::weights(&place)?;
        let unused: Vec<String> = {
            let transformer = Transformer::new(&encoder, &weights);
            weights.names().map(|(n, _)| n).filter(|n| transformer.ignores(n)).map(Into::into).collect()
        };
        unused.iter().for_each(|name| drop(weights.remove(name)));
        for module in &sentence.modules {
            module.add_weights(folder, &mut weights)?;
        }
        let size = sentence.truncate.map_or(size, |n| n.min(size));
        Ok(SentenceModel { folder: place, encoder, sentence, weights, size })
    }

    /// The folder of the transformer and its tokenizer.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The transformer's sizes and options.
    pub fn config(&self) -> &EncoderConfig {
        &self.encoder
    }

    /// The folder's configuration, apart from the transformer.
    pub fn sentence_config(&self) -> &SentenceConfig {
        &self.sentence
    }

    /// The weights that graphs use, with their names in the files; a module's names are prefixed by its folder.
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Components of an embedding.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Maximum tokens of a text, given the tokenizer's own limit, if any: the sentence encoder's option takes precedence, and
    /// neither exceeds the transformer's positions.
    pub fn max_tokens(&self, tokenizer: Option<usize>) -> usize {
        let positions = self.encoder.max_tokens();
        self.sentence.max_tokens.or(tokenizer).unwrap_or(positions).min(positions)
    }

    /// The graph for one size: inputs `input_ids` and `token_type_ids` u32 and `attention_mask` f32, all `[batch, tokens]`, and
    /// if pooling excludes prompts `prompt_tokens`, u32 `[1]`; output `embedding` f32 `[batch, size]`.
    pub fn graph(&self, batch: usize, tokens: usize) -> Graph {
        let g = Graph::new();
        let [ids, types] = ["input_ids", "token_type_ids"].map(|n| g.input(n, DType::U32, [batch, tokens]));
        let mask = g.input("attention_mask", DType::F32, [batch, tokens]);
        let skipped = self.sentence.excludes_prompt().then(|| g.input("prompt_tokens", DType::U32, [1]));
        let mut x = Transformer::new(&self.encoder, &self.weights).hidden_states(&g, ids, types, mask);
        for module in &self.sentence.modules {
            x = module.apply(&g, &self.weights, x, mask, skipped);
        }
        if g.shape(x).last().is_some_and(|&n| n > self.size) {
            x = g.narrow(x, 1, 0, self.size as i64);
        }
        g.output("embedding", x);
        g
    }
}
