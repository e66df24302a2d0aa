//! The command line: every command and option, with its help.

use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use weft::device::{Device, DeviceKind};
use weft::profile::{DeviceProfile, Precision, Tuning};
use weft::session::Group;
use weft::session::{Compiler, Optimization};
use weft::tensor::DType;

/// On-device machine learning: run a model from safetensors weights, or fine-tune it.
#[derive(Parser)]
#[command(name = "weft", version, arg_required_else_help = true, after_help = AFTER)]
pub struct Args {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Command,
}

const AFTER: &str = "Exit status: 0 success, 1 failure (see standard error), 2 invalid command line.";

/// Options of every command.
#[derive(clap::Args)]
pub struct Options {
    /// Device: "best", "cpu", "gpu", or a name or number from `weft devices`
    #[arg(long, global = true, default_value = "best", value_name = "DEVICE")]
    pub device: String,
    /// Precision: full computes in f32; fast uses f16 on GPUs with matrix units
    #[arg(long, global = true, default_value = "full", value_name = "full|fast", value_parser = precision)]
    pub precision: Precision,
    /// Number of threads; 0: the number of cores
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = threads)]
    pub threads: usize,
    /// Use the tilings of matrix products that `weft tune` measured to be fastest on the device
    #[arg(long, global = true, value_name = "FILE")]
    pub tuning: Option<PathBuf>,
    /// Print machine-readable JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl Options {
    /// The selected device, with the precision.
    pub fn open(&self) -> crate::failure::Result<Place> {
        let device = Device::open(&self.device, self.threads)?;
        let tuning = self.tuning_of(&device.profile())?;
        Ok(Place { device, precision: self.precision, tuning })
    }

    /// The given tuning, which must have entries for the device; empty if none was given.
    pub fn tuning_of(&self, profile: &DeviceProfile) -> crate::failure::Result<Tuning> {
        let Some(path) = &self.tuning else { return Ok(Tuning::default()) };
        let tuning = Tuning::load(path);
        let fits = tuning.and_then(|t| t.check(profile).map(|()| t));
        fits.map_err(|e| {
            let advice = "`weft tune` measures a model on the device and writes such a file.";
            crate::failure::Failure::from(e).within(path).advise(advice)
        })
    }
}

/// The device and precision of a command.
pub struct Place {
    pub device: Device,
    pub precision: Precision,
    pub tuning: Tuning,
}

impl Place {
    /// A compiler for it.
    pub fn compiler(&self) -> Compiler {
        Compiler::new(&self.device).with_precision(self.precision).with_tuning(&self.tuning)
    }

    /// A short description: `cpu, 2 threads`, `NVIDIA H200 (discrete gpu), fast precision`.
    pub fn in_words(&self) -> String {
        let info = self.device.info();
        match info.kind {
            DeviceKind::Cpu => format!("{}, {}", info.name, crate::output::threads(info.threads)),
            kind => format!("{} ({}), {} precision", info.name, kind.name(), self.precision),
        }
    }
}

fn precision(text: &str) -> Result<Precision, String> {
    match text {
        "full" => Ok(Precision::Full),
        "fast" => Ok(Precision::Fast),
        _ => Err("wanted full or fast".into()),
    }
}

/// Maximum number of threads.
const MOST_THREADS: usize = 1024;

fn threads(text: &str) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|n| *n <= MOST_THREADS)
        .ok_or_else(|| format!("wanted a whole number of 0 to {MOST_THREADS}"))
}

fn float(text: &str) -> Result<DType, String> {
    DType::from_name(text).filter(|d| d.is_float()).ok_or_else(|| "wanted f32, f16 or bf16".into())
}

fn optimizers() -> Vec<&'static str> {
    weft::optimizer::RULES.iter().map(|rule| rule.name).collect()
}

fn setting(text: &str) -> Result<(String, f32), String> {
    let parts = text.split_once('=').and_then(|(name, value)| Some((name.to_string(), value.parse().ok()?)));
    parts.ok_or_else(|| "wanted NAME=VALUE, the value a number".into())
}

fn above_zero(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n > 0).ok_or_else(|| "wanted a whole number above 0".into())
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|s| (0.0..=3600.0).contains(s)).ok_or_else(|| "wanted seconds, 0 to 3600".into())
}

#[derive(Subcommand)]
pub enum Command {
    /// Classify handwritten digits and fine-tune the classifier for a new user, on this device, in seconds
    Demo(Demo),
    /// List the devices of this machine
    Devices(Devices),
    /// Show the contents of a weights file, model folder or artifact, and the memory it needs
    Inspect(Inspect),
    /// Convert floating-point weights to f32, f16 or bf16
    Convert(Convert),
    /// Compute sentence embeddings
    Embed(Embed),
    /// Semantic search: find the passages of text files that are most similar to a query
    Search(Search),
    /// Compile a graph or model folder to an artifact
    Compile(Compile),
    /// Report the compiled form of a graph or model folder: fusions, rules, bytes, memory, estimated time
    Explain(Explain),
    /// Run a graph in its text form, or a graph of an artifact
    Run(Run),
    /// Benchmark a model folder, a built-in case, compilation, or loading an artifact; measure a device
    Bench(Bench),
    /// Measure the fastest tiling of a model's matrix products on this GPU, for --tuning
    Tune(Tune),
    /// Train the digit classifier that `weft demo` ships with
    TrainDigits(TrainDigits),
}

impl Command {
    /// The file that a command writes.
    pub fn writes(&self) -> Option<&Path> {
        match self {
            Command::Demo(args) => Some(&args.out),
            Command::Compile(args) => Some(&args.out),
            Command::Convert(args) => Some(&args.out),
            Command::Run(args) => Some(&args.outputs),
            Command::Bench(args) => args.out.as_deref(),
            Command::Tune(args) => Some(&args.out),
            Command::TrainDigits(args) => Some(&args.out),
            Command::Devices(_) | Command::Inspect(_) | Command::Embed(_) | Command::Search(_) => None,
            Command::Explain(_) => None,
        }
    }
}

#[derive(clap::Args)]
pub struct Demo {
    /// Where to save the weights adapted to the new user
    #[arg(long, default_value = "digits-adapted.safetensors", value_name = "FILE")]
    pub out: PathBuf,
}

#[derive(clap::Args)]
pub struct Devices {
    /// Print only the profile of --device, the input of `weft compile --profile`
    #[arg(long)]
    pub profile: bool,
}

#[derive(clap::Args)]
pub struct Compile {
    /// A graph in its text form, or a model folder: BERT encoders, Llama
    #[arg(value_name = "GRAPH|DIR")]
    pub model: PathBuf,
    /// Where to write the artifact
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Compile for the device described by this file, instead of --device: see `weft devices --profile`
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<PathBuf>,
    /// Tokens of each text, one graph for each number (model folders)
    #[arg(long, value_name = "S,…", value_delimiter = ',', default_value = "128", value_parser = above_zero)]
    pub tokens: Vec<usize>,
    /// Batch size (model folders)
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero)]
    pub batch: usize,
    /// For training: with the backward pass; for a Llama folder one additional graph for each number of tokens
    #[arg(long)]
    pub training: bool,
    /// For a Llama folder: compile steps of one token and of --tokens over one key-value cache with room for N tokens, whose
    /// states sessions share; without it, one step of one token with its own cache for the largest of --tokens
    #[arg(long, value_name = "N", value_parser = above_zero)]
    pub cache: Option<usize>,
    /// Element type of that cache
    #[arg(long, value_name = "f32|f16|bf16", value_parser = float, default_value = "f32", requires = "cache")]
    pub cache_dtype: DType,
    /// Enable a group of rules that is off by default: "exact" rewrites by the algebra of real numbers, ignoring roundings
    #[arg(long, value_name = "RULES", value_parser = clap::builder::PossibleValuesParser::new(optional()))]
    pub allow: Vec<String>,
}

/// Report a graph before and after compilation: operations, fusions and their rules, launches, bytes moved, memory, estimated
/// time. Nothing is run. A launch is a dispatch on a GPU, a step of the plan on a CPU
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Explain {
    /// A graph in its text form, or a model folder: BERT encoders, Llama
    #[arg(value_name = "GRAPH|DIR", group = "what")]
    pub model: Option<PathBuf>,
    /// Explain a built-in case of `weft bench`
    #[arg(long, value_name = "NAME", group = "what")]
    pub case: Option<String>,
    /// Explain for the device described by this file: see `weft devices --profile` and `weft bench --profile-device`; may be
    /// repeated. Without it, and without --device, for every device of this machine
    #[arg(long, value_name = "PROFILE")]
    pub profile: Vec<PathBuf>,
    /// Tokens of each text, one graph for each number (model folders)
    #[arg(long, value_name = "S,…", value_delimiter = ',', default_value = "128", value_parser = above_zero)]
    pub tokens: Vec<usize>,
    /// Batch size (model folders)
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero)]
    pub batch: usize,
    /// For training: with the backward pass; for a Llama folder one additional graph for each number of tokens
    #[arg(long)]
    pub training: bool,
    /// Disable an optimization of the planner, a group of the optimiser's rules, or "rules", all of them; may be repeated
    #[arg(long, value_name = "OPTIMIZATION", value_parser = clap::builder::PossibleValuesParser::new(optimizations()))]
    pub without: Vec<String>,
    /// Enable a group of rules that is off by default: "exact" rewrites by the algebra of real numbers, ignoring roundings
    #[arg(long, value_name = "RULES", value_parser = clap::builder::PossibleValuesParser::new(optional()))]
    pub allow: Vec<String>,
}

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Tune {
    /// A graph in its text form, or a model folder: BERT encoders, Llama
    #[arg(value_name = "GRAPH|DIR", group = "what")]
    pub model: Option<PathBuf>,
    /// Measure a built-in case of `weft bench`
    #[arg(long, value_name = "NAME", group = "what")]
    pub case: Option<String>,
    /// Where to write the tuning; existing entries of the file are kept, and not measured again
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Tokens of each text, one graph for each number (model folders)
    #[arg(long, value_name = "S,…", value_delimiter = ',', default_value = "128", value_parser = above_zero)]
    pub tokens: Vec<usize>,
    /// Batch size (model folders)
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero)]
    pub batch: usize,
    /// For training: with the backward pass
    #[arg(long)]
    pub training: bool,
    /// Maximum tilings to try for each shape of products
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = above_zero)]
    pub cuts: usize,
    /// Also measure entries that the file has already
    #[arg(long)]
    pub again: bool,
    /// Do not transpose weights: a transposed weight takes its memory twice
    #[arg(long)]
    pub no_turn: bool,
}

#[derive(clap::Args)]
pub struct Inspect {
    /// A safetensors file, an index of shards, a model folder, or an artifact
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// For an artifact: show how each weight is transformed at init
    #[arg(long)]
    pub weights: bool,
}

/// Convert floating-point weights (f32, f16, bf16, F64) to one dtype, each value rounded once to nearest; integers, block
/// formats, other dtypes and metadata are unchanged. A value out of the dtype's range is an error, and nothing is written
#[derive(clap::Args)]
pub struct Convert {
    /// A safetensors file, an index of shards, or a folder with model.safetensors or its shards
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Where to write the safetensors file; may be the input file
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// The new dtype: f32 for training; f16 is more precise than bf16, but its range ends at 65504
    #[arg(long, value_name = "f32|f16|bf16", value_parser = float)]
    pub dtype: DType,
}

#[derive(clap::Args)]
pub struct Embed {
    /// A Hugging Face or sentence-transformers folder of a text encoder: BERT, DistilBERT, RoBERTa, XLM-RoBERTa,
    /// CamemBERT, MPNet, ModernBERT
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// An artifact of the same folder by `weft compile`: its sizes are not compiled again
    #[arg(long, value_name = "FILE")]
    pub artifact: Option<PathBuf>,
    /// Prefix each text with the model's prompt of this name; without it, with the model's default prompt, if it has one
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,
    /// Prefix each text with this, instead of the model's prompts
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    pub prompt: Option<String>,
    /// Texts; if none are given, one per line of standard input
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
}

#[derive(clap::Args)]
pub struct Search {
    /// A Hugging Face or sentence-transformers folder of a text encoder: BERT, DistilBERT, RoBERTa, XLM-RoBERTa,
    /// CamemBERT, MPNet, ModernBERT
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text files to search
    #[arg(long, value_name = "FILES", num_args = 1.., required = true)]
    pub index: Vec<PathBuf>,
    /// Prefix the query with the model's prompt of this name; without it, with the one named "query", if the model has it
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,
    /// Prefix each passage with the model's prompt of this name; without it, with the one named "document", "passage" or
    /// "corpus", if the model has one
    #[arg(long, value_name = "NAME")]
    pub passage_prompt_name: Option<String>,
    /// Number of passages to show
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = above_zero)]
    pub top: usize,
    /// The query
    #[arg(value_name = "QUERY")]
    pub query: Option<String>,
}

#[derive(clap::Args)]
pub struct Run {
    /// A graph in its text form (see samples/graphs/README.md), or an artifact of `weft compile`
    #[arg(value_name = "GRAPH|ARTIFACT")]
    pub graph: PathBuf,
    /// The graph to run, if the artifact has several
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The graph's parameters, by name; not needed if it has none
    #[arg(long, value_name = "W.safetensors")]
    pub weights: Option<PathBuf>,
    /// Convert floating-point weights to this dtype on loading: f32 to train an f16 or bf16 checkpoint
    #[arg(long, value_name = "f32|f16|bf16", value_parser = float, requires = "weights")]
    pub weights_dtype: Option<DType>,
    /// The graph's inputs, by name; not needed if it has none
    #[arg(long, value_name = "I.safetensors")]
    pub inputs: Option<PathBuf>,
    /// Where to write the outputs, by name
    #[arg(long, value_name = "O.safetensors")]
    pub outputs: PathBuf,
    /// Print each stored intermediate value: "compact" (range, mean, first elements) or "full" (every element);
    /// "safetensors" writes them next to the outputs, as OUTPUTS.taps.safetensors
    #[arg(long, value_name = "compact|full|safetensors", value_parser = ["compact", "full", "safetensors"])]
    pub tap: Option<String>,
    /// Only values whose names contain this
    #[arg(long, value_name = "TEXT", requires = "tap")]
    pub tap_names: Option<String>,
    /// Report the first node whose value has a NaN or an infinity; disables fusion
    #[arg(long)]
    pub check_finite: bool,
    /// Also write grad.NAME, the gradient of the loss, for each trainable parameter and f32 input
    #[arg(long)]
    pub backward: bool,
    /// Enable a group of rules that is off by default: "exact" rewrites by the algebra of real numbers, ignoring roundings
    #[arg(long, value_name = "RULES", value_parser = clap::builder::PossibleValuesParser::new(optional()))]
    pub allow: Vec<String>,
}

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Bench {
    /// Benchmark the forward pass of this model folder, including pooling
    #[arg(long, value_name = "DIR", group = "what")]
    pub model: Option<PathBuf>,
    /// Batch size
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero, requires = "model")]
    pub batch: usize,
    /// Tokens of each text
    #[arg(long, default_value_t = 128, value_name = "S", value_parser = above_zero, requires = "model")]
    pub tokens: usize,
    /// Benchmark a built-in case
    #[arg(long, value_name = "NAME", group = "what")]
    pub case: Option<String>,
    /// Benchmark loading an artifact of `weft compile`
    #[arg(long, value_name = "FILE", group = "what")]
    pub artifact: Option<PathBuf>,
    /// Benchmark compiling a built-in case: from graph to plan, and reading the plan from an artifact; time and memory
    #[arg(long, value_name = "NAME", group = "what")]
    pub compile: Option<String>,
    /// Measure the device's cost model: memory, products, starting a step. The result is a profile for `weft explain
    /// --profile` and `weft compile --profile`
    #[arg(long, group = "what")]
    pub profile_device: bool,
    /// Where --profile-device writes the profile
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// List the built-in cases
    #[arg(long, group = "what")]
    pub list: bool,
    /// Minimum duration of the repetitions; at least 20 are made
    #[arg(long, default_value_t = 2.0, value_name = "S", value_parser = seconds)]
    pub seconds: f64,
    /// Also break down the GPU time: by work between barriers, or by dispatch, run one at a time
    #[arg(long, value_name = "pass|dispatch", num_args = 0..=1, default_missing_value = "dispatch",
          value_parser = ["pass", "dispatch"])]
    pub profile: Option<String>,
    /// Disable an optimization of the planner, a group of the optimiser's rules, or "rules", all of them, to measure its
    /// effect; may be repeated
    #[arg(long, value_name = "OPTIMIZATION", conflicts_with_all = ["model", "artifact", "profile_device", "list"], value_parser = clap::builder::PossibleValuesParser::new(
          optimizations()))]
    pub without: Vec<String>,
    /// Also measure the machine's peak, and print the fraction of it that was reached
    #[arg(long)]
    pub peak: bool,
}

#[derive(clap::Args)]
pub struct TrainDigits {
    /// Training digits, in the format of samples/data/digits.csv.gz; default: a built-in copy of that file
    #[arg(long, value_name = "CSV.GZ")]
    pub data: Option<PathBuf>,
    /// Where to save the weights
    #[arg(long, default_value = "digits.safetensors", value_name = "FILE")]
    pub out: PathBuf,
    /// Number of epochs
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = above_zero)]
    pub epochs: usize,
    /// Seed of the initial weights and of the order of the digits
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,
    /// Optimizer
    #[arg(long, default_value = "adam", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(optimizers()))]
    pub optimizer: String,
    /// Initial learning rate, which decays linearly to 1/300 of it; default: 0.003 for adam, else the optimizer's own
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f32>,
    /// A setting of the optimizer, e.g. momentum=0.9 or weight_decay=0.01; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, f32)>,
    /// Start from these weights, saved by an earlier run, instead of random ones
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Start from this optimizer state, written by --save-optimizer of an earlier run
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub restore_optimizer: Option<PathBuf>,
    /// Also save the optimizer state, to resume training in a later run
    #[arg(long, value_name = "FILE")]
    pub save_optimizer: Option<PathBuf>,
}

/// A compiler with the optimizations in `--without` disabled.
pub fn leaving_out(compiler: Compiler, without: &[String]) -> Compiler {
    let left_out = |name: &str| without.iter().any(|w| w == name);
    let groups: Vec<Group> =
        Group::ALL.into_iter().filter(|g| !left_out("rules") && !left_out(g.name())).collect();
    let optimizations = Optimization::ALL.iter().filter(|s| left_out(s.0));
    optimizations.fold(compiler.with_rules(&groups), |c, s| c.without(s.1))
}

/// A compiler with the groups of rules in `--allow` enabled.
pub fn allowing(compiler: Compiler, allow: &[String]) -> Compiler {
    let wanted = Group::OPTIONAL.into_iter().filter(|g| allow.iter().any(|a| a == g.name()));
    wanted.fold(compiler, Compiler::allow)
}

/// Values of `--allow`.
fn optional() -> Vec<&'static str> {
    Group::OPTIONAL.iter().map(|g| g.name()).collect()
}

/// Values of `--without`.
fn optimizations() -> Vec<&'static str> {
    let groups = Group::ALL.iter().map(|g| g.name());
    Optimization::ALL.iter().map(|s| s.0).chain(["rules"]).chain(groups).collect()
}
