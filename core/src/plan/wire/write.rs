//! Writes a plan, except for its steps.

use super::ALIGN;
use super::codes::Coded;
use crate::error::{Error, Result};
use crate::plan::{
    Buffer, BufferId, Derivation, Derived, Form, Gradient, Part, Place, Plan, Port, StatePort, Values,
    WeightPart,
};
use crate::tensor::DType;

/// A growing byte buffer.
#[derive(Debug, Default)]
pub struct Writer {
    pub(crate) out: Vec<u8>,
    /// If buffers are written by order of first use: the buffers so far.
    met: Option<Vec<BufferId>>,
}

impl Writer {
    /// A writer that numbers buffers by order of first use: steps that differ only in their buffers give equal bytes.
    #[cfg(feature = "gpu")]
    pub(crate) fn by_order() -> Writer {
        Writer { out: vec![], met: Some(vec![]) }
    }

    /// The buffers used so far, in order, of a writer [`by_order`](Writer::by_order).
    #[cfg(feature = "gpu")]
    pub(crate) fn met(&self) -> &[BufferId] {
        self.met.as_deref().unwrap_or_default()
    }

    /// A buffer's number.
    pub(crate) fn id(&mut self, buffer: BufferId) {
        let number = self.met.as_mut().map_or(buffer, |met| {
            met.iter().position(|b| *b == buffer).unwrap_or_else(|| {
                met.push(buffer);
                met.len() - 1
            })
        });
        self.size(number);
    }

    pub(crate) fn byte(&mut self, v: u8) {
        self.out.push(v);
    }

    pub(crate) fn flag(&mut self, v: bool) {
        self.out.push(u8::from(v));
    }

    pub(crate) fn code(&mut self, v: impl Coded) {
        self.out.push(v.code());
    }

    pub(crate) fn size(&mut self, v: usize) {
        self.word(v as u64);
    }

    pub(crate) fn word(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.out.push(v as u8 | 0x80);
            v >>= 7;
        }
        self.out.push(v as u8);
    }

    pub(crate) fn signed(&mut self, v: isize) {
        let v = v as i64;
        self.word((v << 1) as u64 ^ (v >> 63) as u64);
    }

    pub(crate) fn real(&mut self, v: f64) {
        self.out.extend_from_slice(&v.to_le_bytes());
    }

    pub(crate) fn text(&mut self, v: &str) {
        self.size(v.len());
        self.out.extend_from_slice(v.as_bytes());
    }

    pub(crate) fn raw(&mut self, v: &[u8]) {
        self.out.extend_from_slice(v);
    }

    pub(crate) fn list<T>(&mut self, all: &[T], mut each: impl FnMut(&mut Writer, &T)) {
        self.size(all.len());
        all.iter().for_each(|v| each(self, v));
    }

    pub(crate) fn maybe<T>(&mut self, v: Option<T>, each: impl FnOnce(&mut Writer, T)) {
        self.flag(v.is_some());
        if let Some(v) = v {
            each(self, v);
        }
    }

    pub(crate) fn sizes(&mut self, all: &[usize]) {
        self.list(all, |w, v| w.size(*v));
    }

    /// Zeros up to the next multiple of [`ALIGN`].
    pub(crate) fn align(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(ALIGN), 0);
    }

    /// Writes a plan.
    ///
    /// # Errors
    /// [`Error::Internal`] for a constant whose type differs from its buffer's.
    pub(crate) fn plan<G: Form>(&mut self, plan: &Plan<G>) -> Result<()> {
        let Plan { values, steps, init_steps } = plan;
        let Values { buffers, inputs, parameters, states, outputs, loss, unfused, gradients, derived } =
            values;
        self.size(buffers.len());
        buffers.iter().try_for_each(|b| self.buffer(b))?;
        self.list(steps, Writer::step);
        self.list(init_steps, Writer::step);
        for ports in [inputs, parameters, outputs] {
            self.list(ports, Writer::port);
        }
        self.list(states, Writer::state);
        self.maybe(*loss, Writer::size);
        self.flag(*unfused);
        self.list(gradients, |w, Gradient { parameter, buffer, offset }| {
            w.size(*parameter);
            w.size(*buffer);
            w.size(*offset);
        });
        self.list(derived, Writer::derived);
        Ok(())
    }

    fn derived(&mut self, Derived { how, part }: &Derived) {
        match how {
            Derivation::Computed => self.byte(0),
            Derivation::Moved { from, transposed } => {
                self.byte(1);
                self.maybe(*from, Writer::code);
                self.flag(*transposed);
            }
        }
        self.maybe(part.as_ref(), |w, Part { place: WeightPart { of, from, to, all }, elements }| {
            w.code(*of);
            [from, to, all, elements].into_iter().for_each(|v| w.size(*v));
        });
    }

    fn buffer(&mut self, buffer: &Buffer) -> Result<()> {
        let Buffer { dtype, elements, place } = buffer;
        self.code(*dtype);
        self.size(*elements);
        match place {
            Place::Scratch => self.byte(0),
            Place::Own => self.byte(1),
            Place::Parameter(parameter) => {
                self.byte(2);
                self.size(*parameter);
            }
            Place::State(state) => {
                self.byte(4);
                self.size(*state);
            }
            Place::Constant(t) => {
                let whole = t.contiguous();
                if t.dtype() != *dtype || whole.bytes().len() != buffer.bytes() {
                    return Err(Error::internal(format!("a constant {} of a buffer of {dtype}", t.ty())));
                }
                self.byte(3);
                self.sizes(t.shape());
                self.align();
                self.raw(whole.bytes());
            }
        }
        Ok(())
    }

    /// Name, dtype and shape.
    pub(crate) fn named(&mut self, name: &str, dtype: DType, shape: &[usize]) {
        self.text(name);
        self.code(dtype);
        self.sizes(shape);
    }

    fn port(&mut self, port: &Port) {
        let Port { name, buffer, dtype, shape, trainable } = port;
        self.named(name, *dtype, shape);
        self.size(*buffer);
        self.flag(*trainable);
    }

    fn state(&mut self, port: &StatePort) {
        let StatePort { name, buffer, dtype, shape, next } = port;
        self.named(name, *dtype, shape);
        self.size(*buffer);
        self.maybe(*next, Writer::size);
    }
}
