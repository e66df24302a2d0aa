//! Rows whose result is NaN, computed again key by key. The products of blocks multiply every value of theirs by its weight, be that 0:
//! an infinity or a NaN in a value that a query does not see, or that has no weight, would spoil the query's result. What has
//! weight 0 adds nothing here. Where a result is NaN for a good reason, it comes out so again. Costs a look at each result.

use super::{Rows, Run};
use weft_kernels::softmax;

impl Rows<'_> {
    /// An element as f32.
    ///
    /// # Safety
    /// The row is there and has that element.
    unsafe fn element(&self, place: [usize; 3], e: usize) -> f32 {
        use super::Packed;
        let at = self.at(place).wrapping_add(e * self.size as usize);
        // SAFETY: an element, by the caller.
        unsafe {
            match self.packed {
                None => at.cast::<f32>().read_unaligned(),
                Some(Packed::F16) => half::f16::from_bits(at.cast::<u16>().read_unaligned()).to_f32(),
                Some(_) => half::bf16::from_bits(at.cast::<u16>().read_unaligned()).to_f32(),
            }
        }
    }
}

impl Run<'_> {
    /// Looks at the results of some queries of a head, and computes those that are NaN again.
    ///
    /// # Safety
    /// As [`PreparedAttention::run`](super::PreparedAttention::run), after these results were written; they are no other unit's.
    pub(super) unsafe fn mend(&self, b: usize, head: usize, queries: std::ops::Range<usize>) {
        for i in queries {
            let to = Self::at(&self.out, &self.p.out, [b, head, i]);
            // SAFETY: the output's row, by the contract.
            let row = unsafe { std::slice::from_raw_parts_mut(to, self.p.plan.d_v) };
            if softmax::has_nan(row) {
                // SAFETY: passed on.
                unsafe { self.mend_row(b, head, i, row) };
            }
        }
    }

    #[cold]
    unsafe fn mend_row(&self, b: usize, head: usize, i: usize, row: &mut [f32]) {
        let plan = &self.p.plan;
        let (kv, (from, to)) = (head / self.p.group, self.visible(b, i));
        let q = Self::at(&self.q, &plan.q, [b, head, i]).cast_const();
        let score = |key: usize| {
            let (at, _) = self.lying(b, key, key + 1);
            // SAFETY: queries, keys and mask inside their operands, by the contract.
            unsafe {
                let dot = |e: usize| f64::from(*q.add(e)) * f64::from(self.k.element([b, kv, at], e));
                let mut score = (0..plan.d).map(dot).sum::<f64>() as f32 * plan.form.scale as f32;
                if let Some((mask, s)) = &self.mask {
                    let at =
                        b as isize * s[0] + head as isize * s[1] + i as isize * s[2] + key as isize * s[3];
                    score += *mask.get().offset(at);
                }
                score
            }
        };
        row.fill(0.0);
        let larger = |m: f32, v: f32| if v > m || v.is_nan() { v } else { m };
        let most = (from..to).map(score).fold(f32::NEG_INFINITY, larger);
        if most == f32::NEG_INFINITY {
            return;
        }
        let weight = |key: usize| match score(key) {
            f32::NEG_INFINITY => 0.0,
            v => (v - most).exp(),
        };
        let total: f32 = (from..to).map(weight).sum();
        for key in from..to {
            let w = weight(key);
            if w == 0.0 {
                continue;
            }
            let (at, _) = self.lying(b, key, key + 1);
            for (e, sum) in row.iter_mut().enumerate() {
                // SAFETY: values inside their operand, by the contract.
                *sum += w / total * unsafe { self.v.element([b, kv, at], e) };
            }
        }
    }
}
