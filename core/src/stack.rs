//! Runs work that needs a deep stack on threads of our own: opening drivers, compiling, parsing nested input. The caller may
//! have a small stack (some hosts' threads have 64 KiB or less), which drivers, e-graphs and parsers are not designed for.
//!
//! The threads are reused. The e-graph's crate keeps memory for each thread that ever used it and never frees it; reuse bounds
//! this by the number of concurrent compilations.

use crate::process::Own;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Stack size for deep work; the system allocates memory only for the used part.
const DEEP: usize = 16 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A job, and the channel to signal its completion, after it has been dropped.
type Task = (Job, Sender<()>);

/// Idle threads.
static IDLE: Own<Mutex<Vec<Sender<Task>>>> = Own::new(Mutex::default);

thread_local! {
    /// Whether this thread is one of them.
    static IS_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread with a deep stack, and waits for it. A panic in it is resumed here.
pub fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if IS_DEEP.get() {
        return work();
    }
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let Some(thread) = idle.or_else(begin) else {
        // the system refuses a thread: try on this one
        return work();
    };
    let mut outcome: Option<Result<T, Box<dyn Any + Send>>> = None;
    let (done, wait) = channel::<()>();
    let place = &mut outcome;
    let job: Box<dyn FnOnce() + Send + '_> =
        Box::new(move || *place = Some(catch_unwind(AssertUnwindSafe(work))));
    // SAFETY: only the lifetime is erased. The job's borrows outlive it: this call returns when it is signalled that the job
    // has returned, or when the job was dropped. (Signalling from within the job would be too early: its borrows last until it
    // returns.)
    let job: Job = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Job>(job) };
    match thread.send((job, done)) {
        Ok(()) => {
            // makes the job's writes visible; an error: it was dropped, and wrote nothing
            let _ = wait.recv();
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        // such a thread does not end; if one did, its work would be returned here
        Err(back) => back.0.0(),
    }
    match outcome.unwrap_or_else(|| Err(Box::new("a job that was dropped"))) {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}

/// Starts another thread.
fn begin() -> Option<Sender<Task>> {
    let (sender, tasks): (Sender<Task>, Receiver<Task>) = channel();
    let work = move || {
        IS_DEEP.set(true);
        tasks.into_iter().for_each(|(job, done)| {
            job();
            // dropping the sender would signal completion, too, but without making writes visible
            let _ = done.send(());
        });
    };
    let spawned = std::thread::Builder::new().name("weft-deep".into()).stack_size(DEEP).spawn(work);
    spawned.ok().map(|_| sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_a_small_thread(work: impl FnOnce() + Send + 'static) -> std::thread::Result<()> {
        std::thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap().join()
    }

    /// Uses at least a kilobyte of stack for each level.
    fn descend(turns: usize) -> usize {
        let room = std::hint::black_box([turns as u8; 1024]);
        if turns == 0 { 0 } else { descend(turns - 1) + usize::from(room[turns % 1024] == turns as u8) }
    }

    #[test]
    fn what_is_deep_runs_from_a_small_stack_and_may_nest_and_borrow() {
        on_a_small_thread(|| {
            let mut reached = 0;
            deep(|| reached = deep(|| descend(4000)));
            assert_eq!(reached, 4000);
        })
        .unwrap();
    }

    #[test]
    fn a_panic_is_raised_where_it_was_asked_for_and_the_thread_goes_on() {
        let raised = on_a_small_thread(|| deep(|| panic!("at the bottom"))).unwrap_err();
        assert_eq!(*raised.downcast_ref::<&str>().unwrap(), "at the bottom");
        assert_eq!(deep(|| descend(10)), 10);
    }

    #[test]
    fn callers_at_once_each_have_their_own_and_threads_are_used_again() {
        let who = || std::thread::current().id();
        let all: std::collections::HashSet<_> = std::thread::scope(|s| {
            let threads: Vec<_> =
                (0..3).map(|_| s.spawn(move || (0..50).map(|_| deep(who)).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
        });
        assert!(!all.contains(&who()));
        // threads of other tests may be included
        assert!(all.len() <= 6, "{} threads for 3 callers", all.len());
    }
}
