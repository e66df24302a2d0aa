//! Memory layout of the buffers that a schedule's dispatches bind: scratch shares an arena by lifetimes counted in levels;
//! persistent buffers go to a heap of the session. Parameters and states are stored with their sets, which sessions share.

use super::ALIGN;
use super::schedule::{Bound, Dispatch, Schedule};
use super::storage::Storage;
use crate::plan::memory::{self, Lifetime};
use crate::plan::{BufferId, Place};
use crate::target::gpu::forms::Plan;
use std::collections::HashMap;

/// A byte range in a heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Offset in the heap.
    pub at: usize,
    /// Bytes.
    pub bytes: usize,
}

/// Regions of buffers and scratch.
#[derive(Debug, Clone)]
pub struct Memory {
    /// Regions of each buffer's pieces, in the arena or in the session's heap. Empty for parameters and states.
    pub places: Vec<Vec<Region>>,
    /// Scratch of steps, in the arena.
    pub scratch: Vec<Region>,
    /// Bytes of the arena.
    pub arena: usize,
    /// Bytes of the session's own heap.
    pub own: usize,
}

/// An object with a lifetime: a buffer of the plan, or scratch of a step.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    Buffer(BufferId),
    Scratch(usize),
}

fn touches(d: &Dispatch) -> impl Iterator<Item = Thing> + '_ {
    d.slots.iter().filter_map(|bound| match *bound {
        Bound::Buffer(id, _) => Some(Thing::Buffer(id)),
        Bound::Scratch(i) => Some(Thing::Scratch(i)),
        Bound::Errors => None,
    })
}

impl Memory {
    /// Assigns regions to the plan's buffers and the steps' scratch.
    pub(super) fn place(plan: &Plan, storage: &Storage, schedule: &Schedule) -> Memory {
        let (lives, end) = lives(plan, schedule);
        let chunk = storage.binding;
        let (mut arena, mut own) = (Vec::new(), Vec::new());
        for (id, buffer) in plan.buffers.iter().enumerate() {
            let bytes = storage.buffers[id].bytes();
            let pieces = (0..storage.pieces(id)).map(|i| (id, (bytes - i * chunk).min(chunk)));
            match (&buffer.place, lives.get(&Thing::Buffer(id))) {
                (Place::Parameter(_) | Place::State(_), _) | (Place::Scratch, None) => {}
                (Place::Scratch, Some(&(from, to))) => {
                    arena.extend(pieces.map(|(id, bytes)| (id, Lifetime { bytes, from, to })));
                }
                (Place::Own | Place::Constant(_), _) => {
                    own.extend(pieces.map(|(id, bytes)| (id, Lifetime { bytes, from: 0, to: 1 })));
                }
            }
        }
        let buffers = arena.len();
        for (i, &bytes) in schedule.scratch.iter().enumerate() {
            let (from, to) = lives.get(&Thing::Scratch(i)).copied().unwrap_or((0, end));
            arena.push((i, Lifetime { bytes, from, to }));
        }
        let lay = |all: &[(usize, Lifetime)]| {
            let lifetimes: Vec<Lifetime> = all.iter().map(|l| l.1).collect();
            memory::place(&lifetimes, ALIGN, chunk)
        };
        let ((in_arena, arena_bytes), (in_own, own_bytes)) = (lay(&arena), lay(&own));
        let mut m = Memory {
            places: vec![vec![]; plan.buffers.len()],
            scratch: vec![Region { at: 0, bytes: 0 }; schedule.scratch.len()],
            arena: arena_bytes,
            own: own_bytes,
        };
        for (n, ((id, life), at)) in arena.iter().zip(in_arena).enumerate() {
            let region = Region { at, bytes: life.bytes };
            if n < buffers {
                m.places[*id].push(region);
            } else {
                m.scratch[*id] = region;
            }
        }
        for ((id, life), at) in own.iter().zip(in_own) {
            m.places[*id].push(Region { at, bytes: life.bytes });
        }
        m
    }
}

/// The live range of each object as levels (first, last), and one past the last level.
fn lives(plan: &Plan, schedule: &Schedule) -> (HashMap<Thing, (usize, usize)>, usize) {
    let mut lives: HashMap<Thing, (usize, usize)> = HashMap::new();
    let mut level = 0;
    for d in &schedule.steps {
        level += usize::from(d.barrier);
        touches(d).for_each(|thing| lives.entry(thing).or_insert((level, level)).1 = level);
    }
    let end = level + 1;
    // results of init steps persist; buffers read after the step live until its end
    for thing in schedule.init_steps.iter().flat_map(touches).filter(|t| matches!(t, Thing::Scratch(_))) {
        lives.insert(thing, (0, end));
    }
    let gradients = plan.gradients.iter().map(|g| g.buffer);
    for id in gradients.chain(schedule.lookups.iter().map(|l| l.indices.buffer)) {
        if let Some(life) = lives.get_mut(&Thing::Buffer(id)) {
            life.1 = end;
        }
    }
    (lives, end)
}
