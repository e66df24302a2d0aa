//! Runs numbered tasks on a fixed set of threads. Allocates nothing per run and never leaves a thread spinning for long:
//! workers spin for some tens of microseconds after their last work, so that the next dispatch of a step costs about a
//! microsecond, and then park (a phone's battery pays for every spin).
//!
//! A run is *open* while workers may join it. The caller publishes the job, takes part as worker 0, closes the run when
//! no task is left, and waits only for the workers that joined: one that is still waking up is never waited for.

use crate::process::Born;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

/// How long a worker spins for the next run before it parks.
const SPIN: Duration = Duration::from_micros(50);
/// Most threads of an automatic pool: more do not help the sizes an on-device model has.
pub const MOST: usize = 16;

/// Locks, also after a thread that held the lock panicked.
pub fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(|e| e.into_inner())
}

/// The body of a run: called with (task, worker).
type Body<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Bits of [`Shared::state`]: the low half counts workers inside the run, one bit says it is open, the rest is the epoch.
const INSIDE: u64 = 0xffff;
const OPEN: u64 = 1 << 16;
const EPOCH: u64 = 1 << 17;

/// On its own cache lines, so that one worker's counter does not slow another's (two lines: adjacent-line prefetch).
#[repr(align(128))]
struct Line<T>(T);

/// What the current run is. Written only while no worker is inside and the run is closed.
struct Job {
    body: *const Body<'static>,
    tasks: usize,
}

struct Shared {
    state: Line<AtomicU64>,
    next: Line<AtomicUsize>,
    job: UnsafeCell<Job>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    busy: AtomicBool,
    quit: AtomicBool,
    parked: Box<[Line<AtomicBool>]>,
}

// SAFETY: `job` is written by the one caller that holds `busy`, while the run is closed and nobody is inside; workers
// read it only between joining an open run and leaving it. The pointed-to body is `Sync` and outlives the run.
unsafe impl Sync for Shared {}
// SAFETY: as above; the raw pointer is only followed during a run.
unsafe impl Send for Shared {}

/// A fixed set of threads; see the module's comment.
pub struct ThreadPool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    born: Born,
}

impl ThreadPool {
    /// A pool of `threads` threads, the caller of [`run`](Self::run) counted in; 0 means one per available core.
    /// Where the system refuses a thread, the pool is smaller.
    pub fn new(threads: usize) -> Self {
        let wanted = match threads {
            0 => thread::available_parallelism().map_or(1, |n| n.get()).min(MOST),
            n => n.min(INSIDE as usize),
        };
        let shared = Arc::new(Shared {
            state: Line(AtomicU64::new(0)),
            next: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(Job { body: &|_, _| (), tasks: 0 }),
            panic: Mutex::new(None),
            busy: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            parked: (1..wanted).map(|_| Line(AtomicBool::new(false))).collect(),
        });
        let mut workers = Vec::with_capacity(wanted - 1);
        for worker in 1..wanted {
            let shared = shared.clone();
            let builder = thread::Builder::new().name(format!("weft-{worker}"));
            match builder.spawn(move || shared.work(worker)) {
                Ok(handle) => workers.push(handle),
                Err(_) => break,
            }
        }
        Self { shared, workers, born: Born::here() }
    }

    /// Threads that take part, the caller counted in.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body(task, worker)` once for every task in `0..tasks` and returns when all are done. `worker` is below
    /// [`threads`](Self::threads) and unique among the calls of this run that happen at the same time. While another run is
    /// going on (another caller, or a task of this pool), the tasks run on the calling thread, as worker 0.
    ///
    /// If a task panics, tasks not yet begun are dropped and the panic is raised again here; the pool stays usable.
    pub fn run(&self, tasks: usize, body: &Body<'_>) {
        let shared = &*self.shared;
        if tasks <= 1 || self.workers.is_empty() || shared.busy.swap(true, Acquire) {
            return (0..tasks).for_each(|task| body(task, 0));
        }
        // SAFETY: `busy` is ours, so no run is open and nobody is inside. The lifetime is only forgotten for the time
        // of this call: `close` below returns after the last worker left.
        unsafe {
            let body = std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body);
            *shared.job.get() = Job { body, tasks };
        }
        shared.next.0.store(0, Relaxed);
        shared.state.0.fetch_add(EPOCH | OPEN, SeqCst);
        self.wake(tasks - 1);
        shared.take_tasks(0);
        shared.close();
        let raised = lock(&shared.panic).take();
        shared.busy.store(false, Release);
        if let Some(payload) = raised {
            resume_unwind(payload);
        }
    }

    /// Wakes parked workers, `most` at the most.
    fn wake(&self, most: usize) {
        for (worker, parked) in self.workers.iter().zip(&self.shared.parked).take(most) {
            if parked.0.load(SeqCst) && parked.0.swap(false, SeqCst) {
                let thread: &Thread = worker.thread();
                thread.unpark();
            }
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        if !self.born.is_here() {
            // a child of fork has none of these threads
            return std::mem::forget(std::mem::take(&mut self.workers));
        }
        self.shared.quit.store(true, SeqCst);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

impl Shared {
    /// A worker's life.
    fn work(&self, worker: usize) {
        let mut seen = 0;
        while let Some(epoch) = self.await_run(worker, seen) {
            seen = epoch;
            if self.join() {
                self.take_tasks(worker);
                self.state.0.fetch_sub(1, Release);
            }
        }
    }

    /// Waits, spinning and then parked, for an open run with an epoch other than `seen`. None: the pool is going away.
    fn await_run(&self, worker: usize, seen: u64) -> Option<u64> {
        let parked = &self.parked[worker - 1].0;
        let fresh = || {
            let state = self.state.0.load(SeqCst);
            (state & OPEN != 0 && state / EPOCH != seen).then_some(state / EPOCH)
        };
        let begin = Instant::now();
        loop {
            for _ in 0..32 {
                if let Some(epoch) = fresh() {
                    return Some(epoch);
                }
                std::hint::spin_loop();
            }
            if self.quit.load(SeqCst) {
                return None;
            }
            if begin.elapsed() > SPIN {
                break;
            }
        }
        loop {
            // The flag goes up before the state is read, the caller publishes before it reads the flag: one sees the other.
            parked.store(true, SeqCst);
            if self.quit.load(SeqCst) {
                return None;
            }
            if let Some(epoch) = fresh() {
                parked.store(false, SeqCst);
                return Some(epoch);
            }
            thread::park();
        }
    }

    /// Enters the run if it is still open.
    fn join(&self) -> bool {
        self.state.0.fetch_update(AcqRel, Acquire, |s| (s & OPEN != 0).then_some(s + 1)).is_ok()
    }

    /// Takes tasks until none is left. A panic is kept for the caller, and ends the run for everybody.
    fn take_tasks(&self, worker: usize) {
        // SAFETY: the caller published the job before it opened the run, and this thread is inside (or is the caller).
        let (body, tasks) = unsafe {
            let job = &*self.job.get();
            (&*job.body, job.tasks)
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let task = self.next.0.fetch_add(1, Relaxed);
                if task >= tasks {
                    break;
                }
                body(task, worker);
            }
        }));
        if let Err(payload) = outcome {
            // Workers step over `tasks` by one each at the most, so this cannot wrap.
            self.next.0.store(tasks, Relaxed);
            lock(&self.panic).get_or_insert(payload);
        }
    }

    /// Lets no more workers in and waits for those inside.
    fn close(&self) {
        let mut state = self.state.0.fetch_and(!OPEN, AcqRel);
        let mut turns = 0u32;
        while state & INSIDE != 0 {
            // A worker that lost its core may need this one.
            if turns < 2000 {
                std::hint::spin_loop();
            } else {
                thread::yield_now();
            }
            turns = turns.saturating_add(1);
            state = self.state.0.load(Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EACH;

    #[test]
    fn every_task_runs_exactly_once() {
        for threads in [1, 2, 3, 5] {
            let pool = ThreadPool::new(threads);
            for tasks in [0, 1, 2, 3, 7, 100, 1000] {
                let runs: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|task, worker| {
                    assert!(worker < pool.threads());
                    runs[task].fetch_add(1, SeqCst);
                });
                assert!(runs.iter().all(|n| n.load(SeqCst) == 1), "{threads} threads, {tasks} tasks");
            }
        }
    }

    #[test]
    fn a_worker_is_never_in_two_tasks_at_once() {
        let pool = ThreadPool::new(4);
        let inside: Vec<AtomicUsize> = (0..4).map(|_| AtomicUsize::new(0)).collect();
        for _ in 0..2000 / EACH {
            pool.run(8, &|_, worker| {
                assert_eq!(inside[worker].fetch_add(1, SeqCst), 0);
                inside[worker].fetch_sub(1, SeqCst);
            });
        }
    }

    #[test]
    fn a_panic_is_raised_again_and_the_pool_lives_on() {
        let pool = ThreadPool::new(3);
        for bad in [0, 5, 63] {
            let run = || {
                pool.run(64, &|task, _| {
                    if task == bad {
                        panic!("task {bad}");
                    }
                })
            };
            let raised = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(raised.downcast_ref::<String>().unwrap(), &format!("task {bad}"));
            let count = AtomicUsize::new(0);
            pool.run(64, &|_, _| _ = count.fetch_add(1, SeqCst));
            assert_eq!(count.into_inner(), 64);
        }
    }

    #[test]
    fn nested_and_concurrent_runs_are_complete() {
        let pool = ThreadPool::new(3);
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 / EACH {
                        pool.run(6, &|_, _| pool.run(5, &|_, _| _ = count.fetch_add(1, SeqCst)));
                    }
                });
            }
        });
        assert_eq!(count.into_inner(), 4 * (200 / EACH) * 6 * 5);
    }

    #[test]
    fn a_parked_pool_wakes_up() {
        let pool = ThreadPool::new(2);
        for _ in 0..20 {
            thread::sleep(Duration::from_millis(1));
            // Each task waits for the other, so both threads have to take part.
            let arrived = AtomicUsize::new(0);
            pool.run(2, &|_, _| {
                arrived.fetch_add(1, SeqCst);
                while arrived.load(SeqCst) < 2 {
                    thread::yield_now();
                }
            });
        }
    }
}
