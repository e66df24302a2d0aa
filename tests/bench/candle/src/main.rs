//! candle's side of the benchmark: BertModel on the CPU, built and run as its users do. One JSON object a line, with
//! the same meanings as `ort_peer.py`. Threads: RAYON_NUM_THREADS, which the caller sets.

use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde_json::{Value, json};

const USAGE: &str = "candle-peer --model DIR [--verify JSON] [--sizes BxS,…] [--seconds N] | --startup BxS | --memory BxS";

fn main() -> Result<()> {
    let mut given = std::env::args().skip(1);
    let (mut folder, mut verify_with, mut sizes, mut startup_at, mut memory_at) = (None, None, None, None, None);
    let mut seconds = 2.0;
    while let Some(flag) = given.next() {
        let value = given.next().context(USAGE)?;
        match flag.as_str() {
            "--model" => folder = Some(value),
            "--verify" => verify_with = Some(value),
            "--sizes" => sizes = Some(value),
            "--startup" => startup_at = Some(value),
            "--memory" => memory_at = Some(value),
            "--seconds" => seconds = value.parse()?,
            _ => bail!("{flag} is unknown: {USAGE}"),
        }
    }
    let folder = folder.context(USAGE)?;
    if let Some(case) = startup_at {
        return startup(&folder, &case);
    }
    let model = load(&folder)?;
    if let Some(case) = memory_at {
        forward(&model, &tokens(&case)?)?;
        let peak = peak_memory_bytes()?;
        say(json!({"case": case, "peak_memory_bytes": peak}));
        return Ok(());
    }
    if let Some(path) = verify_with {
        verify(&model, &path)?;
    }
    for case in sizes.iter().flat_map(|sizes| sizes.split(',')) {
        bench(&model, case, seconds)?;
    }
    Ok(())
}

fn load(folder: &str) -> Result<BertModel> {
    let config: Config = serde_json::from_str(&std::fs::read_to_string(format!("{folder}/config.json"))?)?;
    let file = format!("{folder}/model.safetensors");
    // SAFETY: nobody writes the file while we run.
    let weights = unsafe { VarBuilder::from_mmaped_safetensors(&[file], DType::F32, &Device::Cpu)? };
    Ok(BertModel::load(weights, &config)?)
}

/// [CLS] varied ids [SEP], the same for every peer: see `ort_peer.py`. `[batch, seq]`
fn tokens(case: &str) -> Result<Tensor> {
    let (batch, seq) = case.split_once('x').with_context(|| format!("{case}: wanted BATCHxTOKENS"))?;
    let (batch, seq): (usize, usize) = (batch.parse()?, seq.parse()?);
    let id = |b: usize, s: usize| match s {
        0 if seq > 1 => 101,
        s if s + 1 == seq => 102,
        s => (1000 + (b * 104_729 + s * 7919) % 28_000) as u32,
    };
    let ids: Vec<u32> = (0..batch * seq).map(|at| id(at / seq, at % seq)).collect();
    Ok(Tensor::from_vec(ids, (batch, seq), &Device::Cpu)?)
}

fn forward(model: &BertModel, ids: &Tensor) -> Result<Tensor> {
    Ok(model.forward(ids, &ids.zeros_like()?, Some(&ids.ones_like()?))?)
}

fn bench(model: &BertModel, case: &str, seconds: f64) -> Result<()> {
    let ids = tokens(case)?;
    for _ in 0..3 {
        forward(model, &ids)?;
    }
    let (mut times, begun) = (Vec::new(), Instant::now());
    while times.len() < 20 || begun.elapsed().as_secs_f64() < seconds {
        let start = Instant::now();
        forward(model, &ids)?;
        times.push(milliseconds(start));
    }
    times.sort_by(f64::total_cmp);
    let middle = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    say(json!({"case": case, "median_ms": middle, "min_ms": times[0], "runs": times.len()}));
    Ok(())
}

/// The recorded sentences, one by one: mean over the tokens, then unit length.
fn verify(model: &BertModel, path: &str) -> Result<()> {
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let items = recorded["items"].as_array().context("no items in the recorded embeddings")?;
    let mut worst = 0.0_f64;
    for item in items {
        let ids: Vec<u32> = serde_json::from_value(item["token_ids"].clone())?;
        let wanted: Vec<f64> = serde_json::from_value(item["embedding"].clone())?;
        let hidden = forward(model, &Tensor::new(vec![ids], &Device::Cpu)?)?.squeeze(0)?;
        let pooled = hidden.to_dtype(DType::F64)?.mean(0)?.to_vec1::<f64>()?;
        let length = pooled.iter().map(|x| x * x).sum::<f64>().sqrt();
        ensure!(pooled.len() == wanted.len(), "{} values for {} recorded", pooled.len(), wanted.len());
        worst = pooled.iter().zip(&wanted).fold(worst, |worst, (x, want)| worst.max((x / length - want).abs()));
    }
    say(json!({"case": "verify", "max_error": worst, "ok": worst <= 1e-5}));
    ensure!(worst <= 1e-5, "candle differs from the recorded embeddings by {worst:e}");
    Ok(())
}

fn startup(folder: &str, case: &str) -> Result<()> {
    let ids = tokens(case)?;
    let start = Instant::now();
    let model = load(folder)?;
    let session_ms = milliseconds(start);
    forward(&model, &ids)?;
    let both = milliseconds(start);
    let start = Instant::now();
    tokenizers::Tokenizer::from_file(format!("{folder}/tokenizer.json")).map_err(|error| anyhow!(error))?;
    say(json!({"case": case, "session_ms": session_ms, "first_run_ms": both - session_ms,
               "session_and_first_run_ms": both, "tokenizer_ms": milliseconds(start)}));
    Ok(())
}

fn peak_memory_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM in /proc/self/status")?;
    Ok(line.split_whitespace().nth(1).context("empty VmHWM")?.parse::<u64>()? * 1024)
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn say(mut row: Value) {
    row["peer"] = json!("candle");
    println!("{row}");
}
