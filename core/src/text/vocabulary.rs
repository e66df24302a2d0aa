//! The model inside a `tokenizer.json`: our WordPiece, or one of the `tokenizers` crate's.
//!
//! The crate determines the kind of model by buffering the whole vocabulary twice. Here the model's text is scanned once for
//! its `type`, then parsed directly as that type.

use super::wordpiece::WordPiece;
use serde::Deserialize;
use serde::de::Error;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tokenizers::models::{ModelWrapper, TrainerWrapper, bpe, unigram, wordlevel};
use tokenizers::{Model, Result, Token};

pub(super) enum Vocabulary {
    WordPiece(WordPiece),
    Other(Box<ModelWrapper>),
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Tag<'t> {
            #[serde(rename = "type", default)]
            model: Option<&'t str>,
        }
        fn read<'t, T: Deserialize<'t> + Into<ModelWrapper>>(
            text: &'t str,
        ) -> serde_json::Result<ModelWrapper> {
            serde_json::from_str::<T>(text).map(Into::into)
        }
        let text = <&RawValue>::deserialize(d)?.get();
        let model = serde_json::from_str::<Tag>(text).map_err(D::Error::custom)?.model;
        let other = match model {
            Some("WordPiece") => {
                return serde_json::from_str(text).map(Vocabulary::WordPiece).map_err(D::Error::custom);
            }
            Some("BPE") => read::<bpe::BPE>(text),
            Some("WordLevel") => read::<wordlevel::WordLevel>(text),
            Some("Unigram") => read::<unigram::Unigram>(text),
            _ => read::<ModelWrapper>(text),
        };
        other.map(|m| Vocabulary::Other(Box::new(m))).map_err(D::Error::custom)
    }
}

impl Model for Vocabulary {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, word: &str) -> Result<Vec<Token>> {
        match self {
            Vocabulary::WordPiece(m) => m.tokenize(word),
            Vocabulary::Other(m) => m.tokenize(word),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Vocabulary::WordPiece(m) => m.token_to_id(token),
            Vocabulary::Other(m) => m.token_to_id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Vocabulary::WordPiece(m) => m.id_to_token(id),
            Vocabulary::Other(m) => m.id_to_token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Vocabulary::WordPiece(m) => m.to_map(),
            Vocabulary::Other(m) => m.get_vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Vocabulary::WordPiece(m) => m.len(),
            Vocabulary::Other(m) => m.get_vocab_size(),
        }
    }

    fn save(&self, _: &Path, _: Option<&str>) -> Result<Vec<PathBuf>> {
        Err("vocabularies are only read".into())
    }

    fn get_trainer(&self) -> TrainerWrapper {
        match self {
            Vocabulary::WordPiece(_) => {
                TrainerWrapper::WordPieceTrainer(tokenizers::models::wordpiece::WordPieceTrainer::default())
            }
            Vocabulary::Other(m) => m.get_trainer(),
        }
    }
}
