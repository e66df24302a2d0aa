//! Every scalar function over its whole range against f64, on every device: all exponents, both signs, many mantissas, and the
//! neighbours of the points where the algorithm changes. Errors are in units in the last place; the bound is 4, for powers 16.
//! `--nocapture` prints the worst of each, and its argument.
//!
//! A GPU may flush subnormal numbers to 0 (WGSL, 15.7.3): such arguments are skipped there, and such results may be 0.

mod devices;

use devices::Tested;
use std::collections::BTreeMap;
use weft::graph::{Array, Attr, Attrs, Graph, Value};
use weft::ops;
use weft::session::OutputIndex;
use weft::tensor::{DType, TensorType, Weights};

/// What a device gives for an operation of these arrays.
fn apply(t: &Tested, op: &str, inputs: &[Array], attrs: Attrs) -> Vec<f64> {
    let g = Graph::new();
    let names: Vec<String> = (0..inputs.len()).map(|i| format!("x{i}")).collect();
    let values: Vec<Value> =
        (names.iter().zip(inputs)).map(|(name, a)| g.input(name, a.ty.dtype, a.ty.shape.clone())).collect();
    g.output("y", g.apply(ops::find(op).unwrap(), &values, attrs));
    let mut session = t.compiler().compile(&g).unwrap().init(&Weights::new()).unwrap();
    for (name, a) in names.iter().zip(inputs) {
        session.set_input_tensor(name, &a.to_tensor().unwrap()).unwrap();
    }
    session.step().unwrap();
    Array::from_tensor(&session.output_tensor(OutputIndex(0)).unwrap()).data
}

fn column(dtype: DType, data: impl IntoIterator<Item = f64>) -> Array {
    let data: Vec<f64> = data.into_iter().collect();
    Array::new(TensorType::new(dtype, [data.len()]), data)
}

/// Words that look random, the same in every run.
fn words() -> impl FnMut() -> u32 {
    let mut s = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (s >> 33) as u32 ^ (s >> 13) as u32
    }
}

/// f32 numbers: of every exponent and both signs some mantissas at the ends and many at random; next to special points, and
/// next to multiples of π/2 of any size.
fn sweep() -> Vec<f32> {
    let (mut x, mut word) = (vec![], words());
    for exponent in 0..255u32 {
        let ends = [0, 1, 2, 0x7f_fffe, 0x7f_ffff, 0x35_04f2, 0x35_04f3, 0x35_04f4, 0x40_0000];
        for mantissa in ends.into_iter().chain((0..55).map(|_| word() & 0x7f_ffff)) {
            x.extend([0, 1u32 << 31].map(|sign| f32::from_bits(sign | exponent << 23 | mantissa)));
        }
    }
    // where results overflow, underflow, round to their limits, and where functions change their way
    let points = "1 2 0.5 1.5 2.5 3.5 0.25 0.75 88 88.72284 89 87 87.33655 103.97 104 16.635533 18 17.32868 9.010913 10 0.625 3.92
        3.95 14.5 12.9 14.17 5.4 0.29289322 0.41421356 0.70710677 1.4142135 12867.964 12868 131072 8388608 8388607.5 16777216
        4194304 0.34657359 0.6931472 1.0397208 33 255 1e5 5e5 1e10";
    for p in points.split_whitespace() {
        let p: f32 = p.parse().unwrap();
        for step in -40..=40i32 {
            let near = f32::from_bits(p.to_bits().wrapping_add_signed(step));
            x.extend([near, -near]);
        }
        x.extend((0..40).map(|_| p * (1.0 + (word() as f32 / 4.3e9 - 0.5) * 0.2)));
    }
    let near_turns =
        (1..9000).map(f64::from).chain((0..3000).map(|i| (f64::from(word()) * 1.7f64.powi(i % 160)).floor()));
    for n in near_turns {
        let p = (n * std::f64::consts::FRAC_PI_2) as f32;
        x.extend([p.next_down(), p, -p.next_up()].into_iter().filter(|v| v.is_finite()));
    }
    // the f32 nearest to a multiple of π/2, and others that are very near (Muller, Elementary Functions, 11.3)
    x.extend([16_367_173.0 * 2f32.powi(72), -16_367_173.0 * 2f32.powi(72), 16_367_173.0 * 2f32.powi(71)]);
    let plain = (0..20_000).map(|_| (word() as f32 / 2f32.powi(32) - 0.5) * 40.0);
    x.extend(plain);
    x.extend([f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), 0.0, -0.0]);
    x
}

/// A number's distance from what is wanted, in units of the last place that the wanted one has in a dtype; infinite where one
/// of them is NaN or far beyond the numbers and the other is not.
fn ulps(dtype: DType, came: f64, wanted: f64) -> f64 {
    let (digits, least, most) = match dtype {
        DType::F16 => (10, -14, 15),
        DType::BF16 => (7, -126, 127),
        _ => (23, -126, 127),
    };
    if came == wanted || came.is_nan() && wanted.is_nan() {
        return 0.0;
    }
    if came.is_nan() || wanted.is_nan() {
        return f64::INFINITY;
    }
    // an overflow is one unit beyond the largest number
    let top = 2f64.powi(most + 1);
    let (came, wanted) = (came.clamp(-top, top), wanted.clamp(-top, top));
    let exponent = (wanted.abs().log2().floor() as i32).clamp(least, most);
    (came - wanted).abs() / 2f64.powi(exponent - digits)
}

/// The worst of each operation on each device.
#[derive(Default)]
struct Table {
    rows: BTreeMap<(String, String), (f64, String)>,
    failures: Vec<String>,
}

impl Table {
    /// Compares results with what is wanted of each row of arguments.
    fn compare(
        &mut self,
        t: &Tested,
        op: &str,
        dtype: DType,
        bound: f64,
        came: &[f64],
        rows: &[(Vec<f64>, f64)],
    ) {
        assert_eq!(came.len(), rows.len(), "{op} on {}", t.name());
        let least = if dtype == DType::F16 { 2f64.powi(-14) } else { f64::from(f32::MIN_POSITIVE) };
        // f16 is kept in f32, which has its subnormals
        let flushes = !t.is_cpu() && dtype != DType::F16;
        let worst = self.rows.entry((format!("{op} {dtype}"), t.name())).or_default();
        for (&came, (x, wanted)) in came.iter().zip(rows) {
            let small = |v: f64| v != 0.0 && v.abs() < least;
            if flushes && (x.iter().any(|&v| small(v)) || small(*wanted) && came.abs() <= least) {
                continue;
            }
            let off = ulps(dtype, came, *wanted);
            if off > worst.0 || worst.1.is_empty() {
                *worst = (off, format!("{x:?}: {came:e}, wanted {wanted:e}"));
            }
            if off > bound {
                self.failures.push(format!(
                    "{op} {dtype} on {} at {x:?}: {came:e}, wanted {wanted:e} ({off:.2} ulp)",
                    t.name()
                ));
            }
        }
    }

    fn close(self) {
        for ((op, device), (worst, at)) in &self.rows {
            println!("{op:18} {device:50} {worst:8.3} at {at}");
        }
        let n = self.failures.len();
        assert!(n == 0, "{n} numbers differ:\n{}", self.failures[..n.min(60)].join("\n"));
    }
}

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

fn sign(x: f64) -> f64 {
    if x.is_nan() { x } else { f64::from(i8::from(x > 0.0) - i8::from(x < 0.0)) }
}

type Of = fn(f64) -> f64;

/// Functions of one argument, with the units that each may be off; 0 for those that round nothing.
const UNARY: [(&str, Of, f64); 20] = [
    ("neg", |x| -x, 0.0),
    ("abs", f64::abs, 0.0),
    ("exp", f64::exp, 4.0),
    ("expm1", f64::exp_m1, 4.0),
    ("log", f64::ln, 4.0),
    ("log1p", f64::ln_1p, 4.0),
    ("sqrt", f64::sqrt, 4.0),
    ("rsqrt", |x| 1.0 / x.sqrt(), 4.0),
    ("recip", |x| 1.0 / x, 4.0),
    ("sin", f64::sin, 4.0),
    ("cos", f64::cos, 4.0),
    ("tanh", f64::tanh, 4.0),
    ("erf", libm::erf, 4.0),
    ("ndtr", |x| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2), 4.0),
    ("sigmoid", sigmoid, 4.0),
    ("floor", f64::floor, 0.0),
    ("round", f64::round_ties_even, 0.0),
    ("sign", sign, 0.0),
    ("relu", |x| if x < 0.0 { 0.0 } else { x }, 0.0),
    ("clamp", |x| if x.is_nan() { x } else { x.clamp(-0.75, 1.25) }, 0.0),
];

fn attributes(op: &str) -> Attrs {
    match op {
        "clamp" => Attrs::none().with("min", Attr::Float(-0.75)).with("max", Attr::Float(1.25)),
        _ => Attrs::none(),
    }
}

#[test]
fn functions_of_one_argument_keep_their_digits_over_the_whole_range() {
    let x = column(DType::F32, sweep().into_iter().map(f64::from));
    let mut table = Table::default();
    for t in devices::all() {
        for (op, of, bound) in UNARY {
            let rows: Vec<_> = x.data.iter().map(|&x| (vec![x], of(x))).collect();
            table.compare(
                &t,
                op,
                DType::F32,
                bound,
                &apply(&t, op, std::slice::from_ref(&x), attributes(op)),
                &rows,
            );
        }
    }
    table.close();
}

/// Every number of 16 bits. They are computed in f32 and rounded once, so that a result is the nearest or next to a tie.
#[test]
fn functions_of_16_bit_floats_are_rounded_once() {
    let mut table = Table::default();
    for dtype in [DType::F16, DType::BF16] {
        let number = |bits: u16| match dtype {
            DType::F16 => half::f16::from_bits(bits).to_f64(),
            _ => half::bf16::from_bits(bits).to_f64(),
        };
        let x = column(dtype, (0..=u16::MAX).map(number));
        for t in devices::all() {
            for (op, of, bound) in UNARY {
                let rows: Vec<_> = x.data.iter().map(|&x| (vec![x], of(x))).collect();
                let bound = if bound == 0.0 { 0.0 } else { 0.51 };
                let came = apply(&t, op, std::slice::from_ref(&x), attributes(op));
                // ±0.75 and 1.25 are numbers of both
                table.compare(&t, op, dtype, bound, &came, &rows);
            }
        }
    }
    table.close();
}

/// The numbers at which IEEE 754 and C's Annex F say something of their own.
fn edges() -> Vec<f32> {
    let positive = [
        0.0,
        1.0,
        2.0,
        3.0,
        0.5,
        1.5,
        2.5,
        33.0,
        127.0,
        0.999,
        0.999_999,
        1000.0,
        1e6,
        1e30,
        1e-30,
        1e38,
        2e-38,
        8_388_607.5,
        8_388_609.0,
        16_777_215.0,
        16_777_216.0,
        16_777_218.0,
        f32::MAX,
        f32::INFINITY,
        f32::NAN,
        f32::MIN_POSITIVE,
        2f32.powi(126),
        2f32.powi(127),
        1.0 - f32::EPSILON / 2.0,
        1.0 + f32::EPSILON,
        1e-40,
        1e-45,
    ];
    positive.into_iter().flat_map(|v: f32| [v, -v]).collect()
}

fn every_pair(edges: &[f32]) -> impl Iterator<Item = [f32; 2]> + '_ {
    edges.iter().flat_map(move |&a| edges.iter().map(move |&b| [a, b]))
}

/// Pairs of numbers of any exponents.
fn pairs() -> Vec<[f32; 2]> {
    let (mut all, mut word) = (every_pair(&edges()).collect::<Vec<_>>(), words());
    for a in (1..255u32).step_by(3) {
        for b in 0..255u32 {
            all.push([a, b].map(|e| f32::from_bits(word() & 0x807f_ffff | e << 23)));
        }
    }
    // divisors of every kind at dividends near them
    for e in [0, 1, 2, 126, 127, 250, 251, 252, 253, 254u32] {
        for _ in 0..300 {
            let b = f32::from_bits(word() & 0x807f_ffff | e << 23);
            all.push([b * (word() as f32 / 1e9 + 0.1), b]);
        }
    }
    all
}

/// Pairs whose power lies within the numbers: bases of any size and next to 1, with exponents of any size.
fn powers() -> Vec<[f32; 2]> {
    let (mut all, mut word) = (every_pair(&edges()).collect::<Vec<_>>(), words());
    let mut to = |word: &mut dyn FnMut() -> u32, a: f32| {
        let t = (f64::from(word()) / 2f64.powi(31) - 1.0) * 90.0;
        all.push([a, (t / f64::from(a).ln()) as f32]);
        all.push([a, ((word() % 129) as f32 - 64.0) * if word().is_multiple_of(4) { 0.25 } else { 1.0 }]);
        all.push([-a, (t / f64::from(a).ln()).round() as f32]);
    };
    for e in 1..255u32 {
        for _ in 0..40 {
            let a = f32::from_bits(word() & 0x7f_ffff | e << 23);
            to(&mut word, a);
        }
    }
    for i in 0..20_000 {
        let a = 1.0 + (word() as f32 / 2f32.powi(31) - 1.0) * 0.5f32.powi(i % 23 + 1);
        to(&mut word, a);
    }
    for (a, b) in [
        (0.999, 1000.0),
        (0.999_999, 1e6),
        (0.999_999_9, 1e7),
        (1.000_001, 1e6),
        (0.99, 500.0),
        (-1.0, f32::INFINITY),
    ] {
        all.push([a, b]);
    }
    all
}

type OfTwo = fn(f64, f64) -> f64;

/// Functions of two arguments, and how many units in the last place they may be off.
fn two() -> [(&'static str, OfTwo, f64); 8] {
    [
        ("add", |a, b| a + b, 0.5001),
        ("sub", |a, b| a - b, 0.5001),
        ("mul", |a, b| a * b, 0.5001),
        ("div", |a, b| a / b, 4.0),
        ("rem", |a, b| a % b, 0.0),
        ("min", |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }, 0.0),
        ("max", |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }, 0.0),
        ("pow", f64::powf, 16.0),
    ]
}

/// The second argument is part of the graph: compilers compute with what they know of it, and join it with their own constants.
#[test]
fn functions_of_a_number_and_a_constant_keep_their_digits_too() {
    let mut x = sweep();
    x.extend(edges());
    let x: Vec<f32> = x.into_iter().step_by(7).collect();
    let constants = [
        3e38f32,
        -3e38,
        2f32.powi(127),
        2f32.powi(126),
        1.5 * 2f32.powi(126),
        1e30,
        1e-30,
        f32::MIN_POSITIVE,
        -1.3e-38,
        3.0,
        -7.0,
        0.1,
        1.0,
        -1.0,
        2.0,
        0.5,
        -0.5,
        1e3,
        12582912.0,
        1.0 + f32::EPSILON,
        1.0 - f32::EPSILON / 2.0,
        f32::MAX,
    ];
    let mut table = Table::default();
    for t in devices::all() {
        for (op, of, bound) in two() {
            let g = Graph::new();
            let input = g.input("x", DType::F32, [x.len()]);
            for (i, &c) in constants.iter().enumerate() {
                let c = g.scalar(f64::from(c), DType::F32);
                g.output(&format!("{i}"), g.apply(ops::find(op).unwrap(), &[input, c], Attrs::none()));
                g.output(&format!("{i} first"), g.apply(ops::find(op).unwrap(), &[c, input], Attrs::none()));
            }
            let mut session = t.compiler().compile(&g).unwrap().init(&Weights::new()).unwrap();
            session.set_input("x", &x).unwrap();
            session.step().unwrap();
            for (i, &c) in constants.iter().enumerate() {
                for (name, first) in [(format!("{i}"), false), (format!("{i} first"), true)] {
                    // the remainders of the least normal number are subnormal, all of them
                    if op == "rem" && !first && c.abs() < 2.0 * f32::MIN_POSITIVE {
                        continue;
                    }
                    let came = session.output_tensor(&*name).unwrap().to_f64();
                    let pair = |&v: &f32| {
                        if first { [f64::from(c), f64::from(v)] } else { [f64::from(v), f64::from(c)] }
                    };
                    let rows: Vec<_> = x.iter().map(pair).map(|[a, b]| (vec![a, b], of(a, b))).collect();
                    table.compare(&t, op, DType::F32, bound, &came, &rows);
                }
            }
        }
    }
    table.close();
}

#[test]
fn functions_of_two_arguments_keep_their_digits_over_the_whole_range() {
    let two = two();
    let mut table = Table::default();
    for t in devices::all() {
        for (op, of, bound) in two {
            let pairs = if op == "pow" { powers() } else { pairs() };
            let inputs = [0, 1].map(|i| column(DType::F32, pairs.iter().map(|p| f64::from(p[i]))));
            let rows: Vec<_> =
                pairs.iter().map(|p| p.map(f64::from)).map(|[a, b]| (vec![a, b], of(a, b))).collect();
            table.compare(&t, op, DType::F32, bound, &apply(&t, op, &inputs, Attrs::none()), &rows);
        }
    }
    table.close();
}

#[test]
fn comparisons_are_those_of_ieee_754() {
    type Holds = fn(f64, f64) -> bool;
    let compare: [(&str, Holds); 6] = [
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("eq", |a, b| a == b),
        ("ne", |a, b| a != b),
    ];
    let pairs: Vec<_> = pairs();
    let inputs = [0, 1].map(|i| column(DType::F32, pairs.iter().map(|p| f64::from(p[i]))));
    let mut table = Table::default();
    for t in devices::all() {
        for (op, of) in compare {
            let rows: Vec<_> = pairs
                .iter()
                .map(|p| p.map(f64::from))
                .map(|[a, b]| (vec![a, b], f64::from(of(a, b))))
                .collect();
            table.compare(&t, op, DType::Bool, 0.0, &apply(&t, op, &inputs, Attrs::none()), &rows);
        }
    }
    table.close();
}

#[test]
fn casts_of_floats_truncate_saturate_and_round_as_they_say() {
    let casts: [(DType, Of); 8] = [
        (DType::U8, |v| f64::from(v as u8)),
        (DType::I32, |v| f64::from(v as i32)),
        (DType::U32, |v| f64::from(v as u32)),
        (DType::I64, |v| v as i64 as f64),
        (DType::Bool, |v| f64::from(u8::from(v != 0.0))),
        // of an f32 these round once
        (DType::F16, |v| half::f16::from_f32(v as f32).to_f64()),
        (DType::BF16, |v| half::bf16::from_f32(v as f32).to_f64()),
        (DType::F32, |v| v),
    ];
    let mut x = sweep();
    // ties and their neighbours, the ends of every integer type
    for i in 0..2048u32 {
        let tie = f32::from_bits((0x3f80_0000 + i * 0x1000) | 0x1000);
        x.extend([tie, tie.next_up(), tie.next_down(), -tie, i as f32 * 0.5 - 300.0]);
    }
    for end in [
        255.0f32,
        256.0,
        2147483648.0,
        4294967296.0,
        9.223372e18,
        65504.0,
        65520.0,
        6.1035156e-5,
        5.9604645e-8,
        2.9802322e-8,
    ] {
        x.extend([end, end.next_up(), end.next_down(), -end, -end.next_up(), -end.next_down()]);
    }
    let x = column(DType::F32, x.into_iter().map(f64::from));
    let mut table = Table::default();
    for t in devices::all() {
        for (dtype, of) in casts {
            let rows: Vec<_> = x.data.iter().map(|&x| (vec![x], of(x))).collect();
            let attrs = Attrs::none().with("dtype", Attr::DType(dtype));
            let op = format!("cast to {dtype}");
            // to be equal; where the result is a float, as a number of f32
            let as_number = if dtype == DType::BF16 { DType::BF16 } else { DType::F32 };
            table.compare(
                &t,
                &op,
                as_number,
                0.0,
                &apply(&t, "cast", std::slice::from_ref(&x), attrs),
                &rows,
            );
        }
    }
    table.close();
}

/// Integers keep their low bits in narrower ones; as floats they are rounded to f32 once, and from there to 16 bits.
#[test]
fn casts_of_integers_wrap_and_round_as_they_say() {
    let mut word = words();
    let mut of_64: Vec<i64> = vec![0, 1, -1, 255, 256, -256, i64::MAX, i64::MIN, i64::MAX - 1];
    for bits in 0..63 {
        // ties of f32, f16 and bf16 at every size, and their neighbours
        for half in [24, 11, 8].map(|digits| (1i64 << bits) >> digits) {
            for v in [
                (1i64 << bits) + half,
                (1i64 << bits) + 3 * half,
                (1i64 << bits) + (i64::from(word()) & ((1 << bits) - 1)),
            ] {
                of_64.extend([v, v.wrapping_add(1), v.wrapping_sub(1), v.wrapping_neg()]);
            }
        }
    }
    let ranges = [
        (DType::I32, i64::from(i32::MIN), i64::from(i32::MAX)),
        (DType::U32, 0, i64::from(u32::MAX)),
        (DType::U8, 0, 255),
    ];
    let mut table = Table::default();
    for t in devices::all() {
        for (from, least, most) in ranges.into_iter().chain([(DType::I64, i64::MIN, i64::MAX)]) {
            let whole: Vec<i64> = of_64.iter().copied().filter(|v| (least..=most).contains(v)).collect();
            let x = Array::from_whole(TensorType::new(from, [whole.len()]), whole.clone());
            for to in [DType::F32, DType::F16, DType::BF16, DType::I32, DType::U32, DType::U8, DType::Bool] {
                let of = |v: i64| match to {
                    DType::F16 => half::f16::from_f32(v as f32).to_f64(),
                    DType::BF16 => half::bf16::from_f32(v as f32).to_f64(),
                    DType::I32 => f64::from(v as i32),
                    DType::U32 => f64::from(v as u32),
                    DType::U8 => f64::from(v as u8),
                    DType::Bool => f64::from(u8::from(v != 0)),
                    _ => f64::from(v as f32),
                };
                let rows: Vec<_> = whole.iter().map(|&v| (vec![v as f64], of(v))).collect();
                let attrs = Attrs::none().with("dtype", Attr::DType(to));
                let came = apply(&t, "cast", std::slice::from_ref(&x), attrs);
                table.compare(&t, &format!("cast of {from} to {to}"), DType::F32, 0.0, &came, &rows);
            }
        }
    }
    table.close();
}
