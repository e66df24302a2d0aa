//! Simplifies the output of gradients and decompositions: views of views, sums of padded parts. Rounding does not change:
//! adding a padding's zeros changes no value (not even −0, which stays −0).

use crate::error::Result;
use crate::graph::{Attrs, Graph, GraphData, Node, NodeKind, Op, Value};
use crate::ops::is_own;
use crate::ops::widen::is_half;

/// A node of the graph: its operation's name, attributes and inputs.
struct Made {
    name: &'static str,
    attrs: Attrs,
    inputs: Vec<Value>,
}

fn made(data: &GraphData, v: Value) -> Option<Made> {
    let node = data.node(v);
    match &node.kind {
        NodeKind::Op(op, attrs) if is_own(*op) => {
            Some(Made { name: op.name(), attrs: attrs.clone(), inputs: node.inputs.clone() })
        }
        _ => None,
    }
}

/// Replaces an operation on inputs in the graph by a cheaper one: a slice of one part of a concatenation by (a slice of) that
/// part; a reshape of a reshape by one, or none; nested concatenations by one; sums of padded parts by their concatenation.
/// Operations outside the table with the same names are left alone.
pub(super) fn simpler(g: &Graph, op: &dyn Op, inputs: &[Value], attrs: &Attrs) -> Result<Option<Value>> {
    if !is_own(op) {
        return Ok(None);
    }
    match (op.name(), inputs) {
        ("slice" | "reshape", &[input]) => view(g, op, input, attrs),
        ("concat", _) => flat(g, inputs, attrs.int("axis")),
        ("add", &[a, b]) if g.shape(a) == g.shape(b) => {
            for attempt in [joined, rejoined] {
                if let Some(v) = attempt(g, a, b)? {
                    return Ok(Some(v));
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

fn view(g: &Graph, op: &dyn Op, input: Value, attrs: &Attrs) -> Result<Option<Value>> {
    // clones the node: the borrow must end before the graph grows
    let below = g.data()?.node(input).clone();
    let NodeKind::Op(inner, inner_attrs) = &below.kind else { return Ok(None) };
    if !is_own(*inner) {
        return Ok(None);
    }
    Ok(match (op.name(), inner.name()) {
        ("slice", "concat") => slice_of_part(g, &below, inner_attrs.int("axis"), attrs),
        ("reshape", "reshape") => {
            let (from, shape) = (below.inputs[0], attrs.ints("shape"));
            let same = g.shape(from).iter().map(|&n| n as i64).eq(shape.iter().copied());
            Some(if same { from } else { g.reshape(from, shape) })
        }
        // a widened value is reshaped in its narrow form, and widened where it is read
        ("reshape", "cast") if is_half(g.ty(below.inputs[0]).dtype) => {
            let stored = g.reshape(below.inputs[0], attrs.ints("shape"));
            Some(g.cast(stored, below.ty.dtype))
        }
        _ => None,
    })
}

fn slice_of_part(g: &Graph, joined: &Node, axis: i64, attrs: &Attrs) -> Option<Value> {
    let axis = axis.rem_euclid(joined.ty.rank() as i64) as usize;
    let [start, stop, step] = ["start", "stop", "step"].map(|name| attrs.ints(name));
    let last = stop[axis] - 1 - (stop[axis] - 1 - start[axis]) % step[axis];
    let mut before = 0;
    for &part in &joined.inputs {
        let shape = g.shape(part);
        let after = before + shape[axis] as i64;
        if before <= start[axis] && last < after {
            let (mut start, mut stop) = (start.to_vec(), stop.to_vec());
            (start[axis], stop[axis]) = (start[axis] - before, last + 1 - before);
            let whole = (0..shape.len()).all(|a| (start[a], stop[a], step[a]) == (0, shape[a] as i64, 1));
            return Some(if whole { part } else { g.slice(part, &start, &stop, step) });
        }
        before = after;
    }
    None
}

/// Flattens parts that are concatenations along the same axis.
fn flat(g: &Graph, parts: &[Value], axis: i64) -> Result<Option<Value>> {
    let mut all = vec![];
    {
        let data = g.data()?;
        let rank = parts.first().map_or(1, |&p| data.node(p).ty.rank()) as i64;
        for &part in parts {
            match made(&data, part).filter(|m| m.name == "concat") {
                Some(m) if (m.attrs.int("axis") - axis).rem_euclid(rank) == 0 => all.extend(m.inputs),
                _ => all.push(part),
            }
        }
    }
    Ok((all.len() > parts.len()).then(|| g.concat(&all, axis)))
}

/// A value padded with zeros along an axis.
struct Padded {
    value: Value,
    axis: usize,
    before: i64,
    after: i64,
}

/// Padded with zeros along one axis.
fn padded(data: &GraphData, v: Value) -> Option<Padded> {
    let m = made(data, v).filter(|m| m.name == "pad" && m.attrs.float("value") == 0.0)?;
    let (before, after) = (m.attrs.ints("before"), m.attrs.ints("after"));
    let mut axes = (0..before.len()).filter(|&a| before[a] + after[a] > 0);
    let (axis, None) = (axes.next()?, axes.next()) else { return None };
    Some(Padded { value: m.inputs[0], axis, before: before[axis], after: after[axis] })
}

/// The sum of two padded values that are adjacent: their concatenation, with the remaining padding.
fn joined(g: &Graph, a: Value, b: Value) -> Result<Option<Value>> {
    let (first, second, rank) = {
        let data = g.data()?;
        let (Some(a), Some(b)) = (padded(&data, a), padded(&data, b)) else { return Ok(None) };
        let rank = data.node(a.value).ty.rank();
        if a.axis != b.axis {
            return Ok(None);
        }
        if a.before < b.before { (a, b, rank) } else { (b, a, rank) }
    };
    let axis = first.axis;
    if first.before + g.shape(first.value)[axis] as i64 != second.before {
        return Ok(None);
    }
    let parts = [first.value, second.value];
    let all = flat(g, &parts, axis as i64)?.unwrap_or_else(|| g.concat(&parts, axis as i64));
    if first.before + second.after == 0 {
        return Ok(Some(all));
    }
    let mut border = [vec![0; rank], vec![0; rank]];
    (border[0][axis], border[1][axis]) = (first.before, second.after);
    Ok(Some(g.pad(all, &border[0], &border[1], 0.0)))
}

/// The sum of a sum of padded values and a third value adjacent to one of them: that pair is added first.
fn rejoined(g: &Graph, a: Value, b: Value) -> Result<Option<Value>> {
    for (sum, third) in [(a, b), (b, a)] {
        let parts = {
            let data = g.data()?;
            let sum = made(&data, sum).filter(|m| m.name == "add");
            sum.map(|m| m.inputs).filter(|p| p.iter().all(|&p| padded(&data, p).is_some()))
        };
        let Some(&[x, y]) = parts.as_deref() else { continue };
        for (other, beside) in [(x, y), (y, x)] {
            if let Some(two) = joined(g, beside, third)? {
                let all = joined(g, other, two)?;
                return Ok(Some(all.unwrap_or_else(|| g.add(other, two))));
            }
        }
    }
    Ok(None)
}
