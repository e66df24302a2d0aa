//! A plan as bytes and back. Compact, little endian, written and read by hand: what is read comes from anywhere, so
//! every length is bounded by the bytes that are left, nothing recurses, and what was read means nothing until
//! [`verify`](super::verify()) has passed it. Knows nothing of files, versions or hashes.
//!
//! Whole numbers are LEB128 (signed ones zigzag), texts are their length and UTF-8, lists their length and elements.
//! The bytes of constants begin at multiples of [`ALIGN`] of the whole, so that they are used where they lie.
//!
//! Structures are taken apart and put together field by field: one that gets a new field does not compile here until
//! the field is written and read. Each such change is another [`FORMAT`].

mod codes;
mod cuts;
mod read;
mod step;
mod write;

pub use read::{Damage, Read, Reader};
pub use write::Writer;

/// Number of the format; grows with every change.
pub const FORMAT: u32 = 6;

/// Where the bytes of constants begin.
pub const ALIGN: usize = 64;
