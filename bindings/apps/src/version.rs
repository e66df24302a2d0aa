//! Which library this is. The wrappers of the languages ask when they load it, and refuse one of another version.

/// Raised when a function or type of this library changes, so that a wrapper made for the older one is refused.
pub const INTERFACE: u32 = 1;

/// The version of the library, as "0.1.0".
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of the C ABI inside.
#[uniffi::export]
pub fn abi_version() -> i32 {
    abi::shared::WEFT_ABI_VERSION as i32
}
