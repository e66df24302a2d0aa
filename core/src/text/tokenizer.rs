//! A tokenizer as described by `tokenizer.json` and its folder, except for truncation and padding, which the caller controls.

use super::folder::{Folder, Settings, Special};
use super::vocabulary::Vocabulary;
use crate::error::{Cause, Error, Result};
use crate::stack::deep;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
#[cfg(feature = "compiler")]
use tokenizers::normalizers::{Lowercase, Sequence};
use tokenizers::utils::truncation::{
    TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};
use tokenizers::{
    AddedToken, DecoderWrapper, Model, NormalizerWrapper, PostProcessor, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl,
};

type Inner =
    TokenizerImpl<Vocabulary, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// Turns text into token ids and back.
///
/// ```
/// use weft::text::Tokenizer;
///
/// let tokenizer = Tokenizer::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert"))?;
/// let encoding = tokenizer.encode("a text", 16)?;
/// assert_eq!(encoding.ids.len(), encoding.special.len());
/// assert!(encoding.special[0] && !encoding.truncated); // [CLS]
/// # Ok::<(), weft::error::Error>(())
/// ```
pub struct Tokenizer {
    inner: Inner,
    pad_id: u32,
    direction: TruncationDirection,
    max_tokens: Option<usize>,
}

/// The tokens of one text, or of a pair.
///
/// ```
/// use weft::text::Tokenizer;
///
/// let tokenizer = Tokenizer::from_file(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert"))?;
/// let encoding = tokenizer.encode("a text", 16)?;
/// assert_eq!(encoding.ids.len(), encoding.special.len());
/// assert!(encoding.special[0] && !encoding.truncated); // [CLS]
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoding {
    /// Token ids, special tokens included.
    pub ids: Vec<u32>,
    /// The text of a pair that each token belongs to, 0 or 1.
    pub type_ids: Vec<u32>,
    /// True for special tokens that the tokenizer added.
    pub special: Vec<bool>,
    /// True if the text was truncated.
    pub truncated: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} tokens)", self.vocab_size())
    }
}

impl Tokenizer {
    /// Reads a `tokenizer.json`, or the tokenizer of a Hugging Face model's folder: its `tokenizer.json`, else one built from
    /// its vocabulary files (`vocab.txt` of BERT, DistilBERT and MPNet, `vocab.json` and `merges.txt` of RoBERTa), with the
    /// settings of `tokenizer_config.json` for case, accents, limits and added tokens.
    ///
    /// # Errors
    /// [`Error::Io`] if the system refuses the file, or there is none; [`Error::Tokenizer`] if it is not a tokenizer, or the
    /// folder has only unsupported files; [`Error::Config`] for a setting of the wrong type.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Tokenizer> {
        let path = path.as_ref();
        deep(|| Tokenizer::of_file(path))
    }

    fn of_file(path: &Path) -> Result<Tokenizer> {
        if !path.is_dir() {
            let bytes = std::fs::read(path).map_err(|e| Error::io(path, "read", &e))?;
            return read(&path.display().to_string(), &bytes);
        }
        let folder = Folder::read(path)?;
        let settings = folder.settings()?;
        let file = path.join("tokenizer.json");
        let mut tokenizer = match std::fs::read(&file) {
            Ok(bytes) => read(&file.display().to_string(), &bytes)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                read(&path.display().to_string(), folder.made_of_vocabulary()?.as_bytes())?
            }
            Err(e) => return Err(Error::io(&file, "read", &e)),
        };
        tokenizer.follow(settings)?;
        Ok(tokenizer)
    }

    /// Reads the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if they are not a tokenizer.
    pub fn from_bytes(bytes: impl AsRef<[u8]>) -> Result<Tokenizer> {
        let bytes = bytes.as_ref();
        deep(|| read("bytes", bytes))
    }

    /// The tokens of a text, with special tokens, at most `max_tokens` of them: a text that is too long is truncated, but never
    /// its special tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] if `max_tokens` leaves no room for the special tokens; [`Error::Tokenizer`] if the tokenizer fails
    /// on the text.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Encoding> {
        self.run(text, None, max_tokens)
    }

    /// The tokens of a pair of texts; the longer one is truncated first.
    ///
    /// # Errors
    /// As [`encode`](Tokenizer::encode).
    pub fn encode_pair(&self, first: &str, second: &str, max_tokens: usize) -> Result<Encoding> {
        self.run(first, Some(second), max_tokens)
    }

    /// The tokens of several texts, as by [`encode`](Tokenizer::encode).
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
            direction: self.direction,
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

    /// The text of token ids, optionally without special tokens. Ids beyond the vocabulary are skipped.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the decoder fails on the ids.
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

    /// The limit on tokens in the folder's `tokenizer_config.json`, if any.
    pub fn max_tokens(&self) -> Option<usize> {
        self.max_tokens
    }

    /// The same tokenizer, lower-casing texts first.
    #[cfg(feature = "compiler")]
    pub(crate) fn lower_cased(mut self) -> Tokenizer {
        let is_lower = |n: &NormalizerWrapper| matches!(n, NormalizerWrapper::Lowercase(_));
        let first = NormalizerWrapper::from(Lowercase);
        let all = match self.inner.get_normalizer().cloned() {
            None => vec![first],
            Some(one) if is_lower(&one) => return self,
            Some(NormalizerWrapper::Sequence(all)) => {
                if all.as_ref().iter().any(is_lower) {
                    return self;
                }
                std::iter::once(first).chain(all.as_ref().iter().cloned()).collect()
            }
            Some(one) => vec![first, one],
        };
        self.inner.with_normalizer(Some(NormalizerWrapper::from(Sequence::new(all))));
        self
    }

    /// Applies the folder's settings.
    fn follow(&mut self, settings: Settings) -> Result<()> {
        self.max_tokens = settings.max_tokens;
        match settings.keeps_end {
            Some(true) => self.direction = TruncationDirection::Left,
            Some(false) => self.direction = TruncationDirection::Right,
            None => {}
        }
        if let Some(NormalizerWrapper::BertNormalizer(mut n)) = self.inner.get_normalizer().cloned() {
            n.lowercase = settings.lower_case.unwrap_or(n.lowercase);
            n.strip_accents = settings.strip_accents.unwrap_or(n.strip_accents);
            n.handle_chinese_chars = settings.chinese.unwrap_or(n.handle_chinese_chars);
            self.inner.with_normalizer(Some(NormalizerWrapper::from(n)));
        }
        if let Some(PreTokenizerWrapper::ByteLevel(mut bytes)) = self.inner.get_pre_tokenizer().cloned() {
            bytes.add_prefix_space = settings.prefix_space.unwrap_or(bytes.add_prefix_space);
            self.inner.with_pre_tokenizer(Some(PreTokenizerWrapper::from(bytes)));
        }
        for token in settings.added {
            self.add(token)?;
        }
        if let Some(id) = settings.pad.and_then(|pad| self.inner.token_to_id(&pad)) {
            self.pad_id = id;
        }
        Ok(())
    }

    /// Adds a token at which texts are split. One that the vocabulary lacks is added only if its id is given.
    fn add(&mut self, token: Special) -> Result<()> {
        let known = self.inner.get_added_vocabulary().get_vocab().contains_key(&token.content);
        let id = self.inner.token_to_id(&token.content);
        if known || token.content.is_empty() || (id.is_none() && token.id.is_none()) {
            return Ok(());
        }
        let added = AddedToken::from(token.content.clone(), token.special)
            .lstrip(token.lstrip)
            .rstrip(token.rstrip)
            .single_word(token.single_word)
            .normalized(token.normalized);
        self.inner.add_tokens(&[added]);
        let came = self.inner.token_to_id(&token.content);
        match token.id {
            Some(id) if came != Some(id) => Err(Error::tokenizer(
                format!("token {:?}", token.content),
                format!("tokenizer_config.json gives it id {id}, the vocabulary {}", came.unwrap_or(0)),
            )),
            _ => Ok(()),
        }
    }

    /// The padding id: the file's, else that of `[PAD]` or `<pad>`, else 0.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }
}

fn read(what: &str, bytes: &[u8]) -> Result<Tokenizer> {
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    let mut inner: Inner = guarded(|| what.into(), || Ok(serde_json::from_slice(bytes)?))?;
    let padding = inner.get_padding().map(|p| p.pad_id);
    let direction = inner.get_truncation().map_or_else(Default::default, |t| t.direction);
    inner.with_padding(None);
    // Only setting a truncation can fail.
    let _ = inner.with_truncation(None);
    let pad_id =
        padding.or_else(|| inner.token_to_id("[PAD]")).or_else(|| inner.token_to_id("<pad>")).unwrap_or(0);
    Ok(Tokenizer { inner, pad_id, direction, max_tokens: None })
}

/// Runs code of the `tokenizers` crate, which panics on some malformed files, and converts its errors.
fn guarded<T>(what: impl Fn() -> String, run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(done) => {
            done.map_err(|e| Error::Tokenizer { what: what(), why: e.to_string(), cause: Cause::of(e) })
        }
        Err(_) => Err(Error::tokenizer(what(), "the tokenizers library panicked")),
    }
}

/// The start of a text, for messages.
fn shown(text: &str) -> String {
    match text.char_indices().nth(40) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}
