//! The graph's text form: one statement per line, `#` starts a comment.
//!
//! ```text
//! weft 1
//! input x: f32[4, 784]
//! param w: f32[784, 10]            # trainable; training does not change `frozen w: …`
//! const half: f32[] = [0.5]
//! state cache: f32[1, 3, 256, 64]  # carried from step to step, initially zeros
//! logits = matmul(x, w, transpose_a=false, transpose_b=false)
//! %4 = mul(logits, half)           # an unnamed value is % and a number
//! next cache = %9                  # the state's value after a step
//! output y = %4
//! loss l                           # one f32 element
//! ```
//!
//! Numbers of a constant must be values of its dtype: others (300 as u8, 1.5 as i32, 1e39 as f32) are refused. All attributes
//! are written explicitly. Statements may come in any acyclic order. Printing and parsing round-trip to the same graph.

use super::{Attr, AttrKind, Attrs, Graph, GraphData, NodeKind, Op, Value};
use crate::error::{Error, Result};
use crate::tensor::{Bytes, DType, Tensor, TensorType, element_count};
use std::collections::HashMap;
use std::fmt;

/// Integers below this bound are exact in f64: 2⁵³.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Finds an operation by name.
///
/// ```
/// use weft::graph::parse;
///
/// let graph = parse("weft 1\ninput x: f32[2]\ny = neg(x)\noutput y = y", weft::ops::find)?;
/// assert_eq!(graph.data()?.nodes.len(), 2);
/// # Ok::<(), weft::error::Error>(())
/// ```
pub type OpLookup = fn(&str) -> Option<&'static dyn Op>;

impl fmt::Display for GraphData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "weft 1")?;
        for (i, node) in self.nodes.iter().enumerate() {
            let label = self.label(Value::at(i));
            match &node.kind {
                NodeKind::Input => writeln!(f, "input {label}: {}", node.ty)?,
                NodeKind::Parameter { trainable: true } => writeln!(f, "param {label}: {}", node.ty)?,
                NodeKind::Parameter { trainable: false } => writeln!(f, "frozen {label}: {}", node.ty)?,
                NodeKind::State => writeln!(f, "state {label}: {}", node.ty)?,
                NodeKind::Constant(t) => writeln!(f, "const {label}: {} = {}", node.ty, Elements(t))?,
                NodeKind::Op(op, attrs) => {
                    let inputs = node.inputs.iter().map(|&v| self.label(v));
                    let attrs = attrs.0.iter().map(|(n, v)| format!("{n}={v}"));
                    let all: Vec<String> = inputs.chain(attrs).collect();
                    writeln!(f, "{label} = {}({})", op.name(), all.join(", "))?;
                }
            }
        }
        for (state, v) in &self.next {
            writeln!(f, "next {} = {}", self.label(*state), self.label(*v))?;
        }
        for (name, v) in &self.outputs {
            writeln!(f, "output {name} = {}", self.label(*v))?;
        }
        if let Some(v) = self.loss {
            writeln!(f, "loss {}", self.label(v))?;
        }
        Ok(())
    }
}

struct Elements<'a>(&'a Tensor<'static>);

impl fmt::Display for Elements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.dtype().is_block() {
            f.write_str("hex ")?;
            return self.0.bytes().iter().try_for_each(|b| write!(f, "{b:02x}"));
        }
        f.write_str("[")?;
        let comma = |i: usize| if i == 0 { "" } else { ", " };
        if let Some(whole) = self.0.to_whole() {
            for (i, v) in whole.into_iter().enumerate() {
                write!(f, "{}{v}", comma(i))?;
            }
            return f.write_str("]");
        }
        for (i, v) in self.0.to_f64().into_iter().enumerate() {
            match self.0.dtype() {
                DType::F32 => write!(f, "{}{:?}", comma(i), v as f32)?,
                _ => write!(f, "{}{v}", comma(i))?,
            }
        }
        f.write_str("]")
    }
}

/// Parses the text form; `lookup` finds operations by name.
///
/// # Errors
/// [`Error::Parse`] with line and column, [`Error::Cycle`], or an error of the builder.
pub fn parse(text: &str, lookup: OpLookup) -> Result<Graph> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut statements = Vec::new();
    let mut version = false;
    for (number, line) in text.lines().enumerate() {
        let mut p = Line { text: line.split('#').next().unwrap_or(""), at: 0, number: number + 1 };
        p.spaces();
        if p.rest().trim().is_empty() {
            continue;
        }
        if !version {
            p.word("weft")?;
            p.word("1")?;
            version = true;
        } else {
            statements.push((number + 1, p.statement(lookup)?));
        }
        p.spaces();
        if !p.rest().is_empty() {
            return Err(p.wanted("the end of the line"));
        }
    }
    if !version {
        return Err(Error::Parse {
            line: 1,
            column: 1,
            wanted: "\"weft 1\"".into(),
            came: "an empty text".into(),
        });
    }
    assemble(statements)
}

enum Statement {
    Leaf(String, NodeKind, TensorType),
    Apply(String, &'static dyn Op, Vec<String>, Attrs),
    Next(String, String),
    Output(String, String),
    Loss(String),
}

/// Adds the statements to a graph, each after its inputs, in the text's order where possible.
fn assemble(statements: Vec<(usize, Statement)>) -> Result<Graph> {
    let mut defined: HashMap<&str, usize> = HashMap::new();
    for (i, (line, s)) in statements.iter().enumerate() {
        if let Statement::Leaf(name, ..) | Statement::Apply(name, ..) = s
            && defined.insert(name, i).is_some()
        {
            return Err(Error::Parse {
                line: *line,
                column: 1,
                wanted: "a name not defined before".into(),
                came: format!("\"{name}\""),
            });
        }
    }
    let g = Graph::new();
    let mut values: Vec<Option<Value>> = vec![None; statements.len()];
    let mut open = vec![false; statements.len()];
    let resolve = |name: &str, line: usize| {
        defined.get(name).copied().ok_or_else(|| Error::Parse {
            line,
            column: 1,
            wanted: "the name of a value".into(),
            came: format!("\"{name}\", which is not defined"),
        })
    };
    for start in 0..statements.len() {
        let mut stack = vec![start];
        while let Some(&i) = stack.last() {
            let (line, statement) = &statements[i];
            if values[i].is_some() {
                stack.pop();
                continue;
            }
            let needs: &[String] =
                if let Statement::Apply(_, _, inputs, _) = statement { inputs } else { &[] };
            let mut waiting = None;
            for name in needs {
                let at = resolve(name, *line)?;
                if values[at].is_none() {
                    waiting = Some(at);
                    break;
                }
            }
            if let Some(at) = waiting {
                open[i] = true;
                if open[at] {
                    return Err(circle(&stack, at, &statements));
                }
                stack.push(at);
                continue;
            }
            let inputs: Vec<Value> = needs.iter().filter_map(|n| values[*defined.get(n.as_str())?]).collect();
            values[i] = Some(build(&g, statement, &inputs));
            if let Some(e) = g.error() {
                return Err(at_line(e, *line));
            }
            stack.pop();
        }
    }
    for (line, s) in &statements {
        if let Statement::Next(_, of) | Statement::Output(_, of) | Statement::Loss(of) = s {
            let value = |name: &str| Ok(values[resolve(name, *line)?].unwrap_or(Value::POISON));
            let v = value(of)?;
            match s {
                Statement::Next(state, _) => g.set_state(value(state)?, v),
                Statement::Output(name, _) => g.output(name, v),
                _ => g.set_loss(v),
            }
            if let Some(e) = g.error() {
                return Err(at_line(e, *line));
            }
        }
    }
    Ok(g)
}

fn build(g: &Graph, statement: &Statement, inputs: &[Value]) -> Value {
    let named = |v: Value, name: &str| if name.starts_with('%') { v } else { g.name(v, name) };
    match statement {
        Statement::Leaf(name, NodeKind::Input, ty) => g.input(name, ty.dtype, ty.shape.clone()),
        Statement::Leaf(name, NodeKind::Parameter { trainable }, ty) => {
            g.parameter_of(name, ty.clone(), *trainable)
        }
        Statement::Leaf(name, NodeKind::State, ty) => g.state(name, ty.dtype, ty.shape.clone()),
        Statement::Leaf(name, NodeKind::Constant(t), _) => named(g.constant(t.clone()), name),
        Statement::Leaf(..) | Statement::Next(..) | Statement::Output(..) | Statement::Loss(_) => {
            Value::at(0)
        }
        Statement::Apply(name, op, _, attrs) => named(g.apply(*op, inputs, attrs.clone()), name),
    }
}

fn at_line(e: Error, line: usize) -> Error {
    match e {
        Error::Op { op, node, wanted, came } => {
            Error::Op { op, node: format!("{node}, line {line}"), wanted, came }
        }
        other => other,
    }
}

fn circle(stack: &[usize], back_to: usize, statements: &[(usize, Statement)]) -> Error {
    let from = stack.iter().position(|&i| i == back_to).unwrap_or(0);
    let name = |i: &usize| match &statements[*i].1 {
        Statement::Apply(name, ..) | Statement::Leaf(name, ..) => name.clone(),
        Statement::Next(name, _) | Statement::Output(name, _) | Statement::Loss(name) => name.clone(),
    };
    let mut names: Vec<String> = stack[from..].iter().map(name).collect();
    names.push(name(&back_to));
    Error::Cycle { names: names.join(" → ") }
}

/// A cursor over one line.
struct Line<'a> {
    text: &'a str,
    at: usize,
    number: usize,
}

impl<'a> Line<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn wanted(&self, what: &str) -> Error {
        let came: String = self.rest().chars().take(24).collect();
        let came = if came.trim().is_empty() { "the end of the line".into() } else { format!("\"{came}\"") };
        Error::Parse {
            line: self.number,
            column: self.text[..self.at].chars().count() + 1,
            wanted: what.into(),
            came,
        }
    }

    fn take(&mut self, token: &str) -> bool {
        self.spaces();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Result<()> {
        if self.take(token) { Ok(()) } else { Err(self.wanted(&format!("\"{token}\""))) }
    }

    fn run(&mut self, fits: impl Fn(char) -> bool, what: &str) -> Result<&'a str> {
        self.spaces();
        let rest = self.rest();
        let end = rest.find(|c: char| !fits(c)).unwrap_or(rest.len());
        if end == 0 {
            return Err(self.wanted(what));
        }
        self.at += end;
        Ok(&rest[..end])
    }

    fn ident(&mut self, what: &str) -> Result<&'a str> {
        self.run(|c| c.is_alphanumeric() || "_.-/%".contains(c), what)
    }

    fn word(&mut self, word: &str) -> Result<()> {
        let start = self.at;
        if self.ident(&format!("\"{word}\""))? == word {
            return Ok(());
        }
        self.at = start;
        Err(self.wanted(&format!("\"{word}\"")))
    }

    fn statement(&mut self, lookup: OpLookup) -> Result<Statement> {
        let first = self.ident("a statement")?;
        if self.take("=") {
            return self.apply(first, lookup);
        }
        let leaf = |p: &mut Self, kind| -> Result<Statement> {
            let name = p.ident("a name")?.to_string();
            p.expect(":")?;
            Ok(Statement::Leaf(name, kind, p.ty()?))
        };
        match first {
            "input" => leaf(self, NodeKind::Input),
            "param" => leaf(self, NodeKind::Parameter { trainable: true }),
            "frozen" => leaf(self, NodeKind::Parameter { trainable: false }),
            "state" => leaf(self, NodeKind::State),
            "const" => {
                let name = self.ident("a name")?.to_string();
                self.expect(":")?;
                let ty = self.ty()?;
                self.expect("=")?;
                let tensor = self.elements(&ty)?;
                Ok(Statement::Leaf(name, NodeKind::Constant(tensor), ty))
            }
            "next" => {
                let name = self.ident("the name of a state")?.to_string();
                self.expect("=")?;
                Ok(Statement::Next(name, self.ident("the name of a value")?.to_string()))
            }
            "output" => {
                let name = self.ident("a name")?.to_string();
                self.expect("=")?;
                Ok(Statement::Output(name, self.ident("the name of a value")?.to_string()))
            }
            "loss" => Ok(Statement::Loss(self.ident("the name of a value")?.to_string())),
            _ => {
                Err(self
                    .wanted("\"=\", or a statement: input, param, frozen, const, state, next, output, loss"))
            }
        }
    }

    fn apply(&mut self, name: &str, lookup: OpLookup) -> Result<Statement> {
        self.spaces();
        let start = self.at;
        let op_name = self.ident("the name of an operation")?;
        let Some(op) = lookup(op_name) else {
            self.at = start;
            return Err(self.wanted("the name of an operation"));
        };
        self.expect("(")?;
        let (mut inputs, mut attrs) = (Vec::new(), Attrs::none());
        if !self.take(")") {
            loop {
                self.spaces();
                let start = self.at;
                let word = self.ident("a value or an attribute")?;
                if self.take("=") {
                    let Some(spec) = op.attributes().iter().find(|s| s.name == word) else {
                        self.at = start;
                        return Err(self.wanted(&format!("an attribute of {op_name}")));
                    };
                    attrs.0.push((spec.name, self.attr(spec.kind)?));
                } else {
                    inputs.push(word.to_string());
                }
                if self.take(")") {
                    break;
                }
                self.expect(",")?;
            }
        }
        let order = |n: &str| op.attributes().iter().position(|s| s.name == n);
        attrs.0.sort_by_key(|(n, _)| order(n));
        Ok(Statement::Apply(name.to_string(), op, inputs, attrs))
    }

    fn attr(&mut self, kind: AttrKind) -> Result<Attr> {
        self.spaces();
        match kind {
            AttrKind::Int => Ok(Attr::Int(self.number("a whole number")?)),
            AttrKind::Float => Ok(Attr::Float(self.float()?)),
            AttrKind::Ints => Ok(Attr::Ints(self.list("a whole number")?)),
            AttrKind::Bool if self.take("true") => Ok(Attr::Bool(true)),
            AttrKind::Bool if self.take("false") => Ok(Attr::Bool(false)),
            AttrKind::Bool => Err(self.wanted("true or false")),
            AttrKind::DType => Ok(Attr::DType(self.dtype()?)),
        }
    }

    fn dtype(&mut self) -> Result<DType> {
        self.spaces();
        let start = self.at;
        let name = self.run(|c| c.is_ascii_alphanumeric(), "a dtype")?;
        DType::from_name(name).ok_or_else(|| {
            self.at = start;
            self.wanted("a dtype (f32, f16, bf16, i32, u32, i64, u8, bool, q8, q4)")
        })
    }

    fn ty(&mut self) -> Result<TensorType> {
        let dtype = self.dtype()?;
        Ok(TensorType::new(dtype, self.list::<usize>("a size")?))
    }

    /// The next number, parsed by `read`.
    fn literal<T>(&mut self, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        self.spaces();
        let start = self.at;
        let text = self.run(|c| c.is_ascii_alphanumeric() || "+-.".contains(c), what)?;
        read(text).ok_or_else(|| {
            self.at = start;
            self.wanted(what)
        })
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        self.literal(what, |text| text.parse().ok())
    }

    /// A real attribute: the nearest f64; a number without a decimal point must be exact.
    fn float(&mut self) -> Result<f64> {
        self.literal("a number that an f64 holds", |text| {
            let v: f64 = text.parse().ok()?;
            let digits = text.trim_start_matches(['+', '-']);
            let whole = digits.bytes().all(|b| b.is_ascii_digit());
            (!whole || format!("{:.0}", v.abs()) == digits.trim_start_matches('0') || v == 0.0).then_some(v)
        })
    }

    /// The items of a list in brackets.
    fn each(&mut self, mut item: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect("[")?;
        if self.take("]") {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take("]") {
                return Ok(());
            }
            self.expect(",")?;
        }
    }

    fn list<T: std::str::FromStr>(&mut self, what: &str) -> Result<Vec<T>> {
        let mut items = Vec::new();
        self.each(|p| {
            items.push(p.number(what)?);
            Ok(())
        })?;
        Ok(items)
    }

    fn elements(&mut self, ty: &TensorType) -> Result<Tensor<'static>> {
        if ty.dtype.is_block() {
            self.word("hex")?;
            let digits = self.run(|c| c.is_ascii_hexdigit(), "hexadecimal digits")?;
            let byte = |pair: &[u8]| {
                let v = |c: u8| (c as char).to_digit(16).unwrap_or(0) as u8;
                v(pair[0]) << 4 | pair.get(1).map_or(0, |&c| v(c))
            };
            let bytes: Vec<u8> = digits.as_bytes().chunks(2).map(byte).collect();
            return Tensor::from_bytes(ty.dtype, ty.shape.clone(), Bytes::from_vec(bytes));
        }
        let (mut reals, mut whole) = (vec![], vec![]);
        let floats = ty.dtype.is_float();
        let of = |p: &mut Self| {
            match floats {
                true => reals.push(p.real(ty.dtype)?),
                false => whole.push(p.whole(ty.dtype)?),
            }
            Ok(())
        };
        self.each(of)?;
        let count = reals.len().max(whole.len());
        if element_count(&ty.shape) != Some(count) {
            return Err(self.wanted(&format!("the elements of {ty}, not {count}")));
        }
        if floats { Tensor::from_f64(ty, &reals) } else { Tensor::from_whole(ty, &whole) }
    }

    /// A number that is an exact value of an integer dtype (or bool).
    fn whole(&mut self, dtype: DType) -> Result<i64> {
        self.literal(&format!("a number that {dtype} holds"), |text| {
            if let Ok(v) = text.parse::<i64>() {
                return (dtype == DType::I64 || v.unsigned_abs() <= 1 << 32 && dtype.holds(v as f64))
                    .then_some(v);
            }
            // 1e3, 2.0: exact in f64
            let v = text.parse::<f64>().ok().filter(|_| text.contains(['.', 'e', 'E']))?;
            (dtype.holds(v) && v.abs() < EXACT).then_some(v as i64)
        })
    }

    /// A number as a value of a float dtype, rounded to nearest: infinite only if written so.
    fn real(&mut self, dtype: DType) -> Result<f64> {
        self.literal(&format!("a number that {dtype} holds"), |text| {
            let wide: f64 = text.parse().ok()?;
            // an f32 is rounded once, from the text
            let v = if dtype == DType::F32 { f64::from(text.parse::<f32>().ok()?) } else { wide };
            let written = text.trim_start_matches(['+', '-']).starts_with(['i', 'I']);
            (written || dtype.holds(v) && !v.is_infinite()).then_some(v)
        })
    }
}
