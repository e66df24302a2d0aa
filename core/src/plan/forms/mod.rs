//! The forms of work, a file and a row each. A form's file says all that passes, checks, costs and bytes ask of it ([`Form`]); the
//! row in [`Work`] gives it its number in bytes. Whoever plans it (`lower_steps`) and whoever runs it (`device/cpu`, and
//! `target/gpu` with how its operands are stored) does the rest.

mod attention;
mod convolution;
mod dequantise;
mod lookup;
mod pool;
mod product;
mod rowwise;
mod scan;

pub use attention::{Attention, AttentionGrad, AttentionInputs, Pages};
pub use convolution::Convolution;
pub use dequantise::Dequantise;
pub use lookup::{IndexKind, IndexWork};
pub use pool::Pool;
pub use product::{Epilogue, Product};
pub use rowwise::{RowResult, Rowwise};
pub use scan::Scan;

use super::verify::Checker;
use super::wire::{Damage, Read, Reader, Writer};
use super::{BufferId, Checked, Facts, Operand, StepCost};
use std::convert::Infallible;
use std::fmt::Debug;

/// What a form of work says of itself.
pub trait Form: Debug + Clone + Sized {
    /// Calls `f` with every operand; the written one last, with `true`.
    fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool));

    /// Calls `f` with every result that may be a part of its buffer, and the sizes that it is walked over, its own result last.
    /// Others are all of their buffers.
    fn for_each_result(&self, _: &mut dyn FnMut(&Operand, &[usize])) {}

    /// Every operand, to be changed.
    fn operands_mut(&mut self) -> Vec<&mut Operand>;

    /// What it is.
    fn facts(&self) -> Facts;

    /// Adds what it moves and computes.
    fn add_cost(&self, to: &mut StepCost);

    /// Checks what kernels take for granted.
    ///
    /// # Errors
    /// The first flaw.
    fn verify(&self, checker: &Checker<'_>) -> Checked<()>;

    /// The weight that it packs once, if it does.
    fn packed_weight(&self) -> Option<BufferId> {
        None
    }

    /// Writes itself; forms of one device's own write their number first.
    fn write(&self, to: &mut Writer);

    /// Reads the form of that number, if it is one of these.
    ///
    /// # Errors
    /// What is damaged.
    fn read(number: u8, from: &mut Reader) -> Read<Option<Self>>;
}

/// Defines the forms of work, by number, and asks each what is asked of the work.
macro_rules! forms {
    ($( $(#[doc = $doc:literal])+ $name:ident($form:ty) = $number:literal, )+) => {
        /// The forms of work. `G` are those that only one kind of device has.
        #[derive(Debug, Clone)]
        pub enum Work<G = Infallible> {
            $( $(#[doc = $doc])+ $name($form), )+
            /// A form that only one kind of device has.
            Own(G),
        }

        impl<G> Work<G> {
            /// The same work where a form of one device's own is another device's work; `None` where it is not.
            pub(super) fn map_own<H>(self, map: impl FnOnce(G) -> Option<Work<H>>) -> Option<Work<H>> {
                match self {
                    $( Work::$name(w) => Some(Work::$name(w)), )+
                    Work::Own(own) => map(own),
                }
            }
        }

        impl<G: Form> Work<G> {
            /// Calls `f` with every operand; the written one last, with `true`.
            pub fn for_each_operand(&self, f: &mut dyn FnMut(&Operand, bool)) {
                match self {
                    $( Work::$name(w) => w.for_each_operand(f), )+
                    Work::Own(w) => w.for_each_operand(f),
                }
            }

            /// Calls `f` with every result that may be a part of its buffer, and the sizes that it is walked over, its own last.
            pub fn for_each_result(&self, f: &mut dyn FnMut(&Operand, &[usize])) {
                match self {
                    $( Work::$name(w) => w.for_each_result(f), )+
                    Work::Own(w) => w.for_each_result(f),
                }
            }

            /// Every operand, to be changed.
            pub fn operands_mut(&mut self) -> Vec<&mut Operand> {
                match self {
                    $( Work::$name(w) => w.operands_mut(), )+
                    Work::Own(w) => w.operands_mut(),
                }
            }

            /// What it is.
            pub fn facts(&self) -> Facts {
                match self {
                    $( Work::$name(w) => w.facts(), )+
                    Work::Own(w) => w.facts(),
                }
            }

            /// Adds what it moves and computes.
            pub(super) fn add_cost(&self, to: &mut StepCost) {
                match self {
                    $( Work::$name(w) => w.add_cost(to), )+
                    Work::Own(w) => w.add_cost(to),
                }
            }

            /// Checks what kernels take for granted.
            pub(super) fn verify(&self, checker: &Checker<'_>) -> Checked<()> {
                match self {
                    $( Work::$name(w) => w.verify(checker), )+
                    Work::Own(w) => w.verify(checker),
                }
            }

            /// The weight that it packs once, if it does.
            pub fn packed_weight(&self) -> Option<BufferId> {
                match self {
                    $( Work::$name(w) => w.packed_weight(), )+
                    Work::Own(w) => w.packed_weight(),
                }
            }

            /// Writes its number and itself.
            pub(crate) fn write(&self, to: &mut Writer) {
                match self {
                    $( Work::$name(w) => {
                        to.byte($number);
                        w.write(to);
                    } )+
                    Work::Own(w) => w.write(to),
                }
            }

            /// Reads work of that number.
            pub(super) fn read(number: u8, from: &mut Reader) -> Read<Option<Self>> {
                Ok(match number {
                    $( $number => <$form>::read(number, from)?.map(Work::$name), )+
                    other => G::read(other, from)?.map(Work::Own),
                })
            }
        }
    };
}

forms! {
    /// Pointwise expressions and reductions.
    Rowwise(Rowwise) = 0,
    /// Matrix products.
    Product(Product) = 1,
    /// Convolutions.
    Convolution(Convolution) = 2,
    /// Attention.
    Attention(Attention) = 3,
    /// The gradient of attention, for devices that have it as one step (`PlanOptions::attention_grad`).
    AttentionGrad(AttentionGrad) = 4,
    /// Table look-ups and their like.
    Index(IndexWork) = 5,
    /// Running sum.
    Scan(Scan) = 6,
    /// Pooling.
    Pool(Pool) = 7,
    /// A block format widened to f32.
    Dequantise(Dequantise) = 8,
}

impl<G: Form> Work<G> {
    /// What sort of work it is, in words.
    pub fn sort(&self) -> &'static str {
        self.facts().sort
    }
}

impl Reader {
    /// Work of any form.
    ///
    /// # Errors
    /// What is damaged.
    pub(super) fn work<G: Form>(&mut self) -> Read<Work<G>> {
        let number = self.byte()?;
        let found = Work::read(number, self)?;
        found.ok_or_else(|| Damage::new("a form of work", format!("number {number}")))
    }
}

/// No form at all.
impl Form for Infallible {
    fn for_each_operand(&self, _: &mut dyn FnMut(&Operand, bool)) {
        match *self {}
    }

    fn operands_mut(&mut self) -> Vec<&mut Operand> {
        match *self {}
    }

    fn facts(&self) -> Facts {
        match *self {}
    }

    fn add_cost(&self, _: &mut StepCost) {
        match *self {}
    }

    fn verify(&self, _: &Checker<'_>) -> Checked<()> {
        match *self {}
    }

    fn write(&self, _: &mut Writer) {
        match *self {}
    }

    fn read(_: u8, _: &mut Reader) -> Read<Option<Self>> {
        Ok(None)
    }
}

#[cfg(all(test, feature = "samples"))]
mod tests {
    use crate::graph::Graph;
    use crate::plan::{Accesses, PlanOptions, plan};

    #[test]
    fn operands_that_are_changed_are_those_that_are_read_and_written() {
        let mut forms = std::collections::HashSet::new();
        for op in crate::ops::all() {
            for sample in op.samples() {
                let g = Graph::new();
                let input = |(i, a): (usize, &crate::graph::Array)| {
                    g.input(&format!("x{i}"), a.ty.dtype, a.ty.shape.clone())
                };
                let inputs: Vec<_> = sample.inputs.iter().enumerate().map(input).collect();
                g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
                let options = PlanOptions { attention_grad: true, ..Default::default() };
                for step in plan(&g, &options).unwrap().steps {
                    let mut work = step.work.clone();
                    // numbers of their own, in the order in which they come up
                    let mut seen = vec![];
                    work.for_each_operand(&mut |o, _| seen.push((o.buffer, o.offset, o.strides.clone())));
                    let mut changed: Vec<_> =
                        work.operands_mut().iter().map(|o| (o.buffer, o.offset, o.strides.clone())).collect();
                    seen.sort();
                    changed.sort();
                    assert_eq!(seen, changed, "{}", op.name());
                    work.operands_mut().into_iter().for_each(|o| o.buffer += 1000);
                    assert!(Accesses::of(&work).all().iter().all(|b| *b >= 1000), "{}", op.name());
                    forms.insert(work.sort());
                }
            }
        }
        assert!(forms.len() >= 9, "{forms:?}");
    }
}
