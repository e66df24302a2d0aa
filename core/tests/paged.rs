//! Attention over keys in blocks of a cache, against sums written out here in f64: sizes that differ in every way, blocks in any
//! order, shared ones, lengths from none to all, windows, caches of 16 bits; rows that are put where data says.

mod devices;

use devices::Tested;
use weft::error::Error;
use weft::prelude::*;
use weft::session::Session;

/// Numbers in -1..1 that differ.
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        ((self.next() + 1.0) / 2.0 * n as f64) as usize % n
    }

    fn many(&mut self, n: usize, size: f64) -> Vec<f32> {
        (0..n).map(|_| (self.next() * size) as f32).collect()
    }
}

/// What is tried: sizes, and which of a sequence's keys its queries see.
#[derive(Debug, Clone, Copy)]
struct Case {
    b: usize,
    h: usize,
    kv: usize,
    l: usize,
    d: usize,
    dv: usize,
    block: usize,
    /// Blocks of the cache, and those that a sequence may have.
    blocks: usize,
    most: usize,
    window: usize,
    dtype: DType,
}

impl Case {
    fn text(&self) -> String {
        let Case { b, h, kv, l, d, dv, block, blocks, most, window, dtype } = self;
        let (rows, scale) = (block * blocks, 1.0 / (*d as f64).sqrt());
        format!(
            "weft 1\ninput q: f32[{b}, {h}, {l}, {d}]\ninput keys: {dtype}[{rows}, {kv}, {d}]\n\
             input values: {dtype}[{rows}, {kv}, {dv}]\ninput table: u32[{b}, {most}]\ninput lengths: u32[{b}, {l}]\n\
             y = paged_attention(q, keys, values, table, lengths, block={block}, scale={scale}, window={window})\noutput y = y\n"
        )
    }
}

/// Every device; a GPU also as one that is no software, with the forms that share memory and matrix units where it has them.
fn tested() -> Vec<Tested> {
    let mut tested = devices::all();
    if tested.iter().any(|t| !t.is_cpu()) {
        tested.push(Tested { device: devices::hard(), precision: devices::precision() });
    }
    tested
}

/// A session's result for a case, and what it should be, with the sum of the weights' shares of |v|.
fn run(t: &Tested, case: &Case, random: &mut Random) -> (Vec<f32>, Vec<(f64, f64)>) {
    let Case { b, h, kv, l, d, dv, block, blocks, most, window, dtype } = *case;
    let rows = block * blocks;
    let stored = |all: Vec<f32>, shape: [usize; 3]| {
        let ty = TensorType::new(dtype, shape.to_vec());
        Tensor::from_f64(&ty, &all.iter().map(|v| f64::from(*v)).collect::<Vec<_>>()).unwrap()
    };
    let q = random.many(b * h * l * d, 1.0);
    let keys = stored(random.many(rows * kv * d, 2.0), [rows, kv, d]);
    let values = stored(random.many(rows * kv * dv, 1.0), [rows, kv, dv]);
    let table: Vec<u32> = (0..b * most).map(|_| random.below(blocks) as u32).collect();
    // as a chunk of a prompt has them, with places that hold no token, or anything
    let any = random.below(2) == 0;
    let lengths: Vec<u32> = (0..b)
        .flat_map(|_| {
            let (first, live) = (random.below(block * most), 1 + random.below(l));
            let next = |i: usize| match any {
                true => random.below(block * most + 1) as u32,
                false if i < live => (first + i + 1).min(block * most) as u32,
                false => 0,
            };
            (0..l).map(next).collect::<Vec<_>>()
        })
        .collect();
    let g = Graph::parse(&case.text()).unwrap();
    let mut s = t.compiler().compile(&g).unwrap().init(&Weights::new()).unwrap();
    s.set_input("q", &q).unwrap();
    for (name, tensor) in [("keys", &keys), ("values", &values)] {
        s.set_input_bytes(name, dtype, tensor.bytes()).unwrap();
    }
    s.set_input("table", &table).unwrap();
    s.set_input("lengths", &lengths).unwrap();
    s.step().unwrap();
    let came = s.read_output::<f32>("y").unwrap();
    let (keys, values) = (keys.to_f64(), values.to_f64());
    let mut wanted = vec![];
    for (sequence, head, i) in
        (0..b).flat_map(|s| (0..h).flat_map(move |head| (0..l).map(move |i| (s, head, i))))
    {
        let (n, group) = (lengths[sequence * l + i] as usize, head / (h / kv));
        let from = if window > 0 { n.saturating_sub(window) } else { 0 };
        let row = |j: usize| table[sequence * most + j / block] as usize * block + j % block;
        let q = &q[((sequence * h + head) * l + i) * d..][..d];
        let scores: Vec<f64> = (from..n)
            .map(|j| {
                let key = &keys[(row(j) * kv + group) * d..][..d];
                q.iter().zip(key).map(|(a, b)| f64::from(*a) * b).sum::<f64>() / (d as f64).sqrt()
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|s| (s - top).exp()).sum();
        for e in 0..dv {
            let share = |(j, score): (usize, &f64)| {
                ((score - top).exp() / total, values[(row(from + j) * kv + group) * dv + e])
            };
            let terms: Vec<(f64, f64)> = scores.iter().enumerate().map(share).collect();
            let sum = terms.iter().map(|(w, v)| w * v).sum();
            wanted.push((sum, terms.iter().map(|(w, v)| (w * v).abs()).sum()));
        }
    }
    (came, wanted)
}

fn check(t: &Tested, case: &Case, seed: u64) {
    let (came, wanted) = run(t, case, &mut Random(seed));
    assert_eq!(came.len(), wanted.len());
    // scores are sums of d products of up to 2; an error of a score is one of the weight, relative to it. In fast precision
    // operands are rounded to f16, whose half unit is 2⁻¹¹
    let unit = if t.is_fast() && !t.is_cpu() { 2f64.powi(-11) } else { 2f64.powi(-24) };
    let score = 2.0 * (case.d as f64).sqrt() * unit * 4.0;
    for (i, (came, (wanted, size))) in came.iter().zip(&wanted).enumerate() {
        let off = (f64::from(*came) - wanted).abs();
        let bound = (2.0 * score + 16.0 * unit) * size + if *size == 0.0 { 0.0 } else { 1e-7 };
        assert!(off <= bound, "{case:?} on {} at {i}: {came} for {wanted}, within {bound:e}", t.name());
    }
}

/// The usual, to be changed.
const CASE: Case = Case {
    b: 1,
    h: 3,
    kv: 1,
    l: 1,
    d: 64,
    dv: 64,
    block: 16,
    blocks: 24,
    most: 20,
    window: 0,
    dtype: DType::F32,
};

#[test]
fn every_form_is_the_sum_that_is_meant() {
    let cases = [
        CASE,
        Case { l: 2, ..CASE },
        Case { l: 5, b: 2, ..CASE },
        Case { l: 33, block: 7, ..CASE },
        Case { l: 128, blocks: 12, most: 11, ..CASE },
        Case { b: 3, h: 8, kv: 2, d: 80, dv: 80, ..CASE },
        Case { h: 4, kv: 4, d: 20, dv: 12, l: 3, ..CASE },
        Case { h: 2, kv: 1, d: 7, dv: 5, l: 9, block: 3, blocks: 50, most: 40, ..CASE },
        Case { h: 6, kv: 2, d: 128, dv: 128, l: 16, block: 64, blocks: 8, most: 8, ..CASE },
        // one block, blocks of one, caches far larger than what is seen at once
        Case { block: 500, blocks: 1, most: 1, ..CASE },
        Case { block: 1, blocks: 900, most: 700, l: 4, ..CASE },
        Case { block: 64, blocks: 300, most: 280, b: 2, ..CASE },
        Case { block: 64, blocks: 300, most: 280, l: 20, h: 1, ..CASE },
    ];
    for t in tested() {
        for (i, case) in cases.iter().enumerate() {
            // each with and without a window, in f32 and in one of the others
            let (window, dtype) = ([37, 1, 5][i % 3], [DType::F16, DType::BF16][i % 2]);
            check(&t, &Case { window, ..*case }, i as u64 * 31);
            check(&t, &Case { dtype, ..*case }, i as u64 * 31 + 7);
        }
    }
}

#[test]
fn what_a_query_does_not_see_adds_nothing_be_it_what_it_may() {
    for t in tested() {
        for l in [1, 20] {
            let case = Case { h: 1, l, d: 16, dv: 16, ..CASE };
            let g = Graph::parse(&case.text()).unwrap();
            let mut s = t.compiler().compile(&g).unwrap().init(&Weights::new()).unwrap();
            let rows = case.block * case.blocks;
            let mut set = |keys: &[f32], values: &[f32]| {
                s.set_input("q", &vec![1.0f32; l * 16]).unwrap();
                s.set_input("keys", keys).unwrap();
                s.set_input("values", values).unwrap();
                s.set_input("table", &(0..case.most as u32).collect::<Vec<_>>()).unwrap();
                s.set_input("lengths", &vec![17u32; l]).unwrap();
                s.step().unwrap();
                s.read_output::<f32>("y").unwrap()
            };
            let (keys, values) = (Random(3).many(rows * 16, 1.0), Random(4).many(rows * 16, 1.0));
            let clean = set(&keys, &values);
            for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let spoilt = |all: &[f32]| {
                    let spoil = |(i, v): (usize, &f32)| if i / 16 >= 17 { odd } else { *v };
                    all.iter().enumerate().map(spoil).collect::<Vec<_>>()
                };
                assert_eq!(set(&spoilt(&keys), &spoilt(&values)), clean, "{odd} on {}", t.name());
            }
        }
    }
}

/// Two queries of one head over two keys of one element, as text of that operation.
fn pair(op: &str) -> String {
    format!(
        "weft 1\ninput q: f32[1, 1, L, 1]\ninput keys: f32[2, 1, 1]\ninput values: f32[2, 1, 1]\ninput table: u32[1, 1]\n\
         input lengths: u32[1, L]\n{op}\noutput y = y\n"
    )
}

#[test]
fn what_one_query_does_not_see_stays_out_of_it_though_others_see_it() {
    let paged = pair("y = paged_attention(q, keys, values, table, lengths, block=2, scale=1.0, window=0)");
    // the same of keys that lie together: [1, 1, 2, 1]
    let plain = pair(
        "k = reshape(keys, shape=[1, 1, 2, 1])\nv = reshape(values, shape=[1, 1, 2, 1])\n\
         y = attention(q, k, v, causal=true, window=0, scale=1.0)",
    );
    for t in tested() {
        // a key that only the last query sees; weights that are exactly 0
        for (l, keys, values, lengths) in [
            (2, [1.0, 1.0], [5.0, f32::NAN], vec![1u32, 2]),
            (2, [1.0, 1.0], [5.0, f32::INFINITY], vec![1, 2]),
            (20, [1.0, 1.0], [5.0, f32::NAN], [vec![1; 19], vec![2]].concat()),
            (1, [0.0, -1e4], [5.0, f32::INFINITY], vec![2]),
            (1, [0.0, f32::NEG_INFINITY], [5.0, f32::NAN], vec![2]),
            (20, [0.0, -1e4], [5.0, f32::NEG_INFINITY], vec![2; 20]),
        ] {
            for (text, is_paged) in [(&paged, true), (&plain, false)] {
                // there query i of l sees keys up to i + 2 − l
                if !is_paged && l == 20 {
                    continue;
                }
                let g = Graph::parse(&text.replace('L', &l.to_string())).unwrap();
                let mut s = t.compiler().compile(&g).unwrap().init(&Weights::new()).unwrap();
                s.set_input("q", &vec![1.0f32; l]).unwrap();
                s.set_input("keys", &keys).unwrap();
                s.set_input("values", &values).unwrap();
                s.set_input("table", &[0u32]).unwrap();
                s.set_input("lengths", &lengths).unwrap();
                s.step().unwrap();
                let came = s.read_output::<f32>("y").unwrap();
                let what = format!(
                    "{l} queries, keys {keys:?}, values {values:?}, paged {is_paged}, on {}",
                    t.name()
                );
                for (i, (came, length)) in came.iter().zip(&lengths).enumerate() {
                    let spoilt = *length == 2 && keys[0] == keys[1];
                    assert!(
                        if spoilt { !came.is_finite() } else { *came == 5.0 },
                        "query {i}: {came}; {what}"
                    );
                }
            }
        }
    }
}

#[test]
fn rows_that_nobody_sees_take_no_part_in_gradients() {
    let text = "weft 1\nparam q: f32[1, 1, 1, 1]\nparam k: f32[2, 1, 1]\nparam v: f32[2, 1, 1]\ninput t: u32[1, 1]\ninput n: u32[1, 1]\n\
                y = paged_attention(q, k, v, t, n, block=2, scale=1.0, window=0)\ns = sum(y, axes=[0, 1, 2, 3], keepdim=false)\nloss s\n";
    for t in devices::all() {
        for odd in [f32::NAN, f32::INFINITY] {
            let mut s =
                t.compiler().compile_training(&Graph::parse(text).unwrap()).unwrap().init_zeros().unwrap();
            s.set_parameter("q", &[1.0f32]).unwrap();
            s.set_parameter("k", &[1.0, odd]).unwrap();
            s.set_parameter("v", &[1.0, odd]).unwrap();
            s.set_input("t", &[0u32]).unwrap();
            s.set_input("n", &[1u32]).unwrap();
            s.step().unwrap();
            assert_eq!(s.loss().unwrap(), 1.0);
            let [q, k, v] = ["q", "k", "v"].map(|name| s.read_gradient(name).unwrap());
            assert_eq!((q, k, v), (vec![0.0], vec![0.0, 0.0], vec![1.0, 0.0]), "{odd} on {}", t.name());
        }
    }
}

#[test]
fn steps_of_very_many_queries_run() {
    for t in devices::all() {
        let l = 20_000;
        let text = format!(
            "weft 1\ninput q: f32[1, 1, {l}, 4]\ninput keys: f32[8, 1, 4]\ninput values: f32[8, 1, 4]\ninput table: u32[1, 2]\n\
             input lengths: u32[1, {l}]\ny = paged_attention(q, keys, values, table, lengths, block=4, scale=1.0, window=0)\noutput y = y\n"
        );
        let mut s =
            t.compiler().compile(&Graph::parse(&text).unwrap()).unwrap().init(&Weights::new()).unwrap();
        s.set_input("q", &vec![0.0f32; l * 4]).unwrap();
        s.set_input("keys", &[1.0f32; 32]).unwrap();
        s.set_input("values", &(0..32).map(|i| (i / 4) as f32).collect::<Vec<_>>()).unwrap();
        s.set_input("table", &[0u32, 1]).unwrap();
        let lengths: Vec<u32> = (0..l as u32).map(|i| i % 9).collect();
        s.set_input("lengths", &lengths).unwrap();
        s.step().unwrap();
        let came = s.read_output::<f32>("y").unwrap();
        for (i, n) in lengths.iter().enumerate() {
            // the mean of 0, 1, …, n − 1
            let wanted = if *n == 0 { 0.0 } else { (n - 1) as f32 / 2.0 };
            assert!((came[i * 4] - wanted).abs() < 1e-5, "query {i} on {}: {}", t.name(), came[i * 4]);
        }
    }
}

fn putting(t: &Tested, index: &str) -> Session {
    let text = format!(
        "weft 1\nstate cache: f32[6, 2]\ninput rows: {index}[3]\ninput new: f32[3, 2]\n\
         next = put_rows(cache, rows, new)\nnext cache = next\noutput y = next\n"
    );
    t.compiler().compile(&Graph::parse(&text).unwrap()).unwrap().init(&Weights::new()).unwrap()
}

#[test]
fn rows_are_put_where_they_are_wanted_and_nowhere_else() {
    for t in devices::all() {
        for index in ["i32", "i64"] {
            let mut s = putting(&t, index);
            let mut put = |rows: [i64; 3], new: [f32; 6]| {
                match index {
                    "i32" => s.set_input("rows", &rows.map(|r| r as i32)).unwrap(),
                    _ => s.set_input("rows", &rows).unwrap(),
                }
                s.set_input("new", &new).unwrap();
                s.step()?;
                s.read_output::<f32>("y")
            };
            let first = put([4, -1, 0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
            assert_eq!(first, [5.0, 6.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
            for bad in [-2, 6, i64::from(i32::MIN)] {
                let e = put([1, 2, bad], [9.0; 6]).unwrap_err();
                let met = match &e {
                    Error::IndexOutOfRange { index, position, limit, .. } => (*index, *position, *limit),
                    // a GPU tells where the step is waited for
                    other => panic!("{other}"),
                };
                assert_eq!(met, (bad, 2, 6), "on {}", t.name());
            }
            let then = put([-1, -1, -1], [7.0; 6]).unwrap();
            assert_eq!(then, first, "on {}", t.name());
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused_by_name() {
    let refused = |text: &str, what: &str| {
        let g = Graph::parse(text);
        let e = g.and_then(|g| Compiler::new(&Device::cpu(1)).compile(&g).map(drop)).unwrap_err();
        assert!(e.to_string().contains(what), "{e}");
    };
    let usual = CASE.text();
    refused(&usual.replace("block=16", "block=0"), "block");
    refused(&usual.replace("block=16", "block=7"), "divides 384");
    refused(&usual.replace("block=16", "block=-3"), "block");
    refused(&usual.replace("table: u32[1, 20]", "table: u32[2, 20]"), "table");
    refused(&usual.replace("table: u32[1, 20]", "table: f32[1, 20]"), "table");
    refused(&usual.replace("lengths: u32[1, 1]", "lengths: u32[1]"), "how many keys each query sees");
    refused(&usual.replace("values: f32", "values: f16"), "one float dtype");
    refused(&usual.replace("keys: f32[384, 1, 64]", "keys: f32[384, 1, 32]"), "keys [rows, kv, d]");
    refused(&usual.replace("window=0", "window=-1"), "window");
    refused(&usual.replace("window=0", "window=4294967296"), "0 to 2³⁰");
    refused(&usual.replace("scale=0.125", "scale=1e999"), "scale");
    refused(&usual.replace("scale=0.125", "scale=1e300"), "finite in f32");
    refused(
        "weft 1\ninput x: f32[]\ninput r: i32[3]\ninput u: f32[3]\ny = put_rows(x, r, u)\noutput y = y\n",
        "at least one axis",
    );
}
