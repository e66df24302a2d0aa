//! Paged attention, over keys and values in blocks of a cache: a table gives the blocks of each sequence (as in Kwon et al.
//! 2023, "PagedAttention", arXiv:2309.06180), and the number of keys visible to each query is data, too. So one cache contains
//! sequences of any length, sequences may share blocks, and the work is proportional to the used part.

use super::attention::{Checked, scale_and_window, shares};
use super::movement::{accepted, signed};
use super::samples::{as_dtype, cycle, normal, sample};
use crate::error::Error;
use crate::graph::{Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, PagedForm, Sample, Value, refuse};
use crate::ops::AttentionOptions;
use crate::tensor::{DType, TensorType};

/// Sizes of q [b, h, l, d], keys [rows, kv, d], values [rows, kv, dv] and a table [b, n].
struct Sizes {
    b: usize,
    h: usize,
    kv: usize,
    l: usize,
    d: usize,
    dv: usize,
    rows: usize,
    blocks: usize,
}

fn checked(c: &Call<'_>) -> Checked<(Sizes, PagedForm)> {
    let came = || c.inputs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let [q, keys, values, table, lengths] = [0, 1, 2, 3, 4].map(|i| &c.inputs[i]);
    let shapes = (&q.shape[..], &keys.shape[..], &values.shape[..]);
    let (&[b, h, l, d], &[rows, kv, dk], &[rv, hv, dv]) = shapes else {
        return refuse("q [b, h, l, d], keys [rows, kv, d] and values [rows, kv, dv]", came());
    };
    let stored = matches!(keys.dtype, DType::F32 | DType::F16 | DType::BF16) && keys.dtype == values.dtype;
    if q.dtype != DType::F32 || !stored || rows != rv || kv != hv || d != dk || h % kv != 0 {
        let wanted = "f32 q [b, h, l, d]; keys [rows, kv, d] and values [rows, kv, dv] of one float dtype, kv dividing h";
        return refuse(wanted, came());
    }
    if !matches!(table.dtype, DType::U32 | DType::I32) || table.rank() != 2 || table.shape[0] != b {
        return refuse(format!("a table of blocks, u32 or i32 [{b}, blocks of a sequence]"), table);
    }
    if lengths.dtype != DType::U32 || lengths.shape != [b, l] {
        return refuse(format!("how many keys each query sees, u32[{b}, {l}]"), lengths);
    }
    let block = c.attrs.int("block");
    let Some(block) = usize::try_from(block).ok().filter(|&n| n > 0 && rows % n == 0) else {
        return refuse(format!("a block of at least one row that divides {rows}"), block);
    };
    let (scale, window) = scale_and_window(c)?;
    let capacity = table.shape[1].saturating_mul(block);
    if l.max(capacity).max(rows) > 1 << 30 {
        return refuse("sequences and caches of at most 2³⁰", came());
    }
    let form = PagedForm { scale, window, block };
    Ok((Sizes { b, h, kv, l, d, dv, rows, blocks: table.shape[1] }, form))
}

/// The row of each key of a sequence, and the range of keys visible to each of its queries.
struct Seen {
    rows: Vec<usize>,
    ranges: Vec<[usize; 2]>,
}

fn seen(z: &Sizes, form: &PagedForm, table: &Array, lengths: &Array, b: usize) -> Seen {
    let last = z.rows / form.block - 1;
    // including those below 0
    let block =
        |n: usize| Some(table.at(&[b, n])).filter(|v| *v >= 0.0).map_or(last, |v| (v as usize).min(last));
    let rows = (0..z.blocks * form.block).map(|j| block(j / form.block) * form.block + j % form.block);
    let range = |i: usize| {
        let to = (lengths.at(&[b, i]) as usize).min(z.blocks * form.block);
        [if form.window > 0 { to.saturating_sub(form.window) } else { 0 }, to]
    };
    Seen { rows: rows.collect(), ranges: (0..z.l).map(range).collect() }
}

op! {
    PagedAttention: "paged_attention" as paged_attention(q, keys, values, table, lengths)
        with PagedAttentionOptions(block: Int, scale: Float) [
        block: Int = "Rows of keys and values per block.",
        scale: Float = "Factor on the scores, usually 1/√d.",
        window: Int = "A query that sees n keys sees only the last `window` of them; 0: all." => 0,
    ]
    "softmax(q·kᵀ·scale)·v of q [b, h, l, d] over keys [rows, kv, d] and values [rows, kv, dv] of a cache, f32, f16 or bf16: key j of sequence b \
     is row table[b, j / block]·block + j mod block, and query i of it sees the first lengths[b, i] keys; one that sees none is 0. \
     Entries of the table outside the cache are taken as its last block, lengths beyond the last key as all: `check_labels` refuses them."
    infer: |c| {
        let (z, _) = checked(c)?;
        Ok(TensorType::f32([z.b, z.h, z.l, z.dv]))
    };
    evaluate: |op, c, x| {
        let (z, form) = checked(c).map_err(|e| Error::internal(e.wanted))?;
        let mut result = Array::full(accepted(op, c)?, 0.0);
        for b in 0..z.b {
            let Seen { rows, ranges } = seen(&z, &form, x[3], x[4], b);
            for (h, (i, &[from, to])) in (0..z.h).flat_map(|h| ranges.iter().enumerate().map(move |r| (h, r))) {
                let g = h / (z.h / z.kv);
                let dot = |&row: &usize| -> f64 {
                    (0..z.d).map(|e| x[0].at(&[b, h, i, e]) * x[1].at(&[row, g, e])).sum::<f64>() * form.scale
                };
                let keys = &rows[from..to];
                let scores: Vec<f64> = keys.iter().map(dot).collect();
                for (w, row) in shares(&scores).into_iter().zip(keys).filter(|(w, _)| *w != 0.0) {
                    for e in 0..z.dv {
                        result.data[((b * z.h + h) * z.l + i) * z.dv + e] += w * x[2].at(&[*row, g, e]);
                    }
                }
            }
        }
        Ok(result)
    };
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |c| checked(c).map_or(Lowering::Decompose, |(_, form)| Lowering::PagedAttention(form));
    decompose: decompose;
    samples: samples;
}

/// Keys and values gathered from their rows, and a mask.
fn decompose(g: &Graph, x: &[Value], attrs: &Attrs) -> Value {
    let types: Vec<TensorType> = x.iter().map(|&v| g.ty(v)).collect();
    let Ok((z, form)) = checked(&Call { inputs: &types, attrs }) else { return Value::POISON };
    let number = |n: usize| g.scalar(n as f64, DType::U32);
    let capacity = z.blocks * form.block;
    // as u32, negative entries are out of range
    let table = if g.ty(x[3]).dtype == DType::U32 { x[3] } else { g.cast(x[3], DType::U32) };
    let block = g.min(table, number(z.rows / form.block - 1));
    let first = g.reshape(g.mul(block, number(form.block)), &[z.b as i64, z.blocks as i64, 1]);
    let rows = g.reshape(g.add(first, g.iota(&[form.block as i64], 0)), &[z.b as i64, capacity as i64]);
    let lengths = g.reshape(g.min(x[4], number(capacity)), &signed(&[z.b, 1, z.l, 1]));
    let key = g.iota(&[capacity as i64], 0);
    let mut visible = g.lt(key, lengths);
    if form.window > 0 {
        visible = g.and(visible, g.ge(g.add(key, number(form.window)), lengths));
    }
    // keys that no query of the sequence sees are replaced by 0, since gradients multiply them
    let seen = g.max_over(g.cast(visible, DType::F32), &[1, 2], false);
    let seen = g.reshape(g.gt(seen, g.scalar(0.0, DType::F32)), &[z.b as i64, capacity as i64, 1, 1]);
    let taken = |from: Value| {
        let wide = if g.ty(from).dtype == DType::F32 { from } else { g.cast(from, DType::F32) };
        let all = g.select(seen, g.index_select(wide, rows, 0), g.scalar(0.0, DType::F32));
        g.permute(all, &[0, 2, 1, 3])
    };
    let [kept, hidden] = [0.0, f64::NEG_INFINITY].map(|v| g.scalar(v, DType::F32));
    let mask = g.select(visible, kept, hidden);
    g.attention(x[0], taken(x[1]), taken(x[2]), Some(mask), AttentionOptions::new(form.scale))
}

fn samples() -> Vec<Sample> {
    let attrs = |block: i64, scale, window: i64| {
        Attrs::none()
            .with("block", Attr::Int(block))
            .with("scale", Attr::Float(scale))
            .with("window", Attr::Int(window))
    };
    // b, h, kv, l, d, dv, rows; the table's entries and the lengths
    let of = |[b, h, kv, l, d, dv, rows]: [usize; 7], table: (usize, &[f64]), lengths: &[f64]| {
        vec![
            normal(&[b, h, l, d], 171),
            normal(&[rows, kv, d], 172),
            normal(&[rows, kv, dv], 173),
            cycle(DType::U32, &[b, table.0], table.1),
            cycle(DType::U32, &[b, l], lengths),
        ]
    };
    let below = |mut all: Vec<Array>| {
        all[3] = cycle(DType::I32, &[1, 2], &[-1.0, 0.0]);
        all
    };
    let stored = |mut all: Vec<Array>, dtype: DType| {
        for i in [1, 2] {
            all[i] = as_dtype(all[i].clone(), dtype);
        }
        all
    };
    vec![
        sample(of([1, 1, 1, 1, 1, 1, 1], (1, &[0.0]), &[1.0]), attrs(1, 1.0, 0)),
        sample(of([1, 3, 1, 1, 8, 8, 12], (3, &[2.0, 0.0, 1.0]), &[9.0]), attrs(4, 0.375, 0)),
        sample(
            of([2, 4, 2, 3, 4, 3, 10], (2, &[4.0, 1.0, 0.0, 3.0]), &[1.0, 2.0, 3.0, 2.0, 3.0, 4.0]),
            attrs(2, 0.5, 0),
        ),
        sample(
            of([2, 2, 2, 5, 3, 3, 9], (3, &[2.0, 1.0, 0.0]), &[4.0, 5.0, 6.0, 0.0, 0.0]),
            attrs(3, 0.5, 2),
        ),
        sample(below(of([1, 2, 1, 2, 4, 4, 6], (2, &[1.0, 0.0]), &[5.0, 6.0])), attrs(3, 0.5, 0)),
        // shared blocks; entries and lengths beyond the last
        sample(
            of([2, 2, 1, 2, 4, 4, 6], (2, &[0.0, 9.0, 0.0, 1.0]), &[3.0, 99.0, 0.0, 4.0]),
            attrs(3, 0.5, 0),
        ),
        sample(
            of(
                [1, 6, 3, 9, 16, 16, 40],
                (5, &[4.0, 2.0, 0.0, 1.0, 3.0]),
                &[30.0, 31.0, 32.0, 33.0, 34.0, 35.0, 36.0, 37.0, 0.0],
            ),
            attrs(8, 0.25, 0),
        ),
        sample(
            stored(of([1, 3, 1, 1, 8, 8, 12], (3, &[2.0, 0.0, 1.0]), &[10.0]), DType::F16),
            attrs(4, 0.375, 0),
        ),
        sample(
            stored(
                of([1, 4, 2, 6, 8, 4, 16], (4, &[3.0, 0.0, 1.0, 2.0]), &[8.0, 9.0, 10.0, 11.0, 12.0, 13.0]),
                DType::BF16,
            ),
            attrs(4, 0.375, 5),
        ),
    ]
}

pub(super) const FAMILY: &[&dyn Op] = &[&PagedAttention];
