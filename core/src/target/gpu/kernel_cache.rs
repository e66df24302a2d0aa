//! Kernels that are written once and used by every step that does the same with other buffers: a model's layers have
//! equal steps, and writing the texts of all of them took most of the time that loading an artifact takes.
//!
//! What a kernel depends on is its step in the form of an artifact ([`Writer`]), buffers numbered as they come up, and
//! how these are held: equal bytes, equal kernels but for the buffers they bind. The form is complete by construction,
//! since a field of a step that is not written there does not compile. In which words look-ups report is left out of it
//! and put into the text.

use super::kernels::{self, Made, Precision, shared};
use super::storage::{BufferStorage, ElementStorage, Form, Storage};
use super::wgsl::source::{Kernel, Slot};
use crate::error::Result;
use crate::plan::wire::Writer;
use crate::plan::{BufferId, Form as _};
use crate::profile::Limits;
use crate::profile::{Cut, ProductClass};
use crate::target::gpu::forms::Work;
use std::collections::HashMap;
use std::sync::Arc;

/// What kernels are written from beside their steps.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// How buffers are held.
    pub storage: &'a Storage,
    /// What the device can do.
    pub limits: &'a Limits,
    /// How exactly it computes.
    pub precision: Precision,
    /// Products that are cut as was measured.
    pub cuts: &'a [(ProductClass, Cut)],
    /// Every step's kernels are written anew, to see that it makes no difference.
    pub anew: bool,
}

/// The kernels of a program while it is written.
pub struct KernelCache<'a> {
    setting: Setting<'a>,
    known: HashMap<Vec<u8>, Known>,
    /// How often kernels were written.
    pub count: usize,
}

/// Kernels of a form; buffers in their bindings are numbered as in the form.
struct Known {
    kernels: Vec<Kernel>,
    scratch: Vec<usize>,
    /// In which words the look-ups of the steps report in its texts.
    reports: Vec<usize>,
}

impl<'a> KernelCache<'a> {
    /// None written yet.
    pub fn new(setting: Setting<'a>) -> KernelCache<'a> {
        KernelCache { setting, known: HashMap::new(), count: 0 }
    }

    /// How buffers are stored.
    pub fn storage(&self) -> &'a Storage {
        self.setting.storage
    }

    /// What the device can do.
    pub fn limits(&self) -> &'a Limits {
        self.setting.limits
    }

    /// The kernels of a step: see [`kernels::kernels`].
    ///
    /// # Errors
    /// Work that has no kernel on this device.
    pub fn kernels(&mut self, work: &Work, report: usize) -> Result<Made> {
        let Setting { storage, limits, precision, cuts, .. } = self.setting;
        let write = || kernels::kernels(work, report, storage, limits, precision, cuts);
        self.of(&[(work, report)], write)
    }

    /// One kernel for steps that share a dispatch: see [`shared::joined`].
    pub fn joined(&mut self, works: &[(&Work, usize)]) -> Option<Kernel> {
        let Setting { storage, limits, .. } = self.setting;
        let write = || {
            let kernels = shared::joined(works, storage, limits).into_iter().collect();
            Ok(Made { kernels, scratch: vec![] })
        };
        self.of(works, write).ok()?.kernels.pop()
    }

    fn of(&mut self, works: &[(&Work, usize)], write: impl FnOnce() -> Result<Made>) -> Result<Made> {
        if self.setting.anew {
            self.count += 1;
            return write();
        }
        let (form, buffers) = form(works, self.setting.storage);
        // others have a number, too, which means nothing
        let looks_up = |w: &&(&Work, usize)| matches!(w.0, Work::Index(_));
        let reports: Vec<usize> = works.iter().filter(looks_up).map(|w| w.1).collect();
        if let Some(known) = self.known.get(&form) {
            return Ok(known.over(&buffers, &reports));
        }
        self.count += 1;
        let made = write()?;
        if let Some(kernels) = numbered(&made.kernels, &buffers) {
            self.known.insert(form, Known { kernels, scratch: made.scratch.clone(), reports });
        }
        Ok(made)
    }
}

impl Known {
    /// The kernels over those buffers, reporting in those words.
    fn over(&self, buffers: &[BufferId], reports: &[usize]) -> Made {
        let kernel = |known: &Kernel| {
            let mut kernel = known.clone();
            for b in &mut kernel.bindings {
                if let Slot::Buffer(id, _) = &mut b.slot {
                    *id = buffers[*id];
                }
            }
            match reports == self.reports || kernel.reports.is_empty() {
                true => kernel,
                false => kernel.reporting(&self.reports, reports),
            }
        };
        Made { kernels: self.kernels.iter().map(kernel).collect(), scratch: self.scratch.clone() }
    }
}

/// The kernels with the places of their buffers among those; `None` if one binds another.
fn numbered(kernels: &[Kernel], buffers: &[BufferId]) -> Option<Vec<Kernel>> {
    let mut all = kernels.to_vec();
    for b in all.iter_mut().flat_map(|k| &mut k.bindings) {
        if let Slot::Buffer(id, _) = &mut b.slot {
            *id = buffers.iter().position(|b| b == id)?;
        }
    }
    Some(all)
}

/// What the kernel of steps depends on, and the buffers in it.
fn form(works: &[(&Work, usize)], storage: &Storage) -> (Vec<u8>, Vec<BufferId>) {
    let mut w = Writer::by_order();
    w.list(works, |w, (work, _)| work.write(w));
    // those that a buffer is made of come up while it is written
    let mut next = 0;
    while let Some(&id) = w.met().get(next) {
        let BufferStorage { dtype, elements, form } = &storage.buffers[id];
        w.code(*dtype);
        w.size(*elements);
        match form {
            Form::Stored(elements) => w.byte(match elements {
                ElementStorage::Packed => 0,
                ElementStorage::U32 => 1,
                ElementStorage::F16 => 2,
            }),
            Form::Decoded(from) => {
                w.byte(3);
                w.id(*from);
            }
            Form::Computed(value) => {
                w.byte(4);
                storage.computed[*value].work.write(&mut w);
            }
            Form::Concat(view) => {
                w.byte(5);
                w.flag(view.adjacent);
                w.list(&view.parts, |w, part| {
                    w.size(part.start);
                    w.operand(&part.from);
                });
            }
        }
        next += 1;
    }
    let buffers = w.met().to_vec();
    (w.out, buffers)
}

/// A program's distinct texts.
#[derive(Default)]
pub struct Texts {
    /// Those that kernels share, by where they lie: kernels of equal steps need no comparison.
    shared: HashMap<usize, usize>,
    known: HashMap<Arc<str>, usize>,
    all: Vec<Arc<str>>,
}

impl Texts {
    /// The number of a text, which must live until all are numbered.
    pub fn number(&mut self, text: &Arc<str>) -> usize {
        let Texts { shared, known, all } = self;
        *shared.entry(text.as_ptr() as usize).or_insert_with(|| {
            *known.entry(text.clone()).or_insert_with(|| {
                all.push(text.clone());
                all.len() - 1
            })
        })
    }

    /// All, by number.
    pub fn all(&self) -> Vec<String> {
        self.all.iter().map(|t| t.to_string()).collect()
    }
}
