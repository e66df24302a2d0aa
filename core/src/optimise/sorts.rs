//! What rules can look at beside nodes: lists of whole numbers (shapes, axes) and the questions rules ask of them.
//! Knows no operation.

use super::float::{is_mild, is_near, is_normal};
use super::language::dtype_of;
use crate::tensor::DType;
use egglog::prelude::{BaseSort, add_base_sort, span};
use egglog::sort::{BaseValues, F, OrderedFloat, S};
use egglog::{BaseValue, EGraph, TermDag, TermId, Value, add_primitive};
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

    /// The permutation that does `self` first, then `then`: axis i of the result is axis `self[then[i]]`.
    fn then(&self, then: &Ints) -> Option<Ints> {
        let rank = self.0.len() as i64;
        let (a, b) = (self.resolved(rank), then.resolved(rank));
        b.0.iter().map(|&i| a.at(i)).collect::<Option<Vec<_>>>().map(Ints::of)
    }

    fn is_identity(&self) -> bool {
        let rank = self.0.len() as i64;
        self.resolved(rank).0.iter().enumerate().all(|(i, &a)| a == i as i64)
    }

    /// Swaps the last two axes and leaves the rest.
    fn is_transpose(&self) -> bool {
        let rank = self.0.len();
        let swapped = |i: usize| if i + 2 >= rank { 2 * rank - 3 - i } else { i };
        rank >= 2 && self.resolved(rank as i64).0.iter().enumerate().all(|(i, &a)| a == swapped(i) as i64)
    }

    fn product(&self) -> i64 {
        self.0.iter().product()
    }
}

/// The dtype of a name; one that rules are not for where there is none.
fn of(name: &S) -> DType {
    dtype_of(name).unwrap_or(DType::Bool)
}

fn float(v: f64) -> F {
    F::from(OrderedFloat(v))
}

/// A float as its dtype stores it, where it is finite. −0 is 0: the e-graph does not tell them apart.
fn finite(v: f64, d: DType) -> Option<F> {
    Some(d.rounded(v)).filter(|v| d.is_float() && v.is_finite()).map(|v| float(v + 0.0))
}

/// The sort `Ints` of the rules.
#[derive(Debug)]
struct IntsSort;

impl BaseSort for IntsSort {
    type Base = Ints;

    fn name(&self) -> &str {
        "Ints"
    }

    #[rustfmt::skip]
    fn register_primitives(&self, eg: &mut EGraph) {
        // (ints a b …): a list; (at v i): an element; (len v); (put-at v i x): with another element
        add_primitive!(eg, "ints" = [xs: i64] -> Ints { Ints::of(xs) });
        add_primitive!(eg, "at" = |v: Ints, i: i64| -?> i64 { v.at(i) });
        add_primitive!(eg, "len" = |v: Ints| -> i64 { v.0.len() as i64 });
        add_primitive!(eg, "put-at" = |v: Ints, i: i64, x: i64| -?> Ints { v.replaced(i, x) });
        add_primitive!(eg, "count" = |v: Ints| -> i64 { v.product() });
        // (joined v w): one list after the other; (but-last v n): without its last n
        add_primitive!(eg, "joined" = |v: Ints, w: Ints| -> Ints { Ints::of(v.0.iter().chain(w.0.iter()).copied()) });
        add_primitive!(eg, "but-last" = |v: Ints, n: i64| -?> Ints {
            (v.0.len() as i64).checked_sub(n).filter(|&k| k >= 0).map(|k| Ints::of(v.0[..k as usize].iter().copied()))
        });
        add_primitive!(eg, "zeros" = |v: Ints| -> Ints { Ints::of(v.0.iter().map(|_| 0)) });
        add_primitive!(eg, "ones" = |v: Ints| -> Ints { Ints::of(v.0.iter().map(|_| 1)) });
        // permutations
        add_primitive!(eg, "then" = |a: Ints, b: Ints| -?> Ints { a.then(&b) });
        add_primitive!(eg, "is-identity" = |a: Ints| -?> () { a.is_identity().then_some(()) });
        add_primitive!(eg, "is-transpose" = |a: Ints| -?> () { a.is_transpose().then_some(()) });
        add_primitive!(eg, "is-order" = |a: Ints, b: Ints| -?> () {
            (a.0.len() == b.0.len() && a.resolved(a.0.len() as i64) == b.resolved(b.0.len() as i64)).then_some(())
        });
        // axes: (is-axis a i rank): the axis a is axis i, each counting from the end when negative
        add_primitive!(eg, "is-axis" = |a: i64, i: i64, rank: i64| -?> () { (a.rem_euclid(rank.max(1)) == i.rem_euclid(rank.max(1))).then_some(()) });
        add_primitive!(eg, "is-last" = |axes: Ints, rank: i64| -?> () {
            (axes.0.len() == 1 && axes.0[0].rem_euclid(rank.max(1)) == rank - 1).then_some(())
        });
        add_primitive!(eg, "is-single" = |axes: Ints| -?> i64 { (axes.0.len() == 1).then(|| axes.0[0]) });
        add_primitive!(eg, "is-float" = |d: S| -?> () { of(&d).is_float().then_some(()) });
        add_primitive!(eg, "is-whole" = |d: S| -?> () { of(&d).is_integer().then_some(()) });
        add_primitive!(eg, "not-zero" = |a: F| -?> () { (a.0.0 != 0.0).then_some(()) });
        // (near a b d): up to one unit in the last place of d
        add_primitive!(eg, "near" = |a: F, b: F, d: S| -?> () { is_near(a.0.0, b.0.0, of(&d)).then_some(()) });
        // (share c m n d): c is m/n up to one unit in the last place of d
        add_primitive!(eg, "share" = |c: F, m: i64, n: i64, d: S| -?> () {
            (n != 0 && is_normal(c.0.0, of(&d)) && is_near(c.0.0, m as f64 / n as f64, of(&d))).then_some(())
        });
        // (mild c): between 2⁻¹⁰ and 2¹⁰ in size; (is-normal c d): with all digits in d
        add_primitive!(eg, "mild" = |c: F| -?> () { is_mild(c.0.0).then_some(()) });
        add_primitive!(eg, "is-normal" = |c: F, d: S| -?> () { is_normal(c.0.0, of(&d)).then_some(()) });
        // (rounded c d): as d stores it; (inverse c d): 1/c in full where it is normal in d; (exact-inverse c d): the same for
        // powers of two
        add_primitive!(eg, "rounded" = |c: F, d: S| -> F { float(of(&d).rounded(c.0.0)) });
        add_primitive!(eg, "inverse" = |c: F, d: S| -?> F { Some(1.0 / c.0.0).filter(|v| is_normal(*v, of(&d))).map(float) });
        add_primitive!(eg, "exact-inverse" = |c: F, d: S| -?> F {
            Some(1.0 / c.0.0).filter(|v| is_normal(*v, of(&d)) && c.0.0.to_bits() << 12 == 0).map(float)
        });
        // (mild-product a b d): a·b in d, where both are mild and it is normal; (finite-product a b d), (finite-sum a b d)
        add_primitive!(eg, "mild-product" = |a: F, b: F, d: S| -?> F {
            Some(a.0.0 * b.0.0).filter(|v| is_mild(a.0.0) && is_mild(b.0.0) && is_normal(*v, of(&d))).map(|v| float(of(&d).rounded(v)))
        });
        add_primitive!(eg, "finite-product" = |a: F, b: F, d: S| -?> F { finite(a.0.0 * b.0.0, of(&d)).filter(|v| v.0.0 != 0.0) });
        add_primitive!(eg, "finite-sum" = |a: F, b: F, d: S| -?> F { finite(a.0.0 + b.0.0, of(&d)) });
        // (less a b) for whole numbers, as a fact
        add_primitive!(eg, "less" = |a: i64, b: i64| -?> () { (a < b).then_some(()) });
        add_primitive!(eg, "other" = |a: i64, b: i64| -?> () { (a != b).then_some(()) });
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
