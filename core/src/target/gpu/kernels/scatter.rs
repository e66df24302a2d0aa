//! Scatter of many entries, each added to (or stored at) the position given by its key: a stable radix sort of the keys, four
//! bits at a time (Merrill & Grimshaw 2011, "High Performance and Scalable Radix Sorting"), then a sum of each run of equal
//! keys, in blocks whose partial sums are again such entries (Sengupta et al. 2007, "Scan Primitives for GPU Computing"). No
//! thread processes more than a block, however many entries have the same key; the order of additions depends on the keys only,
//! so results are deterministic.

use super::Made;
use super::rowwise::entry;
use crate::profile::Limits;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::{Slot, Source, View};
use crate::target::gpu::wgsl::walk;

const THREADS: usize = 64;
/// Values of a digit of the keys.
const DIGITS: usize = 16;
/// Minimum entries per thread of the sort, and maximum number of tiles (a tile is a workgroup's entries).
const EACH: usize = 16;
const TILES: usize = 4096;
/// Sorted entries added by one thread.
const BLOCK: usize = 64;
/// The key that marks an unused entry.
const NONE: &str = "0xffffffffu";

/// The type of the sums: their representation in scratch, words per value, zero, and addition.
pub struct Sums {
    /// The view of scratch.
    pub view: View,
    /// Words of a value: two for 64-bit integers.
    pub words: usize,
    /// The type in a kernel.
    pub kind: &'static str,
}

/// A list of entries: the scratch with their keys, and with the value or position of each.
#[derive(Clone, Copy)]
struct List {
    keys: usize,
    values: usize,
    entries: usize,
}

/// The kernels of a scatter under construction.
pub struct Scatter<'a> {
    storage: &'a Storage,
    limits: &'a Limits,
    /// Exclusive upper bound of valid keys.
    keys: usize,
    /// Values per entry, each with its own target position.
    columns: usize,
    list: List,
    made: Made,
}

impl<'a> Scatter<'a> {
    /// For that many entries, each of that many columns, with keys below a bound. `made` has the preceding kernels, with their
    /// scratch.
    pub fn new(
        storage: &'a Storage,
        limits: &'a Limits,
        [entries, columns, keys]: [usize; 3],
        mut made: Made,
    ) -> Scatter<'a> {
        let first = made.scratch.len();
        made.scratch.extend([entries, entries]);
        let list = List { keys: first, values: first + 1, entries };
        Scatter { storage, limits, keys, columns, list, made }
    }

    fn scratch(&mut self, elements: usize) -> usize {
        self.made.scratch.push(elements.max(1));
        self.made.scratch.len() - 1
    }

    fn words(source: &mut Source<'_>, scratch: usize, written: bool) -> String {
        source.bind(Slot::Scratch(scratch), View::U32, written)
    }

    fn push(&mut self, source: Source<'_>, threads: usize, (body, grid): (&str, [u32; 3])) {
        self.made.kernels.push(source.finish(&entry(threads, body), grid));
    }

    /// Sorts the entries by key, stably. `key` returns the lines that define `key` of entry `e`.
    pub fn sort(&mut self, key: impl FnOnce(&mut Source<'_>) -> String) {
        let mut source = Source::new(self.storage);
        let (grid, mut body) = walk::each("e", self.list.entries, THREADS);
        body += &key(&mut source);
        let keys = Self::words(&mut source, self.list.keys, true);
        let order = Self::words(&mut source, self.list.values, true);
        body += &format!("{keys}[e] = key;\n{order}[e] = e;\n");
        self.push(source, THREADS, (&body, grid));
        let bits = usize::BITS - self.keys.leading_zeros();
        let each = self.list.entries.div_ceil(THREADS * TILES).max(EACH);
        let tiles = self.list.entries.div_ceil(THREADS * each);
        let counts = self.scratch(DIGITS * tiles);
        let entries = self.list.entries;
        let mut other =
            List { keys: self.scratch(entries), values: self.scratch(entries), entries: self.list.entries };
        for shift in (0..bits).step_by(4) {
            let tile = Tile { each, tiles, shift, counts };
            self.count(&tile);
            self.add_up(&tile);
            self.place(&tile, &other);
            std::mem::swap(&mut self.list, &mut other);
        }
    }

    /// Lines that count the digits of each thread's entries: `counts[digit · threads + thread]`.
    fn digits(&self, source: &mut Source<'_>, tile: &Tile) -> ([u32; 3], String) {
        let (each, entries) = (tile.each, self.list.entries);
        let keys = Self::words(source, self.list.keys, false);
        source.share("counts", "u32", DIGITS * THREADS);
        source.function(format!("fn digit_of(key: u32) -> u32 {{ return (key >> {}u) & 15u; }}", tile.shift));
        let grid = walk::fold(tile.tiles);
        let mut body = walk::group_number(grid);
        body += &format!("let first = (group * {THREADS}u + lid) * {each}u;\n");
        for digit in 0..DIGITS {
            body += &format!("counts[{}u + lid] = 0u;\n", digit * THREADS);
        }
        body += &format!("for (var n = 0u; n < {each}u; n++) {{\nlet e = first + n;\n");
        body += &format!("if (e >= {entries}u) {{ break; }}\n");
        body += &format!("counts[digit_of({keys}[e]) * {THREADS}u + lid] += 1u;\n}}\nworkgroupBarrier();\n");
        (grid, body)
    }

    /// Histogram of the digits in each tile.
    fn count(&mut self, tile: &Tile) {
        let mut source = Source::new(self.storage);
        let (grid, mut body) = self.digits(&mut source, tile);
        let table = Self::words(&mut source, tile.counts, true);
        body += &format!("if (lid < {DIGITS}u && group < {}u) {{\nvar sum = 0u;\n", tile.tiles);
        body +=
            &format!("for (var n = 0u; n < {THREADS}u; n++) {{ sum += counts[lid * {THREADS}u + n]; }}\n");
        body += &format!("{table}[lid * {}u + group] = sum;\n}}\n", tile.tiles);
        self.push(source, THREADS, (&body, grid));
    }

    /// Exclusive prefix sums of the counts: the first positions of each digit and tile's entries. One workgroup.
    fn add_up(&mut self, tile: &Tile) {
        let mut source = Source::new(self.storage);
        let threads = 1usize << self.limits.threads.min(256).ilog2();
        let all = DIGITS * tile.tiles;
        let run = all.div_ceil(threads);
        let table = Self::words(&mut source, tile.counts, true);
        source.share("sums", "u32", threads);
        let each = |inner: &str| {
            format!(
                "for (var n = 0u; n < {run}u; n++) {{\nlet at = lid * {run}u + n;\nif (at >= {all}u) {{ break; }}\n{inner}\n}}\n"
            )
        };
        let mut body = String::from("var x = 0u;\n");
        body += &each(&format!("x += {table}[at];"));
        let mut step = 1;
        while step < threads {
            body += &format!(
                "sums[lid] = x;\nworkgroupBarrier();\nif (lid >= {step}u) {{ x += sums[lid - {step}u]; }}\n"
            );
            body += "workgroupBarrier();\n";
            step *= 2;
        }
        body += "sums[lid] = x;\nworkgroupBarrier();\nvar before = 0u;\nif (lid > 0u) { before = sums[lid - 1u]; }\n";
        body += &each(&format!("let own = {table}[at];\n{table}[at] = before;\nbefore += own;"));
        self.push(source, threads, (&body, [1, 1, 1]));
    }

    /// Moves the entries to the positions given by the counts.
    fn place(&mut self, tile: &Tile, to: &List) {
        let mut source = Source::new(self.storage);
        let (grid, mut body) = self.digits(&mut source, tile);
        let keys = Self::words(&mut source, self.list.keys, false);
        let values = Self::words(&mut source, self.list.values, false);
        let table = Self::words(&mut source, tile.counts, false);
        let keys_to = Self::words(&mut source, to.keys, true);
        let values_to = Self::words(&mut source, to.values, true);
        let (entries, each) = (self.list.entries, tile.each);
        body += &format!("if (lid < {DIGITS}u) {{\n");
        body +=
            &format!("var before = {table}[lid * {0}u + min(group, {1}u)];\n", tile.tiles, tile.tiles - 1);
        body +=
            &format!("for (var n = 0u; n < {THREADS}u; n++) {{\nlet own = counts[lid * {THREADS}u + n];\n");
        body +=
            &format!("counts[lid * {THREADS}u + n] = before;\nbefore += own;\n}}\n}}\nworkgroupBarrier();\n");
        body += &format!("for (var n = 0u; n < {each}u; n++) {{\nlet e = first + n;\n");
        body += &format!("if (e >= {entries}u) {{ break; }}\nlet key = {keys}[e];\n");
        body += &format!(
            "let slot = digit_of(key) * {THREADS}u + lid;\nlet at = counts[slot];\ncounts[slot] = at + 1u;\n"
        );
        body += &format!("{keys_to}[at] = key;\n{values_to}[at] = {values}[e];\n}}\n");
        self.push(source, THREADS, (&body, grid));
    }

    /// Stores the last entry of each run of equal keys: `put` returns the lines that store column `c` of entry `e` at `key`.
    pub fn last(mut self, put: impl FnOnce(&mut Source<'_>) -> String) -> Made {
        let mut source = Source::new(self.storage);
        let (entries, columns) = (self.list.entries, self.columns);
        let (grid, mut body) = walk::each("t", entries * columns, THREADS);
        let keys = Self::words(&mut source, self.list.keys, false);
        let order = Self::words(&mut source, self.list.values, false);
        body += &format!("let at = t / {columns}u;\nlet c = t % {columns}u;\nlet key = {keys}[at];\n");
        body += &format!("if (key >= {}u) {{ return; }}\n", self.keys);
        body += &format!("if (at + 1u < {entries}u) {{ if ({keys}[at + 1u] == key) {{ return; }} }}\n");
        body += &format!("let e = {order}[at];\n{}", put(&mut source));
        self.push(source, THREADS, (&body, grid));
        self.made
    }

    /// Sums runs of equal keys. `value` returns column `c` of entry `e`, `plus` the sum of two, `flush` the lines that add
    /// `sum` of column `c` to the value at `key`.
    pub fn add(
        mut self,
        sums: &Sums,
        value: impl Fn(&mut Source<'_>) -> String,
        plus: impl Fn(&mut Source<'_>, &str, &str) -> String,
        flush: impl Fn(&mut Source<'_>) -> String,
    ) -> Made {
        let mut level = 0;
        loop {
            let (entries, columns) = (self.list.entries, self.columns);
            let blocks = entries.div_ceil(BLOCK);
            let mut source = Source::new(self.storage);
            let keys = Self::words(&mut source, self.list.keys, false);
            let (own, view) = (self.list.values, if level == 0 { View::U32 } else { sums.view });
            let values = source.bind(Slot::Scratch(own), view, false);
            let of_entry = match level {
                0 => {
                    let value = value(&mut source);
                    format!("let e = {values}[at];\nreturn {value};")
                }
                _ => format!("return {};", read(&values, &format!("(at * {columns}u + c)"), sums)),
            };
            source.function(format!("fn value_at(at: u32, c: u32) -> {} {{\n{of_entry}\n}}", sums.kind));
            let lines = flush(&mut source);
            source.function(format!(
                "fn flush(key: u32, c: u32, sum: {}) {{\nif (key >= {}u) {{ return; }}\n{lines}\n}}",
                sums.kind, self.keys
            ));
            let next = (blocks > 1).then(|| List {
                keys: self.scratch(2 * blocks),
                values: self.scratch(2 * blocks * columns * sums.words),
                entries: 2 * blocks,
            });
            let (sum, zero) = (plus(&mut source, "sum", "value_at(at, c)"), format!("{}()", sums.kind));
            let (grid, mut body) = walk::each("t", blocks * columns, THREADS);
            body += &format!(
                "let block = t / {columns}u;\nlet c = t % {columns}u;\nlet first = block * {BLOCK}u;\n"
            );
            body += &format!("let end = min(first + {BLOCK}u, {entries}u);\nvar key = {keys}[first];\n");
            body += "var sum = value_at(first, c);\n";
            // for a run that crosses the block's boundary, the block has a partial sum: two at most, in order
            if next.is_some() {
                body += &format!(
                    "var head = false;\nif (first > 0u) {{ head = {keys}[first - 1u] == key; }}\n\
                     var head_key = {NONE};\nvar head_sum = {zero};\nvar tail_key = {NONE};\nvar tail_sum = {zero};\n"
                );
            }
            body += &format!(
                "for (var n = 1u; n < {BLOCK}u; n++) {{\nlet at = first + n;\nif (at >= end) {{ break; }}\n\
                 let next = {keys}[at];\nif (next == key) {{ sum = {sum}; continue; }}\n"
            );
            body += match &next {
                None => "flush(key, c, sum);\n",
                Some(_) => {
                    "if (head) { head_key = key; head_sum = sum; head = false; } else { flush(key, c, sum); }\n"
                }
            };
            body += "key = next;\nsum = value_at(at, c);\n}\n";
            match &next {
                None => body += "flush(key, c, sum);\n",
                Some(list) => {
                    // a block inside a single run that continues has one partial sum, and an empty second entry with the same
                    // key
                    body += &format!(
                        "var tail = false;\nif (end < {entries}u) {{ tail = {keys}[end] == key; }}\n\
                         if (head) {{\nhead_key = key;\nhead_sum = sum;\nif (tail) {{ tail_key = key; }}\n\
                         }} else if (tail) {{\ntail_key = key;\ntail_sum = sum;\n}} else {{ flush(key, c, sum); }}\n"
                    );
                    let keys = Self::words(&mut source, list.keys, true);
                    let values = source.bind(Slot::Scratch(list.values), sums.view, true);
                    body += &format!(
                        "if (c == 0u) {{ {keys}[block * 2u] = head_key; {keys}[block * 2u + 1u] = tail_key; }}\n"
                    );
                    for (side, value) in ["head_sum", "tail_sum"].into_iter().enumerate() {
                        let at = format!("((block * 2u + {side}u) * {columns}u + c)");
                        body += &(write(&values, &at, value, sums) + "\n");
                    }
                }
            }
            self.push(source, THREADS, (&body, grid));
            let Some(list) = next else { return self.made };
            self.list = list;
            level += 1;
        }
    }
}

struct Tile {
    /// Entries per thread.
    each: usize,
    tiles: usize,
    /// The digit's first bit.
    shift: u32,
    /// The scratch number of the counts.
    counts: usize,
}

fn read(values: &str, at: &str, sums: &Sums) -> String {
    match sums.words {
        2 => format!("vec2<u32>({values}[{at} * 2u], {values}[{at} * 2u + 1u])"),
        _ => format!("{values}[{at}]"),
    }
}

fn write(values: &str, at: &str, value: &str, sums: &Sums) -> String {
    match sums.words {
        2 => format!("{values}[{at} * 2u] = {value}.x;\n{values}[{at} * 2u + 1u] = {value}.y;"),
        _ => format!("{values}[{at}] = {value};"),
    }
}

/// Whether a device can run a scatter of that many entries and columns: its loops, and its lists, each of which is one binding.
pub fn fits(entries: usize, columns: usize, limits: &Limits) -> bool {
    let each = entries.div_ceil(THREADS * TILES).max(EACH);
    let partial = 2 * entries.div_ceil(BLOCK) * 2;
    let turns = 2 * each + 2 * THREADS + 2 * DIGITS * TILES / THREADS;
    turns <= limits.turns && entries.max(partial.saturating_mul(columns)) <= limits.binding / 4
}
