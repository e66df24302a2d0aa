//! Versions of the library.

use crate::guard::guard_value;
use std::ffi::c_char;

/// The version of the interface: a program runs with a library of the same number. It is incremented when something is removed
/// or changed, not when something is added.
pub const WEFT_ABI_VERSION: u32 = 1;
/// The version that the header belongs to.
#[allow(dead_code)] // the header has these three; a test compares them with the package's version
pub const WEFT_VERSION_MAJOR: u32 = 0;
/// As above.
#[allow(dead_code)]
pub const WEFT_VERSION_MINOR: u32 = 1;
/// As above.
#[allow(dead_code)]
pub const WEFT_VERSION_PATCH: u32 = 0;

/// WEFT_ABI_VERSION of the running library: compare it with the header's if you load the library dynamically.
#[unsafe(no_mangle)]
pub extern "C" fn weft_abi_version() -> u32 {
    guard_value("weft_abi_version", WEFT_ABI_VERSION, || WEFT_ABI_VERSION)
}

/// The version of the running library, such as "0.1.0". Static and NUL-terminated.
#[unsafe(no_mangle)]
pub extern "C" fn weft_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    guard_value("weft_version", c"".as_ptr(), || VERSION.as_ptr().cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_macros_are_the_package_s_version() {
        let macros = format!("{WEFT_VERSION_MAJOR}.{WEFT_VERSION_MINOR}.{WEFT_VERSION_PATCH}");
        assert_eq!(macros, env!("CARGO_PKG_VERSION"));
    }
}
