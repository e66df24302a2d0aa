//! Converts text to token ids and back, and pads batches to a few lengths.
//!
//! Depends on `error` and `config`. Reads Hugging Face's `tokenizer.json`, or vocabulary files, through the `tokenizers` crate;
//! the caller sets the limit on tokens, never the file. Independent of models.

mod batch;
mod folder;
mod tokenizer;
mod vocabulary;
mod wordpiece;

pub use batch::{Buckets, PaddedBatch, pad};
pub use tokenizer::{Encoding, Tokenizer};

#[cfg(test)]
mod tests;
