//! What becomes of each weight before the first step: which are read as they are, and what is made of the others. All of
//! it is read off the plan and the device's profile, so that it is what a session does; artifacts store nothing of it.

use super::Compiled;
use crate::device::cpu::packed_bytes;
use crate::expr::Instr;
use crate::plan::{BufferId, Operand, Place, Plan, Rowwise, Step, Uses, Work};
use crate::target::TargetPlan;
use crate::target::cpu::Panels;
use crate::tensor::{DType, TensorType};
use std::collections::BTreeSet;
use std::fmt;

/// What is done with a weight.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let treatment = Compiler::new(&Device::cpu(1)).compile(&g)?.treatment();
/// assert!(treatment.weights[0].applied.iter().any(|a| a.how == Transformation::Packed));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transformation {
    /// Steps read it as it is.
    AsItIs,
    /// It is laid in memory beside others, which are read with it as one.
    Beside {
        /// The others.
        with: Vec<String>,
    },
    /// It is copied, or a part of it.
    Copied,
    /// It is stored by another axis.
    Turned,
    /// Its elements are stored as another type.
    Converted {
        /// The type in the file.
        from: DType,
        /// The type it is read as.
        to: DType,
    },
    /// It becomes a part of a larger one.
    Joined {
        /// The other weights in it.
        with: Vec<String>,
        /// Which part.
        part: WeightPart,
    },
    /// Something is computed from it that stands for it.
    Folded {
        /// The other weights that it is computed from.
        with: Vec<String>,
    },
    /// It is laid out in the panels that a CPU's products read.
    Packed,
}

/// A part of a joined weight, from up to before which of how many.
///
/// ```
/// use weft::session::{Count, Transformation, TreatedWeight, WeightPart};
///
/// /// Where a weight lies in what it was joined to.
/// fn part_of(weight: &TreatedWeight) -> Option<WeightPart> {
///     weight.applied.iter().find_map(|applied| match &applied.how {
///         Transformation::Joined { part, .. } => Some(*part),
///         _ => None,
///     })
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WeightPart {
    /// What is counted.
    pub of: Count,
    /// The first.
    pub from: usize,
    /// One past the last.
    pub to: usize,
    /// How many the whole has.
    pub all: usize,
}

/// What a [`WeightPart`] counts.
///
/// ```
/// use weft::session::{Count, WeightPart};
///
/// let upper = WeightPart { of: Count::Rows, from: 0, to: 64, all: 128 };
/// assert!(upper.of == Count::Rows && upper.to < upper.all);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Rows as they lie in memory.
    Rows,
    /// Columns as they lie in memory.
    Columns,
    /// Elements as they lie in memory.
    Elements,
}

/// A transformation of a weight, with whose work it is and what it takes.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let treatment = Compiler::new(&Device::cpu(1)).compile(&g)?.treatment();
/// let applied = &treatment.weights[0].applied[0];
/// assert!(applied.bytes >= 64 * 64 * 4, "{applied:?}");
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// What is done.
    pub how: Transformation,
    /// The names of the graph's nodes that it is done for; none for what is read as it is.
    pub by: String,
    /// Bytes that a session holds of the result beside the weight: for a part of what is joined those of the part, for
    /// what is computed from several weights those of the whole.
    pub bytes: usize,
}

/// A weight with what is done with it, in order; nothing where no step reads it.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let treatment = Compiler::new(&Device::cpu(1)).compile(&g)?.treatment();
/// let weight = &treatment.weights[0];
/// assert_eq!((weight.name.as_str(), weight.ty.to_string()), ("w", "f32[64, 64]".to_string()));
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreatedWeight {
    /// Its name.
    pub name: String,
    /// Dtype and shape in the file.
    pub ty: TensorType,
    /// Whether training may change it.
    pub trainable: bool,
    /// What is done.
    pub applied: Vec<Applied>,
}

/// A value that is made of weights at init and stays, packed forms among them. All are made anew when a weight changes.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let treatment = Compiler::new(&Device::cpu(1)).compile(&g)?.treatment();
/// assert!(treatment.made[0].packed && treatment.made[0].weights == ["w"]);
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeOfWeights {
    /// The names of the graph's nodes whose work it is.
    pub by: String,
    /// The weights in it.
    pub weights: Vec<String>,
    /// Whether it is the panels of a CPU's products.
    pub packed: bool,
    /// Bytes that it takes, each value's once.
    pub bytes: usize,
}

/// What becomes of a compiled graph's weights before the first step; see [`Compiled::treatment`].
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Transformation;
///
/// let g = Graph::new();
/// let w = g.parameter("w", [64, 64]);
/// g.output("y", g.linear(g.input("x", DType::F32, [8, 64]), w, None));
/// let treatment = Compiler::new(&Device::cpu(1)).compile(&g)?.treatment();
/// assert_eq!(treatment.weights.len(), 1);
/// assert!(treatment.bytes() >= 64 * 64 * 4);
/// # let _ = Transformation::Packed;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Treatment {
    /// Every weight once, in the graph's order.
    pub weights: Vec<TreatedWeight>,
    /// What is made of them.
    pub made: Vec<MadeOfWeights>,
}

impl Treatment {
    /// Bytes that a session holds of weights beside the weights themselves.
    pub fn bytes(&self) -> usize {
        self.made.iter().map(|m| m.bytes).sum()
    }
}

impl Compiled {
    /// What becomes of each weight before the first step: whether it is read as it is, converted, joined with others,
    /// folded into something else, turned or packed, for which nodes, and what that takes. It is told for the profile that
    /// the graph was compiled for; packed forms are as large as they are on the processor that this runs on.
    pub fn treatment(&self) -> Treatment {
        treatment(&self.target)
    }
}

pub(super) fn treatment(target: &TargetPlan) -> Treatment {
    let plan = &**target.plan();
    let mut look = Look::new(plan, target);
    plan.init_steps.iter().for_each(|step| look.at_init(step));
    for panels in look.panels {
        for p in look.of[panels.buffer].clone() {
            look.apply(p, Transformation::Packed, &panels.label, packed(panels));
        }
    }
    look.as_they_are();
    Treatment { made: look.made(), weights: look.weights }
}

/// What is found while a plan is looked through.
struct Look<'a> {
    plan: &'a Plan,
    target: &'a TargetPlan,
    uses: Uses,
    /// Weights in the panels of a CPU's products.
    panels: &'a [Panels],
    /// The parameters that each buffer is made of.
    of: Vec<BTreeSet<usize>>,
    weights: Vec<TreatedWeight>,
}

impl<'a> Look<'a> {
    fn new(plan: &'a Plan, target: &'a TargetPlan) -> Look<'a> {
        let parameter = |place: &Place| match place {
            Place::Parameter(p) => BTreeSet::from([*p]),
            _ => BTreeSet::new(),
        };
        let mut of: Vec<BTreeSet<usize>> = plan.buffers.iter().map(|b| parameter(&b.place)).collect();
        let uses = Uses::of(plan);
        for step in &uses.init {
            let from: BTreeSet<usize> = step.reads.iter().flat_map(|&b| of[b].iter().copied()).collect();
            step.writes.iter().for_each(|&b| of[b].extend(&from));
        }
        let weight = |p: &crate::plan::Port| TreatedWeight {
            name: p.name.clone(),
            ty: TensorType::new(p.dtype, p.shape.clone()),
            trainable: p.trainable,
            applied: vec![],
        };
        let panels: &[Panels] = match target {
            TargetPlan::Cpu(lowered) => &lowered.panels,
            TargetPlan::Gpu(_) => &[],
        };
        Look { plan, target, uses, panels, of, weights: plan.parameters.iter().map(weight).collect() }
    }

    fn apply(&mut self, parameter: usize, how: Transformation, by: &str, bytes: usize) {
        self.weights[parameter].applied.push(Applied { how, by: by.into(), bytes });
    }

    /// The names of the parameters in a set but for some.
    fn names(&self, all: &BTreeSet<usize>, but: &BTreeSet<usize>) -> Vec<String> {
        all.difference(but).map(|&p| self.plan.parameters[p].name.clone()).collect()
    }

    /// What a step that runs once does with the weights that it reads, themselves or what is made of them.
    fn at_init(&mut self, step: &Step) {
        let mut read: BTreeSet<BufferId> = BTreeSet::new();
        let mut out = None;
        step.work.for_each_operand(&mut |o, written| match written {
            true => out = Some(o.clone()),
            false => drop(read.insert(o.buffer)),
        });
        let Some(out) = out else { return };
        let from: BTreeSet<usize> = read.iter().flat_map(|b| self.of[*b].iter().copied()).collect();
        let (to, whole) = (self.plan.buffers[out.buffer].dtype, self.target.bytes(out.buffer));
        let joined = self.uses.init_writers[out.buffer].len() > 1;
        let part = joined.then(|| part(&step.work, &out, self.plan));
        let elements = self.plan.buffers[out.buffer].elements.max(1);
        let bytes = part.map_or(whole, |(_, n)| (whole as u128 * n as u128 / elements as u128) as usize);
        let others = self.names(&self.of[out.buffer], &from);
        for &p in &from {
            let mut done: Vec<Transformation> = vec![];
            match copied(&step.work) {
                Some(source) => {
                    let dtype = self.plan.buffers[source.buffer].dtype;
                    if dtype != to {
                        done.push(Transformation::Converted { from: dtype, to });
                    }
                    if turns(&step.work, source, &out) {
                        done.push(Transformation::Turned);
                    }
                }
                None => done.push(Transformation::Folded { with: self.names(&from, &BTreeSet::from([p])) }),
            }
            if let Some((part, _)) = part {
                done.push(Transformation::Joined { with: others.clone(), part });
            }
            if done.is_empty() {
                done.push(Transformation::Copied);
            }
            // all of these are one value
            let last = done.len() - 1;
            for (i, how) in done.into_iter().enumerate() {
                self.apply(p, how, &step.label, if i == last { bytes } else { 0 });
            }
        }
    }

    /// Weights that steps read themselves.
    fn as_they_are(&mut self) {
        let mut read = BTreeSet::new();
        for (step, accesses) in self.plan.steps.iter().zip(&self.uses.steps) {
            // a concatenation that is never made, since its parts lie beside each other
            let adjoined = accesses.writes.iter().any(|&b| self.target.is_adjacent(b));
            let packed = |o: &Operand| match &step.work {
                Work::Product(p) => p.b_is_weight && p.b == *o && self.is_packed(o.buffer),
                _ => false,
            };
            step.work.for_each_operand(&mut |o, written| {
                if let (false, false, Place::Parameter(p)) =
                    (written, adjoined, &self.plan.buffers[o.buffer].place)
                    && !packed(o)
                {
                    read.insert(*p);
                }
            });
        }
        for run in self.target.adjacent() {
            let all: BTreeSet<usize> = run.iter().copied().collect();
            for &p in run {
                let with = self.names(&all, &BTreeSet::from([p]));
                self.apply(p, Transformation::Beside { with }, "", 0);
            }
        }
        read.into_iter().for_each(|p| self.apply(p, Transformation::AsItIs, "", 0));
    }

    fn is_packed(&self, buffer: BufferId) -> bool {
        self.panels.iter().any(|p| p.buffer == buffer)
    }

    /// What is made of weights: values of steps that run once, and packed forms.
    fn made(&self) -> Vec<MadeOfWeights> {
        let none = BTreeSet::new();
        let label = |&s: &usize| self.plan.init_steps[s].label.as_str();
        let value = |(id, writers): (usize, &Vec<usize>)| {
            let labels: Vec<&str> = writers.iter().map(label).collect();
            let weights = self.names(&self.of[id], &none);
            let made = MadeOfWeights {
                by: labels.join(" & "),
                weights,
                packed: false,
                bytes: self.target.bytes(id),
            };
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

/// Bytes of a weight in panels, on this processor.
fn packed(panels: &Panels) -> usize {
    let [k, n] = panels.sizes;
    packed_bytes(panels.dtype, k, n)
}

/// What a step reads that only copies it.
fn copied(work: &Work) -> Option<&Operand> {
    match work {
        Work::Dequantise(from, _) => Some(from),
        Work::Rowwise(Rowwise { operands, tape, reductions, extra_outputs, .. }) => {
            let moves = |(i, _): &(Instr, _)| matches!(i, Instr::Load(_) | Instr::Cast(..));
            let copies = reductions.is_empty() && extra_outputs.is_empty() && tape.code.iter().all(moves);
            operands.first().filter(|_| copies && operands.len() == 1)
        }
        Work::Product(_)
        | Work::Convolution(_)
        | Work::Attention(_)
        | Work::AttentionGrad(_)
        | Work::Index(_)
        | Work::Scan(_)
        | Work::Pool(_) => None,
    }
}

/// Whether a copy's elements lie by other axes than its source's.
fn turns(work: &Work, from: &Operand, to: &Operand) -> bool {
    let Work::Rowwise(w) = work else { return false };
    let walked = |a: &usize| w.domain[*a] != 1 && from.strides[*a] != 0;
    let mut axes: Vec<usize> = (0..w.domain.len()).filter(walked).collect();
    crate::order::sort_by_key(&mut axes, |&a| std::cmp::Reverse(to.strides[a]));
    axes.windows(2).any(|pair| from.strides[pair[0]] < from.strides[pair[1]])
}

/// Which part of its buffer a step writes, and how many elements that are.
fn part(work: &Work, out: &Operand, plan: &Plan) -> (WeightPart, usize) {
    let whole = &plan.buffers[out.buffer];
    let domain: Vec<usize> = match work {
        Work::Rowwise(w) => {
            let kept = |(n, reduced): (&usize, &bool)| if w.per_row && *reduced { 1 } else { *n };
            w.domain.iter().zip(&w.reduced).map(kept).collect()
        }
        Work::Product(w) => [w.batch.as_slice(), &[w.m, w.n]].concat(),
        Work::Convolution(_)
        | Work::Attention(_)
        | Work::AttentionGrad(_)
        | Work::Index(_)
        | Work::Scan(_)
        | Work::Pool(_)
        | Work::Dequantise(..) => vec![whole.elements],
    };
    // copies move narrow elements two at a time, and the halves of wide ones
    let scaled = |n: usize| match (out.dtype.bytes(n), whole.dtype.bytes(1)) {
        (Some(bytes), Some(each)) if each > 0 => bytes / each,
        _ => n,
    };
    let elements = domain.iter().product::<usize>();
    let mut axes: Vec<(usize, usize)> = domain
        .iter()
        .zip(out.strides.iter().chain(std::iter::repeat(&1)))
        .filter(|(n, _)| **n != 1)
        .map(|(n, s)| (*n, s.unsigned_abs()))
        .collect();
    crate::order::sort_by_key(&mut axes, |a| std::cmp::Reverse(a.1));
    let offset = out.offset.max(0) as usize;
    let part = match axes.as_slice() {
        [(rows, row), (columns, 1)] if columns == row => WeightPart {
            of: Count::Rows,
            from: offset / row,
            to: offset / row + rows,
            all: whole.elements / scaled(*row).max(1),
        },
        [(_, row), (columns, 1)] if *row > 0 => {
            let from = offset % row;
            WeightPart {
                of: Count::Columns,
                from: scaled(from),
                to: scaled(from + columns),
                all: scaled(*row),
            }
        }
        _ => WeightPart {
            of: Count::Elements,
            from: scaled(offset),
            to: scaled(offset + elements),
            all: whole.elements,
        },
    };
    (part, scaled(elements))
}

impl fmt::Display for Transformation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let and = |names: &[String]| match names.is_empty() {
            true => String::new(),
            false => format!(" with {}", names.join(", ")),
        };
        match self {
            Transformation::AsItIs => write!(f, "read as it is"),
            Transformation::Beside { with } => write!(f, "laid beside {}", with.join(", ")),
            Transformation::Copied => write!(f, "copied"),
            Transformation::Turned => write!(f, "turned"),
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
