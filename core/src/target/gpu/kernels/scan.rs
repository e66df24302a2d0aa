//! Prefix sums along an axis: one thread per column if columns are many and short, else one workgroup per column, in tiles
//! summed by doubling steps (Hillis and Steele 1986). Long columns are divided among workgroups: each first sums its piece, the
//! piece sums are scanned, and each piece starts from the sum of those before it (Blelloch 1990, "Prefix Sums and Their
//! Applications").

use super::Made;
use super::rowwise::entry;
use crate::plan::{Operand, Scan};
use crate::profile::Limits;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::{Kernel, Slot, Source, View};
use crate::target::gpu::wgsl::walk;
use crate::tensor::DType;

const THREADS: usize = 64;
/// Maximum length for one thread per column.
const SHORT: usize = 64;
/// Minimum tiles of a column to divide it if the device has idle workgroups, and then minimum tiles per piece.
const LONG: usize = 64;
const PIECE: usize = 16;
/// Maximum tiles per piece: one workgroup processes them sequentially.
const MOST: usize = 2048;

/// The kernels of a prefix sum.
pub fn kernels(w: &Scan, storage: &Storage, limits: &Limits) -> Made {
    let (columns, tiles) = (w.outer * w.inner, w.n.div_ceil(THREADS));
    let (kind, view) = match w.input.dtype {
        DType::I32 => ("i32", View::I32),
        DType::U32 => ("u32", View::U32),
        _ => ("f32", View::F32),
    };
    let column = Column { w, storage, kind, view };
    if w.n <= SHORT {
        return Made { kernels: vec![column.short()], scratch: vec![] };
    }
    let spare = match tiles >= LONG && columns < limits.units {
        true => (2 * limits.units / columns).clamp(1, tiles / PIECE),
        false => 1,
    };
    let pieces = spare.max(tiles.div_ceil(MOST.min(limits.turns / 2)));
    let each = tiles.div_ceil(pieces) * THREADS;
    let pieces = w.n.div_ceil(each);
    if pieces == 1 {
        return Made { kernels: vec![column.tiles(1, w.n)], scratch: vec![] };
    }
    let kernels = vec![column.sums(pieces, each), column.before(pieces), column.tiles(pieces, each)];
    Made { kernels, scratch: vec![columns * pieces] }
}

/// The layout of a step's columns.
struct Column<'a> {
    w: &'a Scan,
    storage: &'a Storage,
    /// The type of the elements.
    kind: &'static str,
    view: View,
}

impl Column<'_> {
    fn count(&self) -> usize {
        self.w.outer * self.w.inner
    }

    /// The line that computes the offset of `column`.
    fn base(&self) -> String {
        let Scan { n, inner, .. } = self.w;
        format!("let base = column / {inner}u * {}u + column % {inner}u;\n", n * inner)
    }

    /// The offset of element `j` of the column.
    fn at(&self, o: &Operand) -> String {
        format!("(base + j * {}u + {}u)", self.w.inner, o.offset)
    }

    /// Lines that compute a workgroup's `column`, `piece`, and element range `begin` to `end`.
    fn place(&self, pieces: usize, each: usize) -> ([u32; 3], String) {
        let (n, columns) = (self.w.n, self.count());
        let grid = walk::fold(columns * pieces);
        let mut body = walk::group_number(grid);
        if pieces == 1 {
            body += &format!("let column = group;\nif (column >= {columns}u) {{ return; }}\n");
        } else {
            body += &format!("let column = group / {pieces}u;\nlet piece = group % {pieces}u;\n");
            body += &format!("if (column >= {columns}u) {{ return; }}\n");
            body += &format!("let begin = piece * {each}u;\nlet end = min(begin + {each}u, {n}u);\n");
        }
        (grid, body + &self.base())
    }

    /// Doubling steps that make `x` the sum over all threads up to this one, also in `tile`.
    fn doubling(&self) -> String {
        let mut body = String::new();
        let mut step = 1;
        while step < THREADS {
            body += &format!(
                "tile[lid] = x;\nworkgroupBarrier();\nif (lid >= {step}u) {{ x += tile[lid - {step}u]; }}\n"
            );
            body += "workgroupBarrier();\n";
            step *= 2;
        }
        body + "tile[lid] = x;\nworkgroupBarrier();\n"
    }

    fn tile(&self, source: &mut Source<'_>) {
        source.share("tile", self.kind, THREADS);
    }

    /// One thread per column.
    fn short(&self) -> Kernel {
        let (w, columns, mut source) = (self.w, self.count(), Source::new(self.storage));
        let grid = walk::fold(columns.div_ceil(THREADS));
        let mut body = walk::group_number(grid);
        body += &format!("let column = group * {THREADS}u + lid;\nif (column >= {columns}u) {{ return; }}\n");
        body += &self.base();
        body += &format!("var sum = {}(0);\n", self.kind);
        let value = source.load(&w.input, &self.at(&w.input));
        let store = source.store(&w.out, &self.at(&w.out), "sum");
        body += &format!("for (var j = 0u; j < {}u; j++) {{ sum += {value}; {store} }}\n", w.n);
        source.finish(&entry(THREADS, &body), grid)
    }

    /// One workgroup per column, or per piece of one, which starts from the sum of the pieces before it.
    fn tiles(&self, pieces: usize, each: usize) -> Kernel {
        let (w, kind, mut source) = (self.w, self.kind, Source::new(self.storage));
        let (grid, mut body) = self.place(pieces, each);
        self.tile(&mut source);
        let (from, end) = match pieces {
            1 => ("first", format!("{}u", w.n)),
            _ => ("begin + first", "end".to_string()),
        };
        body += &match pieces {
            1 => format!("var sum = {kind}(0);\n"),
            _ => format!("var sum = {}[group];\n", source.bind(Slot::Scratch(0), self.view, false)),
        };
        let value = source.load(&w.input, &self.at(&w.input));
        let store = source.store(&w.out, &self.at(&w.out), "(sum + x)");
        body += &format!(
            "for (var first = 0u; first < {each}u; first += {THREADS}u) {{\nlet j = {from} + lid;\n"
        );
        body += &format!("var x = {kind}(0);\nif (j < {end}) {{ x = {value}; }}\n");
        body += &self.doubling();
        body += &format!("if (j < {end}) {{ {store} }}\n");
        body += &format!("sum += tile[{}];\nworkgroupBarrier();\n}}\n", THREADS - 1);
        source.finish(&entry(THREADS, &body), grid)
    }

    /// The sums of the pieces.
    fn sums(&self, pieces: usize, each: usize) -> Kernel {
        let (w, kind, mut source) = (self.w, self.kind, Source::new(self.storage));
        let (grid, mut body) = self.place(pieces, each);
        self.tile(&mut source);
        let value = source.load(&w.input, &self.at(&w.input));
        let sums = source.bind(Slot::Scratch(0), self.view, true);
        body += &format!("var x = {kind}(0);\n");
        body += &format!("for (var at = lid; at < {each}u; at += {THREADS}u) {{\nlet j = begin + at;\n");
        body += &format!("if (j < end) {{ x += {value}; }}\n}}\n");
        body += &self.doubling();
        body += &format!("if (lid == 0u) {{ {sums}[group] = tile[{}]; }}\n", THREADS - 1);
        source.finish(&entry(THREADS, &body), grid)
    }

    /// Exclusive prefix sums of the piece sums: one workgroup per column, a run of pieces per thread.
    fn before(&self, pieces: usize) -> Kernel {
        let (columns, kind, mut source) = (self.count(), self.kind, Source::new(self.storage));
        let grid = walk::fold(columns);
        let run = pieces.div_ceil(THREADS);
        self.tile(&mut source);
        let sums = source.bind(Slot::Scratch(0), self.view, true);
        let mut body = walk::group_number(grid);
        body += &format!("let column = group;\nif (column >= {columns}u) {{ return; }}\n");
        body += &format!("let first = lid * {run}u;\n");
        let each = |inner: &str| {
            format!(
                "for (var n = 0u; n < {run}u; n++) {{\nlet piece = first + n;\nif (piece >= {pieces}u) {{ break; }}\n\
                 let at = column * {pieces}u + piece;\n{inner}\n}}\n"
            )
        };
        body += &format!("var x = {kind}(0);\n");
        body += &each(&format!("x += {sums}[at];"));
        body += &self.doubling();
        body += &format!("var sum = {kind}(0);\nif (lid > 0u) {{ sum = tile[lid - 1u]; }}\n");
        body += &each(&format!("let own = {sums}[at];\n{sums}[at] = sum;\nsum += own;"));
        source.finish(&entry(THREADS, &body), grid)
    }
}
