//! Def-use analysis: the steps that write and read each buffer of a plan, for passes, the verifier and reports.

use super::{BufferId, Form, Place, Plan, Step, Values, Work};

/// The buffers that one step accesses, without duplicates, in the order of its operands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Buffers that it reads.
    pub reads: Vec<BufferId>,
    /// Buffers that it writes; the last is its result.
    pub writes: Vec<BufferId>,
}

impl Accesses {
    /// The accesses of a step's work.
    pub fn of<G: Form>(work: &Work<G>) -> Accesses {
        let mut a = Accesses::default();
        work.for_each_operand(&mut |o, written| {
            let of = if written { &mut a.writes } else { &mut a.reads };
            if !of.contains(&o.buffer) {
                of.push(o.buffer);
            }
        });
        a
    }

    /// All of them, sorted, without duplicates.
    pub fn all(&self) -> Vec<BufferId> {
        let mut all = [self.reads.as_slice(), &self.writes].concat();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// Writers and readers of all buffers.
#[derive(Debug, Clone, Default)]
pub struct Uses {
    /// The accesses of each step.
    pub steps: Vec<Accesses>,
    /// The accesses of each init step.
    pub init: Vec<Accesses>,
    /// For each buffer, the steps that write it, in order.
    pub writers: Vec<Vec<usize>>,
    /// For each buffer, the steps that read it, in order.
    pub readers: Vec<Vec<usize>>,
    /// For each buffer, the init steps that write it, in order.
    pub init_writers: Vec<Vec<usize>>,
}

impl Uses {
    /// The analysis of a plan.
    pub fn of<G: Form>(plan: &Plan<G>) -> Uses {
        let accesses = |steps: &[Step<G>]| steps.iter().map(|s| Accesses::of(&s.work)).collect();
        Uses::of_accesses(plan, accesses(&plan.steps), accesses(&plan.init_steps))
    }

    fn of_accesses(plan: &Values, steps: Vec<Accesses>, init: Vec<Accesses>) -> Uses {
        let by_buffer = |all: &[Accesses], of: fn(&Accesses) -> &Vec<BufferId>| {
            let mut found = vec![vec![]; plan.buffers.len()];
            for (i, a) in all.iter().enumerate() {
                of(a).iter().for_each(|&b| found[b].push(i));
            }
            found
        };
        Uses {
            writers: by_buffer(&steps, |a| &a.writes),
            readers: by_buffer(&steps, |a| &a.reads),
            init_writers: by_buffer(&init, |a| &a.writes),
            steps,
            init,
        }
    }

    /// Whether a buffer is scratch that a single step writes, and that only steps read.
    pub fn is_inner(&self, plan: &Values, b: BufferId) -> bool {
        matches!(plan.buffers[b].place, Place::Scratch)
            && self.writers[b].len() == 1
            && plan.gradients.iter().all(|g| g.buffer != b)
    }

    /// Whether init steps write a buffer.
    pub fn at_init(&self, b: BufferId) -> bool {
        !self.init_writers[b].is_empty()
    }

    /// The first and last step that access a buffer, if any. Gradients live until the last step.
    pub fn life(&self, plan: &Values, b: BufferId) -> Option<(usize, usize)> {
        let both = [&self.writers[b], &self.readers[b]];
        let first = both.iter().filter_map(|s| s.first()).min()?;
        let last = both.iter().filter_map(|s| s.last()).max()?;
        let kept = plan.gradients.iter().any(|g| g.buffer == b);
        Some((*first, if kept { self.steps.len() } else { *last }))
    }

    /// The buffers that init steps derive from parameters: when a parameter changes, they must be recomputed.
    pub fn of_parameters(&self, plan: &Values) -> Vec<bool> {
        let mut of = vec![false; plan.buffers.len()];
        for a in &self.init {
            let reads = |&b: &BufferId| of[b] || matches!(plan.buffers[b].place, Place::Parameter(_));
            if a.reads.iter().any(reads) {
                a.writes.iter().for_each(|&b| of[b] = true);
            }
        }
        of
    }
}
