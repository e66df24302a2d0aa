//! A tokenizer as `tokenizer.json` describes it, except for its truncation and padding, which are the caller's.

use super::vocabulary::Vocabulary;
use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use tokenizers::utils::truncation::{TruncationParams, TruncationStrategy, truncate_encodings};
use tokenizers::{
    DecoderWrapper, Model, NormalizerWrapper, PostProcessor, PostProcessorWrapper, PreTokenizerWrapper,
    TokenizerImpl,
};

type Inner =
    TokenizerImpl<Vocabulary, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Turns text into token ids and back.
pub struct Tokenizer {
    inner: Inner,
    pad_id: u32,
}

/// The tokens of one text, or of a pair.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// Which of a pair of texts each token belongs to, 0 or 1.
    pub type_ids: Vec<u32>,
    /// True for the tokens that the tokenizer added.
    pub special: Vec<bool>,
    /// True if the text had more tokens than were allowed.
    pub truncated: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the one in a Hugging Face model's folder.
    ///
    /// # Errors
    /// [`Error::Io`] where the system refuses the file; [`Error::Tokenizer`] where it is not a tokenizer.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let mut path = path.as_ref().to_path_buf();
        if path.is_dir() {
            path.push("tokenizer.json");
        }
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, "read", &e))?;
        read(&path.display().to_string(), &bytes)
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] where they are not a tokenizer.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Result<Tokenizer> {
        read("bytes", bytes.as_ref())
    }

    /// The tokens of a text, special tokens added, at most `max_tokens` of them: what is too long loses its end,
    /// but never its special tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] if `max_tokens` leaves no room for the special tokens; [`Error::Tokenizer`] for a text
    /// that the tokenizer fails on.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Encoding> {
        self.run(text, None, max_tokens)
    }

    /// The tokens of a pair of texts; the longer one is cut first.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Result<Encoding> {
        self.run(first, Some(second), max_tokens)
    }

    /// The tokens of several texts, as [`encode`](Tokenizer::encode) gives them.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode), for the first text that fails.
    pub fn encode_batch(&self, texts: &[impl AsRef<str>], max_tokens: usize) -> Result<Vec<Encoding>> {
        texts.iter().map(|t| self.encode(t.as_ref(), max_tokens)).collect()
    }

    fn run(&self, first: &str, second: Option<&str>, max_tokens: usize) -> Result<Encoding> {
        let special = self.inner.get_post_processor().map_or(0, |p| p.added_tokens(second.is_some()));
        let Some(room) = max_tokens.checked_sub(special).filter(|_| max_tokens > 0) else {
            let wanted = format!("at least {}, with {special} special tokens", special.max(1));
            return Err(Error::argument("max_tokens", wanted, max_tokens));
        };
        let params = TruncationParams {
            max_length: room,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: Default::default(),
        };
        guarded(
            || shown(first),
            || {
                let first = self.inner.encode_fast(first, false)?;
                let second = second.map(|s| self.inner.encode_fast(s, false)).transpose()?.map(|mut s| {
                    s.set_type_ids(vec![1; s.len()]);
                    s
                });
                let truncated = first.len() + second.as_ref().map_or(0, |s| s.len()) > room;
                let (mut first, mut second) = truncate_encodings(first, second, &params)?;
                first.take_overflowing();
                second.as_mut().map(|s| s.take_overflowing());
                let whole = self.inner.post_process(first, second, true)?;
                Ok(Encoding {
                    ids: whole.get_ids().into(),
                    type_ids: whole.get_type_ids().into(),
                    special: whole.get_special_tokens_mask().iter().map(|&m| m != 0).collect(),
                    truncated,
                })
            },
        )
    }

    /// The text of token ids, without special tokens if asked. Ids beyond the vocabulary are left out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] for ids that the decoder fails on.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        guarded(|| format!("decoding {} ids", ids.len()), || self.inner.decode(ids, skip_special))
    }

    /// The id of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token of an id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        let model = self.inner.get_model();
        let added = self.inner.get_added_vocabulary().get_vocab();
        model.get_vocab_size() + added.keys().filter(|t| model.token_to_id(t).is_none()).count()
    }

    /// The id to pad with: what the file pads with, else that of `[PAD]` or `<pad>`, else 0.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }
}

fn read(what: &str, bytes: &[u8]) -> Result<Tokenizer> {
    let mut inner: Inner = guarded(|| what.into(), || Ok(serde_json::from_slice(bytes)?))?;
    let padding = inner.get_padding().map(|p| p.pad_id);
    inner.with_padding(None);
    // Only a truncation that is set can fail.
    let _ = inner.with_truncation(None);
    let pad_id =
        padding.or_else(|| inner.token_to_id("[PAD]")).or_else(|| inner.token_to_id("<pad>")).unwrap_or(0);
    Ok(Tokenizer { inner, pad_id })
}

/// Runs code of the `tokenizers` crate, which panics on some malformed files, and gives its errors our type.
fn guarded<T>(what: impl Fn() -> String, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => done.map_err(|e| Error::Tokenizer { what: what(), why: e.to_string() }),
        Err(_) => Err(Error::Tokenizer { what: what(), why: "the tokenizers library panicked".into() }),
    }
}

/// The beginning of a text, for messages.
fn shown(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}
