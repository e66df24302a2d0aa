//! Several small independent steps in one dispatch, each with a range of the workgroups. Launching a dispatch takes a GPU some
//! microseconds, during which steps of a few workgroups would leave it idle.

use super::{lookup, rowwise};
use crate::profile::Limits;
use crate::target::gpu::forms::Work;
use crate::target::gpu::storage::Storage;
use crate::target::gpu::wgsl::source::{Binding, Kernel, Source};
use crate::target::gpu::wgsl::walk;

/// Maximum bindings of a shared dispatch, if the device allows that many.
const BINDINGS: usize = 12;
/// Maximum steps of a dispatch. Each is a branch nested in the previous one, and llvmpipe silently drops code nested deeper
/// than 80 (`LP_MAX_TGSI_NESTING` in Mesa's lp_limits.h).
const STEPS: usize = 32;
/// Maximum workgroups of a step that shares a dispatch: larger ones fill a device by themselves.
const SMALL: u32 = 4096;

/// A step's work as part of a shared kernel: WGSL that uses `wid` and `lid`, and its workgroups.
pub struct Share {
    /// The body of a function.
    pub body: String,
    /// Threads of a workgroup.
    pub threads: usize,
    /// Workgroups, folded.
    pub grid: [u32; 3],
}

/// Whether a step's only kernel may share a dispatch: pointwise work, puts in place, checks of labels, and reductions that
/// leave most of a device idle.
pub fn shares(work: &Work, kernel: &Kernel, limits: &Limits) -> bool {
    let facts = work.facts();
    let small = facts.depth == 0 || (kernel.groups[0] as usize) < limits.units;
    facts.shares && small && kernel.groups[1] == 1 && kernel.groups[0] <= SMALL
}

/// Whether two kernels together are within the limit on bindings.
pub fn may_join(a: &Kernel, b: &Kernel, limits: &Limits) -> bool {
    let known = |x: &&Binding| a.bindings.iter().any(|y| (y.slot, y.view) == (x.slot, x.view));
    a.bindings.len() + b.bindings.iter().filter(|x| !known(x)).count() <= BINDINGS.min(limits.bindings)
}

/// The workgroup size that steps need (pointwise work accepts any); `None` if they need different ones.
fn common<'a>(works: impl Iterator<Item = &'a Work>, limits: &Limits) -> Option<Option<usize>> {
    let mut threads = None;
    for work in works {
        let needed = match work {
            Work::Rowwise(w) if rowwise::is_pointwise(w) => continue,
            Work::Rowwise(w) => rowwise::threads(w, limits),
            _ => lookup::THREADS,
        };
        if *threads.get_or_insert(needed) != needed {
            return None;
        }
    }
    Some(threads)
}

/// One kernel for steps that share a dispatch, each with its look-up's number; `None` if they do not fit in one.
pub fn joined(works: &[(&Work, usize)], storage: &Storage, limits: &Limits) -> Option<Kernel> {
    if works.len() > STEPS {
        return None;
    }
    let mut source = Source::new(storage);
    let (mut text, mut first) = (String::new(), 0u32);
    let mut threads = common(works.iter().map(|w| w.0), limits)?;
    for (i, (work, report)) in works.iter().enumerate() {
        let share = match work {
            Work::Rowwise(w) if rowwise::is_pointwise(w) => {
                rowwise::elements(&mut source, w, limits, threads)
            }
            Work::Rowwise(w) => rowwise::reduction(&mut source, w, limits, &format!("_{i}")),
            Work::Index(w) => lookup::part(&mut source, w, *report, storage, &i.to_string()),
            _ => return None,
        };
        if *threads.get_or_insert(share.threads) != share.threads {
            return None;
        }
        source.function(format!("fn part{i}(wid: vec3<u32>, lid: u32) {{\n{}\n}}", share.body));
        let last = i + 1 == works.len();
        let (end, own) = (first + share.grid[0], format!("vec3<u32>(wid.x - {first}u, 0u, 0u)"));
        text += &match last {
            false => format!("if (wid.x < {end}u) {{ part{i}({own}, lid); return; }}\n"),
            true => format!("part{i}({own}, lid);"),
        };
        first = end;
    }
    let kernel = source.finish(&rowwise::entry(threads?, &text), [first, 1, 1]);
    let few = kernel.bindings.len() <= BINDINGS.min(limits.bindings);
    (few && first as usize <= walk::MOST_GROUPS).then_some(kernel)
}
