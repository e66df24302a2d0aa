//! Kernels over long axes: no invocation exceeds a target's limit on loop iterations, for any length.

#[path = "../long_graphs/mod.rs"]
mod long_graphs;

use super::{check_plan, devices};
use std::collections::HashSet;
use weft::internals::plan::{PlanOptions, plan};
use weft::profile::Limits;
use weft::profile::Precision;

#[test]
fn no_invocation_turns_more_often_than_a_target_allows() {
    let (mut failures, mut checked) = (vec![], 0);
    let few = Limits { turns: Limits::FEWEST_TURNS, ..Limits::large() };
    // plans are bounded by what a kernel may bind; here any may bind much
    let much = |(name, limits)| (name, Limits { bindings: Limits::MOST_BINDINGS, ..limits });
    let all = devices().into_iter().filter(|d| d.0 != "split").chain([("few turns", few)]).map(much);
    for device in all {
        let mut seen = HashSet::new();
        for length in [65_536, 1_000_003, 2_000_001] {
            for form in long_graphs::all() {
                let long = long_graphs::build(form, length);
                for attention_grad in [true, false] {
                    let p = plan(&long.g, &PlanOptions { attention_grad, ..Default::default() }).unwrap();
                    let name = format!("{} over {length}", form.0);
                    check_plan(&name, &p, &device, Precision::Full, &mut seen, &mut failures);
                }
            }
        }
        checked += seen.len();
    }
    assert!(checked > 1000, "only {checked} texts");
    let some = &failures[..failures.len().min(3)];
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), some.join("\n"));
}
