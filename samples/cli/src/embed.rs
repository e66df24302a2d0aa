//! `weft embed`: sentence embeddings of texts, from the command line or one per line of standard input.

use crate::args::{Embed, Options, Place};
use crate::failure::{Failure, Result};
use crate::output::{Progress, note, shortened, table, warn};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use weft::models::{Embedding, Encoder, Prompt, Similarity};
use weft::session::Artifact;

/// Number of lines of standard input embedded at once.
const LINES: usize = 64;
/// Maximum number of texts that are compared with each other.
const COMPARED: usize = 9;

/// Opens a model folder, with advice on failure.
pub fn open(folder: &Path, place: &Place) -> Result<Encoder> {
    let encoder =
        Encoder::open_tuned(folder, &place.device, place.precision, &place.tuning).map_err(|e| {
            let failure = Failure::from(e);
            if folder.join("config.json").exists() {
                return failure;
            }
            failure.advise("`samples/models/fetch minilm` brings one: then --model samples/models/minilm.")
        })?;
    encoder.warnings().iter().for_each(warn);
    Ok(encoder)
}

pub fn embed(args: &Embed, options: &Options, out: &mut dyn Write) -> Result<()> {
    let place = options.open()?;
    let mut encoder = open(&args.model, &place)?;
    if let Some(path) = &args.artifact {
        let sizes = encoder.add_artifact(&Artifact::load(&place.device, path)?)?;
        note(format!("{} brings {sizes} compiled sizes.", path.display()));
    }
    match (&args.prompt_name, &args.prompt) {
        (Some(name), _) => encoder.set_prompt(Prompt::Name(name))?,
        (None, Some(text)) => encoder.set_prompt(Prompt::Text(text))?,
        (None, None) => {}
    }
    if !encoder.prompt().is_empty() {
        note(format!("Before each text stands {:?}.", encoder.prompt()));
    }
    note(format!("On {}.", place.in_words()));
    if !args.texts.is_empty() {
        let progress = Progress::new(args.texts.len(), "embedding");
        let found = encoder.embed_with(&args.texts, &mut |done, _| progress.at(done))?;
        drop(progress);
        print(&args.texts, &found, options, out)?;
        return if options.json { Ok(()) } else { compare(&args.texts, &found, encoder.similarity(), out) };
    }
    if std::io::stdin().is_terminal() {
        note("One text a line; end with Ctrl-D.");
    }
    let mut lines = Lines { from: std::io::stdin().lock(), number: 0 };
    // typed lines are processed one by one, piped ones in batches
    let most = if std::io::stdin().is_terminal() { 1 } else { LINES };
    loop {
        let texts = lines.take(most)?;
        if texts.is_empty() {
            return Ok(());
        }
        let found = encoder.embed(&texts)?;
        print(&texts, &found, options, out)?;
        out.flush()?;
    }
}

struct Lines<R> {
    from: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    /// The next lines, at most `most`; empty at the end of the input.
    fn take(&mut self, most: usize) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while lines.len() < most {
            let mut line = Vec::new();
            let read = self.from.read_until(b'\n', &mut line);
            let read = read.map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?;
            if read == 0 {
                break;
            }
            self.number += 1;
            let line = String::from_utf8(line).map_err(|_| {
                let what =
                    format!("standard input, line {}: wanted UTF-8 text, found other bytes", self.number);
                Failure::new(what).advise("Is it a text file? `iconv` converts other encodings.")
            })?;
            lines.push(line.trim_end_matches(['\n', '\r']).to_string());
        }
        Ok(lines)
    }
}

fn print(texts: &[String], found: &[Embedding], options: &Options, out: &mut dyn Write) -> Result<()> {
    for (text, found) in texts.iter().zip(found) {
        if options.json {
            let row = json!({"text": text, "token_ids": found.token_ids, "embedding": found.embedding});
            writeln!(out, "{row}")?;
            continue;
        }
        let begin: Vec<String> = found.embedding.iter().take(4).map(|v| format!("{v:+.4}")).collect();
        let (tokens, size) = (found.token_ids.len(), found.embedding.len());
        writeln!(
            out,
            "{tokens:>3} tokens, {size} numbers: {} …  \"{}\"",
            begin.join(" "),
            shortened(text, 48)
        )?;
    }
    Ok(())
}

/// Pairwise similarities of a few texts.
fn compare(texts: &[String], found: &[Embedding], by: Similarity, out: &mut dyn Write) -> Result<()> {
    if !(2..=COMPARED).contains(&texts.len()) {
        return Ok(());
    }
    match by {
        Similarity::Cosine => writeln!(out, "\nhow alike (1 is the same meaning):")?,
        other => writeln!(out, "\nhow alike ({}, the more the larger):", other.name())?,
    }
    let head = std::iter::once(String::new()).chain((1..=texts.len()).map(|n| n.to_string())).collect();
    let row = |(i, text): (usize, &String)| {
        let alike = found.iter().map(|other| format!("{:.2}", by.of(&found[i].embedding, &other.embedding)));
        std::iter::once(format!("{} {}", i + 1, shortened(text, 40))).chain(alike).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(texts.iter().enumerate().map(row)).collect();
    table(out, &rows, &(1..=texts.len()).collect::<Vec<_>>())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_lose_their_ends_and_keep_empty_ones() {
        let mut lines = Lines { from: &b"one\r\n\ntwo"[..], number: 0 };
        assert_eq!(lines.take(2).unwrap(), ["one", ""]);
        assert_eq!(lines.take(2).unwrap(), ["two"]);
        assert!(lines.take(2).unwrap().is_empty());
        let broken = Lines { from: &b"fine\n\xff\n"[..], number: 0 }.take(9);
        assert!(format!("{broken:?}").contains("line 2"), "{broken:?}");
    }
}
