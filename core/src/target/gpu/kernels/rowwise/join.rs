//! Reductions over the threads of a row: by halving in shared memory, or by exchange inside subgroups. Also used for a row that
//! another kernel needs reduced before it starts.

use super::super::fold;
use super::{Part, Rows};
use crate::expr::Kind;
use crate::plan::Rowwise;
use crate::profile::Limits;
use crate::target::gpu::wgsl::source::Source;

impl Rows<'_> {
    /// Reduces the threads' parts; every thread of the row then has the result in `red{r}`.
    pub(super) fn join(&self, pass: &[usize], source: &mut Source<'_>, body: &mut String) {
        let (threads, tag) = (self.threads, self.tag);
        let step = if self.across { self.group } else { 1 };
        let places = pass.iter().any(|&r| fold::is_place(self.w.reductions[r].0));
        if self.subgroup > 1 && self.parts > 1 && !places {
            return self.exchange(pass, source, body);
        }
        for &r in pass {
            let (f, kind) = (self.w.reductions[r].0, self.kind(r));
            if self.parts == 1 {
                let result = if fold::is_place(f) { format!("i32(pos{r})") } else { format!("acc{r}") };
                *body += &format!("let red{r} = {result};\n");
                if self.staged && fold::is_place(f) {
                    *body += &format!("let best{r} = acc{r};\n");
                }
                continue;
            }
            source.share(&format!("s{r}{tag}"), shared_type(kind), threads);
            let put = if kind == Kind::B { format!("u32(acc{r})") } else { format!("acc{r}") };
            *body += &format!("s{r}{tag}[lid] = {put};\n");
            if fold::is_place(f) {
                source.share(&format!("p{r}{tag}"), "u32", threads);
                *body += &format!("p{r}{tag}[lid] = pos{r};\n");
            }
        }
        if self.parts == 1 {
            return;
        }
        *body += "workgroupBarrier();\n";
        let mut half = self.parts / 2;
        while half > 0 {
            *body += &format!("if (part < {half}u) {{\n");
            for &r in pass {
                let (f, kind) = (self.w.reductions[r].0, self.kind(r));
                let other = half * step;
                if fold::is_place(f) {
                    let better = fold::better(source, f, kind);
                    *body += &format!(
                        "if ({better}(s{r}{tag}[lid], p{r}{tag}[lid], s{r}{tag}[lid + {other}u], p{r}{tag}[lid + {other}u])) \
                         {{ s{r}{tag}[lid] = s{r}{tag}[lid + {other}u]; p{r}{tag}[lid] = p{r}{tag}[lid + {other}u]; }}\n"
                    );
                    continue;
                }
                let read = |i: &str| match kind {
                    Kind::B => format!("(s{r}{tag}[{i}] != 0u)"),
                    _ => format!("s{r}{tag}[{i}]"),
                };
                let (a, b) = (read("lid"), read(&format!("lid + {other}u")));
                let joined = fold::join(source, f, kind, &a, &b);
                let joined = if kind == Kind::B { format!("u32({joined})") } else { joined };
                *body += &format!("s{r}{tag}[lid] = {joined};\n");
            }
            *body += "}\nworkgroupBarrier();\n";
            half /= 2;
        }
        for &r in pass {
            let (f, kind) = (self.w.reductions[r].0, self.kind(r));
            let first = if self.group == 1 { "0u".to_string() } else { format!("lid - part * {step}u") };
            let result = match kind {
                _ if fold::is_place(f) => format!("i32(p{r}{tag}[{first}])"),
                Kind::B => format!("s{r}{tag}[{first}] != 0u"),
                _ => format!("s{r}{tag}[{first}]"),
            };
            *body += &format!("let red{r} = {result};\n");
            if self.staged && fold::is_place(f) {
                *body += &format!("let best{r} = s{r}{tag}[{first}];\n");
            }
        }
    }

    /// As `join`, by exchange inside subgroups; the results of several subgroups of a row are combined in shared memory.
    fn exchange(&self, pass: &[usize], source: &mut Source<'_>, body: &mut String) {
        let (width, tag) = (self.parts.min(self.subgroup), self.tag);
        let groups = self.parts / width;
        for &r in pass {
            let (f, kind) = (self.w.reductions[r].0, self.kind(r));
            let shared = |v: &str| if kind == Kind::B { format!("u32({v})") } else { v.to_string() };
            let mut step = width / 2;
            while step > 0 {
                let other = format!("subgroupShuffleXor({}, {step}u)", shared(&format!("acc{r}")));
                let other = if kind == Kind::B { format!("({other} != 0u)") } else { other };
                *body += &format!("acc{r} = {};\n", fold::join(source, f, kind, &format!("acc{r}"), &other));
                step /= 2;
            }
            if groups > 1 {
                let count = self.threads / width;
                source.share(&format!("s{r}{tag}"), shared_type(kind), count);
                *body += &format!(
                    "if (lid % {width}u == 0u) {{ s{r}{tag}[lid / {width}u] = {}; }}\n",
                    shared(&format!("acc{r}"))
                );
            }
        }
        if groups > 1 {
            *body += "workgroupBarrier();\n";
        }
        for &r in pass {
            let (f, kind) = (self.w.reductions[r].0, self.kind(r));
            if groups == 1 {
                *body += &format!("let red{r} = acc{r};\n");
                continue;
            }
            let first =
                if self.group == 1 { "0u".into() } else { format!("lid / {}u * {groups}u", self.parts) };
            let read = |n: usize| match kind {
                Kind::B => format!("(s{r}{tag}[{first} + {n}u] != 0u)"),
                _ => format!("s{r}{tag}[{first} + {n}u]"),
            };
            *body += &format!("var all{r} = {};\n", read(0));
            for n in 1..groups {
                *body +=
                    &format!("all{r} = {};\n", fold::join(source, f, kind, &format!("all{r}"), &read(n)));
            }
            *body += &format!("let red{r} = all{r};\n");
        }
    }
}

/// Adds `fn prepare(lid: u32)` to a kernel with that many threads: it reduces the one row needed by a value that the kernel
/// recomputes; `red0`, `red1`, … are its results. Every thread must call it.
pub fn prepare(source: &mut Source<'_>, w: &Rowwise, threads: usize, limits: &Limits) {
    let mut rows = Rows::new(w, limits);
    // the whole workgroup shares the row; halving needs a power of two
    rows.parts = if threads.is_power_of_two() { threads } else { threads.next_power_of_two() / 2 };
    (rows.group, rows.across, rows.splits, rows.lanes, rows.threads) = (1, false, 1, 1, threads);
    rows.staged = false;
    // threads beyond the power of two do not take part
    let mut body = format!("let part = select(lid, 0xffffffffu, lid >= {}u);\n", rows.parts);
    for (i, o) in w.operands.iter().enumerate() {
        body += &format!("let a{i} = {}u;\n", o.offset as u32);
    }
    for i in 0..rows.indices.len() {
        body += &format!("let n{i} = 0u;\n");
    }
    let mut ready = vec![false; w.tape.code.len()];
    for pass in &rows.passes {
        rows.accumulate(pass, Part::Whole, &mut ready, source, &mut body);
        rows.join(pass, source, &mut body);
        for &r in pass {
            source.function(format!("var<private> red{r}: {};", type_name(rows.kind(r))));
        }
    }
    // inside the function, distinguishes results from the variables that outlive it
    let mut inner = body;
    for r in (0..w.reductions.len()).rev() {
        inner = inner.replace(&format!("let red{r} = "), &format!("red{r} = "));
    }
    source.function(format!("fn prepare(lid: u32) {{\n{inner}}}"));
}

/// The type of a register.
pub(super) fn type_name(kind: Kind) -> &'static str {
    match kind {
        Kind::F => "f32",
        Kind::I => "i32",
        Kind::U => "u32",
        Kind::B => "bool",
    }
}

/// Its type in workgroup memory.
pub(super) fn shared_type(kind: Kind) -> &'static str {
    if kind == Kind::B { "u32" } else { type_name(kind) }
}
