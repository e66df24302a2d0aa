//! Weights as sessions share them: mapped or borrowed until somebody changes them, packed once for all.
//!
//! **Weights** (`device/cpu/parameters.rs`) are shared by sessions and stay mapped until somebody changes them; every change
//! raises a version, and packed forms are made anew when it is behind. f16 and bf16 weights of products stay packed and are
//! widened in registers. Dtypes of files that Weft does not compute with (`tensor/stored`) are kept as they are: F64 and small
//! integers are converted when they are asked for, the others are an error only for a graph that needs them.

use super::buffer::Buffer;
use super::gemm::{BElements, BSource, Format, PackedB};
use super::isa::isa;
use super::threads::ThreadPool;
use crate::device::lock;
use crate::error::{Error, Result};
use crate::tensor::{DType, Tensor, TensorType, copied};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// How a parameter is seen by a product: parameter, offset, row and column strides, k, n.
pub type PackKey = (usize, isize, isize, isize, usize, usize);

/// One parameter.
pub struct StoredParameter {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    data: Data,
}

enum Data {
    /// As it was given; contiguous and aligned.
    Given(Tensor<'static>),
    /// A copy that may be changed.
    Own(Buffer),
}

impl StoredParameter {
    /// A parameter over a host tensor, which is kept as it is where its bytes can be used in place.
    pub fn new(name: String, tensor: &Tensor<'static>) -> Result<Self> {
        let ty = tensor.ty();
        let tensor = tensor.contiguous();
        let aligned = tensor.bytes().as_ptr().align_offset(ty.dtype.size().unwrap_or(2)) == 0;
        let mut p = StoredParameter { name, ty, data: Data::Given(tensor) };
        if !aligned {
            p.make_own()?;
        }
        Ok(p)
    }

    /// A parameter of zeros.
    pub fn zeros(name: String, ty: TensorType) -> Result<Self> {
        let buffer = allocate(ty.bytes().unwrap_or(usize::MAX), &format!("the weight \"{name}\""))?;
        Ok(StoredParameter { name, ty, data: Data::Own(buffer) })
    }

    /// What it is, for errors.
    fn what(&self) -> String {
        format!("the weight \"{}\"", self.name)
    }

    fn make_own(&mut self) -> Result<()> {
        if let Data::Given(tensor) = &self.data {
            let buffer = allocate(tensor.bytes().len(), &self.what())?;
            // SAFETY: a fresh buffer of that many bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    tensor.bytes().as_ptr(),
                    buffer.pointer(),
                    tensor.bytes().len(),
                );
            }
            self.data = Data::Own(buffer);
        }
        Ok(())
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        match &self.data {
            Data::Given(t) => t.bytes(),
            // SAFETY: the buffer holds the type's bytes (it may be a little longer), and `&self` says that
            // nobody writes.
            Data::Own(b) => unsafe {
                std::slice::from_raw_parts(b.pointer(), self.ty.bytes().unwrap_or(0).min(b.len()))
            },
        }
    }

    /// Its bytes, to change; what was borrowed is copied first.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn bytes_mut(&mut self) -> Result<&mut [u8]> {
        self.make_own()?;
        let len = self.ty.bytes().unwrap_or(0);
        match &mut self.data {
            // SAFETY: as in `bytes`; `&mut self` makes the access exclusive.
            Data::Own(b) => Ok(unsafe { std::slice::from_raw_parts_mut(b.pointer(), len.min(b.len())) }),
            Data::Given(_) => Err(Error::internal("a parameter that is not its own")),
        }
    }

    /// As a host tensor: a copy if it has been changed, the given one otherwise.
    pub fn tensor(&self) -> Result<Tensor<'static>> {
        match &self.data {
            Data::Given(t) => Ok(t.clone()),
            Data::Own(_) => {
                let bytes = crate::tensor::Bytes::from_vec(copied(self.bytes(), &self.what())?);
                Tensor::from_bytes(self.ty.dtype, self.ty.shape.clone(), bytes)
            }
        }
    }
}

/// Zeroed memory or an error that says for what.
pub fn allocate(bytes: usize, what: &str) -> Result<Buffer> {
    Buffer::try_new(bytes).ok_or_else(|| Error::OutOfMemory { wanted: bytes as u64, what: what.into() })
}

/// A set of parameters that sessions share.
pub struct Store {
    /// The parameters, in the order of the first plan's.
    pub parameters: Vec<StoredParameter>,
    /// Grows with every change.
    pub version: u64,
    packed: Mutex<HashMap<PackKey, (u64, Arc<PackedB>)>>,
}

impl Store {
    /// A store of those parameters.
    pub fn new(parameters: Vec<StoredParameter>) -> Self {
        Store { parameters, version: 0, packed: Mutex::new(HashMap::new()) }
    }

    /// The packed form of a parameter for a product: made when first asked for, and again after a change.
    pub fn packed(&self, key: PackKey, pool: &ThreadPool) -> Result<Arc<PackedB>> {
        let mut known = lock(&self.packed);
        if let Some((version, packed)) = known.get(&key)
            && *version == self.version
        {
            return Ok(packed.clone());
        }
        known.remove(&key);
        let p = &self.parameters[key.0];
        let packed = Arc::new(pack(p.ty.dtype, p.bytes().as_ptr(), key, pool)?);
        known.insert(key, (self.version, packed.clone()));
        Ok(packed)
    }

    /// Sizes of the parameters and of their packed forms.
    pub fn sizes(&self) -> Vec<usize> {
        let known = lock(&self.packed);
        let packed = known.values().map(|(_, p)| p.bytes());
        self.parameters.iter().map(|p| p.bytes().len()).chain(packed).collect()
    }
}

/// Bytes of the packed form of a weight of that dtype and size, on this processor.
pub fn packed_bytes(dtype: DType, k: usize, n: usize) -> usize {
    let format = match dtype {
        DType::F16 => Format::F16,
        DType::BF16 => Format::Bf16,
        _ => Format::F32,
    };
    PackedB::size(isa(), k, n, format)
}

/// Packs a weight for products.
pub fn pack(dtype: DType, base: *const u8, key: PackKey, pool: &ThreadPool) -> Result<PackedB> {
    let (_, offset, rs, cs, k, n) = key;
    let (elements, format) = match dtype {
        DType::F32 => (BElements::F32(base.cast::<f32>().wrapping_offset(offset)), Format::F32),
        DType::F16 => (BElements::F16(base.cast::<u16>().wrapping_offset(offset)), Format::F16),
        DType::BF16 => (BElements::Bf16(base.cast::<u16>().wrapping_offset(offset)), Format::Bf16),
        other => return Err(Error::internal(format!("a weight of {other} in a product"))),
    };
    let mut packed = PackedB::try_new(k, n, format)
        .map_err(|bytes| Error::OutOfMemory { wanted: bytes as u64, what: "a packed weight".into() })?;
    // SAFETY: the plan's operand walks k × n elements inside the parameter's bytes.
    unsafe { packed.pack(BSource { elements, rs, cs }, pool) };
    Ok(packed)
}
