//! Forked children, for tests of per-process behaviour.

use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

unsafe extern "C" {
    fn fork() -> c_int;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    fn _exit(status: c_int) -> !;
    fn alarm(seconds: u32) -> u32;
}

/// Runs `inside` in a child, for a minute at most: the signal that ended it (0: none) and its exit status, which is what
/// `inside` gives, or 99 if it panicked.
pub fn in_a_child(inside: impl FnOnce() -> c_int) -> (c_int, c_int) {
    // SAFETY: the C library's own declarations; the child calls what its test is about, and leaves by _exit.
    let pid = unsafe { fork() };
    assert!(pid >= 0);
    if pid == 0 {
        unsafe { alarm(60) };
        let outcome = catch_unwind(AssertUnwindSafe(inside));
        unsafe { _exit(outcome.unwrap_or(99)) }
    }
    let mut status = 0;
    assert_eq!(unsafe { waitpid(pid, &mut status, 0) }, pid);
    (status & 0x7f, status >> 8)
}
