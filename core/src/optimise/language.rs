//! The e-graph's language, generated from the table of operations: one constructor per operation, with its inputs first and
//! then its attributes. Independent of particular operations.
//!
//! In addition there are `(Leaf i)`, an external value; `(Full v dtype shape)`, a uniform constant; `(Absent)` for an absent
//! optional input; `(Cons x rest)` and `(Nil)` for lists of inputs; `(Foreign i inputs)` for an operation that is not in the
//! table, which no rule matches. The functions `shape` and `dtype` and the relation `weight` (known once the weights are)
//! describe a class; `place` is the position of a weight among the leaves, also when seen through operations on it alone; a
//! class that depends on several weights has none.

use super::sorts::{self, Ints};
use crate::graph::{Attr, AttrKind, Attrs, Inputs, Op};
use crate::ops;
use crate::process::Own;
use crate::tensor::DType;
use egglog::sort::{F, S};
use egglog::{EGraph, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// An operation's constructor.
pub(super) struct Head {
    pub name: String,
    pub op: &'static dyn Op,
}

impl Head {
    /// Maximum number of inputs; `None` for a list.
    pub fn slots(&self) -> Option<usize> {
        match self.op.inputs() {
            Inputs::Fixed(names) => Some(names.len()),
            Inputs::Optional(must, may) => Some(must.len() + may.len()),
            Inputs::Variadic(_) => None,
        }
    }

    /// Arguments that are nodes.
    pub fn nodes(&self) -> usize {
        self.slots().unwrap_or(1)
    }
}

/// Every constructor.
pub(super) struct Language {
    heads: Vec<Head>,
    by_op: BTreeMap<&'static str, usize>,
    by_name: BTreeMap<String, usize>,
    text: String,
}

/// The part of the language that does not depend on the operations.
const COMMON: &str = "(sort Node) (sort Nodes)
(constructor Leaf (i64) Node) (constructor Full (f64 String Ints) Node) (constructor Absent () Node)
(constructor Nil () Nodes) (constructor Cons (Node Nodes) Nodes)
(function shape (Node) Ints :merge old) (function dtype (Node) String :merge old)
(relation weight (Node)) (function place (Node) i64 :merge (min old new)) (relation origin (Node i64)) (ruleset weft)
(constructor Foreign (i64 Nodes) Node) (ruleset facts) (relation scaled (Node Node f64)) (relation halved (Node Node Node))
(relation cubed (Node Node f64)) (relation not-below-zero (Node))
";

const COMMON_NAMES: [&str; 6] = ["Leaf", "Full", "Absent", "Nil", "Cons", "Foreign"];

impl Language {
    pub fn get() -> &'static Language {
        static LANGUAGE: Own<OnceLock<Language>> = Own::new(OnceLock::new);
        LANGUAGE.get_or_init(|| {
            let heads: Vec<Head> = ops::all().map(|op| Head { name: camel(op.name()), op }).collect();
            let by_op = heads.iter().enumerate().map(|(i, h)| (h.op.name(), i)).collect();
            let by_name = heads.iter().enumerate().map(|(i, h)| (h.name.clone(), i)).collect();
            let text = heads.iter().map(declaration).collect();
            Language { heads, by_op, by_name, text }
        })
    }

    pub fn len(&self) -> usize {
        self.heads.len()
    }

    pub fn head(&self, index: usize) -> &Head {
        &self.heads[index]
    }

    /// Its constructor; `None` for an operation that is not in the table, regardless of its name.
    pub fn of(&self, op: &dyn Op) -> Option<usize> {
        self.by_op.get(op.name()).copied().filter(|&i| self.heads[i].op == op)
    }

    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// Whether there is a constructor of that name.
    #[cfg(test)]
    pub fn knows(&self, name: &str) -> bool {
        self.by_name.contains_key(name) || COMMON_NAMES.contains(&name)
    }

    /// Names of all constructors.
    #[cfg(test)]
    pub fn names(&self) -> BTreeSet<String> {
        self.by_name.keys().cloned().chain(COMMON_NAMES.map(String::from)).collect()
    }

    /// Declarations of all constructors.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// An e-graph with some constructors, and no rules.
    pub fn egraph(&self, names: &BTreeSet<String>) -> Result<EGraph, egglog::Error> {
        let mut eg = EGraph::default();
        sorts::register(&mut eg)?;
        let wanted = names.iter().filter(|n| !COMMON_NAMES.contains(&n.as_str()));
        let declared = wanted.filter_map(|n| self.find(n)).map(|i| declaration(&self.heads[i]));
        let text: String = [COMMON.to_string()].into_iter().chain(declared).collect();
        eg.parse_and_run_program(None, &text)?;
        Ok(eg)
    }
}

/// `layer_norm` as `LayerNorm`.
fn camel(name: &str) -> String {
    let word = |w: &str| w[..1].to_ascii_uppercase() + &w[1..];
    name.split('_').filter(|w| !w.is_empty()).map(word).collect()
}

fn declaration(head: &Head) -> String {
    let nodes = match head.slots() {
        Some(n) => vec!["Node"; n],
        None => vec!["Nodes"],
    };
    let attrs = head.op.attributes().iter().map(|a| match a.kind {
        AttrKind::Int => "i64",
        AttrKind::Ints => "Ints",
        AttrKind::Float => "f64",
        AttrKind::Bool => "bool",
        AttrKind::DType => "String",
    });
    let all: Vec<&str> = nodes.into_iter().chain(attrs).collect();
    format!("(constructor {} ({}) Node)\n", head.name, all.join(" "))
}

/// An attribute as the e-graph's value.
pub(super) fn attr_value(eg: &EGraph, attr: &Attr) -> Value {
    match attr {
        Attr::Int(v) => eg.base_to_value(*v),
        Attr::Ints(v) => eg.base_to_value(Ints::of(v.iter().copied())),
        Attr::Float(v) => eg.base_to_value(F::from(egglog::sort::OrderedFloat(*v))),
        Attr::Bool(v) => eg.base_to_value(*v),
        Attr::DType(v) => eg.base_to_value(S::new(v.to_string())),
    }
}

/// The attributes of an operation from the e-graph's values; `None` if a dtype has no such name.
pub(super) fn attrs_of(eg: &EGraph, op: &dyn Op, values: &[Value]) -> Option<Attrs> {
    let read = |(spec, &v): (&crate::graph::AttrSpec, &Value)| {
        let attr = match spec.kind {
            AttrKind::Int => Attr::Int(eg.value_to_base(v)),
            AttrKind::Ints => Attr::Ints(eg.value_to_base::<Ints>(v).0.to_vec()),
            AttrKind::Float => Attr::Float(eg.value_to_base::<F>(v).0.0),
            AttrKind::Bool => Attr::Bool(eg.value_to_base(v)),
            AttrKind::DType => Attr::DType(dtype_of(&eg.value_to_base::<S>(v))?),
        };
        Some((spec.name, attr))
    };
    op.attributes().iter().zip(values).map(read).collect::<Option<Vec<_>>>().map(Attrs)
}

/// The dtype of that name.
pub(super) fn dtype_of(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|d| d.name() == name)
}
