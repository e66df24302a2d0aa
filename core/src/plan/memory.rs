//! Assigns scratch buffers to offsets of one arena so that buffers with disjoint lifetimes share bytes.
//!
//! Intermediate values share one arena by lifetime (the target decides the order of time); inputs, outputs and gradients have
//! memory of their own. Steps that depend on constants alone run at init.

/// A buffer's size and live range, in steps.
#[derive(Debug, Clone, Copy)]
pub struct Lifetime {
    /// Bytes.
    pub bytes: usize,
    /// The first step that writes it.
    pub from: usize,
    /// The last step that accesses it.
    pub to: usize,
}

/// Alignment of every buffer: a cache line, and the widest vector.
pub const ALIGN: usize = 64;

/// Offsets for the buffers, and the arena's size. Largest first, each in the lowest gap that fits among the buffers alive at
/// the same time ("greedy by size", Pisarchyk & Lee 2020, arXiv:2001.03288). Offsets are multiples of `align`; no buffer
/// crosses a multiple of `chunk`, unless it is longer than `chunk`.
pub fn place(buffers: &[Lifetime], align: usize, chunk: usize) -> (Vec<usize>, usize) {
    let fits = |at: usize, size: usize| match at % chunk + size > chunk && size <= chunk {
        true => at.next_multiple_of(chunk),
        false => at,
    };
    let mut order: Vec<usize> = (0..buffers.len()).collect();
    crate::order::sort_by_key(&mut order, |&i| (usize::MAX - buffers[i].bytes, buffers[i].from, i));
    let mut offsets = vec![0usize; buffers.len()];
    let mut placed: Vec<usize> = Vec::new(); // by offset
    let mut total = 0;
    for i in order {
        let size = buffers[i].bytes.max(1).next_multiple_of(align);
        let mut at = 0;
        for &j in &placed {
            if buffers[j].to < buffers[i].from || buffers[i].to < buffers[j].from {
                continue;
            }
            if offsets[j] >= at + size {
                break;
            }
            at = fits(at.max(offsets[j] + buffers[j].bytes.max(1).next_multiple_of(align)), size);
        }
        offsets[i] = at;
        total = total.max(at + size);
        let slot = placed.partition_point(|&j| offsets[j] < at);
        placed.insert(slot, i);
    }
    (offsets, total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_alive_together_never_overlap_and_others_share() {
        let lives: Vec<Lifetime> = (0..200usize)
            .map(|i| Lifetime { bytes: 1 + (i * 7919) % 5000, from: i, to: i + 1 + (i * 31) % 9 })
            .collect();
        let (offsets, total) = place(&lives, ALIGN, usize::MAX);
        for i in 0..lives.len() {
            assert_eq!(offsets[i] % ALIGN, 0);
            assert!(offsets[i] + lives[i].bytes <= total);
            for j in 0..i {
                let together = lives[i].from <= lives[j].to && lives[j].from <= lives[i].to;
                let apart =
                    offsets[i] + lives[i].bytes <= offsets[j] || offsets[j] + lives[j].bytes <= offsets[i];
                assert!(!together || apart, "{i} and {j}");
            }
        }
        let sum: usize = lives.iter().map(|l| l.bytes).sum();
        assert!(total < sum / 10, "{total} of {sum}");
    }

    #[test]
    fn buffers_do_not_lie_across_chunks() {
        let lives: Vec<Lifetime> = (0..100usize)
            .map(|i| Lifetime { bytes: 1 + (i * 7919) % 900, from: i / 3, to: i / 3 + 2 })
            .collect();
        let (offsets, _) = place(&lives, 256, 1024);
        for (at, life) in offsets.iter().zip(&lives) {
            assert!(at % 256 == 0 && at / 1024 == (at + life.bytes - 1) / 1024, "{at} {life:?}");
        }
    }
}
