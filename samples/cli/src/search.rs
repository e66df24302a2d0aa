//! `weft search`: embeds the passages of text files, and shows those most similar to a query.

use crate::args::{Options, Search};
use crate::embed::open;
use crate::failure::{Failure, Result};
use crate::output::{Progress, grouped, shortened, time, warn};
use crate::passages::{Passage, split};
use serde_json::json;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use weft::models::{Encoder, Prompt};

/// Number of passages embedded between updates of the progress bar.
const AT_ONCE: usize = 64;

pub fn search(args: &Search, options: &Options, out: &mut dyn Write) -> Result<()> {
    let (files, query) = files_and_query(args)?;
    let mut passages: Vec<(&Path, Passage)> = Vec::new();
    for file in &files {
        let text = read(file).map_err(|e| match args.query {
            None if !file.exists() => e.advise("A QUERY of several words must be in quotes."),
            _ => e,
        })?;
        passages.extend(split(&text).into_iter().map(|p| (file.as_path(), p)));
    }
    if passages.is_empty() {
        return Err(Failure::new("the files hold no text").advise("Give text files to --index."));
    }
    let mut encoder = open(&args.model, &options.open()?)?;
    let start = Instant::now();
    set_prompt(&mut encoder, args.prompt_name.as_deref(), &["query"])?;
    let asked = encoder.embed(&[&query])?.remove(0).embedding;
    set_prompt(&mut encoder, args.passage_prompt_name.as_deref(), &["document", "passage", "corpus"])?;
    let alike = encoder.similarity();
    let mut scored: Vec<(f32, usize)> = Vec::with_capacity(passages.len());
    let progress = Progress::new(passages.len(), "reading");
    for group in passages.chunks(AT_ONCE) {
        let texts: Vec<&str> = group.iter().map(|(_, p)| p.text.as_str()).collect();
        for found in encoder.embed(&texts)? {
            scored.push((alike.of(&asked, &found.embedding), scored.len()));
        }
        progress.at(scored.len());
    }
    drop(progress);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let best = scored.iter().take(args.top).map(|&(score, at)| (score, passages[at].0, &passages[at].1));
    if options.json {
        let row = |(score, file, passage): (f32, &Path, &Passage)| json!({"score": score, "file": file.display().to_string(), "line": passage.line, "text": passage.text});
        let results: Vec<_> = best.map(row).collect();
        writeln!(out, "{}", json!({"query": query, "passages": passages.len(), "results": results}))?;
        return Ok(());
    }
    for (score, file, passage) in best {
        writeln!(
            out,
            "{score:.3}  {}:{}\n       {}\n",
            file.display(),
            passage.line,
            shortened(&passage.text, 240)
        )?;
    }
    let (count, took) = (grouped(passages.len()), time(start.elapsed()));
    writeln!(out, "{count} passages of {} files, {took}", files.len())?;
    Ok(())
}

/// The requested prompt, else the first of several names that the model has, else its default.
fn set_prompt(encoder: &mut Encoder, asked: Option<&str>, usual: &[&str]) -> Result<()> {
    let has = |name: &&&str| encoder.sentence_config().prompts.iter().any(|(n, _)| n == **name);
    let name = asked.or_else(|| usual.iter().find(has).copied());
    Ok(encoder.set_prompt(name.map_or(Prompt::Default, Prompt::Name))?)
}

/// `--index FILES… QUERY` parses the query as a file: the last of them is the query unless one is given separately.
fn files_and_query(args: &Search) -> Result<(Vec<PathBuf>, String)> {
    if let Some(query) = &args.query {
        return Ok((args.index.clone(), query.clone()));
    }
    match args.index.split_last() {
        Some((query, files)) if !files.is_empty() => {
            let query = query.to_str().ok_or_else(|| Failure::Usage("the query is not UTF-8 text".into()))?;
            Ok((files.to_vec(), query.into()))
        }
        _ => Err(Failure::Usage("after --index FILES… a QUERY is wanted".into())),
    }
}

/// A file's text; invalid UTF-8 is replaced, with a warning.
fn read(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).map_err(|e| Failure::reading(file, &e))?;
    if bytes.contains(&0) {
        warn(format!("{} is not a text file; left out", file.display()));
        return Ok(String::new());
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|e| {
        warn(format!("{} is not all UTF-8; other bytes are replaced", file.display()));
        String::from_utf8_lossy(e.as_bytes()).into_owned()
    }))
}
