//! `weft inspect`: the contents of a weights file or model folder, from headers alone, and the memory it needs.

use crate::args::{Inspect, Options, Place};
use crate::failure::{Failure, Result};
use crate::output::{bytes, grouped, shortened, table};
use crate::weight_report;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use weft::load::{Inspection, TensorInfo};
use weft::models::{SentenceConfig, SentenceModel, transformer_folder};
use weft::session::Compiler;
use weft::session::{Artifact, MemorySummary};
use weft::tensor::{StoredDType, element_count};

/// The text length for which memory is reported.
const BATCH: usize = 1;
const TOKENS: usize = 128;

/// The description of a model from its folder's `config.json`.
struct Architecture {
    name: String,
    /// The number of tokens for which memory is reported: fewer if the model has fewer positions.
    tokens: usize,
    /// Memory of one session, or why it is unknown.
    memory: weft::error::Result<MemorySummary>,
    /// For a sentence encoder: its folder's configuration.
    sentence: Option<Sentence>,
}

/// The configuration of a sentence encoder's folder.
struct Sentence {
    config: SentenceConfig,
    dimensions: usize,
    max_tokens: usize,
}

pub fn inspect(args: &Inspect, options: &Options, out: &mut dyn Write) -> Result<()> {
    if crate::run::is_artifact(&args.path) {
        return artifact(&args.path, args.weights, options, out);
    }
    if args.weights {
        return Err(Failure::Usage("--weights tells what an artifact does with its weights".into()));
    }
    let place = options.open()?;
    // models that cannot run can still be inspected
    let folder = if args.path.is_dir() { transformer_folder(&args.path).ok() } else { None };
    let folder = folder.unwrap_or_else(|| args.path.clone());
    let found = weft::load::inspect(&folder)?;
    let architecture = if args.path.is_dir() { architecture(&args.path, &folder, &place)? } else { None };
    if options.json {
        writeln!(out, "{}", as_json(&args.path, &found, architecture.as_ref()))?;
        return Ok(());
    }
    print(&found, architecture.as_ref(), out)
}

/// An artifact: its graphs, their device, the weights they need.
fn artifact(path: &Path, each_weight: bool, options: &Options, out: &mut dyn Write) -> Result<()> {
    let found = Artifact::inspect(path)?;
    let Some(profile) = found.profile() else { return Ok(()) };
    let weights = found.weights();
    if options.json {
        let graph = |name: &str| -> weft::error::Result<Value> {
            let c = found.get(name)?;
            let ports = |all: &[weft::session::Port]| -> Vec<Value> {
                all.iter()
                    .map(|p| json!({"name": p.name, "dtype": p.dtype.name(), "shape": p.shape}))
                    .collect()
            };
            Ok(json!({
                "name": name, "inputs": ports(c.inputs()), "outputs": ports(c.outputs()),
                "training": c.is_training(), "precision": c.precision().to_string(),
                "bytes": c.memory_summary().total_bytes, "at_init": weight_report::as_json(&c.weight_report()),
            }))
        };
        let graphs: Vec<Value> = found.names().map(graph).collect::<weft::error::Result<_>>()?;
        let weight = |w: &weft::session::Weight| json!({"name": w.name, "dtype": w.ty.dtype.name(), "shape": w.ty.shape, "trainable": w.trainable});
        let weights: Vec<Value> = weights.iter().map(weight).collect();
        let told = json!({
            "graphs": graphs, "weights": weights, "metadata": found.metadata(), "profile": profile.to_string(),
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    let mut rows = vec![["graph", "inputs", "outputs", "memory"].map(String::from).to_vec()];
    for name in found.names() {
        let c = found.get(name)?;
        let types = |all: &[weft::session::Port]| {
            let one = |p: &weft::session::Port| format!("{} {}{:?}", p.name, p.dtype, p.shape);
            all.iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let memory = bytes(c.memory_summary().total_bytes as u64);
        rows.push(vec![name.into(), types(c.inputs()), types(c.outputs()), memory]);
    }
    table(out, &rows, &[3])?;
    let elements: usize = weights.iter().map(|w| w.ty.elements()).sum();
    writeln!(out, "\nfor {} ({})", profile.name, profile.kind.name())?;
    writeln!(out, "wants {} weights, {} parameters", weights.len(), grouped(elements))?;
    for (name, found) in found.weight_reports() {
        writeln!(out, "{name}: {}", weight_report::summary(&found))?;
    }
    for (key, value) in found.metadata() {
        writeln!(out, "metadata {key}: {}", shortened(value, 90))?;
    }
    for (name, found) in found.weight_reports().filter(|_| each_weight) {
        writeln!(out, "\nweights of {name}")?;
        table(out, &weight_report::rows(&found), &[3])?;
    }
    Ok(())
}

/// `None` for a folder without a `config.json`. The transformer's folder may differ from the model's.
fn architecture(model: &Path, folder: &Path, place: &Place) -> Result<Option<Architecture>> {
    if !folder.join("config.json").exists() {
        return Ok(None);
    }
    let config = weft::models::config(folder)?;
    let listed = config.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str);
    let kind = config.get("model_type").and_then(Value::as_str);
    let name = match (listed, kind) {
        (Some(listed), Some(kind)) => format!("{listed} ({kind})"),
        (Some(name), None) | (None, Some(name)) => name.into(),
        (None, None) => "not named in config.json".into(),
    };
    let opened = SentenceModel::open(model).and_then(|model| Ok((sentence(&model)?, model)));
    Ok(Some(match opened {
        Ok((sentence, model)) => {
            let tokens = TOKENS.min(model.config().max_tokens());
            Architecture { name, tokens, memory: memory(&model, tokens, place), sentence: Some(sentence) }
        }
        Err(e) => Architecture { name, tokens: TOKENS, memory: Err(e), sentence: None },
    }))
}

/// Memory of a session for texts of that many tokens.
fn memory(model: &SentenceModel, tokens: usize, place: &Place) -> weft::error::Result<MemorySummary> {
    let compiler: Compiler = place.compiler();
    Ok(compiler.compile(&model.graph(BATCH, tokens))?.init(model.weights())?.memory_summary())
}

fn sentence(model: &SentenceModel) -> weft::error::Result<Sentence> {
    let config = model.sentence_config().clone();
    let max_tokens = model.max_tokens(weft::text::Tokenizer::from_file(model.folder())?.max_tokens());
    Ok(Sentence { dimensions: model.size(), max_tokens, config })
}

/// Elements of float and block tensors, i.e. learned parameters; not tables of positions and the like. Unsupported dtypes are
/// other floats.
fn parameters(found: &Inspection) -> usize {
    let learnt = |t: &&TensorInfo| t.dtype.used_as().is_none_or(|d| d.is_float() || d.is_block());
    found.tensors.iter().filter(learnt).filter_map(|t| element_count(&t.shape)).sum()
}

fn total(found: &Inspection) -> usize {
    found.tensors.iter().map(|t| t.bytes).sum()
}

fn as_json(path: &Path, found: &Inspection, architecture: Option<&Architecture>) -> Value {
    let tensor = |t: &TensorInfo| {
        json!({
            "name": t.name, "dtype": t.dtype.name(), "shape": t.shape, "bytes": t.bytes,
            "used_as": t.dtype.used_as().map(|d| d.name()), "file": t.file.display().to_string(),
        })
    };
    let tokens = architecture.map_or(TOKENS, |a| a.tokens);
    let memory = |m: &MemorySummary| {
        json!({
            "batch": BATCH, "tokens": tokens, "summary": m.to_string(), "buffers": m.buffers,
            "total_bytes": m.total_bytes, "largest_bytes": m.largest_bytes,
        })
    };
    json!({
        "path": path.display().to_string(),
        "tensors": found.tensors.iter().map(tensor).collect::<Vec<_>>(),
        "metadata": found.metadata,
        "parameters": parameters(found),
        "bytes": total(found),
        "architecture": architecture.map(|a| &a.name),
        "sentence": architecture.and_then(|a| a.sentence.as_ref()).map(|s| json!({
            "dimensions": s.dimensions, "max_tokens": s.max_tokens, "modules": s.config.in_words(),
            "similarity": s.config.similarity.name(), "lower_case": s.config.lower_case,
            "prompts": s.config.prompts.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
            "default_prompt": s.config.default_prompt,
        })),
        "memory": architecture.and_then(|a| a.memory.as_ref().ok()).map(memory),
        "memory_unknown": architecture.and_then(|a| a.memory.as_ref().err()).map(ToString::to_string),
    })
}

fn print_sentence(s: &Sentence, out: &mut dyn Write) -> Result<()> {
    let (dimensions, tokens) = (s.dimensions, s.max_tokens);
    writeln!(out, "embeddings: {dimensions} components of at most {tokens} tokens; {}", s.config.in_words())?;
    writeln!(out, "compared by: {}", s.config.similarity.name())?;
    if s.config.lower_case {
        writeln!(out, "texts are lower-cased")?;
    }
    for (name, text) in s.config.prompts.iter().filter(|(_, text)| !text.is_empty()) {
        let default = if s.config.default_prompt.as_ref() == Some(name) { " (default)" } else { "" };
        let begin: String = text.chars().take(90).collect();
        writeln!(out, "prompt {name}{default}: {begin:?}")?;
    }
    Ok(())
}

fn print(found: &Inspection, architecture: Option<&Architecture>, out: &mut dyn Write) -> Result<()> {
    let mut rows = vec![["tensor", "dtype", "shape", "size"].map(String::from).to_vec()];
    rows.extend(
        found.tensors.iter().map(|t| {
            vec![t.name.clone(), t.dtype.to_string(), format!("{:?}", t.shape), bytes(t.bytes as u64)]
        }),
    );
    table(out, &rows, &[3])?;
    let (count, learnt, size) = (found.tensors.len(), grouped(parameters(found)), bytes(total(found) as u64));
    writeln!(out, "\n{count} tensors, {learnt} parameters, {size}")?;
    let foreign: Vec<_> =
        found.tensors.iter().filter(|t| matches!(t.dtype, StoredDType::Foreign(_))).collect();
    let dtypes: BTreeMap<&str, StoredDType> = foreign.iter().map(|t| (t.dtype.name(), t.dtype)).collect();
    for (name, dtype) in dtypes {
        let count = foreign.iter().filter(|t| t.dtype == dtype).count();
        match dtype.used_as() {
            Some(used) => {
                writeln!(out, "{name}: {count} tensors, which are converted to {used} where they are needed")?
            }
            None => writeln!(
                out,
                "{name}: {count} tensors, which no graph can use: Weft does not compute with {name}"
            )?,
        }
    }
    for (key, value) in &found.metadata {
        writeln!(out, "metadata {key}: {}", shortened(value, 90))?;
    }
    match architecture {
        None => {
            writeln!(out, "architecture: not said (no config.json)\nmemory needed: {size} for the weights")?
        }
        Some(Architecture { name, tokens, memory, sentence }) => {
            writeln!(out, "architecture: {name}")?;
            if let Some(s) = sentence {
                print_sentence(s, out)?;
            }
            match memory {
                Ok(m) => writeln!(out, "memory needed at {BATCH} × {tokens} tokens: {m}")?,
                Err(e) => writeln!(
                    out,
                    "memory needed: {size} for the weights; how much to run it is unknown: {e}"
                )?,
            }
        }
    }
    Ok(())
}
