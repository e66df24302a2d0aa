//! Builds graphs from choices: a template for each block's choice, and the graph of all templates with the names, results and
//! provenance of the original.

use super::block::{Block, Blocks, Part, Ref};
use super::extract::{Choice, Classes, order};
use super::outline::is_leaf;
use super::space::{Found, Ground};
use crate::error::{Error, Result};
use crate::graph::{Attr, Attrs, Graph, GraphData, NodeKind, Op, Value};
use crate::tensor::{Bytes, Tensor, TensorType};
use std::collections::{HashMap, HashSet};

/// An input of a template's node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    External(usize),
    Made(usize),
}

pub(super) enum Make {
    Op(&'static dyn Op, Attrs, Vec<Source>),
    Constant(Tensor<'static>),
}

pub(super) struct Made {
    pub make: Make,
    /// Nodes of the block with the same value.
    pub is: Vec<usize>,
    /// Nodes of the block that it computes.
    pub from: Vec<usize>,
    /// Rules that produced this alternative; empty if it is from the original.
    pub rules: Vec<usize>,
    /// The same, and those of nodes of which it is the only user.
    pub led: Vec<usize>,
}

/// A block's new form.
pub(super) struct Template {
    pub nodes: Vec<Made>,
    /// The source of each of the block's outputs.
    pub outputs: Vec<Source>,
}

/// The template for a choice.
pub(super) fn template(
    index: usize,
    block: &Block,
    found: &Found,
    classes: &Classes,
    choice: &Choice,
) -> Option<Template> {
    let marks: Vec<usize> = found.marks[index].iter().map(|&v| classes.of(v)).collect::<Option<_>>()?;
    let roots: Vec<usize> = block.outputs.iter().map(|&l| marks[l]).collect();
    let grounds = super::extract::grounds(found, classes);
    let mut at: HashMap<usize, Source> = HashMap::new();
    let mut nodes: Vec<Made> = Vec::new();
    for class in order(classes, choice, &roots)? {
        let is: Vec<usize> = (0..marks.len()).filter(|&l| marks[l] == class).collect();
        let candidate = &classes.candidates[class][choice[class]?];
        let (make, rules) = match candidate.row {
            Some(r) => {
                let row = &found.rows[r];
                let inputs: Vec<Source> =
                    candidate.inputs.iter().map(|i| at.get(i).copied()).collect::<Option<_>>()?;
                let changed = !found.inserted[index].contains(&Some(r));
                let rules = found.origins.get(&row.class).filter(|_| changed).cloned().unwrap_or_default();
                let by = |&i: &usize| super::rules::all()[i].head.as_deref() == row.constructor();
                let rules = rules.into_iter().filter(by).collect();
                (Make::Op(row.op, row.attrs.clone(), inputs), rules)
            }
            None => match ground(grounds.get(&class)?, index)? {
                Grounded::External(e) => {
                    at.insert(class, Source::External(e));
                    continue;
                }
                Grounded::Local(l) => match &block.nodes[l].part {
                    Part::Constant(t) => (Make::Constant(t.clone()), vec![]),
                    Part::Op(..) => return None,
                },
                Grounded::Full(v, ty) if ty.elements() > MOST_FILLED && !ty.dtype.is_block() => {
                    let make = Make::Constant(filled(v, TensorType::new(ty.dtype, []))?);
                    let one = Source::Made(nodes.len());
                    nodes.push(Made { make, is: vec![], from: vec![], led: vec![], rules: vec![] });
                    let shape = Attr::Ints(ty.shape.iter().map(|&n| n as i64).collect());
                    let broadcast = crate::ops::find("broadcast")?;
                    (Make::Op(broadcast, Attrs::none().with("shape", shape), vec![one]), vec![])
                }
                Grounded::Full(v, ty) => (Make::Constant(filled(v, ty)?), vec![]),
            },
        };
        at.insert(class, Source::Made(nodes.len()));
        nodes.push(Made { make, is, from: vec![], led: rules.clone(), rules });
    }
    let outputs = roots.iter().map(|c| at.get(c).copied()).collect::<Option<_>>()?;
    let mut template = Template { nodes, outputs };
    provenance(&mut template, block);
    Some(template)
}

enum Grounded {
    External(usize),
    Local(usize),
    Full(f64, TensorType),
}

fn ground(all: &[&Ground], index: usize) -> Option<Grounded> {
    let leaf = all.iter().find_map(|g| match g {
        Ground::Leaf(b, r) if *b == index => Some(*r),
        _ => None,
    });
    match leaf {
        Some(Ref::External(e)) => Some(Grounded::External(e)),
        Some(Ref::Local(l)) => Some(Grounded::Local(l)),
        None => all.iter().find_map(|g| match g {
            Ground::Full(v, ty) => Some(Grounded::Full(*v, ty.clone())),
            Ground::Leaf(..) => None,
        }),
    }
}

/// Maximum elements of a uniform value that becomes a constant of its full size: a longer one is a broadcast element, so that
/// compiling for large sizes does not take their memory.
const MOST_FILLED: usize = 4096;

/// A uniform tensor.
fn filled(v: f64, ty: TensorType) -> Option<Tensor<'static>> {
    if ty.dtype.is_block() {
        return Tensor::from_f64(&ty, &vec![v; ty.elements()]).ok();
    }
    let one = Tensor::from_f64(&TensorType::new(ty.dtype, [1]), &[v]).ok()?;
    Tensor::from_bytes(ty.dtype, ty.shape.clone(), Bytes::from_vec(one.bytes().repeat(ty.elements()))).ok()
}

/// Determines which of the block's nodes each new node computes: those with its value, and their inputs down to its own inputs.
fn provenance(template: &mut Template, block: &Block) {
    let kept: HashSet<usize> = template.nodes.iter().flat_map(|n| n.is.iter().copied()).collect();
    for i in 0..template.nodes.len() {
        let own: HashSet<usize> = template.nodes[i].is.iter().copied().collect();
        let mut covered: Vec<usize> = Vec::new();
        let mut stack: Vec<usize> = template.nodes[i].is.clone();
        while let Some(l) = stack.pop() {
            if covered.contains(&l) {
                continue;
            }
            covered.push(l);
            let below = block.nodes[l]
                .inputs
                .iter()
                .filter_map(|r| if let Ref::Local(l) = r { Some(*l) } else { None });
            stack.extend(below.filter(|l| !kept.contains(l) || own.contains(l)));
        }
        covered.sort_unstable();
        template.nodes[i].from = covered;
    }
    // new nodes without a counterpart are attributed to the nodes of their users
    for i in (0..template.nodes.len()).rev() {
        let (from, led) = (template.nodes[i].from.clone(), template.nodes[i].led.clone());
        if let Make::Op(_, _, inputs) = &template.nodes[i].make {
            let new: Vec<usize> =
                inputs.iter().filter_map(|s| if let Source::Made(j) = s { Some(*j) } else { None }).collect();
            for j in new {
                if template.nodes[j].is.is_empty() {
                    let made = &mut template.nodes[j];
                    for (list, more) in [(&mut made.from, &from), (&mut made.led, &led)] {
                        list.extend(more);
                        list.sort_unstable();
                        list.dedup();
                    }
                }
            }
        }
    }
}

/// A rebuilt graph.
struct Rebuilt {
    graph: Graph,
    /// The new value of each old node that has one.
    moved: Vec<Option<Value>>,
    /// For each new node, the old ones that it computes.
    provenance: Vec<Vec<usize>>,
    /// For each new node, the rules that produced it.
    rules: Vec<Vec<&'static str>>,
}

/// Builds the graph of templates.
///
/// # Errors
/// Errors of the builder; none, if the rules are correct.
fn rebuild(data: &GraphData, blocks: &Blocks, templates: &[Template]) -> Result<Rebuilt> {
    let g = Graph::new();
    let mut moved: Vec<Option<Value>> = vec![None; data.nodes.len()];
    let (mut provenance, mut rules) = (Vec::new(), Vec::new());
    for (i, node) in data.nodes.iter().enumerate().filter(|(_, n)| is_leaf(n)) {
        let name = node.name.as_deref().unwrap_or("");
        moved[i] = Some(match &node.kind {
            NodeKind::Parameter { trainable } => g.parameter_of(name, node.ty.clone(), *trainable),
            NodeKind::State => g.state(name, node.ty.dtype, node.ty.shape.clone()),
            _ => g.input(name, node.ty.dtype, node.ty.shape.clone()),
        });
        provenance.push(vec![i]);
        rules.push(vec![]);
    }
    for instance in &blocks.instances {
        let template = &templates[instance.block];
        let mut made: Vec<Value> = Vec::with_capacity(template.nodes.len());
        let of = |s: &Source, made: &[Value], moved: &[Option<Value>]| match *s {
            Source::External(e) => moved[instance.externals[e]],
            Source::Made(n) => made.get(n).copied(),
        };
        let lost = || Error::internal("an optimised graph reads a missing value");
        for node in &template.nodes {
            let v = match &node.make {
                Make::Constant(t) => g.constant(t.clone()),
                Make::Op(op, attrs, inputs) => {
                    let inputs: Vec<Value> = inputs
                        .iter()
                        .map(|s| of(s, &made, &moved))
                        .collect::<Option<_>>()
                        .ok_or_else(lost)?;
                    g.apply(*op, &inputs, attrs.clone())
                }
            };
            if let Some(name) = node.is.iter().find_map(|&l| data.nodes[instance.nodes[l]].name.as_deref()) {
                g.name(v, name);
            }
            made.push(v);
            provenance.push(node.from.iter().map(|&l| instance.nodes[l]).collect());
            rules.push(node.led.iter().map(|&r| super::rules::all()[r].name.as_str()).collect());
        }
        for (&l, source) in blocks.blocks[instance.block].outputs.iter().zip(&template.outputs) {
            moved[instance.nodes[l]] = Some(of(source, &made, &moved).ok_or_else(lost)?);
        }
    }
    match g.error() {
        Some(e) => Err(e),
        None => Ok(Rebuilt { graph: g, moved, provenance, rules }),
    }
}

/// A graph, the new values of the requested ones, and for each node the old ones it computes and the rules that produced it.
type Whole = (Graph, Vec<Value>, Vec<Vec<usize>>, Vec<Vec<&'static str>>);

/// The graph of templates with its outputs, states and loss; the new values of `keep`; each node's provenance and rules.
///
/// # Errors
/// The builder's error as text; none, if the rules are correct.
pub(super) fn whole(
    data: &GraphData,
    blocks: &Blocks,
    templates: &[Template],
    keep: &[Value],
) -> std::result::Result<Whole, String> {
    let Rebuilt { graph, moved, provenance, rules } =
        rebuild(data, blocks, templates).map_err(|e| e.to_string())?;
    let moved = |v: &Value| v.index().and_then(|i| moved[i]).ok_or("a result was lost");
    for (name, v) in &data.outputs {
        graph.output(name, moved(v)?);
    }
    for (state, next) in &data.next {
        graph.set_state(moved(state)?, moved(next)?);
    }
    if let Some(loss) = &data.loss {
        graph.set_loss(moved(loss)?);
    }
    match graph.error() {
        Some(e) => Err(e.to_string()),
        None => {
            let kept = keep.iter().map(moved).collect::<std::result::Result<Vec<_>, _>>()?;
            Ok((graph, kept, provenance, rules))
        }
    }
}
