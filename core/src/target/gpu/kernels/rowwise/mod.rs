//! Pointwise work and reductions: one thread per element, or threads that share rows and combine their partial results.

mod join;
mod long;

pub use crate::target::gpu::wgsl::text::entry;
pub use join::prepare;

use super::shared::Share;
use super::{Made, fold};
use crate::expr::{Fold, Instr, Kind, Reg};
use crate::plan::{Operand, RowResult, Rowwise};
use crate::profile::Limits;
use crate::target::gpu::storage::{Storage, turns};
use crate::target::gpu::wgsl::code::{self, Names};
use crate::target::gpu::wgsl::lanes::{Code, LANES, index_strides, writes_four};
use crate::target::gpu::wgsl::source::{Kernel, Slot, Source, View};
use crate::target::gpu::wgsl::walk::{self, Merged};
use join::type_name;

/// Minimum number of elements for vec4 code: below it, the longer text does not pay off.
const VECTORS_FROM: usize = 16 * 1024;

/// The kernels of a rowwise step.
pub fn kernels(w: &Rowwise, storage: &Storage, limits: &Limits) -> Made {
    if is_pointwise(w) {
        return Made { kernels: vec![pointwise(w, storage, limits)], scratch: vec![] };
    }
    let rows = Rows::new(w, limits);
    if rows.staged {
        return rows.stages(storage);
    }
    let kernel = |part| rows.kernel(storage, part);
    if rows.splits == 1 {
        return Made { kernels: vec![kernel(Part::Whole)], scratch: vec![] };
    }
    let scratch = vec![rows.rows * rows.splits; w.reductions.len()];
    Made { kernels: vec![kernel(Part::Pieces), kernel(Part::Joined)], scratch }
}

fn pointwise(w: &Rowwise, storage: &Storage, limits: &Limits) -> Kernel {
    let mut source = Source::new(storage);
    let Share { body, threads, grid } = elements(&mut source, w, limits, None);
    source.finish(&entry(threads, &body), grid)
}

/// Whether no axis is reduced.
pub fn is_pointwise(w: &Rowwise) -> bool {
    w.reductions.is_empty() && w.reduced.iter().all(|r| !r)
}

/// Threads of a workgroup of a single-kernel reduction.
pub fn threads(w: &Rowwise, limits: &Limits) -> usize {
    Rows::new(w, limits).threads
}

/// A single-kernel reduction as part of a dispatch that it may share with other steps; the names of its workgroup variables end
/// in `tag`.
pub fn reduction(source: &mut Source<'_>, w: &Rowwise, limits: &Limits, tag: &str) -> Share {
    let rows = Rows { tag, ..Rows::new(w, limits) };
    let (body, grid) = rows.body(source, Part::Whole);
    Share { body, threads: rows.threads, grid }
}

/// Pointwise work as part of a dispatch that it may share with other steps, with the given threads per workgroup, if any.
pub fn elements(source: &mut Source<'_>, w: &Rowwise, limits: &Limits, threads: Option<usize>) -> Share {
    let indices = index_strides(&w.tape);
    let mut sets: Vec<&[isize]> = w.operands.iter().map(|o| o.strides.as_slice()).collect();
    sets.push(&w.out.strides);
    sets.extend(&indices);
    sets.extend(w.extra_outputs.iter().map(|r| r.out.strides.as_slice()));
    let Merged { sizes, strides } = walk::merge(&w.domain, &sets);
    let operands = w.operands.len();
    let elements: usize = sizes.iter().product();
    let innermost = sizes.last().copied().unwrap_or(1);
    let (_, others) = strides.split_at(operands + 1 + indices.len());
    let four = |(r, s): (&RowResult, &Vec<isize>)| writes_four(&r.out, s);
    let wide = elements >= VECTORS_FROM
        && innermost % 4 == 0
        && writes_four(&w.out, &strides[operands])
        && w.extra_outputs.iter().zip(others).all(four);
    let lanes = if wide { 4 } else { 1 };
    let work = elements / lanes;
    let most = limits.threads.min(256);
    let threads = threads.unwrap_or(if work >= 512 * limits.units { most } else { 64 });

    let (split, coordinates) = walk::coordinates("c", "i", &sizes);
    let (grid, mut body) = walk::each("t", work, threads);
    body += &format!("let i = t * {lanes}u;\n{split}");
    let extra_outputs: Vec<Reg> = w.extra_outputs.iter().map(|r| r.result).collect();
    let code = Code {
        tape: &w.tape,
        result: w.result,
        extra_outputs: &extra_outputs,
        operands: &w.operands,
        strides: &strides[..operands],
        indices: &indices,
        index_strides: &strides[operands + 1..operands + 1 + indices.len()],
        first: None,
    };
    let (text, value) = code.print(source, &coordinates, lanes);
    body += &text;
    body += &format!("let at = {};\n", walk::address(w.out.offset, &coordinates, &strides[operands]));
    body += &if wide { source.store4(&w.out, "at", &value) } else { source.store(&w.out, "at", &value) };
    for (n, (r, strides)) in w.extra_outputs.iter().zip(others).enumerate() {
        let (at, value) = (format!("at{n}"), code.extra_value(n, lanes));
        body += &format!("\nlet {at} = {};\n", walk::address(r.out.offset, &coordinates, strides));
        body += &if wide { source.store4(&r.out, &at, &value) } else { source.store(&r.out, &at, &value) };
    }
    Share { body, threads, grid }
}

/// The part of a reduction that a kernel computes.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    /// All of it.
    Whole,
    /// A piece of each row, stored to scratch.
    Pieces,
    /// The combination of the pieces.
    Joined,
}

/// A reduction's mapping to threads.
struct Rows<'a> {
    w: &'a Rowwise,
    indices: Vec<&'a [isize]>,
    /// Axes that are not reduced, and axes that are, merged; strides of operands, then of output, indices, and extra outputs.
    kept: Merged,
    along: Merged,
    rows: usize,
    length: usize,
    /// Threads per row.
    parts: usize,
    /// Rows per workgroup.
    group: usize,
    /// Threads of a workgroup, if more than those that share rows.
    threads: usize,
    /// Whether neighbouring threads have neighbouring rows (else neighbouring parts of a row).
    across: bool,
    /// Workgroups per row.
    splits: usize,
    /// Whether they share a row pass by pass: see [`long`].
    staged: bool,
    /// Elements that a thread loads at once.
    lanes: usize,
    /// Subgroup size, for exchange without memory; 1 if unknown.
    subgroup: usize,
    /// Maximum iterations of a loop that drivers unroll.
    unrolled: usize,
    /// Registers that are constant along a row.
    of_row: Vec<bool>,
    /// Reductions that run in the same pass over the row.
    passes: Vec<Vec<usize>>,
    /// Suffix of the workgroup variables' names.
    tag: &'a str,
}

impl<'a> Rows<'a> {
    fn new(w: &'a Rowwise, limits: &Limits) -> Self {
        let indices = index_strides(&w.tape);
        let mut sets: Vec<&[isize]> = w.operands.iter().map(|o| o.strides.as_slice()).collect();
        sets.push(&w.out.strides);
        sets.extend(&indices);
        sets.extend(w.extra_outputs.iter().map(|r| r.out.strides.as_slice()));
        let merged = |reduced: bool| {
            let pick = |s: &[isize]| -> Vec<isize> {
                s.iter().zip(&w.reduced).filter(|(_, r)| **r == reduced).map(|(s, _)| *s).collect()
            };
            let sizes: Vec<usize> =
                w.domain.iter().zip(&w.reduced).filter(|(_, r)| **r == reduced).map(|(n, _)| *n).collect();
            let picked: Vec<Vec<isize>> = sets.iter().map(|s| pick(s)).collect();
            let slices: Vec<&[isize]> = picked.iter().map(Vec::as_slice).collect();
            walk::merge(&sizes, &slices)
        };
        let (kept, along) = (merged(false), merged(true));
        let (rows, length): (usize, usize) = (kept.sizes.iter().product(), along.sizes.iter().product());
        // neighbouring threads should read neighbouring elements: along the axis where most operands have stride 1
        let walks = |m: &Merged| (0..w.operands.len()).filter(|&i| m.strides[i].last() == Some(&1)).count();
        let across = rows > 1 && walks(&kept) > walks(&along);
        let most = 1usize << limits.threads.min(256).ilog2();
        let (parts, group) = if across {
            let columns = rows.next_power_of_two().min(32);
            let parts = (length.div_ceil(8)).next_power_of_two().min(most / columns);
            (parts, columns * if parts == 1 { 64 / columns } else { 1 })
        } else {
            let few = rows < 2 * limits.units;
            // elements per thread: vector width and number of iterations
            let each = match (limits.software, few) {
                (true, _) => 8,
                (false, true) => 4,
                (false, false) => 12,
            };
            let parts = length.div_ceil(each).next_power_of_two().min(most);
            (parts, (if few { 32 } else { 128 } / parts).clamp(1, rows.next_power_of_two()))
        };
        let of_row = of_row(w);
        let passes = passes(w);
        let folds = w.reductions.iter().all(|(f, _)| !matches!(f, Fold::ArgMax | Fold::ArgMin));
        let groups = rows.div_ceil(group);
        // partial results take a scratch buffer for each reduction, or one for all
        let few_bound = w.operands.len() + w.reductions.len() + w.extra_outputs.len() < limits.bindings;
        let plain = passes.len() == 1 && w.per_row && folds && few_bound;
        let splits = if plain && length / parts >= 64 && groups < limits.units {
            (2 * limits.units / groups).clamp(1, length / (parts * 16))
        } else {
            1
        };
        let loops = (passes.len() + 1) * (1 + turns(&w.tape));
        let splits = splits.max(long::splits(length.div_ceil(parts), loops, splits, limits));
        let mut rows = Rows {
            w,
            indices,
            kept,
            along,
            rows,
            length,
            parts,
            group,
            threads: parts * group,
            across,
            splits,
            staged: splits > 1 && !plain,
            lanes: 1,
            subgroup: limits.subgroup.filter(|_| !across).unwrap_or(1),
            // sums over rows have few threads per column, and short iterations
            unrolled: if limits.subgroup.is_none() {
                0
            } else if across {
                32
            } else {
                8
            },
            of_row,
            passes,
            tag: "",
        };
        rows.lanes = rows.lanes(limits);
        rows
    }

    /// Four elements at once if rows are long and contiguous, and every large operand can be read as vec4.
    fn lanes(&self, limits: &Limits) -> usize {
        let out = self.w.operands.len();
        let innermost = self.along.sizes.last().copied().unwrap_or(1);
        let aligned = |i: usize, o: &Operand| {
            o.offset % 4 == 0
                && self.kept.strides[i].iter().all(|s| s % 4 == 0)
                && self.along.strides[i].split_last().is_none_or(|(_, s)| s.iter().all(|s| s % 4 == 0))
        };
        let fits = |i: usize, o: &Operand| match self.along.strides[i].last() {
            Some(0) => true,
            Some(1) => aligned(i, o) && o.dtype.is_float(),
            _ => false,
        };
        let reads = self.w.operands.iter().enumerate().all(|(i, o)| fits(i, o));
        let writes = self.w.per_row || fits(out, &self.w.out) && self.along.strides[out].last() == Some(&1);
        let worth = innermost >= if limits.software { 4096 } else { 64 };
        if !self.across && worth && innermost % 4 == 0 && self.indices.is_empty() && reads && writes {
            4
        } else {
            1
        }
    }

    fn kernel(&self, storage: &Storage, part: Part) -> Kernel {
        let mut source = Source::new(storage);
        let (body, grid) = self.body(&mut source, part);
        source.finish(&entry(self.parts * self.group, &body), grid)
    }

    /// The body of a part, which uses `wid` and `lid`, and its workgroups.
    fn body(&self, source: &mut Source<'_>, part: Part) -> (String, [u32; 3]) {
        let splits = if part == Part::Pieces { self.splits } else { 1 };
        let (mut body, coordinates, grid) = self.opening(splits);
        let mut ready = vec![false; self.w.tape.code.len()];
        for pass in &self.passes {
            self.accumulate(pass, part, &mut ready, source, &mut body);
            self.join(pass, source, &mut body);
            if part == Part::Pieces {
                body += "if (live && part == 0u) {\n";
                for &r in pass {
                    let (view, wrap) = scratch_view(self.kind(r));
                    let name = source.bind(Slot::Scratch(r), view, true);
                    body += &format!("{name}[row * {splits}u + piece] = {wrap}(red{r});\n");
                }
                body += "}\n";
                return (body, grid);
            }
        }
        self.of_rows(&coordinates, "part == 0u", &mut ready, source, &mut body);
        if !self.w.per_row {
            self.elements(part, &ready, source, &mut body);
        }
        (body, grid)
    }

    /// Computes a thread's position: `row`, `part`, whether it is `live`, with several workgroups per row the `piece`, and the
    /// operands' row offsets. Also returns the names of the row's coordinates, and the workgroups.
    fn opening(&self, splits: usize) -> (String, Vec<String>, [u32; 3]) {
        let grid = walk::fold(self.rows.div_ceil(self.group) * splits);
        let mut body = walk::group_number(grid);
        let (row_of, part_of) = if self.across {
            (format!("lid % {}u", self.group), format!("lid / {}u", self.group))
        } else {
            (format!("lid / {}u", self.parts), format!("lid % {}u", self.parts))
        };
        body += &format!("let part = {part_of};\n");
        let block = if splits > 1 {
            body += &format!("let piece = group % {splits}u;\n");
            format!("(group / {splits}u)")
        } else {
            "group".into()
        };
        body += &format!(
            "let place = {block} * {}u + {row_of};\nlet live = place < {}u;\n",
            self.group, self.rows
        );
        body += &format!("let row = min(place, {}u);\n", self.rows - 1);
        let (split, coordinates) = walk::coordinates("k", "row", &self.kept.sizes);
        body += &split;
        let operands = self.w.operands.len();
        for (i, o) in self.w.operands.iter().enumerate() {
            body +=
                &format!("let a{i} = {};\n", walk::address(o.offset, &coordinates, &self.kept.strides[i]));
        }
        let out = walk::address(self.w.out.offset, &coordinates, &self.kept.strides[operands]);
        body += &format!("let at = {out};\n");
        for i in 0..self.indices.len() {
            let strides = &self.kept.strides[operands + 1 + i];
            body += &format!("let n{i} = {};\n", walk::address(0, &coordinates, strides));
        }
        (body, coordinates, grid)
    }

    /// Work on whole rows: stored by the thread for which `one` is true.
    fn of_rows(
        &self,
        coordinates: &[String],
        one: &str,
        ready: &mut [bool],
        source: &mut Source<'_>,
        body: &mut String,
    ) {
        let rows: Vec<Reg> = self.w.extra_outputs.iter().map(|r| r.result).chain([self.w.result]).collect();
        self.hoist(&rows, ready, source, body);
        for (i, extra_outputs) in self.w.extra_outputs.iter().enumerate() {
            let strides = &self.kept.strides[self.w.operands.len() + 1 + self.indices.len() + i];
            *body +=
                &format!("let at{i} = {};\n", walk::address(extra_outputs.out.offset, coordinates, strides));
            let store =
                source.store(&extra_outputs.out, &format!("at{i}"), &format!("r{}", extra_outputs.result));
            *body += &format!("if (live && {one}) {{ {store} }}\n");
        }
        if self.w.per_row {
            let store = source.store(&self.w.out, "at", &format!("r{}", self.w.result));
            *body += &format!("if (live && {one}) {{ {store} }}\n");
        }
    }

    /// Work on each element.
    fn elements(&self, part: Part, ready: &[bool], source: &mut Source<'_>, body: &mut String) {
        *body += "if (live) {\n";
        self.each(part, (&[self.w.result], true), ready, source, body, |s, lane, text| {
            let value = format!("r{}", self.w.result);
            if self.lanes == 4 {
                *text += &format!("y.{} = {value};\n", LANES[lane]);
            } else {
                let to = format!("(at + {})", self.step(self.w.operands.len(), 0));
                *text += &s.store(&self.w.out, &to, &value);
            }
        });
        *body += "}\n";
    }

    /// The kind a reduction accumulates in: argmax and argmin of bools compare numbers.
    fn kind(&self, reduction: usize) -> Kind {
        let (f, reg) = self.w.reductions[reduction];
        match self.w.tape.kind(reg) {
            Kind::B if fold::is_place(f) => Kind::U,
            kind => kind,
        }
    }

    /// The offset along the reduced axes for `strides[which]`, from coordinates `j…`.
    fn step(&self, which: usize, lane: usize) -> String {
        let names: Vec<String> = (0..self.along.sizes.len()).map(|i| format!("j{i}")).collect();
        let strides = &self.along.strides[which];
        walk::address(strides.last().copied().unwrap_or(0) * lane as isize, &names, strides)
    }

    /// Prints the registers that are constant along a row.
    fn hoist(&self, wanted: &[Reg], ready: &mut [bool], source: &mut Source<'_>, body: &mut String) {
        let needed = code::needed(&self.w.tape, wanted);
        let rows: Vec<Reg> =
            (0..needed.len()).filter(|&r| needed[r] && self.of_row[r] && !ready[r]).collect();
        if rows.is_empty() {
            return;
        }
        *body += &self.lines(&rows, ready, 0, false, source);
        rows.into_iter().for_each(|r| ready[r] = true);
    }

    fn lines(
        &self,
        wanted: &[Reg],
        ready: &[bool],
        lane: usize,
        along: bool,
        source: &mut Source<'_>,
    ) -> String {
        let operands = self.w.operands.len();
        let mut load = |source: &mut Source<'_>, i: usize| {
            let o = &self.w.operands[i];
            let moves = along && self.along.strides[i].iter().any(|s| *s != 0);
            if moves && self.lanes == 4 && self.along.strides[i].last() == Some(&1) {
                return format!("x{i}.{}", LANES[lane]);
            }
            let at = if moves { format!("(a{i} + {})", self.step(i, lane)) } else { format!("a{i}") };
            source.load(o, &at)
        };
        let mut index = |s: &[isize]| {
            let i = self.indices.iter().position(|k| *k == s).unwrap_or(0);
            if along { format!("(n{i} + {})", self.step(operands + 1 + i, lane)) } else { format!("n{i}") }
        };
        let reduced = |i: usize| format!("red{i}");
        let mut names = Names { load: &mut load, index: &mut index, reduced: &reduced };
        code::print(source, &self.w.tape, wanted, ready, &mut names)
    }

    /// A loop over this thread's elements of the row; `then` generates the code for each, assigning to `y` if four are stored
    /// at once.
    fn each(
        &self,
        part: Part,
        (wanted, stores): (&[Reg], bool),
        ready: &[bool],
        source: &mut Source<'_>,
        body: &mut String,
        mut then: impl FnMut(&mut Source<'_>, usize, &mut String),
    ) {
        let (parts, lanes) = (self.parts, self.lanes);
        let (first, end) = if part == Part::Pieces {
            let each = self.length.div_ceil(self.splits).next_multiple_of(lanes);
            *body +=
                &format!("let first = piece * {each}u;\nlet end = min(first + {each}u, {}u);\n", self.length);
            ("first + ", "end".to_string())
        } else {
            ("", format!("{}u", self.length))
        };
        // drivers can unroll a loop with a constant number of iterations, so that loads overlap
        let turns = self.length.div_ceil(parts * lanes);
        let known = part != Part::Pieces && (2..=self.unrolled).contains(&turns);
        if known {
            *body += &format!(
                "for (var turn = 0u; turn < {turns}u; turn++) {{\nlet j = part * {lanes}u + turn * {}u;\n",
                parts * lanes
            );
            if !self.length.is_multiple_of(parts * lanes) {
                *body += &format!("if (j >= {}u) {{ break; }}\n", self.length);
            }
        } else {
            *body +=
                &format!("for (var j = {first}part * {lanes}u; j < {end}; j += {}u) {{\n", parts * lanes);
        }
        *body += &walk::coordinates("j", "j", &self.along.sizes).0;
        let needed = code::needed(&self.w.tape, wanted);
        if lanes == 4 {
            for (i, o) in self.w.operands.iter().enumerate() {
                let used = (0..needed.len())
                    .any(|r| needed[r] && !ready[r] && self.w.tape.code[r].0 == Instr::Load(i));
                if used && self.along.strides[i].last() == Some(&1) {
                    let value = source.load4(o, &format!("(a{i} + {})", self.step(i, 0)));
                    *body += &format!("let x{i} = {value};\n");
                }
            }
            if stores {
                *body += "var y: vec4<f32>;\n";
            }
            for lane in 0..4 {
                *body += "{\n";
                *body += &self.lines(wanted, ready, lane, true, source);
                then(source, lane, body);
                *body += "}\n";
            }
            if stores {
                let to = format!("(at + {})", self.step(self.w.operands.len(), 0));
                *body += &source.store4(&self.w.out, &to, "y");
            }
        } else {
            *body += &self.lines(wanted, ready, 0, true, source);
            then(source, 0, body);
        }
        *body += "}\n";
    }

    /// Declares the accumulators of a pass's reductions.
    fn begin(&self, pass: &[usize], source: &mut Source<'_>, body: &mut String) {
        for &r in pass {
            let (f, kind) = (self.w.reductions[r].0, self.kind(r));
            *body += &format!("var acc{r}: {} = {};\n", type_name(kind), fold::identity(source, f, kind));
            if fold::is_place(f) {
                *body += &format!("var pos{r}: u32 = 0xffffffffu;\n");
            }
        }
    }

    /// Accumulates each thread's own part of a pass's reductions.
    fn accumulate(
        &self,
        pass: &[usize],
        part: Part,
        ready: &mut [bool],
        source: &mut Source<'_>,
        body: &mut String,
    ) {
        self.begin(pass, source, body);
        if part == Part::Joined {
            *body += &format!("for (var j = part; j < {}u; j += {}u) {{\n", self.splits, self.parts);
            for &r in pass {
                let (f, kind) = (self.w.reductions[r].0, self.kind(r));
                let (view, _) = scratch_view(kind);
                let name = source.bind(Slot::Scratch(r), view, false);
                let element = format!("{name}[row * {}u + j]", self.splits);
                let element = if kind == Kind::B { format!("({element} != 0u)") } else { element };
                *body +=
                    &format!("acc{r} = {};\n", fold::join(source, f, kind, &format!("acc{r}"), &element));
            }
            *body += "}\n";
            return;
        }
        let wanted: Vec<Reg> = pass.iter().map(|&r| self.w.reductions[r].1).collect();
        self.hoist(&wanted, ready, source, body);
        self.each(part, (&wanted, false), ready, source, body, |source, lane, text| {
            for &r in pass {
                let ((f, reg), kind) = (self.w.reductions[r], self.kind(r));
                let number = kind == Kind::U && self.w.tape.kind(reg) == Kind::B;
                let value = if number { format!("u32(r{reg})") } else { format!("r{reg}") };
                let acc = format!("acc{r}");
                if fold::is_place(f) {
                    let better = fold::better(source, f, kind);
                    *text += &format!(
                        "if ({better}({acc}, pos{r}, {value}, j + {lane}u)) {{ {acc} = {value}; pos{r} = j + {lane}u; }}\n"
                    );
                } else {
                    *text += &format!("{acc} = {};\n", fold::join(source, f, kind, &acc, &value));
                }
            }
        });
    }
}

fn scratch_view(kind: Kind) -> (View, &'static str) {
    match kind {
        Kind::F => (View::F32, "f32"),
        Kind::I => (View::I32, "i32"),
        _ => (View::U32, "u32"),
    }
}

/// Registers that are constant along a row: those that depend on nothing that varies along it.
fn of_row(w: &Rowwise) -> Vec<bool> {
    let still = |strides: &[isize]| strides.iter().zip(&w.reduced).all(|(s, r)| !r || *s == 0);
    let mut all = vec![false; w.tape.code.len()];
    for (r, (instr, _)) in w.tape.code.iter().enumerate() {
        all[r] = match instr {
            Instr::Load(i) => {
                let o = &w.operands[*i];
                let sizes = o.strides.iter().zip(&w.reduced).zip(&w.domain);
                sizes.into_iter().all(|((s, red), n)| !red || *s == 0 || *n == 1)
            }
            Instr::Index(s) => still(s),
            Instr::Reduced(_) | Instr::Const(_) => true,
            other => other.reads().all(|a| all[a]),
        };
    }
    all
}

/// Assigns reductions to passes: each comes after those whose results it uses.
fn passes(w: &Rowwise) -> Vec<Vec<usize>> {
    let mut pass_of = vec![0usize; w.reductions.len()];
    for (r, (_, reg)) in w.reductions.iter().enumerate() {
        let needed = code::needed(&w.tape, &[*reg]);
        for (n, (instr, _)) in needed.iter().zip(&w.tape.code) {
            if let (true, Instr::Reduced(i)) = (*n, instr) {
                pass_of[r] = pass_of[r].max(pass_of[*i] + 1);
            }
        }
    }
    let count = pass_of.iter().max().map_or(0, |m| m + 1);
    (0..count).map(|p| (0..pass_of.len()).filter(|&r| pass_of[r] == p).collect()).collect()
}
