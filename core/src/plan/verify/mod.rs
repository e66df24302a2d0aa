//! Verifies a plan from an untrusted source: a plan that passes accesses its own buffers only, on the CPU device and on GPUs,
//! whatever the data. The planner also verifies its own plans.
//!
//! Checked, since the executors rely on it:
//!
//! * **Sizes** (`reach`): every axis has 1 to 2⁴⁰ positions, every domain and buffer at most 2⁴⁰ elements, a step at
//!   most 2⁶⁰ operations, so that no unchecked product of sizes overflows.
//! * **Operands** (`reach`): the buffer exists and has the operand's dtype (a fused step sees i64, and may see two f16 or
//!   bf16, as u32); offset and strides stay inside it over the whole domain. Operands that executors treat as contiguous
//!   fit from their offset on, whatever their strides are.
//! * **Results** (`reach`): are in the arena or in memory of the session, never in a constant or parameter (which
//!   other sessions share) or an input; no two positions share an address, since threads write them concurrently; a
//!   step's result overlaps none of the buffers it reads, except where a look-up updates its table in place (indices are
//!   checked before they are used, and must not change in between).
//! * **Tapes** (`tape`): instructions read earlier registers of suitable kinds; loads, reductions and index strides
//!   exist; a reduction depends on earlier ones only; a per-row result does not vary along the row.
//! * **Declarations** (`declared`): what a step declares, for passes to read, is true of its code and its operands.
//! * **Forms** (`plan/forms`): dtypes that the kernels support; consistent shapes; window geometry in which every window
//!   contains an element; weights that are packed once are constants, parameters or results of init steps.
//! * **Order** (`order`): a step reads what an earlier one has written; init steps read constants and, in plans without
//!   gradients, parameters. (A target assigns, and verifies, the addresses of scratch.)
//! * **Writers** (`writers`): results that are parts of one buffer are disjoint, those of one step and those of several,
//!   since they are written concurrently.
//! * **Refusals** (`order`): a look-up whose indices the steps compute comes before every step that changes a state, so
//!   that a refused step has changed none. The indices of the others are known before the first step.
//! * **Ports** (`order`): ports are buffers of their type; parameters have distinct names, by which their memory is found;
//!   inputs, outputs and states have buffers of their own; gradients are f32 and as long as their parameters.
//!
//! Not checked: whether a plan computes something sensible, ends soon, or takes little memory (`Compiled::memory_summary`
//! reports memory before it is allocated).

mod declared;
mod order;
mod reach;
mod tape;
mod writers;

pub(crate) use reach::{MOST, MOST_POSITION, adjacent, all_f32, bounded, count};

use super::{Form, Plan, Values};
use std::fmt;

/// A flaw in a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The place: a step, a buffer, a port.
    pub part: String,
    /// What was wanted.
    pub wanted: String,
    /// What came.
    pub came: String,
    /// Whether the only flaw is a size that exceeds what kernels can count.
    pub too_large: bool,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: wanted {}, found {}", self.part, self.wanted, self.came)
    }
}

/// The verified value, or the first flaw: boxed, so that results of checks fit into registers.
pub type Checked<T> = std::result::Result<T, Box<Flaw>>;

pub(crate) fn refuse<T>(wanted: impl fmt::Display, came: impl fmt::Display) -> Checked<T> {
    let (wanted, came) = (wanted.to_string(), came.to_string());
    Err(Box::new(Flaw { part: String::new(), wanted, came, too_large: false }))
}

/// Refuses a size that exceeds what kernels can count.
pub(crate) fn too_large<T>(wanted: impl fmt::Display, came: impl fmt::Display) -> Checked<T> {
    refuse(wanted, came).map_err(|mut flaw: Box<Flaw>| {
        flaw.too_large = true;
        flaw
    })
}

/// Adds the place of a flaw, unless it has one already.
pub(crate) fn inside<T>(checked: Checked<T>, part: impl FnOnce() -> String) -> Checked<T> {
    checked.map_err(|mut flaw| {
        if flaw.part.is_empty() {
            flaw.part = part();
        }
        flaw
    })
}

/// Verifies a plan: see the module.
///
/// # Errors
/// The first flaw.
pub fn verify<G: Form>(plan: &Plan<G>) -> Checked<()> {
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
