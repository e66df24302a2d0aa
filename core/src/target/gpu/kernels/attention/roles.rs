//! Roles of passes: a table of their inputs and sums that the texts are generated from, and the functions that every text
//! starts with.

use super::tiles::Writer;
use super::{Hole, Lanes, Problem};
use crate::target::gpu::wgsl::text::Text;
use std::fmt::Write;

/// The role of a pass, named by its results.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Role {
    /// The output, or partial outputs if keys are split.
    Forward,
    /// Largest score, inverse sum and Σ do·o of each row.
    Stats,
    /// dk and dv.
    Keys,
    /// dq.
    Queries,
}

/// An input of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Input {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// The gradient of the output.
    Up,
    /// The output.
    Out,
}

impl Input {
    /// Its name in WGSL.
    pub fn name(self) -> &'static str {
        match self {
            Input::Q => "q",
            Input::K => "k",
            Input::V => "v",
            Input::Up => "do",
            Input::Out => "o",
        }
    }

    /// Whether it has a row for each query rather than each key.
    pub fn has_queries(self) -> bool {
        matches!(self, Input::Q | Input::Up | Input::Out)
    }

    /// Elements of a row.
    pub(super) fn width(self, p: &Problem) -> usize {
        if matches!(self, Input::Q | Input::K) { p.d } else { p.d_v }
    }

    /// A hole's arguments before the element: `at` is a row (for inputs with queries) or a key.
    pub(super) fn place(self, p: &Problem) -> &'static str {
        match (self.has_queries(), p.group()) {
            (false, _) | (true, 1) => "b, g, at",
            (true, _) => "b, g * GROUP + at / L, at % L",
        }
    }

    pub(super) fn vector(self, p: &Problem) -> bool {
        let v = &p.vectors;
        let has = match self {
            Input::Q => v.q,
            Input::K => v.k,
            Input::V => v.v,
            Input::Up => v.up,
            Input::Out => v.out,
        };
        has && self.width(p).is_multiple_of(4)
    }
}

/// A sum: the name of the array of weights, the streamed input, and the sum's name.
pub(super) type Sum = (&'static str, Input, &'static str);

impl Role {
    pub(super) fn resident(self) -> &'static [Input] {
        match self {
            Role::Forward | Role::Stats => &[Input::Q],
            Role::Keys => &[Input::K, Input::V],
            Role::Queries => &[Input::Q, Input::Up],
        }
    }

    pub(super) fn streamed(self) -> &'static [Input] {
        if self == Role::Keys { &[Input::Q, Input::Up] } else { &[Input::K, Input::V] }
    }

    pub(super) fn sums(self) -> &'static [Sum] {
        match self {
            Role::Forward | Role::Stats => &[("p", Input::V, "o")],
            Role::Keys => &[("p", Input::Up, "dv"), ("w", Input::Q, "dk")],
            Role::Queries => &[("w", Input::K, "dq")],
        }
    }

    pub(super) fn online(self) -> bool {
        matches!(self, Role::Forward | Role::Stats)
    }

    /// Its number of rows per key head, as text.
    pub(super) fn rows(self) -> &'static str {
        if self == Role::Keys { "S" } else { "ROWS" }
    }
}

/// vec4 elements in a row of that width.
pub(super) fn fours(width: usize) -> usize {
    width.div_ceil(4)
}
/// Constants for the sizes, in all texts.
pub(super) fn constants(p: &Problem) -> Text {
    let mut text = Text::default();
    let all = [("H", p.h), ("KV", p.h_kv), ("GROUP", p.group()), ("L", p.l), ("S", p.s)];
    for (name, v) in all.into_iter().chain([("D", p.d), ("DV", p.d_v), ("ROWS", p.rows())]) {
        line!(text, "const {name} = {v}u;");
    }
    text
}

/// A literal. WGSL has none for infinities and NaN, and the compiler must not know their values.
pub(super) fn real(v: f32) -> String {
    if v.is_finite() { format!("{v:?}f") } else { format!("bitcast<f32>(opaque ^ {:#x}u)", v.to_bits()) }
}

impl Writer<'_> {
    pub(super) fn declarations(&mut self) {
        let (p, t, role, means) = (self.p, self.t, self.role, self.sums_means());
        let out = &mut self.text;
        out.push_str(&constants(p).all);
        line!(out, "const TX = {}u;\nconst TY = {}u;", t.tx, t.ty);
        line!(out, "const LOWEST = -3.4028234e38f;");
        line!(out, "var<private> opaque: u32 = 0u;");
        if t.staged {
            for (inputs, rows) in [(role.resident(), t.rows), (role.streamed(), t.cols)] {
                for &input in inputs {
                    let size = rows * (fours(input.width(p)) | 1);
                    out.share(&format!("tile_{}", input.name()), "vec4<f32>", size);
                }
            }
        }
        for (weights, _, _) in role.sums() {
            let size = t.rows * ((t.cols / 4) | 1);
            out.share(&format!("weights_{weights}"), "vec4<f32>", size);
        }
        if role.online() {
            out.share("gathered", "f32", t.rows * t.tx);
        }
        if role == Role::Keys {
            out.share("stats", "vec4<f32>", t.cols);
        }
        if means {
            out.share("means", "f32", t.threads());
        }
        out.push_str(PRELUDE);
        for input in self.inputs() {
            self.fetch(input);
        }
        if self.guards().1 {
            self.text.push_str("\n");
            self.text.share_one("odd", "atomic<u32>");
            self.text.push_str(ODD);
        }
        if !role.online() {
            self.stat_of();
        }
        self.score();
    }

    /// Loads four elements of a row; zeros past the row's end or the limit. Branchless: out-of-range loads read another address
    /// and are dropped, so that loads overlap.
    fn fetch(&mut self, input: Input) {
        let (name, width) = (input.name(), input.width(self.p));
        let place = input.place(self.p);
        let vector = input.vector(self.p);
        self.holes.push(Hole::Load(input, if vector { Lanes::Four } else { Lanes::One }));
        let out = &mut self.text;
        line!(out, "fn at_{name}(b: u32, g: u32, row: u32, limit: u32, c: u32) -> vec4<f32> {{");
        line!(out, "    let at = min(row, limit - 1u);");
        if vector {
            line!(out, "    let v = load_{name}4({place}, c * 4u);");
        } else {
            let part = |i: usize| match width.is_multiple_of(4) {
                true => format!("load_{name}({place}, c * 4u + {i}u)"),
                false => {
                    let e = format!("c * 4u + {i}u");
                    format!("select(0f, load_{name}({place}, min({e}, {}u)), {e} < {width}u)", width - 1)
                }
            };
            line!(out, "    let v = vec4<f32>({}, {}, {}, {});", part(0), part(1), part(2), part(3));
        }
        line!(out, "    return select(vec4<f32>(), v, row < limit);\n}}");
    }

    /// A score from the dot product of a query's and a key's row; −∞ if the key is masked for the query.
    fn score(&mut self) {
        let p = self.p;
        let (head, i) = if p.group() == 1 { ("g", "at") } else { ("g * GROUP + at / L", "at % L") };
        if p.paged {
            self.holes.push(Hole::LengthOf);
        }
        let end = if p.paged { "length_of(b, i)" } else { "S" };
        let mut hidden = "row >= limit || j >= end".to_string();
        if p.causal {
            hidden += " || j + L > i + S";
        }
        match (p.window, p.paged) {
            (0, _) => {}
            (window, true) => hidden += &format!(" || j + {window}u < end"),
            (window, false) => hidden += &format!(" || j + L + {window}u <= i + S"),
        }
        self.holes.extend(p.masked.then_some(Hole::LoadMask));
        let mask =
            if p.masked { format!(" + load_mask(b, {head}, i, min(j, S - 1u))") } else { String::new() };
        let scale = real(p.scale as f32);
        let out = &mut self.text;
        line!(out, "fn score(b: u32, g: u32, row: u32, limit: u32, j: u32, product: f32) -> f32 {{");
        line!(out, "    let at = min(row, limit - 1u);\n    let i = {i};\n    let end = {end};");
        line!(out, "    let seen = product * {scale}{mask};");
        // selected as bits: compilers with fast maths may assume that no float is infinite
        line!(out, "    return bitcast<f32>(select(bitcast<u32>(seen), 0xff800000u, {hidden}));\n}}");
    }
}

const PRELUDE: &str = "
fn dot4(a: vec4<f32>, b: vec4<f32>, s: f32) -> f32 {
    return fma(a.w, b.w, fma(a.z, b.z, fma(a.y, b.y, fma(a.x, b.x, s))));
}
fn weight(score: f32, largest: f32, inverse: f32) -> f32 {
    return select(exp(score - largest) * inverse, 0f, bitcast<u32>(score) == 0xff800000u);
}
fn slope(p: f32, product: f32, mean: f32) -> f32 {
    return select(p * (product - mean), 0f, bitcast<u32>(p) == 0u);
}
";

const ODD: &str = "\
fn is_odd(v: vec4<f32>) -> bool {
    return any((bitcast<vec4<u32>>(v) & vec4<u32>(0x7f800000u)) == vec4<u32>(0x7f800000u));
}
";
