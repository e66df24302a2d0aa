//! Rows of very different magnitudes: rows and columns of products, convolutions and attention from 10⁻⁶ to 10⁶, every element
//! against f64 within the bound of its own terms. A tolerance relative to a result's largest element would miss a wrong small
//! row.
//!
//! A sum of products computed in any order is off by at most about n·u·Σ|a||b| (Higham, *Accuracy and Stability of Numerical
//! Algorithms*, 2nd ed., 3.1), with u half a unit in the last place of f32. In fast precision each operand is rounded to f16 first.

mod devices;

use devices::Tested;
use weft::graph::Graph;
use weft::profile::Precision;
use weft::tensor::{Tensor, Weights};

/// Numbers in -1..1 that differ.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    }

    /// A matrix `[rows, columns]` whose row r is times `size(r)`, as f32 holds it.
    fn rows(&mut self, rows: usize, columns: usize, size: impl Fn(usize) -> f64) -> Vec<f32> {
        (0..rows * columns).map(|i| (self.next() * size(i / columns)) as f32).collect()
    }
}

/// Powers of ten (of two in fast precision, within f16's range) that neighbours differ by far.
fn size(fast: bool) -> impl Fn(usize) -> f64 + Copy {
    move |i| {
        let at = [0, 12, 3, 9, 6, 1, 11, 4, 8, 2, 10, 5, 7][i % 13] - 6;
        if fast { 2f64.powi(at) } else { 10f64.powi(at) }
    }
}

/// Half a unit in the last place of what operands are rounded to, and what a subnormal one loses.
fn rounding(fast: bool) -> f64 {
    if fast { 2f64.powi(-11) } else { 2f64.powi(-24) }
}

/// A graph's text, its inputs (the second a weight, so that it is packed), on each device; a GPU also as one that is no
/// software, with matrix units where it has them. `check` is told whether operands were rounded to f16.
fn each(
    what: &str,
    text: &str,
    inputs: &[(&str, &[usize], &[f32])],
    check: impl Fn(bool, &[f32]) -> Result<(), String>,
) {
    let mut tested = devices::all();
    if tested.iter().any(|t| !t.is_cpu()) {
        tested.push(Tested { device: devices::hard(), precision: devices::precision() });
    }
    let g = Graph::parse(text).unwrap();
    let (name, shape, data) = inputs[1];
    let weight = Tensor::from_vec(shape.to_vec(), data.to_vec()).unwrap();
    let weights: Weights = [(name.to_string(), weight)].into_iter().collect();
    for (i, t) in tested.iter().enumerate() {
        let mut session = t.compiler().compile(&g).unwrap().init(&weights).unwrap();
        for (_, (name, _, data)) in inputs.iter().enumerate().filter(|(i, _)| *i != 1) {
            session.set_input(name, data).unwrap();
        }
        session.step().unwrap();
        if let Err(e) = check(t.is_fast() && !t.is_cpu(), &session.read_output("y").unwrap()) {
            panic!("{what} on {} ({i}): {e}", t.name());
        }
    }
}

/// Whether an element is within a bound of what is wanted.
fn within(at: &str, came: f32, wanted: f64, bound: f64) -> Result<(), String> {
    let off = (f64::from(came) - wanted).abs();
    match off <= bound {
        true => Ok(()),
        false => Err(format!("{at} = {came:e}, wanted {wanted:e}, within {bound:e}")),
    }
}

const SIZES: &[[usize; 3]] =
    &[[1, 7, 33], [5, 129, 65], [33, 65, 17], [64, 64, 64], [127, 100, 300], [130, 70, 513], [1, 300, 1030]];

#[test]
fn every_element_of_a_product_is_right_beside_ones_a_million_times_larger() {
    let fast = devices::precision() == Precision::Fast;
    let mut random = Random(1);
    for &[m, n, k] in SIZES {
        for transposed in [false, true] {
            let a = random.rows(m, k, size(fast));
            // columns of B, stored as rows
            let b = random.rows(n, k, size(fast));
            let stored: Vec<f32> =
                if transposed { b.clone() } else { (0..k * n).map(|i| b[i % n * k + i / n]).collect() };
            let shape = if transposed { [n, k] } else { [k, n] };
            let check = |fast: bool, came: &[f32]| {
                came.iter().enumerate().try_for_each(|(i, &came)| {
                    let terms = || (0..k).map(|e| f64::from(a[i / n * k + e]) * f64::from(b[i % n * k + e]));
                    let (wanted, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                    let bound = (k as f64 * 2f64.powi(-24) + 2.0 * rounding(fast)) * size;
                    within(&format!("[{}, {}]", i / n, i % n), came, wanted, bound)
                })
            };
            let what = format!("{m} × {n} × {k}, B transposed: {transposed}");
            let text = format!(
                "weft 1\ninput a: f32[{m}, {k}]\nparam b: f32[{}, {}]\n\
                 y = matmul(a, b, transpose_a=false, transpose_b={transposed})\noutput y = y\n",
                shape[0], shape[1]
            );
            each(&what, &text, &[("a", &[m, k], &a), ("b", &shape, &stored)], check);
        }
    }
}

#[test]
fn every_element_of_a_convolution_is() {
    let fast = devices::precision() == Precision::Fast;
    let mut random = Random(2);
    for [batch, channels, side, outs, kernel] in
        [[3, 5, 9, 7, 3], [2, 16, 17, 33, 3], [1, 3, 12, 64, 5], [13, 8, 6, 13, 1]]
    {
        let x = random.rows(batch, channels * side * side, size(fast));
        let w = random.rows(outs, channels * kernel * kernel, size(fast));
        let (pad, deep) = (kernel / 2, channels * kernel * kernel);
        let check = |fast: bool, came: &[f32]| {
            came.iter().enumerate().try_for_each(|(i, &came)| {
                let (col, row) = (i % side, i / side % side);
                let (out, image) = (i / side / side % outs, i / side / side / outs);
                let (mut wanted, mut size) = (0.0, 0.0);
                for e in 0..deep {
                    let (dx, dy, c) = (e % kernel, e / kernel % kernel, e / kernel / kernel);
                    let (Some(px), Some(py)) = ((col + dx).checked_sub(pad), (row + dy).checked_sub(pad))
                    else {
                        continue;
                    };
                    if px < side && py < side {
                        let at = ((image * channels + c) * side + py) * side + px;
                        let term = f64::from(x[at]) * f64::from(w[out * deep + e]);
                        (wanted, size) = (wanted + term, size + term.abs());
                    }
                }
                let bound = (deep as f64 * 2f64.powi(-24) + 2.0 * rounding(fast)) * size;
                within(&format!("image {image}, channel {out}, [{row}, {col}]"), came, wanted, bound)
            })
        };
        let text = format!(
            "weft 1\ninput x: f32[{batch}, {channels}, {side}, {side}]\nparam w: f32[{outs}, {channels}, {kernel}, {kernel}]\n\
             y = conv2d(x, w, stride=[1, 1], padding=[{pad}, {pad}], dilation=[1, 1], groups=1)\noutput y = y\n"
        );
        let shapes = ([batch, channels, side, side], [outs, channels, kernel, kernel]);
        each(
            &format!("{channels} → {outs} channels"),
            &text,
            &[("x", &shapes.0, &x), ("w", &shapes.1, &w)],
            check,
        );
    }
}

/// Each column of the values has a size of its own; shares of keys are off by what their scores are.
#[test]
fn every_element_of_attention_is() {
    let fast = devices::precision() == Precision::Fast;
    let mut random = Random(3);
    for [heads, queries, keys, wide] in
        [[3, 5, 7, 16], [2, 64, 64, 64], [4, 33, 129, 32], [5, 1, 300, 64], [2, 130, 70, 80]]
    {
        let q = random.rows(heads * queries, wide, |_| 1.0);
        let k = random.rows(heads * keys, wide, |_| 1.0);
        let sizes = size(fast);
        let v: Vec<f32> =
            (0..heads * keys * wide).map(|i| (random.next() * sizes(i % wide)) as f32).collect();
        let scale = 1.0 / (wide as f64).sqrt();
        let check = |fast: bool, came: &[f32]| {
            for row in 0..heads * queries {
                let head = row / queries;
                let dot = |key: usize, of: &dyn Fn(f64) -> f64| -> f64 {
                    let term =
                        |e| f64::from(q[row * wide + e]) * f64::from(k[(head * keys + key) * wide + e]);
                    (0..wide).map(term).map(of).sum::<f64>() * scale
                };
                let scores: Vec<f64> = (0..keys).map(|key| dot(key, &|t| t)).collect();
                let sizes = (0..keys).map(|key| dot(key, &f64::abs)).fold(0.0, f64::max);
                let top = scores.iter().copied().fold(f64::MIN, f64::max);
                let shares: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
                let sum: f64 = shares.iter().sum();
                // of a score: its operands' roundings, its sum's, and those of the exponent
                let score = (2.0 * rounding(fast) + (wide as f64 + 4.0) * 2f64.powi(-24)) * sizes;
                let each = 2.0 * score + 3.0 * rounding(fast) + (keys as f64 + 16.0) * 2f64.powi(-24);
                for e in 0..wide {
                    let terms = || {
                        (0..keys).map(|key| shares[key] / sum * f64::from(v[(head * keys + key) * wide + e]))
                    };
                    let (wanted, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
                    within(&format!("[{row}, {e}]"), came[row * wide + e], wanted, each * size)?;
                }
            }
            Ok(())
        };
        let [t, s] = [queries, keys].map(|n| format!("f32[1, {heads}, {n}, {wide}]"));
        let text = format!(
            "weft 1\ninput q: {t}\nparam k: {s}\ninput v: {s}\n\
             y = attention(q, k, v, causal=false, window=0, scale={scale})\noutput y = y\n"
        );
        let shapes = ([1, heads, queries, wide], [1, heads, keys, wide]);
        let inputs: [(&str, &[usize], &[f32]); 3] =
            [("q", &shapes.0, &q), ("k", &shapes.1, &k), ("v", &shapes.1, &v)];
        each(&format!("{heads} heads, {queries} queries, {keys} keys of {wide}"), &text, &inputs, check);
    }
}
