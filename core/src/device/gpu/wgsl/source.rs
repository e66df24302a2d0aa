//! One kernel's text while it is written: what it binds, how elements are read and written, which helpers it calls.

use super::budget::Budget;
use super::joined::{self, Joined};
use super::{inline, math};
use crate::device::gpu::limits::Limits;
use crate::plan::{Buffer, BufferId, Operand, Place, Plan, Rowwise, Work};
use crate::tensor::DType;
use std::sync::Arc;

/// How a plan's buffers lie in the device's memory.
#[derive(Debug, Clone)]
pub struct Layouts {
    /// One for each buffer of the plan.
    pub buffers: Vec<Held>,
    /// Bytes that one binding may cover; longer buffers are split.
    pub limit: usize,
    /// Kernels may read 16-bit floats from memory as such.
    pub native16: bool,
    /// Values that are computed where they are used.
    pub values: Vec<Rowwise>,
    /// Numbers of parameters that lie one after the other in memory.
    pub together: Vec<Vec<usize>>,
    /// Each buffer is bound once, as single elements: for kernels that else bind more than their device allows.
    pub one_view: bool,
}

/// A buffer in the device's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// Element type.
    pub dtype: DType,
    /// Number of elements.
    pub elements: usize,
    /// Elements of 8 and 16 bits take 32 each: those that kernels write.
    pub wide: bool,
    /// Elements that kernels write as f16: f32 that only products and attention read, which round them so anyway, and
    /// f16 that is computed once.
    pub half: bool,
    /// Never stored: the elements of this buffer in a block format, widened where they are used.
    pub blocks: Option<BufferId>,
    /// Never stored: computed where it is used, by that one of the layouts' values.
    pub inline: Option<usize>,
    /// Never stored: found where it is used, in its parts.
    pub joined: Option<Joined>,
}

impl Held {
    /// Bytes of its elements as they lie there.
    pub fn stored(&self) -> usize {
        match (self.wide, self.half) {
            (true, _) => self.elements * 4,
            (_, true) => self.elements * 2,
            _ => self.dtype.bytes(self.elements).unwrap_or(0),
        }
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.stored().max(1).next_multiple_of(16)
    }
}

/// Whether elements of a dtype are narrower than what a kernel can write by itself.
pub fn is_narrow(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::U8 | DType::Bool)
}

impl Layouts {
    /// The layouts of a plan's buffers: narrow elements that a step writes are held wide.
    /// With `halves`, what only products and attention read is held as f16.
    pub fn new(plan: &Plan, limits: &Limits, halves: bool) -> Layouts {
        let (limit, native16) = (limits.binding, limits.f16);
        let mut buffers: Vec<Held> = plan
            .buffers
            .iter()
            .map(|b| Held {
                dtype: b.dtype,
                elements: b.elements,
                wide: false,
                half: false,
                blocks: None,
                inline: None,
                joined: None,
            })
            .collect();
        for step in plan.once.iter().chain(&plan.steps) {
            step.work.for_each_operand(|o, written| {
                // words of narrow elements are written as they are
                if written && is_narrow(o.dtype) {
                    buffers[o.buffer].wide = true;
                }
            });
        }
        // weights made at init stay as narrow as the device can write them
        for step in plan.once.iter().filter(|_| native16) {
            step.work.for_each_operand(|o, written| {
                let held = &mut buffers[o.buffer];
                if written && held.wide && o.dtype == DType::F16 {
                    (held.wide, held.half) = (false, true);
                }
            });
        }
        for step in &plan.steps {
            if let Work::Dequantise(from, to) = &step.work {
                let inner = matches!(plan.buffers[to.buffer].place, Place::Arena(_));
                if inner && from.offset == 0 && to.offset == 0 {
                    buffers[to.buffer].blocks = Some(from.buffer);
                }
            }
        }
        let mut budget = Budget::new(plan, limit, limits.bindings);
        for (b, joined) in joined::choose(plan, &mut budget) {
            buffers[b].joined = Some(joined);
        }
        let together = joined::runs(plan, &mut buffers, limit);
        let mut values = vec![];
        for (b, w) in inline::choose(plan, &mut budget) {
            buffers[b].inline = Some(values.len());
            values.push(w);
        }
        if halves && native16 {
            for (held, rounded) in buffers.iter_mut().zip(rounded(plan)) {
                held.half |=
                    held.blocks.is_none() && held.inline.is_none() && held.joined.is_none() && rounded;
            }
        }
        Layouts { buffers, limit, native16, values, together, one_view: false }
    }

    /// The same, where parameters lie as they happen to.
    pub fn apart(mut self) -> Layouts {
        self.together.clear();
        self.buffers.iter_mut().filter_map(|b| b.joined.as_mut()).for_each(|j| j.run = false);
        self
    }

    /// How many pieces a buffer is bound in.
    pub fn pieces(&self, buffer: BufferId) -> usize {
        self.buffers[buffer].bytes().div_ceil(self.limit)
    }
}

/// Buffers of the arena that products and attention read, and nothing else.
fn rounded(plan: &Plan) -> Vec<bool> {
    let (mut read, mut otherwise) = (vec![false; plan.buffers.len()], vec![plan.unfused; plan.buffers.len()]);
    plan.gradients.iter().for_each(|g| otherwise[g.buffer] = true);
    for step in &plan.steps {
        step.work.for_each_operand(|o, written| read[o.buffer] |= !written);
        let mut mark = |o: &Operand| otherwise[o.buffer] = true;
        match &step.work {
            Work::Product(p) => {
                p.epilogue.iter().flat_map(|e| &e.operands).for_each(&mut mark);
                // rows are rounded once they are normed, not before
                p.prologue.iter().flat_map(|n| n.operands.iter().chain([&p.a])).for_each(mark);
            }
            Work::Attention(a) => a.inputs.mask.iter().for_each(mark),
            Work::Rowwise(w) => w.operands.iter().for_each(mark),
            // anything else neither reads nor writes it
            work => work.for_each_operand(|o, _| mark(o)),
        }
    }
    let inner = |b: &Buffer| matches!(b.place, Place::Arena(_)) && b.dtype == DType::F32;
    plan.buffers.iter().enumerate().map(|(i, b)| inner(b) && read[i] && !otherwise[i]).collect()
}

/// Something a kernel binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    /// A piece of a plan's buffer, from 0.
    Buffer(BufferId, usize),
    /// Scratch of the step: its number among the step's.
    Scratch(usize),
    /// The words in which look-ups report bad indices.
    Errors,
}

/// How a bound buffer is seen.
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

/// A binding of a finished kernel; its variable is `b` and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding {
    /// What is bound.
    pub slot: Slot,
    /// How it is seen.
    pub view: View,
    /// Whether the kernel writes it.
    pub written: bool,
}

/// A kernel: one dispatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Kernel {
    /// WGSL with an entry point `main`; equal steps share it.
    pub text: Arc<str>,
    /// What it binds, in order.
    pub bindings: Vec<Binding>,
    /// Workgroups.
    pub groups: [u32; 3],
}

/// A kernel being written.
pub struct Source<'a> {
    /// Where the plan's buffers lie.
    pub layouts: &'a Layouts,
    enables: Vec<&'static str>,
    bindings: Vec<Binding>,
    helpers: Vec<&'static str>,
    functions: Vec<String>,
    /// Values that the kernel computes, by number.
    inlined: Vec<usize>,
}

impl<'a> Source<'a> {
    /// An empty kernel over those buffers.
    pub fn new(layouts: &'a Layouts) -> Self {
        Source {
            layouts,
            enables: vec![],
            bindings: vec![],
            helpers: vec![],
            functions: vec![],
            inlined: vec![],
        }
    }

    /// Puts a helper of [`math`] and those it calls into the kernel.
    pub fn helper(&mut self, name: &'static str) {
        if self.helpers.contains(&name) {
            return;
        }
        if let Some(h) = math::helper(name) {
            h.calls.iter().for_each(|c| self.helper(c));
            self.helpers.push(h.name);
        }
    }

    /// A WGSL extension that the kernel needs.
    pub fn enable(&mut self, name: &'static str) {
        if !self.enables.contains(&name) {
            self.enables.push(name);
        }
    }

    /// A function or module-scope variable of the kernel's own.
    pub fn function(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.functions.contains(&text) {
            self.functions.push(text);
        }
    }

    /// Binds something; gives the variable's name.
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

    /// The single elements that a view of several is read and written as, where each buffer is bound once.
    fn single(&self, view: View) -> Option<View> {
        match view {
            _ if !self.layouts.one_view => None,
            View::F32x4 => Some(View::F32),
            View::F16x4 => Some(View::F16),
            View::U32x2 => Some(View::U32),
            _ => None,
        }
    }

    /// What is bound, at an index in elements of the view: an expression.
    pub fn at(&mut self, slot: Slot, view: View, index: &str) -> String {
        let Some(single) = self.single(view) else {
            return format!("{}[{index}]", self.bind(slot, view, false));
        };
        let (name, of, lanes) = (self.bind(slot, single, false), view.text(), view.bytes() / single.bytes());
        let parts: Vec<String> = (0..lanes).map(|n| format!("{name}[i * {lanes}u + {n}u]")).collect();
        self.function(format!("fn {name}_wide(i: u32) -> {of} {{ return {of}({}); }}", parts.join(", ")));
        format!("{name}_wide({index})")
    }

    /// A statement that writes what is bound, at an index in elements of the view.
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
        let layouts = self.layouts;
        if let Some(joined) = &layouts.buffers[buffer].joined {
            return joined::element(self, joined, view, index);
        }
        let pieces = self.layouts.pieces(buffer);
        if pieces == 1 {
            return self.at(Slot::Buffer(buffer, 0), view, index);
        }
        let each = self.layouts.limit / view.bytes();
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

    /// A statement that writes the element of a plan's buffer at an index in elements of the view.
    pub fn assign(&mut self, buffer: BufferId, view: View, index: &str, value: &str) -> String {
        let pieces = self.layouts.pieces(buffer);
        if pieces == 1 {
            return self.put(Slot::Buffer(buffer, 0), view, index, value);
        }
        let each = self.layouts.limit / view.bytes();
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

    /// Whether a buffer holds packed 16-bit floats that the device can read as such.
    fn native(&self, buffer: BufferId, dtype: DType) -> bool {
        dtype == DType::F16 && self.layouts.native16 && !self.layouts.buffers[buffer].wide
    }

    /// An operand's element at an index (a u32 variable): an expression of the dtype's kind.
    pub fn load(&mut self, o: &Operand, index: &str) -> String {
        let (b, wide) = (o.buffer, self.layouts.buffers[o.buffer].wide);
        if let Some(from) = self.layouts.buffers[b].blocks {
            let held = &self.layouts.buffers[from];
            return self.block_element(from, held.dtype, held.elements, index);
        }
        if let Some(v) = self.layouts.buffers[b].inline {
            return self.computed(v, index, 1);
        }
        if self.layouts.buffers[b].half {
            return format!("f32({})", self.element(b, View::F16, index));
        }
        match o.dtype {
            DType::F32 => self.element(b, View::F32, index),
            DType::I32 => self.element(b, View::I32, index),
            // of i64 only its words are read
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

    /// Whether four neighbours of an operand can be read at once, where the index is a multiple of four.
    pub fn has_four(&self, o: &Operand) -> bool {
        let computed = self.layouts.buffers[o.buffer].inline.map(|v| &self.layouts.values[v]);
        o.dtype.is_float() && computed.is_none_or(inline::has_four)
    }

    /// A value that is never stored, at an index: a call of the function that computes it.
    fn computed(&mut self, value: usize, index: &str, lanes: usize) -> String {
        let name = if lanes == 4 { "inline4_" } else { "inline_" };
        let at = self.inlined.iter().position(|&v| v == value).unwrap_or_else(|| {
            self.inlined.push(value);
            self.inlined.len() - 1
        });
        let name = format!("{name}{at}");
        let layouts = self.layouts;
        inline::put(self, &layouts.values[value], &name, lanes);
        format!("{name}({index})")
    }

    /// Values with reductions of their row that the kernel computes: their rows must be reduced first.
    pub fn rows(&self) -> Vec<&'a Rowwise> {
        let all = self.inlined.iter().map(|&v| &self.layouts.values[v]);
        all.filter(|w| !w.reductions.is_empty()).collect()
    }

    /// Four neighbours of a float operand from an index that is a multiple of four: a `vec4<f32>`.
    pub fn load4(&mut self, o: &Operand, index: &str) -> String {
        let (b, wide) = (o.buffer, self.layouts.buffers[o.buffer].wide);
        if let Some(from) = self.layouts.buffers[b].blocks {
            let held = &self.layouts.buffers[from];
            return self.block_four(from, held.dtype, held.elements, index);
        }
        if let Some(v) = self.layouts.buffers[b].inline {
            return self.computed(v, index, 4);
        }
        let quarter = format!("({index}) >> 2u");
        if self.layouts.buffers[b].half {
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

    /// An element of a buffer in a block format: its quants come first, then a half for each 32 of them.
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
        // halves before the scales
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

    /// A statement that writes a value of the dtype's kind to an operand's element at an index.
    pub fn store(&mut self, o: &Operand, index: &str, value: &str) -> String {
        let b = o.buffer;
        if self.layouts.buffers[b].half {
            return self.assign(b, View::F16, index, &format!("f16({value})"));
        }
        match o.dtype {
            DType::F32 | DType::F16 | DType::BF16 => self.assign(b, View::F32, index, value),
            DType::I32 => self.assign(b, View::I32, index, value),
            DType::Bool => self.assign(b, View::U32, index, &format!("u32({value})")),
            _ => self.assign(b, View::U32, index, value),
        }
    }

    /// A statement that writes four neighbours (a `vec4<f32>`) from an index that is a multiple of four.
    pub fn store4(&mut self, o: &Operand, index: &str, value: &str) -> String {
        let quarter = format!("({index}) >> 2u");
        if self.layouts.buffers[o.buffer].half {
            return self.assign(o.buffer, View::F16x4, &quarter, &format!("vec4<f16>({value})"));
        }
        self.assign(o.buffer, View::F32x4, &quarter, value)
    }

    /// Names a binding that kernels write and read by hand.
    pub fn scratch(&mut self, number: usize, written: bool) -> String {
        self.bind(Slot::Scratch(number), View::F32, written)
    }

    /// The kernel: `text` holds the entry point (without the functions declared here).
    pub fn finish(self, text: &str, groups: [u32; 3]) -> Kernel {
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
        all += text;
        Kernel { text: all.into(), bindings: self.bindings, groups }
    }
}
