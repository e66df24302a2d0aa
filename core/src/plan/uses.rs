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

/// For each buffer, some steps, in order. All lists lie in one array, since plans have thousands of buffers.
#[derive(Debug, Clone, Default)]
pub struct StepsOf {
    steps: Vec<usize>,
    /// Where each buffer's steps begin, and the end of the last.
    begin: Vec<usize>,
}

impl StepsOf {
    fn new(buffers: usize, all: &[Accesses], of: fn(&Accesses) -> &Vec<BufferId>) -> StepsOf {
        let mut begin = vec![0; buffers + 1];
        all.iter().flat_map(of).for_each(|&b| begin[b + 1] += 1);
        (0..buffers).for_each(|b| begin[b + 1] += begin[b]);
        let (mut next, mut steps) = (begin.clone(), vec![0; begin[buffers]]);
        for (step, accesses) in all.iter().enumerate() {
            for &b in of(accesses) {
                steps[next[b]] = step;
                next[b] += 1;
            }
        }
        StepsOf { steps, begin }
    }

    /// The lists of all buffers.
    pub fn iter(&self) -> impl Iterator<Item = &[usize]> {
        self.begin.windows(2).map(|ends| &self.steps[ends[0]..ends[1]])
    }
}

impl std::ops::Index<BufferId> for StepsOf {
    type Output = [usize];

    fn index(&self, b: BufferId) -> &[usize] {
        &self.steps[self.begin[b]..self.begin[b + 1]]
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
    pub writers: StepsOf,
    /// For each buffer, the steps that read it, in order.
    pub readers: StepsOf,
    /// For each buffer, the init steps that write it, in order.
    pub init_writers: StepsOf,
    /// Whether each buffer holds a gradient.
    pub gradients: Vec<bool>,
}

impl Uses {
    /// The analysis of a plan.
    pub fn of<G: Form>(plan: &Plan<G>) -> Uses {
        let accesses = |steps: &[Step<G>]| steps.iter().map(|s| Accesses::of(&s.work)).collect();
        Uses::of_accesses(plan, accesses(&plan.steps), accesses(&plan.init_steps))
    }

    fn of_accesses(plan: &Values, steps: Vec<Accesses>, init: Vec<Accesses>) -> Uses {
        let buffers = plan.buffers.len();
        let mut gradients = vec![false; buffers];
        plan.gradients.iter().for_each(|g| gradients[g.buffer] = true);
        Uses {
            gradients,
            writers: StepsOf::new(buffers, &steps, |a| &a.writes),
            readers: StepsOf::new(buffers, &steps, |a| &a.reads),
            init_writers: StepsOf::new(buffers, &init, |a| &a.writes),
            steps,
            init,
        }
    }

    /// Whether a buffer is scratch that a single step writes, and that only steps read.
    pub fn is_inner(&self, plan: &Values, b: BufferId) -> bool {
        matches!(plan.buffers[b].place, Place::Scratch) && self.writers[b].len() == 1 && !self.gradients[b]
    }

    /// Whether init steps write a buffer.
    pub fn at_init(&self, b: BufferId) -> bool {
        !self.init_writers[b].is_empty()
    }

    /// The first and last step that access a buffer, if any. Gradients live until the last step.
    pub fn life(&self, b: BufferId) -> Option<(usize, usize)> {
        let both = [&self.writers[b], &self.readers[b]];
        let first = both.iter().filter_map(|s| s.first()).min()?;
        let last = both.iter().filter_map(|s| s.last()).max()?;
        Some((*first, if self.gradients[b] { self.steps.len() } else { *last }))
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
