//! Attributes of operations: a declared, ordered list of named constants.

use crate::tensor::DType;
use std::fmt;

/// The value of an attribute.
///
/// ```
/// use weft::graph::{Attr, AttrKind};
///
/// let axes = Attr::Ints(vec![0, -1]);
/// assert_eq!((axes.kind(), axes.to_string()), (AttrKind::Ints, "[0, -1]".to_string()));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Attr {
    /// A whole number.
    Int(i64),
    /// A list of whole numbers: axes, sizes.
    Ints(Vec<i64>),
    /// A real number.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// An element type.
    DType(DType),
}

/// The type of an attribute.
///
/// ```
/// use weft::graph::AttrKind;
///
/// let softmax = weft::ops::find("softmax").expect("an operation");
/// assert_eq!(softmax.attributes()[0].kind, AttrKind::Int);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttrKind {
    /// [`Attr::Int`]
    Int,
    /// [`Attr::Ints`]
    Ints,
    /// [`Attr::Float`]
    Float,
    /// [`Attr::Bool`]
    Bool,
    /// [`Attr::DType`]
    DType,
}

impl Attr {
    /// The type of the value.
    pub fn kind(&self) -> AttrKind {
        match self {
            Attr::Int(_) => AttrKind::Int,
            Attr::Ints(_) => AttrKind::Ints,
            Attr::Float(_) => AttrKind::Float,
            Attr::Bool(_) => AttrKind::Bool,
            Attr::DType(_) => AttrKind::DType,
        }
    }
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Attr::Int(v) => write!(f, "{v}"),
            Attr::Ints(v) => write!(f, "{v:?}"),
            Attr::Float(v) => write!(f, "{v:?}"),
            Attr::Bool(v) => write!(f, "{v}"),
            Attr::DType(v) => write!(f, "{v}"),
        }
    }
}

/// One declared attribute of an operation.
///
/// ```
/// let softmax = weft::ops::find("softmax").expect("an operation");
/// let axis = &softmax.attributes()[0];
/// assert_eq!((axis.name, axis.about, axis.default), ("axis", "The axis that sums to 1.", None));
///
/// let defaults = |op: &str| -> Vec<_> {
///     weft::ops::find(op).expect("an operation").attributes().iter().map(|a| a.default.unwrap_or("")).collect()
/// };
/// assert_eq!(defaults("max_pool1d"), ["", "kernel", "0"]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct AttrSpec {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: AttrKind,
    /// What it means, in a few words.
    pub about: &'static str,
    /// Its default, where interfaces let it be omitted: a literal in Rust ("[1, 1]", "10_000.0"), or the name of the attribute
    /// whose value it takes. The text form and [`Graph::apply`](super::Graph::apply) state every attribute.
    pub default: Option<&'static str>,
}

/// The attributes of one node, in the order the operation declares them. All are always present.
///
/// ```
/// use weft::graph::{Attr, Attrs};
///
/// let attrs = Attrs::none().with("axes", Attr::Ints(vec![1])).with("keepdim", Attr::Bool(true));
/// assert_eq!((attrs.ints("axes"), attrs.bool("keepdim")), (&[1][..], true));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Attrs(pub Vec<(&'static str, Attr)>);

impl Attrs {
    /// No attributes.
    pub fn none() -> Self {
        Attrs(Vec::new())
    }

    /// Adds one (builder style).
    pub fn with(mut self, name: &'static str, value: Attr) -> Self {
        self.0.push((name, value));
        self
    }

    /// The attribute of that name.
    pub fn get(&self, name: &str) -> Option<&Attr> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    /// An integer; 0 if it is absent (the builder has checked that it is present).
    pub fn int(&self, name: &str) -> i64 {
        if let Some(Attr::Int(v)) = self.get(name) { *v } else { 0 }
    }

    /// A list; empty if absent.
    pub fn ints(&self, name: &str) -> &[i64] {
        if let Some(Attr::Ints(v)) = self.get(name) { v } else { &[] }
    }

    /// A list of sizes; negative numbers become 0, which inference refuses.
    pub fn sizes(&self, name: &str) -> Vec<usize> {
        self.ints(name).iter().map(|&v| usize::try_from(v).unwrap_or(0)).collect()
    }

    /// A real number; 0 if absent.
    pub fn float(&self, name: &str) -> f64 {
        if let Some(Attr::Float(v)) = self.get(name) { *v } else { 0.0 }
    }

    /// A boolean; false if absent.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Attr::Bool(true)))
    }

    /// An element type; f32 if absent.
    pub fn dtype(&self, name: &str) -> DType {
        if let Some(Attr::DType(v)) = self.get(name) { *v } else { DType::F32 }
    }
}
