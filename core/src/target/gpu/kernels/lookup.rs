//! Look-ups along an axis: take, gather, and their adjoints (scatters). Indices are checked where they are used: a bad index is
//! reported, read as 0, and written nowhere. Sums are made in the order of the indices, by one thread each, hence
//! deterministic.

use super::Made;
use super::rowwise::{self, entry};
use super::scatter::{self, Scatter, Sums};
use super::shared::Share;
use crate::error::{Error, Result};
use crate::expr::{Instr, Kind, Tape};
use crate::plan::{IndexKind, IndexWork, Operand, Rowwise};
use crate::profile::Limits;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::{Kernel, Slot, Source, View};
use crate::target::gpu::wgsl::walk;
use crate::tensor::{DType, contiguous_strides};

/// Threads of a workgroup.
pub const THREADS: usize = 64;
/// Maximum number of indices for which a thread searches all of them for duplicates of its own; more are sorted.
const SEARCH: usize = Limits::FEWEST_TURNS / 2;
/// Replaces a bad index until the updates are sorted.
const NONE: &str = "0xffffffffu";

/// The kernels of a look-up; bad indices are reported in word `report` of the error buffer.
///
/// # Errors
/// [`Error::Device`] if there are more indices than the device's loops can sort.
pub fn kernels(w: &IndexWork, report: usize, storage: &Storage, limits: &Limits) -> Result<Made> {
    let w = &halves(w);
    let look = Lookup::new(w, report, storage, "");
    if look.is_long() {
        return look.scatter(limits);
    }
    let kernels = match w.kind {
        IndexKind::Take | IndexKind::Gather => vec![look.read()],
        IndexKind::Check => {
            let mut source = Source::new(storage);
            let Share { body, threads, grid } = look.check(&mut source);
            vec![source.finish(&entry(threads, &body), grid)]
        }
        _ => {
            let mut all = look.copy(limits);
            let mut source = Source::new(storage);
            let Share { body, threads, grid } = look.write(&mut source);
            all.push(source.finish(&entry(threads, &body), grid));
            all
        }
    };
    Ok(Made { kernels, scratch: vec![] })
}

/// A check of indices, or a put in place, as part of a dispatch that it may share with other steps; the names of its functions
/// end in `tag`.
pub fn part(source: &mut Source<'_>, w: &IndexWork, report: usize, storage: &Storage, tag: &str) -> Share {
    let w = &halves(w);
    let look = Lookup::new(w, report, storage, tag);
    if w.kind == IndexKind::Check { look.check(source) } else { look.write(source) }
}

/// 64-bit elements are moved as two 32-bit words; elements to be added are not divided.
fn halves(w: &IndexWork) -> IndexWork {
    let mut w = w.clone();
    let moves = matches!(w.kind, IndexKind::Take | IndexKind::Gather | IndexKind::TakePut);
    if w.table.dtype == DType::I64 && moves {
        let double = |o: &mut Operand| {
            o.dtype = DType::U32;
            o.offset *= 2;
        };
        double(&mut w.table);
        double(&mut w.out);
        w.updates.iter_mut().for_each(double);
        w.table_shape.push(2);
        if w.kind == IndexKind::Gather {
            w.indices_shape.push(2);
        }
    }
    w
}

struct Lookup<'a> {
    w: &'a IndexWork,
    /// Gather and scatter of divided 64-bit elements: each index is used for two words.
    twice: bool,
    report: usize,
    storage: &'a Storage,
    /// Suffix of function names.
    tag: &'a str,
    outer: usize,
    limit: usize,
    inner: usize,
    /// Number of indices (whole look-ups), or of indices along the axis (elements).
    count: usize,
}

impl<'a> Lookup<'a> {
    fn new(w: &'a IndexWork, report: usize, storage: &'a Storage, tag: &'a str) -> Self {
        let (shape, axis) = (&w.table_shape, w.axis);
        let whole = matches!(w.kind, IndexKind::Take | IndexKind::TakeAdd | IndexKind::TakePut);
        let twice = w.kind == IndexKind::Gather && storage.buffers[w.table.buffer].dtype == DType::I64;
        Lookup {
            w,
            twice,
            report,
            storage,
            tag,
            outer: shape[..axis].iter().product(),
            limit: shape[axis],
            inner: shape[axis + 1..].iter().product(),
            // checks process each index by itself
            count: if whole || w.kind == IndexKind::Check {
                w.indices_shape.iter().product()
            } else {
                w.indices_shape[axis]
            },
        }
    }

    /// The words of the i-th index; 32-bit indices have no high word.
    fn words(&self, source: &mut Source<'_>) -> (String, Option<String>) {
        let o = &self.w.indices;
        match o.dtype {
            DType::I64 => {
                let [low, high] = o.words().map(|at| source.load(&at, &format!("(i * 2u + {}u)", at.offset)));
                (low, Some(high))
            }
            DType::I32 => {
                (format!("bitcast<u32>({})", source.load(o, &format!("(i + {}u)", o.offset))), None)
            }
            _ => (source.load(o, &format!("(i + {}u)", o.offset)), None),
        }
    }

    /// Indices as i32, with the ignored one as −1, unchecked.
    fn check(&self, source: &mut Source<'_>) -> Share {
        let o = &self.w.out;
        let (grid, mut body) = walk::each("i", self.count, THREADS);
        let to = format!("(i + {}u)", o.offset);
        if let Some(ignored) = self.ignored(source) {
            body += &format!("if ({ignored}) {{ {} return; }}\n", source.store(o, &to, "-1i"));
        }
        body += &self.checked(source, "i");
        body += &source.store(o, &to, "bitcast<i32>(k)");
        Share { body, threads: THREADS, grid }
    }

    /// Whether the i-th index is the ignored one; `None` if its dtype cannot represent that.
    fn ignored(&self, source: &mut Source<'_>) -> Option<String> {
        let ignored = self.w.ignored?;
        let (low, high) = self.words(source);
        let v = match (&high, self.w.indices.dtype) {
            (Some(high), _) => {
                let [below, above] = [ignored as u32, (ignored >> 32) as u32];
                return Some(format!("{low} == {below}u && {high} == {above}u"));
            }
            (None, DType::I32) => i32::try_from(ignored).ok()? as u32,
            (None, _) => u32::try_from(ignored).ok()?,
        };
        Some(format!("{low} == {v}u"))
    }

    /// Adds `fn index(i: u32) -> u32` to the kernel: the i-th index, 2³² − 1 if it is bad.
    fn index_function(&self, source: &mut Source<'_>) {
        let value = match self.words(source) {
            (low, Some(high)) => format!("select(0xffffffffu, {low}, {high} == 0u)"),
            (low, None) => low,
        };
        source.function(format!("fn index{}(i: u32) -> u32 {{ return {value}; }}", self.tag));
    }

    /// The line that defines `k` as a valid index, reporting a bad one at `position`.
    fn checked(&self, source: &mut Source<'_>, position: &str) -> String {
        self.checked_or(source, position, "k = 0u;")
    }

    /// The same, with another action after a bad index.
    fn checked_or(&self, source: &mut Source<'_>, position: &str, then: &str) -> String {
        self.index_function(source);
        let errors = source.bind(Slot::Errors, View::Atomic, true);
        let report = source.report(self.report);
        format!(
            "var k = index{}({position});\nif (k >= {}u) {{ atomicMin(&{errors}[{report}], {position}); {then} }}\n",
            self.tag, self.limit
        )
    }

    /// Take and gather: one output element a thread, or four if they are contiguous.
    fn read(&self) -> Kernel {
        let mut source = Source::new(self.storage);
        let (w, whole) = (self.w, self.w.kind == IndexKind::Take);
        let total =
            if whole { self.outer * self.count * self.inner } else { w.indices_shape.iter().product() };
        let aligned = w.table.offset % 4 == 0 && w.out.offset % 4 == 0;
        let float = source.has_four(&w.table);
        let lanes = if whole && self.inner.is_multiple_of(4) && aligned && float { 4 } else { 1 };
        let (grid, mut body) = walk::each("t", total / lanes, THREADS);
        body += &format!("let i = t * {lanes}u;\n");
        if whole {
            body += &format!("let j = i / {}u % {}u;\n", self.inner, self.count);
            body += &self.checked(&mut source, "j");
            body += &format!(
                "let place = (i / {}u * {}u + k) * {}u + i % {}u + {}u;\n",
                self.inner * self.count,
                self.limit,
                self.inner,
                self.inner,
                w.table.offset
            );
        } else {
            body += &self.element_address(&mut source, "i");
        }
        body += &format!("let to = i + {}u;\n", w.out.offset);
        body += &if lanes == 4 {
            let value = source.load4(&w.table, "place");
            source.store4(&w.out, "to", &value)
        } else {
            let value = source.load(&w.table, "place");
            source.store(&w.out, "to", &value)
        };
        source.finish(&entry(THREADS, &body), grid)
    }

    /// Lines that set `from` to the table element selected by the index at position `i`.
    fn element_address(&self, source: &mut Source<'_>, i: &str) -> String {
        let (w, axis) = (self.w, self.w.axis);
        let strides: Vec<isize> = contiguous_strides(&w.table_shape);
        let (mut text, mut names) = walk::coordinates("c", i, &w.indices_shape);
        let position = if self.twice { format!("{i} / 2u") } else { i.to_string() };
        text += &format!("let position = {position};\n");
        text += &self.checked(source, "position");
        names[axis] = "k".into();
        text += &format!("let place = {};\n", walk::address(w.table.offset, &names, &strides));
        text
    }

    /// Copies the table to the output, unless they are the same buffer.
    fn copy(&self, limits: &Limits) -> Vec<Kernel> {
        let w = self.w;
        if w.table.buffer == w.out.buffer && w.table.offset == w.out.offset {
            return vec![];
        }
        let wide = w.table.dtype == DType::I64;
        let elements = w.table_shape.iter().product::<usize>() * if wide { 2 } else { 1 };
        let mut tape = Tape::default();
        let result = tape.push(Instr::Load(0), Kind::of(w.table.dtype));
        let line = |o: &Operand| {
            let [low, _] = o.words();
            Operand { strides: vec![1], ..if wide { low } else { o.clone() } }
        };
        let copy = Rowwise {
            domain: vec![elements],
            reduced: vec![false],
            operands: vec![line(&w.table)],
            tape,
            reductions: vec![],
            result,
            per_row: false,
            out: line(&w.out),
            extra_outputs: vec![],
            declared: Default::default(),
        };
        rowwise::kernels(&copy, self.storage, limits).kernels
    }

    /// Whether the updates are sorted.
    fn is_long(&self) -> bool {
        let writes = matches!(self.w.kind, IndexKind::TakeAdd | IndexKind::TakePut | IndexKind::ScatterAdd);
        writes && !self.is_distinct() && self.count > SEARCH
    }

    /// Whether indices are distinct, except for the ignored one.
    fn is_distinct(&self) -> bool {
        self.w.kind == IndexKind::TakePut && self.w.ignored.is_some()
    }

    /// The kernels for more updates than a thread may search.
    fn scatter(&self, limits: &Limits) -> Result<Made> {
        let w = self.w;
        let whole = w.kind != IndexKind::ScatterAdd;
        let table: usize = w.table_shape.iter().product();
        // whole slices are keyed by index; elements by their target position in the table
        let (entries, columns, keys) = match whole {
            true => (self.count, self.outer * self.inner, self.limit),
            false => (w.indices_shape.iter().product(), 1, table),
        };
        if !scatter::fits(entries, columns, limits) {
            let (turns, bytes) = (limits.turns, limits.binding);
            let why = format!(
                "{entries} indices of {columns} elements are more than loops of {turns} turns and bindings of {bytes} bytes sort"
            );
            return Err(Error::Device { device: "gpu".into(), why });
        }
        let made = Made { kernels: self.copy(limits), scratch: vec![] };
        let mut all = Scatter::new(self.storage, limits, [entries, columns, keys], made);
        all.sort(|source| {
            let checked = self.checked_or(source, "e", &format!("k = {NONE};"));
            if whole {
                return format!("{checked}let key = select(k, {keys}u, k == {NONE});\n");
            }
            let strides: Vec<isize> = contiguous_strides(&w.table_shape);
            let (split, mut names) = walk::coordinates("c", "e", &w.indices_shape);
            names[w.axis] = "k".into();
            let place = walk::address(0, &names, &strides);
            format!("{checked}{split}let key = select({place}, {keys}u, k == {NONE});\n")
        });
        let Some(updates) = &w.updates else { return Ok(Made { kernels: vec![], scratch: vec![] }) };
        let (n, inner, limit) = (self.count, self.inner, self.limit);
        let (from, to) = match whole {
            true => (
                format!("((c / {inner}u * {n}u + e) * {inner}u + c % {inner}u + {}u)", updates.offset),
                format!("((c / {inner}u * {limit}u + key) * {inner}u + c % {inner}u + {}u)", w.out.offset),
            ),
            false => (format!("(e + {}u)", updates.offset), format!("(key + {}u)", w.out.offset)),
        };
        if w.kind == IndexKind::TakePut {
            return Ok(all.last(|source| {
                let value = source.load(updates, &from);
                source.store(&w.out, &to, &value)
            }));
        }
        let sums = match w.table.dtype {
            DType::I64 => Sums { view: View::U32, words: 2, kind: "vec2<u32>" },
            DType::I32 => Sums { view: View::I32, words: 1, kind: "i32" },
            DType::U32 => Sums { view: View::U32, words: 1, kind: "u32" },
            _ => Sums { view: View::F32, words: 1, kind: "f32" },
        };
        Ok(all.add(
            &sums,
            |source| self.element(source, updates, &from),
            |source, a, b| self.plus(source, a, b),
            |source| {
                let now = self.element(source, &w.out, "to");
                let sum = self.plus(source, &now, "sum");
                format!("let to = {to};\n{}", self.put(source, &sum))
            },
        ))
    }

    /// Whether elements are 64-bit values that are added as two words.
    fn is_wide(&self) -> bool {
        self.w.table.dtype == DType::I64
    }

    /// An element of the table, of the result or of the updates.
    fn element(&self, source: &mut Source<'_>, o: &Operand, at: &str) -> String {
        if !self.is_wide() {
            return source.load(o, at);
        }
        let [low, high] = [0, 1].map(|word| source.load(o, &format!("({at} * 2u + {word}u)")));
        format!("vec2<u32>({low}, {high})")
    }

    fn plus(&self, source: &mut Source<'_>, a: &str, b: &str) -> String {
        if !self.is_wide() {
            return format!("{a} + {b}");
        }
        source.function(
            "fn add_wide(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {\nlet low = a.x + b.x;\n\
             return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));\n}",
        );
        format!("add_wide({a}, {b})")
    }

    /// The lines that store a value in the result, at `to`.
    fn put(&self, source: &mut Source<'_>, value: &str) -> String {
        if !self.is_wide() {
            return source.store(&self.w.out, "to", value);
        }
        let [low, high] = ["x", "y"].map(|word| format!("stored.{word}"));
        let low = source.store(&self.w.out, "(to * 2u)", &low);
        let high = source.store(&self.w.out, "(to * 2u + 1u)", &high);
        format!("let stored = {value};\n{low}\n{high}\n")
    }

    /// The kernel for few updates, one a thread. Of equal indices, the first one's thread adds all; for puts, the last one's
    /// thread stores.
    fn write(&self, source: &mut Source<'_>) -> Share {
        let tag = self.tag;
        let (w, puts) = (self.w, self.w.kind == IndexKind::TakePut);
        let whole = puts || w.kind == IndexKind::TakeAdd;
        // positions before and after the updates' axis
        let (outer, inner): (usize, usize) = if whole {
            (self.outer, self.inner)
        } else {
            let s = &w.indices_shape;
            (s[..w.axis].iter().product(), s[w.axis + 1..].iter().product())
        };
        let n = self.count;
        let (grid, mut body) = walk::each("t", outer * inner * n, THREADS);
        let divide = if self.twice { " / 2u" } else { "" };
        body +=
            &format!("let o = t / {}u;\nlet j = t / {inner}u % {n}u;\nlet i = t % {inner}u;\n", inner * n);
        // the address of index j's update, and the index that selects its target
        source.function(format!(
            "fn update_at{tag}(o: u32, j: u32, i: u32) -> u32 {{ return (o * {n}u + j) * {inner}u + i; }}"
        ));
        let own = |j: &str| match whole {
            true => j.to_string(),
            false => format!("update_at{tag}(o, {j}, i){divide}"),
        };
        let at = |source: &mut Source<'_>, j: &str| {
            let ignored = self.ignored(source).map(|is| {
                source.function(format!("fn ignored{tag}(i: u32) -> bool {{ return {is}; }}"));
                format!("if (ignored{tag}(position)) {{ return; }}\n")
            });
            let checked = self.checked_or(source, "position", "return;");
            let line = format!("let position = {};\n{}{checked}", own(j), ignored.unwrap_or_default());
            if whole {
                let to = format!("(o * {}u + k) * {}u + i + {}u", self.limit, self.inner, w.out.offset);
                return format!("{line}let to = {to};\n");
            }
            let strides: Vec<isize> = contiguous_strides(&w.table_shape);
            let (split, mut names) =
                walk::coordinates("c", &format!("update_at{tag}(o, {j}, i)"), &w.indices_shape);
            names[w.axis] = "k".into();
            format!("{line}{split}let to = {};\n", walk::address(w.out.offset, &names, &strides))
        };
        let Some(updates) = &w.updates else { return Share { body, threads: THREADS, grid } };
        let update = |source: &mut Source<'_>, j: &str| {
            self.element(source, updates, &format!("(update_at{tag}(o, {j}, i) + {}u)", updates.offset))
        };
        body += &at(source, "j");
        let equal = format!("index{tag}({}) == index{tag}(position)", own("s"));
        if puts {
            if !self.is_distinct() {
                body += &format!("for (var s = j + 1u; s < {n}u; s++) {{ if ({equal}) {{ return; }} }}\n");
            }
            let value = update(source, "j");
            body += &self.put(source, &value);
        } else {
            body += &format!("for (var s = 0u; s < j; s++) {{ if ({equal}) {{ return; }} }}\n");
            let (first, own, value) =
                (self.element(source, &w.out, "to"), update(source, "j"), update(source, "s"));
            body += &format!("var sum = {};\n", self.plus(source, &first, &own));
            let sum = self.plus(source, "sum", &value);
            body += &format!("for (var s = j + 1u; s < {n}u; s++) {{ if ({equal}) {{ sum = {sum}; }} }}\n");
            body += &self.put(source, "sum");
        }
        Share { body, threads: THREADS, grid }
    }
}
