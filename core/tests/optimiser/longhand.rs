//! A BERT encoder spelled in primitives, as an ONNX export has it: every norm, GELU, softmax and attention, products as
//! `MatMul` of a transposed weight and an `Add` that has the bias first. Names and sizes are those of `weft::models::Bert`.

use weft::graph::{Graph, Value};
use weft::models::BertConfig;
use weft::tensor::DType;

pub struct Longhand<'a> {
    pub config: &'a BertConfig,
    pub g: &'a Graph,
}

impl Longhand<'_> {
    fn scalar(&self, v: f64) -> Value {
        self.g.scalar(v, DType::F32)
    }

    fn linear(&self, x: Value, name: &str, from: usize, to: usize) -> Value {
        let g = self.g;
        let w = g.parameter(&format!("{name}.weight"), [to, from]);
        let b = g.parameter(&format!("{name}.bias"), [to]);
        g.add(b, g.matmul(x, g.permute(w, &[1, 0])))
    }

    fn norm(&self, x: Value, name: &str) -> Value {
        let (g, h) = (self.g, self.config.hidden);
        let (w, b) = (g.parameter(&format!("{name}.weight"), [h]), g.parameter(&format!("{name}.bias"), [h]));
        let centred = g.sub(x, g.mean(x, &[-1], true));
        let variance = g.mean(g.pow(centred, self.scalar(2.0)), &[-1], true);
        let normed = g.div(centred, g.sqrt(g.add(variance, self.scalar(self.config.eps))));
        g.add(g.mul(normed, w), b)
    }

    fn softmax(&self, x: Value) -> Value {
        let g = self.g;
        let e = g.exp(g.sub(x, g.max_over(x, &[3], true)));
        g.div(e, g.sum(e, &[3], true))
    }

    fn gelu(&self, x: Value) -> Value {
        let g = self.g;
        let inner = g.add(g.erf(g.div(x, self.scalar(std::f64::consts::SQRT_2))), self.scalar(1.0));
        g.mul(g.mul(x, inner), self.scalar(0.5))
    }

    fn layer(&self, x: Value, mask: Value, name: &str) -> Value {
        let (g, c) = (self.g, self.config);
        let (h, d) = (c.heads as i64, (c.hidden / c.heads) as i64);
        let shape = g.shape(x);
        let (b, s) = (shape[0] as i64, shape[1] as i64);
        let heads = |which: &str, order: &[i64]| {
            let y = self.linear(x, &format!("{name}.attention.self.{which}"), c.hidden, c.hidden);
            g.permute(g.reshape(y, &[b, s, h, d]), order)
        };
        let (q, k, v) =
            (heads("query", &[0, 2, 1, 3]), heads("key", &[0, 2, 3, 1]), heads("value", &[0, 2, 1, 3]));
        let scores = g.add(g.div(g.matmul(q, k), self.scalar((d as f64).sqrt())), mask);
        let seen = g.matmul(self.softmax(scores), v);
        let joined = g.reshape(g.permute(seen, &[0, 2, 1, 3]), &[b, s, c.hidden as i64]);
        let y = self.linear(joined, &format!("{name}.attention.output.dense"), c.hidden, c.hidden);
        let x = self.norm(g.add(y, x), &format!("{name}.attention.output.LayerNorm"));
        let y = self.gelu(self.linear(x, &format!("{name}.intermediate.dense"), c.hidden, c.intermediate));
        let y = self.linear(y, &format!("{name}.output.dense"), c.intermediate, c.hidden);
        self.norm(g.add(y, x), &format!("{name}.output.LayerNorm"))
    }

    /// Token vectors, as `Bert::hidden_states`.
    pub fn hidden_states(&self, ids: Value, types: Value, mask: Value) -> Value {
        let (g, c) = (self.g, self.config);
        let table = |n: &str, rows: usize| {
            g.parameter(&format!("embeddings.{n}_embeddings.weight"), [rows, c.hidden])
        };
        let (b, s) = (g.shape(ids)[0] as i64, g.shape(ids)[1] as i64);
        let words = g.embedding(table("word", c.vocabulary), ids);
        let kinds = g.embedding(table("token_type", c.types), types);
        let places = g.narrow(table("position", c.positions), 0, 0, s);
        let mut x = self.norm(g.add(g.add(words, kinds), places), "embeddings.LayerNorm");
        let hidden = g.mul(g.sub(self.scalar(1.0), mask), self.scalar(-1e9));
        let hidden = g.reshape(hidden, &[b, 1, 1, s]);
        for layer in 0..c.layers {
            x = self.layer(x, hidden, &format!("encoder.layer.{layer}"));
        }
        x
    }
}
