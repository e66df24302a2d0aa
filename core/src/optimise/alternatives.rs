//! Applies a single rule to a graph, for tests and inspection.

use super::cost::CostModel;
use super::extract::{Choice, Classes, alone};
use super::{Budget, decode, space};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::profile::{Costs, Precision};

/// The graphs that one rule makes of a graph, with its other classes unchanged. Values of equal type that the rule equates (x +
/// 0 and x) are replaced by each other. Empty if the rule does not match.
///
/// # Errors
/// The graph's own first error; [`Error::UnknownName`] for an unknown rule.
pub fn alternatives(graph: &Graph, rule: &str) -> Result<Vec<Graph>> {
    let data = graph.data()?;
    let known = super::all_rules().iter().position(|r| r.name == rule);
    let index = known.ok_or_else(|| Error::UnknownName {
        kind: "rule".into(),
        name: rule.into(),
        known: super::all_rules().iter().map(|r| r.name.as_str()).collect::<Vec<_>>().join(", "),
    })?;
    let cut = super::cut(&data, &[], false);
    let wrong = |e: String| Error::internal(format!("{rule}: {e}"));
    let found = space::saturate(&cut.blocks, &|r| r.name == rule, &Budget { rounds: 3, ..Budget::default() })
        .map_err(|e| wrong(e.to_string()))?;
    let classes = Classes::new(&found, &mut CostModel::of_costs(Costs::gpu(132, false), Precision::Full));
    let [block] = cut.blocks.as_slice() else {
        return Err(wrong("a graph of one segment is wanted".into()));
    };
    let mut there = alone(&classes);
    let inserted: Vec<usize> = found.inserted[0].iter().flatten().copied().collect();
    for (class, candidates) in classes.candidates.iter().enumerate() {
        let as_came = candidates.iter().position(|c| c.row.is_none_or(|r| inserted.contains(&r)));
        there[class] = as_came.or(there[class]);
    }
    let mut made = Vec::new();
    let mut choices: Vec<Choice> = vec![there.clone()];
    for (class, candidates) in classes.candidates.iter().enumerate() {
        if !found.origins.get(&classes.values[class]).is_some_and(|o| o.contains(&index)) {
            continue;
        }
        for k in (0..candidates.len()).filter(|&k| Some(k) != there[class]) {
            let mut choice: Choice = there.clone();
            choice[class] = Some(k);
            choices.push(choice);
        }
    }
    if found.origins.values().all(|o| !o.contains(&index)) {
        return Ok(made);
    }
    for choice in choices {
        let Some(template) = decode::template(0, block, &found, &classes, &choice) else { continue };
        made.push(decode::whole(&data, &cut, &[template], &[]).map_err(wrong)?.0);
    }
    Ok(made)
}
