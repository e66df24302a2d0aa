//! Runs what is deep on threads of our own: opening drivers, compiling, reading what nests. Whoever calls may have a small
//! stack (hosts give their threads 64 KiB and less), and drivers, e-graphs and parsers are not made for it.
//!
//! The threads stay for the next time. The e-graph's crate keeps memory for each thread that ever used it and never gives it
//! back; so that is bounded by how many compile at once.

use crate::process::Own;
use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};

/// Bytes of a stack for deep work; the system gives memory for what is used of them.
const DEEP: usize = 16 << 20;

type Job = Box<dyn FnOnce() + Send>;

/// A job, and how whoever waits is told that it is done, with nothing left of it.
type Task = (Job, Sender<()>);

/// Threads that wait for work.
static IDLE: Own<Mutex<Vec<Sender<Task>>>> = Own::new(Mutex::default);

thread_local! {
    /// Whether this thread is one of them.
    static IS_DEEP: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a thread with a deep stack, and waits for it. A panic there is raised again here.
pub fn deep<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if IS_DEEP.get() {
        return work();
    }
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let Some(thread) = idle.or_else(begin) else {
        // the system gives no threads: it may fit all the same
        return work();
    };
    let mut outcome: Option<Result<T, Box<dyn Any + Send>>> = None;
    let (done, wait) = channel::<()>();
    let place = &mut outcome;
    let job: Box<dyn FnOnce() + Send + '_> =
        Box::new(move || *place = Some(catch_unwind(AssertUnwindSafe(work))));
    // SAFETY: only the lifetime is forgotten. What the job borrows outlives it: this call returns when it is told that the job
    // has returned, or when the job was dropped. (Telling from within the job would be too early: until a call returns, what it
    // borrows is the call's.)
    let job: Job = unsafe { std::mem::transmute::<Box<dyn FnOnce() + Send + '_>, Job>(job) };
    match thread.send((job, done)) {
        Ok(()) => {
            // what the job wrote is seen once this has come; an error: it was dropped, and wrote nothing
            let _ = wait.recv();
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        // such a thread does not end; if one did, its work would come back
        Err(back) => back.0.0(),
    }
    match outcome.unwrap_or_else(|| Err(Box::new("a job that was dropped"))) {
        Ok(value) => value,
        Err(panic) => resume_unwind(panic),
    }
}

/// Another thread.
fn begin() -> Option<Sender<Task>> {
    let (sender, tasks): (Sender<Task>, Receiver<Task>) = channel();
    let work = move || {
        IS_DEEP.set(true);
        tasks.into_iter().for_each(|(job, done)| {
            job();
            // that the sender is gone would tell as much, but not make sure that its writes are seen
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

    /// Uses a kilobyte of stack and more for each turn.
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
        // those of the other tests, too, may be among them
        assert!(all.len() <= 6, "{} threads for 3 callers", all.len());
    }
}
