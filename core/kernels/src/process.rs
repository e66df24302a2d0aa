//! Which process this is. A child of fork has a copy of its parent's memory, but only the thread that forked: locks that
//! other threads held stay locked, pools have no threads, drivers do not know the child. So what threads or drivers stand
//! behind remembers the process that it was made in ([`Born`]), and what a process shares is made anew in a child ([`Own`]).
//!
//! **Fork** (`process`). Devices, weights, sessions and handles of C remember the process they were made in (`Born`) and are refused in
//! a child (`Error::Forked`), before any lock is taken that a thread of the parent may have held; letting go of them there ends
//! no threads and calls no drivers. What a process shares (tables, lists of devices, the log's hook) is an `Own`: a child makes it anew, so
//! a static lock or a half-made table of the parent is never waited for. New statics that hold a lock or are made once are `Own`s, too.

use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Forks between the process that loaded Weft and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// A number that this process has and none of those that it was forked from.
pub fn generation() -> u32 {
    #[cfg(unix)]
    listen();
    GENERATION.load(Ordering::Acquire)
}

/// Asks the system to count forks.
#[cfg(unix)]
fn listen() {
    use std::ffi::c_int;
    use std::sync::atomic::AtomicBool;
    type Handler = Option<extern "C" fn()>;
    unsafe extern "C" {
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
    }
    extern "C" fn child() {
        GENERATION.fetch_add(1, Ordering::AcqRel);
    }
    static LISTENS: AtomicBool = AtomicBool::new(false);
    if !LISTENS.load(Ordering::Acquire) {
        // two threads may both ask: forks then count double, which is as good
        // SAFETY: the C library's own declaration; the handler only counts.
        let _ = unsafe { pthread_atfork(None, None, Some(child)) };
        LISTENS.store(true, Ordering::Release);
    }
}

/// Calls `handler` when the process ends by exit or by returning from main; not where it is killed, or ends by _exit. The one that
/// was given last is called first. It must let no panic out.
pub fn at_exit(handler: extern "C" fn()) {
    #[cfg(any(unix, windows))]
    {
        unsafe extern "C" {
            fn atexit(handler: extern "C" fn()) -> std::ffi::c_int;
        }
        // SAFETY: the C library's own declaration; the handler takes nothing.
        let _ = unsafe { atexit(handler) };
    }
    #[cfg(not(any(unix, windows)))]
    let _ = handler;
}

/// The process that something was made in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Born(u32);

impl Born {
    /// This process.
    pub fn here() -> Born {
        Born(generation())
    }

    /// The process with that [`generation`].
    pub fn of(generation: u32) -> Born {
        Born(generation)
    }

    /// Whether that was this process, not one that it was forked from.
    pub fn is_here(self) -> bool {
        self.0 == generation()
    }
}

/// Something that a process has one of: made when it is first asked for, and anew in a child of fork. What the parent had is
/// left alone there, since its threads may have been at work on it.
pub struct Own<T: 'static> {
    make: fn() -> T,
    at: AtomicPtr<Made<T>>,
}

struct Made<T> {
    born: Born,
    value: T,
    /// The parent's, which nobody frees.
    _before: AtomicPtr<Made<T>>,
}

impl<T> Own<T> {
    /// Nothing yet; `make` makes it.
    pub const fn new(make: fn() -> T) -> Own<T> {
        Own { make, at: AtomicPtr::new(std::ptr::null_mut()) }
    }
}

impl<T: Send + Sync> Deref for Own<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let mut seen = self.at.load(Ordering::Acquire);
        loop {
            // SAFETY: NULL, or one that was published below, which is never freed and only read.
            let made = unsafe { seen.as_ref() };
            if let Some(made) = made.filter(|made| made.born.is_here()) {
                return &made.value;
            }
            let (born, value) = (Born::here(), (self.make)());
            let fresh = Box::into_raw(Box::new(Made { born, value, _before: AtomicPtr::new(seen) }));
            match self.at.compare_exchange(seen, fresh, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => seen = fresh,
                Err(other) => {
                    // SAFETY: made a moment ago, and published to nobody.
                    drop(unsafe { Box::from_raw(fresh) });
                    seen = other;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    static COUNT: Own<Mutex<u32>> = Own::new(|| Mutex::new(7));

    #[test]
    fn threads_that_come_at_once_share_what_is_made_first() {
        std::thread::scope(|s| {
            (0..4).for_each(|_| drop(s.spawn(|| *COUNT.lock().unwrap() += 1)));
        });
        assert_eq!(*COUNT.lock().unwrap(), 11);
    }

    #[test]
    fn what_was_made_in_another_process_is_known() {
        assert!(Born::here().is_here());
        assert!(!Born(generation() + 1).is_here());
    }
}
