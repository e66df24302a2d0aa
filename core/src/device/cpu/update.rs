//! Optimizer updates of parameters in place: stochastic gradient descent and Adam.

use super::threads::ThreadPool;
use crate::device::Optimizer;

/// Adam's running means for one parameter.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    /// Of gradients.
    pub first: Vec<f32>,
    /// Of squared gradients.
    pub second: Vec<f32>,
}

impl Moments {
    /// Zeros for a parameter of so many elements; `None` if there is not enough memory.
    pub fn zeros(elements: usize) -> Option<Moments> {
        let zeros = || {
            let mut all = vec![];
            all.try_reserve_exact(elements).ok()?;
            all.resize(elements, 0.0);
            Some(all)
        };
        Some(Moments { first: zeros()?, second: zeros()? })
    }
}

const CHUNK: usize = 16 * 1024;

#[derive(Clone, Copy)]
struct Raw(*mut f32);
// SAFETY: an address; tasks touch disjoint chunks.
unsafe impl Sync for Raw {}

impl Raw {
    /// The chunk of a task.
    ///
    /// # Safety
    /// `at + len` elements exist, and no other task has this chunk.
    unsafe fn chunk<'a>(&self, at: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: by the caller.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(at), len) }
    }
}

/// Applies one update; `step` counts from 1.
pub fn update(
    pool: &ThreadPool,
    optimizer: Optimizer,
    step: u64,
    p: &mut [f32],
    g: &[f32],
    moments: &mut Moments,
) {
    let n = p.len().min(g.len());
    let adam = matches!(optimizer, Optimizer::Adam { .. });
    if adam && moments.first.len() != n {
        *moments = Moments { first: vec![0.0; n], second: vec![0.0; n] };
    }
    let (p, m, v) = (Raw(p.as_mut_ptr()), Raw(moments.first.as_mut_ptr()), Raw(moments.second.as_mut_ptr()));
    pool.run(n.div_ceil(CHUNK), &|task, _| {
        let at = task * CHUNK;
        let len = CHUNK.min(n - at);
        let g = &g[at..at + len];
        // SAFETY: chunks of different tasks are disjoint and inside n elements; moments have n where used.
        unsafe {
            match optimizer {
                Optimizer::Sgd { lr } => p.chunk(at, len).iter_mut().zip(g).for_each(|(p, g)| *p -= lr * g),
                Optimizer::Adam { lr, beta1, beta2, eps } => {
                    let correct = |b: f32| (1.0 - f64::from(b).powf(step as f64)) as f32;
                    let (scale, root) = (lr / correct(beta1), correct(beta2).sqrt().recip());
                    let state = m.chunk(at, len).iter_mut().zip(v.chunk(at, len));
                    for ((p, g), (m, v)) in p.chunk(at, len).iter_mut().zip(g).zip(state) {
                        *m = beta1 * *m + (1.0 - beta1) * g;
                        *v = beta2 * *v + (1.0 - beta2) * g * g;
                        *p -= scale * *m / (v.sqrt() * root + eps);
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adam_follows_its_definition() {
        let pool = ThreadPool::new(2);
        let optimizer = Optimizer::Adam { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8 };
        let (mut p, mut moments) = (vec![1.0f32, -2.0], Moments::default());
        let (mut q, mut m, mut v) = ([1.0f64, -2.0], [0.0f64; 2], [0.0f64; 2]);
        for t in 1..=20u64 {
            let g: Vec<f32> = p.iter().map(|p| 2.0 * p - 0.3).collect();
            update(&pool, optimizer, t, &mut p, &g, &mut moments);
            for i in 0..2 {
                let g = 2.0 * q[i] - 0.3;
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (mh, vh) = (m[i] / (1.0 - 0.9f64.powi(t as i32)), v[i] / (1.0 - 0.999f64.powi(t as i32)));
                q[i] -= 0.1 * mh / (vh.sqrt() + 1e-8);
            }
        }
        assert!(p.iter().zip(q).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "{p:?} {q:?}");
    }
}
