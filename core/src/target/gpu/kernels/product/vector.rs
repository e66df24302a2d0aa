//! The product with few rows (or, `swap`ped, few columns): bound by reading the wide operand once.
//!
//! An invocation processes four k at a time for `per` columns of the wide operand and every row of the narrow one, keeps the
//! sums in registers, and the invocations that share columns add up in workgroup memory. If the wide operand is vectored along
//! k, neighbouring invocations are neighbours in k; otherwise in columns, so that whole cache lines are read in either storage
//! order.

use super::tile::Grid;
use super::{Along, F32, Pass, Shape, Skeleton, Text, entry, reduce::reduce};
use crate::target::gpu::wgsl::lanes::LANES;

/// Maximum steps of k that an invocation sums sequentially.
const MANY: u32 = 512;
/// Steps per block if there are more.
const BLOCK: u32 = 128;

/// The tiling of [`vector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vector {
    /// Rows that a workgroup computes.
    pub rows: u32,
    /// Columns of an invocation; vec4 groups of columns if the wide operand is vectored along them.
    pub per: u32,
    /// Invocations that share columns and split k; a power of two.
    pub lanes: u32,
    /// Invocations of a workgroup: a multiple of `lanes`.
    pub threads: u32,
    /// Steps of k loaded before the first is used.
    pub unroll: u32,
    /// Workgroups that share k.
    pub split: u32,
    /// Whether B is the narrow operand: rows are columns of C.
    pub swap: bool,
    /// Maximum bytes of workgroup memory.
    pub shared_limit: u32,
}

/// The kernel for a shape with this tiling.
pub fn vector(shape: &Shape, cut: &Vector) -> Skeleton {
    let shape_in = if cut.swap { swapped(shape) } else { *shape };
    let kernel = Kernel::new(&shape_in, cut);
    let bk = cut.lanes * 4 * cut.unroll;
    let grid = Grid::new(&shape_in, [cut.rows, kernel.columns(), bk], cut.split);
    let pass = |grid: Grid| {
        let (workgroups, id, place) = grid.place();
        let mut text = Text::default();
        if cut.lanes > 1 {
            text.share("sums", "f32", kernel.memory() as usize);
            if shape.norm {
                text.share("parts", "f32", kernel.parts() as usize);
            }
        }
        kernel.fetches(&mut text);
        kernel.keep(&mut text, shape, &grid);
        entry(&mut text, cut.threads, &id);
        text.line(place);
        kernel.declare(&mut text);
        kernel.walk(&mut text, grid.trips, !shape.k.is_multiple_of(bk) || grid.ragged());
        kernel.put(&mut text);
        text.line("}");
        Pass { text, holes: grid.holes(false), workgroups }
    };
    Skeleton {
        main: pass(grid.clone()),
        rounds: grid.rounds().skip(1).map(pass).collect(),
        enables: &[],
        shared: if cut.lanes > 1 { (kernel.memory() + kernel.parts()) * F32 } else { 0 },
        scratch: grid.scratch(),
        reduce: (grid.split > 1).then(|| reduce(shape, grid.layers)),
    }
}

/// Cᵀ = Bᵀ · Aᵀ: swaps the operands; the axes keep their names.
fn swapped(shape: &Shape) -> Shape {
    let Shape { m, n, a_vec, b_vec, .. } = *shape;
    Shape { m: n, n: m, a_vec: b_vec, b_vec: a_vec, c_vec: false, ..*shape }
}

struct Kernel<'a> {
    /// The shape with the narrow operand as A.
    shape: Shape,
    cut: &'a Vector,
    /// Columns in one read of the wide operand.
    width: u32,
}

impl<'a> Kernel<'a> {
    fn new(shape: &Shape, cut: &'a Vector) -> Self {
        let width = if shape.b_vec == Along::Outer { 4 } else { 1 };
        Self { shape: *shape, cut, width }
    }

    /// Groups of invocations that share columns.
    fn teams(&self) -> u32 {
        self.cut.threads / self.cut.lanes
    }

    fn columns(&self) -> u32 {
        self.teams() * self.cut.per * self.width
    }

    /// Rows summed at once in workgroup memory.
    fn round(&self) -> u32 {
        let row = self.cut.per * self.width * self.cut.threads * F32;
        let left = self.cut.shared_limit.saturating_sub(self.parts() * F32);
        (left / row).clamp(1, self.cut.rows)
    }

    /// f32 elements of workgroup memory for a team's partial sums of each row, one for each lane.
    fn parts(&self) -> u32 {
        if self.shape.norm { self.cut.rows * self.cut.lanes } else { 0 }
    }

    /// Columns of C of an invocation, in reads of `width`: with gated columns, half of its `per` columns of B.
    fn results(&self) -> u32 {
        if self.shape.gated_columns { self.cut.per / 2 } else { self.cut.per }
    }

    fn memory(&self) -> u32 {
        self.round() * self.cut.per * self.width * self.cut.threads
    }

    fn along_k(&self) -> bool {
        self.shape.b_vec == Along::K
    }

    /// `narrow(z, row, k)`: four k of a row. `wide(z, k, col)`: four k of a column, or one k of `width` columns.
    fn fetches(&self, text: &mut Text) {
        let k = self.shape.k;
        let (a, b) = if self.cut.swap { ("load_b", "load_a") } else { ("load_a", "load_b") };
        let of_a = |name: &str, k: &str| match self.cut.swap {
            true => format!("{a}{name}(z, {k}, row)"),
            false => format!("{a}{name}(z, row, {k})"),
        };
        let of_b = |name: &str, k: &str| match self.cut.swap {
            true => format!("{b}{name}(z, col, {k})"),
            false => format!("{b}{name}(z, {k}, col)"),
        };
        text.line("fn narrow(z: u32, row: u32, k: u32) -> vec4<f32> {");
        match (self.shape.a_vec, k % 4) {
            (Along::K, _) => text.line(format!("return {};", of_a("4", "k"))),
            (_, 0) => {
                let each = [0, 1, 2, 3].map(|i| of_a("", &format!("k + {i}u"))).join(", ");
                text.line(format!("return vec4<f32>({each});"));
            }
            _ => {
                text.line("var v = vec4<f32>();");
                for i in 0..4 {
                    let load = of_a("", &format!("k + {i}u"));
                    text.line(format!("if k + {i}u < {k}u {{ v[{i}] = {load}; }}"));
                }
                text.line("return v;");
            }
        }
        let (kind, body) = match self.shape.b_vec {
            Along::None => ("f32", of_b("", "k")),
            _ => ("vec4<f32>", of_b("4", "k")),
        };
        let body = match k.is_multiple_of(4) || self.along_k() {
            true => format!("return {body};"),
            false => format!("if k < {k}u {{ return {body}; }}\nreturn {kind}();"),
        };
        text.line(format!("}}\nfn wide(z: u32, k: u32, col: u32) -> {kind} {{\n{body}\n}}"));
    }

    /// `keep(z, row, col, v)`: stores a result to C, or to scratch.
    fn keep(&self, text: &mut Text, shape: &Shape, grid: &Grid) {
        let second = if shape.gated_columns { ", u: f32" } else { "" };
        text.line(format!("fn keep(z: u32, row: u32, col: u32, v: f32{second}) {{"));
        let (row, col) = if self.cut.swap { ("col", "row") } else { ("row", "col") };
        text.line(match grid.split {
            1 if shape.gated_columns => format!("store(z, {row}, {col}, v, u);"),
            1 => format!("store(z, {row}, {col}, v);"),
            _ => format!("{}((z * {}u + {row}) * {}u + {col}, v);", grid.partial(), shape.m, shape.n),
        });
        text.line("}");
    }

    /// The first column of C of an invocation's group `p`, possibly out of range. With gated columns, groups from `results` on
    /// belong to the second half.
    fn column(&self, p: u32) -> String {
        let (col0, p) =
            if self.shape.gated_columns { ("col0 / 2u", p % self.results()) } else { ("col0", p) };
        match self.along_k() {
            true => format!("{col0} + team * {}u + {p}u", self.results()),
            false => format!("{col0} + (team + {}u) * {}u", p * self.teams(), self.width),
        }
    }

    /// Computes the invocation's position, and zeroes its accumulators.
    fn declare(&self, text: &mut Text) {
        let (lanes, teams) = (self.cut.lanes, self.teams());
        text.line(match self.along_k() {
            true => format!("let lane = t % {lanes}u;\nlet team = t / {lanes}u;"),
            false => format!("let lane = t / {teams}u;\nlet team = t % {teams}u;"),
        });
        let kind = if self.width == 4 { "vec4<f32>" } else { "f32" };
        for p in 0..self.cut.per {
            let (col, columns) = (self.column(p), self.shape.columns());
            let last = columns - self.width.min(columns);
            let half = if p >= self.results() { format!(" + {columns}u") } else { String::new() };
            text.line(match columns % self.shape.columns_of(self.columns()) {
                0 => format!("let n{p} = {col}{half};"),
                _ => format!("let n{p} = min({col}, {last}u){half};"),
            });
            for r in 0..self.cut.rows {
                text.line(format!("var c{r}_{p} = {kind}();"));
            }
        }
        for r in 0..self.cut.rows {
            if self.shape.norm {
                text.line(format!("var s{r} = 0.0;"));
            }
            text.line(match self.shape.m % self.cut.rows {
                0 => format!("let m{r} = row0 + {r}u;"),
                _ => format!("let m{r} = min(row0 + {r}u, {}u);", self.shape.m - 1),
            });
        }
    }

    /// The loop over an invocation's steps of k. Many steps are summed in blocks whose sums are added, to limit the
    /// accumulation of rounding errors.
    fn walk(&self, text: &mut Text, trips: u32, guarded: bool) {
        if trips <= MANY {
            text.line(format!("for (var i = 0u; i < {trips}u; i++) {{"));
            self.step(text, guarded);
            text.line("}");
            return;
        }
        let kind = if self.width == 4 { "vec4<f32>" } else { "f32" };
        let rows = 0..self.cut.rows;
        let sums = rows.clone().flat_map(|r| (0..self.cut.per).map(move |p| (format!("c{r}_{p}"), kind)));
        let norms = rows.filter(|_| self.shape.norm).map(|r| (format!("s{r}"), "f32"));
        let all: Vec<(String, &str)> = sums.chain(norms).collect();
        text.line(format!("for (var block = 0u; block < {}u; block++) {{", trips.div_ceil(BLOCK)));
        for (name, kind) in &all {
            text.line(format!("let of_{name} = {name};\n{name} = {kind}();"));
        }
        text.line(format!("for (var n = 0u; n < {BLOCK}u; n++) {{\nlet i = block * {BLOCK}u + n;"));
        if !trips.is_multiple_of(BLOCK) {
            text.line(format!("if i >= {trips}u {{ break; }}"));
        }
        self.step(text, guarded);
        text.line("}");
        for (name, _) in &all {
            text.line(format!("{name} = of_{name} + {name};"));
        }
        text.line("}");
    }

    /// One step: all loads of the wide operand first, then the sums.
    fn step(&self, text: &mut Text, guarded: bool) {
        let Vector { rows, per, lanes, unroll, .. } = *self.cut;
        let four = [0u32, 1, 2, 3];
        for u in 0..unroll {
            text.line(format!("let q{u} = k0 + ((i * {unroll}u + {u}u) * {lanes}u + lane) * 4u;"));
            let wide = |p: u32, j: u32| format!("wide(z, q{u} + {j}u, n{p})");
            for p in 0..per {
                let reads: Vec<_> = match self.along_k() {
                    true => vec![(format!("b{u}_{p}"), format!("wide(z, q{u}, n{p})"))],
                    false => four.iter().map(|&j| (format!("b{u}_{p}_{j}"), wide(p, j))).collect(),
                };
                let kind = if self.shape.b_vec == Along::None { "f32" } else { "vec4<f32>" };
                for (name, read) in reads {
                    text.line(match guarded {
                        true => format!(
                            "var {name} = {kind}();\nif q{u} < {}u {{ {name} = {read}; }}",
                            self.shape.k
                        ),
                        false => format!("let {name} = {read};"),
                    });
                }
            }
        }
        for u in 0..unroll {
            if guarded {
                text.line(format!("if q{u} < {}u {{", self.shape.k));
            }
            for r in 0..rows {
                text.line(match self.shape.norm {
                    false => format!("let a{u}_{r} = narrow(z, m{r}, q{u});"),
                    true => format!(
                        "let x{u}_{r} = narrow(z, m{r}, q{u});\ns{r} += measured4(x{u}_{r});\n\
                         let a{u}_{r} = element4(q{u}, x{u}_{r});"
                    ),
                });
                for p in 0..per {
                    let terms = LANES.iter().enumerate().map(|(j, c)| match self.along_k() {
                        true => format!(" + a{u}_{r}.{c} * b{u}_{p}.{c}"),
                        false => format!(" + a{u}_{r}.{c} * b{u}_{p}_{j}"),
                    });
                    text.line(format!("c{r}_{p} = c{r}_{p}{};", terms.collect::<String>()));
                }
            }
            if guarded {
                text.line("}");
            }
        }
    }

    /// Adds up the lanes and stores, `round` rows at a time.
    fn put(&self, text: &mut Text) {
        let Vector { rows, per, lanes, threads, .. } = *self.cut;
        if lanes == 1 {
            return self.put_alone(text);
        }
        let (columns, width) = (self.shape.columns_of(self.columns()), self.width);
        if self.shape.norm {
            text.line("if team == 0u {");
            (0..rows).for_each(|r| text.line(format!("parts[{}u + lane] = s{r};", r * lanes)));
            text.line("}");
        }
        let first_rows = (0..rows).step_by(self.round() as usize);
        for first in first_rows {
            let count = self.round().min(rows - first);
            if first > 0 {
                text.line("workgroupBarrier();");
            }
            for r in 0..count {
                for p in 0..per {
                    for x in 0..width {
                        let part = if width == 4 { format!("[{x}]") } else { String::new() };
                        let at = ((r * per + p) * width + x) * threads;
                        text.line(format!("sums[{at}u + t] = c{}_{p}{part};", first + r));
                    }
                }
            }
            text.line("workgroupBarrier();");
            text.line(format!("for (var o = t; o < {}u; o += {threads}u) {{", count * columns));
            text.line(format!("let r = o / {columns}u;\nlet c = o % {columns}u;"));
            let values = self.sum(text, first);
            let mut guards = Vec::new();
            if !self.shape.m.is_multiple_of(rows) {
                guards.push(format!("row0 + {first}u + r < {}u", self.shape.m));
            }
            let col0 = if self.shape.gated_columns { "col0 / 2u" } else { "col0" };
            if !self.shape.columns().is_multiple_of(columns) {
                guards.push(format!("{col0} + c < {}u", self.shape.columns()));
            }
            let keep = format!("keep(out_z, row0 + {first}u + r, {col0} + c, {values});");
            text.line(match guards.is_empty() {
                true => keep,
                false => format!("if {} {{ {keep} }}", guards.join(" && ")),
            });
            text.line("}");
        }
    }

    /// Adds up the lanes of result `c` in row `first + r`, and with gated columns of its partner in the second half: the
    /// values.
    fn sum(&self, text: &mut Text, first: u32) -> String {
        let Vector { per, lanes, threads, .. } = *self.cut;
        let (teams, width, results) = (self.teams(), self.width, self.results());
        let (cell, second) = match self.along_k() {
            // Each output starts at another lane, so that neighbours read different banks.
            true => {
                let row = format!("(r * {per}u + c % {results}u) * {threads}u");
                text.line(format!("let base = {row} + c / {results}u * {lanes}u;"));
                (format!("base + (j + o) % {lanes}u"), results * threads)
            }
            false => {
                let span = width * teams;
                text.line(format!("let a = (r * {per}u + c / {span}u) * {width}u + c % {width}u;"));
                text.line(format!("let base = a * {threads}u + c / {width}u % {teams}u;"));
                (format!("base + j * {teams}u"), results * width * threads)
            }
        };
        text.line("var sum = 0.0;");
        let mut sums = format!("sum += sums[{cell}];");
        if self.shape.gated_columns {
            text.line("var other = 0.0;");
            sums += &format!(" other += sums[{cell} + {second}u];");
        }
        if self.shape.norm {
            text.line("var of_row = 0.0;");
            sums += &format!(" of_row += parts[({first}u + r) * {lanes}u + j];");
        }
        text.line(format!("for (var j = 0u; j < {lanes}u; j++) {{ {sums} }}"));
        let mut values = vec!["sum"];
        values.extend(self.shape.gated_columns.then_some("other"));
        if self.shape.norm {
            text.line("let by = factor(of_row);");
            return values.iter().map(|v| format!("{v} * by")).collect::<Vec<_>>().join(", ");
        }
        values.join(", ")
    }

    /// Stores without a reduction over lanes; invocations out of range store nothing.
    fn put_alone(&self, text: &mut Text) {
        let (columns, results) = (self.shape.columns(), self.results());
        for r in 0..self.cut.rows {
            if self.shape.norm {
                text.line(format!("let by{r} = factor(s{r});"));
            }
            let by = if self.shape.norm { format!(" * by{r}") } else { String::new() };
            for p in 0..results {
                let mut guards = Vec::new();
                if !self.shape.m.is_multiple_of(self.cut.rows) {
                    guards.push(format!("row0 + {r}u < {}u", self.shape.m));
                }
                if !columns.is_multiple_of(self.shape.columns_of(self.columns())) {
                    guards.push(format!("{} < {columns}u", self.column(p)));
                }
                let keeps = (0..self.width).map(|x| {
                    let part = if self.width == 4 { format!("[{x}]") } else { String::new() };
                    let mut values = format!("c{r}_{p}{part}{by}");
                    if self.shape.gated_columns {
                        values += &format!(", c{r}_{}{part}{by}", p + results);
                    }
                    format!("keep(out_z, m{r}, n{p} + {x}u, {values});")
                });
                let keeps = keeps.collect::<Vec<_>>().join(" ");
                text.line(match guards.is_empty() {
                    true => keeps,
                    false => format!("if {} {{ {keeps} }}", guards.join(" && ")),
                });
            }
        }
    }
}
