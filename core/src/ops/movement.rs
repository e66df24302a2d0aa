//! Moves elements: reshapes, views, padding, concatenation. No arithmetic.

use super::samples::{cycle, kinked, normal, sample};
use crate::error::Error;
use crate::expr::Scalar;
use crate::graph::{Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, Refusal, Value, ViewForm, refuse};
use crate::tensor::{DType, TensorType, broadcast_shapes, element_count};

type Inferred = std::result::Result<TensorType, Refusal>;

/// The first input's dtype, unless it is a block format.
fn plain(c: &Call<'_>) -> std::result::Result<DType, Refusal> {
    let dtype = c.inputs[0].dtype;
    if dtype.is_block() { refuse("a dtype of single elements", &c.inputs[0]) } else { Ok(dtype) }
}

/// The inferred type of a node that has passed inference.
pub(super) fn accepted(op: &dyn Op, c: &Call<'_>) -> crate::error::Result<TensorType> {
    op.infer(c).map_err(|e| Error::internal(format!("{}: {}: {}", op.name(), e.wanted, e.came)))
}

pub(super) fn signed(sizes: &[usize]) -> Vec<i64> {
    sizes.iter().map(|&n| n as i64).collect()
}

fn ints(name: &'static str, values: &[i64]) -> Attrs {
    Attrs::none().with(name, Attr::Ints(values.into()))
}

/// A shape with its single −1 derived from the number of elements.
fn resolve_shape(c: &Call<'_>) -> std::result::Result<Vec<usize>, Refusal> {
    let asked = c.attrs.ints("shape");
    let count = c.inputs[0].elements();
    let refused =
        || refuse(format!("a shape of the {count} elements of {}", c.inputs[0]), format!("{asked:?}"));
    let known: Vec<usize> =
        asked.iter().filter(|&&n| n != -1).map(|&n| usize::try_from(n).unwrap_or(0)).collect();
    let Some(product) = element_count(&known).filter(|&p| p > 0) else { return refused() };
    let free = asked.len() - known.len();
    if free > 1 || !count.is_multiple_of(product) || (free == 0 && count != product) {
        return refused();
    }
    Ok(asked.iter().map(|&n| if n == -1 { count / product } else { n as usize }).collect())
}

op! {
    Reshape: "reshape" as reshape(x) [shape: Ints = "The new shape; one size may be -1, derived from the others."]
    "The same elements, row-major, in another shape."
    infer: |c| Ok(TensorType::new(plain(c)?, resolve_shape(c)?));
    evaluate: |op, c, x| Ok(x[0].reshaped(accepted(op, c)?));
    grad: |g, node, up| Grad::of([g.reshape(up, &signed(&g.shape(g.inputs_of(node)[0])))]);
    lower: |_| Lowering::View(ViewForm::Reshape);
    samples: || vec![
        sample([normal(&[], 1)], ints("shape", &[1, 1])),
        sample([normal(&[1, 1, 1], 2)], ints("shape", &[])),
        sample([normal(&[6], 3)], ints("shape", &[2, -1])),
        sample([normal(&[3, 5], 4)], ints("shape", &[5, 3])),
        sample([normal(&[2, 3, 7], 5)], ints("shape", &[-1])),
        sample([normal(&[3, 1, 4, 5], 6)], ints("shape", &[2, -1, 5, 1, 3])),
        sample([cycle(DType::I64, &[2, 3], &[7.0, -1.0, 5e9])], ints("shape", &[3, 2])),
        sample([cycle(DType::Bool, &[4], &[1.0, 0.0])], ints("shape", &[4, 1])),
    ];
}

/// Axis i of the output is axis `order[i]` of the input.
fn resolve_order(c: &Call<'_>) -> std::result::Result<Vec<usize>, Refusal> {
    let rank = c.inputs[0].rank();
    if c.axes("axes", rank)?.len() != rank {
        return refuse(format!("all {rank} axes of {}", c.inputs[0]), format!("{:?}", c.attrs.ints("axes")));
    }
    Ok(c.attrs.ints("axes").iter().map(|&a| a.rem_euclid(rank as i64) as usize).collect())
}

op! {
    Permute: "permute" as permute(x) [axes: Ints = "For each axis of the result, the axis of x."]
    "Permutes the axes."
    infer: |c| {
        let dtype = plain(c)?;
        Ok(TensorType::new(dtype, resolve_order(c)?.into_iter().map(|a| c.shape(0)[a]).collect::<Vec<_>>()))
    };
    evaluate: |op, c, x| {
        let order = resolve_order(c).map_err(|e| Error::internal(e.wanted))?;
        let mut at = vec![0; order.len()];
        Ok(Array::of_each(accepted(op, c)?, |index| {
            order.iter().zip(index).for_each(|(&a, &i)| at[a] = i);
            x[0].element_at(&at)
        }))
    };
    grad: |g, node, up| {
        let rank = g.shape(node).len();
        let mut inverse = vec![0; rank];
        for (i, &a) in g.attrs_of(node).ints("axes").iter().enumerate() {
            inverse[a.rem_euclid(rank as i64) as usize] = i as i64;
        }
        Grad::of([g.permute(up, &inverse)])
    };
    lower: |c| Lowering::View(ViewForm::Permute(resolve_order(c).unwrap_or_default()));
    samples: || vec![
        sample([normal(&[], 1)], ints("axes", &[])),
        sample([normal(&[3], 2)], ints("axes", &[0])),
        sample([normal(&[3, 5], 3)], ints("axes", &[1, 0])),
        sample([normal(&[3, 1, 5], 4)], ints("axes", &[2, 0, 1])),
        sample([normal(&[2, 3, 4, 5], 5)], ints("axes", &[0, -1, 1, -2])),
        sample([normal(&[2, 3, 1, 4, 2], 6)], ints("axes", &[4, 2, 0, 3, 1])),
        sample([cycle(DType::I64, &[2, 3], &[7.0, -1.0, 5e9])], ints("axes", &[1, 0])),
    ];
}

op! {
    Broadcast: "broadcast" as broadcast(x) [shape: Ints = "The new shape, by NumPy's broadcasting rules."]
    "Repeats axes of size 1 (and new leading axes) to a shape."
    infer: |c| {
        let (dtype, shape) = (plain(c)?, c.attrs.sizes("shape"));
        if broadcast_shapes(c.shape(0), &shape).as_ref() != Some(&shape) {
            let wanted = format!("a shape that {} broadcasts to", c.inputs[0]);
            return refuse(wanted, format!("{:?}", c.attrs.ints("shape")));
        }
        Ok(TensorType::new(dtype, shape))
    };
    evaluate: |op, c, x| Ok(Array::of_each(accepted(op, c)?, |index| x[0].element_at_broadcast(index)));
    grad: |g, node, up| Grad::of([g.sum_to(up, &g.shape(g.inputs_of(node)[0]))]);
    lower: |_| Lowering::View(ViewForm::Broadcast);
    samples: || vec![
        sample([normal(&[], 1)], ints("shape", &[])),
        sample([normal(&[], 1)], ints("shape", &[3, 2])),
        sample([normal(&[1], 2)], ints("shape", &[5])),
        sample([normal(&[3], 2)], ints("shape", &[2, 3])),
        sample([normal(&[3, 1], 3)], ints("shape", &[2, 3, 5])),
        sample([normal(&[2, 1, 3, 1], 4)], ints("shape", &[2, 1, 3, 7])),
        sample([normal(&[1, 2, 1], 5)], ints("shape", &[1, 2, 3, 2, 4])),
        sample([cycle(DType::Bool, &[2, 1], &[1.0, 0.0])], ints("shape", &[2, 3])),
    ];
}

/// The shape of a slice; refuses bounds outside the input and empty results.
fn slice_shape(c: &Call<'_>) -> std::result::Result<Vec<usize>, Refusal> {
    let shape = c.shape(0);
    let [start, stop, step] = ["start", "stop", "step"].map(|name| c.attrs.ints(name));
    let fits = [start, stop, step].iter().all(|l| l.len() == shape.len())
        && (0..shape.len())
            .all(|a| 0 <= start[a] && start[a] < stop[a] && stop[a] <= shape[a] as i64 && step[a] > 0);
    if !fits {
        let wanted = format!("0 ≤ start < stop ≤ size and step > 0 for each axis of {}", c.inputs[0]);
        return refuse(wanted, format!("start={start:?}, stop={stop:?}, step={step:?}"));
    }
    Ok((0..shape.len()).map(|a| ((stop[a] - start[a] - 1) / step[a] + 1) as usize).collect())
}

fn slice_attrs(start: &[i64], stop: &[i64], step: &[i64]) -> Attrs {
    ints("start", start).with("stop", Attr::Ints(stop.into())).with("step", Attr::Ints(step.into()))
}

op! {
    Slice: "slice" as slice(x) [
        start: Ints = "First index along each axis.",
        stop: Ints = "Index after the last along each axis.",
        step: Ints = "Step along each axis, at least 1.",
    ]
    "A block of x, every step-th index along each axis."
    infer: |c| Ok(TensorType::new(plain(c)?, slice_shape(c)?));
    evaluate: |op, c, x| {
        let (start, step) = (c.attrs.sizes("start"), c.attrs.sizes("step"));
        let mut at = vec![0; start.len()];
        Ok(Array::of_each(accepted(op, c)?, |index| {
            (0..index.len()).for_each(|a| at[a] = start[a] + index[a] * step[a]);
            x[0].element_at(&at)
        }))
    };
    grad: |g, node, up| {
        // selected elements return to their places, with zeros between and around them
        let (attrs, shape) = (g.attrs_of(node), g.shape(g.inputs_of(node)[0]));
        let (start, step) = (attrs.ints("start"), attrs.ints("step"));
        let spread = step.iter().enumerate().fold(up, |v, (axis, &s)| g.interleave_zeros(v, axis, s));
        // if a single element was selected, its step, which may be arbitrary, has no effect
        let reach = |(n, &step): (&usize, &i64)| if *n == 1 { 1 } else { (*n as i64 - 1) * step + 1 };
        let taken: Vec<i64> = g.shape(node).iter().zip(step).map(reach).collect();
        let after: Vec<i64> = (0..shape.len()).map(|a| shape[a] as i64 - start[a] - taken[a]).collect();
        Grad::of([g.pad(spread, start, &after, 0.0)])
    };
    lower: |c| {
        let taken = slice_shape(c).unwrap_or_default();
        let step = |(n, &step): (&usize, &i64)| if *n == 1 { 1 } else { step as isize };
        let step = taken.iter().zip(c.attrs.ints("step")).map(step).collect();
        Lowering::View(ViewForm::Slice { start: c.attrs.sizes("start"), step })
    };
    samples: || vec![
        sample([normal(&[], 1)], slice_attrs(&[], &[], &[])),
        sample([normal(&[7], 2)], slice_attrs(&[1], &[6], &[1])),
        sample([normal(&[7], 3)], slice_attrs(&[1], &[7], &[3])),
        sample([normal(&[8], 3)], slice_attrs(&[0], &[8], &[5])),
        sample([normal(&[5, 6], 4)], slice_attrs(&[0, 5], &[5, 6], &[2, 1])),
        sample([normal(&[1, 9, 4], 5)], slice_attrs(&[0, 2, 1], &[1, 8, 4], &[1, 2, 2])),
        sample([normal(&[3, 2, 4, 5], 6)], slice_attrs(&[1, 0, 0, 1], &[3, 2, 3, 5], &[1, 1, 2, 3])),
        sample([normal(&[2, 3, 1, 4, 3], 7)], slice_attrs(&[1, 1, 0, 0, 0], &[2, 3, 1, 4, 3], &[1, 1, 4, 1, 2])),
        sample([cycle(DType::I64, &[5], &[7.0, -1.0, 5e9])], slice_attrs(&[1], &[5], &[2])),
    ];
}

op! {
    Flip: "flip" as flip(x) [axes: Ints = "The axes reversed."]
    "Reversed along some axes."
    infer: |c| {
        c.axes("axes", c.inputs[0].rank())?;
        Ok(TensorType::new(plain(c)?, c.shape(0)))
    };
    evaluate: |op, c, x| {
        let axes = c.axes("axes", c.inputs[0].rank()).map_err(|e| Error::internal(e.wanted))?;
        Ok(Array::of_each(accepted(op, c)?, |index| {
            let mut at = index.to_vec();
            axes.iter().for_each(|&a| at[a] = c.shape(0)[a] - 1 - at[a]);
            x[0].element_at(&at)
        }))
    };
    grad: |g, node, up| Grad::of([g.flip(up, g.attrs_of(node).ints("axes"))]);
    lower: |c| {
        let flipped = c.axes("axes", c.inputs[0].rank()).unwrap_or_default();
        let (mut start, mut step) = (vec![0; c.inputs[0].rank()], vec![1; c.inputs[0].rank()]);
        for a in flipped {
            (start[a], step[a]) = (c.shape(0)[a] - 1, -1);
        }
        Lowering::View(ViewForm::Slice { start, step })
    };
    samples: || vec![
        sample([normal(&[], 1)], ints("axes", &[])),
        sample([normal(&[5], 2)], ints("axes", &[0])),
        sample([normal(&[3, 4], 3)], ints("axes", &[-1])),
        sample([normal(&[3, 1, 4], 4)], ints("axes", &[2, 0, 1])),
        sample([normal(&[2, 3, 2, 5], 5)], ints("axes", &[-2, 0])),
        sample([normal(&[2, 3, 2, 1, 3], 6)], ints("axes", &[1, 4])),
        sample([cycle(DType::U8, &[3], &[1.0, 2.0, 255.0])], ints("axes", &[0])),
    ];
}

fn pad_attrs(before: &[i64], after: &[i64], value: f64) -> Attrs {
    ints("before", before).with("after", Attr::Ints(after.into())).with("value", Attr::Float(value))
}

op! {
    Pad: "pad" as pad(x) [
        before: Ints = "Number of elements added before the first along each axis.",
        after: Ints = "Number of elements added after the last.",
        value: Float = "Value of the added elements." => 0.0,
    ]
    "x padded with a constant value."
    infer: |c| {
        let (dtype, shape) = (plain(c)?, c.shape(0));
        let (before, after) = (c.attrs.ints("before"), c.attrs.ints("after"));
        let fits = [before, after].iter().all(|l| l.len() == shape.len() && l.iter().all(|&n| (0..1 << 40).contains(&n)));
        if !fits {
            let wanted = format!("counts of at least 0 for each axis of {}", c.inputs[0]);
            return refuse(wanted, format!("before={before:?}, after={after:?}"));
        }
        let value = c.attrs.float("value");
        if !dtype.holds(value) {
            return refuse(format!("a value that {dtype} holds"), format!("value={value}"));
        }
        let size = |a: usize| shape[a].saturating_add((before[a] + after[a]) as usize);
        Ok(TensorType::new(dtype, (0..shape.len()).map(size).collect::<Vec<_>>()))
    };
    evaluate: |op, c, x| {
        let (before, ty) = (c.attrs.sizes("before"), accepted(op, c)?);
        let border = Scalar::F(c.attrs.float("value")).cast(ty.dtype);
        Ok(Array::of_each(ty, |index| {
            let inside = (0..index.len()).map(|a| index[a].checked_sub(before[a]).filter(|&i| i < c.shape(0)[a]));
            inside.collect::<Option<Vec<usize>>>().map_or(border, |at| x[0].element_at(&at))
        }))
    };
    grad: |g, node, up| {
        let (attrs, shape) = (g.attrs_of(node), g.shape(g.inputs_of(node)[0]));
        let start = attrs.ints("before");
        let stop: Vec<i64> = start.iter().zip(&shape).map(|(&s, &n)| s + n as i64).collect();
        Grad::of([g.slice(up, start, &stop, &vec![1; shape.len()])])
    };
    lower: |c| Lowering::Place { at: vec![c.attrs.sizes("before")], fill: Some(c.attrs.float("value")) };
    samples: || vec![
        sample([normal(&[], 1)], pad_attrs(&[], &[], 3.0)),
        sample([normal(&[5], 2)], pad_attrs(&[2], &[0], 0.0)),
        sample([normal(&[3, 4], 3)], pad_attrs(&[0, 1], &[2, 3], -1.5)),
        sample([normal(&[3, 1, 4], 4)], pad_attrs(&[0, 2, 1], &[1, 1, 0], 0.5)),
        sample([normal(&[1, 3, 2, 5], 5)], pad_attrs(&[1, 0, 0, 3], &[0, 0, 1, 1], 0.0)),
        kinked([normal(&[3, 2], 5)], pad_attrs(&[1, 0], &[0, 3], f64::NEG_INFINITY)),
        sample([normal(&[2, 1, 2, 1, 3], 6)], pad_attrs(&[0, 1, 0, 1, 0], &[1, 0, 0, 1, 2], 7.0)),
        sample([cycle(DType::I32, &[3], &[1.0, -2.0])], pad_attrs(&[1], &[2], -9.0)),
        kinked([cycle(DType::I64, &[2, 3], &[7e12, -3.0])], pad_attrs(&[1, 0], &[0, 2], -5e9)),
        kinked([cycle(DType::I64, &[2], &[7e12, -3.0])], pad_attrs(&[1], &[2], 9007199254740991.0)),
    ];
}

fn concat_type(c: &Call<'_>) -> Inferred {
    let dtype = plain(c)?;
    let axis = c.axis("axis", c.inputs[0].rank())?;
    let mut shape = c.shape(0).to_vec();
    for ty in &c.inputs[1..] {
        let agrees = ty.dtype == dtype
            && ty.rank() == shape.len()
            && (0..shape.len()).all(|a| a == axis || ty.shape[a] == shape[a]);
        if !agrees {
            let came: Vec<String> = c.inputs.iter().map(ToString::to_string).collect();
            return refuse(
                format!("one dtype, and sizes that agree except along axis {axis}"),
                came.join(", "),
            );
        }
        shape[axis] = shape[axis].saturating_add(ty.shape[axis]);
    }
    Ok(TensorType::new(dtype, shape))
}

op! {
    Concat: "concat" as concat(..parts) [axis: Int = "The axis of concatenation."]
    "Concatenates tensors along an axis."
    infer: concat_type;
    evaluate: |op, c, x| {
        let ty = accepted(op, c)?;
        let axis = c.axis("axis", ty.rank()).unwrap_or(0);
        Ok(Array::of_each(ty, |index| {
            let mut at = index.to_vec();
            let mut part = 0;
            while at[axis] >= x[part].ty.shape[axis] {
                at[axis] -= x[part].ty.shape[axis];
                part += 1;
            }
            x[part].element_at(&at)
        }))
    };
    grad: |g, node, up| {
        let axis = g.attrs_of(node).int("axis");
        let at = axis.rem_euclid(g.shape(node).len() as i64) as usize;
        let sizes: Vec<i64> = g.inputs_of(node).iter().map(|&x| g.shape(x)[at] as i64).collect();
        Grad::Of(g.split(up, axis, &sizes).into_iter().map(Some).collect())
    };
    lower: |c| {
        let rank = c.inputs[0].rank();
        let axis = c.axis("axis", rank).unwrap_or(0);
        let mut start = vec![0; rank];
        let at = c.inputs.iter().map(|ty| {
            let here = start.clone();
            start[axis] += ty.shape[axis];
            here
        });
        Lowering::Place { at: at.collect(), fill: None }
    };
    samples: || {
        let of = |shapes: &[&[usize]], axis| {
            let parts: Vec<Array> = shapes.iter().enumerate().map(|(i, s)| normal(s, i as u64)).collect();
            sample(parts, Attrs::none().with("axis", Attr::Int(axis)))
        };
        vec![
            of(&[&[3]], 0),
            of(&[&[3], &[1], &[4]], 0),
            of(&[&[3, 2], &[3, 5]], -1),
            of(&[&[1, 3, 2], &[4, 3, 2]], 0),
            of(&[&[2, 3, 1, 5], &[2, 1, 1, 5], &[2, 2, 1, 5]], -3),
            of(&[&[1, 2, 3, 1, 2], &[1, 2, 3, 4, 2]], 3),
            sample([cycle(DType::I64, &[2], &[5e9, 1.0]), cycle(DType::I64, &[1], &[3.0])], Attrs::none().with("axis", Attr::Int(0))),
        ]
    };
}

/// Convenience methods that are views.
impl Graph {
    /// Consecutive parts of the given sizes along an axis.
    pub fn split(&self, x: impl Into<Value>, axis: i64, sizes: &[i64]) -> Vec<Value> {
        let x = x.into();
        let mut from = 0;
        let part = |&len: &i64| {
            from += len;
            self.narrow(x, axis, from - len, len)
        };
        let parts: Vec<Value> = sizes.iter().map(part).collect();
        let shape = self.shape(x);
        let size = self.position_of(axis, shape.len()).map(|a| shape[a] as i64);
        if x != Value::POISON && self.error().is_none() && size != Some(from) {
            let wanted = format!("sizes that add up to those of {shape:?} along axis {axis}");
            self.fail("split", "", &wanted, &format!("{sizes:?}"));
            return vec![Value::POISON; sizes.len()];
        }
        parts
    }

    /// `len` indices from `start` along an axis.
    pub fn narrow(&self, x: impl Into<Value>, axis: i64, start: i64, len: i64) -> Value {
        let x = x.into();
        if x == Value::POISON {
            return x;
        }
        let shape = self.shape(x);
        let Some(axis) = self.position_of(axis, shape.len()) else {
            return self.fail("narrow", "", &format!("an axis of {shape:?}"), &format!("axis {axis}"));
        };
        let (mut from, mut to) = (vec![0; shape.len()], signed(&shape));
        (from[axis], to[axis]) = (start, start.saturating_add(len));
        self.slice(x, &from, &to, &vec![1; shape.len()])
    }

    /// The last two axes swapped.
    pub fn transpose(&self, x: impl Into<Value>) -> Value {
        let x = x.into();
        let rank = self.shape(x).len();
        if x == Value::POISON || rank < 2 {
            let came = self.ty(x).to_string();
            return if x == Value::POISON {
                x
            } else {
                self.fail("transpose", "", "at least two axes", &came)
            };
        }
        let mut axes: Vec<i64> = (0..rank as i64).collect();
        axes.swap(rank - 1, rank - 2);
        self.permute(x, &axes)
    }

    /// Removes an axis of size 1.
    pub fn squeeze(&self, x: impl Into<Value>, axis: i64) -> Value {
        let x = x.into();
        let mut shape = self.shape(x);
        match self.position_of(axis, shape.len()) {
            _ if x == Value::POISON => x,
            Some(a) if shape[a] == 1 => {
                shape.remove(a);
                self.reshape(x, &signed(&shape))
            }
            _ => self.fail("squeeze", "", "an axis of size 1", &format!("axis {axis} of {shape:?}")),
        }
    }

    /// Inserts an axis of size 1, which becomes axis `axis` of the result.
    pub fn unsqueeze(&self, x: impl Into<Value>, axis: i64) -> Value {
        let x = x.into();
        let mut shape = self.shape(x);
        match self.position_of(axis, shape.len() + 1) {
            _ if x == Value::POISON => x,
            Some(a) => {
                shape.insert(a, 1);
                self.reshape(x, &signed(&shape))
            }
            None => self.fail(
                "unsqueeze",
                "",
                &format!("an axis of {shape:?} and one more"),
                &format!("axis {axis}"),
            ),
        }
    }

    /// Inserts `step − 1` zeros between neighbours along an axis.
    fn interleave_zeros(&self, x: Value, axis: usize, step: i64) -> Value {
        let mut shape = signed(&self.shape(x));
        if step == 1 || x == Value::POISON || shape[axis] == 1 {
            return x;
        }
        let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
        let cells = self.reshape(x, &[outer, shape[axis], 1, inner]);
        let cells = self.pad(cells, &[0; 4], &[0, 0, step - 1, 0], 0.0);
        let joined = self.reshape(cells, &[outer, shape[axis] * step, inner]);
        shape[axis] = (shape[axis] - 1) * step + 1;
        self.reshape(self.narrow(joined, 1, 0, shape[axis]), &shape)
    }

    fn position_of(&self, axis: i64, rank: usize) -> Option<usize> {
        let at = if axis < 0 { axis + rank as i64 } else { axis };
        usize::try_from(at).ok().filter(|&a| a < rank)
    }
}

pub(super) const FAMILY: &[&dyn Op] = &[&Reshape, &Permute, &Broadcast, &Slice, &Flip, &Pad, &Concat];
