//! Reads a plan, except for its steps, from untrusted bytes.

use super::ALIGN;
use super::codes::Coded;
use crate::plan::{
    Buffer, Derivation, Derived, Form, Gradient, Part, Place, Plan, Port, StatePort, Values, WeightPart,
};
use crate::tensor::{Bytes, DType, Tensor, TensorType};

/// A malformed item: what was expected, and what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Damage {
    pub(crate) wanted: String,
    pub(crate) came: String,
}

impl Damage {
    pub(crate) fn new(wanted: impl Into<String>, came: impl Into<String>) -> Box<Damage> {
        Box::new(Damage { wanted: wanted.into(), came: came.into() })
    }
}

/// The value read, or the damage: boxed, so that results of numbers fit into registers.
pub type Read<T> = std::result::Result<T, Box<Damage>>;

/// A cursor over bytes.
#[derive(Debug)]
pub struct Reader {
    bytes: Bytes<'static>,
    pub(crate) at: usize,
}

/// Maximum axes of a tensor.
const MOST_AXES: usize = 64;

impl Reader {
    /// Starts at `at`; positions count from the first byte.
    pub(crate) fn new(bytes: Bytes<'static>, at: usize) -> Reader {
        Reader { bytes, at }
    }

    /// Remaining bytes.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(crate) fn raw(&mut self, n: usize) -> Read<&[u8]> {
        if n > self.left() {
            return Err(Damage::new(format!("{n} more bytes"), format!("{} up to the end", self.left())));
        }
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    // inlined: a plan is mostly numbers of one byte, and this package is compiled for size
    #[inline]
    pub(crate) fn byte(&mut self) -> Read<u8> {
        match self.bytes.get(self.at) {
            Some(&byte) => {
                self.at += 1;
                Ok(byte)
            }
            None => self.raw(1).map(|b| b[0]), // the error
        }
    }

    pub(crate) fn flag(&mut self) -> Read<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Damage::new("0 or 1", other.to_string())),
        }
    }

    pub(crate) fn code<T: Coded>(&mut self) -> Read<T> {
        let code = self.byte()?;
        T::of(code).ok_or_else(|| Damage::new(T::WHAT, format!("number {code}")))
    }

    #[inline]
    pub(crate) fn word(&mut self) -> Read<u64> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(u64::from(byte))
            }
            _ => self.long_word(),
        }
    }

    /// A number of more bytes than one.
    fn long_word(&mut self) -> Read<u64> {
        let mut v = 0u64;
        for i in 0..10 {
            let byte = self.byte()?;
            // the tenth byte may contain one bit only
            if i == 9 && byte > 1 {
                break;
            }
            v |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                return Ok(v);
            }
        }
        Err(Damage::new("a number of 64 bits", "a longer one"))
    }

    pub(crate) fn size(&mut self) -> Read<usize> {
        let v = self.word()?;
        usize::try_from(v).map_err(|_| Damage::new("a number that this machine can count to", v.to_string()))
    }

    pub(crate) fn signed(&mut self) -> Read<isize> {
        let v = self.word()?;
        let v = (v >> 1) as i64 ^ -((v & 1) as i64);
        isize::try_from(v).map_err(|_| Damage::new("a number that this machine can count to", v.to_string()))
    }

    pub(crate) fn real(&mut self) -> Read<f64> {
        let b = self.raw(8)?;
        Ok(f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
    }

    pub(crate) fn text(&mut self) -> Read<String> {
        let n = self.size()?;
        let bytes = self.raw(n)?.to_vec();
        String::from_utf8(bytes).map_err(|_| Damage::new("UTF-8", "other bytes"))
    }

    /// A list whose elements take at least one byte each, which bounds its length by the remaining bytes.
    pub(crate) fn list<T>(&mut self, mut each: impl FnMut(&mut Reader) -> Read<T>) -> Read<Vec<T>> {
        let n = self.size()?;
        if n > self.left() {
            return Err(Damage::new(format!("{n} elements"), format!("{} bytes up to the end", self.left())));
        }
        // a length that lies costs little memory, for longer lists grow as their elements are read
        let mut all = Vec::with_capacity(n.min(64));
        for _ in 0..n {
            all.push(each(self)?);
        }
        Ok(all)
    }

    pub(crate) fn maybe<T>(&mut self, each: impl FnOnce(&mut Reader) -> Read<T>) -> Read<Option<T>> {
        if self.flag()? { each(self).map(Some) } else { Ok(None) }
    }

    pub(crate) fn sizes(&mut self) -> Read<Vec<usize>> {
        let all = self.list(Reader::size)?;
        if all.len() > MOST_AXES {
            return Err(Damage::new(format!("at most {MOST_AXES} axes"), all.len().to_string()));
        }
        Ok(all)
    }

    /// Skips zeros up to the next multiple of [`ALIGN`].
    pub(crate) fn align(&mut self) -> Read<()> {
        let n = self.at.next_multiple_of(ALIGN) - self.at;
        match self.raw(n)?.iter().all(|b| *b == 0) {
            true => Ok(()),
            false => Err(Damage::new("zeros between parts", "others")),
        }
    }

    /// A plan, not yet verified.
    pub(crate) fn plan<G: Form>(&mut self) -> Read<Plan<G>> {
        let buffers = self.list(Reader::buffer)?;
        let (steps, init_steps) = (self.list(Reader::step)?, self.list(Reader::step)?);
        let (inputs, parameters, outputs) =
            (self.list(Reader::port)?, self.list(Reader::port)?, self.list(Reader::port)?);
        let values = Values {
            buffers,
            inputs,
            parameters,
            outputs,
            states: self.list(Reader::state)?,
            loss: self.maybe(Reader::size)?,
            unfused: self.flag()?,
            gradients: self
                .list(|r| Ok(Gradient { parameter: r.size()?, buffer: r.size()?, offset: r.size()? }))?,
            derived: self.list(Reader::derived)?,
        };
        Ok(Plan { values, steps, init_steps })
    }

    fn derived(&mut self) -> Read<Derived> {
        let how = match self.byte()? {
            0 => Derivation::Computed,
            1 => Derivation::Moved { from: self.maybe(Reader::code)?, transposed: self.flag()? },
            other => return Err(Damage::new("a derivation", format!("number {other}"))),
        };
        let part = self.maybe(|r| {
            let of = r.code()?;
            let place = WeightPart { of, from: r.size()?, to: r.size()?, all: r.size()? };
            Ok(Part { place, elements: r.size()? })
        })?;
        Ok(Derived { how, part })
    }

    fn buffer(&mut self) -> Read<Buffer> {
        let (dtype, elements) = (self.code::<DType>()?, self.size()?);
        let place = match self.byte()? {
            0 => Place::Scratch,
            1 => Place::Own,
            2 => Place::Parameter(self.size()?),
            3 => Place::Constant(self.constant(dtype)?),
            4 => Place::State(self.size()?),
            other => return Err(Damage::new("a place", format!("number {other}"))),
        };
        Ok(Buffer { dtype, elements, place })
    }

    /// A constant, its bytes borrowed in place.
    fn constant(&mut self, dtype: DType) -> Read<Tensor<'static>> {
        let ty = TensorType::new(dtype, self.sizes()?);
        self.align()?;
        let n = ty.bytes().ok_or_else(|| Damage::new("a constant that fits into memory", ty.to_string()))?;
        let from = self.at;
        self.raw(n)?;
        let part = self.bytes.part(from, from + n).unwrap_or_else(|| Bytes::from_vec::<u8>(vec![]));
        Tensor::from_bytes(dtype, ty.shape, part).map_err(|e| Damage::new("a constant", e.to_string()))
    }

    /// Name, dtype and shape.
    pub(crate) fn named(&mut self) -> Read<(String, DType, Vec<usize>)> {
        Ok((self.text()?, self.code()?, self.sizes()?))
    }

    fn port(&mut self) -> Read<Port> {
        let (name, dtype, shape) = self.named()?;
        Ok(Port { name, dtype, shape, buffer: self.size()?, trainable: self.flag()? })
    }

    fn state(&mut self) -> Read<StatePort> {
        let (name, dtype, shape) = self.named()?;
        Ok(StatePort { name, dtype, shape, buffer: self.size()?, next: self.maybe(Reader::size)? })
    }
}
