//! The product on matrix units: tiles of A and B staged in workgroup memory, cooperative matrices that accumulate in f32 over
//! all of k, and results stored through workgroup memory.
//!
//! Operands are converted to f16 when staged (or stay f32 if the device multiplies f32 matrices): values beyond ±65504 become
//! infinite, as documented for the fast precision (with a fused norm, values after the norm). A subgroup owns `bm/wm` × `bn/wn`
//! of the tile; `wk` subgroups can share a step's k, and their sums are added before the store. The module uses no subgroup
//! operation: NVIDIA's compiler crashes if a module has both.

use super::rows::{Rows, scaled};
use super::tile::{Grid, Stage, Steps};
use super::{Along, F32, Pass, Shape, Skeleton, Text, entry, reduce::reduce};

/// The tiling of [`coop`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Coop {
    /// Rows of a workgroup's tile: a multiple of `wm` × `tile`.
    pub bm: u32,
    /// Columns of a workgroup's tile: a multiple of `wn` × `tile`.
    pub bn: u32,
    /// k of one staged step: a multiple of `wk` × `tile`.
    pub bk: u32,
    /// Subgroups along rows.
    pub wm: u32,
    /// Subgroups along columns.
    pub wn: u32,
    /// Subgroups that share a step's k.
    pub wk: u32,
    /// Workgroups that share k.
    pub split: u32,
    /// Steps prefetched into registers.
    pub depth: u32,
    /// Side of a cooperative matrix: 8 or 16.
    pub tile: u32,
    /// Invocations of a subgroup.
    pub subgroup: u32,
    /// Whether operands are staged as f16 rather than f32.
    pub half: bool,
    /// Whether workgroup memory is declared as vec4, which Metal's matrix loads do not support.
    pub packed: bool,
    /// Maximum bytes of workgroup memory; what staging leaves is used to store results.
    pub shared_limit: u32,
}

impl Coop {
    /// Invocations of a workgroup.
    pub fn threads(&self) -> u32 {
        self.wm * self.wn * self.wk * self.subgroup
    }

    /// Bytes of workgroup memory for a shape: staged tiles, and results before their store.
    pub fn shared(&self, shape: &Shape) -> u32 {
        self.staged(shape) + self.out_size(shape, self.round(shape)) * F32
    }

    fn staged(&self, shape: &Shape) -> u32 {
        let (a, b) = self.stages(shape);
        let element = if self.half { F32 / 2 } else { F32 };
        (a.size() + b.size()) * 4 * element + Rows::shared(shape, &a, self.half)
    }

    fn stages(&self, shape: &Shape) -> (Stage, Stage) {
        let pad = if self.half { [2, 2] } else { [1, 1] };
        let a = Stage::new(shape.a_vec != Along::Outer, self.bm, self.bk, pad);
        (a, Stage::new(shape.b_vec == Along::K, self.bn, self.bk, pad))
    }

    /// Columns of a subgroup.
    fn width(&self) -> u32 {
        self.bn / self.wn
    }

    /// Matrices that each subgroup stores at once: as many of a row as fit in addition to the staged tiles.
    fn round(&self, shape: &Shape) -> u32 {
        let cols = self.width() / self.tile;
        let fits = |r: &u32| {
            cols.is_multiple_of(*r)
                && self.staged(shape) + self.out_size(shape, *r) * F32 <= self.shared_limit
        };
        (1..=cols).rev().find(fits).unwrap_or(1)
    }

    /// f32 elements through which the subgroups store `round` matrices each; used for the sums of rows before that.
    fn out_size(&self, shape: &Shape, round: u32) -> u32 {
        let out = self.wm * self.wn * self.wk * self.tile * (round * self.tile + 4);
        out.max(Rows::parts(shape, &self.stages(shape).0))
    }
}

/// The kernel for a shape with this tiling.
pub fn coop(shape: &Shape, cut: &Coop) -> Skeleton {
    let grid = Grid::new(shape, [cut.bm, cut.bn, cut.bk], cut.split);
    let (a, b) = cut.stages(shape);
    let kernel = Kernel {
        cut,
        a,
        b,
        round: cut.round(shape),
        out: cut.out_size(shape, cut.round(shape)),
        element: if cut.half { "f16" } else { "f32" },
        rows: Rows::new(shape, &a, (cut.threads(), cut.bk), cut.half, ("so", "")),
        gated_columns: shape.gated_columns,
    };

    let pass = |grid: Grid| {
        let (workgroups, id, place) = grid.place();
        let mut text = Text::default();
        kernel.memory(&mut text);
        grid.fetches(&mut text);
        grid.put(&mut text);
        entry(&mut text, cut.threads(), &id);
        text.line(place);
        kernel.declare(&mut text);
        grid.run(&mut text, &kernel, cut.depth);
        kernel.rows.iter().for_each(|r| r.finish(&mut text));
        kernel.put(&mut text);
        if let Some(rows) = kernel.rows.as_ref().filter(|r| r.half) {
            let columns = shape.columns_of(cut.bn);
            rows.again(&mut text, columns, shape.gated_columns.then_some(columns), b.along_k);
        }
        text.line("}");
        Pass { text, holes: grid.holes(shape.c_vec), workgroups }
    };
    Skeleton {
        main: pass(grid.clone()),
        rounds: grid.rounds().skip(1).map(pass).collect(),
        enables: match cut.half {
            true => &["f16", "wgpu_cooperative_matrix"],
            false => &["wgpu_cooperative_matrix"],
        },
        shared: cut.shared(shape),
        scratch: grid.scratch(),
        reduce: (grid.split > 1).then(|| reduce(shape, grid.layers)),
    }
}

struct Kernel<'a> {
    cut: &'a Coop,
    a: Stage,
    b: Stage,
    round: u32,
    /// f32 elements of `so`.
    out: u32,
    element: &'static str,
    rows: Option<Rows>,
    gated_columns: bool,
}

impl Kernel<'_> {
    /// Matrices of a subgroup along rows and along columns.
    fn block(&self) -> (u32, u32) {
        (self.cut.bm / self.cut.wm / self.cut.tile, self.cut.width() / self.cut.tile)
    }

    fn memory(&self, text: &mut Text) {
        let element = self.element;
        for (name, stage) in [("sa", &self.a), ("sb", &self.b)] {
            let size = stage.size() as usize;
            match self.cut.packed {
                true => text.share(name, &format!("vec4<{element}>"), size),
                false => text.share(name, element, size * 4),
            }
        }
        text.share("so", "f32", self.out as usize);
        self.rows.iter().for_each(|r| r.memory(text));
    }

    /// Computes the subgroup's position, and zeroes its accumulators.
    fn declare(&self, text: &mut Text) {
        let Coop { tile, wm, wn, wk, subgroup, .. } = *self.cut;
        text.line(format!("let w = t / {subgroup}u;"));
        text.line(format!("let wx = w % {wn}u;\nlet wy = w / {wn}u % {wm}u;"));
        if wk > 1 {
            text.line(format!("let wz = w / {}u;", wm * wn));
        }
        let (rows, cols) = self.block();
        for i in 0..rows {
            for j in 0..cols {
                text.line(format!("var c{i}_{j} = coop_mat{tile}x{tile}<f32, C>();"));
            }
        }
        self.rows.iter().for_each(|r| r.declare(text));
        self.a.registers(text, "a", self.cut.depth, self.cut.threads());
        self.b.registers(text, "b", self.cut.depth, self.cut.threads());
    }

    /// A matrix at (outer, k) of a staged tile: `outer` and `k` are expressions in elements, multiples of four.
    fn load(&self, name: &str, stage: &Stage, outer: &str, k: &str) -> String {
        let (tile, element, pitch) = (self.cut.tile, self.element, stage.pitch);
        let (row, group) = if stage.along_k { (outer, k) } else { (k, outer) };
        let role = if name == "a" { "A" } else { "B" };
        // Row-major in memory: A with groups along k, B with groups along columns.
        let transposed = if stage.along_k == (name == "a") { "T" } else { "" };
        let (at, stride) = match self.cut.packed {
            true => (format!("({row}) * {pitch}u + ({group}) / 4u"), pitch),
            false => (format!("({row}) * {}u + ({group})", pitch * 4), pitch * 4),
        };
        format!("coopLoad{transposed}<coop_mat{tile}x{tile}<{element}, {role}>>(&s{name}[{at}], {stride}u)")
    }

    /// Stores the accumulators, `round` matrices of a row at a time, adding those of subgroups that share k.
    fn put(&self, text: &mut Text) {
        let Coop { tile, wm, wn, wk, .. } = *self.cut;
        let (rows, cols) = self.block();
        let width = self.round * tile;
        let pitch = width + 4;
        let (region, groups) = (tile * pitch, width / 4);
        // with gated columns, subgroups of the first half of the columns, each paired with one of the second
        let across = if self.gated_columns { wn / 2 } else { wn };
        let all = wm * across * tile * groups;
        let rounds = (0..rows).flat_map(|i| (0..cols).step_by(self.round as usize).map(move |j| (i, j)));
        for (i, first) in rounds {
            if (i, first) != (0, 0) {
                text.line("workgroupBarrier();");
            }
            for j in 0..self.round {
                let at = format!("w * {region}u + {}u", j * tile);
                text.line(format!("coopStoreT(c{i}_{}, &so[{at}], {pitch}u);", first + j));
            }
            text.line("workgroupBarrier();");
            text.line(format!("for (var e = t; e < {all}u; e += {}u) {{", self.cut.threads()));
            text.line(format!("let r = e / {groups}u % {tile}u;\nlet g = e % {groups}u * 4u;"));
            text.line(format!("let v = e / {}u;", groups * tile));
            let of = if self.gated_columns {
                format!("(v / {across}u * {wn}u + v % {across}u)")
            } else {
                "v".into()
            };
            text.line(format!("var at = {of} * {region}u + r * {pitch}u + g;"));
            let four = |shift: u32| {
                let each = [0, 1, 2, 3].map(|i| format!("so[at + {}u]", shift + i)).join(", ");
                format!("vec4<f32>({each})")
            };
            let second = across * region;
            text.line(format!("var sum = {};", four(0)));
            if self.gated_columns {
                text.line(format!("var other = {};", four(second)));
            }
            for _ in 1..wk {
                text.line(format!("at += {}u;", wm * wn * region));
                text.line(format!("sum += {};", four(0)));
                if self.gated_columns {
                    text.line(format!("other += {};", four(second)));
                }
            }
            let row = format!("v / {across}u * {}u + {}u + r", rows * tile, i * tile);
            let col = format!("v % {across}u * {}u + {}u + g", self.cut.width(), first * tile);
            let [sum, other] = ["sum", "other"].map(|v| scaled(&self.rows, v, &row));
            let put = match self.gated_columns {
                false => format!("put(out_z, row0 + {row}, col0 + {col}, {sum});"),
                true => format!("put(out_z, row0 + {row}, col0 / 2u + {col}, {sum}, {other});"),
            };
            text.line(match &self.rows {
                Some(rows) if rows.half => format!("if {} {{ {put} }}\n}}", rows.good(&row)),
                _ => format!("{put}\n}}"),
            });
        }
    }
}

impl Steps for Kernel<'_> {
    fn fetch(&self, text: &mut Text, set: u32, k: &str) {
        let (ga, gb, threads) = (self.a.groups, self.b.groups, self.cut.threads());
        self.a.share(text, threads, |i| match self.a.along_k {
            true => format!("a{set}_{i} = fetch_a(z, row0 + e / {ga}u, {k} + e % {ga}u * 4u);"),
            false => format!("a{set}_{i} = fetch_a(z, row0 + e % {ga}u * 4u, {k} + e / {ga}u);"),
        });
        self.b.share(text, threads, |i| match self.b.along_k {
            true => format!("b{set}_{i} = fetch_b(z, {k} + e % {gb}u * 4u, col0 + e / {gb}u);"),
            false => format!("b{set}_{i} = fetch_b(z, {k} + e / {gb}u, col0 + e % {gb}u * 4u);"),
        });
    }

    fn begin(&self, text: &mut Text) {
        let Some(rows) = self.rows.as_ref().filter(|r| r.half) else { return };
        if self.cut.depth == 0 {
            self.fetch(text, 0, "k0");
        }
        rows.estimate(text);
    }

    fn stage(&self, text: &mut Text, set: u32) {
        for (name, stage) in [("a", &self.a), ("b", &self.b)] {
            stage.share(text, self.cut.threads(), |i| {
                let (groups, pitch) = (stage.groups, stage.pitch);
                let cell = format!("e / {groups}u * {pitch}u + e % {groups}u");
                let fetched = format!("{name}{set}_{i}");
                let (before, staged) = match &self.rows {
                    Some(rows) if name == "a" => (rows.staged(i, &fetched) + " ", "y".to_string()),
                    _ => (String::new(), fetched),
                };
                let value = if self.cut.half { format!("vec4<f16>({staged})") } else { staged };
                before
                    + &match self.cut.packed {
                        true => format!("s{name}[{cell}] = {value};"),
                        false => {
                            let each = [0, 1, 2, 3].map(|c| format!("s{name}[o + {c}u] = v[{c}];")).join(" ");
                            format!("let o = ({cell}) * 4u; let v = {value}; {each}")
                        }
                    }
            });
        }
    }

    /// Multiplies one matrix of k at a time.
    fn multiply(&self, text: &mut Text) {
        let Coop { tile, bk, wk, .. } = *self.cut;
        let steps = bk / tile / wk;
        let (rows, cols) = self.block();
        text.line(format!("for (var s = 0u; s < {steps}u; s++) {{"));
        text.line(match wk {
            1 => format!("let q = s * {tile}u;"),
            _ => format!("let q = (wz * {steps}u + s) * {tile}u;"),
        });
        for j in 0..cols {
            let outer = format!("wx * {}u + {}u", cols * tile, j * tile);
            text.line(format!("let b{j} = {};", self.load("b", &self.b, &outer, "q")));
        }
        for i in 0..rows {
            let outer = format!("wy * {}u + {}u", rows * tile, i * tile);
            text.line(format!("let a{i} = {};", self.load("a", &self.a, &outer, "q")));
            for j in 0..cols {
                text.line(format!("c{i}_{j} = coopMultiplyAdd(a{i}, b{j}, c{i}_{j});"));
            }
        }
        text.line("}");
    }
}
