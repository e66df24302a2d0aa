//! The maximum loop iterations of one invocation, derived from a kernel's naga module: for every loop a bound is proven from
//! its condition and its leading guards, by interval analysis. A loop without a bound is an error, and so are loops that exceed
//! the target's limit in total.

use naga::{BinaryOperator as Op, Block, Expression, Handle, Literal, MathFunction, Statement};
use std::collections::HashMap;

type Expr = Handle<Expression>;
type Local = Handle<naga::LocalVariable>;

/// The most turns of all loops of an invocation of the entry point.
pub fn turns(module: &naga::Module) -> Result<u64, String> {
    let entry = &module.entry_points[0];
    let threads = entry.workgroup_size.iter().map(|n| u64::from(*n)).product();
    Function { module, f: &entry.function, threads, known: HashMap::new() }.block(&entry.function.body)
}

/// From, to.
type Interval = (u64, u64);
const ANY: Interval = (0, u32::MAX as u64);

struct Function<'a> {
    module: &'a naga::Module,
    f: &'a naga::Function,
    threads: u64,
    /// What local variables were last set to, on the way here; the values of loops' counters.
    known: HashMap<Local, Known>,
}

#[derive(Clone, Copy)]
enum Known {
    Value(Expr),
    Within(Interval),
    Nothing,
}

impl Function<'_> {
    fn block(&mut self, block: &Block) -> Result<u64, String> {
        let mut total = 0u64;
        for s in block.iter() {
            total = total.saturating_add(match s {
                Statement::Block(inner) => self.block(inner)?,
                Statement::If { accept, reject, .. } => {
                    let most = self.block(accept)?.max(self.block(reject)?);
                    self.forget(accept);
                    self.forget(reject);
                    most
                }
                Statement::Switch { cases, .. } => {
                    let mut most = 0;
                    for case in cases {
                        most = most.max(self.block(&case.body)?);
                        self.forget(&case.body);
                    }
                    most
                }
                Statement::Loop { body, continuing, break_if: None } => self.turning(body, continuing)?,
                Statement::Loop { .. } => return Err("a loop that ends by break if".into()),
                Statement::Call { function, .. } => {
                    let f = &self.module.functions[*function];
                    let mut called =
                        Function { module: self.module, f, threads: self.threads, known: HashMap::new() };
                    called.block(&f.body)?
                }
                Statement::Store { pointer, value } => {
                    if let Expression::LocalVariable(v) = self.f.expressions[*pointer] {
                        self.known.insert(v, Known::Value(*value));
                    }
                    0
                }
                _ => 0,
            });
        }
        Ok(total)
    }

    /// What is set in a block may be set or not after it.
    fn forget(&mut self, block: &Block) {
        stores(self.f, block, &mut |v, _| {
            self.known.insert(v, Known::Nothing);
        });
    }

    fn turning(&mut self, body: &Block, continuing: &Block) -> Result<u64, String> {
        let mut counters = vec![];
        stores(self.f, continuing, &mut |v, value| counters.push((v, value)));
        let starts = self.known.clone();
        self.forget(body);
        let mut best: Option<u64> = None;
        for &(v, value) in &counters {
            let mut others = 0;
            stores(self.f, body, &mut |other, _| others += usize::from(other == v));
            let Some(step) = self.step(v, value).filter(|s| *s > 0 && others == 0) else { continue };
            let start = starts.get(&v).copied().unwrap_or(match self.f.local_variables[v].init {
                Some(init) => Known::Value(init),
                None => Known::Nothing,
            });
            let mut guards = vec![];
            self.guards(body, &mut guards);
            for (op, left, right) in guards {
                let extra = match op {
                    Op::Less => 0,
                    Op::LessEqual => 1,
                    _ => continue,
                };
                let Some(shift) = self.counts(left, v) else { continue };
                let span = self.span(right, start).saturating_add(extra).saturating_sub(shift);
                best = Some(best.map_or(u64::MAX, |b| b).min(span.div_ceil(step)));
                let from = self.start(start).0;
                self.known.insert(v, Known::Within((from, from.max(self.of(right).1))));
            }
        }
        let Some(bound) = best.filter(|b| *b < u64::from(u32::MAX) / 2) else {
            return Err(format!("a loop without a bound: {:?} {best:?}", names(self.f, &counters)));
        };
        let inner = self.block(body)?.saturating_add(self.block(continuing)?);
        for (v, _) in counters {
            self.known.insert(v, Known::Nothing);
        }
        self.forget(body);
        Ok(bound.saturating_mul(inner.saturating_add(1)))
    }

    /// By how much a counter grows at least.
    fn step(&self, v: Local, value: Expr) -> Option<u64> {
        let Expression::Binary { op: Op::Add, left, right } = self.f.expressions[value] else { return None };
        self.is_load(left, v).then(|| self.of(right).0)
    }

    fn is_load(&self, e: Expr, v: Local) -> bool {
        let Expression::Load { pointer } = self.f.expressions[e] else { return false };
        matches!(self.f.expressions[pointer], Expression::LocalVariable(of) if of == v)
    }

    /// What is added to the counter, at least, if an expression is a sum with it.
    fn counts(&self, e: Expr, v: Local) -> Option<u64> {
        if self.is_load(e, v) {
            return Some(0);
        }
        let Expression::Binary { op: Op::Add, left, right } = self.f.expressions[e] else { return None };
        match (self.counts(left, v), self.counts(right, v)) {
            (Some(a), None) => Some(a + self.of(right).0),
            (None, Some(a)) => Some(a + self.of(left).0),
            _ => None,
        }
    }

    /// The comparisons under which a loop goes on that every turn begins with, as "less" or "at most".
    fn guards(&self, body: &Block, into: &mut Vec<(Op, Expr, Expr)>) -> bool {
        for s in body.iter() {
            match s {
                Statement::Block(inner) if !self.guards(inner, into) => return false,
                Statement::If { condition, accept, reject } => {
                    let ends = |b: &Block| matches!(b.last(), Some(Statement::Break));
                    if ends(reject) {
                        self.compared(*condition, true, into);
                    } else if ends(accept) {
                        self.compared(*condition, false, into);
                    } else if continues(accept) || continues(reject) {
                        return false;
                    }
                }
                Statement::Continue => return false,
                _ => {}
            }
        }
        true
    }

    fn compared(&self, e: Expr, holds: bool, into: &mut Vec<(Op, Expr, Expr)>) {
        let Expression::Binary { op, left, right } = self.f.expressions[e] else { return };
        match (op, holds) {
            (Op::Less | Op::LessEqual, true) => into.push((op, left, right)),
            (Op::GreaterEqual, false) => into.push((Op::Less, left, right)),
            (Op::Greater, false) => into.push((Op::LessEqual, left, right)),
            (Op::LogicalAnd, true) | (Op::LogicalOr, false) => {
                self.compared(left, holds, into);
                self.compared(right, holds, into);
            }
            _ => {}
        }
    }

    fn start(&self, start: Known) -> Interval {
        match start {
            Known::Value(e) => self.of(e),
            Known::Within(i) => i,
            Known::Nothing => ANY,
        }
    }

    /// How far an end can lie beyond a start.
    fn span(&self, end: Expr, start: Known) -> u64 {
        let from = self.start(start).0;
        let plain = self.of(end).1.saturating_sub(from);
        let Known::Value(begin) = start else { return plain };
        let more = match self.f.expressions[end] {
            Expression::Math { fun: MathFunction::Min, arg, arg1: Some(other), .. } => {
                self.span(arg, start).min(self.span(other, start))
            }
            // both are of the same sum
            Expression::Binary { op: Op::Add, left, right } => {
                let common = |e: Expr| {
                    e == begin
                        || matches!(self.f.expressions[begin], Expression::Binary { op: Op::Add, left, right }
                            if left == e || right == e)
                };
                if common(left) {
                    self.of(right).1
                } else if common(right) {
                    self.of(left).1
                } else {
                    u64::MAX
                }
            }
            _ => u64::MAX,
        };
        plain.min(more)
    }

    /// What a number can be; numbers of 32 bits without a sign, or that have one and are not negative.
    fn of(&self, e: Expr) -> Interval {
        self.in_arena(e, &self.f.expressions)
    }

    fn in_arena(&self, e: Expr, arena: &naga::Arena<Expression>) -> Interval {
        let of = |e: Expr| self.in_arena(e, arena);
        let within = |i: Interval| if i.1 <= ANY.1 { i } else { ANY };
        match arena[e] {
            Expression::Literal(Literal::U32(n)) => (n.into(), n.into()),
            Expression::Literal(Literal::I32(n)) if n >= 0 => (n as u64, n as u64),
            Expression::Literal(Literal::AbstractInt(n)) if n >= 0 => (n as u64, n as u64),
            Expression::ZeroValue(_) => (0, 0),
            Expression::Constant(c) => {
                self.in_arena(self.module.constants[c].init, &self.module.global_expressions)
            }
            Expression::Load { pointer } => match self.f.expressions[pointer] {
                Expression::LocalVariable(v) => match self.known.get(&v) {
                    Some(Known::Within(i)) => *i,
                    _ => ANY,
                },
                _ => ANY,
            },
            Expression::FunctionArgument(i) => match self.f.arguments[i as usize].binding {
                Some(naga::Binding::BuiltIn(naga::BuiltIn::LocalInvocationIndex)) => (0, self.threads - 1),
                _ => ANY,
            },
            Expression::AccessIndex { base, index } => match arena[base] {
                Expression::FunctionArgument(i) => match self.f.arguments[i as usize].binding {
                    // grids have two dimensions
                    Some(naga::Binding::BuiltIn(naga::BuiltIn::WorkGroupId)) if index == 2 => (0, 0),
                    Some(naga::Binding::BuiltIn(naga::BuiltIn::WorkGroupId)) => (0, 65_534),
                    _ => ANY,
                },
                _ => ANY,
            },
            Expression::Select { accept, reject, .. } => {
                let (a, b) = (of(accept), of(reject));
                (a.0.min(b.0), a.1.max(b.1))
            }
            Expression::Math { fun, arg, arg1: Some(other), .. } => {
                let (a, b) = (of(arg), of(other));
                match fun {
                    MathFunction::Min => (a.0.min(b.0), a.1.min(b.1)),
                    MathFunction::Max => (a.0.max(b.0), a.1.max(b.1)),
                    _ => ANY,
                }
            }
            Expression::Binary { op, left, right } => {
                let (a, b) = (of(left), of(right));
                match op {
                    Op::Add => within((a.0 + b.0, a.1.saturating_add(b.1))),
                    Op::Multiply => within((a.0.saturating_mul(b.0), a.1.saturating_mul(b.1))),
                    Op::Subtract if a.0 >= b.1 => (a.0 - b.1, a.1 - b.0),
                    // max(x, y) − y
                    Op::Subtract => match arena[left] {
                        Expression::Math { fun: MathFunction::Max, arg, arg1: Some(other), .. }
                            if arg == right || other == right =>
                        {
                            let rest = if arg == right { other } else { arg };
                            (0, of(rest).1.saturating_sub(b.0))
                        }
                        _ => ANY,
                    },
                    Op::Divide if b.0 > 0 => (a.0 / b.1, a.1 / b.0),
                    Op::Modulo if b.0 > 0 => (0, a.1.min(b.1 - 1)),
                    Op::And => (0, a.1.min(b.1)),
                    Op::ShiftRight if b.0 == b.1 && b.1 < 32 => (a.0 >> b.0, a.1 >> b.0),
                    _ => ANY,
                }
            }
            _ => ANY,
        }
    }
}

/// Every store to a local variable in a block.
fn stores(f: &naga::Function, block: &Block, each: &mut dyn FnMut(Local, Expr)) {
    for s in block.iter() {
        match s {
            Statement::Store { pointer, value } => {
                if let Expression::LocalVariable(v) = f.expressions[*pointer] {
                    each(v, *value);
                }
            }
            Statement::Block(inner) => stores(f, inner, each),
            Statement::If { accept, reject, .. } => {
                stores(f, accept, each);
                stores(f, reject, each);
            }
            Statement::Switch { cases, .. } => cases.iter().for_each(|c| stores(f, &c.body, each)),
            Statement::Loop { body, continuing, .. } => {
                stores(f, body, each);
                stores(f, continuing, each);
            }
            _ => {}
        }
    }
}

/// Whether a block goes on with the next turn of the loop around it.
fn continues(block: &Block) -> bool {
    block.iter().any(|s| match s {
        Statement::Continue => true,
        Statement::Block(inner) => continues(inner),
        Statement::If { accept, reject, .. } => continues(accept) || continues(reject),
        _ => false,
    })
}

fn names(f: &naga::Function, counters: &[(Local, Expr)]) -> Vec<String> {
    counters.iter().filter_map(|(v, _)| f.local_variables[*v].name.clone()).collect()
}

#[test]
fn bounds_are_found_where_there_are_some_and_missed_where_there_are_none() {
    let of = |body: &str| {
        let text = format!(
            "var<storage, read> b0: array<u32>;\nvar<workgroup> t: array<u32, 64>;\n\
             fn twice(n: u32) -> u32 {{ var s = 0u; for (var i = 0u; i < 2u; i++) {{ s += n; }} return s; }}\n\
             @compute @workgroup_size(64)\nfn main(@builtin(workgroup_id) wg: vec3<u32>, \
             @builtin(local_invocation_index) lid: u32) {{\nvar x = 0u;\n{body}\nt[lid] = x;\n}}"
        );
        turns(&naga::front::wgsl::parse_str(&text).map_err(|e| e.emit_to_string(&text)).unwrap())
    };
    let bounded = [
        ("for (var i = 0u; i < 10u; i++) { x += i; }", 10),
        ("for (var i = lid; i < 640u; i += 64u) { x += i; }", 10),
        ("for (var i = 0u; i <= 9u; i++) { for (var j = i; j < 5u; j++) { x += j; } }", 10 * 6),
        (
            "for (var i = 0u; i < 3u; i++) { x += 1u; }\nfor (var i = 0u; i < 4u; i++) { x += twice(i); }",
            3 + 4 * 3,
        ),
        ("let n = b0[0];\nfor (var i = 0u; i < min(n, 7u); i++) { x += i; }", 7),
        ("let n = b0[0];\nfor (var i = 0u; i < 1000u; i++) { if (i >= n % 7u) { break; } x += i; }", 6),
        (
            "let a = b0[0];\nlet end = min(a + 30u, 4000000000u);\nfor (var i = a + lid; i < end; i += 10u) { x += i; }",
            3,
        ),
        (
            "if (lid == 0u) { for (var i = 0u; i < 5u; i++) { x += i; } } else { for (var i = 0u; i < 8u; i++) { x += i; } }",
            8,
        ),
        ("for (var i = 0u; i < 65537u; i++) { if (i >= 4u + wg.z) { break; } x += i; }", 4),
        ("for (var i = 0u; i < 6u; i++) { if (b0[i] == 3u) { continue; } x += i; }", 6),
    ];
    for (body, wanted) in bounded {
        assert_eq!(of(body), Ok(wanted), "{body}");
    }
    let unbounded = [
        "loop { x += 1u; if (x > b0[0]) { break; } }",
        "for (var i = 0u; i < b0[0]; i++) { x += i; }",
        "for (var i = 0u; i < 10u; i++) { i -= 1u; }",
        "for (var i = 0u; i < 10u; i += b0[0]) { x += i; }",
        "var i = 0u;\nwhile (i < 10u) { if (b0[i] == 3u) { continue; } i++; }",
        "for (var i = 0u; i < 4294967295u; i++) { if (b0[i] == 3u) { continue; } if (i > 4u) { break; } x += i; }",
    ];
    for body in unbounded {
        assert!(of(body).is_err(), "{body}: {:?}", of(body));
    }
}
