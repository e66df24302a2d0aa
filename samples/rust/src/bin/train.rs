//! Train, validate, save; the next run resumes training: `train FOLDER [EPOCHS]`.

use std::path::PathBuf;
use weft::error::{Error, Result};
use weft::prelude::*;

const BATCH: usize = 32;
const SIZES: [usize; 3] = [2, 32, 2];

/// Points `[n, 2]` of two spirals, and which spiral each is of.
struct Points {
    x: Vec<f32>,
    labels: Vec<u32>,
}

impl Points {
    fn new(count: usize, seed: u32) -> Points {
        let mut random = Random(seed);
        let (mut x, mut labels) = (vec![], vec![]);
        for _ in 0..count {
            let (along, label) = (random.next(), (random.next() < 0.5) as u32);
            let angle = along * 4.0 + label as f32 * std::f32::consts::PI;
            let noise = [random.next() - 0.5, random.next() - 0.5].map(|v| 0.05 * v);
            x.extend([along * angle.cos() + noise[0], along * angle.sin() + noise[1]]);
            labels.push(label);
        }
        Points { x, labels }
    }

    /// The elements of some of the points, in that order.
    fn pick(&self, which: &[usize]) -> (Vec<f32>, Vec<u32>) {
        let x = which.iter().flat_map(|&i| [self.x[2 * i], self.x[2 * i + 1]]).collect();
        (x, which.iter().map(|&i| self.labels[i]).collect())
    }
}

/// Numbers in 0..1, the same for the same seed (Marsaglia 2003, "Xorshift RNGs").
struct Random(u32);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 8) as f32 / (1 << 24) as f32
    }

    /// Fisher and Yates's shuffle.
    fn shuffle(&mut self, items: &mut [usize]) {
        for i in (1..items.len()).rev() {
            items.swap(i, (self.next() * (i + 1) as f32) as usize);
        }
    }
}

/// The network over `batch` points; with labels it has a loss.
fn graph(batch: usize, learns: bool) -> Graph {
    let g = Graph::new();
    let logits = weft::models::mlp(&g, g.input("x", DType::F32, [batch, 2]), &SIZES);
    match learns {
        true => g.set_loss(g.cross_entropy(logits, g.input("labels", DType::U32, [batch]), Default::default())),
        false => g.output("class", g.argmax(logits, -1, false)),
    }
    g
}

/// Weights to begin with, uniform within ±1/√inputs.
fn fresh() -> Result<Weights> {
    let (mut weights, mut random) = (Weights::new(), Random(1));
    for (i, pair) in SIZES.windows(2).enumerate() {
        let bound = 1.0 / (pair[0] as f32).sqrt();
        let mut draw = |n: usize| (0..n).map(|_| bound * (2.0 * random.next() - 1.0)).collect::<Vec<f32>>();
        weights.insert(format!("layers.{i}.weight"), Tensor::from_vec([pair[1], pair[0]], draw(pair[0] * pair[1]))?);
        weights.insert(format!("layers.{i}.bias"), Tensor::from_vec([pair[1]], draw(pair[1]))?);
    }
    Ok(weights)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().unwrap_or_else(|| "train-sample".into()));
    let epochs: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(20);
    std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, "make", &e))?;
    let (file, states) = (folder.join("model.safetensors"), folder.join("optimizer.safetensors"));

    // what an earlier process saved, or fresh weights
    let weights = if file.exists() { load::safetensors(&file)? } else { fresh()? };
    let done: usize = weights.metadata().get("epochs").and_then(|n| n.parse().ok()).unwrap_or(0);

    // one graph learns, one answers; their sessions share the weights
    let compiler = Compiler::new(&Device::best()?);
    let mut learner = compiler.compile_training(&graph(BATCH, true))?.init(&weights)?;
    let validation = Points::new(256, 2);
    let mut judge = compiler.compile(&graph(256, false))?.init_shared(&learner.parameters())?;
    let mut accuracy = || -> Result<f64> {
        let class = judge.run(&[("x", &validation.x)])?.read::<i32>("class")?;
        let right = class.iter().zip(&validation.labels).filter(|(a, b)| **a as u32 == **b).count();
        Ok(right as f64 / class.len() as f64)
    };
    println!("{} epochs done before: {:.1} % right", done, 100.0 * accuracy()?);

    let training = Points::new(1024, 3);
    learner.set_optimizer(Optimizer::adamw(3e-3))?;
    if done > 0 {
        learner.restore_optimizer(&load::safetensors(&states)?)?; // its moments and its count of steps
    }
    let mut order: Vec<usize> = (0..training.labels.len()).collect();
    for epoch in done..done + epochs {
        let mut total = 0.0;
        Random(100 + epoch as u32).shuffle(&mut order);
        for batch in order.chunks_exact(BATCH) {
            let (x, labels) = training.pick(batch);
            learner.set_input("x", &x)?;
            learner.set_input("labels", &labels)?;
            learner.step()?;
            total += learner.loss()?;
        }
        if epoch % 5 == 4 {
            let loss = total / (order.len() / BATCH) as f32;
            println!("epoch {:3}: loss {loss:.4}, {:.1} % right", epoch + 1, 100.0 * accuracy()?);
        }
    }

    let mut weights = learner.parameters().to_weights()?;
    weights.metadata_mut().insert("epochs".into(), (done + epochs).to_string());
    load::save(&states, &learner.save_optimizer()?)?;
    load::save(&file, &weights)?;
    println!("{:.1} % right; saved {}", 100.0 * accuracy()?, file.display());
    Ok(())
}
