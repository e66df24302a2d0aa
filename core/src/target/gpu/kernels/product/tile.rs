//! Shared code of the staged kernels: the order of output tiles, guarded loads of a tile and stores of results.

use super::{Along, Holes, Results, Shape, Sums, Text, fold};

/// Rows of tiles that are visited together, so that concurrent tiles share operands in cache.
const GROUP: u32 = 8;

/// Maximum bytes of partial sums, unless one part's take more: any device can bind this much.
const PARTIAL: u64 = (128 << 20) - 256;
/// Maximum partial sums of an element: one invocation adds them up.
const LAYERS: u32 = 1024;

/// Number of parts of k, out of `split`, whose partial sums are in scratch at the same time.
pub(super) fn layers(shape: &Shape, split: u32) -> u32 {
    let layer = [shape.batch, shape.m, shape.n].iter().fold(4u64, |all, n| all.saturating_mul((*n).into()));
    let most = u32::try_from(PARTIAL / layer.max(1)).unwrap_or(LAYERS).clamp(1, LAYERS);
    split.min(most)
}

/// Output tiles of a shape, with k in `split` parts of `trips` steps of `bk`.
#[derive(Clone)]
pub(super) struct Grid {
    shape: Shape,
    bm: u32,
    bn: u32,
    bk: u32,
    /// Parts of k, each summed by its own workgroup; none is empty.
    pub split: u32,
    /// Steps of a part; the last part may have fewer.
    pub trips: u32,
    /// Parts that one pass sums concurrently.
    pub layers: u32,
    /// The number of the pass over the parts.
    round: u32,
}

impl Grid {
    pub(super) fn new(shape: &Shape, [bm, bn, bk]: [u32; 3], split: u32) -> Self {
        let steps = shape.k.div_ceil(bk).max(1);
        let trips = steps.div_ceil(split.clamp(1, steps));
        let split = steps.div_ceil(trips);
        Self { shape: *shape, bm, bn, bk, split, trips, layers: layers(shape, split), round: 0 }
    }

    /// f32 elements of scratch.
    pub(super) fn scratch(&self) -> u32 {
        let Shape { batch, m, n, .. } = self.shape;
        if self.split > 1 { self.layers * batch * m * n } else { 0 }
    }

    /// The passes over the parts: the main one, and those that add to its sums.
    pub(super) fn rounds(&self) -> impl Iterator<Item = Grid> + use<> {
        let whole = self.clone();
        (0..self.split.div_ceil(self.layers)).map(move |round| Grid { round, ..whole.clone() })
    }

    /// The hole that receives a partial sum.
    pub(super) fn partial(&self) -> &'static str {
        if self.round == 0 { "partial_store" } else { "partial_add" }
    }

    /// The holes of its pass; `four`: it stores four columns of C at once.
    pub(super) fn holes(&self, four: bool) -> Holes {
        let results = match (self.split, self.round) {
            (1, _) => Results::C { four },
            (_, 0) => Results::Parts,
            _ => Results::MoreParts,
        };
        Holes { sums: Sums::Products { norm: self.shape.norm }, results }
    }

    /// Whether the last part of k has fewer steps than the others.
    pub(super) fn ragged(&self) -> bool {
        self.trips * self.split != self.shape.k.div_ceil(self.bk).max(1)
    }

    /// The grid, and WGSL that computes `z`, `out_z` (batch index of `put`), `row0`, `col0` and `k0` from `wg`.
    pub(super) fn place(&self) -> ([u32; 3], String, String) {
        let rows = self.shape.m.div_ceil(self.bm).max(1);
        let cols = self.shape.columns().div_ceil(self.shape.columns_of(self.bn)).max(1);
        let tiles = rows * cols;
        let first = self.round * self.layers;
        let parts = self.layers.min(self.split - first);
        let layers = self.shape.batch * parts;
        let (grid, id) = fold(tiles * layers);
        let mut text = Text::default();
        let tile = if layers > 1 { format!("(id % {tiles}u)") } else { "id".to_string() };
        let layer = if layers > 1 { format!("id / {tiles}u") } else { "0u".to_string() };
        text.line(format!("let out_z = {layer};"));
        text.line(match (self.shape.batch, self.split) {
            (1, _) => "let z = 0u;".to_string(),
            (_, 1) => "let z = out_z;".to_string(),
            (batch, _) => format!("let z = out_z % {batch}u;"),
        });
        let part = self.trips * self.bk;
        let before = if first > 0 { format!("{}u + ", first * part) } else { String::new() };
        text.line(match (self.split, self.shape.batch) {
            (1, _) => "let k0 = 0u;".to_string(),
            (_, 1) => format!("let k0 = {before}out_z * {part}u;"),
            (_, batch) => format!("let k0 = {before}out_z / {batch}u * {part}u;"),
        });
        if rows <= GROUP {
            text.line(format!("let row0 = {tile} % {rows}u * {}u;", self.bm));
            text.line(format!("let col0 = {tile} / {rows}u * {}u;", self.bn));
        } else {
            let band = GROUP * cols;
            text.line(format!("let band = {tile} / {band}u * {GROUP}u;"));
            let height = match rows % GROUP {
                0 => format!("{GROUP}u"),
                _ => format!("min({rows}u - band, {GROUP}u)"),
            };
            text.line(format!("let row0 = (band + {tile} % {band}u % {height}) * {}u;", self.bm));
            text.line(format!("let col0 = {tile} % {band}u / {height} * {}u;", self.bn));
        }
        (grid, id, text.all)
    }

    /// `fetch_a(z, row, k)` and `fetch_b(z, k, col)`: four elements of a tile, zeros beyond the operand. A is read along k
    /// unless it is vectored along rows; B along columns unless it is vectored along k.
    pub(super) fn fetches(&self, text: &mut Text) {
        let Shape { m, k, a_vec, b_vec, .. } = self.shape;
        let inside = |index: &str, extent: u32, tile: u32| {
            (!extent.is_multiple_of(tile)).then(|| format!("{index} < {extent}u"))
        };
        let gather = |load: &dyn Fn(u32) -> String, index: &str, extent: u32| {
            let one = |i: u32| match i {
                0 => format!("v.x = {};", load(0)),
                _ => format!("if {index} + {i}u < {extent}u {{ v[{i}] = {}; }}", load(i)),
            };
            format!("var v = vec4<f32>();\n{}\nreturn v;", [one(0), one(1), one(2), one(3)].join("\n"))
        };
        let (columns, bn) = (self.shape.columns(), self.shape.columns_of(self.bn));
        // with gated columns, column `c` of C, at whose position the tile has column `col` of B
        let (c, place) = match self.shape.gated_columns {
            false => ("col", String::new()),
            true => {
                let c = format!("let c = col / {}u * {bn}u + col % {bn}u;", self.bn);
                let half = format!("select(0u, {columns}u, col % {}u >= {bn}u)", self.bn);
                ("c", format!("{c}\nlet at = c + {half};\n"))
            }
        };
        let at = if self.shape.gated_columns { "at" } else { "col" };
        let a = match a_vec {
            Along::None => gather(&|i| format!("load_a(z, row, k + {i}u)"), "k", k),
            _ => "return load_a4(z, row, k);".to_string(),
        };
        let b = match b_vec {
            Along::None => gather(&|i| format!("load_b(z, k, {at} + {i}u)"), c, columns),
            _ => format!("return load_b4(z, k, {at});"),
        };
        let (of_a, of_b) = (inside("row", m, self.bm), inside(c, columns, bn));
        for (name, args, place, body, guards) in [
            ("fetch_a", "row: u32, k: u32", "", a, [of_a, inside("k", k, self.bk)]),
            ("fetch_b", "k: u32, col: u32", place.as_str(), b, [inside("k", k, self.bk), of_b]),
        ] {
            let guard = guards.into_iter().flatten().collect::<Vec<_>>().join(" && ");
            let body = match guard.as_str() {
                "" => body,
                _ => format!("if {guard} {{\n{body}\n}}\nreturn vec4<f32>();"),
            };
            text.line(format!("fn {name}(z: u32, {args}) -> vec4<f32> {{\n{place}{body}\n}}"));
        }
    }

    /// `put(z, row, col, v)`: four columns of the result; columns out of range are dropped. With gated columns, `put(z, row,
    /// col, v, u)` with the results of both halves.
    pub(super) fn put(&self, text: &mut Text) {
        let Shape { m, c_vec, gated_columns, .. } = self.shape;
        let (n, bn) = (self.shape.columns(), self.shape.columns_of(self.bn));
        let row = if m % self.bm != 0 { format!("row < {m}u && ") } else { String::new() };
        let second = if gated_columns { ", u: vec4<f32>" } else { "" };
        text.line(format!("fn put(z: u32, row: u32, col: u32, v: vec4<f32>{second}) {{"));
        if self.split > 1 {
            text.line(format!("let at = (z * {m}u + row) * {n}u + col;"));
        }
        let each = |i: u32| match self.split {
            1 if gated_columns => format!("store(z, row, col + {i}u, v[{i}], u[{i}]);"),
            1 => format!("store(z, row, col + {i}u, v[{i}]);"),
            _ => format!("{}(at + {i}u, v[{i}]);", self.partial()),
        };
        if c_vec || n % 4 == 0 {
            let store = match (self.split, c_vec) {
                (1, true) if gated_columns => "store4(z, row, col, v, u);".to_string(),
                (1, true) => "store4(z, row, col, v);".to_string(),
                _ => (0..4).map(each).collect::<Vec<_>>().join(" "),
            };
            match n % bn {
                0 if row.is_empty() => text.line(store),
                _ => text.line(format!("if {row}col < {n}u {{ {store} }}")),
            }
        } else {
            for i in 0..4 {
                text.line(format!("if {row}col + {i}u < {n}u {{ {} }}", each(i)));
            }
        }
        text.line("}");
    }
}

/// The parts of a staged kernel's step, as WGSL. `set` numbers the registers of a prefetched step.
pub(super) trait Steps {
    /// Loads the step at `k` into registers.
    fn fetch(&self, text: &mut Text, set: u32, k: &str);
    /// Code before anything is staged; with prefetching, the first step is in the registers of set 0.
    fn begin(&self, _text: &mut Text) {}
    /// Moves a loaded step into workgroup memory.
    fn stage(&self, text: &mut Text, set: u32);
    /// Adds the staged step to the sums.
    fn multiply(&self, text: &mut Text);
}

impl Grid {
    /// The loop over the steps of a part of k, with `depth` of them prefetched.
    ///
    /// For small tiles, loading a step takes far longer than its sums, and only prefetching hides that; registers need names,
    /// hence a loop body for each step in flight.
    pub(super) fn run(&self, text: &mut Text, steps: &impl Steps, depth: u32) {
        let (k, bk, trips) = (self.shape.k, self.bk, self.trips);
        let sets = depth.clamp(1, trips);
        for set in 0..depth.min(trips) {
            let ahead = set * bk;
            let guarded = set > 0 && self.ragged();
            if guarded {
                text.line(format!("if k0 + {ahead}u < {k}u {{"));
            }
            steps.fetch(text, set, &format!("k0 + {ahead}u"));
            if guarded {
                text.line("}");
            }
        }
        steps.begin(text);
        text.line(format!("for (var i = 0u; i < {}u; i++) {{", trips.div_ceil(sets)));
        for set in 0..sets {
            text.line(format!("{{\nlet n = i * {sets}u + {set}u;\nlet k = k0 + n * {bk}u;"));
            if trips % sets != 0 && set >= trips % sets {
                text.line(format!("if n >= {trips}u {{ break; }}"));
            }
            if self.ragged() {
                text.line(format!("if k >= {k}u {{ break; }}"));
            }
            if depth == 0 {
                steps.fetch(text, set, "k");
            }
            steps.stage(text, set);
            text.line("workgroupBarrier();");
            if depth > 0 && trips > sets {
                let ahead = sets * bk;
                let more = if self.ragged() { format!(" && k + {ahead}u < {k}u") } else { String::new() };
                text.line(format!("if n < {}u{more} {{", trips - sets));
                steps.fetch(text, set, &format!("k + {ahead}u"));
                text.line("}");
            }
            steps.multiply(text);
            text.line("workgroupBarrier();\n}");
        }
        text.line("}");
    }
}

/// Layout of a tile of `outer` × `bk` in workgroup memory, in vec4 groups.
#[derive(Clone, Copy)]
pub(super) struct Stage {
    /// Whether groups run along k (rows are outer) or along the outer axis (rows are k).
    pub along_k: bool,
    /// Groups of data in a row.
    pub groups: u32,
    /// Groups from one row to the next.
    pub pitch: u32,
    /// Rows.
    pub rows: u32,
}

impl Stage {
    pub(super) fn new(along_k: bool, outer: u32, bk: u32, pad: [u32; 2]) -> Self {
        let (rows, groups) = if along_k { (outer, bk / 4) } else { (bk, outer / 4) };
        Self { along_k, groups, pitch: groups + pad[usize::from(!along_k)], rows }
    }

    /// Generates `each` for the groups of the tile that an invocation moves; `e` is the group's number.
    pub(super) fn share(&self, text: &mut Text, threads: u32, each: impl Fn(u32) -> String) {
        let all = self.rows * self.groups;
        for i in 0..self.count(threads) {
            let e = format!("let e = t + {}u;", i * threads);
            text.line(match (i + 1) * threads <= all {
                true => format!("{{ {e} {} }}", each(i)),
                false => format!("{{ {e} if e < {all}u {{ {} }} }}", each(i)),
            });
        }
    }

    /// vec4 groups of the tile in memory.
    pub(super) fn size(&self) -> u32 {
        self.rows * self.pitch
    }

    /// Maximum vec4 groups that each of `threads` invocations moves.
    pub(super) fn count(&self, threads: u32) -> u32 {
        (self.rows * self.groups).div_ceil(threads)
    }

    /// Declares the registers `name{set}_{i}` of every fetched step.
    pub(super) fn registers(&self, text: &mut Text, name: &str, depth: u32, threads: u32) {
        for set in 0..depth.max(1) {
            for i in 0..self.count(threads) {
                text.line(format!("var {name}{set}_{i}: vec4<f32>;"));
            }
        }
    }
}
