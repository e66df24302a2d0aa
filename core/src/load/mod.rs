//! Reads and writes weights. Files are mapped, not copied; every byte of a header is distrusted.
//!
//! Stands on `error` and `tensor`. Never knows what a tensor is for, and never touches data pages it was not
//! asked for.
//!
//! [`weights`] opens whatever holds a model's weights: a safetensors file, a Hugging Face folder, or the index of
//! a sharded set. A mapped file must not be shortened or rewritten in place while its tensors live: on most
//! systems reading a vanished page ends the process. [`save()`] never does so; it replaces files by renaming.
//!
//! What is read beyond the safetensors format (<https://huggingface.co/docs/safetensors>):
//! * Tensors without elements are left out of [`Weights`](crate::tensor::Weights), since no graph can use them;
//!   [`inspect`] lists them.
//! * Tensors of dtypes that Weft does not compute with ([`StoredDType`](crate::tensor::StoredDType)) are kept as they are:
//!   f64 and small integers are converted where they are asked for, the others only written again by [`save()`]. Headers
//!   are checked for them as for all.
//! * Block formats are stored as bytes (`U8`), their type in the metadata: `"weft.block.<name>": "q8 [64, 32]"`.

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
