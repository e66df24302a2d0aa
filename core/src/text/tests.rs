//! Token ids against recorded ones of Python's `tokenizers`, and our WordPiece against the crate's.

use super::*;
use crate::error::Error;
use serde::Deserialize;
use tokenizers::Model;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/models/minilm");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/");

fn minilm() -> Tokenizer {
    Tokenizer::from_file(MODEL).unwrap_or_else(|e| panic!("{e}: run samples/models/fetch minilm"))
}

fn golden<T: serde::de::DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&std::fs::read(format!("{GOLDEN}{file}")).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Sentences {
    max_tokens: usize,
    items: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    token_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Texts {
    items: Vec<Text>,
    pairs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Text {
    name: String,
    text: String,
    max_tokens: usize,
    token_ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Pair {
    first: String,
    second: String,
    max_tokens: usize,
    token_ids: Vec<u32>,
    type_ids: Vec<u32>,
}

#[test]
fn the_reference_sentences_have_their_token_ids() {
    let (tokenizer, sentences) = (minilm(), golden::<Sentences>("minilm_sentences.json"));
    for s in &sentences.items {
        let e = tokenizer.encode(&s.text, sentences.max_tokens).unwrap();
        assert_eq!(e.ids, s.token_ids, "{}", s.text);
        assert_eq!(e.special.iter().filter(|&&s| s).count(), 2);
        assert!(!e.truncated && e.type_ids.iter().all(|&t| t == 0));
    }
}

#[test]
fn odd_texts_have_the_token_ids_that_python_gives_them() {
    let (tokenizer, texts) = (minilm(), golden::<Texts>("minilm_texts.json"));
    for t in &texts.items {
        let e = tokenizer.encode(&t.text, t.max_tokens).unwrap();
        assert_eq!(e.ids, t.token_ids, "{} to {} tokens", t.name, t.max_tokens);
        assert_eq!(e.truncated, tokenizer.encode(&t.text, usize::MAX).unwrap().ids.len() > t.max_tokens);
    }
    for p in &texts.pairs {
        let e = tokenizer.encode_pair(&p.first, &p.second, p.max_tokens).unwrap();
        assert_eq!((e.ids, e.type_ids), (p.token_ids.clone(), p.type_ids.clone()));
    }
    let all: Vec<&str> = texts.items.iter().map(|t| t.text.as_str()).collect();
    let batch = tokenizer.encode_batch(&all, 256).unwrap();
    assert_eq!(batch[3], tokenizer.encode(all[3], 256).unwrap());
}

/// Words made of pieces of the vocabulary and of what is not in it; the crate's own model is the reference.
#[test]
fn our_wordpiece_splits_words_as_the_crates_does() {
    let text = std::fs::read_to_string(format!("{MODEL}/tokenizer.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let model = json["model"].to_string();
    let theirs: tokenizers::models::wordpiece::WordPiece = serde_json::from_str(&model).unwrap();
    let ours: wordpiece::WordPiece = serde_json::from_str(&model).unwrap();
    assert_eq!(ours.to_map(), theirs.get_vocab());
    let vocab = theirs.get_vocab();
    let mut pieces: Vec<&str> = vocab.keys().map(|t| t.trim_start_matches("##")).collect();
    pieces.sort_unstable();
    pieces.extend(["", "é", "🙂", "##", "zq", "\u{301}"]);
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..20_000 {
        let word: String = (0..random(12)).map(|_| pieces[random(pieces.len())]).collect();
        assert_eq!(ours.tokenize(&word).unwrap(), theirs.tokenize(&word).unwrap(), "{word:?}");
    }
    for id in 0..31_000 {
        assert_eq!(ours.id_to_token(id), theirs.id_to_token(id));
    }
}

#[test]
fn tokens_have_ids_and_ids_texts() {
    let t = minilm();
    assert_eq!((t.vocab_size(), t.pad_id()), (30_522, 0));
    assert_eq!((t.token_to_id("[MASK]"), t.token_to_id("no such token")), (Some(103), None));
    assert_eq!((t.id_to_token(103), t.id_to_token(u32::MAX)), (Some("[MASK]".into()), None));
    let ids = t.encode("Unbelievable cats!", 32).unwrap().ids;
    assert_eq!(t.decode(&ids, true).unwrap(), "unbelievable cats!");
    assert_eq!(t.decode(&ids, false).unwrap(), "[CLS] unbelievable cats! [SEP]");
    assert_eq!(t.decode(&[7592, 999_999], true).unwrap(), "hello");
}

#[test]
fn too_few_tokens_are_refused() {
    let t = minilm();
    assert_eq!(t.encode("x", 2).unwrap().ids, [101, 102]);
    for (e, expected) in [
        (t.encode("x", 1), "max_tokens: wanted at least 2, with 2 special tokens, got 1"),
        (t.encode_pair("x", "y", 2), "max_tokens: wanted at least 3, with 3 special tokens, got 2"),
        (plain().encode("x", 0), "max_tokens: wanted at least 1, with 0 special tokens, got 0"),
    ] {
        assert_eq!(e.unwrap_err().to_string(), expected);
    }
}

/// A tokenizer of words without special tokens, that pads with 5.
fn plain() -> Tokenizer {
    let json = r#"{"version":"1.0","truncation":null,"padding":{"strategy":"BatchLongest","direction":"Right",
        "pad_to_multiple_of":null,"pad_id":5,"pad_type_id":0,"pad_token":"p"},"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"a":0,"b":1,"?":2},"unk_token":"?"}}"#;
    Tokenizer::from_bytes(json).unwrap()
}

#[test]
fn other_models_and_no_special_tokens_work_too() {
    let t = plain();
    assert_eq!((t.vocab_size(), t.pad_id()), (3, 5));
    assert_eq!(t.encode("b c a", 10).unwrap().ids, [1, 2, 0]);
    assert_eq!(t.encode("", 10).unwrap(), Encoding::default());
    let pair = t.encode_pair("a", "b b", 10).unwrap();
    assert_eq!((pair.ids, pair.type_ids), (vec![0, 1, 1], vec![0, 1, 1]));
    let bpe = r#"{"version":"1.0","added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},
        "merges":["a b"]}}"#;
    assert_eq!(Tokenizer::from_bytes(bpe).unwrap().encode("abba", 9).unwrap().ids, [2, 1, 0]);
}

#[test]
fn what_is_not_a_tokenizer_is_a_typed_error() {
    for (bytes, why) in [
        ("", "EOF while parsing a value at line 1 column 0"),
        ("[]", "invalid type: sequence, expected struct Tokenizer"),
        (r#"{"version":"2.0"}"#, "Unknown tokenizer version '2.0' at line 1 column 17"),
        (r#"{"version":"1.0"}"#, "Model missing."),
        (r#"{"model":{"type":"WordPiece","vocab":{}}}"#, "missing field `unk_token`"),
        (r#"{"model":{"type":"WordPiece","vocab":{"a":-1}}}"#, "invalid value: integer `-1`, expected u32"),
        (r#"{"model":{"type":"Abacus"}}"#, "data did not match any variant"),
    ] {
        match Tokenizer::from_bytes(bytes) {
            Err(Error::Tokenizer { what, why: came, .. }) => {
                assert_eq!(what, "bytes");
                assert!(came.contains(why), "{came}");
            }
            other => panic!("{other:?}"),
        }
    }
    let e = Tokenizer::from_file("/no/such/folder").unwrap_err();
    assert!(e.to_string().starts_with("cannot read /no/such/folder: No such file"), "{e}");
    // A vocabulary without its unknown token fails on the text that needs it.
    let json = r###"{"version":"1.0","model":{"type":"WordPiece","vocab":{"a":0},"unk_token":"?",
        "continuing_subword_prefix":"##","max_input_chars_per_word":9}}"###;
    let e = Tokenizer::from_bytes(json).unwrap().encode("xyz", 9).unwrap_err();
    assert_eq!(e.to_string(), r#"tokenizer: "xyz": the unknown token is missing from the vocabulary"#);
}

#[test]
fn a_tokenizer_file_cut_anywhere_is_an_error() {
    let whole = serde_json::json!({"version": "1.0", "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "model": {"type": "WordPiece", "vocab": {"a\u{e9}\n": 0, "b": 0}, "unk_token": "b",
        "continuing_subword_prefix": "", "max_input_chars_per_word": 5}})
    .to_string();
    let t = Tokenizer::from_bytes(&whole).unwrap();
    assert_eq!(t.token_to_id("aé\n"), Some(0));
    for cut in (0..whole.len()).filter(|&c| whole.is_char_boundary(c)) {
        assert!(Tokenizer::from_bytes(&whole[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn buckets_hold_every_length_and_waste_little() {
    for max in [1, 5, 8, 16, 100, 128, 256, 512, 8192, 100_000] {
        let b = Buckets::new(max);
        assert!(b.sizes().is_sorted_by(|a, b| a < b) && b.sizes().last() == Some(&max), "{b:?}");
        for n in 0..=max {
            let size = b.bucket(n);
            assert!(
                size >= n && (n <= 16 || size <= 2 * n) && (n <= 64 || 5 * (size - n) <= size),
                "{n} in {size}"
            );
        }
        assert_eq!(b.bucket(max + 1), max);
    }
    assert_eq!(Buckets::new(256).sizes(), [8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256]);
    assert!(Buckets::new(usize::MAX).sizes().len() < 300 && Buckets::new(0).sizes() == [1]);
}

#[test]
fn padding_masks_what_is_not_text() {
    let e = |ids: &[u32]| Encoding { ids: ids.into(), type_ids: vec![1; ids.len()], ..Default::default() };
    let batch = pad(&[e(&[7, 8]), e(&[]), e(&[4, 5, 6])], 3, 9).unwrap();
    assert_eq!((batch.batch, batch.length), (3, 3));
    assert_eq!(batch.ids, [7, 8, 9, 9, 9, 9, 4, 5, 6]);
    assert_eq!(batch.mask, [1., 1., 0., 0., 0., 0., 1., 1., 1.]);
    assert_eq!(batch.type_ids, [1, 1, 0, 0, 0, 0, 1, 1, 1]);
    for (e, expected) in [
        (pad(&[], 8, 0), "batch: wanted at least one text and one token, got 0 texts of 8 tokens"),
        (pad(&[e(&[])], 0, 0), "batch: wanted at least one text and one token, got 1 texts of 0 tokens"),
        (pad(&[e(&[]), e(&[1, 2])], 1, 0), "batch: wanted texts of at most 1 tokens, got 2 tokens in text 1"),
    ] {
        assert_eq!(e.unwrap_err().to_string(), expected);
    }
}
