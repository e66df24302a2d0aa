//! A norm of A's rows fused into a staged product: each element's summand is added as its tile is staged, and the factor on the
//! row's results is known after all of k.
//!
//! Results are scaled, not operands: the factor depends on the whole row, and operands are read only once. In f32 that changes
//! nothing but the order of roundings. In f16 it matters: a product after a separate norm stages numbers near 1, this one
//! stages the row's values, of any magnitude. So each row is staged times a power of two near its factor,
//! [`estimated`](Rows::estimate) from its first elements, and its results are divided by it. If the whole row shows that the
//! estimate was too far off (the first elements are zeros, or dominate the row), the row's results are summed again, in f32 and
//! without matrix units: slow, correct, and rare.

use super::tile::Stage;
use super::{F32, Shape, Text};

/// The norm sums of a workgroup's rows, over the steps that its invocations stage.
pub(super) struct Rows {
    stage: Stage,
    threads: u32,
    k: u32,
    bk: u32,
    /// Whether operands are staged as f16, and so times a power of two for each row.
    pub(super) half: bool,
    /// Workgroup memory that is unused before the first step and after the last: the name of an array, and the f32 component of
    /// its elements to use.
    free: (&'static str, &'static str),
}

/// The largest finite f16.
const LARGEST: f32 = 65504.0;

/// An estimate may be too small by this factor: elements lose bits only if they are below a thousandth of their row's
/// magnitude.
const TOO_SMALL: f32 = 16.0;

/// vec4 groups of a row that its estimate is computed from. If a single element dominates the row, the estimate is too small by
/// the square root of k divided by their elements: acceptable for up to 8192 elements.
const SEEN: u32 = 8;

/// Alignment, in words, of every array in workgroup memory next to matrices: NVIDIA's compiler loads matrices from addresses
/// that are not multiples of 16 bytes slowly and wrongly.
const ALIGNED: u32 = 4;

/// Words of the bit set: one bit for each row that must be summed again; the very last bit is set if there is any.
fn words(stage: &Stage) -> u32 {
    (stage.rows + 1).div_ceil(32).next_multiple_of(ALIGNED)
}

impl Rows {
    /// For a staged A, if the shape has a norm.
    pub(super) fn new(
        shape: &Shape,
        stage: &Stage,
        (threads, bk): (u32, u32),
        half: bool,
        free: (&'static str, &'static str),
    ) -> Option<Rows> {
        shape.norm.then_some(Rows { stage: *stage, threads, k: shape.k, bk, half, free })
    }

    /// Bytes of additional workgroup memory: a factor for each row, and in f16 a bit.
    pub(super) fn shared(shape: &Shape, stage: &Stage, half: bool) -> u32 {
        let bits = if half { words(stage) } else { 0 };
        if shape.norm { (stage.rows + bits) * F32 } else { 0 }
    }

    /// Elements of the unused array that it needs.
    pub(super) fn parts(shape: &Shape, stage: &Stage) -> u32 {
        if shape.norm { stage.rows * stage.groups } else { 0 }
    }

    pub(super) fn memory(&self, text: &mut Text) {
        text.share("factors", "f32", self.stage.rows as usize);
        if self.half {
            text.share("bad", "atomic<u32>", words(&self.stage) as usize);
            // the power of two of a factor; for an infinite, NaN or zero factor the nearest invertible one
            text.line(
                "fn power(f: f32) -> f32 { \
                 return bitcast<f32>(clamp(bitcast<u32>(f) & 0x7f800000u, 0x0d800000u, 0x71800000u)); }",
            );
            text.line(
                "fn is_good(r: u32) -> bool { return (atomicLoad(&bad[r / 32u]) >> (r % 32u) & 1u) == 0u; }",
            );
        }
    }

    /// The sums over an invocation's staged elements: each of its groups belongs to one row, the same in every step.
    pub(super) fn declare(&self, text: &mut Text) {
        let count = self.stage.count(self.threads);
        if !self.half {
            (0..count).for_each(|i| text.line(format!("var q{i} = 0.0;")));
            return;
        }
        text.line("var most = 0.0;");
        (0..count).for_each(|i| text.line(format!("var q{i} = 0.0;\nvar s{i} = 0.0;")));
    }

    /// In registers `s…`, the rows' powers of two, from their first elements, which are loaded into registers `a0_…`.
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

    /// Adds group `e` of a step, in register `v`, to the sums; `y` is then the value to multiply. Beyond k both are zero.
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

    /// Code for each of the rows, distributed over the invocations: `sum` is the sum of their parts in the unused array.
    fn each_row(&self, text: &mut Text, code: &str) {
        let Stage { rows, groups, .. } = self.stage;
        let (name, part) = self.free;
        text.line(format!("for (var r = t; r < {rows}u; r += {}u) {{", self.threads));
        text.line("var sum = 0.0;");
        text.line(format!(
            "for (var g = 0u; g < {groups}u; g++) {{ sum += {name}[r * {groups}u + g]{part}; }}\n{code}\n}}"
        ));
    }

    /// Computes the rows' factors, for the whole workgroup.
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

    /// Whether a row's results from the matrix units are accurate.
    pub(super) fn good(&self, row: &str) -> String {
        format!("all_good || is_good({row})")
    }

    /// Sums the results of rows with bad estimates again, four columns of the tile at a time (with `second`, also those that
    /// many columns after them).
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

/// vec4 groups of k per iteration of the loop that sums results again: an invocation may have many results.
fn fours(k: u32) -> u32 {
    (k / 1024).max(1).next_power_of_two().min(16)
}

/// Iterations of an invocation that sums its share of a tile's results again.
pub(super) fn again_turns(k: u32, [rows, columns, threads]: [u32; 3]) -> u32 {
    (rows * columns / 4).div_ceil(threads) * (1 + k.div_ceil(4 * fours(k)))
}

/// A result times the factor of its row of the tile, if there is one.
pub(super) fn scaled(rows: &Option<Rows>, value: &str, row: &str) -> String {
    if rows.is_some() { format!("{value} * factors[{row}]") } else { value.to_string() }
}
