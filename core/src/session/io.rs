//! Typed access to inputs, parameters and outputs of every dtype, by name, with checks.

use super::Session;
use super::run::{check_tensor, find, wrong_dtype};
use crate::error::{Error, Result};
use crate::plan::Port;
use crate::tensor::{Bytes, DType, Dims, Element, Tensor, TensorType};
use std::borrow::Cow;

/// An output's index in [`Session::outputs`], as an alternative to its name.
///
/// ```
/// # use weft::prelude::*;
/// # let g = Graph::new();
/// # g.output("y", g.scalar(2.5, DType::F32));
/// # let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
/// session.step()?;
/// assert_eq!(session.read_output::<f32>("y")?, [2.5]);
/// assert_eq!(session.read_output::<f32>(OutputIndex(0))?, [2.5]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputIndex(
    /// From 0.
    pub usize,
);

/// A key of an output: its name, or an [`OutputIndex`].
///
/// ```
/// use weft::session::{OutputIndex, OutputKey, Session};
///
/// fn first(session: &Session, output: impl OutputKey) -> weft::error::Result<f32> {
///     Ok(session.read_output::<f32>(output)?[0])
/// }
/// # fn both(session: &Session) -> weft::error::Result<f32> { Ok(first(session, "y")? + first(session, OutputIndex(0))?) }
/// ```
pub trait OutputKey: sealed::Sealed {
    /// Its index among the ports.
    ///
    /// # Errors
    /// [`Error::UnknownName`] or [`Error::OutputIndex`].
    #[doc(hidden)]
    fn find(&self, ports: &[Port]) -> Result<usize>;
}

mod sealed {
    /// Prevents implementations of these traits in other crates.
    pub trait Sealed {}
    impl Sealed for super::OutputIndex {}
    impl Sealed for &str {}
    impl Sealed for &String {}
}

impl OutputKey for OutputIndex {
    fn find(&self, ports: &[Port]) -> Result<usize> {
        match self.0 < ports.len() {
            true => Ok(self.0),
            false => Err(Error::OutputIndex { index: self.0, count: ports.len() }),
        }
    }
}

impl OutputKey for &str {
    fn find(&self, ports: &[Port]) -> Result<usize> {
        find("output", self, ports)
    }
}

impl OutputKey for &String {
    fn find(&self, ports: &[Port]) -> Result<usize> {
        find("output", self, ports)
    }
}

/// Data for an input of a run: slices, arrays and vectors of any [`Element`], [`Tensor`]s, and with the feature `ndarray` its
/// arrays.
///
/// ```
/// use weft::session::{Data, Session};
///
/// fn classify(session: &mut Session, picture: &dyn Data) -> weft::error::Result<Vec<f32>> {
///     session.run(&[("picture", picture)])?.read("probabilities")
/// }
/// # fn all(session: &mut Session, v: Vec<f32>) -> weft::error::Result<Vec<f32>> { classify(session, &v)?; classify(session, &[0.0f32; 4]) }
/// ```
pub trait Data {
    /// The elements, row-major.
    #[doc(hidden)]
    fn given(&self) -> Given<'_>;
}

/// Elements for an input, as returned by [`Data`].
#[doc(hidden)]
#[derive(Debug)]
pub struct Given<'a> {
    pub(super) dtype: DType,
    /// Their shape if known: it must equal the input's.
    pub(super) shape: Option<Dims>,
    pub(super) bytes: Cow<'a, [u8]>,
}

impl<'a> Given<'a> {
    /// Elements without a shape, in the input's order.
    pub(super) fn flat<T: Element>(elements: &'a [T]) -> Given<'a> {
        Given { dtype: T::DTYPE, shape: None, bytes: Cow::Borrowed(bytemuck::cast_slice(elements)) }
    }
}

impl<T: Element> Data for [T] {
    fn given(&self) -> Given<'_> {
        Given::flat(self)
    }
}

impl<T: Element> Data for &[T] {
    fn given(&self) -> Given<'_> {
        Given::flat(self)
    }
}

impl<T: Element, const N: usize> Data for [T; N] {
    fn given(&self) -> Given<'_> {
        Given::flat(self)
    }
}

impl<T: Element> Data for Vec<T> {
    fn given(&self) -> Given<'_> {
        Given::flat(self)
    }
}

impl Data for Tensor<'_> {
    fn given(&self) -> Given<'_> {
        let (dtype, shape) = (self.dtype(), Some(self.shape().to_vec()));
        let bytes = match self.is_contiguous() {
            true => Cow::Borrowed(self.bytes()),
            false => Cow::Owned(self.contiguous().bytes().to_vec()),
        };
        Given { dtype, shape, bytes }
    }
}

/// A graph's outputs after a run, by name, as host tensors.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// let x = g.input("x", DType::F32, [3]);
/// g.output("positive", g.relu(x));
/// g.output("largest", g.argmax(x, 0, false));
/// let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
///
/// let outputs = session.run(&[("x", &[-1.0f32, 0.5, 2.0])])?;
/// assert_eq!(outputs.read::<f32>("positive")?, [0.0, 0.5, 2.0]);
/// assert_eq!(outputs.get("largest")?.to_vec::<i32>()?, [2]);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Outputs {
    all: Vec<(String, Tensor<'static>)>,
}

impl Outputs {
    /// The output of that name.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn get(&self, name: &str) -> Result<&Tensor<'static>> {
        let at = super::run::find_among("output", name, self.all.iter().map(|(n, _)| n.as_str()))?;
        Ok(&self.all[at].1)
    }

    /// The elements of the output of that name, row-major.
    ///
    /// # Errors
    /// [`Error::UnknownName`]; [`Error::DType`] if its dtype is not `T`'s.
    pub fn read<T: Element>(&self, name: &str) -> Result<Vec<T>> {
        let tensor = self.get(name)?;
        match tensor.dtype() == T::DTYPE {
            true => tensor.to_vec(),
            false => Err(wrong_dtype(name, tensor.dtype(), T::DTYPE)),
        }
    }

    /// All outputs, in the graph's order; the loss, if there is one, comes last.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<'static>)> {
        self.all.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}

impl IntoIterator for Outputs {
    type Item = (String, Tensor<'static>);
    type IntoIter = std::vec::IntoIter<Self::Item>;
    fn into_iter(self) -> Self::IntoIter {
        self.all.into_iter()
    }
}

impl Session {
    /// Sets inputs, runs the graph once, waits, and returns every output. Inputs that are not named keep their previous data.
    /// In a training session with an optimizer it is a training step, like [`step`](Session::step).
    ///
    /// To avoid copies in a tight loop, use its parts: [`set_input`](Session::set_input), [`step`](Session::step) and
    /// [`read_output_into`](Session::read_output_into).
    ///
    /// ```
    /// use weft::prelude::*;
    ///
    /// let g = Graph::new();
    /// let (table, ids) = (g.input("table", DType::F32, [3, 2]), g.input("ids", DType::U32, [2]));
    /// g.output("rows", g.embedding(table, ids));
    /// let mut session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
    ///
    /// let table = vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    /// let outputs = session.run(&[("table", &table), ("ids", &[2u32, 0])])?;
    /// assert_eq!(outputs.read::<f32>("rows")?, [5.0, 6.0, 1.0, 2.0]);
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`set_input`](Session::set_input) and [`step`](Session::step); [`Error::Length`] for a tensor of another shape.
    pub fn run(&mut self, inputs: &[(&str, &dyn Data)]) -> Result<Outputs> {
        for (name, data) in inputs {
            self.give(name, data.given())?;
        }
        self.step()?;
        self.wait()?;
        let tensor = |i: usize| Ok((self.outputs()[i].name.clone(), self.output_tensor(OutputIndex(i))?));
        Ok(Outputs { all: (0..self.num_outputs()).map(tensor).collect::<Result<_>>()? })
    }

    /// Sets an input's elements, row-major. NaN and infinities are allowed and propagate.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::DType`] if the input's dtype is not `T`'s, [`Error::Length`].
    pub fn set_input<T: Element>(&mut self, name: &str, elements: &[T]) -> Result<()> {
        self.give(name, Given::flat(elements))
    }

    /// Sets an input from a tensor of its dtype and shape.
    ///
    /// # Errors
    /// As [`set_input`](Session::set_input).
    pub fn set_input_tensor(&mut self, name: &str, tensor: &Tensor<'_>) -> Result<()> {
        let at = find("input", name, self.inputs())?;
        let port = &self.inputs()[at];
        check_tensor(name, port.dtype, &port.shape, tensor)?;
        self.write_input(at, tensor.contiguous().bytes())
    }

    fn give(&mut self, name: &str, given: Given<'_>) -> Result<()> {
        let at = find("input", name, self.inputs())?;
        let port = &self.inputs()[at];
        if port.dtype != given.dtype {
            return Err(wrong_dtype(name, port.dtype, given.dtype));
        }
        let wanted = TensorType::new(port.dtype, port.shape.clone());
        match given.shape {
            Some(shape) if shape != port.shape => {
                let came = TensorType::new(given.dtype, shape).to_string();
                return Err(Error::Length { name: name.into(), wanted: wanted.to_string(), came });
            }
            None => check(port, given.dtype, given.bytes.len() / given.dtype.size().unwrap_or(1))?,
            Some(_) => {}
        }
        self.write_input(at, &given.bytes)
    }

    /// Sets a parameter's elements, row-major. Sessions that share the weights see the change.
    ///
    /// # Errors
    /// [`Error::UnknownName`], [`Error::DType`], [`Error::Length`], [`Error::OutOfMemory`].
    pub fn set_parameter<T: Element>(&mut self, name: &str, elements: &[T]) -> Result<()> {
        let at = find("parameter", name, self.compiled.parameters())?;
        check(&self.compiled.parameters()[at], T::DTYPE, elements.len())?;
        let mut store = self.parameters.write()?;
        store.write(self.positions[at], bytemuck::cast_slice(elements))
    }

    /// The elements of a parameter, row-major.
    ///
    /// # Errors
    /// [`Error::UnknownName`]; [`Error::DType`] if its dtype is not `T`'s.
    pub fn read_parameter<T: Element>(&self, name: &str) -> Result<Vec<T>> {
        let at = find("parameter", name, self.compiled.parameters())?;
        check(&self.compiled.parameters()[at], T::DTYPE, usize::MAX)?;
        let store = self.parameters.read()?;
        Ok(T::collect(&store.read(self.positions[at])?))
    }

    /// The elements of an output, row-major: `session.read_output::<f32>("probabilities")`. Waits for the step.
    ///
    /// # Errors
    /// [`Error::UnknownName`] or [`Error::OutputIndex`]; [`Error::NotRun`] before the first step and after a refused one;
    /// [`Error::IndexOutOfRange`] for a refused step that has not been reported yet, as from [`wait`](Session::wait);
    /// [`Error::DType`] if its dtype is not `T`'s.
    pub fn read_output<T: Element>(&self, key: impl OutputKey) -> Result<Vec<T>> {
        let port = &self.outputs()[key.find(self.outputs())?];
        check(port, T::DTYPE, usize::MAX)?;
        self.ready("the output")?;
        Ok(T::collect(&self.executor.read(port.buffer)?))
    }

    /// Copies an output's elements into the caller's memory.
    ///
    /// # Errors
    /// As [`read_output`](Session::read_output); [`Error::Length`] if the slice is not its size.
    pub fn read_output_into<T: Element>(&self, key: impl OutputKey, into: &mut [T]) -> Result<()> {
        let port = &self.outputs()[key.find(self.outputs())?];
        check(port, T::DTYPE, into.len()).map_err(|e| into_buffer(e, "elements", into.len()))?;
        self.ready("the output")?;
        T::copy(&self.executor.read(port.buffer)?, into);
        Ok(())
    }

    /// An output of any dtype as a host tensor.
    ///
    /// # Errors
    /// As [`read_output`](Session::read_output).
    pub fn output_tensor(&self, key: impl OutputKey) -> Result<Tensor<'static>> {
        let port = &self.outputs()[key.find(self.outputs())?];
        self.ready("the output")?;
        let bytes = Bytes::from_vec(self.executor.read(port.buffer)?.into_owned());
        Tensor::from_bytes(port.dtype, port.shape.clone(), bytes)
    }

    /// The loss of the last step.
    ///
    /// # Errors
    /// [`Error::Graph`] if the graph has none; [`Error::NotRun`].
    pub fn loss(&self) -> Result<f32> {
        let at = self.compiled.values().loss.ok_or_else(|| Error::Graph { what: "it has no loss".into() })?;
        Ok(self.read_output(OutputIndex(at))?[0])
    }
}

/// Checks that the port has that dtype and number of elements (`usize::MAX`: any number).
fn check(port: &Port, dtype: DType, elements: usize) -> Result<()> {
    if port.dtype != dtype {
        return Err(wrong_dtype(&port.name, port.dtype, dtype));
    }
    let wanted = TensorType::new(port.dtype, port.shape.clone());
    if elements != usize::MAX && elements != wanted.elements() {
        let came = format!("{elements} elements");
        let wanted = format!("{wanted} ({} elements)", wanted.elements());
        return Err(Error::Length { name: port.name.clone(), wanted, came });
    }
    Ok(())
}

/// Rephrases the error of a port check for the case that the caller's buffer has the wrong size.
pub(super) fn into_buffer(e: Error, unit: &str, room: usize) -> Error {
    match e {
        Error::Length { name, wanted, .. } => {
            Error::Length { name, wanted, came: format!("a buffer of {room} {unit} to copy it into") }
        }
        other => other,
    }
}
