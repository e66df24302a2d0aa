//! When drivers may be called: not in a child of fork whose parent called them, and not while the process ends. Drivers have exit handlers, which take down what their other threads still use: software Vulkan
//! crashes when it compiles a kernel while LLVM's go. So before they run, work at the GPU is brought to an end, and no
//! more is taken.

use crate::device::lock;
use crate::error::{Error, Result};
use crate::process::{Own, generation};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a process waits at its end for the GPU; work that takes longer is left under way.
pub const PATIENCE: Duration = Duration::from_secs(3);

static ENDING: AtomicBool = AtomicBool::new(false);
/// How many threads may be inside a driver.
static INSIDE: Own<Mutex<usize>> = Own::new(Mutex::default);
static LEFT: Own<Condvar> = Own::new(Condvar::new);
/// What wakes each worker.
static WAKE: Own<Mutex<Vec<Wake>>> = Own::new(Mutex::default);

type Wake = Box<dyn Fn() -> bool + Send>;

thread_local! {
    /// How often this thread is inside.
    static OWN: Cell<usize> = const { Cell::new(0) };
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
pub struct Inside(());

/// Leave to call drivers; none while the process ends, or where they are not [`allowed`].
pub fn enter() -> Option<Inside> {
    allowed().ok()?;
    let mut inside = lock(&INSIDE);
    if under_way() {
        return None;
    }
    *inside += 1;
    OWN.set(OWN.get() + 1);
    Some(Inside(()))
}

impl Drop for Inside {
    fn drop(&mut self) {
        let mut inside = lock(&INSIDE);
        // a child of fork that began inside counts anew
        *inside = inside.saturating_sub(1);
        drop(inside);
        // a thread's own values may be gone before it
        let _ = OWN.try_with(|own| own.set(own.get() - 1));
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

/// Asks the system to call us at the end, before the handlers that are there by now: it calls the last first. Drivers
/// add theirs when they are loaded, and when they first compile; after the first few times there are no new ones.
pub fn listen() {
    static TIMES: AtomicUsize = AtomicUsize::new(0);
    if TIMES.fetch_add(1, Ordering::Relaxed) < 8 {
        #[cfg(unix)]
        {
            unsafe extern "C" {
                fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
            }
            extern "C" fn handler() {
                let _ = std::panic::catch_unwind(end);
            }
            // SAFETY: the C library's own declaration; the handler takes nothing and lets no panic out.
            let _ = unsafe { atexit(handler) };
        }
    }
}

/// Lets nobody in any more, and waits until all are out.
#[cfg_attr(not(unix), allow(dead_code))]
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
    let own = OWN.try_with(Cell::get).unwrap_or(0);
    while *inside > own {
        let Some(left) = PATIENCE.checked_sub(since.elapsed()) else { return };
        inside = LEFT.wait_timeout(inside, left).unwrap_or_else(|e| e.into_inner()).0;
    }
}
