//! A kernel's text under construction: bindings, loads and stores of elements, helper functions.

use super::text::{self, Text};
use super::{concat, inline, math};
use crate::plan::{BufferId, Operand, Rowwise};
use crate::target::gpu::storage::{ElementStorage, Form, Storage};
use crate::tensor::DType;
use std::sync::Arc;

/// Something a kernel binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A piece of a plan's buffer, counted from 0.
    Buffer(BufferId, usize),
    /// Scratch of the step, by its number in the step.
    Scratch(usize),
    /// The error buffer, to which look-ups report bad indices.
    Errors,
}

/// The element type with which a binding is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// f32
    F32,
    /// Four f32.
    F32x4,
    /// u32
    U32,
    /// Two u32: four packed 16-bit elements.
    U32x2,
    /// i32
    I32,
    /// f16
    F16,
    /// Four f16.
    F16x4,
    /// Atomic u32.
    Atomic,
}

impl View {
    pub(super) fn text(self) -> &'static str {
        match self {
            View::F32 => "f32",
            View::F32x4 => "vec4<f32>",
            View::U32 => "u32",
            View::U32x2 => "vec2<u32>",
            View::I32 => "i32",
            View::F16 => "f16",
            View::F16x4 => "vec4<f16>",
            View::Atomic => "atomic<u32>",
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            View::F16 => 2,
            View::F32 | View::U32 | View::I32 | View::Atomic => 4,
            View::U32x2 | View::F16x4 => 8,
            View::F32x4 => 16,
        }
    }
}

/// A binding of a finished kernel; its variable is `b` followed by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// What is bound.
    pub slot: Slot,
    /// Its element type.
    pub view: View,
    /// Whether the kernel writes it.
    pub written: bool,
}

/// A kernel: one dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// WGSL with an entry point `main`; equal steps share it.
    pub text: Arc<str>,
    /// Its bindings, in order.
    pub bindings: Vec<Binding>,
    /// Workgroups.
    pub groups: [u32; 3],
    /// Threads of a workgroup.
    pub threads: usize,
    /// Bytes of workgroup memory.
    pub shared: usize,
    /// Byte offset of the entry point in the text.
    pub entry: usize,
    /// Byte offset of its statements.
    pub body: usize,
    /// Places in the text where look-ups name a word of the error buffer, in order.
    pub reports: Vec<Report>,
}

/// A place in a kernel's text that names a word of the error buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Byte offset of its digits.
    pub at: usize,
    /// Number of digits.
    pub digits: usize,
    /// The word.
    pub word: usize,
}

/// Delimits a report's word in the text until the kernel is finished.
const MARK: char = '\u{1}';

impl Kernel {
    /// The kernel with the words of its reports replaced: word `then[i]` for `now[i]`.
    pub fn reporting(&self, now: &[usize], then: &[usize]) -> Kernel {
        let mut all = String::with_capacity(self.text.len() + 8);
        let (mut from, mut reports) = (0, Vec::with_capacity(self.reports.len()));
        let (mut entry, mut body) = (self.entry, self.body);
        for &Report { at, digits, word } in &self.reports {
            let other = now.iter().position(|n| *n == word).and_then(|i| then.get(i));
            let word = other.copied().unwrap_or(word);
            all += &self.text[from..at];
            let written = word.to_string();
            reports.push(Report { at: all.len(), digits: written.len(), word });
            all += &written;
            from = at + digits;
            for place in [&mut entry, &mut body].into_iter().filter(|place| **place > at) {
                *place = *place + written.len() - digits;
            }
        }
        all += &self.text[from..];
        Kernel { text: all.into(), reports, entry, body, ..self.clone() }
    }
}

/// A kernel under construction.
pub struct Source<'a> {
    /// How the plan's buffers are stored.
    pub storage: &'a Storage,
    enables: Vec<&'static str>,
    bindings: Vec<Binding>,
    helpers: Vec<&'static str>,
    functions: Vec<String>,
    /// Values that the kernel recomputes, by number.
    inlined: Vec<usize>,
    /// Bytes of workgroup memory.
    shared: usize,
    /// Whether some look-up reports.
    reports: bool,
}

impl<'a> Source<'a> {
    /// An empty kernel over those buffers.
    pub fn new(storage: &'a Storage) -> Self {
        Source {
            storage,
            enables: vec![],
            bindings: vec![],
            helpers: vec![],
            functions: vec![],
            inlined: vec![],
            shared: 0,
            reports: false,
        }
    }

    /// Adds a helper of [`math`], and those it calls, to the kernel.
    pub fn helper(&mut self, name: &'static str) {
        if self.helpers.contains(&name) {
            return;
        }
        if let Some(h) = math::helper(name) {
            h.calls.iter().for_each(|c| self.helper(c));
            self.helpers.push(h.name);
        }
    }

    /// Enables a WGSL extension.
    pub fn enable(&mut self, name: &'static str) {
        if !self.enables.contains(&name) {
            self.enables.push(name);
        }
    }

    /// Adds a function or module-scope variable.
    pub fn function(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.functions.contains(&text) {
            self.functions.push(text);
        }
    }

    /// Declares an array in workgroup memory.
    pub fn share(&mut self, name: &str, ty: &str, count: usize) {
        self.shared_variable(text::shared(name, ty, Some(count)));
    }

    /// Declares a single value in workgroup memory.
    pub fn share_one(&mut self, name: &str, ty: &str) {
        self.shared_variable(text::shared(name, ty, None));
    }

    fn shared_variable(&mut self, (line, bytes): (String, usize)) {
        if !self.functions.contains(&line) {
            self.functions.push(line);
            self.shared += bytes;
        }
    }

    /// The number of an error word as text; it may be replaced if the kernel is reused.
    pub fn report(&mut self, word: usize) -> String {
        self.reports = true;
        format!("{MARK}{word}{MARK}")
    }

    /// Adds a binding; returns the variable's name.
    pub fn bind(&mut self, slot: Slot, view: View, written: bool) -> String {
        if matches!(view, View::F16 | View::F16x4) {
            self.enable("f16");
        }
        let same = |b: &Binding| b.slot == slot && b.view == view;
        let at = self.bindings.iter().position(same).unwrap_or_else(|| {
            self.bindings.push(Binding { slot, view, written });
            self.bindings.len() - 1
        });
        self.bindings[at].written |= written;
        format!("b{at}")
    }

    /// The scalar element type to access a vector view by, if each buffer is bound only once.
    fn single(&self, view: View) -> Option<View> {
        match view {
            _ if !self.storage.single_view => None,
            View::F32x4 => Some(View::F32),
            View::F16x4 => Some(View::F16),
            View::U32x2 => Some(View::U32),
            _ => None,
        }
    }

    /// The element of a binding at an index in elements of the view: an expression.
    pub fn at(&mut self, slot: Slot, view: View, index: &str) -> String {
        let Some(single) = self.single(view) else {
            return format!("{}[{index}]", self.bind(slot, view, false));
        };
        let (name, of, lanes) = (self.bind(slot, single, false), view.text(), view.bytes() / single.bytes());
        let parts: Vec<String> = (0..lanes).map(|n| format!("{name}[i * {lanes}u + {n}u]")).collect();
        self.function(format!("fn {name}_wide(i: u32) -> {of} {{ return {of}({}); }}", parts.join(", ")));
        format!("{name}_wide({index})")
    }

    /// A statement that stores to a binding, at an index in elements of the view.
    fn put(&mut self, slot: Slot, view: View, index: &str, value: &str) -> String {
        let Some(single) = self.single(view) else {
            return format!("{}[{index}] = {value};", self.bind(slot, view, true));
        };
        let (name, of, lanes) = (self.bind(slot, single, true), view.text(), view.bytes() / single.bytes());
        let parts: String = (0..lanes).map(|n| format!("{name}[i * {lanes}u + {n}u] = v[{n}];\n")).collect();
        self.function(format!("fn {name}_put(i: u32, v: {of}) {{\n{parts}}}"));
        format!("{name}_put({index}, {value});")
    }

    /// The element of a plan's buffer at an index in elements of the view: an expression.
    pub fn element(&mut self, buffer: BufferId, view: View, index: &str) -> String {
        let storage = self.storage;
        if let Form::Concat(parts) = &storage.buffers[buffer].form {
            return concat::element(self, parts, view, index);
        }
        let pieces = self.storage.pieces(buffer);
        if pieces == 1 {
            return self.at(Slot::Buffer(buffer, 0), view, index);
        }
        let each = self.storage.binding / view.bytes();
        let mut text = String::new();
        for p in 0..pieces {
            let value = self.at(Slot::Buffer(buffer, p), view, &format!("i - {}u", p * each));
            text += &match p + 1 == pieces {
                false => format!("if (i < {}u) {{ return {value}; }}\n", (p + 1) * each),
                true => format!("return {value};\n}}"),
            };
        }
        let first = self.bind(Slot::Buffer(buffer, 0), self.single(view).unwrap_or(view), false);
        let name =
            if self.single(view).is_some() { format!("read_{first}_wide") } else { format!("read_{first}") };
        self.function(format!("fn {name}(i: u32) -> {} {{\n{text}", view.text()));
        format!("{name}({index})")
    }

    /// A statement that stores to the element of a plan's buffer at an index in elements of the view.
    pub fn assign(&mut self, buffer: BufferId, view: View, index: &str, value: &str) -> String {
        let pieces = self.storage.pieces(buffer);
        if pieces == 1 {
            return self.put(Slot::Buffer(buffer, 0), view, index, value);
        }
        let each = self.storage.binding / view.bytes();
        let mut text = String::new();
        for p in 0..pieces {
            let put = self.put(Slot::Buffer(buffer, p), view, &format!("i - {}u", p * each), "v");
            text += &match p + 1 == pieces {
                false => format!("if (i < {}u) {{ {put} return; }}\n", (p + 1) * each),
                true => format!("{put}\n}}"),
            };
        }
        let first = self.bind(Slot::Buffer(buffer, 0), self.single(view).unwrap_or(view), true);
        let name = if self.single(view).is_some() {
            format!("write_{first}_wide")
        } else {
            format!("write_{first}")
        };
        self.function(format!("fn {name}(i: u32, v: {}) {{\n{text}", view.text()));
        format!("{name}({index}, {value});")
    }

    /// Whether a buffer's elements have that representation.
    fn holds(&self, buffer: BufferId, elements: ElementStorage) -> bool {
        self.storage.buffers[buffer].holds(elements)
    }

    /// Whether a buffer has packed 16-bit floats that the device can load natively.
    fn native(&self, buffer: BufferId, dtype: DType) -> bool {
        dtype == DType::F16 && self.storage.native_f16 && !self.holds(buffer, ElementStorage::U32)
    }

    /// An operand's element at an index (a u32 variable): an expression of the dtype's kind.
    pub fn load(&mut self, o: &Operand, index: &str) -> String {
        let (b, wide) = (o.buffer, self.holds(o.buffer, ElementStorage::U32));
        match self.storage.buffers[b].form {
            Form::Decoded(from) => {
                let blocks = &self.storage.buffers[from];
                return self.block_element(from, blocks.dtype, blocks.elements, index);
            }
            Form::Computed(value) => return self.computed(value, index, 1),
            Form::Stored(_) | Form::Concat(_) => {}
        }
        if self.holds(b, ElementStorage::F16) {
            return format!("f32({})", self.element(b, View::F16, index));
        }
        match o.dtype {
            DType::F32 => self.element(b, View::F32, index),
            DType::I32 => self.element(b, View::I32, index),
            // of i64 only single words are loaded
            DType::U32 | DType::I64 => self.element(b, View::U32, index),
            DType::F16 | DType::BF16 if wide => self.element(b, View::F32, index),
            DType::F16 if self.native(b, DType::F16) => {
                format!("f32({})", self.element(b, View::F16, index))
            }
            DType::F16 | DType::BF16 => {
                let name = if o.dtype == DType::F16 { "half_at" } else { "brain_at" };
                self.helper(name);
                let word = self.element(b, View::U32, &format!("({index}) >> 1u"));
                format!("{name}({word}, {index})")
            }
            DType::U8 if wide => self.element(b, View::U32, index),
            DType::Bool if wide => format!("{} != 0u", self.element(b, View::U32, index)),
            DType::U8 | DType::Bool | DType::Q8 | DType::Q4 => {
                self.helper("byte_at");
                let word = self.element(b, View::U32, &format!("({index}) >> 2u"));
                let byte = format!("byte_at({word}, {index})");
                if o.dtype == DType::Bool { format!("{byte} != 0u") } else { byte }
            }
        }
    }

    /// Whether four neighbours of an operand can be loaded at once, from an index that is a multiple of four.
    pub fn has_four(&self, o: &Operand) -> bool {
        let computed = self.storage.computed_at(o.buffer).map(|c| &c.work);
        o.dtype.is_float() && computed.is_none_or(inline::has_four)
    }

    /// A value that is never stored, at an index: a call of the function that recomputes it.
    fn computed(&mut self, value: usize, index: &str, lanes: usize) -> String {
        let name = if lanes == 4 { "inline4_" } else { "inline_" };
        let at = self.inlined.iter().position(|&v| v == value).unwrap_or_else(|| {
            self.inlined.push(value);
            self.inlined.len() - 1
        });
        let name = format!("{name}{at}");
        let storage = self.storage;
        inline::put(self, &storage.computed[value].work, &name, lanes);
        format!("{name}({index})")
    }

    /// Recomputed values that contain reductions of their row: these rows must be reduced first.
    pub fn rows(&self) -> Vec<&'a Rowwise> {
        let all = self.inlined.iter().map(|&v| &self.storage.computed[v].work);
        all.filter(|w| !w.reductions.is_empty()).collect()
    }

    /// Four neighbours of a float operand from an index that is a multiple of four: a `vec4<f32>`.
    pub fn load4(&mut self, o: &Operand, index: &str) -> String {
        let (b, wide) = (o.buffer, self.holds(o.buffer, ElementStorage::U32));
        match self.storage.buffers[b].form {
            Form::Decoded(from) => {
                let blocks = &self.storage.buffers[from];
                return self.block_four(from, blocks.dtype, blocks.elements, index);
            }
            Form::Computed(value) => return self.computed(value, index, 4),
            Form::Stored(_) | Form::Concat(_) => {}
        }
        let quarter = format!("({index}) >> 2u");
        if self.holds(b, ElementStorage::F16) {
            return format!("vec4<f32>({})", self.element(b, View::F16x4, &quarter));
        }
        if wide || !matches!(o.dtype, DType::F16 | DType::BF16) {
            return self.element(b, View::F32x4, &quarter);
        }
        if self.native(b, o.dtype) {
            return format!("vec4<f32>({})", self.element(b, View::F16x4, &quarter));
        }
        let (one, four) = match o.dtype {
            DType::F16 => ("half_pairs", "half_four"),
            _ => ("brain_pairs", "brain_four"),
        };
        self.helper(one);
        self.function(format!("fn {four}(w: vec2<u32>) -> vec4<f32> {{ return {one}(w.x, w.y); }}"));
        format!("{four}({})", self.element(b, View::U32x2, &quarter))
    }

    /// An element of a buffer in a block format: all quants come first, then one half-precision scale for each 32 of them.
    pub fn block_element(&mut self, from: BufferId, dtype: DType, elements: usize, index: &str) -> String {
        let scale = self.block_scale(from, dtype, elements, index);
        if dtype == DType::Q4 {
            let word = self.element(from, View::U32, &format!("({index}) >> 3u"));
            return format!("(f32(({word} >> ((({index}) & 7u) * 4u)) & 15u) - 8.0f) * {scale}");
        }
        let word = self.element(from, View::U32, &format!("({index}) >> 2u"));
        format!("f32(bitcast<i32>({word} << (24u - (({index}) & 3u) * 8u)) >> 24u) * {scale}")
    }

    fn block_scale(&mut self, from: BufferId, dtype: DType, elements: usize, index: &str) -> String {
        // offset of the scales, in halves
        let first = if dtype == DType::Q4 { elements / 4 } else { elements / 2 };
        self.helper("half_at");
        let at = format!("(({index}) / 32u + {first}u)");
        let word = self.element(from, View::U32, &format!("{at} >> 1u"));
        format!("half_at({word}, {at})")
    }

    /// Four neighbours of a block, from an index that is a multiple of four.
    fn block_four(&mut self, from: BufferId, dtype: DType, elements: usize, index: &str) -> String {
        let scale = self.block_scale(from, dtype, elements, index);
        if dtype == DType::Q4 {
            let word = self.element(from, View::U32, &format!("({index}) >> 3u"));
            self.function(
                "fn nibbles(w: u32) -> vec4<f32> {\n\
                 return vec4<f32>(vec4<u32>(w, w >> 4u, w >> 8u, w >> 12u) & vec4<u32>(15u)) - 8.0f;\n}",
            );
            return format!("nibbles({word} >> ((({index}) & 4u) * 4u)) * {scale}");
        }
        let word = self.element(from, View::U32, &format!("({index}) >> 2u"));
        self.function(
            "fn signed_bytes(w: u32) -> vec4<f32> {\n\
             return vec4<f32>(vec4<i32>(bitcast<i32>(w << 24u), bitcast<i32>(w << 16u), bitcast<i32>(w << 8u), \
             bitcast<i32>(w)) >> vec4<u32>(24u));\n}",
        );
        format!("signed_bytes({word}) * {scale}")
    }

    /// A statement that stores a value of the dtype's kind to an operand's element at an index.
    pub fn store(&mut self, o: &Operand, index: &str, value: &str) -> String {
        let b = o.buffer;
        if self.holds(b, ElementStorage::F16) {
            return self.assign(b, View::F16, index, &format!("f16({value})"));
        }
        match o.dtype {
            DType::F32 | DType::F16 | DType::BF16 => self.assign(b, View::F32, index, value),
            DType::I32 => self.assign(b, View::I32, index, value),
            DType::Bool => self.assign(b, View::U32, index, &format!("u32({value})")),
            _ => self.assign(b, View::U32, index, value),
        }
    }

    /// A statement that stores four neighbours (a `vec4<f32>`) from an index that is a multiple of four.
    pub fn store4(&mut self, o: &Operand, index: &str, value: &str) -> String {
        let quarter = format!("({index}) >> 2u");
        if self.holds(o.buffer, ElementStorage::F16) {
            return self.assign(o.buffer, View::F16x4, &quarter, &format!("vec4<f16>({value})"));
        }
        self.assign(o.buffer, View::F32x4, &quarter, value)
    }

    /// Binds scratch that kernels access by hand-written code.
    pub fn scratch(&mut self, number: usize, written: bool) -> String {
        self.bind(Slot::Scratch(number), View::F32, written)
    }

    /// Finishes the kernel: `text` contains the entry point, without the functions declared here.
    pub fn finish(self, text: &Text, groups: [u32; 3]) -> Kernel {
        let mut all = String::new();
        for e in &self.enables {
            all += &format!("enable {e};\n");
        }
        for (i, b) in self.bindings.iter().enumerate() {
            let access = if b.written || b.view == View::Atomic { "read_write" } else { "read" };
            all += &format!("var<storage, {access}> b{i}: array<{}>;\n", b.view.text());
        }
        for name in &self.helpers {
            if let Some(h) = math::helper(name) {
                all += h.text;
                all.push('\n');
            }
        }
        for f in &self.functions {
            all += f;
            all.push('\n');
        }
        let mut reports = vec![];
        if self.reports {
            all = named(&all, 0, &mut reports);
        }
        let before = all.len();
        match self.reports {
            true => all += &named(&text.all, before, &mut reports),
            false => all += &text.all,
        }
        let (threads, shared) = (text.threads, self.shared + text.shared);
        #[cfg(debug_assertions)]
        assert_eq!(text::read_off(&all), [threads, shared], "threads and shared bytes of\n{all}");
        Kernel {
            text: all.into(),
            bindings: self.bindings,
            groups,
            threads,
            shared,
            entry: before + text.entry,
            body: before + text.body,
            reports,
        }
    }
}

/// A text with the delimiters of reports removed; appends the reports' offsets, plus `before` bytes, to `reports`.
fn named(text: &str, before: usize, reports: &mut Vec<Report>) -> String {
    let mut pieces = text.split(MARK);
    let mut all = pieces.next().unwrap_or_default().to_string();
    while let (Some(number), Some(rest)) = (pieces.next(), pieces.next()) {
        let word = number.parse().unwrap_or_default();
        reports.push(Report { at: before + all.len(), digits: number.len(), word });
        all += number;
        all += rest;
    }
    all
}
