//! The digit classifier: its graphs for inference and for training, and sessions over one set of weights.

use crate::args::Place;
use crate::digits::{CLASSES, Digit, PIXELS};
use crate::failure::Result;
use crate::random::Random;
use weft::graph::Graph;
use weft::models::mlp;
use weft::session::{Compiled, Session};
use weft::tensor::{DType, Tensor, Weights};

/// Pixels, hidden units, classes.
const SIZES: [usize; 3] = [PIXELS, 64, CLASSES];

/// The graph: `pixels` `[batch, 64]` to `probabilities` `[batch, 10]`, or with `labels` `[batch]` to a loss.
fn graph(batch: usize, learns: bool) -> Graph {
    let g = Graph::new();
    let pixels = g.input("pixels", DType::F32, [batch, PIXELS]);
    let logits = mlp(&g, pixels, &SIZES);
    if learns {
        let labels = g.input("labels", DType::U32, [batch]);
        g.set_loss(g.cross_entropy(logits, labels, Default::default()));
    } else {
        g.output("probabilities", g.softmax(logits, -1));
    }
    g
}

/// Compiled for inference, one digit at a time.
pub fn compile(place: &Place) -> Result<Compiled> {
    Ok(place.compiler().compile(&graph(1, false))?)
}

/// Compiled for training with `batch` digits per step.
pub fn compile_learning(place: &Place, batch: usize) -> Result<Compiled> {
    Ok(place.compiler().compile_training(&graph(batch, true))?)
}

/// Untrained weights, uniform within ±1/√inputs.
pub fn fresh_weights(random: &mut Random) -> Result<Weights> {
    let mut weights = Weights::new();
    for (i, pair) in SIZES.windows(2).enumerate() {
        let bound = 1.0 / (pair[0] as f32).sqrt();
        let mut draw = |n: usize| (0..n).map(|_| random.between(-bound, bound)).collect::<Vec<f32>>();
        let (weight, bias) = (draw(pair[0] * pair[1]), draw(pair[1]));
        weights.insert(format!("layers.{i}.weight"), Tensor::from_vec([pair[1], pair[0]], weight)?);
        weights.insert(format!("layers.{i}.bias"), Tensor::from_vec([pair[1]], bias)?);
    }
    Ok(weights)
}

/// A classification.
#[derive(Clone, Copy)]
pub struct Answer {
    pub class: u32,
    pub probability: f32,
}

/// Classifies one digit.
pub fn classify(session: &mut Session, digit: &Digit) -> Result<Answer> {
    session.set_input("pixels", &digit.pixels)?;
    session.step()?;
    session.wait()?;
    let probabilities = session.read_output::<f32>("probabilities")?;
    let best =
        (0..probabilities.len()).max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b])).unwrap_or(0);
    Ok(Answer { class: best as u32, probability: probabilities[best] })
}

/// The accuracy over digits.
pub fn accuracy(session: &mut Session, digits: &[Digit]) -> Result<f64> {
    let mut right = 0;
    for digit in digits {
        right += usize::from(classify(session, digit)?.class == digit.class);
    }
    Ok(right as f64 / digits.len().max(1) as f64)
}

/// Options of training.
pub struct Course {
    pub batch: usize,
    pub epochs: usize,
    /// The initial learning rate; it decays linearly to `last_rate`.
    pub rate: f32,
    pub last_rate: f32,
}

impl Course {
    /// Total number of steps, for that many digits.
    pub fn steps(&self, digits: usize) -> usize {
        self.epochs * (digits / self.batch)
    }

    /// Trains with the session's optimizer, over whole batches in a new random order each epoch. `vary` may alter each digit;
    /// `progress` gets each step and its loss. Returns the mean losses of the first and of the last epoch.
    pub fn run(
        &self,
        session: &mut Session,
        digits: &[Digit],
        random: &mut Random,
        vary: impl Fn(&Digit, &mut Random) -> Digit,
        mut progress: impl FnMut(usize, f32),
    ) -> Result<(f32, f32)> {
        let steps = self.steps(digits.len());
        let (mut done, mut first, mut last) = (0, 0.0, 0.0);
        let mut order: Vec<&Digit> = digits.iter().collect();
        for epoch in 0..self.epochs {
            random.shuffle(&mut order);
            let mut total = 0.0;
            for batch in order.chunks_exact(self.batch) {
                let seen: Vec<Digit> = batch.iter().map(|d| vary(d, random)).collect();
                session.set_input("pixels", &seen.iter().flat_map(|d| d.pixels).collect::<Vec<_>>())?;
                session.set_input::<u32>("labels", &seen.iter().map(|d| d.class).collect::<Vec<_>>())?;
                let left = 1.0 - done as f32 / steps as f32;
                session.set_learning_rate(self.last_rate + (self.rate - self.last_rate) * left)?;
                session.step()?;
                session.wait()?;
                done += 1;
                let loss = session.loss()?;
                total += loss;
                progress(done, loss);
            }
            last = total / (digits.len() / self.batch) as f32;
            if epoch == 0 {
                first = last;
            }
        }
        Ok((first, last))
    }
}
