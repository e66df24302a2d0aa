//! Sentence embeddings from a model folder: text in, vectors out.

use super::{Bert, BertConfig, SentenceConfig, architecture, config, sentence_config};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::load;
use crate::profile::{Precision, Tuning};
use crate::session::{Artifact, Compiler, MemorySummary, Parameters, Session};
use crate::tensor::{DType, Weights};
use crate::text::{Buckets, Encoding, Tokenizer, pad};
use std::path::Path;

/// Tokens computed together at most: beyond that a larger batch is no faster.
const TOKENS_AT_ONCE: usize = 4096;
/// Compiled sizes kept.
const SESSIONS: usize = 12;

/// One text's embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// Its token ids, special tokens included, after truncation.
    pub token_ids: Vec<u32>,
    /// The vector.
    pub embedding: Vec<f32>,
}

/// A sentence encoder: a folder's model, compiled for the sizes that come, and its tokenizer.
pub struct Encoder {
    device: Device,
    precision: Precision,
    tuning: Tuning,
    bert: BertConfig,
    sentence: SentenceConfig,
    weights: Weights,
    tokenizer: Tokenizer,
    buckets: Buckets,
    parameters: Parameters,
    warnings: Vec<String>,
    sessions: Vec<((usize, usize), Session)>,
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

    /// As [`open`](Encoder::open), computing as exactly as asked.
    ///
    /// # Errors
    /// [`Error::Architecture`] or [`Error::ModelOption`] for a model that Weft would not compute rightly;
    /// what reading the folder's files returns.
    pub fn open_with(folder: impl AsRef<Path>, device: &Device, precision: Precision) -> Result<Encoder> {
        Encoder::open_tuned(folder, device, precision, &Tuning::default())
    }

    /// As [`open_with`](Encoder::open_with), with products cut as was measured: see [`Compiler::with_tuning`].
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
        // the tokenizer's file takes longest to read: beside everything else
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| Tokenizer::from_file(folder));
            let found = config(folder)?;
            architecture(&found)?;
            let bert = BertConfig::from_json(&found)?;
            let sentence = sentence_config(folder)?;
            let weights = load::weights(folder)?;
            let first = compile(&bert, &sentence, &weights, (device, precision, tuning), [1, 8])?
                .init(&used(&weights))?;
            let unused = first.warnings().iter();
            let warnings = unused.cloned().collect();
            let tokenizer =
                reader.join().map_err(|_| Error::internal("the tokenizer's reader panicked"))??;
            let most = sentence.max_tokens.unwrap_or(bert.positions).min(bert.positions);
            Ok(Encoder {
                device: device.clone(),
                precision,
                tuning: tuning.clone(),
                buckets: Buckets::new(most),
                parameters: first.parameters(),
                sessions: vec![((1, 8), first)],
                warnings,
                bert,
                sentence,
                weights,
                tokenizer,
            })
        })
    }

    /// The most tokens of a text; longer ones lose their end.
    pub fn max_tokens(&self) -> usize {
        self.buckets.sizes().last().copied().unwrap_or(1)
    }

    /// Components of an embedding.
    pub fn hidden_size(&self) -> usize {
        self.bert.hidden
    }

    /// The encoder's sizes.
    pub fn config(&self) -> &BertConfig {
        &self.bert
    }

    /// How token vectors become one.
    pub fn sentence_config(&self) -> &SentenceConfig {
        &self.sentence
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Weights in the files that no layer uses.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// What the largest session takes.
    pub fn memory_summary(&self) -> MemorySummary {
        let all = self.sessions.iter().map(|(_, s)| s.memory_summary());
        all.max_by_key(|s| s.total_bytes).unwrap_or_default()
    }

    /// A session for one size, sharing the weights: inputs `input_ids` and `token_type_ids` u32 and
    /// `attention_mask` f32, all `[batch, tokens]`; output `embedding` f32 `[batch, hidden]`.
    ///
    /// # Errors
    /// [`Error::Argument`] for no texts or more tokens than the model has positions.
    pub fn forward_session(&self, batch: usize, tokens: usize) -> Result<Session> {
        if batch == 0 || tokens == 0 || tokens > self.bert.positions {
            let wanted = format!("at least one text of 1 to {} tokens", self.bert.positions);
            return Err(Error::argument("batch", wanted, format!("{batch} × {tokens}")));
        }
        let compiled = compile(
            &self.bert,
            &self.sentence,
            &self.weights,
            (&self.device, self.precision, &self.tuning),
            [batch, tokens],
        )?;
        compiled.init_shared(&self.parameters)
    }

    /// Takes over the graphs of an artifact that are this encoder's: those with the inputs and output of
    /// [`forward_session`](Encoder::forward_session). Their sizes are not compiled again. Says how many there were.
    ///
    /// # Errors
    /// [`Error::Argument`] if there was none; [`Error::MissingWeight`], [`Error::WeightType`] if it was made of
    /// another model.
    pub fn add_artifact(&mut self, artifact: &Artifact) -> Result<usize> {
        let mut count = 0;
        for name in artifact.names() {
            let compiled = artifact.get(name)?;
            let shape = |name: &str| compiled.inputs().iter().find(|p| p.name == name).map(|p| &p.shape[..]);
            let ids = shape("input_ids").filter(|s| s.len() == 2);
            let hidden =
                compiled.outputs().iter().find(|p| p.name == "embedding").and_then(|p| p.shape.last());
            let (Some(&[batch, tokens]), Some(&hidden)) = (ids, hidden) else { continue };
            let same = [shape("token_type_ids"), shape("attention_mask")].iter().all(|s| *s == ids);
            if !same || hidden != self.bert.hidden {
                continue;
            }
            self.sessions.retain(|(size, _)| *size != (batch, tokens));
            self.sessions.push(((batch, tokens), compiled.init_shared(&self.parameters)?));
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

    /// Embeds texts, those of like length together; results are in the order of the texts.
    ///
    /// # Errors
    /// What the tokenizer or a step returns. No texts give no embeddings.
    pub fn embed<T: AsRef<str>>(&mut self, texts: &[T]) -> Result<Vec<Embedding>> {
        self.embed_with(texts, &mut |_, _| {})
    }

    /// As [`embed`](Encoder::embed), telling `progress` how many texts are done, of how many.
    ///
    /// # Errors
    /// As [`embed`](Encoder::embed).
    pub fn embed_with<T: AsRef<str>>(
        &mut self,
        texts: &[T],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Embedding>> {
        let encodings = self.tokenizer.encode_batch(texts, self.max_tokens())?;
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| encodings[i].ids.len());
        let mut found: Vec<Option<Embedding>> = vec![None; texts.len()];
        let mut from = 0;
        while from < order.len() {
            let length = self.buckets.bucket(encodings[order[from]].ids.len());
            let most = (TOKENS_AT_ONCE / length).max(1);
            let fits = |&&i: &&usize| self.buckets.bucket(encodings[i].ids.len()) == length;
            let count = order[from..].iter().take_while(fits).take(most).count();
            // batches of a power of two, so that few sizes are compiled and no row is padding
            let count = 1 << count.ilog2();
            let rows = &order[from..from + count];
            let group: Vec<Encoding> = rows.iter().map(|&i| encodings[i].clone()).collect();
            let vectors = self.run(&group, length)?;
            for (&i, vector) in rows.iter().zip(vectors.chunks_exact(self.bert.hidden)) {
                found[i] =
                    Some(Embedding { token_ids: encodings[i].ids.clone(), embedding: vector.to_vec() });
            }
            from += count;
            progress(from, texts.len());
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn run(&mut self, encodings: &[Encoding], length: usize) -> Result<Vec<f32>> {
        let size = (encodings.len(), length);
        let batch = pad(encodings, length, self.tokenizer.pad_id())?;
        let at = match self.sessions.iter().position(|(s, _)| *s == size) {
            Some(at) => at,
            None => {
                let session = self.forward_session(size.0, size.1)?;
                if self.sessions.len() >= SESSIONS {
                    self.sessions.remove(0);
                }
                self.sessions.push((size, session));
                self.sessions.len() - 1
            }
        };
        let session = &mut self.sessions[at].1;
        session.set_input_u32("input_ids", &batch.ids)?;
        session.set_input_u32("token_type_ids", &batch.type_ids)?;
        session.set_input("attention_mask", &batch.mask)?;
        session.step()?;
        session.wait()?;
        session.read_output("embedding")
    }
}

/// The weights without those that files have and encoders do not use.
fn used(weights: &Weights) -> Weights {
    weights.iter().filter(|(n, _)| !Bert::ignores(n)).map(|(n, t)| (n.to_string(), t.clone())).collect()
}

fn compile(
    bert: &BertConfig,
    sentence: &SentenceConfig,
    weights: &Weights,
    (device, precision, tuning): (&Device, Precision, &Tuning),
    [batch, tokens]: [usize; 2],
) -> Result<crate::session::Compiled> {
    let g = Graph::new();
    let ids = g.input("input_ids", DType::U32, [batch, tokens]);
    let types = g.input("token_type_ids", DType::U32, [batch, tokens]);
    let mask = g.input("attention_mask", DType::F32, [batch, tokens]);
    let x = Bert::new(bert, weights).hidden_states(&g, ids, types, mask);
    g.output("embedding", Bert::pool(&g, x, mask, sentence.pooling, sentence.normalised));
    Compiler::new(device).with_precision(precision).with_tuning(tuning).compile(&g)
}
