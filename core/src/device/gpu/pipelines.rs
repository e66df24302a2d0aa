//! A device's compiled kernels, keyed by text and shared by sessions. Compiled on several threads, with progress.

use super::context::{Context, Fault};
use super::panics::translated;
use super::process_exit;
use crate::device::lock;
use crate::device::progress::Progress;
use crate::error::{Error, Result};
use blade_graphics as blade;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Names of bindings: the driver's crate binds by name.
const NAMES: [&str; 64] = {
    const ALL: &str = "b0 b1 b2 b3 b4 b5 b6 b7 b8 b9 b10b11b12b13b14b15b16b17b18b19b20b21b22b23b24b25b26b27b28b29b30b31\
                       b32b33b34b35b36b37b38b39b40b41b42b43b44b45b46b47b48b49b50b51b52b53b54b55b56b57b58b59b60b61b62b63";
    let mut names = [""; 64];
    let mut i = 0;
    while i < 64 {
        let (_, rest) = ALL.split_at(3 * i);
        names[i] = rest.split_at(if i < 10 { 2 } else { 3 }).0;
        i += 1;
    }
    names
};

/// A compiled kernel.
pub struct Pipeline {
    /// The driver's crate's pipeline.
    pub blade: blade::ComputePipeline,
    context: Arc<Context>,
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let Some(_inside) = process_exit::enter(process_exit::Work::Host) else { return };
        let destroy = || self.context.blade.destroy_compute_pipeline(&mut self.blade);
        let _ = catch_unwind(AssertUnwindSafe(destroy));
    }
}

/// The compiled kernels of a device.
#[derive(Default)]
pub struct Pipelines {
    known: Mutex<HashMap<String, Weak<Pipeline>>>,
}

impl Pipelines {
    /// The kernels for those texts; unknown ones are compiled.
    ///
    /// # Errors
    /// [`Error::Driver`] if the driver refuses one; [`Error::Cancelled`].
    pub fn get(
        &self,
        context: &Arc<Context>,
        texts: &[String],
        bindings: &[usize],
        progress: &Progress,
    ) -> Result<Vec<Arc<Pipeline>>> {
        let mut found: Vec<Option<Arc<Pipeline>>> = {
            let known = lock(&self.known);
            texts.iter().map(|t| known.get(t).and_then(Weak::upgrade)).collect()
        };
        let missing: Vec<usize> = (0..texts.len()).filter(|&i| found[i].is_none()).collect();
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(missing.len()).min(8);
        let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(texts.len() - missing.len()));
        let made: Mutex<Vec<(usize, Arc<Pipeline>)>> = Mutex::new(vec![]);
        let failed: Mutex<Option<Error>> = Mutex::new(None);
        let work = || {
            while let Some(&i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                let outcome = match progress.is_cancelled() {
                    true => Err(Error::Cancelled { what: "compiling kernels".into() }),
                    false => compile(context, &texts[i], bindings[i]),
                };
                match outcome {
                    Ok(p) => lock(&made).push((i, Arc::new(p))),
                    Err(e) => {
                        lock(&failed).get_or_insert(e);
                        next.store(missing.len(), Ordering::Relaxed);
                        return;
                    }
                }
                progress.done(done.fetch_add(1, Ordering::Relaxed) + 1, texts.len());
            }
        };
        std::thread::scope(|s| {
            (1..threads).for_each(|_| {
                // if the system refuses another thread, the others do the work
                let _ = std::thread::Builder::new().name("weft-compile".into()).spawn_scoped(s, work);
            });
            work();
        });
        if let Some(e) = failed.into_inner().unwrap_or_else(|e| e.into_inner()) {
            return Err(e);
        }
        let mut known = lock(&self.known);
        known.retain(|_, p| p.strong_count() > 0);
        for (i, p) in made.into_inner().unwrap_or_else(|e| e.into_inner()) {
            known.insert(texts[i].clone(), Arc::downgrade(&p));
            found[i] = Some(p);
        }
        drop(known);
        found.into_iter().map(|p| p.ok_or_else(|| Error::internal("a kernel was not compiled"))).collect()
    }
}

fn compile(context: &Arc<Context>, text: &str, bindings: usize) -> Result<Pipeline> {
    let device = context.name.clone();
    let most = context.limits.bindings.min(NAMES.len());
    if bindings > most {
        let why = format!("its kernels bind at most {most} buffers, and one of {bindings} is needed");
        return Err(Error::Device { device, why });
    }
    let Some(_inside) = process_exit::enter(process_exit::Work::Host) else {
        return Err(Error::DeviceLost { device, why: "the process ends".into() });
    };
    let layout = blade::ShaderDataLayout {
        bindings: NAMES[..bindings].iter().map(|n| (*n, blade::ShaderBinding::Buffer)).collect(),
    };
    let make = || {
        context.fail_if(Fault::Refused);
        let desc = blade::ShaderDesc { source: text, naga_module: None };
        let shader = context.blade.try_create_shader(desc).map_err(|why| format!("{why}:\n{text}"))?;
        Ok::<_, String>(context.blade.create_compute_pipeline(blade::ComputePipelineDesc {
            name: "weft",
            data_layouts: &[&layout],
            compute: shader.at("main"),
        }))
    };
    match catch_unwind(AssertUnwindSafe(make)) {
        Ok(Ok(pipeline)) => {
            process_exit::compiled();
            Ok(Pipeline { blade: pipeline, context: context.clone() })
        }
        Ok(Err(why)) => Err(Error::Driver { device, why }),
        Err(panic) => Err(translated(&context.name, &*panic)),
    }
}

/// The buffers bound by a dispatch, in order.
pub struct Pieces<'a>(pub &'a [blade::BufferPiece]);

impl blade::ShaderData for Pieces<'_> {
    fn layout() -> blade::ShaderDataLayout {
        // layouts depend on the kernel: `compile` creates them
        blade::ShaderDataLayout::default()
    }

    fn fill(&self, mut context: blade::PipelineContext<'_>) {
        use blade::ShaderBindable as _;
        for (i, piece) in self.0.iter().enumerate() {
            piece.bind_to(&mut context, i as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bindings_are_named_as_kernels_name_them() {
        for (i, name) in super::NAMES.iter().enumerate() {
            assert_eq!(*name, format!("b{i}"));
        }
    }
}
