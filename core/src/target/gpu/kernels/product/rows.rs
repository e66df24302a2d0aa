//! A norm of A's rows inside a staged product: what of each element is summed as its tile is staged, and the factor on
//! the row's results, known once all of k has gone by.
//!
//! Results are scaled, not operands: the factor needs the whole row, the operands go by only once. In f32 that changes
//! nothing but the order of roundings. In f16 it would: a product that norms first stages numbers near 1, this one what
//! the row holds, of any size. So each row is staged times a power of two near its factor, [`estimated`](Rows::estimate)
//! from its first elements, and its results divided by it again. Where the whole row shows that the estimate was too
//! far off (the first elements are zeros, or nearly all that the row has), the row's results are summed once more, in f32 and
//! without matrices: slow, right, and rare.

use super::tile::Stage;
use super::{F32, Shape, Text};

/// The sums of a workgroup's rows, over the steps that its invocations stage.
pub(super) struct Rows {
    stage: Stage,
    threads: u32,
    k: u32,
    bk: u32,
    /// Whether operands are staged as f16, and so times a power of two for each row.
    pub(super) half: bool,
    /// Workgroup memory that is free before the first step and once all is summed: the name of an array, and what of its
    /// elements is an f32.
    free: (&'static str, &'static str),
}

/// The largest finite f16.
const LARGEST: f32 = 65504.0;

/// An estimate may be so many times too small: elements lose bits only where they are under a thousandth of their row's size.
const TOO_SMALL: f32 = 16.0;

/// Groups of a row that are looked at for its estimate. One element that is all of a row makes the estimate the square root
/// of k by their elements too small: up to 8192 elements that is not too far off.
const SEEN: u32 = 8;

/// Words that whatever lies in workgroup memory beside matrices comes in: NVIDIA's compiler loads matrices from addresses
/// that are multiples of 16 bytes, or wrongly and slowly.
const ALIGNED: u32 = 4;

/// Words of bits: one for each row that is summed again, the last of all set if there is one.
fn words(stage: &Stage) -> u32 {
    (stage.rows + 1).div_ceil(32).next_multiple_of(ALIGNED)
}

impl Rows {
    /// For a staged A, if the shape asks for it.
    pub(super) fn new(
        shape: &Shape,
        stage: &Stage,
        (threads, bk): (u32, u32),
        half: bool,
        free: (&'static str, &'static str),
    ) -> Option<Rows> {
        shape.norm.then_some(Rows { stage: *stage, threads, k: shape.k, bk, half, free })
    }

    /// Bytes of workgroup memory of its own: a factor for each row, and in f16 a bit.
    pub(super) fn shared(shape: &Shape, stage: &Stage, half: bool) -> u32 {
        let bits = if half { words(stage) } else { 0 };
        if shape.norm { (stage.rows + bits) * F32 } else { 0 }
    }

    /// Elements of the free array that it needs.
    pub(super) fn parts(shape: &Shape, stage: &Stage) -> u32 {
        if shape.norm { stage.rows * stage.groups } else { 0 }
    }

    pub(super) fn memory(&self, text: &mut Text) {
        text.share("factors", "f32", self.stage.rows as usize);
        if self.half {
            text.share("bad", "atomic<u32>", words(&self.stage) as usize);
            // the power of two of a factor; what has none (infinite, NaN, 0) gets the nearest that can be divided by
            text.line(
                "fn power(f: f32) -> f32 { \
                 return bitcast<f32>(clamp(bitcast<u32>(f) & 0x7f800000u, 0x0d800000u, 0x71800000u)); }",
            );
            text.line(
                "fn is_good(r: u32) -> bool { return (atomicLoad(&bad[r / 32u]) >> (r % 32u) & 1u) == 0u; }",
            );
        }
    }

    /// The sums of what an invocation stages: each of its groups lies in one row, the same in every step.
    pub(super) fn declare(&self, text: &mut Text) {
        let count = self.stage.count(self.threads);
        if !self.half {
            (0..count).for_each(|i| text.line(format!("var q{i} = 0.0;")));
            return;
        }
        text.line("var most = 0.0;");
        (0..count).for_each(|i| text.line(format!("var q{i} = 0.0;\nvar s{i} = 0.0;")));
    }

    /// In registers `s…`, the powers of two that rows are staged by, of their first elements, fetched into registers `a0_…`.
    pub(super) fn estimate(&self, text: &mut Text) {
        let Stage { rows, groups, .. } = self.stage;
        let (words, name, threads) = (words(&self.stage), self.free.0, self.threads);
        let seen = groups.min(SEEN).min(self.k.div_ceil(4));
        self.stage.share(text, threads, |i| {
            format!("if e % {groups}u < {seen}u {{ {name}[e] = measured4(a0_{i}); }}")
        });
        text.line(format!("if t < {words}u {{ atomicStore(&bad[t], 0u); }}\nworkgroupBarrier();"));
        let sum: Vec<String> = (0..seen).map(|g| format!("{name}[r * {groups}u + {g}u]")).collect();
        let whole = f64::from(self.k) / f64::from((seen * 4).min(self.k));
        text.line(format!("for (var r = t; r < {rows}u; r += {threads}u) {{"));
        text.line(format!("factors[r] = power(factor(({}) * {:?}));\n}}", sum.join(" + "), whole as f32));
        text.line("workgroupBarrier();");
        self.stage.share(text, threads, |i| format!("s{i} = factors[e / {groups}u];"));
    }

    /// Adds group `e` of a step, in register `v`, to the sums; `y` is then what is multiplied. Beyond k both are zero.
    pub(super) fn staged(&self, i: u32, v: &str) -> String {
        let scaled = match self.half {
            false => String::new(),
            true => format!(
                " * s{i}; let m{i} = abs(y); most = max(most, max(max(m{i}.x, m{i}.y), max(m{i}.z, m{i}.w)))"
            ),
        };
        let inner = format!("q{i} += measured4({v}); y = element4(s, {v}){scaled};");
        let at = format!("let s = k + e % {}u * 4u; var y = vec4<f32>();", self.stage.groups);
        match self.k % self.bk {
            0 => format!("{at} {inner}"),
            _ => format!("{at} if s < {}u {{ {inner} }}", self.k),
        }
    }

    /// Code for each of the rows, spread over the invocations: `sum` is what their parts in the free array add up to.
    fn each_row(&self, text: &mut Text, code: &str) {
        let Stage { rows, groups, .. } = self.stage;
        let (name, part) = self.free;
        text.line(format!("for (var r = t; r < {rows}u; r += {}u) {{", self.threads));
        text.line("var sum = 0.0;");
        text.line(format!(
            "for (var g = 0u; g < {groups}u; g++) {{ sum += {name}[r * {groups}u + g]{part}; }}\n{code}\n}}"
        ));
    }

    /// The rows' factors, for the whole workgroup.
    pub(super) fn finish(&self, text: &mut Text) {
        let (name, part) = self.free;
        self.stage.share(text, self.threads, |i| format!("{name}[e]{part} = q{i};"));
        if !self.half {
            text.line("workgroupBarrier();");
            self.each_row(text, "factors[r] = factor(sum);");
            text.line("workgroupBarrier();");
            return;
        }
        let (groups, last) = (self.stage.groups, words(&self.stage) - 1);
        let mark = |r: &str| {
            format!("atomicOr(&bad[{r} / 32u], 1u << ({r} % 32u)); atomicOr(&bad[{last}u], 0x80000000u);")
        };
        text.line(format!("if most > {LARGEST:?} {{"));
        self.stage.share(text, self.threads, |_| format!("let r = e / {groups}u; {}", mark("r")));
        text.line("}\nworkgroupBarrier();");
        self.each_row(
            text,
            &format!(
                "let f = factor(sum);\nlet by = factors[r];\n\
                 if by * {TOO_SMALL:?} < power(f) {{ {} }}\n\
                 factors[r] = select(f, f / by, is_good(r));",
                mark("r")
            ),
        );
        text.line("workgroupBarrier();");
        text.line(format!("let all_good = (atomicLoad(&bad[{last}u]) & 0x80000000u) == 0u;"));
    }

    /// Whether a row's results are right as the matrices gave them.
    pub(super) fn good(&self, row: &str) -> String {
        format!("all_good || is_good({row})")
    }

    /// Sums the results of the rows with bad estimates once more, four columns of the tile (`second`: and those so far
    /// behind them) at a time.
    pub(super) fn again(&self, text: &mut Text, columns: u32, second: Option<u32>, b_along_k: bool) {
        let (groups, k) = (columns / 4, self.k);
        text.line("if !all_good {");
        text.line(format!("for (var e = t; e < {}u; e += {}u) {{", self.stage.rows * groups, self.threads));
        text.line(format!(
            "let r = e / {groups}u;\nlet col = e % {groups}u * 4u;\nif is_good(r) {{ continue; }}"
        ));
        let sums: Vec<(&str, u32)> =
            [("sum", 0)].into_iter().chain(second.map(|behind| ("other", behind))).collect();
        sums.iter().for_each(|(name, _)| text.line(format!("var {name} = vec4<f32>();")));
        let fours = fours(k);
        text.line(match fours {
            1 => format!("for (var k = 0u; k < {k}u; k += 4u) {{"),
            n => format!("for (var first = 0u; first < {k}u; first += {}u) {{", 4 * n),
        });
        for n in 0..fours {
            if fours > 1 {
                text.line(format!("{{\nlet k = first + {}u;\nif k >= {k}u {{ break; }}", 4 * n));
            }
            text.line("let a = element4(k, fetch_a(z, row0 + r, k));");
            for (name, behind) in &sums {
                let at = |i: u32| format!("col0 + col + {}u", behind + i);
                for i in 0..4 {
                    text.line(match b_along_k {
                        true => format!("{name}[{i}] += dot(a, fetch_b(z, k, {}));", at(i)),
                        false => format!(
                            "if k + {i}u < {k}u {{ {name} += a[{i}] * fetch_b(z, k + {i}u, {}); }}",
                            at(0)
                        ),
                    });
                }
            }
            if fours > 1 {
                text.line("}");
            }
        }
        text.line("}");
        text.line(match second {
            None => "put(out_z, row0 + r, col0 + col, sum * factors[r]);",
            Some(_) => "put(out_z, row0 + r, col0 / 2u + col, sum * factors[r], other * factors[r]);",
        });
        text.line("}\n}");
    }
}

/// Fours of k in a turn of the loop that sums results once more: an invocation may have many results.
fn fours(k: u32) -> u32 {
    (k / 1024).max(1).next_power_of_two().min(16)
}

/// Turns that an invocation takes to sum its share of a tile's results once more.
pub(super) fn again_turns(k: u32, [rows, columns, threads]: [u32; 3]) -> u32 {
    (rows * columns / 4).div_ceil(threads) * (1 + k.div_ceil(4 * fours(k)))
}

/// A result times the factor of its row of the tile, where there is one.
pub(super) fn scaled(rows: &Option<Rows>, value: &str, row: &str) -> String {
    if rows.is_some() { format!("{value} * factors[{row}]") } else { value.to_string() }
}
