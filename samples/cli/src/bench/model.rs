//! Benchmarks a model folder: opening it, and its forward pass with pooling.

use super::timing::Timing;
use super::{Measured, Told, told};
use crate::args::Place;
use crate::embed::open;
use crate::failure::Result;
use crate::output::ms;
use std::path::Path;
use std::time::Instant;
use weft::models::{Encoder, EncoderConfig};
use weft::session::Session;

/// Words that are one token each in English vocabularies.
const WORDS: [&str; 8] = ["the", "cat", "sits", "outside", "and", "waits", "for", "rain"];

pub fn bench(
    folder: &Path,
    [batch, tokens]: [usize; 2],
    seconds: f64,
    place: &Place,
    profile: Option<&str>,
) -> Result<Measured> {
    // a text of as many tokens, with the two special ones, as each of the batch has
    let text = (0..tokens.saturating_sub(2)).map(|i| WORDS[i % WORDS.len()]).collect::<Vec<_>>().join(" ");
    let start = Instant::now();
    let encoder = open(folder, place)?;
    encoder.embed(&[&text])?;
    let open_to_first_ms = ms(start.elapsed());

    let start = Instant::now();
    let mut session = encoder.forward_session(batch, tokens)?;
    let compile_ms = ms(start.elapsed());
    set_inputs(&mut session, &encoder, batch, tokens)?;
    let timing = Timing::of(&mut session, seconds)?;
    let Told { dispatches, session_bytes, parts } = told(&mut session, profile)?;
    Ok(Measured {
        what: format!("{}, {batch} × {tokens} tokens", folder.display()),
        open_to_first_ms: Some(open_to_first_ms),
        compile_ms,
        timing,
        gflop: gflop(encoder.config(), batch, tokens),
        dispatches,
        session_bytes,
        parts,
        orders: vec![],
        least_bytes: 0.0,
    })
}

/// [CLS], ids that differ, [SEP]: those of tests/bench's other peers.
fn set_inputs(session: &mut Session, encoder: &Encoder, batch: usize, tokens: usize) -> Result<()> {
    let vocabulary = encoder.config().vocabulary;
    let (from, span) = if vocabulary > 29_000 { (1000, 28_000) } else { (0, vocabulary) };
    let special = |token: &str| encoder.tokenizer().token_to_id(token);
    let (first, last) = (special("[CLS]"), special("[SEP]"));
    let id = |at: usize| {
        let (row, column) = (at / tokens, at % tokens);
        let varied = (from + (row * 104_729 + column * 7_919) % span) as u32;
        match column {
            _ if column + 1 == tokens => last.unwrap_or(varied),
            0 => first.unwrap_or(varied),
            _ => varied,
        }
    };
    let ids: Vec<u32> = (0..batch * tokens).map(id).collect();
    session.set_input::<u32>("input_ids", &ids)?;
    session.set_input::<u32>("token_type_ids", &vec![0; ids.len()])?;
    session.set_input("attention_mask", &vec![1.0; ids.len()])?;
    if encoder.sentence_config().excludes_prompt() {
        session.set_input::<u32>("prompt_tokens", &[0])?;
    }
    Ok(())
}

/// A layer has four products of hidden × hidden, two of hidden × intermediate (three, if one is gated), and two with every
/// other token.
fn gflop(c: &EncoderConfig, batch: usize, tokens: usize) -> f64 {
    let [hidden, wide, seq] = [c.hidden, c.intermediate, tokens].map(|n| n as f64);
    let products = if c.is_gated() { 3.0 } else { 2.0 };
    let layer = 2.0 * seq * (4.0 * hidden * hidden + products * hidden * wide) + 4.0 * seq * seq * hidden;
    (batch * c.layers) as f64 * layer / 1e9
}
