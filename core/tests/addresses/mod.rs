//! Limits the process's address space, for tests of refused allocations.

use std::ffi::c_int;

#[repr(C)]
struct Limit([u64; 2]);

unsafe extern "C" {
    fn getrlimit(what: c_int, limit: *mut Limit) -> c_int;
    fn setrlimit(what: c_int, limit: *const Limit) -> c_int;
}

/// `RLIMIT_AS`.
const ADDRESSES: c_int = 9;

/// Lets this process have so many bytes of addresses more, and runs something.
pub fn with_addresses<T>(more: u64, run: impl FnOnce() -> T) -> T {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split(' ').next().unwrap().parse().unwrap();
    let mut before = Limit([0; 2]);
    // SAFETY: the C library's own functions and numbers; the structure is as long as they want.
    unsafe {
        assert_eq!(getrlimit(ADDRESSES, &mut before), 0);
        assert_eq!(setrlimit(ADDRESSES, &Limit([pages * 4096 + more, before.0[1]])), 0);
    }
    let outcome = run();
    // SAFETY: as above.
    unsafe { assert_eq!(setrlimit(ADDRESSES, &before), 0) };
    outcome
}
