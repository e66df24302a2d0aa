//! Reads and writes weights. Files are mapped, not copied; headers are fully verified.
//!
//! Depends on `error` and `tensor`. Independent of the tensors' use; only reads data pages when a tensor is accessed.
//!
//! [`weights`] opens any form of a model's weights: a safetensors file, a Hugging Face folder, or the index of a sharded set. A
//! mapped file must not be truncated or rewritten in place while its tensors live: on most systems reading a missing page ends
//! the process. [`save()`] never does so; it replaces files by renaming.
//!
//! Beyond the safetensors format (<https://huggingface.co/docs/safetensors>):
//! * Tensors without elements are omitted from [`Weights`](crate::tensor::Weights), since no graph can use them;
//!   [`inspect`] lists them.
//! * Tensors of dtypes that Weft does not compute with ([`StoredDType`](crate::tensor::StoredDType)) are kept unchanged:
//!   f64 and small integers are converted on use, the others can only be written again by [`save()`]. Their headers are
//!   verified like all others.
//! * Block formats are stored as bytes (`U8`), with their type in the metadata: `"weft.block.<name>": "q8 [64, 32]"`.

mod file;
mod header;
mod save;
mod shards;

pub use crate::file::write_atomically;
pub use file::{Inspection, TensorInfo, safetensors, safetensors_bytes};
pub use save::{Conversion, convert, save, to_bytes};
pub use shards::{inspect, weights, weights_as};

#[cfg(test)]
mod tests_bad;
#[cfg(test)]
mod tests_good;
#[cfg(test)]
mod tests_stored;
