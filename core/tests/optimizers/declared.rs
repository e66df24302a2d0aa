//! An optimizer is one declaration: one that the engine has not, on every device.

use super::{LARGE, SMALL, compiled, count, devices, gradient, number, session, step};
use weft::internals::optimizer::lower;
use weft::optimizer::{Optimizer, Over, RULES, Range, Rule, Setting, Span};

/// AdaGrad (Duchi, Hazan & Singer 2011), its sums of squares beginning above 0; then each column is made smaller to a mean square
/// of 1 at most, so that there are means over rows, of which one is of another's.
static BOUNDED: Rule = Rule {
    name: "bounded",
    about: "AdaGrad with bounded columns.",
    rate: 0.1,
    settings: &[Setting { name: "bound", default: 1.0, range: Range::Positive, about: "Bound of columns." }],
    update: |x| {
        let [bound] = x.settings();
        let (p, g) = (x.parameter(), x.gradient());
        let sums = x.state("sum", Span::Element, 0.25);
        let sums = x.becomes(sums.clone(), sums + g.clone() * g.clone());
        let moved = p - x.rate() * g * sums.rsqrt();
        let square = x.mean(moved.clone() * moved.clone(), Over::Rows);
        let length = x.state("length", Span::Column, 0.0);
        let length = x.becomes(length, square.sqrt());
        let all = x.mean(length.clone(), Over::All);
        let scale = x.keep(bound / length.max(all).max(1.0));
        moved * scale
    },
};

#[test]
fn a_new_rule_runs_on_every_device_with_states_that_begin_as_declared() {
    let shapes = [SMALL, LARGE].concat();
    for t in devices::all() {
        let compiled = compiled(&t, &shapes);
        let mut s = session(&compiled, &shapes, &Optimizer::of(&BOUNDED, 0.5));
        let begun = s.read_optimizer_state("sum", "long").unwrap().to_f64();
        assert!(begun.len() == 70_003 && begun.iter().all(|v| *v == 0.25), "on {}", t.name());
        (1..=3).for_each(|n| step(&mut s, &shapes, n));
        for (k, (name, shape)) in shapes.iter().enumerate() {
            let (r, c) = match shape[..] {
                [.., r, c] => (r, c),
                [c] => (1, c),
                _ => (1, 1),
            };
            let mut p: Vec<f64> = (0..count(shape)).map(|i| f64::from(number(k, 0, i))).collect();
            let mut sums = vec![0.25f64; p.len()];
            for n in 1..=3 {
                for i in 0..p.len() {
                    let g = f64::from(gradient(k, n, i));
                    sums[i] += g * g;
                    p[i] -= 0.5 * g / sums[i].sqrt();
                }
                let lengths: Vec<f64> = (0..p.len() / r)
                    .map(|j| {
                        let at = |i: usize| (j / c * r + i) * c + j % c;
                        ((0..r).map(|i| p[at(i)] * p[at(i)]).sum::<f64>() / r as f64).sqrt()
                    })
                    .collect();
                let all = lengths.iter().sum::<f64>() / lengths.len() as f64;
                for i in 0..p.len() {
                    p[i] *= 1.0 / lengths[i / (r * c) * c + i % c].max(all).max(1.0);
                }
            }
            let came = s.read_parameter::<f32>(name).unwrap();
            for (i, (came, wanted)) in came.iter().zip(&p).enumerate() {
                let off = (f64::from(*came) - wanted).abs();
                assert!(off <= 4e-6 * wanted.abs().max(0.5), "{name}[{i}] on {}: {came}, {wanted}", t.name());
            }
        }
    }
}

#[test]
fn every_rule_of_the_table_is_lowered_whatever_is_set() {
    for rule in RULES {
        let settings = rule.settings.len();
        for some in 0..1usize << settings {
            let used: Vec<bool> = (0..settings).map(|i| some >> i & 1 == 1).collect();
            for matrix in [false, true] {
                let update = lower(rule, matrix, &used).unwrap();
                let last = update.passes.last().unwrap();
                let ends = update.passes.iter().all(|p| p.level < last.level || std::ptr::eq(p, last));
                // all parameters share dispatches, unless the rule asks what they are
                assert_eq!(update.by_matrix, rule.name == "adafactor", "{}", rule.name);
                assert!(last.over == Span::Element && ends, "{rule:?}: {:?}", update.passes);
            }
        }
        let o = Optimizer::named(rule.name).unwrap();
        o.check().unwrap();
        assert!(o.rule() == *rule && o.learning_rate() > 0.0 && !rule.about.is_empty());
        assert!(rule.settings.iter().all(|s| s.about.ends_with('.')));
    }
}

#[test]
fn a_rule_that_makes_no_sense_is_an_error_and_no_panic() {
    let rule = |update| Rule { name: "odd", about: "", rate: 0.1, settings: &[], update };
    let odd = [
        // an element's value kept once
        rule(|x| {
            let g = x.gradient();
            x.keep(g)
        }),
        // a mean over columns of what has none
        rule(|x| {
            let g = x.gradient();
            let rows = x.mean(g, Over::Columns);
            x.mean(rows, Over::Columns)
        }),
        // what was, once it is something else
        rule(|x| {
            let row = x.state("row", Span::Row, 0.0);
            let g = x.gradient();
            let mean = x.mean(g, Over::Columns);
            x.becomes(row.clone(), mean);
            x.parameter() - row
        }),
        rule(|x| {
            let (p, g) = (x.parameter(), x.gradient());
            x.becomes(p, g)
        }),
    ];
    for rule in odd {
        lower(&rule, true, &[]).unwrap_err();
    }
}
