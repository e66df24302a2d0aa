//! Every operation, declared once, one file per family, and the table [`OPS`], from which everything else is derived: the
//! builder's methods, the text form, the tests. Adding an operation changes its file and this table.

// descriptions contain shapes in brackets, which are not links
#![allow(rustdoc::broken_intra_doc_links)]

#[macro_use]
mod declare;
mod attention;
mod convolution;
mod emit;
mod lookup;
mod loss;
mod movement;
mod norm;
mod paged;
mod pointwise;
mod pooling;
mod position;
mod product;
mod quantise;
mod random;
mod reduction;
mod samples;
mod term;
pub(crate) mod widen;

pub use attention::AttentionOptions;
pub use convolution::{Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, ConvolutionOptions};
pub use loss::CrossEntropyOptions;
pub use paged::PagedAttentionOptions;
pub use pooling::{AvgPool1dOptions, AvgPool2dOptions, MaxPool1dOptions, MaxPool2dOptions};
pub use position::RopeOptions;
pub use term::Term;

use crate::error::Result;
use crate::graph::{Graph, Op, parse};

/// Every operation.
pub static OPS: &[&[&dyn Op]] = &[
    pointwise::FAMILY,
    movement::FAMILY,
    reduction::FAMILY,
    product::FAMILY,
    norm::FAMILY,
    loss::FAMILY,
    convolution::FAMILY,
    pooling::FAMILY,
    attention::FAMILY,
    paged::FAMILY,
    lookup::FAMILY,
    position::FAMILY,
    random::FAMILY,
    quantise::FAMILY,
];

/// All operations, in the table's order.
pub fn all() -> impl Iterator<Item = &'static dyn Op> {
    OPS.iter().flat_map(|family| family.iter().copied())
}

/// The operation of that name.
pub fn find(name: &str) -> Option<&'static dyn Op> {
    all().find(|op| op.name() == name)
}

/// Whether an operation is in the table: not if it only has the name of one that is.
pub fn is_own(op: &dyn Op) -> bool {
    find(op.name()).is_some_and(|own| own == op)
}

impl Graph {
    /// Parses a graph's text form (described in the module `graph::text`).
    ///
    /// # Errors
    /// [`Error::Parse`](crate::error::Error::Parse) with line and column, [`Error::Cycle`](crate::error::Error::Cycle), or an
    /// operation's refusal.
    pub fn parse(text: &str) -> Result<Graph> {
        parse(text, find)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_documented() {
        let mut names: Vec<&str> = all().map(|op| op.name()).collect();
        assert!(all().all(|op| op.about().len() > 8), "an operation without a description");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
