//! The limits that kernels may assume of a GPU: see [`crate::profile::Limits`].

pub use crate::profile::Limits;
