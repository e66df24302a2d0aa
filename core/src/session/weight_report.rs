//! Reports the transformations of each weight at init. The plan states what each init step derives (`plan/derived`), the target
//! which weights are packed or adjacent; this module only adds names, so the report agrees with what a session does.

use super::Compiled;
use crate::device::cpu::packed_bytes;
use crate::plan::{Count, Derivation, Derived, Part, Place, Port, Uses, Values, WeightPart};
use crate::target::TargetPlan;
use crate::target::cpu::Panels;
use crate::tensor::{DType, TensorType};
use std::collections::BTreeSet;
use std::fmt;

/// A transformation of a weight at init.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let report = Compiler::new(&Device::cpu(1)).compile(&g)?.weight_report();
/// assert!(report.weights[0].applied.iter().any(|a| a.how == Transformation::Packed));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transformation {
    /// None: steps read it as loaded.
    AsItIs,
    /// It is placed adjacent to others in memory, and read with them as one.
    Adjacent {
        /// The others.
        with: Vec<String>,
    },
    /// It, or a part of it, is copied.
    Copied,
    /// Its axes are stored in another order.
    Transposed,
    /// Its elements are converted to another dtype.
    Converted {
        /// The dtype in the file.
        from: DType,
        /// The dtype as read.
        to: DType,
    },
    /// It is concatenated with others.
    Joined {
        /// The other weights in it.
        with: Vec<String>,
        /// Its part of the whole.
        part: WeightPart,
    },
    /// It is replaced by a value computed from it.
    Folded {
        /// The other weights in that computation.
        with: Vec<String>,
    },
    /// It is packed into panels for a CPU's products.
    Packed,
}

/// A transformation of a weight, with the nodes that need it and its memory.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let report = Compiler::new(&Device::cpu(1)).compile(&g)?.weight_report();
/// let applied = &report.weights[0].applied[0];
/// assert!(applied.bytes >= 64 * 64 * 4, "{applied:?}");
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The transformation.
    pub how: Transformation,
    /// Names of the graph nodes that need it; empty for weights read as loaded.
    pub by: String,
    /// Bytes of the result that a session holds in addition to the weight: for a part of a concatenation those of the part, for
    /// a value computed from several weights those of the whole.
    pub bytes: usize,
}

/// A weight with its transformations, in order; none if no step reads it.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let report = Compiler::new(&Device::cpu(1)).compile(&g)?.weight_report();
/// let weight = &report.weights[0];
/// assert_eq!((weight.name.as_str(), weight.ty.to_string()), ("w", "f32[64, 64]".to_string()));
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedWeight {
    /// Its name.
    pub name: String,
    /// Dtype and shape in the file.
    pub ty: TensorType,
    /// Whether training may change it.
    pub trainable: bool,
    /// Its transformations.
    pub applied: Vec<Applied>,
}

/// A value derived from weights at init, packed forms included. All are recomputed when a weight changes.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let report = Compiler::new(&Device::cpu(1)).compile(&g)?.weight_report();
/// assert!(report.made[0].packed && report.made[0].weights == ["w"]);
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeOfWeights {
    /// Names of the graph nodes that compute it.
    pub by: String,
    /// The weights it is derived from.
    pub weights: Vec<String>,
    /// Whether it is a packed form for a CPU's products.
    pub packed: bool,
    /// Its bytes; each value counts once.
    pub bytes: usize,
}

/// The transformations of a compiled graph's weights at init; see [`Compiled::weight_report`].
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let report = Compiler::new(&Device::cpu(1)).compile(&g)?.weight_report();
/// assert_eq!(report.weights.len(), 1);
/// assert!(report.bytes() >= 64 * 64 * 4);
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightReport {
    /// Every weight, in the graph's order.
    pub weights: Vec<ReportedWeight>,
    /// The values derived from them.
    pub made: Vec<MadeOfWeights>,
}

impl WeightReport {
    /// Bytes that a session holds for weights in addition to the weights themselves.
    pub fn bytes(&self) -> usize {
        self.made.iter().map(|m| m.bytes).sum()
    }
}

impl Compiled {
    /// Reports each weight's transformations at init: whether it is read as loaded, converted, concatenated, folded, transposed
    /// or packed, for which nodes, and in how many bytes. For the profile that the graph was compiled for; packed forms are
    /// sized for the processor that runs this call.
    pub fn weight_report(&self) -> WeightReport {
        weight_report(&self.target)
    }
}

pub(super) fn weight_report(target: &TargetPlan) -> WeightReport {
    let mut told = Told::new(target);
    for (step, derived) in target.values().derived.iter().enumerate() {
        told.at_init(step, derived);
    }
    for panels in told.panels {
        for p in told.of[panels.buffer].clone() {
            told.apply(p, Transformation::Packed, &panels.label, packed(panels));
        }
    }
    told.as_they_are();
    WeightReport { made: told.made(), weights: told.weights }
}

/// The report under construction.
struct Told<'a> {
    target: &'a TargetPlan,
    values: &'a Values,
    uses: Uses,
    /// Node names of each init step.
    labels: Vec<&'a str>,
    /// Weights packed for a CPU's products.
    panels: &'a [Panels],
    /// The parameters that each buffer is derived from.
    of: Vec<BTreeSet<usize>>,
    weights: Vec<ReportedWeight>,
}

impl<'a> Told<'a> {
    fn new(target: &'a TargetPlan) -> Told<'a> {
        let (values, uses) = (target.values(), target.uses());
        let parameter = |place: &Place| match place {
            Place::Parameter(p) => BTreeSet::from([*p]),
            _ => BTreeSet::new(),
        };
        let mut of: Vec<BTreeSet<usize>> = values.buffers.iter().map(|b| parameter(&b.place)).collect();
        for step in &uses.init {
            let from: BTreeSet<usize> = step.reads.iter().flat_map(|&b| of[b].iter().copied()).collect();
            step.writes.iter().for_each(|&b| of[b].extend(&from));
        }
        let weight = |p: &Port| ReportedWeight {
            name: p.name.clone(),
            ty: TensorType::new(p.dtype, p.shape.clone()),
            trainable: p.trainable,
            applied: vec![],
        };
        let weights = values.parameters.iter().map(weight).collect();
        let labels = target.init_labels();
        Told { target, values, uses, labels, panels: target.panels(), of, weights }
    }

    fn apply(&mut self, parameter: usize, how: Transformation, by: &str, bytes: usize) {
        self.weights[parameter].applied.push(Applied { how, by: by.into(), bytes });
    }

    /// The names of the parameters in a set, except some.
    fn names(&self, all: &BTreeSet<usize>, but: &BTreeSet<usize>) -> Vec<String> {
        all.difference(but).map(|&p| self.values.parameters[p].name.clone()).collect()
    }

    /// Adds the transformations that an init step makes of the weights it reads, directly or derived.
    fn at_init(&mut self, step: usize, derived: &Derived) {
        let Some(&out) = self.uses.init[step].writes.last() else { return };
        let reads = &self.uses.init[step].reads;
        let from: BTreeSet<usize> = reads.iter().flat_map(|b| self.of[*b].iter().copied()).collect();
        let (buffer, whole) = (&self.values.buffers[out], self.target.bytes(out));
        let elements = buffer.elements.max(1) as u128;
        let share = |part: &Part| (whole as u128 * part.elements as u128 / elements) as usize;
        let bytes = derived.part.as_ref().map_or(whole, share);
        let (others, to) = (self.names(&self.of[out], &from), buffer.dtype);
        for &p in &from {
            let mut done: Vec<Transformation> = vec![];
            match derived.how {
                Derivation::Computed => {
                    done.push(Transformation::Folded { with: self.names(&from, &BTreeSet::from([p])) });
                }
                Derivation::Moved { from, transposed } => {
                    done.extend(from.map(|from| Transformation::Converted { from, to }));
                    done.extend(transposed.then_some(Transformation::Transposed));
                }
            }
            if let Some(part) = &derived.part {
                done.push(Transformation::Joined { with: others.clone(), part: part.place });
            }
            if done.is_empty() {
                done.push(Transformation::Copied);
            }
            // all of these form one value
            let last = done.len() - 1;
            for (i, how) in done.into_iter().enumerate() {
                self.apply(p, how, self.labels[step], if i == last { bytes } else { 0 });
            }
        }
    }

    /// Adds weights that steps read directly.
    fn as_they_are(&mut self) {
        let mut read = BTreeSet::new();
        let packed = self.target.packed_weights();
        for (step, accesses) in self.uses.steps.iter().enumerate() {
            // a concatenation that is never stored, since its parts are adjacent
            if accesses.writes.iter().any(|&b| self.target.is_adjacent(b)) {
                continue;
            }
            for &b in &accesses.reads {
                let from_panels = packed[step] == Some(b) && self.panels.iter().any(|p| p.buffer == b);
                if let (Place::Parameter(p), false) = (&self.values.buffers[b].place, from_panels) {
                    read.insert(*p);
                }
            }
        }
        for run in self.target.adjacent() {
            let all: BTreeSet<usize> = run.iter().copied().collect();
            for &p in run {
                let with = self.names(&all, &BTreeSet::from([p]));
                self.apply(p, Transformation::Adjacent { with }, "", 0);
            }
        }
        read.into_iter().for_each(|p| self.apply(p, Transformation::AsItIs, "", 0));
    }

    /// Values derived from weights: results of init steps, and packed forms.
    fn made(&self) -> Vec<MadeOfWeights> {
        let none = BTreeSet::new();
        let value = |(id, writers): (usize, &[usize])| {
            let labels: Vec<&str> = writers.iter().map(|&s| self.labels[s]).collect();
            let weights = self.names(&self.of[id], &none);
            let (by, bytes) = (labels.join(" & "), self.target.bytes(id));
            let made = MadeOfWeights { by, weights, packed: false, bytes };
            (!labels.is_empty() && !self.of[id].is_empty()).then_some(made)
        };
        let values = self.uses.init_writers.iter().enumerate().filter_map(value);
        let panels = self.panels.iter().filter(|p| !self.of[p.buffer].is_empty());
        let panels = panels.map(|p| MadeOfWeights {
            by: p.label.clone(),
            weights: self.names(&self.of[p.buffer], &none),
            packed: true,
            bytes: packed(p),
        });
        values.chain(panels).collect()
    }
}

/// Bytes of a packed weight, on this processor.
fn packed(panels: &Panels) -> usize {
    let [k, n] = panels.sizes;
    packed_bytes(panels.dtype, k, n)
}

impl fmt::Display for Transformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let and = |names: &[String]| match names.is_empty() {
            true => String::new(),
            false => format!(" with {}", names.join(", ")),
        };
        match self {
            Transformation::AsItIs => write!(f, "read as it is"),
            Transformation::Adjacent { with } => write!(f, "laid beside {}", with.join(", ")),
            Transformation::Copied => write!(f, "copied"),
            Transformation::Transposed => write!(f, "transposed"),
            Transformation::Converted { from, to } => write!(f, "converted from {from} to {to}"),
            Transformation::Joined { with, part } => write!(f, "joined{}: {part}", and(with)),
            Transformation::Folded { with } => write!(f, "folded{}", and(with)),
            Transformation::Packed => write!(f, "packed"),
        }
    }
}

impl fmt::Display for WeightPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let WeightPart { of, from, to, all } = self;
        let of = match of {
            Count::Rows => "rows",
            Count::Columns => "columns",
            Count::Elements => "elements",
        };
        write!(f, "{of} {from} to {to} of {all}")
    }
}

#[cfg(all(test, feature = "compiler"))]
mod tests;
