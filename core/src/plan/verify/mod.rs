//! Checks a plan that may have come from anywhere: one that passes reads and writes inside its buffers and nowhere
//! else, on the CPU device and on GPUs, whatever the data. The planner puts its own plans through it too.
//!
//! What the executors rely on, and so what is checked:
//!
//! * **Sizes** (`reach`): every axis has 1 to 2⁴⁰ positions, every domain and buffer at most 2⁴⁰ elements, a step at
//!   most 2⁶⁰ operations, so that no product of sizes overflows where it is not looked for.
//! * **Operands** (`reach`): the buffer is there and of the operand's dtype (a fused step sees i64, and may see two f16 or
//!   bf16, as u32); offset and strides, over all of the domain, stay inside it. What executors take as contiguous fits
//!   from its offset on, whatever its strides say.
//! * **Results** (`reach`): lie in the arena or in memory of the session, never in a constant or parameter (which
//!   other sessions share) or an input; no two positions share an address, since threads write them side by side; a
//!   step's result lies in none of the buffers it reads, but where a look-up changes its table in place (indices are
//!   checked before they are followed, and must not change in between).
//! * **Tapes** (`tape`): registers read earlier ones of the kinds that the instruction is for; loads, reductions and
//!   index strides exist; a reduction needs only earlier ones; what is stored once a row does not vary along it.
//! * **Forms** (`plan/forms`): dtypes that the kernels have; shapes of one step that agree with each other; geometry of
//!   windows by which every window holds an element; weights that are packed once are constants, parameters or what
//!   ran once.
//! * **Order** (`order`): a step reads what an earlier one has written; what runs once reads constants and, in plans without
//!   gradients, parameters. (Where scratch lies is a target's to decide, and to verify.)
//! * **Writers** (`writers`): results that are parts of one buffer have no element in common, those of one step and those of
//!   several, since they are written at the same time.
//! * **Refusals** (`order`): a look-up whose indices the steps compute comes before every step that changes a state, so that
//!   a step that is refused has changed none. The indices of others are there before the first step.
//! * **Borders** (`order`): ports are buffers of their type; no two parameters have one name, which finds their memory; inputs, outputs and states have one each, of their own;
//!   gradients are f32 and as long as their parameters.
//!
//! Not checked: that a plan computes something sensible, ends soon, or takes little memory
//! (`Compiled::memory_summary` tells that before anything is allocated).

mod order;
mod reach;
mod tape;
mod writers;

pub(crate) use reach::{MOST, MOST_POSITION, adjacent, all_f32, bounded, count};

use super::{Form, Plan, Values};
use std::fmt;

/// What is wrong with a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Where: a step, a buffer, a port.
    pub part: String,
    /// What was wanted.
    pub wanted: String,
    /// What came.
    pub came: String,
    /// Nothing is wrong but a size, which is more than kernels count.
    pub too_large: bool,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: wanted {}, found {}", self.part, self.wanted, self.came)
    }
}

/// What was checked, or the first flaw.
pub type Checked<T> = std::result::Result<T, Flaw>;

pub(crate) fn refuse<T>(wanted: impl fmt::Display, came: impl fmt::Display) -> Checked<T> {
    Err(Flaw { part: String::new(), wanted: wanted.to_string(), came: came.to_string(), too_large: false })
}

/// Refuses a size that is more than kernels count.
pub(crate) fn too_large<T>(wanted: impl fmt::Display, came: impl fmt::Display) -> Checked<T> {
    refuse(wanted, came).map_err(|flaw| Flaw { too_large: true, ..flaw })
}

/// Says where a flaw was found, if nothing nearer did.
pub(crate) fn inside<T>(checked: Checked<T>, part: impl FnOnce() -> String) -> Checked<T> {
    checked.map_err(|flaw| if flaw.part.is_empty() { Flaw { part: part(), ..flaw } } else { flaw })
}

/// Whether a plan keeps to its buffers: see the module.
///
/// # Errors
/// The first flaw.
pub fn verify<G: Form>(plan: &Plan<G>) -> std::result::Result<(), Flaw> {
    let checker = Checker { plan };
    checker.buffers()?;
    checker.ports()?;
    inside(checker.derived(plan.init_steps.len()), || "what steps at init make".into())?;
    for (at, step) in plan.init_steps.iter().chain(&plan.steps).enumerate() {
        inside(step.work.verify(&checker), || format!("step {at} ({})", step.label))?;
    }
    order::order(plan)?;
    writers::writers(plan)
}

/// A plan being checked.
#[derive(Debug)]
pub struct Checker<'a> {
    plan: &'a Values,
}
