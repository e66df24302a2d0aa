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

const AFTER: &str =
    "Exit status: 0 done, 1 it could not be done (standard error says why), 2 the command was wrong.";

/// What every command takes.
#[derive(clap::Args)]
pub struct Options {
    /// Where to compute: "best", "cpu", "gpu", or a name or number of `weft devices`
    #[arg(long, global = true, default_value = "best", value_name = "DEVICE")]
    pub device: String,
    /// How exactly: f32 throughout, or f16 in the matrix units of GPUs that have them
    #[arg(long, global = true, default_value = "full", value_name = "full|fast", value_parser = precision)]
    pub precision: Precision,
    /// Threads to compute with; 0 is as many as there are cores
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = threads)]
    pub threads: usize,
    /// Cut matrix products as `weft tune` found to be fastest on the device
    #[arg(long, global = true, value_name = "FILE")]
    pub tuning: Option<PathBuf>,
    /// Print JSON for machines
    #[arg(long, global = true)]
    pub json: bool,
}

impl Options {
    /// The device that was asked for, with the precision.
    pub fn open(&self) -> crate::failure::Result<Place> {
        let device = Device::open(&self.device, self.threads)?;
        let tuning = self.tuning_of(&device.profile())?;
        Ok(Place { device, precision: self.precision, tuning })
    }

    /// The tuning that was given, which must have something of the device; an empty one where none was.
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

/// Where and how exactly a command computes.
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

    /// It in words: `cpu, 2 threads`, `NVIDIA H200 (discrete gpu), fast precision`.
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

/// A pool of more threads than this helps nobody.
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
    /// Classify handwritten digits, meet a new user, learn their hand: all on this device, in seconds
    Demo(Demo),
    /// List the devices of this machine
    Devices(Devices),
    /// Show what a weights file or model folder holds, and the memory it needs
    Inspect(Inspect),
    /// Convert the floats of weights to f32, f16 or bf16
    Convert(Convert),
    /// Turn texts into sentence embeddings
    Embed(Embed),
    /// Find the passages of text files that are nearest in meaning to a question
    Search(Search),
    /// Compile a graph or model folder to an artifact, which loads without being compiled
    Compile(Compile),
    /// Show what compiling makes of a graph or model folder: fusions, rules, bytes, memory, estimated time
    Explain(Explain),
    /// Run a graph in its text form, or one of an artifact
    Run(Run),
    /// Time a model folder, a built-in case, compiling, or loading an artifact; measure a device
    Bench(Bench),
    /// Measure how the matrix products of a model are best cut on this GPU, for --tuning
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
    /// Print the profile of --device alone: what `weft compile --profile` takes
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
    /// Compile for the device that this file describes, in place of --device: see `weft devices --profile`
    #[arg(long, value_name = "PROFILE")]
    pub profile: Option<PathBuf>,
    /// Tokens of each text, a graph for each number (model folders)
    #[arg(long, value_name = "S,…", value_delimiter = ',', default_value = "128", value_parser = above_zero)]
    pub tokens: Vec<usize>,
    /// Texts at once (model folders)
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero)]
    pub batch: usize,
    /// For training: the graph with its backward pass; of a Llama folder one more graph for each number of tokens
    #[arg(long)]
    pub training: bool,
    /// Of a Llama folder: steps of one token and of --tokens over one cache of keys and values with room for so many tokens, whose
    /// states sessions share; without it a step of one token with a cache of its own, for the most of --tokens
    #[arg(long, value_name = "N", value_parser = above_zero)]
    pub cache: Option<usize>,
    /// What that cache stores
    #[arg(long, value_name = "f32|f16|bf16", value_parser = float, default_value = "f32", requires = "cache")]
    pub cache_dtype: DType,
    /// Also use rules that are left out otherwise: "exact" rewrites as if numbers were exact, whatever is rounded between them
    #[arg(long, value_name = "RULES", value_parser = clap::builder::PossibleValuesParser::new(optional()))]
    pub allow: Vec<String>,
}

/// What compiling makes of a graph, before and after: operations, what is fused and by which rules, launches, bytes
/// moved, memory, estimated time. Nothing is run. A launch is a dispatch of a GPU, a step of the plan on a CPU
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Explain {
    /// A graph in its text form, or a model folder: BERT encoders, Llama
    #[arg(value_name = "GRAPH|DIR", group = "what")]
    pub model: Option<PathBuf>,
    /// Explain a built-in case of `weft bench`
    #[arg(long, value_name = "NAME", group = "what")]
    pub case: Option<String>,
    /// Explain for the device that this file describes: see `weft devices --profile` and `weft bench --profile-device`; may
    /// be given several times. Without it, and without --device, for every device of this machine
    #[arg(long, value_name = "PROFILE")]
    pub profile: Vec<PathBuf>,
    /// Tokens of each text, a graph for each number (model folders)
    #[arg(long, value_name = "S,…", value_delimiter = ',', default_value = "128", value_parser = above_zero)]
    pub tokens: Vec<usize>,
    /// Texts at once (model folders)
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero)]
    pub batch: usize,
    /// For training: the graph with its backward pass; of a Llama folder one more graph for each number of tokens
    #[arg(long)]
    pub training: bool,
    /// Leave this out: an optimization of the planner, a group of the optimiser's rules, or "rules", all of them; may be given
    /// several times
    #[arg(long, value_name = "OPTIMIZATION", value_parser = clap::builder::PossibleValuesParser::new(optimizations()))]
    pub without: Vec<String>,
    /// Also use rules that are left out otherwise: "exact" rewrites as if numbers were exact, whatever is rounded between them
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
    /// Where to write what was found; what such a file has already is kept, and not measured again
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Tokens of each text, a graph for each number (model folders)
    #[arg(long, value_name = "S,…", value_delimiter = ',', default_value = "128", value_parser = above_zero)]
    pub tokens: Vec<usize>,
    /// Texts at once (model folders)
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero)]
    pub batch: usize,
    /// For training: the graph with its backward pass
    #[arg(long)]
    pub training: bool,
    /// Cuts to try for each shape of products, at most
    #[arg(long, default_value_t = 128, value_name = "N", value_parser = above_zero)]
    pub cuts: usize,
    /// Measure again what the file has already
    #[arg(long)]
    pub again: bool,
    /// Leave weights as they are stored: a weight that is stored by its other axis takes memory twice
    #[arg(long)]
    pub no_turn: bool,
}

#[derive(clap::Args)]
pub struct Inspect {
    /// A safetensors file, an index of shards, a model folder, or an artifact
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Of an artifact: what becomes of each weight at init
    #[arg(long)]
    pub weights: bool,
}

/// Convert the floats of weights (f32, f16, bf16, F64) to one dtype, each rounded once to the nearest; integers, block formats,
/// other dtypes and metadata stay as they are. A value that the dtype cannot hold is an error, and nothing is written
#[derive(clap::Args)]
pub struct Convert {
    /// A safetensors file, an index of shards, or a folder with model.safetensors or its shards
    #[arg(value_name = "FILE|DIR")]
    pub path: PathBuf,
    /// Where to write the safetensors file; it may be the one that is read
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// What the floats become: f32 to train; f16 is finer than bf16 and ends at 65504
    #[arg(long, value_name = "f32|f16|bf16", value_parser = float)]
    pub dtype: DType,
}

#[derive(clap::Args)]
pub struct Embed {
    /// A folder of a text encoder as Hugging Face or sentence-transformers writes it: BERT, DistilBERT, RoBERTa, XLM-RoBERTa,
    /// CamemBERT, MPNet, ModernBERT
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// An artifact that `weft compile` made of the same folder: its sizes are not compiled again
    #[arg(long, value_name = "FILE")]
    pub artifact: Option<PathBuf>,
    /// Put the model's prompt of this name before each text; without it, the model's default prompt, if it has one
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,
    /// Put this before each text, in place of the model's prompts
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_name")]
    pub prompt: Option<String>,
    /// Texts; without any, one a line is read from standard input
    #[arg(value_name = "TEXT")]
    pub texts: Vec<String>,
}

#[derive(clap::Args)]
pub struct Search {
    /// A folder of a text encoder as Hugging Face or sentence-transformers writes it: BERT, DistilBERT, RoBERTa, XLM-RoBERTa,
    /// CamemBERT, MPNet, ModernBERT
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Text files to search
    #[arg(long, value_name = "FILES", num_args = 1.., required = true)]
    pub index: Vec<PathBuf>,
    /// Put the model's prompt of this name before the query; without it, the one named "query", if the model has it
    #[arg(long, value_name = "NAME")]
    pub prompt_name: Option<String>,
    /// Put the model's prompt of this name before each passage; without it, the one named "document", "passage" or "corpus",
    /// if the model has one
    #[arg(long, value_name = "NAME")]
    pub passage_prompt_name: Option<String>,
    /// How many passages to show
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = above_zero)]
    pub top: usize,
    /// What to look for
    #[arg(value_name = "QUERY")]
    pub query: Option<String>,
}

#[derive(clap::Args)]
pub struct Run {
    /// A graph in its text form (see samples/graphs/README.md), or an artifact of `weft compile`
    #[arg(value_name = "GRAPH|ARTIFACT")]
    pub graph: PathBuf,
    /// Which graph of the artifact, where it has several
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The graph's parameters, by name; not needed if it has none
    #[arg(long, value_name = "W.safetensors")]
    pub weights: Option<PathBuf>,
    /// Convert the floats of the weights to this dtype as they are read: f32 trains a checkpoint of f16 or bf16
    #[arg(long, value_name = "f32|f16|bf16", value_parser = float, requires = "weights")]
    pub weights_dtype: Option<DType>,
    /// The graph's inputs, by name; not needed if it has none
    #[arg(long, value_name = "I.safetensors")]
    pub inputs: Option<PathBuf>,
    /// Where to write the outputs, by name
    #[arg(long, value_name = "O.safetensors")]
    pub outputs: PathBuf,
    /// Print each value that is stored on the way: "compact" (range, mean, first elements) or "full" (every element);
    /// "safetensors" writes them beside the outputs, as OUTPUTS.taps.safetensors
    #[arg(long, value_name = "compact|full|safetensors", value_parser = ["compact", "full", "safetensors"])]
    pub tap: Option<String>,
    /// Only values whose names contain this
    #[arg(long, value_name = "TEXT", requires = "tap")]
    pub tap_names: Option<String>,
    /// Name the first node whose value has a NaN or an infinity; every node is then computed by itself
    #[arg(long)]
    pub check_finite: bool,
    /// Also write grad.NAME, the gradient of the loss, for each trainable parameter and f32 input
    #[arg(long)]
    pub backward: bool,
    /// Also use rules that are left out otherwise: "exact" rewrites as if numbers were exact, whatever is rounded between them
    #[arg(long, value_name = "RULES", value_parser = clap::builder::PossibleValuesParser::new(optional()))]
    pub allow: Vec<String>,
}

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct Bench {
    /// Time the forward pass, pooling included, of this model folder
    #[arg(long, value_name = "DIR", group = "what")]
    pub model: Option<PathBuf>,
    /// Texts at once
    #[arg(long, default_value_t = 1, value_name = "B", value_parser = above_zero, requires = "model")]
    pub batch: usize,
    /// Tokens of each text
    #[arg(long, default_value_t = 128, value_name = "S", value_parser = above_zero, requires = "model")]
    pub tokens: usize,
    /// Time a built-in case
    #[arg(long, value_name = "NAME", group = "what")]
    pub case: Option<String>,
    /// Time loading an artifact of `weft compile`
    #[arg(long, value_name = "FILE", group = "what")]
    pub artifact: Option<PathBuf>,
    /// Time compiling a built-in case: from graph to plan, and reading the plan from an artifact; and the memory it takes
    #[arg(long, value_name = "NAME", group = "what")]
    pub compile: Option<String>,
    /// Measure what work costs on the device: memory, products, starting a step. What is found is a profile that `weft
    /// explain --profile` and `weft compile --profile` take
    #[arg(long, group = "what")]
    pub profile_device: bool,
    /// Where --profile-device writes the profile
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// List the built-in cases
    #[arg(long, group = "what")]
    pub list: bool,
    /// Repeat for at least so long, and at least 20 times
    #[arg(long, default_value_t = 2.0, value_name = "S", value_parser = seconds)]
    pub seconds: f64,
    /// Also show where the GPU's time goes: by work between barriers, or by dispatch, one after the other
    #[arg(long, value_name = "pass|dispatch", num_args = 0..=1, default_missing_value = "dispatch",
          value_parser = ["pass", "dispatch"])]
    pub profile: Option<String>,
    /// Leave this out, to see what it is worth: an optimization of the planner, a group of the optimiser's rules, or "rules", all
    /// of them; may be given several times
    #[arg(long, value_name = "OPTIMIZATION", conflicts_with_all = ["model", "artifact", "profile_device", "list"], value_parser = clap::builder::PossibleValuesParser::new(
          optimizations()))]
    pub without: Vec<String>,
    /// Also measure the machine's peak, and give the share of it that was reached
    #[arg(long)]
    pub peak: bool,
}

#[derive(clap::Args)]
pub struct TrainDigits {
    /// Digits to learn from, in the form of samples/data/digits.csv.gz; the program carries a copy
    #[arg(long, value_name = "CSV.GZ")]
    pub data: Option<PathBuf>,
    /// Where to save the weights
    #[arg(long, default_value = "digits.safetensors", value_name = "FILE")]
    pub out: PathBuf,
    /// Passes over the digits
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = above_zero)]
    pub epochs: usize,
    /// Seed of the first weights and of the order
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,
    /// The rule by which weights change
    #[arg(long, default_value = "adam", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(optimizers()))]
    pub optimizer: String,
    /// Learning rate of the first step, which falls in a line to a 300th of it; without it, 0.003 for adam, and for another
    /// optimizer its own
    #[arg(long, value_name = "RATE")]
    pub rate: Option<f32>,
    /// A setting of the optimizer: momentum=0.9, weight_decay=0.01; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, f32)>,
    /// Begin with these weights, which an earlier run saved, in place of fresh ones
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Begin with this state of the optimizer, which --save-optimizer of an earlier run wrote
    #[arg(long, value_name = "FILE", requires = "weights")]
    pub restore_optimizer: Option<PathBuf>,
    /// Also save the state of the optimizer, with which a later run goes on
    #[arg(long, value_name = "FILE")]
    pub save_optimizer: Option<PathBuf>,
}

/// A compiler that leaves out what `--without` names.
pub fn leaving_out(compiler: Compiler, without: &[String]) -> Compiler {
    let left_out = |name: &str| without.iter().any(|w| w == name);
    let groups: Vec<Group> =
        Group::ALL.into_iter().filter(|g| !left_out("rules") && !left_out(g.name())).collect();
    let optimizations = Optimization::ALL.iter().filter(|s| left_out(s.0));
    optimizations.fold(compiler.with_rules(&groups), |c, s| c.without(s.1))
}

/// A compiler that also uses the rules that `--allow` names.
pub fn allowing(compiler: Compiler, allow: &[String]) -> Compiler {
    let wanted = Group::OPTIONAL.into_iter().filter(|g| allow.iter().any(|a| a == g.name()));
    wanted.fold(compiler, Compiler::allow)
}

/// What `--allow` takes.
fn optional() -> Vec<&'static str> {
    Group::OPTIONAL.iter().map(|g| g.name()).collect()
}

/// What `--without` takes.
fn optimizations() -> Vec<&'static str> {
    let groups = Group::ALL.iter().map(|g| g.name());
    Optimization::ALL.iter().map(|s| s.0).chain(["rules"]).chain(groups).collect()
}
