//! The loops that Weft's CPU device spends its time in, over pointers and lengths: they know no graph, no plan, no dtype of the
//! engine. A package of its own, so that a build can compile these loops for speed and the rest of the engine for size
//! (`opt-level` holds for a package whole). Not meant to be used directly: it changes without notice, with the crate `weft`.
//!
//! Kernels exist for AVX-512, AVX2, NEON and portable code, chosen once at start ([`isa`]). Everything that `weft` calls here
//! is compiled *here*: entry points are neither generic nor inlined (`#[inline(never)]`: the compiler takes small functions, and the
//! generic ones that they name, into the caller's package, and compiles them there for size: softmax was five times slower). Generic
//! ones forward to functions of the concrete types. All results are the same bits for any number of threads ([`threads`]).

pub mod arithmetic;
pub mod buffer;
pub mod dots;
pub mod gemm;
pub mod isa;
mod lanes;
pub mod process;
pub mod softmax;
pub mod threads;
pub mod vmath;
pub mod windows;

/// Tests take one of so many of their cases: all, but in an interpreter, which is a thousand times slower (`tests/full/miri`).
#[cfg(test)]
const EACH: usize = if cfg!(miri) { 40 } else { 1 };
