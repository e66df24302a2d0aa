//! `weft compile`: compiles a graph or model folder to an artifact, for this machine's device or for a device profile.

use crate::args::{Compile, Options};
use crate::failure::{Failure, Result};
use crate::output::{bytes, time};
use crate::weight_report;
use serde_json::json;
use std::io::Write;
use std::path::Path;
use std::time::Instant;
use weft::graph::{Graph, Value};
use weft::load;
use weft::models::{
    CacheConfig, Llama, LlamaConfig, Logits, SentenceModel, StepConfig, config, transformer_folder,
};
use weft::profile::DeviceProfile;
use weft::session::{Artifact, Compiled, Compiler};
use weft::tensor::{DType, Weights};

/// A graph to compile: its name in the artifact, whether for training.
pub struct Part {
    pub name: String,
    pub graph: Graph,
    pub training: bool,
}

impl Part {
    pub fn compile(&self, compiler: &Compiler) -> weft::error::Result<Compiled> {
        if self.training { compiler.compile_training(&self.graph) } else { compiler.compile(&self.graph) }
    }
}

pub fn compile(args: &Compile, options: &Options, out: &mut dyn Write) -> Result<()> {
    let start = Instant::now();
    let compiler = match &args.profile {
        Some(path) => {
            let profile = profile(path)?;
            let tuning = options.tuning_of(&profile)?;
            Compiler::for_profile(&profile).with_precision(options.precision).with_tuning(&tuning)
        }
        None => options.open()?.compiler(),
    };
    let compiler = crate::args::allowing(compiler, &args.allow);
    let parts = parts(args)?;
    let mut artifact = Artifact::new();
    for part in &parts {
        let compiled = part.compile(&compiler).map_err(|e| Failure::from(e).within(&args.model))?;
        artifact.add(part.name.as_str(), &compiled)?;
    }
    artifact.metadata_mut().insert("model".into(), args.model.display().to_string());
    let file = artifact.to_bytes()?;
    load::write_atomically(&args.out, |out| out.write_all(&file))?;
    let size = file.len() as u64;
    let device = artifact.profile().map_or("", |p| &p.name).to_string();
    let names: Vec<&str> = artifact.names().collect();
    if options.json {
        let told = json!({
            "file": args.out.display().to_string(), "graphs": names, "bytes": size, "device": device,
            "precision": options.precision.to_string(), "weights": artifact.weights().len(),
            "compile_ms": crate::output::ms(start.elapsed()),
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    writeln!(
        out,
        "compiled {} for {device} in {}, wrote {} ({})",
        names.join(", "),
        time(start.elapsed()),
        args.out.display(),
        bytes(size)
    )?;
    for (name, found) in artifact.weight_reports() {
        writeln!(out, "{name}: {}", weight_report::summary(&found))?;
    }
    Ok(())
}

/// The graphs of a file or folder.
pub fn parts(args: &Compile) -> Result<Vec<Part>> {
    if args.model.is_dir() { model(args) } else { Ok(vec![graph(args)?]) }
}

/// A device's profile in its text form.
pub fn profile(path: &Path) -> Result<DeviceProfile> {
    let text = std::fs::read_to_string(path).map_err(|e| Failure::reading(path, &e))?;
    text.parse().map_err(|e: weft::error::Error| {
        Failure::from(e).within(path).advise("`weft devices --profile` prints that of --device.")
    })
}

/// A graph's text form.
fn graph(args: &Compile) -> Result<Part> {
    let text = std::fs::read_to_string(&args.model).map_err(|e| Failure::reading(&args.model, &e))?;
    let graph = Graph::parse(&text).map_err(|e| Failure::from(e).within(&args.model))?;
    Ok(Part { name: "main".into(), graph, training: args.training })
}

/// A model folder: a graph for each number of tokens.
fn model(args: &Compile) -> Result<Vec<Part>> {
    let found = config(&transformer_folder(&args.model)?)?;
    if found.get("model_type").and_then(serde_json::Value::as_str) == Some("llama") {
        return llama(args, &LlamaConfig::from_json(&found)?);
    }
    if args.training {
        return Err(Failure::Usage("--training is for graphs with a loss and for Llama folders".into()));
    }
    let model = SentenceModel::open(&args.model)?;
    let part = |&tokens: &usize| Part {
        name: format!("embed-{}x{tokens}", args.batch),
        graph: model.graph(args.batch, tokens),
        training: false,
    };
    Ok(args.tokens.iter().map(part).collect())
}

/// The whole of a text at once for each number of tokens, steps over a cache, and training.
/// The weights' dtypes are those of the folder's files; without files, f32.
fn llama(args: &Compile, config: &LlamaConfig) -> Result<Vec<Part>> {
    let files = ["model.safetensors", "model.safetensors.index.json"];
    let weights = match files.iter().any(|f| args.model.join(f).exists()) {
        true => load::weights(&args.model)?,
        false => Weights::new(),
    };
    let model = || Llama::new(config).with_weights(&weights);
    let ids = |g: &Graph, tokens: usize| g.input("ids", DType::U32, [args.batch, tokens]);
    let mut parts = vec![];
    for &tokens in &args.tokens {
        let g = Graph::new();
        g.output("logits", model().forward(&g, ids(&g, tokens), Logits::Last));
        parts.push(Part { name: format!("prefill-{}x{tokens}", args.batch), graph: g, training: false });
        if args.training {
            let g = Graph::new();
            g.set_loss(model().loss(&g, ids(&g, tokens)));
            parts.push(Part { name: format!("train-{}x{tokens}", args.batch), graph: g, training: true });
        }
    }
    if let Some(room) = args.cache {
        let cache = CacheConfig::new(room).dtype(args.cache_dtype);
        let mut each = [&[1], &args.tokens[..]].concat();
        each.sort_unstable();
        each.dedup();
        for tokens in each {
            let step = StepConfig::new(&cache, tokens).sequences(args.batch);
            let g = Graph::new();
            g.output("logits", model().step(&g, &cache, &step, Logits::Last));
            parts.push(Part { name: format!("step-{}x{tokens}", args.batch), graph: g, training: false });
        }
        return Ok(parts);
    }
    let most = args.tokens.iter().max().copied().unwrap_or(1);
    let g = Graph::new();
    let [id, position]: [Value; 2] = ["id", "position"].map(|n| g.input(n, DType::U32, [1]));
    g.output("logits", model().decode(&g, id, position, most));
    parts.push(Part { name: format!("decode-{most}"), graph: g, training: false });
    Ok(parts)
}
