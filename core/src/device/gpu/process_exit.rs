//! Decides when drivers may be called: not in a forked child whose parent called them, and not while the process exits. Drivers
//! have exit handlers, which destroy objects that their other threads still use: software Vulkan crashes if it compiles a
//! kernel while LLVM's are being destroyed. So before these run, pending GPU work is completed, and no more is accepted.

use crate::device::lock;
use crate::error::{Error, Result};
use crate::process::{Own, at_exit, generation};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long an exiting process waits for a GPU; work that takes longer is abandoned, and the system can end it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long it waits for work on the processor: kernel compilation, and all work of a software GPU. Such work ends by itself,
/// though late on a busy machine, and drivers crash if they are shut down during it.
const LONG_PATIENCE: Duration = Duration::from_secs(30);

/// The kind of work for which a thread is inside a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Work of a GPU.
    Gpu = 0,
    /// Work of the processor.
    Host = 1,
}

static ENDING: AtomicBool = AtomicBool::new(false);
/// Number of threads that may be inside a driver, for each kind of work.
static INSIDE: Own<Mutex<[usize; 2]>> = Own::new(Mutex::default);
static LEFT: Own<Condvar> = Own::new(Condvar::new);
/// Wakes each worker.
static WAKE: Own<Mutex<Vec<Wake>>> = Own::new(Mutex::default);

type Wake = Box<dyn Fn() -> bool + Send>;

thread_local! {
    /// How many times this thread is inside.
    static OWN: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
}

/// The process that first called a driver: its [`generation`] plus one.
static CALLER: AtomicU32 = AtomicU32::new(0);

/// Checks that drivers may be called in this process, and registers it as the one that calls them. Drivers keep threads and
/// handles that a forked child does not have.
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

/// Permission to call drivers; `None` while the process exits, or if they are not [`allowed`].
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
        // a child forked inside starts counting at zero
        inside[self.0 as usize] = inside[self.0 as usize].saturating_sub(1);
        drop(inside);
        // a thread's local values may be destroyed before this runs
        let _ = OWN.try_with(|own| {
            let mut now = own.get();
            now[self.0 as usize] -= 1;
            own.set(now);
        });
        LEFT.notify_all();
    }
}

/// Whether the process is exiting.
pub fn under_way() -> bool {
    ENDING.load(Ordering::Acquire)
}

/// Registers `wake`, called when the process exits, and occasionally before, until it returns `false`.
pub fn at_end(wake: impl Fn() -> bool + Send + 'static) {
    let mut all = lock(&WAKE);
    all.retain(|w| w());
    all.push(Box::new(wake));
}

/// Whether a kernel was compiled since the exit handler was last registered.
static COMPILED: AtomicBool = AtomicBool::new(true);

/// Notes that a driver has a new kernel: it may have registered exit handlers, or may when the kernel first runs.
pub fn compiled() {
    COMPILED.store(true, Ordering::Release);
}

/// Registers our exit handler again, so that it runs before those registered so far: the system calls the last first. Drivers
/// register theirs when they are loaded, and whenever they compile: software Vulkan when a kernel first runs; LLVM initialises
/// lazily, with its own handler, when a kernel first needs a feature. (Seen in a core dump: a driver's thread in LLVM's code
/// generation, LLVM's objects destroyed, and this handler still waiting for the step.)
pub fn listen() {
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    if COMPILED.swap(false, Ordering::AcqRel) && TIMES.fetch_add(1, Ordering::Relaxed) < MOST_HANDLERS {
        extern "C" fn handler() {
            let _ = std::panic::catch_unwind(end);
        }
        at_exit(handler);
    }
}

/// Maximum registrations of the exit handler: each takes the system some bytes.
const MOST_HANDLERS: usize = 10_000;

/// Refuses further entries, and waits until all threads have left.
fn end() {
    let since = Instant::now();
    let mut inside = lock(&INSIDE);
    ENDING.store(true, Ordering::Release);
    drop(inside);
    lock(&WAKE).iter().for_each(|wake| {
        wake();
    });
    inside = lock(&INSIDE);
    // the process may be exiting from one of our own callbacks
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
