//! Architectures, read from a Hugging Face folder (`config.json`, `model.safetensors`, a tokenizer's files)
//! or built from sizes. One that Weft does not know, or whose options it would compute wrongly, is refused
//! by name.
//!
//! **Text encoders** (`models`). A family is a row of `family`: the names of its options and weights, where norms stand, how a
//! position gets into a token's vector. `transformer` builds the graph from that row and a model's `config.json`; `modules` are what
//! `modules.json` lists after it, `sentence` the whole folder. Every option is read by type (`config`, `options`): a wrong type names
//! file and key, and what would be computed wrongly is refused. `text/folder` makes a tokenizer of what a folder has.

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

/// The `model_type`s of text encoders that Weft reads.
pub const KNOWN: &[&str] = &{
    let mut names = [""; family::FAMILIES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = family::FAMILIES[i].name;
        i += 1;
    }
    names
};
