//! Rows that exceed the loop limit of one workgroup's threads: several workgroups share a row, pass by pass. A pass reduces the
//! pieces of a row to partial results in scratch, then these to the row's results, which later passes read; elementwise work
//! comes last.
//!
//! Scratch is one array of words. For each reduction it contains the pieces' results (for argmax and argmin, each with its
//! position), then the rows'.

use super::{Part, Rows, fold};
use crate::expr::{Instr, Kind, Reg};
use crate::profile::Limits;
use crate::target::gpu::kernels::Made;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::code;
use crate::target::gpu::wgsl::source::{Kernel, Slot, Source, View};

/// Maximum elements that a thread processes sequentially: the rounding error of an f32 sum grows with its number of terms, that
/// of a sum of sums with both counts (Higham 1993, "The Accuracy of Floating Point Summation").
const WALK: usize = 8192;
/// The same if workgroups share a row.
const SHARE: usize = 4096;

/// Number of workgroups that must share a row, if a thread would otherwise process `walk` elements in `loops` loops; 1 if the
/// `splits` chosen for other reasons suffice.
pub(super) fn splits(walk: usize, loops: usize, splits: usize, limits: &Limits) -> usize {
    let most = WALK.min(limits.turns / 2 / loops).max(1);
    if walk.div_ceil(splits) <= most { 1 } else { walk.div_ceil(SHARE.min(most)) }
}

impl Rows<'_> {
    /// The kernels: two for each pass, and the elementwise work.
    pub(super) fn stages(&self, storage: &Storage) -> Made {
        let mut kernels = vec![];
        for pass in 0..self.passes.len() {
            kernels.push(self.pieces(storage, pass));
            kernels.push(self.whole(storage, pass));
        }
        if !self.w.per_row || self.passes.is_empty() {
            kernels.push(self.last(storage));
        }
        Made { kernels, scratch: vec![self.place(self.w.reductions.len()).1] }
    }

    /// Offsets in scratch of a reduction's piece results and row results, and the words per piece.
    fn place(&self, reduction: usize) -> (usize, usize, usize) {
        let words = |r: usize| self.w.reductions.get(r).map_or(0, |f| 1 + usize::from(fold::is_place(f.0)));
        let of = |r: usize| self.rows * (self.splits * words(r) + 1);
        let first: usize = (0..reduction).map(of).sum();
        (first, first + self.rows * self.splits * words(reduction), words(reduction))
    }

    /// The kind of a reduction's result.
    fn result_kind(&self, r: usize) -> Kind {
        if fold::is_place(self.w.reductions[r].0) { Kind::I } else { self.kind(r) }
    }

    /// Loads the results of earlier passes that the wanted registers need.
    fn given(&self, wanted: &[Reg], before: usize, source: &mut Source<'_>, body: &mut String) {
        let needed = code::needed(&self.w.tape, wanted);
        for &r in self.passes[..before].iter().flatten() {
            let reads = |(n, c): (&bool, &(Instr, Kind))| *n && matches!(c.0, Instr::Reduced(i) if i == r);
            if needed.iter().zip(&self.w.tape.code).any(reads) {
                let word = format!("{}[{}u + row]", scratch(source, false), self.place(r).1);
                *body += &format!("let red{r} = {};\n", from_bits(self.result_kind(r), &word));
            }
        }
    }

    fn finish(&self, source: Source<'_>, body: &str, grid: [u32; 3]) -> Kernel {
        source.finish(&super::entry(self.parts * self.group, body), grid)
    }

    /// The first kernel of a pass: reduces each piece of a row.
    fn pieces(&self, storage: &Storage, pass: usize) -> Kernel {
        let mut source = Source::new(storage);
        let (mut body, _, grid) = self.opening(self.splits);
        let reductions = &self.passes[pass];
        let wanted: Vec<Reg> = reductions.iter().map(|&r| self.w.reductions[r].1).collect();
        self.given(&wanted, pass, &mut source, &mut body);
        let mut ready = vec![false; self.w.tape.code.len()];
        self.accumulate(reductions, Part::Pieces, &mut ready, &mut source, &mut body);
        self.join(reductions, &mut source, &mut body);
        let name = scratch(&mut source, true);
        body += "if (live && part == 0u) {\n";
        for &r in reductions {
            let (first, _, words) = self.place(r);
            let at = format!("{first}u + (row * {}u + piece) * {words}u", self.splits);
            let value = if words == 2 { format!("best{r}") } else { format!("red{r}") };
            body += &format!("{name}[{at}] = {};\n", bits(self.kind(r), &value, words == 2));
            if words == 2 {
                body += &format!("{name}[{at} + 1u] = bitcast<u32>(red{r});\n");
            }
        }
        body += "}\n";
        self.finish(source, &body, grid)
    }

    /// The second kernel of a pass: reduces the pieces of each row; after the last pass, also per-row work if there is no
    /// elementwise work.
    fn whole(&self, storage: &Storage, pass: usize) -> Kernel {
        let mut source = Source::new(storage);
        let (mut body, coordinates, grid) = self.opening(1);
        let reductions = &self.passes[pass];
        self.begin(reductions, &mut source, &mut body);
        let name = scratch(&mut source, true);
        body += &format!("for (var j = part; j < {}u; j += {}u) {{\n", self.splits, self.parts);
        for &r in reductions {
            let (f, kind) = (self.w.reductions[r].0, self.kind(r));
            let (first, _, words) = self.place(r);
            let at = format!("{first}u + (row * {}u + j) * {words}u", self.splits);
            let value = from_bits(kind, &format!("{name}[{at}]"));
            if words == 2 {
                let better = fold::better(&mut source, f, kind);
                body += &format!(
                    "let v{r} = {value};\nlet p{r} = {name}[{at} + 1u];\n\
                     if ({better}(acc{r}, pos{r}, v{r}, p{r})) {{ acc{r} = v{r}; pos{r} = p{r}; }}\n"
                );
            } else {
                let joined = fold::join(&mut source, f, kind, &format!("acc{r}"), &value);
                body += &format!("acc{r} = {joined};\n");
            }
        }
        body += "}\n";
        self.join(reductions, &mut source, &mut body);
        if pass + 1 == self.passes.len() && self.w.per_row {
            let rows: Vec<Reg> =
                self.w.extra_outputs.iter().map(|r| r.result).chain([self.w.result]).collect();
            self.given(&rows, pass, &mut source, &mut body);
            let mut ready = vec![false; self.w.tape.code.len()];
            self.of_rows(&coordinates, "part == 0u", &mut ready, &mut source, &mut body);
            return self.finish(source, &body, grid);
        }
        body += "if (live && part == 0u) {\n";
        for &r in reductions {
            let value = bits(self.result_kind(r), &format!("red{r}"), false);
            body += &format!("{name}[{}u + row] = {value};\n", self.place(r).1);
        }
        body += "}\n";
        self.finish(source, &body, grid)
    }

    /// The last kernel: work on each element, and on rows.
    fn last(&self, storage: &Storage) -> Kernel {
        let mut source = Source::new(storage);
        let (mut body, coordinates, grid) = self.opening(self.splits);
        let results: Vec<Reg> =
            self.w.extra_outputs.iter().map(|r| r.result).chain([self.w.result]).collect();
        self.given(&results, self.passes.len(), &mut source, &mut body);
        let mut ready = vec![false; self.w.tape.code.len()];
        let one = "part == 0u && piece == 0u";
        self.of_rows(&coordinates, one, &mut ready, &mut source, &mut body);
        if !self.w.per_row {
            self.elements(Part::Pieces, &ready, &mut source, &mut body);
        }
        self.finish(source, &body, grid)
    }
}

/// Binds the step's scratch as words.
fn scratch(source: &mut Source<'_>, written: bool) -> String {
    source.bind(Slot::Scratch(0), View::U32, written)
}

/// A value as a word; a bool in workgroup memory (`shared`) is a number.
fn bits(kind: Kind, value: &str, shared: bool) -> String {
    match kind {
        Kind::U => value.to_string(),
        Kind::B if shared => value.to_string(),
        Kind::B => format!("u32({value})"),
        _ => format!("bitcast<u32>({value})"),
    }
}

fn from_bits(kind: Kind, word: &str) -> String {
    match kind {
        Kind::F => format!("bitcast<f32>({word})"),
        Kind::I => format!("bitcast<i32>({word})"),
        Kind::U => word.to_string(),
        Kind::B => format!("({word} != 0u)"),
    }
}
