//! The product with few rows (or, `swap`ped, few columns): bound by reading the wide operand once.
//!
//! An invocation takes four k at a time for `per` columns of the wide operand and every row of the narrow one, keeps
//! the sums in registers, and the invocations that share columns add up in workgroup memory. Where the wide operand
//! is vectored along k, neighbours are neighbours in k; otherwise they are neighbours in columns, so that either
//! storage order is read in whole cache lines.

use super::tile::Grid;
use super::{Along, F32, Pass, Shape, Skeleton, Text, entry, reduce::reduce};
use crate::device::gpu::wgsl::lanes::LANES;

/// How the work of [`vector`] is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vector {
    /// Rows that a workgroup computes.
    pub rows: u32,
    /// Columns of an invocation; groups of four columns where the wide operand is vectored along them.
    pub per: u32,
    /// Invocations that share columns and split k; a power of two.
    pub lanes: u32,
    /// Invocations of a workgroup: a multiple of `lanes`.
    pub threads: u32,
    /// Steps of k read before the first is used.
    pub unroll: u32,
    /// Workgroups that share k.
    pub split: u32,
    /// Whether B is the narrow operand: rows are columns of C.
    pub swap: bool,
    /// Bytes of workgroup memory to use at most.
    pub shared_limit: u32,
}

/// The kernel for a shape, cut so.
pub fn vector(shape: &Shape, cut: &Vector) -> Skeleton {
    let shape_in = if cut.swap { swapped(shape) } else { *shape };
    let kernel = Kernel::new(&shape_in, cut);
    let bk = cut.lanes * 4 * cut.unroll;
    let grid = Grid::new(&shape_in, [cut.rows, kernel.columns(), bk], cut.split);
    let (workgroups, id, place) = grid.place();

    let mut text = Text::default();
    if cut.lanes > 1 {
        text.line(format!("var<workgroup> sums: array<f32, {}>;", kernel.memory()));
    }
    kernel.fetches(&mut text);
    kernel.keep(&mut text, shape, grid.split);
    entry(&mut text, cut.threads, &id);
    text.line(place);
    kernel.declare(&mut text);
    text.line(format!("for (var i = 0u; i < {}u; i++) {{", grid.trips));
    kernel.step(&mut text, !shape.k.is_multiple_of(bk) || grid.ragged());
    text.line("}");
    kernel.put(&mut text);
    text.line("}");
    Skeleton {
        main: Pass { text: text.0, workgroups, threads: cut.threads },
        enables: &[],
        shared: if cut.lanes > 1 { kernel.memory() * F32 } else { 0 },
        scratch: grid.scratch(),
        reduce: (grid.split > 1).then(|| reduce(shape, grid.split)),
    }
}

/// Cᵀ = Bᵀ · Aᵀ: the axes keep their names, the operands change places.
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

    /// Groups of invocations with columns of their own.
    fn teams(&self) -> u32 {
        self.cut.threads / self.cut.lanes
    }

    fn columns(&self) -> u32 {
        self.teams() * self.cut.per * self.width
    }

    /// Rows summed at once in workgroup memory.
    fn round(&self) -> u32 {
        let row = self.cut.per * self.width * self.cut.threads * F32;
        (self.cut.shared_limit / row).clamp(1, self.cut.rows)
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

    /// `keep(z, row, col, v)`: a result to its place in C, or in scratch.
    fn keep(&self, text: &mut Text, shape: &Shape, split: u32) {
        text.line("fn keep(z: u32, row: u32, col: u32, v: f32) {");
        let (row, col) = if self.cut.swap { ("col", "row") } else { ("row", "col") };
        text.line(match split {
            1 => format!("store(z, {row}, {col}, v);"),
            _ => format!("partial_store((z * {}u + {row}) * {}u + {col}, v);", shape.m, shape.n),
        });
        text.line("}");
    }

    /// The first column of an invocation's group `p`, which may lie beyond the edge.
    fn column(&self, p: u32) -> String {
        match self.along_k() {
            true => format!("col0 + team * {}u + {p}u", self.cut.per),
            false => format!("col0 + (team + {}u) * {}u", p * self.teams(), self.width),
        }
    }

    /// Places the invocation and zeroes its sums.
    fn declare(&self, text: &mut Text) {
        let (lanes, teams) = (self.cut.lanes, self.teams());
        text.line(match self.along_k() {
            true => format!("let lane = t % {lanes}u;\nlet team = t / {lanes}u;"),
            false => format!("let lane = t / {teams}u;\nlet team = t % {teams}u;"),
        });
        let kind = if self.width == 4 { "vec4<f32>" } else { "f32" };
        for p in 0..self.cut.per {
            let col = self.column(p);
            let last = self.shape.n - self.width.min(self.shape.n);
            text.line(match self.shape.n % self.columns() {
                0 => format!("let n{p} = {col};"),
                _ => format!("let n{p} = min({col}, {last}u);"),
            });
            for r in 0..self.cut.rows {
                text.line(format!("var c{r}_{p} = {kind}();"));
            }
        }
        for r in 0..self.cut.rows {
            text.line(match self.shape.m % self.cut.rows {
                0 => format!("let m{r} = row0 + {r}u;"),
                _ => format!("let m{r} = min(row0 + {r}u, {}u);", self.shape.m - 1),
            });
        }
    }

    /// One step: every read of the wide operand first, then the sums.
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
                text.line(format!("let a{u}_{r} = narrow(z, m{r}, q{u});"));
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
        let (columns, teams, width) = (self.columns(), self.teams(), self.width);
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
            let cell = match self.along_k() {
                // Each output starts at another lane, so that neighbours read different banks.
                true => {
                    text.line(format!(
                        "let base = (r * {per}u + c % {per}u) * {threads}u + c / {per}u * {lanes}u;"
                    ));
                    format!("base + (j + o) % {lanes}u")
                }
                false => {
                    let span = width * teams;
                    text.line(format!("let a = (r * {per}u + c / {span}u) * {width}u + c % {width}u;"));
                    text.line(format!("let base = a * {threads}u + c / {width}u % {teams}u;"));
                    format!("base + j * {teams}u")
                }
            };
            text.line("var sum = 0.0;");
            text.line(format!("for (var j = 0u; j < {lanes}u; j++) {{ sum += sums[{cell}]; }}"));
            let mut guards = Vec::new();
            if !self.shape.m.is_multiple_of(rows) {
                guards.push(format!("row0 + {first}u + r < {}u", self.shape.m));
            }
            if !self.shape.n.is_multiple_of(columns) {
                guards.push(format!("col0 + c < {}u", self.shape.n));
            }
            let keep = format!("keep(out_z, row0 + {first}u + r, col0 + c, sum);");
            text.line(match guards.is_empty() {
                true => keep,
                false => format!("if {} {{ {keep} }}", guards.join(" && ")),
            });
            text.line("}");
        }
    }

    /// Stores without partners; invocations beyond the edge keep nothing.
    fn put_alone(&self, text: &mut Text) {
        for r in 0..self.cut.rows {
            for p in 0..self.cut.per {
                let mut guards = Vec::new();
                if !self.shape.m.is_multiple_of(self.cut.rows) {
                    guards.push(format!("row0 + {r}u < {}u", self.shape.m));
                }
                if !self.shape.n.is_multiple_of(self.columns()) {
                    guards.push(format!("{} < {}u", self.column(p), self.shape.n));
                }
                let keeps = (0..self.width).map(|x| {
                    let part = if self.width == 4 { format!("[{x}]") } else { String::new() };
                    format!("keep(out_z, m{r}, n{p} + {x}u, c{r}_{p}{part});")
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
