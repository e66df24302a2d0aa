//! WordPiece over one string of all tokens: parsed from JSON in a single pass, without an allocation per token.
//!
//! The same results as the `tokenizers` crate's own model (a test compares them), in a tenth of its loading time: loading a
//! BERT-size vocabulary (30,522 tokens) delays a model's first result.

use serde::Deserialize;
use serde::de::{self, MapAccess, Visitor};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use tokenizers::Token;

/// A vocabulary of word pieces, and the greedy longest-match-first split of a word into them
/// (<https://arxiv.org/abs/1609.08144>; BERT's variant marks pieces inside a word with a prefix).
#[derive(Debug)]
pub(super) struct WordPiece {
    vocab: Vocab,
    unknown: String,
    prefix: String,
    max_chars: usize,
}

#[derive(Debug, Default)]
struct Vocab {
    text: String,
    entries: Vec<Entry>,
    /// Open addressing: index of an entry plus 1, or 0. The size is a power of two, at most half full.
    table: Vec<u32>,
    /// Entries by id, ascending.
    by_id: Vec<(u32, u32)>,
    /// Bytes of the longest token.
    longest: usize,
    hasher: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    start: u32,
    end: u32,
    id: u32,
}

impl Vocab {
    fn str(&self, entry: usize) -> &str {
        let e = self.entries[entry];
        &self.text[e.start as usize..e.end as usize]
    }

    /// The slot of the table that contains a token, or where it would be inserted. The table must not be full.
    fn slot(&self, token: &str) -> usize {
        let mask = self.table.len() - 1;
        let mut at = self.hasher.hash_one(token) as usize & mask;
        while self.table[at] != 0 && self.str(self.table[at] as usize - 1) != token {
            at = (at + 1) & mask;
        }
        at
    }

    fn get(&self, token: &str) -> Option<u32> {
        if self.table.is_empty() {
            return None;
        }
        let entry = self.table[self.slot(token)].checked_sub(1)?;
        Some(self.entries[entry as usize].id)
    }

    /// Adds a token; an existing one gets the new id. False if the text is full (4 GiB).
    fn insert(&mut self, token: &str, id: u32) -> bool {
        if self.entries.len() * 2 >= self.table.len() {
            self.grow();
        }
        let slot = self.slot(token);
        if let Some(entry) = self.table[slot].checked_sub(1) {
            self.entries[entry as usize].id = id;
            return true;
        }
        let (Ok(start), Ok(end)) =
            (u32::try_from(self.text.len()), u32::try_from(self.text.len() + token.len()))
        else {
            return false;
        };
        self.text.push_str(token);
        self.longest = self.longest.max(token.len());
        self.entries.push(Entry { start, end, id });
        self.table[slot] = self.entries.len() as u32;
        true
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(1 << 16)];
        for entry in 0..self.entries.len() {
            let slot = self.slot(self.str(entry));
            self.table[slot] = entry as u32 + 1;
        }
    }

    fn index_ids(&mut self) {
        self.by_id = self.entries.iter().enumerate().map(|(i, e)| (e.id, i as u32)).collect();
        self.by_id.sort_unstable();
    }
}

impl WordPiece {
    pub fn len(&self) -> usize {
        self.vocab.entries.len()
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.vocab.get(token)
    }

    pub fn id_to_token(&self, id: u32) -> Option<String> {
        let by_id = &self.vocab.by_id;
        let at = by_id.binary_search_by_key(&id, |e| e.0).ok()?;
        Some(self.vocab.str(by_id[at].1 as usize).into())
    }

    pub fn to_map(&self) -> HashMap<String, u32> {
        (0..self.len()).map(|i| (self.vocab.str(i).to_string(), self.vocab.entries[i].id)).collect()
    }

    /// The pieces of a word; the unknown token if it cannot be split or is too long.
    pub fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        if word.chars().count() <= self.max_chars
            && let Some(pieces) = self.pieces(word)
        {
            return Ok(pieces);
        }
        let id = self.vocab.get(&self.unknown).ok_or("the unknown token is missing from the vocabulary")?;
        Ok(vec![Token { id, value: self.unknown.clone(), offsets: (0, word.len()) }])
    }

    fn pieces(&self, word: &str) -> Option<Vec<Token>> {
        let (mut pieces, mut start, mut candidate) = (vec![], 0, String::new());
        while start < word.len() {
            let prefix = if start == 0 { "" } else { self.prefix.as_str() };
            // No longer than the longest token, and up to a character boundary.
            let mut end = (start + self.vocab.longest.saturating_sub(prefix.len())).min(word.len());
            while !word.is_char_boundary(end) {
                end -= 1;
            }
            candidate.clear();
            candidate.push_str(prefix);
            candidate.push_str(&word[start..end]);
            let id = loop {
                if candidate.len() == prefix.len() {
                    return None;
                }
                match self.vocab.get(&candidate) {
                    Some(id) => break id,
                    None => candidate.pop(),
                };
            };
            end = start + candidate.len() - prefix.len();
            pieces.push(Token { id, value: candidate.clone(), offsets: (start, end) });
            start = end;
        }
        Some(pieces)
    }
}

impl<'de> Deserialize<'de> for Vocab {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        /// Deserialises a token without allocating for it, with escapes resolved.
        struct Key<'v>(&'v mut String);
        impl<'de> de::DeserializeSeed<'de> for Key<'_> {
            type Value = ();
            fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<(), D::Error> {
                d.deserialize_str(self)
            }
        }
        impl Visitor<'_> for Key<'_> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a token")
            }
            fn visit_str<E>(self, token: &str) -> Result<(), E> {
                self.0.clear();
                self.0.push_str(token);
                Ok(())
            }
        }
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Vocab;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a map from tokens to ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab, A::Error> {
                let (mut vocab, mut token) = (Vocab::default(), String::new());
                while map.next_key_seed(Key(&mut token))?.is_some() {
                    if !vocab.insert(&token, map.next_value()?) {
                        return Err(de::Error::custom("a vocabulary of more than 4 GiB"));
                    }
                }
                vocab.index_ids();
                Ok(vocab)
            }
        }
        d.deserialize_map(V)
    }
}

impl<'de> Deserialize<'de> for WordPiece {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            unk_token: String,
            continuing_subword_prefix: String,
            max_input_chars_per_word: usize,
            vocab: Vocab,
        }
        let raw = Raw::deserialize(d)?;
        Ok(WordPiece {
            vocab: raw.vocab,
            unknown: raw.unk_token,
            prefix: raw.continuing_subword_prefix,
            max_chars: raw.max_input_chars_per_word,
        })
    }
}
