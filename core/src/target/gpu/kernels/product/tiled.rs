//! The f32 product: a workgroup stages tiles of A and B in workgroup memory; an invocation accumulates a block of the result in
//! registers.
//!
//! Tiles keep the order in which operands are read, so staging never transposes: if a tile's vec4 groups run along k, the inner
//! step takes four k at once and transposes B's 4×4 blocks in registers, which is free on hardware that is scalar per
//! invocation. Small outputs can split the tile's k among groups of invocations (`slices`), which add up in workgroup memory,
//! or k among workgroups (`split`), which add up in a second pass.

use super::rows::{Rows, scaled};
use super::tile::{Grid, Stage, Steps};
use super::{Along, F32, Pass, Shape, Skeleton, Text, entry, reduce::reduce};
use crate::target::gpu::wgsl::lanes::LANES;

/// The tiling of [`tiled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiled {
    /// Rows of a workgroup's tile: a multiple of `rm`.
    pub bm: u32,
    /// Columns of a workgroup's tile: a multiple of `rn`.
    pub bn: u32,
    /// k of one staged step: a multiple of 4 × `slices`.
    pub bk: u32,
    /// Rows of an invocation; a multiple of four where A is vectored along rows.
    pub rm: u32,
    /// Columns of an invocation: a multiple of four.
    pub rn: u32,
    /// Groups of invocations that share a step's k.
    pub slices: u32,
    /// Workgroups that share k.
    pub split: u32,
    /// Steps prefetched into registers.
    pub depth: u32,
}

impl Tiled {
    /// Invocations of a workgroup.
    pub fn threads(&self) -> u32 {
        self.bm / self.rm * (self.bn / self.rn) * self.slices
    }

    /// Whether sums go through workgroup memory: those of slices, and of gated columns that belong to different invocations.
    fn joins(&self, shape: &Shape) -> bool {
        self.slices > 1 || shape.gated_columns && !self.rn.is_multiple_of(8)
    }

    /// vec4 groups of workgroup memory: the staged tiles, or the sums exchanged through it if these are larger.
    fn groups(&self, shape: &Shape, a: &Stage, b: &Stage) -> u32 {
        let sums = if self.joins(shape) { self.slices * self.bm * self.bn / 4 } else { 0 };
        (a.size() + b.size()).max(sums)
    }

    fn stages(&self, shape: &Shape) -> (Stage, Stage) {
        let a = Stage::new(shape.a_vec != Along::Outer, self.bm, self.bk, [1, 0]);
        (a, Stage::new(shape.b_vec == Along::K, self.bn, self.bk, [1, 0]))
    }

    /// Bytes of workgroup memory for a shape.
    pub fn shared(&self, shape: &Shape) -> u32 {
        let (a, b) = self.stages(shape);
        self.groups(shape, &a, &b) * 4 * F32 + Rows::shared(shape, &a, false)
    }
}

/// The kernel for a shape with this tiling.
pub fn tiled(shape: &Shape, cut: &Tiled) -> Skeleton {
    let grid = Grid::new(shape, [cut.bm, cut.bn, cut.bk], cut.split);
    let (a, b) = cut.stages(shape);
    let rows = Rows::new(shape, &a, (cut.threads(), cut.bk), false, ("tile", ".x"));
    let kernel = Kernel {
        cut,
        a,
        b,
        ty: cut.bm / cut.rm,
        tx: cut.bn / cut.rn,
        rows,
        gated_columns: shape.gated_columns,
    };

    let pass = |grid: Grid| {
        let (workgroups, id, place) = grid.place();
        let mut text = Text::default();
        text.share("tile", "vec4<f32>", cut.groups(shape, &a, &b) as usize);
        kernel.rows.iter().for_each(|r| r.memory(&mut text));
        grid.fetches(&mut text);
        grid.put(&mut text);
        entry(&mut text, cut.threads(), &id);
        text.line(place);
        kernel.declare(&mut text);
        grid.run(&mut text, &kernel, cut.depth);
        kernel.rows.iter().for_each(|r| r.finish(&mut text));
        match cut.joins(shape) {
            false => kernel.put(&mut text),
            true => kernel.join(&mut text),
        }
        text.line("}");
        Pass { text, holes: grid.holes(shape.c_vec), workgroups }
    };
    Skeleton {
        main: pass(grid.clone()),
        rounds: grid.rounds().skip(1).map(pass).collect(),
        enables: &[],
        shared: cut.shared(shape),
        scratch: grid.scratch(),
        reduce: (grid.split > 1).then(|| reduce(shape, grid.layers)),
    }
}

struct Kernel<'a> {
    cut: &'a Tiled,
    a: Stage,
    b: Stage,
    /// Invocations along rows and along columns.
    ty: u32,
    tx: u32,
    rows: Option<Rows>,
    gated_columns: bool,
}

impl Kernel<'_> {
    /// Computes the invocation's position, and zeroes its accumulators. If the block allows it, 32 consecutive invocations
    /// cover 4 × 8 blocks: they read fewer distinct groups than a row of 32 would.
    fn declare(&self, text: &mut Text) {
        let (ty, tx) = (self.ty, self.tx);
        let one = match self.cut.slices {
            1 => "t".to_string(),
            _ => {
                text.line(format!("let slice = t / {}u;", ty * tx));
                format!("(t % {}u)", ty * tx)
            }
        };
        if tx % 8 == 0 && ty % 4 == 0 && tx > 8 {
            let wide = tx / 8;
            text.line(format!("let tx = {one} % 8u + {one} / 32u % {wide}u * 8u;"));
            text.line(format!("let ty = {one} / 8u % 4u + {one} / {}u * 4u;", wide * 32));
        } else {
            text.line(format!("let tx = {one} % {tx}u;\nlet ty = {one} / {tx}u;"));
        }
        for (i, g) in self.block() {
            text.line(format!("var c{i}_{g} = vec4<f32>();"));
        }
        self.rows.iter().for_each(|r| r.declare(text));
        self.a.registers(text, "a", self.cut.depth, self.cut.threads());
        self.b.registers(text, "b", self.cut.depth, self.cut.threads());
    }

    /// The invocation's vec4 accumulators: row, and group of four columns.
    fn block(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let groups = self.cut.rn / 4;
        (0..self.cut.rm).flat_map(move |i| (0..groups).map(move |g| (i, g)))
    }

    fn fetch_a(&self, k: &str) -> String {
        let groups = self.a.groups;
        match self.a.along_k {
            true => format!("fetch_a(z, row0 + e / {groups}u, {k} + e % {groups}u * 4u)"),
            false => format!("fetch_a(z, row0 + e % {groups}u * 4u, {k} + e / {groups}u)"),
        }
    }

    /// If B is staged along k, its column 4q + i is in row i · bn/4 + q, so that neighbours read neighbouring rows.
    fn fetch_b(&self, k: &str) -> String {
        let (groups, quarter) = (self.b.groups, self.cut.bn / 4);
        let column = format!("e / {groups}u % {quarter}u * 4u + e / {}u", groups * quarter);
        match self.b.along_k {
            true => format!("fetch_b(z, {k} + e % {groups}u * 4u, col0 + {column})"),
            false => format!("fetch_b(z, {k} + e / {groups}u, col0 + e % {groups}u * 4u)"),
        }
    }

    /// The row of an invocation's sum `i` in the tile.
    fn row(&self, i: u32) -> String {
        match self.a.along_k {
            true => format!("{}u + ty", i * self.ty),
            false => format!("{}u + ty * 4u", i / 4 * self.ty * 4 + i % 4),
        }
    }

    /// Adds the slices' sums in workgroup memory, distributing the tile over all invocations, and stores them.
    fn join(&self, text: &mut Text) {
        let (groups, threads) = (self.cut.bn / 4, self.cut.threads());
        let all = self.cut.bm * groups;
        text.line(match self.cut.slices {
            1 => "let cell = tx;".to_string(),
            _ => format!("let cell = slice * {all}u + tx;"),
        });
        for (i, g) in self.block() {
            text.line(format!("tile[cell + ({}) * {groups}u + {}u] = c{i}_{g};", self.row(i), g * self.tx));
        }
        text.line("workgroupBarrier();");
        if self.gated_columns {
            return self.join_gates(text);
        }
        text.line(format!("for (var e = t; e < {all}u; e += {threads}u) {{"));
        text.line("var sum = tile[e];");
        text.line(format!(
            "for (var s = 1u; s < {}u; s++) {{ sum += tile[s * {all}u + e]; }}",
            self.cut.slices
        ));
        let sum = scaled(&self.rows, "sum", &format!("e / {groups}u"));
        text.line(format!("put(out_z, row0 + e / {groups}u, col0 + e % {groups}u * 4u, {sum});\n}}"));
    }

    /// The same for gated columns: each group of the first half of a row is paired with one of the second.
    fn join_gates(&self, text: &mut Text) {
        let (groups, threads) = (self.cut.bn / 4, self.cut.threads());
        let (all, half) = (self.cut.bm * groups, groups / 2);
        text.line(format!("for (var e = t; e < {}u; e += {threads}u) {{", all / 2));
        text.line(format!("let r = e / {half}u;\nlet g = e % {half}u;\nvar at = r * {groups}u + g;"));
        text.line(format!("var sum = tile[at];\nvar other = tile[at + {half}u];"));
        text.line(format!("for (var s = 1u; s < {}u; s++) {{", self.cut.slices));
        text.line(format!("at += {all}u;\nsum += tile[at];\nother += tile[at + {half}u];\n}}"));
        let [sum, other] = ["sum", "other"].map(|v| scaled(&self.rows, v, "r"));
        text.line(format!("put(out_z, row0 + r, col0 / 2u + g * 4u, {sum}, {other});\n}}"));
    }

    fn put(&self, text: &mut Text) {
        let half = self.cut.rn / 8;
        for (i, g) in self.block() {
            let (row, col) = (self.row(i), format!("{}u + tx * 4u", g * self.tx * 4));
            let value = |g: u32| scaled(&self.rows, &format!("c{i}_{g}"), &row);
            match self.gated_columns {
                false => text.line(format!("put(out_z, row0 + {row}, col0 + {col}, {});", value(g))),
                true if g < half => {
                    let both = format!("{}, {}", value(g), value(g + half));
                    text.line(format!("put(out_z, row0 + {row}, col0 / 2u + {col}, {both});"));
                }
                true => {}
            }
        }
    }
}

impl Steps for Kernel<'_> {
    fn fetch(&self, text: &mut Text, set: u32, k: &str) {
        let threads = self.cut.threads();
        self.a.share(text, threads, |i| format!("a{set}_{i} = {};", self.fetch_a(k)));
        self.b.share(text, threads, |i| format!("b{set}_{i} = {};", self.fetch_b(k)));
    }

    fn stage(&self, text: &mut Text, set: u32) {
        let threads = self.cut.threads();
        let cell = |stage: &Stage, base: u32| {
            let (groups, pitch) = (stage.groups, stage.pitch);
            match groups == pitch {
                true => format!("tile[{base}u + e]"),
                false => format!("tile[{base}u + e / {groups}u * {pitch}u + e % {groups}u]"),
            }
        };
        self.a.share(text, threads, |i| match &self.rows {
            Some(rows) => format!("{} {} = y;", rows.staged(i, &format!("a{set}_{i}")), cell(&self.a, 0)),
            None => format!("{} = a{set}_{i};", cell(&self.a, 0)),
        });
        self.b.share(text, threads, |i| format!("{} = b{set}_{i};", cell(&self.b, self.a.size())));
    }

    /// Four k at a time.
    fn multiply(&self, text: &mut Text) {
        let cut = self.cut;
        let steps = cut.bk / 4 / cut.slices;
        text.line(format!("for (var s = 0u; s < {steps}u; s++) {{"));
        text.line(match cut.slices {
            1 => "let q = s;".to_string(),
            _ => format!("let q = slice * {steps}u + s;"),
        });
        let base = self.a.size();
        for g in 0..cut.rn / 4 {
            let read = |i: u32| match self.b.along_k {
                true => {
                    let (row, pitch) = (i * cut.bn / 4 + g * self.tx, self.b.pitch);
                    format!("let r{g}_{i} = tile[{}u + tx * {pitch}u + q];", base + row * pitch)
                }
                false => {
                    let pitch = self.b.pitch;
                    format!("let s{g}_{i} = tile[{}u + (q * 4u + {i}u) * {pitch}u + tx];", base + g * self.tx)
                }
            };
            (0..4).for_each(|i| text.line(read(i)));
            if self.b.along_k {
                for (i, c) in LANES.iter().enumerate() {
                    let each = [0, 1, 2, 3].map(|j| format!("r{g}_{j}.{c}")).join(", ");
                    text.line(format!("let s{g}_{i} = vec4<f32>({each});"));
                }
            }
        }
        for i in 0..cut.rm {
            let of_a = match self.a.along_k {
                true => {
                    let pitch = self.a.pitch;
                    text.line(format!("let a{i} = tile[{}u + ty * {pitch}u + q];", i * self.ty * pitch));
                    LANES.map(|c| format!("a{i}.{c}"))
                }
                false => {
                    let (group, pitch) = (i / 4, self.a.pitch);
                    if i % 4 == 0 {
                        for j in 0..4 {
                            let offset = group * self.ty;
                            text.line(format!(
                                "let p{group}_{j} = tile[{offset}u + (q * 4u + {j}u) * {pitch}u + ty];"
                            ));
                        }
                    }
                    [0, 1, 2, 3].map(|j| format!("p{group}_{j}[{}]", i % 4))
                }
            };
            for g in 0..cut.rn / 4 {
                let terms = (0..4).map(|j| format!(" + {} * s{g}_{j}", of_a[j])).collect::<String>();
                text.line(format!("c{i}_{g} = c{i}_{g}{terms};"));
            }
        }
        text.line("}");
    }
}
