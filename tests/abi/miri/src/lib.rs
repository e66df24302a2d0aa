//! The parts of the C library that follow pointers, by themselves: their own tests are run by Miri.
#![allow(non_camel_case_types, dead_code, clippy::missing_safety_doc)]

#[path = "../../../../ffi/src/error.rs"]
mod error;
#[path = "../../../../ffi/src/arguments.rs"]
mod arguments;
#[path = "../../../../ffi/src/guard.rs"]
mod guard;
#[path = "../../../../ffi/src/handle.rs"]
mod handle;

/// What of the generated statuses those files need.
mod generated {
    pub const WEFT_STATUS_OUT_OF_MEMORY: u32 = 601;
    pub const WEFT_STATUS_FORKED: u32 = 606;
    pub static STATUS_NAMES: &[(u32, &std::ffi::CStr)] = &[];
}
