//! A plan's matrix product on the packed kernels: B packed once where it is a weight, the pointwise
//! epilogue applied to each finished piece.

use super::bases::Bases;
use super::executor::Scratches;
use super::gemm::{self, BKind, BOperand, MatRef, PackedB};
use super::isa::isa;
use super::parameters::{PackKey, Store, pack};
use super::rowwise::PreparedEpilogue;
use super::threads::ThreadPool;
use crate::error::Result;
use crate::plan::{Operand, Place, Plan, Product};
use crate::tensor::DType;
use std::sync::Arc;

/// A product, ready to run.
pub struct PreparedProduct {
    m: usize,
    n: usize,
    k: usize,
    /// Element offsets of A, B and C of each batch.
    batches: Vec<[isize; 3]>,
    a: Operand,
    b: Operand,
    out: Operand,
    /// Row and column strides of A and B, row stride of C.
    strides: [isize; 5],
    epilogue: Option<PreparedEpilogue>,
    weight: Weight,
}

enum Weight {
    /// B is computed: read in place.
    No,
    /// The plan's n-th parameter.
    Parameter(usize, Option<Arc<PackedB>>),
    /// Data of the plan or of a step that runs once.
    Constant(Option<PackedB>),
}

impl PreparedProduct {
    /// Prepares a product of a plan.
    pub fn new(p: &Product, plan: &Plan) -> Result<Self> {
        let axes = p.batch.len();
        let count: usize = p.batch.iter().product();
        let mut batches = Vec::with_capacity(count);
        for i in 0..count {
            let (mut rest, mut at) = (i, [0isize; 3]);
            for axis in (0..axes).rev() {
                let index = (rest % p.batch[axis]) as isize;
                rest /= p.batch[axis];
                for (o, operand) in at.iter_mut().zip([&p.a, &p.b, &p.out]) {
                    *o += index * operand.strides[axis];
                }
            }
            batches.push(at);
        }
        let weight = match (p.b_is_weight, &plan.buffers[p.b.buffer].place) {
            (false, _) => Weight::No,
            (true, Place::Parameter(i)) => Weight::Parameter(*i, None),
            (true, _) => Weight::Constant(None),
        };
        let (a, b, c) = (&p.a.strides[axes..], &p.b.strides[axes..], &p.out.strides[axes..]);
        Ok(PreparedProduct {
            m: p.m,
            n: p.n,
            k: p.k,
            batches,
            strides: [a[0], a[1], b[0], b[1], c[0]],
            a: p.a.clone(),
            b: p.b.clone(),
            out: p.out.clone(),
            epilogue: p.epilogue.as_ref().map(PreparedEpilogue::new).transpose()?,
            weight,
        })
    }

    /// Packs B, if it is a weight, as it is now.
    pub fn pack(
        &mut self,
        pool: &ThreadPool,
        store: &Store,
        positions: &[usize],
        bases: &[*mut u8],
    ) -> Result<()> {
        let [_, _, rs, cs, _] = self.strides;
        let key = |parameter| -> PackKey { (parameter, self.b.offset, rs, cs, self.k, self.n) };
        match &mut self.weight {
            Weight::No => {}
            Weight::Parameter(i, packed) => {
                *packed = None; // so that a stale form is gone before the new one is made
                let key = (positions[*i], self.b.offset, rs, cs, self.k, self.n);
                *packed = Some(store.packed(key, pool)?);
            }
            Weight::Constant(packed) if packed.is_none() => {
                let made = pack(self.b.dtype, bases[self.b.buffer], key(0), pool)?;
                if let Weight::Constant(packed) = &mut self.weight {
                    *packed = Some(made);
                }
            }
            Weight::Constant(_) => {}
        }
        Ok(())
    }

    /// Lets go of a packed form of what steps that run once computed, if they are to run again.
    pub fn forget(&mut self, renewed: &[bool]) {
        if let Weight::Constant(packed) = &mut self.weight
            && renewed[self.b.buffer]
        {
            *packed = None;
        }
    }

    fn kind(&self) -> BKind {
        if matches!(self.weight, Weight::No) { BKind::Plain } else { BKind::Packed }
    }

    /// Working memory a worker needs.
    pub fn scratch_bytes(&self) -> usize {
        gemm::scratch_bytes_per_worker(isa(), self.kind(), self.m, self.n, self.k)
    }

    /// Working memory the epilogue needs.
    pub fn epilogue_scratch(&self) -> usize {
        self.epilogue.as_ref().map_or(0, PreparedEpilogue::scratch_bytes_per_worker)
    }

    /// Bytes of packed constants that no store shares.
    pub fn own_bytes(&self) -> usize {
        if let Weight::Constant(Some(p)) = &self.weight { p.bytes() } else { 0 }
    }

    /// # Safety
    /// The plan's operands lie inside the buffers at `bases`; the output overlaps none of the others.
    pub unsafe fn run(&self, pool: &ThreadPool, bases: Bases<'_>, scratch: &mut Scratches) {
        let [a_rs, a_cs, b_rs, b_cs, c_rs] = self.strides;
        debug_assert_eq!(self.a.dtype, DType::F32);
        let a = |i: usize| MatRef {
            ptr: bases.f32(&self.a).wrapping_offset(self.batches[i][0]),
            rs: a_rs,
            cs: a_cs,
        };
        let b = |i: usize| MatRef {
            ptr: bases.f32(&self.b).wrapping_offset(self.batches[i][1]),
            rs: b_rs,
            cs: b_cs,
        };
        let c = |i: usize| (bases.f32_mut(&self.out).wrapping_offset(self.batches[i][2]), c_rs);
        let rows = scratch.rows.workers();
        let finish = |s: gemm::Segment, piece: &mut [f32]| {
            if let Some(e) = &self.epilogue {
                // SAFETY: as the caller promises; each worker has its own part of the scratch.
                unsafe { e.apply(rows.of(s.worker), bases, s.batch * self.m + s.row, s.col, piece) };
            }
        };
        let b = match &self.weight {
            Weight::Parameter(_, Some(packed)) => BOperand::Packed(packed),
            Weight::Constant(Some(packed)) => BOperand::Packed(packed),
            _ => BOperand::Plain(&b),
        };
        let product = gemm::Product {
            m: self.m,
            n: self.n,
            k: self.k,
            batches: self.batches.len(),
            a: &a,
            b,
            c: &c,
            alpha: 1.0,
            epilogue: self.epilogue.as_ref().map(|_| &finish as &gemm::Epilogue<'_>),
        };
        // SAFETY: as the caller promises.
        unsafe { gemm::product(pool, &mut scratch.products, &product) };
    }
}
