//! Architectures, read from a Hugging Face folder (`config.json`, `model.safetensors`, `tokenizer.json`)
//! or built from sizes. One that Weft does not know, or whose options it would compute wrongly, is refused
//! by name.

mod bert;
mod config;
#[cfg(feature = "text")]
mod encoder;
mod llama;
mod small;

pub use bert::{Activation, Bert, BertConfig};
pub use config::{Pooling, SentenceConfig, architecture, config, sentence_config};
#[cfg(feature = "text")]
pub use encoder::{Embedding, Encoder};
pub use llama::{Llama, LlamaConfig, Logits};
pub use small::{cnn, mlp};

/// The `model_type`s that Weft reads.
pub const KNOWN: &[&str] = &["bert"];
