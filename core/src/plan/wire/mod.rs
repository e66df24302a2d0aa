//! Serialises plans. Compact, little endian, hand-written: input is untrusted, so every length is bounded by the remaining
//! bytes, nothing recurses, and a plan must pass [`verify`](super::verify()) before use. Independent of files, versions and
//! hashes.
//!
//! Integers are LEB128 (signed ones zigzag), strings are their length and UTF-8, lists their length and elements. The bytes of
//! constants start at multiples of [`ALIGN`] from the start, so that they are used in place.
//!
//! Structures are destructured and constructed field by field: a new field does not compile until it is written and read here.
//! Each such change increments [`FORMAT`].

mod codes;
mod cuts;
mod read;
mod step;
mod write;

pub use read::{Damage, Read, Reader};
pub use write::Writer;

/// Version of the format; incremented with every change.
pub const FORMAT: u32 = 7;

/// Alignment of the bytes of constants.
pub const ALIGN: usize = 64;
