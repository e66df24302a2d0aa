//! The weight report in commands' output: as a line, as a table, as JSON.

use crate::output::{bytes, grouped};
use serde_json::{Value, json};
use weft::session::{Transformation, WeightReport};

/// The name of a transformation in counts.
fn word(how: &Transformation) -> &'static str {
    match how {
        Transformation::AsItIs => "read as they are",
        Transformation::Adjacent { .. } => "laid beside others",
        Transformation::Copied => "copied",
        Transformation::Transposed => "transposed",
        Transformation::Converted { .. } => "converted",
        Transformation::Joined { .. } => "joined",
        Transformation::Folded { .. } => "folded",
        Transformation::Packed => "packed",
        _ => "otherwise treated",
    }
}

/// Numbers of weights by transformation, and the memory: `of 272 weights 61 read as they are, …; 538.1 MB made of them`.
pub fn summary(t: &WeightReport) -> String {
    let mut counts: Vec<(&str, usize)> = vec![];
    for weight in &t.weights {
        let mut words: Vec<&str> = weight.applied.iter().map(|a| word(&a.how)).collect();
        if words.is_empty() {
            words.push("not read");
        }
        words.sort_unstable();
        words.dedup();
        for word in words {
            match counts.iter_mut().find(|c| c.0 == word) {
                Some(count) => count.1 += 1,
                None => counts.push((word, 1)),
            }
        }
    }
    counts.sort_by_key(|c| std::cmp::Reverse(c.1));
    let told: Vec<String> = counts.iter().map(|(word, n)| format!("{} {word}", grouped(*n))).collect();
    let made = match t.bytes() {
        0 => "nothing is made of them".into(),
        n => format!("{} made of them at init", bytes(n as u64)),
    };
    match told.as_slice() {
        [] => "no weights".into(),
        told => format!("of {} weights {}; {made}", grouped(t.weights.len()), told.join(", ")),
    }
}

/// A row for each transformation: weight, transformation, nodes, bytes.
pub fn rows(t: &WeightReport) -> Vec<Vec<String>> {
    let mut rows = vec![["weight", "at init", "for", "takes"].map(String::from).to_vec()];
    for weight in &t.weights {
        let name = format!("{} {}", weight.name, weight.ty);
        if weight.applied.is_empty() {
            rows.push(vec![name.clone(), "not read".into(), String::new(), String::new()]);
        }
        for (i, a) in weight.applied.iter().enumerate() {
            let name = if i == 0 { name.clone() } else { String::new() };
            let takes = if a.bytes == 0 { String::new() } else { bytes(a.bytes as u64) };
            rows.push(vec![name, a.how.to_string(), a.by.clone(), takes]);
        }
    }
    rows
}

pub fn as_json(t: &WeightReport) -> Value {
    let applied =
        |a: &weft::session::Applied| json!({"how": a.how.to_string(), "for": a.by, "bytes": a.bytes});
    let weight = |w: &weft::session::ReportedWeight| json!({"name": w.name, "at_init": w.applied.iter().map(applied).collect::<Vec<_>>()});
    let made = |m: &weft::session::MadeOfWeights| json!({"for": m.by, "weights": m.weights, "packed": m.packed, "bytes": m.bytes});
    json!({
        "weights": t.weights.iter().map(weight).collect::<Vec<_>>(),
        "made": t.made.iter().map(made).collect::<Vec<_>>(),
        "bytes": t.bytes(),
    })
}
