//! What each form of work is, a row each: what passes, checks and forecasts ask of a step whatever its form.

use super::{AttentionInputs, BufferId, Work};

/// The row of a step's work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// What sort of work it is, in words.
    pub sort: &'static str,
    /// The largest number that kernels count in it, elements that operands repeat among them. (Those of its buffers are the
    /// buffers' own.)
    pub counted: usize,
    /// How much a thread does one after the other, roughly.
    pub depth: usize,
    /// Matrix units do it, where there are some.
    pub on_matrices: bool,
    /// What it writes of its results' buffers.
    pub written: Written,
}

/// What a step writes of its results' buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// All of them.
    Whole,
    /// So many elements of each: other steps may write the rest.
    Elements(usize),
    /// So many elements of that one, and all of others.
    Of(BufferId, usize),
    /// Each of its kernels a part.
    Parts,
}

impl Written {
    /// Whether it is only a part of a buffer of so many elements.
    pub fn is_part(self, buffer: BufferId, elements: usize) -> bool {
        match self {
            Written::Whole => false,
            Written::Elements(n) => n < elements,
            Written::Of(of, n) => of == buffer && n < elements,
            Written::Parts => true,
        }
    }
}

fn product(sizes: &[usize]) -> usize {
    sizes.iter().fold(1usize, |n, s| n.saturating_mul(*s))
}

impl Work {
    /// What it is.
    pub fn facts(&self) -> Facts {
        let none = Facts { sort: "", counted: 0, depth: 0, on_matrices: false, written: Written::Whole };
        let attention = |w: &AttentionInputs| {
            let (queries, keys) = (product(&[w.b, w.h, w.l]), product(&[w.b, w.h_kv, w.s.max(w.stored().0)]));
            queries.max(keys).saturating_mul(w.d.max(w.d_v)).max(w.form.window)
        };
        match self {
            Work::Rowwise(w) => {
                let sizes = |is: &dyn Fn(bool) -> bool| -> usize {
                    w.domain.iter().zip(&w.reduced).filter(|(_, r)| is(**r)).map(|(n, _)| n).product()
                };
                let reduces = !w.reductions.is_empty();
                Facts {
                    sort: if reduces { "rowwise" } else { "pointwise" },
                    counted: product(&w.domain),
                    depth: if reduces { sizes(&|reduced| reduced) } else { 0 },
                    written: Written::Of(w.out.buffer, sizes(&|reduced| !w.per_row || !reduced)),
                    ..none
                }
            }
            Work::Product(w) => Facts {
                sort: "product",
                counted: w.m.max(w.n).saturating_mul(w.k).max(product(&w.batch)),
                depth: w.k,
                on_matrices: true,
                written: Written::Elements(w.batch.iter().product::<usize>() * w.m * w.n),
            },
            Work::Convolution(w) => Facts {
                sort: "convolution",
                counted: product(&w.input_shape).max(product(&w.weight_shape)),
                depth: w.weight_shape.iter().skip(1).product(),
                on_matrices: true,
                ..none
            },
            Work::Attention(w) => Facts {
                sort: "attention",
                counted: attention(&w.inputs),
                depth: w.inputs.s.saturating_mul(w.inputs.d),
                on_matrices: true,
                ..none
            },
            Work::AttentionGrad(w) => Facts {
                sort: "attention gradient",
                counted: attention(&w.inputs),
                depth: w.inputs.s.saturating_mul(w.inputs.d),
                on_matrices: false,
                written: Written::Parts,
            },
            Work::Index(w) => Facts { sort: "look-up", counted: product(&w.indices_shape), ..none },
            Work::Scan(w) => Facts { sort: "scan", counted: product(&[w.outer, w.n, w.inner]), ..none },
            Work::Pool(w) => {
                Facts { sort: "pooling", counted: product(&[w.planes, w.output[0], w.output[1]]), ..none }
            }
            Work::Dequantise(..) => Facts { sort: "dequantise", ..none },
        }
    }

    /// What sort of work it is, in words.
    pub fn sort(&self) -> &'static str {
        self.facts().sort
    }
}
