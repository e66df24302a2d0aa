//! Model architectures, read from a Hugging Face folder (`config.json`, `model.safetensors`, a tokenizer's files) or built from
//! sizes. Unsupported architectures and options are refused by name.
//!
//! **Text encoders.** A family is a row of `family`: the names of its options and weights, the placement of norms, the encoding
//! of positions. `transformer` builds the graph from that row and a model's `config.json`; `modules` adds the modules listed in
//! `modules.json`, `sentence` reads the whole folder. Every option is type-checked (`config`, `options`): an error names file
//! and key, and unsupported values are refused. `text/folder` creates a tokenizer from a folder's files.

mod bert;
mod cache;
mod config;
#[cfg(feature = "text")]
mod encoder;
mod family;
mod llama;
mod modules;
mod options;
mod pooling;
mod rope;
mod sentence;
mod small;
mod transformer;

pub use bert::{Activation, Bert, BertConfig};
pub use cache::{CacheConfig, SequenceId, Sequences, StepConfig, StepInputs};
pub use config::{architecture, config};
#[cfg(feature = "text")]
pub use encoder::{Embedding, Encoder, Prompt};
pub use family::EncoderConfig;
pub use llama::{Llama, LlamaConfig, Logits};
pub use modules::{DenseActivation, Module};
pub use pooling::Pooling;
pub use rope::RopeScaling;
pub use sentence::{SentenceConfig, SentenceModel, Similarity, sentence_config, transformer_folder};
pub use small::{cnn, mlp};
pub use transformer::Transformer;

/// The `model_type`s of supported text encoders.
pub const KNOWN: &[&str] = &{
    let mut names = [""; family::FAMILIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = family::FAMILIES[i].name;
        i += 1;
    }
    names
};
