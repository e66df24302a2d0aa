//! Data that rules can inspect besides nodes: lists of integers (shapes, axes), and the primitives that rules apply to them.
//! Independent of operations.

use super::float::{is_mild, is_near, is_normal};
use super::language::dtype_of;
use crate::tensor::DType;
use egglog::ast::Span;
use egglog::constraint::{SimpleTypeConstraint, TypeConstraint};
use egglog::prelude::{BaseSort, add_base_sort, span};
use egglog::sort::{BaseValues, F, OrderedFloat, S};
use egglog::{
    ArcSort, BaseValue, Core, EGraph, Primitive, PurePrim, PureState, TermDag, TermId, Value, add_primitive,
};
use std::sync::Arc;

/// A shape, a list of axes, a permutation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ints(pub Arc<[i64]>);

impl BaseValue for Ints {}

impl Ints {
    pub fn of(values: impl IntoIterator<Item = i64>) -> Ints {
        Ints(values.into_iter().collect())
    }

    /// The element at an index that counts from the end when negative.
    fn at(&self, i: i64) -> Option<i64> {
        let i = if i < 0 { i + self.0.len() as i64 } else { i };
        self.0.get(usize::try_from(i).ok()?).copied()
    }

    fn replaced(&self, i: i64, by: i64) -> Option<Ints> {
        self.at(i)?;
        let at = if i < 0 { i + self.0.len() as i64 } else { i };
        Some(Ints::of(self.0.iter().enumerate().map(|(j, &v)| if j as i64 == at { by } else { v })))
    }

    /// Axes as non-negative numbers, of a tensor of that rank.
    fn resolved(&self, rank: i64) -> Ints {
        Ints::of(self.0.iter().map(|&a| if a < 0 { a + rank } else { a }))
    }

    /// The permutation `self` followed by `then`: axis i of the result is axis `self[then[i]]`.
    fn then(&self, then: &Ints) -> Option<Ints> {
        let rank = self.0.len() as i64;
        let (a, b) = (self.resolved(rank), then.resolved(rank));
        b.0.iter().map(|&i| a.at(i)).collect::<Option<Vec<_>>>().map(Ints::of)
    }

    fn is_identity(&self) -> bool {
        let rank = self.0.len() as i64;
        self.resolved(rank).0.iter().enumerate().all(|(i, &a)| a == i as i64)
    }

    /// Whether it swaps the last two axes only.
    fn is_transpose(&self) -> bool {
        let rank = self.0.len();
        let swapped = |i: usize| if i + 2 >= rank { 2 * rank - 3 - i } else { i };
        rank >= 2 && self.resolved(rank as i64).0.iter().enumerate().all(|(i, &a)| a == swapped(i) as i64)
    }

    fn product(&self) -> i64 {
        self.0.iter().product()
    }
}

/// The dtype of a name; if there is none, one that no rule applies to.
fn of(name: &S) -> DType {
    dtype_of(name).unwrap_or(DType::Bool)
}

/// A float rounded to a dtype, if finite. −0 becomes 0: the e-graph does not distinguish them.
fn finite(v: f64, d: DType) -> Option<f64> {
    Some(d.rounded(v)).filter(|v| d.is_float() && v.is_finite()).map(|v| v + 0.0)
}

/// The sorts of primitives' arguments and results.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Int,
    Float,
    Name,
    List,
    /// A result without a value: the primitive succeeds or fails.
    Yes,
}

/// A value of one of them.
enum Datum {
    Int(i64),
    Float(f64),
    Name(S),
    List(Ints),
    Yes(()),
}

/// A primitive of the rules: the sorts of its arguments and result, and its function, which may fail.
///
/// A row of a table, not a type of its own as egglog's macro generates: each of those adds 4 kB to the library.
#[derive(Debug, Clone, Copy)]
struct Question {
    name: &'static str,
    of: &'static [Kind],
    to: Kind,
    answer: fn(&[Datum]) -> Option<Datum>,
}

macro_rules! questions {
    ($($name:literal: |$($x:ident: $kind:ident),*| -> $to:ident $answer:block)*) => {
        &[$(Question {
            name: $name,
            of: &[$(Kind::$kind),*],
            to: Kind::$to,
            answer: |given| match given {
                [$(Datum::$kind($x)),*] => $answer.map(Datum::$to),
                _ => None,
            },
        }),*]
    };
}

#[rustfmt::skip]
const QUESTIONS: &[Question] = questions! {
    // (at v i): an element; (len v); (put-at v i x): with another element
    "at": |v: List, i: Int| -> Int { v.at(*i) }
    "len": |v: List| -> Int { Some(v.0.len() as i64) }
    "put-at": |v: List, i: Int, x: Int| -> List { v.replaced(*i, *x) }
    "count": |v: List| -> Int { Some(v.product()) }
    // (joined v w): one list after the other; (but-last v n): without its last n
    "joined": |v: List, w: List| -> List { Some(Ints::of(v.0.iter().chain(w.0.iter()).copied())) }
    "but-last": |v: List, n: Int| -> List {
        (v.0.len() as i64).checked_sub(*n).filter(|&k| k >= 0).map(|k| Ints::of(v.0[..k as usize].iter().copied()))
    }
    "zeros": |v: List| -> List { Some(Ints::of(v.0.iter().map(|_| 0))) }
    "ones": |v: List| -> List { Some(Ints::of(v.0.iter().map(|_| 1))) }
    // permutations
    "then": |a: List, b: List| -> List { a.then(b) }
    "is-identity": |a: List| -> Yes { a.is_identity().then_some(()) }
    "is-transpose": |a: List| -> Yes { a.is_transpose().then_some(()) }
    "is-order": |a: List, b: List| -> Yes {
        (a.0.len() == b.0.len() && a.resolved(a.0.len() as i64) == b.resolved(b.0.len() as i64)).then_some(())
    }
    // axes: (is-axis a i rank): the axis a is axis i, each counting from the end when negative
    "is-axis": |a: Int, i: Int, rank: Int| -> Yes {
        (a.rem_euclid((*rank).max(1)) == i.rem_euclid((*rank).max(1))).then_some(())
    }
    "is-last": |axes: List, rank: Int| -> Yes {
        (axes.0.len() == 1 && axes.0[0].rem_euclid((*rank).max(1)) == rank - 1).then_some(())
    }
    "is-single": |axes: List| -> Int { (axes.0.len() == 1).then(|| axes.0[0]) }
    "is-float": |d: Name| -> Yes { of(d).is_float().then_some(()) }
    "is-whole": |d: Name| -> Yes { of(d).is_integer().then_some(()) }
    "not-zero": |a: Float| -> Yes { (*a != 0.0).then_some(()) }
    // (near a b d): up to one unit in the last place of d
    "near": |a: Float, b: Float, d: Name| -> Yes { is_near(*a, *b, of(d)).then_some(()) }
    // (share c m n d): c is m/n up to one unit in the last place of d
    "share": |c: Float, m: Int, n: Int, d: Name| -> Yes {
        (*n != 0 && is_normal(*c, of(d)) && is_near(*c, *m as f64 / *n as f64, of(d))).then_some(())
    }
    // (mild c): between 2⁻¹⁰ and 2¹⁰ in size; (is-normal c d): with all digits in d
    "mild": |c: Float| -> Yes { is_mild(*c).then_some(()) }
    "is-normal": |c: Float, d: Name| -> Yes { is_normal(*c, of(d)).then_some(()) }
    // (rounded c d): as d stores it; (inverse c d): 1/c in full where it is normal in d; (exact-inverse c d): the same for
    // powers of two
    "rounded": |c: Float, d: Name| -> Float { Some(of(d).rounded(*c)) }
    "inverse": |c: Float, d: Name| -> Float { Some(1.0 / c).filter(|v| is_normal(*v, of(d))) }
    "exact-inverse": |c: Float, d: Name| -> Float {
        Some(1.0 / c).filter(|v| is_normal(*v, of(d)) && c.to_bits() << 12 == 0)
    }
    // (mild-product a b d): a·b in d, where both are mild and it is normal; (finite-product a b d), (finite-sum a b d)
    "mild-product": |a: Float, b: Float, d: Name| -> Float {
        Some(a * b).filter(|v| is_mild(*a) && is_mild(*b) && is_normal(*v, of(d))).map(|v| of(d).rounded(v))
    }
    "finite-product": |a: Float, b: Float, d: Name| -> Float { finite(a * b, of(d)).filter(|v| *v != 0.0) }
    "finite-sum": |a: Float, b: Float, d: Name| -> Float { finite(a + b, of(d)) }
    // (less a b) for whole numbers, as a fact
    "less": |a: Int, b: Int| -> Yes { (a < b).then_some(()) }
    "other": |a: Int, b: Int| -> Yes { (a != b).then_some(()) }
};

/// A primitive as egglog calls it, with the sorts of its arguments and result.
#[derive(Clone)]
struct Asked(Question, Vec<ArcSort>);

impl Primitive for Asked {
    fn name(&self) -> &str {
        self.0.name
    }

    fn get_type_constraints(&self, span: &Span) -> Box<dyn TypeConstraint> {
        SimpleTypeConstraint::new(self.0.name, self.1.clone(), span.clone()).into_box()
    }
}

impl PurePrim for Asked {
    fn apply<'a, 'db>(&self, state: PureState<'a, 'db>, args: &[Value]) -> Option<Value> {
        let values = state.base_values();
        let datum = |(kind, &v): (&Kind, &Value)| match kind {
            Kind::Int => Datum::Int(values.unwrap::<i64>(v)),
            Kind::Float => Datum::Float(values.unwrap::<F>(v).0.0),
            Kind::Name => Datum::Name(values.unwrap::<S>(v)),
            Kind::List => Datum::List(values.unwrap::<Ints>(v)),
            Kind::Yes => Datum::Yes(()),
        };
        let given: Vec<Datum> = self.0.of.iter().zip(args).map(datum).collect();
        Some(match (self.0.answer)(&given)? {
            Datum::Int(v) => values.get(v),
            Datum::Float(v) => values.get(F::from(OrderedFloat(v))),
            Datum::Name(v) => values.get(v),
            Datum::List(v) => values.get(v),
            Datum::Yes(()) => values.get(()),
        })
    }
}

/// The sort `Ints` of the rules.
#[derive(Debug)]
struct IntsSort;

impl BaseSort for IntsSort {
    type Base = Ints;

    fn name(&self) -> &str {
        "Ints"
    }

    fn register_primitives(&self, eg: &mut EGraph) {
        // (ints a b …): a list
        add_primitive!(eg, "ints" = [xs: i64] -> Ints { Ints::of(xs) });
        let sort = |kind: &Kind| match kind {
            Kind::Int => eg.get_arcsort_for_value_type::<i64>(),
            Kind::Float => eg.get_arcsort_for_value_type::<F>(),
            Kind::Name => eg.get_arcsort_for_value_type::<S>(),
            Kind::List => eg.get_arcsort_for_value_type::<Ints>(),
            Kind::Yes => eg.get_arcsort_for_value_type::<()>(),
        };
        let sorts = |q: &Question| q.of.iter().chain([&q.to]).map(sort).collect();
        let asked: Vec<Asked> = QUESTIONS.iter().map(|q| Asked(*q, sorts(q))).collect();
        for question in asked {
            eg.add_pure_primitive(question, None);
        }
    }

    fn reconstruct_termdag(&self, values: &BaseValues, value: Value, dag: &mut TermDag) -> TermId {
        let list = values.unwrap::<Ints>(value);
        let terms = list.0.iter().map(|&v| dag.lit(egglog::ast::Literal::Int(v))).collect();
        dag.app("ints".into(), terms)
    }
}

/// Adds the sort to an e-graph.
pub fn register(eg: &mut EGraph) -> Result<(), egglog::Error> {
    add_base_sort(eg, IntsSort, span!()).map_err(egglog::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_follow_each_other() {
        // x [a, b, c] by [2, 0, 1] is [c, a, b]; that by [0, 2, 1] is [c, b, a]
        let (p, q) = (Ints::of([2, 0, 1]), Ints::of([0, -1, 1]));
        assert_eq!(p.then(&q), Some(Ints::of([2, 1, 0])));
        assert!(Ints::of([0, -2, -1]).is_identity());
        assert!(Ints::of([0, 1, 3, 2]).is_transpose() && !Ints::of([1, 0, 2]).is_transpose());
        assert!(Ints::of([1, 0]).is_transpose());
    }
}
