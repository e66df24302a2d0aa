//! Kernels of optimizers: one pass of a rule over many parameters at once. Each workgroup reads its record from a table, so
//! that a kernel's text depends on the rule alone. If a look-up of the step met a bad index, nothing is updated.
//!
//! Three skeletons: `elements` updates parameters and per-element states, four at a time; `sums` computes partial sums of a
//! mean, one piece per workgroup; `smalls` adds the pieces, and computes values with fewer than one per element.

use super::rowwise::entry;
use crate::expr::Reg;
use crate::optimizer::{Pass, Source, Span, Target, Update};
use crate::profile::Limits;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::code::{self, Names};
use crate::target::gpu::wgsl::lanes::LANES;
use crate::target::gpu::wgsl::source::{Kernel, Slot, Source as Text, View};
use crate::target::gpu::wgsl::walk;

/// Maximum elements per workgroup; a multiple of four times [`threads`].
pub const EACH: usize = 4096;
/// Maximum pieces of a mean.
pub const PIECES: usize = 1024;
/// Maximum values of a piece that a thread adds.
pub const TURNS: usize = 2048;
/// Maximum number of look-ups for which every thread checks all error words itself.
const MANY: usize = 1024;

/// Binding numbers of optimizer kernels.
pub mod bound {
    /// Parameters.
    pub const PARAMETERS: usize = 0;
    /// Their gradients.
    pub const GRADIENTS: usize = 1;
    /// Scalars, then the records of parts.
    pub const TABLE: usize = 2;
    /// Per-element states.
    pub const STATES: usize = 3;
    /// Other states, intermediate values, partial sums of means.
    pub const SMALL: usize = 4;
}

/// Threads of a workgroup: a power of two.
pub fn threads(limits: &Limits) -> usize {
    1 << limits.threads.clamp(1, 256).ilog2()
}

/// The inputs of a pass's kernel: its records in the table, their number, and the words of the error buffer.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The word at which the records start.
    pub first: usize,
    /// Number of records, one per workgroup.
    pub parts: usize,
    /// Words of the error buffer.
    pub words: usize,
}

/// The kind of a pass's kernel, and the layout of its records; `updates` documents their contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Elements of parameters.
    Elements,
    /// Pieces of a mean.
    Sums,
    /// Values with fewer than one per element.
    Smalls,
}

impl Sort {
    /// The kind for a pass.
    pub fn of(pass: &Pass) -> Sort {
        match pass.results[..] {
            [(Target::Mean(_), _)] => Sort::Sums,
            _ if pass.over == Span::Element => Sort::Elements,
            _ => Sort::Smalls,
        }
    }

    /// The words of a record.
    pub fn record(self, update: &Update, pass: &Pass) -> usize {
        let loads = small_loads(update, pass).count();
        let means = pass.loads.iter().filter(|s| matches!(s, Source::Mean(_))).count();
        match self {
            Sort::Elements => 9 + loads,
            Sort::Sums => 15 + loads,
            Sort::Smalls => 5 + loads + 2 * means + pass.results.len(),
        }
    }
}

/// The loads of a pass that read small values.
pub fn small_loads<'a>(update: &'a Update, pass: &'a Pass) -> impl Iterator<Item = Source> + 'a {
    let small = |s: &Source| match s {
        Source::Parameter | Source::Gradient | Source::Scalar(_) => false,
        Source::State(_) => s.span(update) != Span::Element,
        Source::Kept(_) | Source::Mean(_) => true,
    };
    pass.loads.iter().copied().filter(small)
}

/// The kernel of a pass.
pub fn kernel(update: &Update, pass: &Pass, place: Place, limits: &Limits) -> Kernel {
    let storage = Storage::empty(limits.binding);
    let grid = walk::fold(place.parts);
    let sort = Sort::of(pass);
    let mut w = Writer { update, pass, text: Text::new(&storage), threads: threads(limits) };
    w.function();
    let mut body = walk::group_number(grid);
    if sort != Sort::Sums && pass.results.iter().any(|r| !matches!(r.0, Target::Kept(_))) {
        body += &w.guard(place.words);
    }
    let table = w.bind(bound::TABLE, View::U32, false);
    body += &format!("let at = {}u + group * {}u;\n", place.first, sort.record(update, pass));
    body += &match sort {
        Sort::Elements => w.elements(&table),
        Sort::Sums => w.sums(&table),
        Sort::Smalls => w.smalls(&table),
    };
    let threads = w.threads;
    w.text.finish(&entry(threads, &body), grid)
}

struct Writer<'a> {
    update: &'a Update,
    pass: &'a Pass,
    text: Text<'a>,
    threads: usize,
}

impl Writer<'_> {
    fn bind(&mut self, buffer: usize, view: View, written: bool) -> String {
        self.text.bind(Slot::Buffer(buffer, 0), view, written)
    }

    /// Adds the pass's code to the kernel: `computed(x0, x1, …)` returns its results `y0`, `y1`, … for its loads.
    fn function(&mut self) {
        let pass = self.pass;
        let wanted: Vec<Reg> = pass.results.iter().map(|r| r.1).collect();
        let mut names = Names {
            load: &mut |_, i| format!("x{i}"),
            index: &mut |_| "0u".into(),
            reduced: &|_| "0.0f".into(),
        };
        let lines = code::print(&mut self.text, &pass.tape, &wanted, &[], &mut names);
        let list =
            |n: usize, what: &str| (0..n).map(|i| format!("{what}{i}: f32")).collect::<Vec<_>>().join(", ");
        let results: Vec<String> = wanted.iter().map(|r| format!("r{r}")).collect();
        self.text.function(format!("struct Results {{ {} }}", list(wanted.len(), "y")));
        self.text.function(format!(
            "fn computed({}) -> Results {{\n{lines}return Results({});\n}}",
            list(pass.loads.len(), "x"),
            results.join(", ")
        ));
    }

    /// Lines that return early in a refused step.
    fn guard(&mut self, words: usize) -> String {
        if words == 0 {
            return String::new();
        }
        let errors = self.text.bind(Slot::Errors, View::U32, false);
        if words <= MANY {
            return format!(
                "for (var e = 0u; e < {words}u; e++) {{ if ({errors}[e] != 0xffffffffu) {{ return; }} }}\n"
            );
        }
        // the workgroup divides the words
        self.text.share_one("bad", "atomic<u32>");
        format!(
            "if (lid == 0u) {{ atomicStore(&bad, 0u); }}\nworkgroupBarrier();\n\
             for (var e = lid; e < {words}u; e += {}u) {{\n\
             if ({errors}[e] != 0xffffffffu) {{ atomicStore(&bad, 1u); }}\n}}\nworkgroupBarrier();\n\
             if (atomicLoad(&bad) != 0u) {{ return; }}\n",
            self.threads
        )
    }

    /// Lines that load the scalars, from word `first` on.
    fn scalars(&self, table: &str, first: &str) -> String {
        let scalar = |(i, s): (usize, &Source)| match s {
            Source::Scalar(k) => Some(format!("let x{i} = bitcast<f32>({table}[{first} + {k}u]);\n")),
            _ => None,
        };
        self.pass.loads.iter().enumerate().filter_map(scalar).collect()
    }

    /// A state's index among the per-element states.
    fn element_state(&self, state: usize) -> usize {
        self.update.states[..state].iter().filter(|s| s.span == Span::Element).count()
    }

    /// Parts of parameters. Record: offsets of parameter, gradient and states in vec4 elements, number of elements, the
    /// distance between states in vec4 elements, the scalars, the first element's number, rows and columns; then the offsets of
    /// small values to read.
    fn elements(&mut self, table: &str) -> String {
        let (pass, update, threads) = (self.pass, self.update, self.threads);
        let parameters = self.bind(bound::PARAMETERS, View::F32x4, true);
        let gradients = self.bind(bound::GRADIENTS, View::F32x4, false);
        let states = update.states.iter().any(|s| s.span == Span::Element);
        let states = if states { self.bind(bound::STATES, View::F32x4, true) } else { String::new() };
        let coordinates = small_loads(update, pass).next().is_some();
        let small = if coordinates { self.bind(bound::SMALL, View::F32, false) } else { String::new() };
        let mut body = self.scalars(table, &format!("{table}[at + 5u]"));
        body += &format!("let count = {table}[at + 3u];\n");
        body += &format!(
            "for (var n = 0u; n < {}u; n++) {{\nlet i = n * {threads}u + lid;\n",
            EACH / 4 / threads
        );
        body += "if (i * 4u >= count) { break; }\n";
        // elements beyond the parameter's last are left unchanged
        body += "let ours = (vec4<u32>(0u, 1u, 2u, 3u) + i * 4u) < vec4<u32>(count);\n";
        body += &format!("let p_at = {table}[at] + i;\nlet p = {parameters}[p_at];\n");
        let state_at = |k: usize| match k {
            0 => format!("{table}[at + 2u] + i"),
            k => format!("{table}[at + 2u] + {k}u * {table}[at + 4u] + i"),
        };
        for (i, load) in pass.loads.iter().enumerate() {
            match *load {
                Source::Gradient => body += &format!("let v{i} = {gradients}[{table}[at + 1u] + i];\n"),
                Source::State(s) if update.states[s].span == Span::Element => {
                    body += &format!("let v{i} = {states}[{}];\n", state_at(self.element_state(s)));
                }
                _ => {}
            }
        }
        for n in 0..pass.results.len() {
            body += &format!("var w{n}: vec4<f32>;\n");
        }
        for (lane, letter) in LANES.iter().enumerate() {
            body += "{\n";
            if coordinates {
                body += &format!(
                    "let element = {table}[at + 6u] + i * 4u + {lane}u;\nlet row = element / {table}[at + 8u];\n\
                     let matrix = row / {table}[at + 7u];\n\
                     let column = matrix * {table}[at + 8u] + element % {table}[at + 8u];\n"
                );
            }
            let mut word = 9;
            let arguments: Vec<String> = pass
                .loads
                .iter()
                .enumerate()
                .map(|(i, load)| match load {
                    Source::Parameter => format!("p.{letter}"),
                    Source::Scalar(_) => format!("x{i}"),
                    Source::Gradient => format!("v{i}.{letter}"),
                    Source::State(_) if load.span(update) == Span::Element => format!("v{i}.{letter}"),
                    _ => {
                        word += 1;
                        format!("{small}[{table}[at + {}u]{}]", word - 1, index(load.span(update)))
                    }
                })
                .collect();
            body += &format!("let y = computed({});\n", arguments.join(", "));
            for n in 0..pass.results.len() {
                body += &format!("w{n}.{letter} = y.y{n};\n");
            }
            body += "}\n";
        }
        for (n, (target, _)) in pass.results.iter().enumerate() {
            body += &match *target {
                Target::State(s) => format!("{states}[{}] = w{n};\n", state_at(self.element_state(s))),
                _ => format!("{parameters}[p_at] = select(p, w{n}, ours);\n"),
            };
        }
        body + "}"
    }

    /// Pieces of a mean's sum. Record: offsets of parameter, gradient and states in elements, the distance between states, the
    /// scalars, rows and columns, the first sum and the number of sums, the first value of the piece and its end, the number of
    /// neighbouring threads with a sum each, the number of pieces per sum, this piece's number, the offset of the pieces; then
    /// the offsets of small values to read.
    fn sums(&mut self, table: &str) -> String {
        let (pass, update, threads) = (self.pass, self.update, self.threads);
        let [(Target::Mean(k), _)] = pass.results[..] else { return String::new() };
        let (from, to) = update.means[k];
        let small = self.bind(bound::SMALL, View::F32, true);
        let word = |n: usize| format!("{table}[at + {n}u]");
        let mut body = self.scalars(table, &word(4));
        body += &format!(
            "let rows = {};\nlet columns = {};\nlet width = max({}, 1u);\nlet own = lid % width;\n\
             let sum_at = {} + own;\nvar sum = 0.0f;\n",
            word(5),
            word(6),
            word(11),
            word(7)
        );
        body += &format!(
            "for (var n = 0u; n < {TURNS}u; n++) {{\nlet k = {} + lid / width + n * ({threads}u / width);\n\
             if (own >= {} || k >= {}) {{ break; }}\n",
            word(9),
            word(8),
            word(10)
        );
        body += walked(from, to);
        let mut next = 15;
        let mut arguments = vec![];
        for (i, load) in pass.loads.iter().enumerate() {
            arguments.push(match *load {
                Source::Scalar(_) => format!("x{i}"),
                Source::Parameter => {
                    format!("{}[{} + element]", self.bind(bound::PARAMETERS, View::F32, false), word(0))
                }
                Source::Gradient => {
                    format!("{}[{} + element]", self.bind(bound::GRADIENTS, View::F32, false), word(1))
                }
                Source::State(s) if update.states[s].span == Span::Element => format!(
                    "{}[{} + {}u * {} + element]",
                    self.bind(bound::STATES, View::F32, false),
                    word(2),
                    self.element_state(s),
                    word(3)
                ),
                _ => {
                    next += 1;
                    format!("{small}[{}{}]", word(next - 1), index(load.span(update)))
                }
            });
        }
        body += &format!("sum += computed({}).y0;\n}}\n", arguments.join(", "));
        self.text.share("sums", "f32", threads);
        body += "sums[lid] = sum;\nworkgroupBarrier();\n";
        let mut half = threads / 2;
        while half > 0 {
            body += &format!(
                "if (lid < {half}u && width <= {half}u) {{ sums[lid] += sums[lid + {half}u]; }}\nworkgroupBarrier();\n"
            );
            half /= 2;
        }
        body + &format!(
            "if (lid < {}) {{ {small}[{} + sum_at * {} + {}] = sums[lid]; }}",
            word(8),
            word(14),
            word(12),
            word(13)
        )
    }

    /// Values with fewer than one per element. Record: the first one and their number, the scalars, rows and columns; for each
    /// small value to read its offset, and for a mean also its pieces and the number of values in it; the offsets of results.
    fn smalls(&mut self, table: &str) -> String {
        let (pass, update) = (self.pass, self.update);
        let small = self.bind(bound::SMALL, View::F32, true);
        let word = |n: usize| format!("{table}[at + {n}u]");
        let mut body = format!("if (lid >= {}) {{ return; }}\nlet place = {} + lid;\n", word(1), word(0));
        body += &format!("let rows = {};\nlet columns = {};\n", word(3), word(4));
        body += match pass.over {
            Span::Row => "let row = place;\nlet matrix = row / rows;\n",
            Span::Column => "let column = place;\nlet matrix = column / columns;\n",
            _ => "let matrix = place;\n",
        };
        body += &self.scalars(table, &word(2));
        let mut next = 5;
        for (i, load) in pass.loads.iter().enumerate() {
            match *load {
                Source::Mean(_) => {
                    let pieces = word(next + 1);
                    body += &format!(
                        "var m{i} = 0.0f;\nfor (var k = 0u; k < {PIECES}u; k++) {{\nif (k >= {pieces}) {{ break; }}\n\
                         m{i} += {small}[{} + place * {pieces} + k];\n}}\nlet x{i} = m{i} / f32({});\n",
                        word(next),
                        word(next + 2)
                    );
                    next += 3;
                }
                Source::Scalar(_) => {}
                _ => {
                    body += &format!("let x{i} = {small}[{}{}];\n", word(next), index(load.span(update)));
                    next += 1;
                }
            }
        }
        let arguments: Vec<String> = (0..pass.loads.len()).map(|i| format!("x{i}")).collect();
        body += &format!("let y = computed({});\n", arguments.join(", "));
        for n in 0..pass.results.len() {
            body += &format!("{small}[{} + place] = y.y{n};\n", word(next + n));
        }
        body
    }
}

/// The offset of a small value for the element at a position.
fn index(span: Span) -> &'static str {
    match span {
        Span::Element => " + element",
        Span::Row => " + row",
        Span::Column => " + column",
        Span::Matrix => " + matrix",
        Span::Whole => "",
    }
}

/// Lines that compute the position of the `k`-th value of the sum `sum_at`: of values of `from`, if each of `to` is a sum.
fn walked(from: Span, to: Span) -> &'static str {
    match (from, to) {
        (Span::Element, Span::Row) => {
            "let row = sum_at;\nlet matrix = row / rows;\nlet element = row * columns + k;\n\
             let column = matrix * columns + k;\n"
        }
        (Span::Element, Span::Column) => {
            "let column = sum_at;\nlet matrix = column / columns;\nlet row = matrix * rows + k;\n\
             let element = row * columns + column % columns;\n"
        }
        (Span::Element, _) => {
            "let element = k;\nlet row = k / columns;\nlet matrix = row / rows;\n\
             let column = matrix * columns + k % columns;\n"
        }
        (Span::Row, Span::Matrix) => "let matrix = sum_at;\nlet row = matrix * rows + k;\n",
        (Span::Row, _) => "let row = k;\nlet matrix = row / rows;\n",
        (Span::Column, Span::Matrix) => "let matrix = sum_at;\nlet column = matrix * columns + k;\n",
        (Span::Column, _) => "let column = k;\nlet matrix = column / columns;\n",
        _ => "let matrix = k;\n",
    }
}
