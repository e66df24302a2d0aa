//! When drivers may be called: not in a child of fork whose parent called them, and not while the process ends. Drivers have
//! exit handlers, which take down what their other threads still use: software Vulkan crashes when it compiles a kernel while
//! LLVM's go. So before they run, work at the GPU is brought to an end, and no more is taken.

use crate::device::lock;
use crate::error::{Error, Result};
use crate::process::{Own, at_exit, generation};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a process waits at its end for a GPU; what takes longer is left under way, which the system can end.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long for work of the processor: kernels that are compiled, and all that a processor does that plays a GPU. It comes to an
/// end by itself, late on a busy machine; and drivers crash where they are taken down meanwhile.
const LONG_PATIENCE: Duration = Duration::from_secs(30);

/// What a thread is inside a driver for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Work of a GPU.
    Gpu = 0,
    /// Work of the processor.
    Host = 1,
}

static ENDING: AtomicBool = AtomicBool::new(false);
/// How many threads may be inside a driver, for each sort of work.
static INSIDE: Own<Mutex<[usize; 2]>> = Own::new(Mutex::default);
static LEFT: Own<Condvar> = Own::new(Condvar::new);
/// What wakes each worker.
static WAKE: Own<Mutex<Vec<Wake>>> = Own::new(Mutex::default);

type Wake = Box<dyn Fn() -> bool + Send>;

thread_local! {
    /// How often this thread is inside.
    static OWN: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
}

/// The process that first called a driver, by its [`generation`] and one.
static CALLER: AtomicU32 = AtomicU32::new(0);

/// Whether drivers may be called in this process; from then on it is the one that does. They keep threads and handles
/// that a child of fork does not have.
///
/// # Errors
/// [`Error::Forked`] in a child of a process that called them.
pub fn allowed() -> Result<()> {
    let here = generation() + 1;
    match CALLER.compare_exchange(0, here, Ordering::AcqRel, Ordering::Acquire) {
        Err(caller) if caller != here => {
            let why =
                "the parent had asked for GPUs before; ask in the child only, or begin the child with exec";
            Err(Error::Forked { what: "a GPU".into(), why: why.into() })
        }
        _ => Ok(()),
    }
}

/// Held by a thread while it may call a driver.
pub struct Inside(Work);

/// Leave to call drivers; none while the process ends, or where they are not [`allowed`].
pub fn enter(work: Work) -> Option<Inside> {
    allowed().ok()?;
    let mut inside = lock(&INSIDE);
    if under_way() {
        return None;
    }
    inside[work as usize] += 1;
    let mut own = OWN.get();
    own[work as usize] += 1;
    OWN.set(own);
    Some(Inside(work))
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = lock(&INSIDE);
        // a child of fork that began inside counts anew
        inside[self.0 as usize] = inside[self.0 as usize].saturating_sub(1);
        drop(inside);
        // a thread's own values may be gone before it
        let _ = OWN.try_with(|own| {
            let mut now = own.get();
            now[self.0 as usize] -= 1;
            own.set(now);
        });
        LEFT.notify_all();
    }
}

/// Whether the process ends.
pub fn under_way() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// Calls `wake` when the process ends, and at times before, until it gives `false`.
pub fn at_end(wake: impl Fn() -> bool + Send + 'static) {
    let mut all = lock(&WAKE);
    all.retain(|w| w());
    all.push(Box::new(wake));
}

/// Whether a kernel was compiled since we asked to be called.
static COMPILED: AtomicBool = AtomicBool::new(true);

/// A driver has a new kernel: it may have added exit handlers, or may when the kernel first runs.
pub fn compiled() {
    COMPILED.store(true, Ordering::Release);
}

/// Asks the system to call us at the end, before the handlers that are there by now: it calls the last first. Drivers add
/// theirs when they are loaded, and whenever they compile: software Vulkan does so as a kernel first runs, and LLVM makes what
/// it needs for a kernel, and its handler, when a kernel first needs it. (A core of a process that ended then: a thread of the
/// driver in LLVM's code generation, LLVM's objects gone, and this handler yet waiting for the step.)
pub fn listen() {
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    if COMPILED.swap(false, Ordering::AcqRel) && TIMES.fetch_add(1, Ordering::Relaxed) < MOST_HANDLERS {
        extern "C" fn handler() {
            let _ = std::panic::catch_unwind(end);
        }
        at_exit(handler);
    }
}

/// How often the system is asked to call us: each takes it some bytes.
const MOST_HANDLERS: usize = 10_000;

/// Lets nobody in any more, and waits until all are out.
fn end() {
    let since = Instant::now();
    let mut inside = lock(&INSIDE);
    ENDING.store(true, Ordering::Release);
    drop(inside);
    lock(&WAKE).iter().for_each(|wake| {
        wake();
    });
    inside = lock(&INSIDE);
    // a callback of ours may be what ends the process
    let own = OWN.try_with(Cell::get).unwrap_or_default();
    loop {
        let others = |work: Work| inside[work as usize] > own[work as usize];
        let patience = match (others(Work::Gpu), others(Work::Host)) {
            (_, true) => LONG_PATIENCE,
            (true, false) => PATIENCE,
            (false, false) => return,
        };
        let Some(left) = patience.checked_sub(since.elapsed()) else { return };
        inside = LEFT.wait_timeout(inside, left).unwrap_or_else(|e| e.into_inner()).0;
    }
}
