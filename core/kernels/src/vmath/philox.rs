//! Philox4x32-10, a counter-based generator: Salmon, Moraes, Dror & Shaw, *Parallel random numbers: as easy as 1, 2, 3*
//! (SC 2011). Any element of a stream is computed from its index alone, on any machine alike.

use super::Isa;
use super::kernel::{Kernel, W, launch};

const M0: u32 = 0xD251_1F53;
const M1: u32 = 0xCD9E_8D57;
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

#[inline(always)]
fn mul_wide(a: u32, b: u32) -> (u32, u32) {
    let p = u64::from(a) * u64::from(b);
    ((p >> 32) as u32, p as u32)
}

/// One block of four words: ten rounds over a 128-bit counter under a 64-bit key.
#[inline(always)]
pub fn philox_block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..10 {
        let (hi0, lo0) = mul_wide(M0, c0);
        let (hi1, lo1) = mul_wide(M1, c2);
        [c0, c1, c2, c3] = [hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0];
        k0 = k0.wrapping_add(WEYL[0]);
        k1 = k1.wrapping_add(WEYL[1]);
    }
    [c0, c1, c2, c3]
}

#[inline(always)]
fn block_of(seed: u64, counter: u32, block: u64) -> [u32; 4] {
    philox_block([block as u32, (block >> 32) as u32, counter, 0], [seed as u32, (seed >> 32) as u32])
}

/// The word at `index` of the stream `(seed, counter)`: word `index % 4` of block `index / 4`.
pub fn philox_word(seed: u64, counter: u32, index: u64) -> u32 {
    block_of(seed, counter, index / 4)[(index % 4) as usize]
}

/// [0, 1) by the word's top 24 bits: every value is an f32.
#[inline(always)]
fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// `dst[i]` in [0, 1) from word `first_index + i` of the stream `(seed, counter)`.
pub fn philox_uniform(dst: &mut [f32], seed: u64, counter: u32, first_index: u64) {
    // SAFETY: the machine has the instruction set it reports.
    unsafe { uniform_on(crate::isa::isa(), dst, seed, counter, first_index) }
}

/// # Safety
/// The machine has `isa`.
pub(super) unsafe fn uniform_on(isa: Isa, dst: &mut [f32], seed: u64, counter: u32, first: u64) {
    // SAFETY: the caller's promise.
    unsafe { launch(isa, Uniform { dst, seed, counter, first }) }
}

struct Uniform<'a> {
    dst: &'a mut [f32],
    seed: u64,
    counter: u32,
    first: u64,
}

/// `W` blocks from `block` on, word by word: `[word][block]`.
#[inline(always)]
fn blocks(seed: u64, counter: u32, block: u64) -> [[f32; W]; 4] {
    let mut lo = [0; W];
    let mut hi = [0; W];
    for (j, (lo, hi)) in lo.iter_mut().zip(&mut hi).enumerate() {
        let b = block.wrapping_add(j as u64);
        (*lo, *hi) = (b as u32, (b >> 32) as u32);
    }
    let key = [seed as u32, (seed >> 32) as u32];
    let mut words = [[0.0; W]; 4];
    for j in 0..W {
        let [a, b, c, d] = philox_block([lo[j], hi[j], counter, 0], key);
        words[0][j] = unit(a);
        words[1][j] = unit(b);
        words[2][j] = unit(c);
        words[3][j] = unit(d);
    }
    words
}

impl Kernel for Uniform<'_> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<const HW: bool>(self) {
        let mut rest = self.dst;
        let mut block = self.first / 4;
        let mut skip = (self.first % 4) as usize;
        while !rest.is_empty() {
            let words = blocks(self.seed, self.counter, block);
            let mut flat = [0.0; 4 * W];
            for (j, four) in flat.chunks_exact_mut(4).enumerate() {
                four.copy_from_slice(&[words[0][j], words[1][j], words[2][j], words[3][j]]);
            }
            let (now, later) = rest.split_at_mut(rest.len().min(4 * W - skip));
            now.copy_from_slice(&flat[skip..skip + now.len()]);
            (rest, skip) = (later, 0);
            block = block.wrapping_add(W as u64);
        }
    }
}
