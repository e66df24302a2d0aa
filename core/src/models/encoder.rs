//! Sentence embeddings from a model folder: text in, vectors out.

use super::{EncoderConfig, SentenceConfig, SentenceModel, Similarity, transformer_folder};
use crate::device::{Device, lock};
use crate::error::{Error, Result};
use crate::profile::{Precision, Tuning};
use crate::session::{Artifact, Compiler, MemorySummary, Parameters, Session};
use crate::stack::deep;
use crate::text::{Buckets, Encoding, PaddedBatch, Tokenizer, pad};
use std::path::Path;
use std::sync::Mutex;

/// Maximum tokens computed at once: larger batches are not faster.
const TOKENS_AT_ONCE: usize = 4096;
/// Maximum number of compiled sizes in the cache.
const SESSIONS: usize = 12;

/// One text's embedding.
///
/// ```
/// use weft::{device::Device, models::Encoder};
///
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
/// let found = Encoder::open(folder, &Device::cpu(1))?.embed(&["a text"])?;
/// assert!(found[0].token_ids.len() >= 3); // [CLS], what the text has, [SEP]
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// Its token ids, special tokens included, after truncation.
    pub token_ids: Vec<u32>,
    /// The vector.
    pub embedding: Vec<f32>,
}

/// The prompt prefixed to texts.
///
/// ```
/// use weft::{device::Device, models::{Encoder, Prompt}};
///
/// let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/encoders/bert");
/// let mut encoder = Encoder::open(folder, &Device::cpu(1))?;
/// encoder.set_prompt(Prompt::Name("query"))?;
/// assert!(!encoder.prompt().is_empty());
/// assert!(encoder.set_prompt(Prompt::Name("quary")).is_err());
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prompt<'a> {
    /// The model's default prompt; often empty.
    Default,
    /// No prompt.
    None,
    /// The model's prompt with this name. Every model has "query" and "document", which may be empty.
    Name(&'a str),
    /// This text.
    Text(&'a str),
}

/// A sentence encoder: a folder's model, compiled for sizes as needed, and its tokenizer.
///
/// Threads may share one (it is `Sync`; wrap it in an [`Arc`](std::sync::Arc)): they tokenize concurrently and use the device
/// in turn, batch by batch. This is as fast as one encoder per thread, since a step uses the whole device, and takes the memory
/// of one.
///
/// ```no_run
/// use std::sync::Arc;
/// use weft::{device::Device, models::Encoder};
///
/// let encoder = Arc::new(Encoder::open("all-MiniLM-L6-v2", &Device::best()?)?);
/// let another = encoder.clone();
/// let there = std::thread::spawn(move || another.embed(&["How is memory reused?"]));
/// let here = encoder.embed(&["The cat sits outside", "A man is playing guitar"])?;
/// assert_eq!(here[0].embedding.len(), encoder.hidden_size());
/// there.join().unwrap()?;
/// # Ok::<(), weft::error::Error>(())
/// ```
pub struct Encoder {
    device: Device,
    precision: Precision,
    tuning: Tuning,
    model: SentenceModel,
    /// The prompt prefixed to every text.
    prompt: String,
    tokenizer: Tokenizer,
    buckets: Buckets,
    parameters: Parameters,
    warnings: Vec<String>,
    /// By size, least recently used first. Locked while one runs: steps are serialised.
    sessions: Mutex<Vec<((usize, usize), Session)>>,
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("device", &self.device)
            .field("precision", &self.precision)
            .field("model", &self.model)
            .field("prompt", &self.prompt)
            .finish_non_exhaustive()
    }
}

impl Encoder {
    /// Opens a Hugging Face folder: maps its weights, packs them for the device, reads its tokenizer. Computes in
    /// [`Precision::Full`].
    ///
    /// # Errors
    /// As [`open_with`](Encoder::open_with).
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Encoder> {
        Encoder::open_with(folder, device, Precision::Full)
    }

    /// As [`open`](Encoder::open), with the given precision.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::ModelOption`] for an unsupported model; errors of reading the folder's files.
    pub fn open_with(folder: impl AsRef<Path>, device: &Device, precision: Precision) -> Result<Encoder> {
        Encoder::open_tuned(folder, device, precision, &Tuning::default())
    }

    /// As [`open_with`](Encoder::open_with), with measured tilings of products: see [`Compiler::with_tuning`].
    ///
    /// # Errors
    /// As [`open_with`](Encoder::open_with).
    pub fn open_tuned(
        folder: impl AsRef<Path>,
        device: &Device,
        precision: Precision,
        tuning: &Tuning,
    ) -> Result<Encoder> {
        let folder = folder.as_ref();
        deep(|| Encoder::opened(folder, device, precision, tuning))
    }

    fn opened(folder: &Path, device: &Device, precision: Precision, tuning: &Tuning) -> Result<Encoder> {
        let place = transformer_folder(folder)?;
        // reading the tokenizer takes longest: done concurrently with everything else
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| Tokenizer::from_file(&place));
            let model = SentenceModel::open(folder)?;
            let first =
                compile(&model, (device, precision, tuning), [1, model.config().max_tokens().min(8)])?
                    .init(model.weights())?;
            let unused = first.warnings().iter();
            let warnings = unused.cloned().collect();
            let tokenizer =
                reader.join().map_err(|_| Error::internal("the tokenizer's reader panicked"))??;
            let tokenizer =
                if model.sentence_config().lower_case { tokenizer.lower_cased() } else { tokenizer };
            let positions = model.config().max_tokens();
            let most = model.max_tokens(tokenizer.max_tokens());
            let mut encoder = Encoder {
                device: device.clone(),
                precision,
                tuning: tuning.clone(),
                buckets: Buckets::new(most),
                parameters: first.parameters(),
                sessions: Mutex::new(vec![((1, positions.min(8)), first)]),
                warnings,
                model,
                prompt: String::new(),
                tokenizer,
            };
            encoder.set_prompt(Prompt::Default)?;
            Ok(encoder)
        })
    }

    /// Sets the prompt for later texts; initially the model's default.
    ///
    /// # Errors
    /// [`Error::UnknownName`] if the model has no prompt of that name.
    pub fn set_prompt(&mut self, prompt: Prompt<'_>) -> Result<()> {
        let sentence = self.model.sentence_config();
        self.prompt = match prompt {
            Prompt::Default => {
                sentence.default_prompt.as_ref().map_or(Ok(""), |name| sentence.prompt(name))?.into()
            }
            Prompt::None => String::new(),
            Prompt::Name(name) => sentence.prompt(name)?.into(),
            Prompt::Text(text) => text.into(),
        };
        Ok(())
    }

    /// The current prompt.
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    /// The similarity measure for embeddings of this model.
    pub fn similarity(&self) -> Similarity {
        self.model.sentence_config().similarity
    }

    /// Maximum tokens of a text; longer ones are truncated.
    pub fn max_tokens(&self) -> usize {
        self.buckets.sizes().last().copied().unwrap_or(1)
    }

    /// Components of an embedding.
    pub fn hidden_size(&self) -> usize {
        self.model.size()
    }

    /// The transformer's sizes and options.
    pub fn config(&self) -> &EncoderConfig {
        self.model.config()
    }

    /// Pooling and other modules, prompts and limits.
    pub fn sentence_config(&self) -> &SentenceConfig {
        self.model.sentence_config()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Weights in the files that no layer uses.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Memory of the largest session.
    pub fn memory_summary(&self) -> MemorySummary {
        // a forked child has no sessions, and must not wait for the lock
        if self.device.check().is_err() {
            return MemorySummary::default();
        }
        let sessions = lock(&self.sessions);
        let all = sessions.iter().map(|(_, s)| s.memory_summary());
        all.max_by_key(|s| s.total_bytes).unwrap_or_default()
    }

    /// A session for one size, sharing the weights: inputs `input_ids` and `token_type_ids` u32 and `attention_mask` f32, all
    /// `[batch, tokens]`; output `embedding` f32 `[batch, components]`. If the model's pooling excludes prompts, an input
    /// `prompt_tokens` u32 `[1]` is the number of the prompt's tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] for no texts, or more tokens than the model has positions.
    pub fn forward_session(&self, batch: usize, tokens: usize) -> Result<Session> {
        let most = self.model.config().max_tokens();
        if batch == 0 || tokens == 0 || tokens > most {
            let wanted = format!("at least one text of 1 to {most} tokens");
            return Err(Error::argument("batch", wanted, format!("{batch} × {tokens}")));
        }
        let place = (&self.device, self.precision, &self.tuning);
        let compiled = compile(&self.model, place, [batch, tokens])?;
        compiled.init_shared(&self.parameters)
    }

    /// Uses the graphs of an artifact that match this encoder: those with the inputs and output of
    /// [`forward_session`](Encoder::forward_session). Their sizes are not compiled again. Returns their number.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is none; [`Error::MissingWeight`], [`Error::WeightType`] if it was compiled from another
    /// model.
    pub fn add_artifact(&mut self, artifact: &Artifact) -> Result<usize> {
        let mut count = 0;
        for name in artifact.names() {
            let compiled = artifact.get(name)?;
            let shape = |name: &str| compiled.inputs().iter().find(|p| p.name == name).map(|p| &p.shape[..]);
            let ids = shape("input_ids").filter(|s| s.len() == 2);
            let hidden =
                compiled.outputs().iter().find(|p| p.name == "embedding").and_then(|p| p.shape.last());
            let (Some(&[batch, tokens]), Some(&hidden)) = (ids, hidden) else { continue };
            if shape("prompt_tokens").is_some() != self.sentence_config().excludes_prompt() {
                continue;
            }
            let same = [shape("token_type_ids"), shape("attention_mask")].iter().all(|s| *s == ids);
            if !same || hidden != self.model.size() {
                continue;
            }
            let session = compiled.init_shared(&self.parameters)?;
            let sessions = self.sessions.get_mut().unwrap_or_else(|e| e.into_inner());
            sessions.retain(|(size, _)| *size != (batch, tokens));
            sessions.push(((batch, tokens), session));
            count += 1;
        }
        match count {
            0 => Err(Error::argument(
                "artifact",
                "a graph of this encoder",
                artifact.names().collect::<Vec<_>>().join(", "),
            )),
            _ => Ok(count),
        }
    }

    /// Embeds texts, batching those of similar length; results are in the order of the texts.
    ///
    /// # Errors
    /// Errors of the tokenizer or of a step. Without texts the result is empty.
    pub fn embed<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Embedding>> {
        self.embed_with(texts, &mut |_, _| {})
    }

    /// As [`embed`](Encoder::embed); `progress` gets the number of texts done and the total.
    ///
    /// # Errors
    /// As [`embed`](Encoder::embed).
    pub fn embed_with<T: AsRef<str>>(
        &self,
        texts: &[T],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Embedding>> {
        self.device.check()?;
        let encodings = self.encode(texts)?;
        let prompt_tokens = self.prompt_tokens()?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        crate::order::sort_by_key(&mut order, |&i| encodings[i].ids.len());
        let mut found: Vec<Option<Embedding>> = vec![None; texts.len()];
        let mut from = 0;
        while from < order.len() {
            let length = self.buckets.bucket(encodings[order[from]].ids.len());
            let most = (TOKENS_AT_ONCE / length).max(1);
            let fits = |&&i: &&usize| self.buckets.bucket(encodings[i].ids.len()) == length;
            let count = order[from..].iter().take_while(fits).take(most).count();
            // batch sizes are powers of two, so that few sizes are compiled and no row is padding
            let count = 1 << count.ilog2();
            let rows = &order[from..from + count];
            let group: Vec<Encoding> = rows.iter().map(|&i| encodings[i].clone()).collect();
            let vectors = self.run(&group, length, prompt_tokens)?;
            for (&i, vector) in rows.iter().zip(vectors.chunks_exact(self.model.size())) {
                found[i] =
                    Some(Embedding { token_ids: encodings[i].ids.clone(), embedding: vector.to_vec() });
            }
            from += count;
            progress(from, texts.len());
        }
        Ok(found.into_iter().flatten().collect())
    }

    /// The tokens of texts with the prompt.
    fn encode<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Encoding>> {
        match self.prompt.as_str() {
            "" => self.tokenizer.encode_batch(texts, self.max_tokens()),
            prompt => {
                let texts: Vec<String> = texts.iter().map(|t| format!("{prompt}{}", t.as_ref())).collect();
                self.tokenizer.encode_batch(&texts, self.max_tokens())
            }
        }
    }

    /// The number of the prompt's tokens, if pooling excludes them.
    fn prompt_tokens(&self) -> Result<Option<u32>> {
        if !self.sentence_config().excludes_prompt() {
            return Ok(None);
        }
        if self.prompt.is_empty() {
            return Ok(Some(0));
        }
        let alone = self.tokenizer.encode(&self.prompt, self.max_tokens())?;
        // a final special token does not belong to the prompt
        let end = usize::from(alone.special.last() == Some(&true));
        Ok(Some((alone.ids.len() - end) as u32))
    }

    fn run(&self, encodings: &[Encoding], length: usize, prompt_tokens: Option<u32>) -> Result<Vec<f32>> {
        let size = (encodings.len(), length);
        // padding is masked: any row of the table will do
        let pad_id = self.tokenizer.pad_id();
        let pad_id = if (pad_id as usize) < self.model.config().vocabulary { pad_id } else { 0 };
        let batch = pad(encodings, length, pad_id)?;
        let mut sessions = lock(&self.sessions);
        let mut entry = match sessions.iter().position(|(s, _)| *s == size) {
            Some(at) => sessions.remove(at),
            None => (size, self.forward_session(size.0, size.1)?),
        };
        let done = step(&mut entry.1, &batch, prompt_tokens);
        // evicts the least recently used
        if sessions.len() >= SESSIONS {
            sessions.remove(0);
        }
        sessions.push(entry);
        done
    }
}

/// The embeddings of a batch, row by row.
fn step(session: &mut Session, batch: &PaddedBatch, prompt_tokens: Option<u32>) -> Result<Vec<f32>> {
    session.set_input::<u32>("input_ids", &batch.ids)?;
    session.set_input::<u32>("token_type_ids", &batch.type_ids)?;
    session.set_input("attention_mask", &batch.mask)?;
    if let Some(count) = prompt_tokens {
        session.set_input::<u32>("prompt_tokens", &[count])?;
    }
    session.step()?;
    session.wait()?;
    session.read_output::<f32>("embedding")
}

fn compile(
    model: &SentenceModel,
    (device, precision, tuning): (&Device, Precision, &Tuning),
    [batch, tokens]: [usize; 2],
) -> Result<crate::session::Compiled> {
    let compiler = Compiler::new(device).with_precision(precision).with_tuning(tuning);
    compiler.compile(&model.graph(batch, tokens))
}
