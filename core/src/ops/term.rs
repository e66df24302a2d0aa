//! Arithmetic on values, written as in a formula: `x * 2.0 + y`.

use crate::graph::{Graph, Value};
use crate::tensor::DType;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

/// A value with its graph, for the operators `+ − · / %` and negation: with other terms, with values, and with numbers (f64 or
/// i64), which become constants of the term's dtype. Shapes broadcast as in NumPy. Builder methods accept terms wherever they
/// accept values.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let x = g.term(g.input("x", DType::F32, [3]));
/// g.output("y", 1.0 - x * x / 2.0);
/// g.output("z", g.tanh(-x + 1.0));
///
/// let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
/// let outputs = session.run(&[("x", &[0.0f32, 1.0, 2.0])])?;
/// assert_eq!(outputs.read::<f32>("y")?, [1.0, 0.5, -1.0]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Term<'g> {
    graph: &'g Graph,
    value: Value,
}

impl Graph {
    /// A value that supports operators: see [`Term`].
    pub fn term(&self, value: impl Into<Value>) -> Term<'_> {
        Term { graph: self, value: value.into() }
    }
}

impl<'g> Term<'g> {
    /// The value.
    pub fn value(self) -> Value {
        self.value
    }

    /// Its graph.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    fn of(self, value: Value) -> Term<'g> {
        Term { value, ..self }
    }
}

impl From<Term<'_>> for Value {
    fn from(term: Term<'_>) -> Value {
        term.value
    }
}

impl From<&Term<'_>> for Value {
    fn from(term: &Term<'_>) -> Value {
        term.value
    }
}

/// An operand next to a term: it becomes a value of the term's graph and, if it is a number, of its dtype.
trait Beside {
    fn beside(self, term: Term<'_>) -> Value;
}

impl Beside for Term<'_> {
    fn beside(self, term: Term<'_>) -> Value {
        match std::ptr::eq(self.graph, term.graph) {
            true => self.value,
            false => term.graph.fail("term", "", "terms of one graph", "a term of another graph"),
        }
    }
}

impl Beside for &Term<'_> {
    fn beside(self, term: Term<'_>) -> Value {
        (*self).beside(term)
    }
}

impl Beside for Value {
    fn beside(self, _: Term<'_>) -> Value {
        self
    }
}

impl Beside for f64 {
    fn beside(self, term: Term<'_>) -> Value {
        match term.value {
            Value::POISON => Value::POISON,
            value => term.graph.scalar(self, term.graph.ty(value).dtype),
        }
    }
}

impl Beside for i64 {
    fn beside(self, term: Term<'_>) -> Value {
        match term.graph.ty(term.value).dtype {
            DType::I64 => term.graph.scalar_i64(self),
            _ => (self as f64).beside(term),
        }
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident;)*) => { $(
        operators!(@right $Trait $method; Term<'_>, &Term<'_>, Value, f64, i64);
        operators!(@left $Trait $method; Value, f64, i64);
    )* };
    (@right $Trait:ident $method:ident; $($t:ty),*) => { $(
        impl<'g> $Trait<$t> for Term<'g> {
            type Output = Term<'g>;
            fn $method(self, other: $t) -> Term<'g> {
                let other = other.beside(self);
                self.of(self.graph.$method(self.value, other))
            }
        }
        impl<'g> $Trait<$t> for &Term<'g> {
            type Output = Term<'g>;
            fn $method(self, other: $t) -> Term<'g> {
                (*self).$method(other)
            }
        }
    )* };
    (@left $Trait:ident $method:ident; $($t:ty),*) => { $(
        impl<'g> $Trait<Term<'g>> for $t {
            type Output = Term<'g>;
            fn $method(self, other: Term<'g>) -> Term<'g> {
                let own = self.beside(other);
                other.of(other.graph.$method(own, other.value))
            }
        }
        impl<'g> $Trait<&Term<'g>> for $t {
            type Output = Term<'g>;
            fn $method(self, other: &Term<'g>) -> Term<'g> {
                self.$method(*other)
            }
        }
    )* };
}
operators! { Add add; Sub sub; Mul mul; Div div; Rem rem; }

impl<'g> Neg for Term<'g> {
    type Output = Term<'g>;
    fn neg(self) -> Term<'g> {
        self.of(self.graph.neg(self.value))
    }
}

impl<'g> Neg for &Term<'g> {
    type Output = Term<'g>;
    fn neg(self) -> Term<'g> {
        -*self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of a graph of a term x f32[2] and a value y.
    fn text(build: impl FnOnce(Term<'_>, Value) -> Value) -> String {
        let g = Graph::new();
        let [x, y] = ["x", "y"].map(|name| g.input(name, DType::F32, [2]));
        let made = build(g.term(x), y);
        g.output("out", made);
        g.data().unwrap().to_string()
    }

    #[test]
    fn each_operator_is_its_operation_with_its_sides_in_order() {
        let long = |operation: &str, a: &str, b: &str| {
            let two = if a == "2" || b == "2" { "const %2: f32[] = [2.0]\n" } else { "" };
            let number = |s: &str| if s == "2" { "%2".to_string() } else { s.to_string() };
            let at = if two.is_empty() { "%2" } else { "%3" };
            format!(
                "weft 1\ninput x: f32[2]\ninput y: f32[2]\n{two}{at} = {operation}({}, {})\noutput out = {at}\n",
                number(a),
                number(b)
            )
        };
        assert_eq!(text(|x, y| (x + y).into()), long("add", "x", "y"));
        assert_eq!(text(|x, y| (y - x).into()), long("sub", "y", "x"));
        assert_eq!(text(|x, _| (x * x).into()), long("mul", "x", "x"));
        assert_eq!(text(|x, _| (2.0 / &x).into()), long("div", "2", "x"));
        assert_eq!(text(|x, _| (&x % 2).into()), long("rem", "x", "2"));
        assert_eq!(text(|x, _| (2.0 - x).into()), long("sub", "2", "x"));
        assert!(text(|x, _| (-&x).into()).contains("neg(x)"));
    }

    #[test]
    fn numbers_take_the_terms_dtype_and_what_does_not_fit_is_refused() {
        let g = Graph::new();
        let [ids, long] = [DType::U8, DType::I64].map(|d| g.term(g.input(d.name(), d, [2])));
        assert_eq!(g.ty(ids + 3).dtype, DType::U8);
        assert!(g.error().is_none());
        // i64 does not support arithmetic: an error of the operation
        assert_eq!((long + 9_007_199_254_740_993i64).value(), Value::POISON);
        let refused = g.error().unwrap().to_string();
        assert!(refused.starts_with("add: "), "{refused}");
        let other = Graph::new();
        let x = other.term(other.input("x", DType::U8, [2]));
        assert_eq!((x * 0.5).value(), Value::POISON);
        assert!(other.error().unwrap().to_string().starts_with("scalar: a number that u8 holds"));
        let third = Graph::new();
        let y = third.term(third.input("y", DType::U8, [2]));
        assert_eq!((y + x).value(), Value::POISON);
        assert!(third.error().unwrap().to_string().contains("terms of one graph"));
    }
}
