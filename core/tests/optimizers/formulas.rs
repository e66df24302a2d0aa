//! Optimizers in f64, from their papers and documentation; nothing here knows the engine's rules.

use super::{count, gradient, number};
use weft::optimizer::Optimizer;

/// A parameter under one of them.
pub struct Formula {
    kind: &'static str,
    of: Optimizer,
    pub rate: f64,
    tensor: usize,
    shape: Vec<usize>,
    pub p: Vec<f64>,
    /// The largest size that each element has had.
    pub largest: Vec<f64>,
    /// How far each element has gone, there and back.
    pub path: Vec<f64>,
    /// How often a step rounds an element itself.
    pub roundings: f64,
    /// Units in the last place by which a step may be off.
    pub units: f64,
    first: Vec<f64>,
    second: Vec<f64>,
    rows: Vec<f64>,
    columns: Vec<f64>,
}

impl Formula {
    pub fn new(optimizer: &Optimizer, tensor: usize, shape: &[usize]) -> Formula {
        let n = count(shape);
        let p: Vec<f64> = (0..n).map(|i| f64::from(number(tensor, 0, i))).collect();
        let kind = optimizer.rule().name;
        Formula {
            kind,
            of: optimizer.clone(),
            rate: f64::from(optimizer.learning_rate()),
            tensor,
            shape: shape.to_vec(),
            largest: p.iter().map(|v| v.abs()).collect(),
            path: vec![0.0; n],
            p,
            roundings: if optimizer.setting("weight_decay").unwrap() > 0.0 { 3.0 } else { 1.0 },
            // sums of products of means, a root and a quotient; means of up to 80,000 squares
            units: if kind == "adafactor" { 64.0 } else { 16.0 },
            first: vec![0.0; n],
            second: vec![0.0; n],
            rows: vec![0.0; n / shape.last().copied().unwrap_or(1)],
            columns: vec![0.0; n],
        }
    }

    fn setting(&self, name: &str) -> f64 {
        f64::from(self.of.setting(name).unwrap())
    }

    /// The step of that number, from 1.
    pub fn step(&mut self, t: usize) {
        let g: Vec<f64> = (0..self.p.len()).map(|i| f64::from(gradient(self.tensor, t, i))).collect();
        let before = self.p.clone();
        match self.kind {
            "sgd" => self.sgd(&g),
            "adam" | "adamw" => self.adam(&g, t),
            "laprop" => self.laprop(&g, t),
            "lion" => self.lion(&g),
            "adafactor" => self.adafactor(&g, t),
            other => panic!("{other}"),
        }
        // a step may be a difference of two larger ones: weight decay against the gradient, old means against new
        let decay = self.rate * self.setting("weight_decay");
        for (i, before) in before.into_iter().enumerate() {
            self.path[i] += (self.p[i] - before).abs() + decay * before.abs() + self.span(i, before, &g);
            self.largest[i] = self.largest[i].max(self.p[i].abs());
        }
    }

    /// How far a step would have gone if nothing in it had cancelled.
    fn span(&self, i: usize, before: f64, g: &[f64]) -> f64 {
        match self.kind {
            "sgd" => self.rate * (g[i].abs() + self.first[i].abs()),
            // the sum of gradient and decay may be much smaller than both, and its sign is what counts
            "adam" => {
                let decay = self.setting("weight_decay") * before;
                self.rate * ((g[i].abs() + decay.abs()) / (g[i] + decay).abs()).max(1.0)
            }
            _ => self.rate,
        }
    }

    /// PyTorch's documentation of torch.optim.SGD.
    fn sgd(&mut self, g: &[f64]) {
        let [momentum, nesterov, decay] = ["momentum", "nesterov", "weight_decay"].map(|s| self.setting(s));
        for i in 0..g.len() {
            let g = g[i] + decay * self.p[i];
            self.first[i] = momentum * self.first[i] + g;
            let direction = if nesterov != 0.0 { g + momentum * self.first[i] } else { self.first[i] };
            self.p[i] -= self.rate * direction;
        }
    }

    /// Kingma & Ba 2015, algorithm 1; Loshchilov & Hutter 2019, algorithm 2.
    fn adam(&mut self, g: &[f64], t: usize) {
        let [b1, b2, epsilon, decay] = ["beta1", "beta2", "epsilon", "weight_decay"].map(|s| self.setting(s));
        for i in 0..g.len() {
            let mut g = g[i];
            if self.kind == "adamw" {
                self.p[i] -= self.rate * decay * self.p[i];
            } else {
                g += decay * self.p[i];
            }
            self.first[i] = b1 * self.first[i] + (1.0 - b1) * g;
            self.second[i] = b2 * self.second[i] + (1.0 - b2) * g * g;
            let m = self.first[i] / (1.0 - b1.powi(t as i32));
            let v = self.second[i] / (1.0 - b2.powi(t as i32));
            self.p[i] -= self.rate * m / (v.sqrt() + epsilon);
        }
    }

    /// Ziyin, Wang & Ueda 2020, as in their code.
    fn laprop(&mut self, g: &[f64], t: usize) {
        let [b1, b2, epsilon, decay] = ["beta1", "beta2", "epsilon", "weight_decay"].map(|s| self.setting(s));
        for (i, g) in g.iter().enumerate() {
            self.second[i] = b2 * self.second[i] + (1.0 - b2) * g * g;
            let u = g / ((self.second[i] / (1.0 - b2.powi(t as i32))).sqrt() + epsilon);
            self.first[i] = b1 * self.first[i] + (1.0 - b1) * self.rate * u;
            self.p[i] -= self.first[i] / (1.0 - b1.powi(t as i32));
            self.p[i] -= decay * self.p[i];
        }
    }

    /// Chen et al. 2023, algorithm 2.
    fn lion(&mut self, g: &[f64]) {
        let [b1, b2, decay] = ["beta1", "beta2", "weight_decay"].map(|s| self.setting(s));
        for (i, g) in g.iter().enumerate() {
            let c = b1 * self.first[i] + (1.0 - b1) * g;
            let sign = if c == 0.0 { 0.0 } else { c.signum() };
            self.p[i] -= self.rate * (sign + decay * self.p[i]);
            self.first[i] = b2 * self.first[i] + (1.0 - b2) * g;
        }
    }

    /// PyTorch's documentation of torch.optim.Adafactor.
    fn adafactor(&mut self, g: &[f64], t: usize) {
        let [beta2_decay, e1, e2, d, decay] =
            ["beta2_decay", "epsilon1", "epsilon2", "clip", "weight_decay"].map(|s| self.setting(s));
        let new = (t as f64).powf(beta2_decay);
        let n = g.len() as f64;
        let size = (self.p.iter().map(|p| p * p).sum::<f64>() / n).sqrt();
        let alpha = size.max(e2) * self.rate.min(1.0 / (t as f64).sqrt());
        let variance: Vec<f64> = match self.shape[..] {
            [.., r, c] => {
                let matrices = g.len() / (r * c);
                let mut all = vec![0.0; g.len()];
                for m in 0..matrices {
                    let of = |i: usize, j: usize| g[(m * r + i) * c + j].powi(2);
                    for i in 0..r {
                        let mean = (0..c).map(|j| of(i, j)).sum::<f64>() / c as f64;
                        self.rows[m * r + i] += new * (mean - self.rows[m * r + i]);
                    }
                    for j in 0..c {
                        let mean = (0..r).map(|i| of(i, j)).sum::<f64>() / r as f64;
                        self.columns[m * c + j] += new * (mean - self.columns[m * c + j]);
                    }
                    let mean = self.rows[m * r..(m + 1) * r].iter().sum::<f64>() / r as f64;
                    for i in 0..r {
                        for j in 0..c {
                            all[(m * r + i) * c + j] =
                                self.rows[m * r + i] * self.columns[m * c + j] / mean.max(e1);
                        }
                    }
                }
                all
            }
            _ => {
                for (second, g) in self.second.iter_mut().zip(g) {
                    *second += new * (g * g - *second);
                }
                self.second.clone()
            }
        };
        let update: Vec<f64> = g.iter().zip(&variance).map(|(g, v)| g / v.max(e1 * e1).sqrt()).collect();
        let length = (update.iter().map(|u| u * u).sum::<f64>() / n).sqrt();
        let step = alpha / (length / d).max(1.0);
        for (p, update) in self.p.iter_mut().zip(update) {
            *p -= self.rate * decay * *p;
            *p -= step * update;
        }
    }
}
