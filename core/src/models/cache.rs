//! Paged key-value caches for language models: their sizes, the inputs of a step, and the assignment of blocks to sequences.
//!
//! A cache is two states for each layer: rows of keys, and rows of values. A block is a fixed number of consecutive rows; a
//! sequence (for example a conversation) may have any blocks, in the order given by its row of the *table* (Kwon et al. 2023,
//! arXiv:2309.06180). So sequences of any length share one cache, truncating a sequence only changes its length, and nothing is
//! copied.
//!
//! [`CacheConfig`] and [`StepConfig`] are the sizes that a graph is built for; sessions with different [`StepConfig`]s share
//! one cache: for example many tokens at a time for prompts, one at a time for answers. [`Sequences`] manages blocks on the
//! host and creates each step's inputs.

use crate::error::{Error, Result};
use crate::graph::{Graph, Value};
use crate::session::Session;
use crate::tensor::DType;

/// The size of a cache: rows of keys and values in blocks.
///
/// ```
/// use weft::models::CacheConfig;
/// use weft::tensor::DType;
///
/// let cache = CacheConfig::new(2000).dtype(DType::F16);
/// assert_eq!((cache.block, cache.blocks(), cache.rows()), (64, 32, 2048));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheConfig {
    /// Minimum capacity in tokens, over all sequences.
    pub tokens: usize,
    /// Tokens per block.
    pub block: usize,
    /// The dtype of keys and values: f32, f16 or bf16.
    pub dtype: DType,
}

impl CacheConfig {
    /// Capacity for that many tokens over all sequences, in blocks of 64, as f32.
    pub fn new(tokens: usize) -> CacheConfig {
        CacheConfig { tokens: tokens.max(1), block: 64, dtype: DType::F32 }
    }

    /// Sets the block size.
    #[must_use]
    pub fn block(self, tokens: usize) -> CacheConfig {
        CacheConfig { block: tokens.max(1), ..self }
    }

    /// Stores keys and values as f16 or bf16: half the memory, rounded once.
    #[must_use]
    pub fn dtype(self, dtype: DType) -> CacheConfig {
        CacheConfig { dtype, ..self }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> usize {
        self.tokens.max(1).div_ceil(self.block.max(1))
    }

    /// Capacity of the blocks in tokens.
    pub fn rows(&self) -> usize {
        self.block.max(1).saturating_mul(self.blocks())
    }
}

/// The size of a step: number of sequences, and tokens of each.
///
/// ```
/// use weft::models::{CacheConfig, StepConfig};
///
/// let cache = CacheConfig::new(2048);
/// let (prefill, decode) = (StepConfig::new(&cache, 128), StepConfig::new(&cache, 1));
/// assert_eq!((prefill.tokens, prefill.sequences, prefill.blocks), (128, 1, 32));
/// let several = StepConfig::new(&cache, 1).sequences(8).blocks(16); // of up to 1024 tokens each
/// # let _ = (decode, several);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepConfig {
    /// Sequences.
    pub sequences: usize,
    /// Maximum tokens of each; fewer may be live.
    pub tokens: usize,
    /// Maximum blocks of a sequence.
    pub blocks: usize,
}

impl StepConfig {
    /// One sequence, which may use the whole cache.
    pub fn new(cache: &CacheConfig, tokens: usize) -> StepConfig {
        StepConfig { sequences: 1, tokens, blocks: cache.blocks() }
    }

    /// Sets the number of sequences.
    #[must_use]
    pub fn sequences(self, sequences: usize) -> StepConfig {
        StepConfig { sequences, ..self }
    }

    /// Limits the blocks of a sequence.
    #[must_use]
    pub fn blocks(self, blocks: usize) -> StepConfig {
        StepConfig { blocks, ..self }
    }
}

/// The inputs of a step in its graph. [`StepInputs`] has their elements.
#[derive(Clone, Copy)]
pub(super) struct StepValues {
    /// `ids`, u32 `[sequences, tokens]`.
    pub ids: Value,
    /// `positions`, u32 `[sequences · tokens]`, each token's position in its sequence.
    pub positions: Value,
    /// `rows`, i32 `[sequences · tokens]`, the cache row of each token; −1 for unused tokens.
    pub rows: Value,
    /// `table`, u32 `[sequences, blocks]`, the blocks of each sequence, after the check of its indices.
    pub table: Value,
    /// `lengths`, u32 `[sequences, tokens]`, the number of tokens visible to each, itself included; 0 for unused tokens.
    pub lengths: Value,
    /// `last`, u32 `[sequences]`, the index of each sequence's last live token among all; `None` if all logits are computed.
    pub last: Option<Value>,
}

impl StepValues {
    pub fn new(g: &Graph, cache: &CacheConfig, step: &StepConfig, last: bool) -> StepValues {
        let StepConfig { sequences, tokens, blocks } = *step;
        let all = sequences.saturating_mul(tokens);
        let input = |name: &str, shape: &[usize]| g.input(name, DType::U32, shape.to_vec());
        // the table is checked before each step: blocks outside the cache refuse it
        let table = input("table", &[sequences, blocks]);
        StepValues {
            ids: input("ids", &[sequences, tokens]),
            positions: input("positions", &[all]),
            rows: g.input("rows", DType::I32, [all]),
            table: g.check_labels(table, cache.blocks() as i64, i64::MIN),
            lengths: input("lengths", &[sequences, tokens]),
            last: last.then(|| input("last", &[sequences])),
        }
    }
}

/// The elements of a step's inputs.
///
/// ```
/// use weft::models::{CacheConfig, Sequences, StepConfig};
///
/// let cache = CacheConfig::new(12).block(4);
/// let mut all = Sequences::new(&cache);
/// let one = all.open();
/// let step = all.append(&StepConfig::new(&cache, 8), &[(one, &[7, 8, 9])])?;
/// assert_eq!(step.lengths, [1, 2, 3, 0, 0, 0, 0, 0]);
/// assert_eq!(step.rows, [0, 1, 2, -1, -1, -1, -1, -1]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepInputs {
    /// Token ids, `[sequences, tokens]`; 0 for unused tokens.
    pub ids: Vec<u32>,
    /// Each token's position in its sequence.
    pub positions: Vec<u32>,
    /// The cache row of each token; −1 for unused ones.
    pub rows: Vec<i32>,
    /// Blocks of each sequence, `[sequences, blocks]`.
    pub table: Vec<u32>,
    /// The number of tokens visible to each, `[sequences, tokens]`.
    pub lengths: Vec<u32>,
    /// The index of each sequence's last live token among all.
    pub last: Vec<u32>,
}

impl StepInputs {
    /// Sets a session's inputs for a step.
    ///
    /// # Errors
    /// [`Error::UnknownName`] or [`Error::Length`] for a session of another step size.
    pub fn set(&self, session: &mut Session) -> Result<()> {
        session.set_input("ids", &self.ids)?;
        session.set_input("positions", &self.positions)?;
        session.set_input("rows", &self.rows)?;
        session.set_input("table", &self.table)?;
        session.set_input("lengths", &self.lengths)?;
        if session.inputs().iter().any(|p| p.name == "last") {
            session.set_input("last", &self.last)?;
        }
        Ok(())
    }
}

/// A sequence of [`Sequences`].
///
/// ```
/// use weft::models::{CacheConfig, Sequences};
///
/// let mut all = Sequences::new(&CacheConfig::new(64));
/// let (one, other) = (all.open(), all.open());
/// assert_ne!(one, other);
/// all.close(one)?;
/// assert!(all.length(one).is_err());
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId {
    at: usize,
    /// The slot's generation: the number of earlier sequences in it.
    turn: usize,
}

/// The assignment of a cache's blocks to sequences, and the length of each sequence.
///
/// ```
/// use weft::models::{CacheConfig, Sequences, StepConfig};
///
/// let cache = CacheConfig::new(128).block(16);
/// let (mut all, one_token) = (Sequences::new(&cache), StepConfig::new(&cache, 1));
/// let chat = all.open();
/// all.append(&one_token, &[(chat, &[5])])?;
/// all.append(&one_token, &[(chat, &[6])])?;
/// all.truncate(chat, 1)?; // the second token is forgotten
/// assert_eq!((all.length(chat)?, all.free_blocks()), (1, 7));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Sequences {
    cache: CacheConfig,
    free: Vec<u32>,
    all: Vec<Option<Sequence>>,
    /// For each slot, its generation.
    turns: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct Sequence {
    length: usize,
    blocks: Vec<u32>,
}

impl Sequences {
    /// Without sequences: every block is free.
    pub fn new(cache: &CacheConfig) -> Sequences {
        Sequences {
            cache: *cache,
            free: (0..cache.blocks() as u32).rev().collect(),
            all: vec![],
            turns: vec![],
        }
    }

    /// A new sequence, without tokens.
    pub fn open(&mut self) -> SequenceId {
        let at = self.all.iter().position(Option::is_none).unwrap_or_else(|| {
            self.all.push(None);
            self.turns.push(0);
            self.all.len() - 1
        });
        self.all[at] = Some(Sequence::default());
        SequenceId { at, turn: self.turns[at] }
    }

    /// Closes a sequence and frees its blocks.
    ///
    /// # Errors
    /// [`Error::Argument`] for one that is not open.
    pub fn close(&mut self, id: SequenceId) -> Result<()> {
        self.truncate(id, 0)?;
        self.all[id.at] = None;
        self.turns[id.at] += 1;
        Ok(())
    }

    /// Length of a sequence, in tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] for one that is not open.
    pub fn length(&self, id: SequenceId) -> Result<usize> {
        self.get(id).map(|s| s.length)
    }

    /// Number of free blocks.
    pub fn free_blocks(&self) -> usize {
        self.free.len()
    }

    /// Truncates a sequence to `length` tokens; later tokens overwrite the cache's rows.
    ///
    /// # Errors
    /// [`Error::Argument`] for a sequence that is not open, or is shorter.
    pub fn truncate(&mut self, id: SequenceId, length: usize) -> Result<()> {
        let block = self.cache.block.max(1);
        let now = self.length(id)?;
        if length > now {
            return Err(Error::argument("truncate", format!("at most {now} tokens"), length));
        }
        if let Some(s) = &mut self.all[id.at] {
            s.length = length;
            let freed = s.blocks.split_off(length.div_ceil(block));
            self.free.extend(freed.into_iter().rev());
        }
        Ok(())
    }

    /// Appends tokens to sequences, at most as many per sequence as the step has, and returns the step's inputs. Sequences take
    /// the step's slots in order; other slots and tokens are unused. If the step then fails, truncate the sequences again
    /// ([`truncate`](Sequences::truncate)).
    ///
    /// # Errors
    /// [`Error::Argument`] for more sequences or tokens than the step has, a sequence that is not open or repeated, an empty
    /// list of tokens, or more blocks than a sequence may have or are free; nothing is appended then.
    pub fn append(&mut self, step: &StepConfig, work: &[(SequenceId, &[u32])]) -> Result<StepInputs> {
        if work.is_empty() || work.len() > step.sequences {
            return Err(Error::argument("step", format!("1 to {} sequences", step.sequences), work.len()));
        }
        let mut wanted = 0;
        for (n, (id, ids)) in work.iter().enumerate() {
            let s = self.get(*id)?;
            if work[..n].iter().any(|(other, _)| other == id) {
                return Err(Error::argument(
                    "step",
                    "each sequence once",
                    format!("sequence {} twice", id.at),
                ));
            }
            if ids.is_empty() || ids.len() > step.tokens {
                return Err(Error::argument("step", format!("1 to {} tokens", step.tokens), ids.len()));
            }
            let blocks = (s.length + ids.len()).div_ceil(self.cache.block.max(1));
            if blocks > step.blocks {
                let most = step.blocks * self.cache.block;
                let came = format!("{} after {}", ids.len(), s.length);
                return Err(Error::argument("step", format!("sequences of at most {most} tokens"), came));
            }
            wanted += blocks - s.blocks.len().min(blocks);
        }
        if wanted > self.free.len() {
            let came = format!("{} free of {}", self.free.len(), self.cache.blocks());
            return Err(Error::argument(
                "cache",
                format!("{wanted} free blocks of {} tokens", self.cache.block),
                came,
            ));
        }
        let places = step.sequences.saturating_mul(step.tokens);
        let mut all = StepInputs {
            ids: vec![0; places],
            positions: vec![0; places],
            rows: vec![-1; places],
            table: vec![0; step.sequences * step.blocks],
            lengths: vec![0; places],
            last: (0..step.sequences).map(|n| (n * step.tokens) as u32).collect(),
        };
        for (n, (id, ids)) in work.iter().enumerate() {
            self.add(id.at, ids, step, n, &mut all);
        }
        Ok(all)
    }

    /// Adds the tokens of the step's n-th sequence; its blocks are already assigned.
    fn add(&mut self, id: usize, ids: &[u32], step: &StepConfig, n: usize, all: &mut StepInputs) {
        let block = self.cache.block.max(1);
        let Some(s) = &mut self.all[id] else { return };
        for (i, token) in ids.iter().enumerate() {
            let position = s.length + i;
            if position / block == s.blocks.len() {
                s.blocks.extend(self.free.pop());
            }
            let at = n * step.tokens + i;
            all.ids[at] = *token;
            all.positions[at] = position as u32;
            all.rows[at] = (s.blocks[position / block] as usize * block + position % block) as i32;
            all.lengths[at] = position as u32 + 1;
            all.last[n] = at as u32;
        }
        s.length += ids.len();
        all.table[n * step.blocks..][..s.blocks.len()].copy_from_slice(&s.blocks);
    }

    fn get(&self, id: SequenceId) -> Result<&Sequence> {
        let own = self.turns.get(id.at) == Some(&id.turn);
        let open = self.all.get(id.at).and_then(Option::as_ref).filter(|_| own);
        open.ok_or_else(|| {
            Error::argument("sequence", "one that is open", format!("number {}, which was closed", id.at))
        })
    }
}
