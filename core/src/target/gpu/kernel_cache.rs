//! Caches kernels within a program: steps that differ only in their buffers share a kernel. The layers of a model have equal
//! steps, and generating the text of each took most of an artifact's loading time.
//!
//! The key is the step in serialised form ([`Writer`]) with buffers numbered by first use, and the storage of these buffers.
//! Equal bytes mean equal kernels except for the bound buffers. The key is complete by construction, since a field of a step
//! that is not serialised does not compile. The word of the error buffer that a look-up reports to is not part of the key; it
//! is patched into the text.

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

/// The inputs of kernel generation other than the steps.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// How buffers are stored.
    pub storage: &'a Storage,
    /// The device's limits.
    pub limits: &'a Limits,
    /// Precision.
    pub precision: Precision,
    /// Measured tilings of products.
    pub cuts: &'a [(ProductClass, Cut)],
    /// Bypasses the cache, for tests that compare both programs.
    pub anew: bool,
}

/// The kernel cache of a program under construction.
pub struct KernelCache<'a> {
    setting: Setting<'a>,
    known: HashMap<Vec<u8>, Known>,
    /// Number of kernel generations.
    pub count: usize,
}

/// Cached kernels of a key; buffers in their bindings are numbered as in the key.
struct Known {
    kernels: Vec<Kernel>,
    scratch: Vec<usize>,
    /// Words of the error buffer that its look-ups report to.
    reports: Vec<usize>,
}

impl<'a> KernelCache<'a> {
    /// An empty cache.
    pub fn new(setting: Setting<'a>) -> KernelCache<'a> {
        KernelCache { setting, known: HashMap::new(), count: 0 }
    }

    /// How buffers are stored.
    pub fn storage(&self) -> &'a Storage {
        self.setting.storage
    }

    /// The device's limits.
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
        // other steps have a report number, too, but do not use it
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
    /// The kernels bound to those buffers, reporting to those words.
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

/// The kernels with bindings replaced by positions in `buffers`; `None` if one binds another buffer.
fn numbered(kernels: &[Kernel], buffers: &[BufferId]) -> Option<Vec<Kernel>> {
    let mut all = kernels.to_vec();
    for b in all.iter_mut().flat_map(|k| &mut k.bindings) {
        if let Slot::Buffer(id, _) = &mut b.slot {
            *id = buffers.iter().position(|b| b == id)?;
        }
    }
    Some(all)
}

/// The cache key of steps, and the buffers in it.
fn form(works: &[(&Work, usize)], storage: &Storage) -> (Vec<u8>, Vec<BufferId>) {
    let mut w = Writer::by_order();
    w.list(works, |w, (work, _)| work.write(w));
    // the buffers that a view consists of are discovered while it is written
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
    /// Shared texts by address: kernels of equal steps need no string comparison.
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
