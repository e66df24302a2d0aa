//! Reads a tokenizer from a model's folder: `tokenizer.json` with the overrides of `tokenizer_config.json`, or the vocabulary
//! files of older models, from which the same tokenizer is built as by Hugging Face.

use crate::config::Config;
use crate::error::{Error, Result};
use serde_json::{Map, Value as Json, json};
use std::path::Path;

/// Limits above this mean none: files contain 1e30.
const NO_LIMIT: f64 = 1e20;
/// The classes that use `tokenizer.json` unchanged, regardless of `tokenizer_config.json`.
const AS_IT_IS: [&str; 2] = ["PreTrainedTokenizer", "TokenizersBackend"];

/// A special token: its text, and whether it absorbs preceding spaces.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Special {
    pub content: String,
    pub lstrip: bool,
    pub rstrip: bool,
    pub single_word: bool,
    pub normalized: bool,
    pub special: bool,
    /// The id given in the file.
    pub id: Option<u32>,
}

/// A folder's settings for its tokenizer, besides `tokenizer.json`.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// Options of a BERT normalizer, if given.
    pub lower_case: Option<bool>,
    pub strip_accents: Option<Option<bool>>,
    pub chinese: Option<bool>,
    /// Option of byte-level splitting, if given.
    pub prefix_space: Option<bool>,
    /// Whether long texts are truncated on the left.
    pub keeps_end: Option<bool>,
    pub max_tokens: Option<usize>,
    pub pad: Option<String>,
    /// Added tokens, at which texts are split.
    pub added: Vec<Special>,
}

/// A class of tokenizers that can be built from vocabulary files.
struct Class {
    name: &'static str,
    model_type: &'static str,
    /// vocab.txt and WordPiece; else vocab.json, merges.txt and byte-level BPE.
    pieces: bool,
    /// `<s> a </s></s> b </s>`; else `[CLS] a [SEP] b [SEP]`.
    doubled: bool,
    cls: &'static str,
    sep: &'static str,
    unk: &'static str,
    pad: &'static str,
    mask: &'static str,
    /// Whether the mask token absorbs preceding spaces.
    mask_lstrip: bool,
}

const BERT: Class = Class {
    name: "BertTokenizer",
    model_type: "bert",
    pieces: true,
    doubled: false,
    cls: "[CLS]",
    sep: "[SEP]",
    unk: "[UNK]",
    pad: "[PAD]",
    mask: "[MASK]",
    mask_lstrip: false,
};

const CLASSES: [Class; 4] = [
    BERT,
    Class { name: "DistilBertTokenizer", model_type: "distilbert", ..BERT },
    Class {
        name: "MPNetTokenizer",
        model_type: "mpnet",
        doubled: true,
        cls: "<s>",
        sep: "</s>",
        pad: "<pad>",
        mask: "<mask>",
        mask_lstrip: true,
        ..BERT
    },
    Class {
        name: "RobertaTokenizer",
        model_type: "roberta",
        pieces: false,
        doubled: true,
        cls: "<s>",
        sep: "</s>",
        unk: "<unk>",
        pad: "<pad>",
        mask: "<mask>",
        mask_lstrip: false,
    },
];

/// The files of SentencePiece models.
const SENTENCE_PIECE: [&str; 4] = ["sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "spm.model"];

/// The JSON files next to the vocabulary, all optional.
pub(super) struct Folder<'a> {
    path: &'a Path,
    config: Config,
    map: Config,
}

impl<'a> Folder<'a> {
    pub fn read(path: &'a Path) -> Result<Folder<'a>> {
        let read = |name: &str| {
            let file = path.join(name);
            let empty = || Config::new(file.display().to_string(), Json::Object(Map::new()));
            Config::read(&file)?.map_or_else(empty, Ok)
        };
        Ok(Folder { path, config: read("tokenizer_config.json")?, map: read("special_tokens_map.json")? })
    }

    /// The tokenizer's class, without "Fast".
    fn class(&self) -> Result<Option<&str>> {
        Ok(self.config.text("tokenizer_class")?.map(|c| c.strip_suffix("Fast").unwrap_or(c)))
    }

    /// The settings besides `tokenizer.json`.
    pub fn settings(&self) -> Result<Settings> {
        let c = &self.config;
        let mut found = Settings::default();
        if !self.class()?.is_some_and(|class| AS_IT_IS.contains(&class)) {
            found.lower_case = c.flag("do_lower_case")?;
            found.strip_accents = match c.is_null("strip_accents") {
                true => Some(None),
                false => c.flag("strip_accents")?.map(Some),
            };
            found.chinese = c.flag("tokenize_chinese_chars")?;
            found.prefix_space = c.flag("add_prefix_space")?;
        }
        found.keeps_end = match c.text("truncation_side")? {
            None => None,
            Some("left") => Some(true),
            Some("right") => Some(false),
            Some(_) => return Err(c.wrong("truncation_side", "left or right")),
        };
        let limit = if c.get("model_max_length").is_some() { "model_max_length" } else { "max_len" };
        found.max_tokens = match c.number(limit)? {
            Some(n) if n > NO_LIMIT => None,
            Some(_) => match c.whole(limit)? {
                Some(0) => return Err(c.wrong(limit, "a whole number above 0")),
                n => n,
            },
            None => None,
        };
        for (key, wanted) in [("split_special_tokens", false), ("do_basic_tokenize", true)] {
            if c.flag(key)?.is_some_and(|v| v != wanted) {
                return Err(c.wrong(key, &format!("{wanted}, the only way that is computed")));
            }
        }
        for (key, value) in
            c.section("added_tokens_decoder")?.iter().flat_map(|s| s.keys().map(move |k| (k, s)))
        {
            let id = key.parse().map_err(|_| value.wrong(key, "ids as keys"))?;
            let token = value.section(key)?.ok_or_else(|| value.wrong(key, "an object"))?;
            found.added.push(Special { id: Some(id), ..special(&token, false)? });
        }
        for key in
            ["unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token"]
        {
            let Some(token) = self.token(key)? else { continue };
            if key == "pad_token" {
                found.pad = Some(token.content.clone());
            }
            if !found.added.iter().any(|t| t.content == token.content) {
                found.added.push(token);
            }
        }
        Ok(found)
    }

    /// A special token by its role: a string, or an object with options.
    fn token(&self, role: &str) -> Result<Option<Special>> {
        for c in [&self.config, &self.map] {
            match c.get(role) {
                None => {}
                Some(Json::Object(_)) => {
                    return c.section(role)?.map(|token| special(&token, true)).transpose();
                }
                Some(_) => return Ok(c.text(role)?.map(plain)),
            }
        }
        Ok(None)
    }

    /// A `tokenizer.json` built from vocabulary files.
    pub fn made_of_vocabulary(&self) -> Result<String> {
        let there = |name: &str| self.path.join(name).is_file();
        let class = self.vocabulary_class()?;
        let found = class.filter(|c| {
            if c.pieces { there("vocab.txt") } else { there("vocab.json") && there("merges.txt") }
        });
        match found {
            Some(class) if class.pieces => self.pieces(class),
            Some(class) => self.byte_pairs(class),
            None => Err(self.missing()),
        }
    }

    /// The class by its name, or by the architecture of the model in the folder; `None` if its files are not supported.
    fn vocabulary_class(&self) -> Result<Option<&'static Class>> {
        let model = Config::read(&self.path.join("config.json"))?;
        let of_model = |key: &str| Ok::<_, Error>(model.as_ref().map(|m| m.text(key)).transpose()?.flatten());
        let by_name = match self.class()? {
            Some(name) => Some(name),
            None => of_model("tokenizer_class")?.map(|c| c.strip_suffix("Fast").unwrap_or(c)),
        };
        Ok(match (by_name, of_model("model_type")?) {
            (Some(name), _) if !AS_IT_IS.contains(&name) => CLASSES.iter().find(|c| c.name == name),
            (_, Some(model)) => CLASSES.iter().find(|c| c.model_type == model),
            // a vocabulary without further information is BERT's
            (_, None) => Some(&CLASSES[0]),
        })
    }

    /// The error for a missing tokenizer, with the reason.
    fn missing(&self) -> Error {
        let there = |name: &&str| self.path.join(name).is_file();
        let all = SENTENCE_PIECE.iter().chain(&["vocab.txt", "vocab.json", "bpe.codes", "merges.txt"]);
        let Some(found) = all.clone().find(|name| there(name)) else {
            let e = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Error::io(self.path.join("tokenizer.json"), "read", &e);
        };
        let class = self.class().ok().flatten().map_or(String::new(), |c| format!(" of {c}"));
        let why = format!(
            "there is no tokenizer.json, and {found}{class} is not read without it; \
             transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes one"
        );
        Error::tokenizer(self.path.display().to_string(), why)
    }

    /// The five special tokens of a class, with their ids in a vocabulary; the required ones must exist.
    fn specials(&self, class: &Class, vocabulary: &Map<String, Json>) -> Result<[(Special, Option<u64>); 5]> {
        let roles = [
            ("unk_token", class.unk, false),
            ("sep_token", class.sep, false),
            ("pad_token", class.pad, false),
            ("cls_token", class.cls, false),
            ("mask_token", class.mask, class.mask_lstrip),
        ];
        let mut found = vec![];
        for (role, name, lstrip) in roles {
            let token = self.token(role)?.unwrap_or_else(|| Special { lstrip, ..plain(name) });
            let id = vocabulary.get(&token.content).and_then(Json::as_u64);
            if id.is_none() && ["sep_token", "cls_token"].contains(&role) {
                let why = format!("the vocabulary lacks {:?}, the {role}", token.content);
                return Err(Error::tokenizer(self.path.display().to_string(), why));
            }
            found.push((token, id));
        }
        found.try_into().map_err(|_| Error::internal("five special tokens"))
    }

    /// BERT's tokenizer from `vocab.txt`: one token per line.
    fn pieces(&self, class: &Class) -> Result<String> {
        let text = self.text("vocab.txt")?;
        let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).strip_suffix('\n');
        let lines = lines.unwrap_or(&text).split('\n').map(|l| l.strip_suffix('\r').unwrap_or(l));
        let vocabulary: Map<String, Json> = lines.enumerate().map(|(i, l)| (l.into(), json!(i))).collect();
        let specials = self.specials(class, &vocabulary)?;
        let c = &self.config;
        let normalizer = json!({
            "type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": c.flag("tokenize_chinese_chars")?.unwrap_or(true),
            "strip_accents": c.flag("strip_accents")?,
            "lowercase": c.flag("do_lower_case")?.unwrap_or(true),
        });
        let model = json!({
            "type": "WordPiece", "unk_token": specials[0].0.content, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        });
        let pre = json!({"type": "BertPreTokenizer"});
        let decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
        Ok(whole(class, &specials, normalizer, pre, decoder, model))
    }

    /// RoBERTa's tokenizer from `vocab.json` and `merges.txt`.
    fn byte_pairs(&self, class: &Class) -> Result<String> {
        let file = self.path.join("vocab.json");
        let vocabulary = Config::read(&file)?.map(Config::into_json);
        let Some(Json::Object(vocabulary)) = vocabulary else { return Err(self.missing()) };
        let merges = self.text("merges.txt")?;
        let merges: Vec<&str> =
            merges.lines().filter(|l| !l.is_empty() && !l.starts_with("#version")).collect();
        let specials = self.specials(class, &vocabulary)?;
        let model = json!({
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "vocab": vocabulary, "merges": merges,
        });
        let bytes = json!({
            "type": "ByteLevel", "trim_offsets": true, "use_regex": true,
            "add_prefix_space": self.config.flag("add_prefix_space")?.unwrap_or(false),
        });
        Ok(whole(class, &specials, Json::Null, bytes.clone(), bytes, model))
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.path.join(name);
        let bytes = std::fs::read(&path).map_err(|e| Error::io(&path, "read", &e))?;
        let why = |_| Error::tokenizer(path.display().to_string(), "it is not UTF-8 text");
        String::from_utf8(bytes).map_err(why)
    }
}

/// A token without options.
fn plain(content: &str) -> Special {
    Special {
        content: content.into(),
        lstrip: false,
        rstrip: false,
        single_word: false,
        normalized: false,
        special: true,
        id: None,
    }
}

/// A token with options.
fn special(token: &Config, named: bool) -> Result<Special> {
    let flag = |key: &str, absent: bool| Ok::<_, Error>(token.flag(key)?.unwrap_or(absent));
    let content = token.text("content")?.ok_or_else(|| token.wrong("content", "a token's text"))?;
    let special = named || flag("special", false)?;
    Ok(Special {
        content: content.into(),
        lstrip: flag("lstrip", false)?,
        rstrip: flag("rstrip", false)?,
        single_word: flag("single_word", false)?,
        normalized: flag("normalized", !special)?,
        special,
        id: None,
    })
}

/// The text of a `tokenizer.json`.
fn whole(
    class: &Class,
    specials: &[(Special, Option<u64>); 5],
    normalizer: Json,
    pre_tokenizer: Json,
    decoder: Json,
    model: Json,
) -> String {
    let [_, sep, _, cls, _] = specials;
    let pair = |(token, id): &(Special, Option<u64>)| json!([token.content, id.unwrap_or(0)]);
    let post = match class.doubled {
        true => json!({
            "type": "RobertaProcessing", "sep": pair(sep), "cls": pair(cls), "trim_offsets": true,
            "add_prefix_space": false,
        }),
        false => json!({"type": "BertProcessing", "sep": pair(sep), "cls": pair(cls)}),
    };
    let mut added: Vec<Json> = specials.iter().filter_map(|(token, id)| {
        Some(json!({
            "id": (*id)?, "content": token.content, "single_word": token.single_word, "lstrip": token.lstrip,
            "rstrip": token.rstrip, "normalized": token.normalized, "special": true,
        }))
    }).collect();
    crate::order::sort_by_key(&mut added, |t| t["id"].as_u64());
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": post, "decoder": decoder, "model": model,
    })
    .to_string()
}
