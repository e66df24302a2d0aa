//! Reads, writes and adds at indices given as data. An index out of range is an error, never a wrong element.

use super::movement::{accepted, signed};
use super::samples::{WHOLE, as_dtype, cycle, indices, kinked, normal, sample, whole};
use crate::error::{Error, Result};
use crate::expr::Scalar;
use crate::graph::{
    Array, Attr, Attrs, Call, Grad, Graph, Lowering, Op, Refusal, Value, evaluate_decomposed, refuse,
};
use crate::tensor::{DType, TensorType};

type Checked<T> = std::result::Result<T, Refusal>;

/// Checks that input 1 has indices, and input 0 a dtype that can be selected (or, with `adds`, added).
fn check_dtypes(c: &Call<'_>, adds: bool) -> Checked<()> {
    let (x, indices) = (&c.inputs[0], &c.inputs[1]);
    let packed = matches!(x.dtype, DType::F16 | DType::BF16);
    let whole = matches!(x.dtype, DType::F32 | DType::I32 | DType::U32 | DType::I64);
    if !(whole || packed && !adds) {
        return refuse(if adds { "f32, i32, u32 or i64" } else { "f32, f16, bf16, i32, u32 or i64" }, x);
    }
    check_index_dtype(indices)?;
    match c.inputs.get(2) {
        Some(updates) if updates.dtype != x.dtype => refuse(format!("updates of {}", x.dtype), updates),
        _ => Ok(()),
    }
}

fn check_index_dtype(indices: &TensorType) -> Checked<()> {
    let taken = matches!(indices.dtype, DType::I32 | DType::U32 | DType::I64);
    if taken { Ok(()) } else { refuse("indices of i32, u32 or i64", indices) }
}

/// The indices, checked to be within `0..limit`.
fn checked_indices(indices: &Array, limit: usize) -> Result<Vec<usize>> {
    let check = |(position, v): (usize, i64)| {
        let wrong = || Error::IndexOutOfRange { step: None, node: String::new(), index: v, position, limit };
        usize::try_from(v).ok().filter(|&i| i < limit).ok_or_else(wrong)
    };
    indices.whole().into_iter().enumerate().map(check).collect()
}

fn axis_attr(axis: i64) -> Attrs {
    Attrs::none().with("axis", Attr::Int(axis))
}

/// x's shape with the axis replaced by the shape of the indices.
fn selected_shape(c: &Call<'_>) -> Checked<Vec<usize>> {
    let axis = c.axis("axis", c.inputs[0].rank())?;
    let x = c.shape(0);
    Ok([&x[..axis], c.shape(1), &x[axis + 1..]].concat())
}

/// Elements before, along and after the axis.
fn around(c: &Call<'_>) -> (usize, usize, usize) {
    let (x, axis) = (c.shape(0), c.axis("axis", c.inputs[0].rank()).unwrap_or(0));
    (x[..axis].iter().product(), x[axis], x[axis + 1..].iter().product())
}

fn lowered_axis(c: &Call<'_>) -> usize {
    c.axis("axis", c.inputs[0].rank()).unwrap_or(0)
}

/// Zeros like x plus what `add` adds, in x's dtype: gradients of selections, summed in f32.
fn added_to_zeros(g: &Graph, x: Value, up: Value, add: impl FnOnce(Value, Value) -> Value) -> Value {
    let ty = g.ty(x);
    let zeros = g.broadcast(g.scalar(0.0, DType::F32), &signed(&ty.shape));
    if ty.dtype == DType::F32 {
        return add(zeros, up);
    }
    g.cast(add(zeros, g.cast(up, DType::F32)), ty.dtype)
}

/// Adds a value to an element; i64 wraps around.
fn add(to: &mut Array, position: usize, v: Scalar) {
    let sum = match (to.element(position), v) {
        (Scalar::L(a), Scalar::L(b)) => Scalar::L(a.wrapping_add(b)),
        (_, v) => return to.data[position] += v.number(),
    };
    to.set(position, sum);
}

/// Integers wrap around, as on devices.
fn stored(dtype: DType, v: f64) -> f64 {
    match dtype {
        DType::I32 => f64::from(v as i64 as i32),
        DType::U32 => f64::from(v as i64 as u32),
        _ => v,
    }
}

op! {
    IndexSelect: "index_select" as index_select(x, indices) [axis: Int = "The axis of x that is indexed."]
    "Slices of x by index: x's axis is replaced by the shape of the indices."
    infer: |c| {
        check_dtypes(c, false)?;
        Ok(TensorType::new(c.inputs[0].dtype, selected_shape(c)?))
    };
    evaluate: |op, c, x| {
        let (outer, size, inner) = around(c);
        let which = checked_indices(x[1], size)?;
        let places = (0..outer).flat_map(|o| which.iter().map(move |i| (o * size + i) * inner));
        let elements = places.flat_map(|at| at..at + inner).map(|at| x[0].element(at));
        Ok(Array::of(accepted(op, c)?, elements))
    };
    grad: |g, node, up| {
        let [x, which] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let axis = g.attrs_of(node).int("axis");
        Grad::Of(vec![Some(added_to_zeros(g, x, up, |zeros, up| g.index_add(zeros, which, up, axis))), None])
    };
    lower: |c| Lowering::Take { axis: lowered_axis(c) };
    samples: || vec![
        sample([normal(&[1], 91), indices(&[], 1, 1)], axis_attr(0)),
        sample([normal(&[5], 91), indices(&[7], 5, 2)], axis_attr(-1)),
        sample([normal(&[5, 3], 91), indices(&[2, 3], 5, 3)], axis_attr(0)),
        sample([normal(&[2, 5, 3], 91), indices(&[4], 5, 4)], axis_attr(1)),
        sample([normal(&[2, 1, 4, 3], 91), indices(&[1, 2], 4, 5)], axis_attr(2)),
        kinked([as_dtype(normal(&[7, 3], 92), DType::F16), as_dtype(indices(&[5], 7, 6), DType::U32)], axis_attr(0)),
        kinked([as_dtype(normal(&[7, 3], 92), DType::BF16), cycle(DType::I64, &[4], &[2.0, 0.0, 1.0])], axis_attr(1)),
        kinked([cycle(DType::I32, &[3, 3], &[5.0, -2.0]), indices(&[2], 3, 7)], axis_attr(1)),
        kinked([cycle(DType::U32, &[4], &[4e9, 1.0, 2.0]), indices(&[2, 2], 4, 8)], axis_attr(0)),
        kinked([cycle(DType::I64, &[3, 2], &[5e12, -2.0]), as_dtype(indices(&[4], 3, 9), DType::I64)], axis_attr(0)),
    ];
}

op! {
    Embedding: "embedding" as embedding(table, indices) []
    "Rows of a table [v, d] by index: indices […] → […, d]."
    infer: |c| {
        let [_, d] = c.shape(0) else { return refuse("a table [v, d]", &c.inputs[0]) };
        check_dtypes(c, false)?;
        Ok(TensorType::new(c.inputs[0].dtype, [c.shape(1), &[*d]].concat()))
    };
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::ByDecomposition;
    lower: |_| Lowering::Decompose;
    decompose: |g, x, _| g.index_select(x[0], x[1], 0);
    samples: || vec![
        sample([normal(&[1, 1], 93), indices(&[1], 1, 1)], Attrs::none()),
        sample([normal(&[9, 5], 93), indices(&[2, 7], 9, 2)], Attrs::none()),
        sample([normal(&[4, 3], 93), indices(&[], 4, 3)], Attrs::none()),
        kinked([as_dtype(normal(&[6, 3], 93), DType::F16), as_dtype(indices(&[3, 1, 2], 6, 4), DType::I64)], Attrs::none()),
    ];
}

op! {
    IndexAdd: "index_add" as index_add(x, indices, updates) [axis: Int = "The axis of x that is indexed."]
    "x with slices of updates added at the indices (duplicates accumulate); updates have the shape of index_select's result."
    infer: |c| {
        check_dtypes(c, true)?;
        let wanted = selected_shape(c)?;
        if c.shape(2) != wanted {
            return refuse(format!("updates of shape {wanted:?}"), &c.inputs[2]);
        }
        Ok(c.inputs[0].clone())
    };
    evaluate: |op, c, x| {
        let (outer, size, inner) = around(c);
        let which = checked_indices(x[1], size)?;
        let mut result = x[0].reshaped(accepted(op, c)?);
        for o in 0..outer {
            for (k, &i) in which.iter().enumerate() {
                for e in 0..inner {
                    add(&mut result, (o * size + i) * inner + e, x[2].element((o * which.len() + k) * inner + e));
                }
            }
        }
        result.data.iter_mut().for_each(|v| *v = stored(result.ty.dtype, *v));
        Ok(result)
    };
    grad: |g, node, up| {
        let which = g.inputs_of(node)[1];
        Grad::Of(vec![Some(up), None, Some(g.index_select(up, which, g.attrs_of(node).int("axis")))])
    };
    lower: |c| Lowering::TakeAdd { axis: lowered_axis(c) };
    samples: || vec![
        sample([normal(&[1], 94), indices(&[], 1, 1), normal(&[], 95)], axis_attr(0)),
        sample([normal(&[5], 94), indices(&[9], 5, 2), normal(&[9], 95)], axis_attr(0)),
        sample([normal(&[4, 3], 94), indices(&[2, 3], 4, 3), normal(&[2, 3, 3], 95)], axis_attr(0)),
        sample([normal(&[2, 5, 3], 94), indices(&[7], 5, 4), normal(&[2, 7, 3], 95)], axis_attr(-2)),
        sample([normal(&[2, 1, 2, 3], 94), indices(&[2, 1], 3, 5), normal(&[2, 1, 2, 2, 1], 95)], axis_attr(3)),
        kinked([cycle(DType::I32, &[3], &[5.0, -2.0]), indices(&[4], 3, 6), cycle(DType::I32, &[4], &[2e9, 7.0])], axis_attr(0)),
        kinked([cycle(DType::U32, &[3], &[5.0, 4e9]), cycle(DType::I64, &[4], &[1.0, 2.0]), cycle(DType::U32, &[4], &[3e9, 7.0])], axis_attr(0)),
        kinked([whole(&[3, 2], &WHOLE), cycle(DType::I64, &[3], &[1.0, 2.0]), whole(&[3, 2], &WHOLE[3..])], axis_attr(0)),
    ];
}

op! {
    Put: "put" as put(x, indices, updates) [axis: Int = "The axis of x that is indexed."]
    "x with its slices at the indices replaced by slices of updates (the last of equal indices wins); updates have the shape of index_select's result."
    infer: |c| {
        let [x, updates] = [0, 2].map(|i| &c.inputs[i]);
        if x.dtype.is_block() {
            return refuse("a dtype of single elements", x);
        }
        check_index_dtype(&c.inputs[1])?;
        let wanted = TensorType::new(x.dtype, selected_shape(c)?);
        if *updates != wanted {
            return refuse(format!("updates {wanted}"), updates);
        }
        Ok(x.clone())
    };
    evaluate: |op, c, x| {
        let (outer, size, inner) = around(c);
        let which = checked_indices(x[1], size)?;
        let mut result = x[0].reshaped(accepted(op, c)?);
        for o in 0..outer {
            for (k, &i) in which.iter().enumerate() {
                let (to, from) = ((o * size + i) * inner, (o * which.len() + k) * inner);
                (0..inner).for_each(|e| result.set(to + e, x[2].element(from + e)));
            }
        }
        Ok(result)
    };
    grad: |g, node, up| {
        let [x, which, updates] = [0, 1, 2].map(|i| g.inputs_of(node)[i]);
        let axis = g.attrs_of(node).int("axis");
        let zeros = |like: Value| {
            let zero = g.scalar(0.0, g.ty(like).dtype);
            g.broadcast(zero, &signed(&g.shape(like)))
        };
        Grad::Of(vec![
            Some(g.put(up, which, zeros(updates), axis)),
            None,
            Some(g.select(last_of_equals(g, x, which, axis), g.index_select(up, which, axis), zeros(updates))),
        ])
    };
    lower: |c| Lowering::TakePut { axis: lowered_axis(c), ignored: None };
    samples: || {
        let wide = |values: &[f64]| cycle(DType::I64, &[values.len()], values);
        vec![
            sample([normal(&[1], 94), indices(&[], 1, 1), normal(&[], 95)], axis_attr(0)),
            sample([normal(&[5], 94), indices(&[9], 5, 2), normal(&[9], 95)], axis_attr(0)),
            sample([normal(&[4, 3], 94), indices(&[2, 3], 4, 3), normal(&[2, 3, 3], 95)], axis_attr(0)),
            sample([normal(&[2, 5, 3], 94), wide(&[4.0, 1.0, 4.0]), normal(&[2, 3, 3], 95)], axis_attr(-2)),
            sample([normal(&[1, 3, 8, 4], 94), as_dtype(indices(&[1], 8, 4), DType::U32), normal(&[1, 3, 1, 4], 95)], axis_attr(2)),
            sample([normal(&[2, 1, 2, 3], 94), indices(&[2, 1], 3, 5), normal(&[2, 1, 2, 2, 1], 95)], axis_attr(3)),
            kinked([as_dtype(normal(&[7, 3], 94), DType::F16), wide(&[6.0, 0.0]), as_dtype(normal(&[2, 3], 95), DType::F16)], axis_attr(0)),
            kinked([as_dtype(normal(&[3, 5], 94), DType::BF16), indices(&[2], 5, 6), as_dtype(normal(&[3, 2], 95), DType::BF16)], axis_attr(1)),
            kinked([cycle(DType::I32, &[3], &[5.0, -2.0]), indices(&[4], 3, 6), cycle(DType::I32, &[4], &[2e9, 7.0])], axis_attr(0)),
            kinked([cycle(DType::U32, &[3, 2], &[5.0, 4e9]), wide(&[1.0]), cycle(DType::U32, &[1, 2], &[3e9, 7.0])], axis_attr(0)),
            kinked([cycle(DType::I64, &[3, 2], &[5.0, -4e12]), wide(&[1.0]), cycle(DType::I64, &[3, 1], &[3e12])], axis_attr(1)),
            kinked([cycle(DType::U8, &[9], &[5.0, 250.0, 7.0]), indices(&[2], 9, 8), cycle(DType::U8, &[2], &[9.0, 255.0])], axis_attr(0)),
            kinked([cycle(DType::Bool, &[5], &[1.0, 0.0]), indices(&[2], 5, 9), cycle(DType::Bool, &[2], &[0.0, 1.0])], axis_attr(0)),
        ]
    };
}

/// For each index whether it is the last of those equal to it, broadcastable to index_select's result of x.
fn last_of_equals(g: &Graph, x: Value, which: Value, axis: i64) -> Value {
    let (x, shape) = (g.shape(x), g.shape(which));
    let at = if axis < 0 { axis + x.len() as i64 } else { axis } as usize;
    let count: usize = shape.iter().product();
    let order = g.reshape(g.iota(&[count as i64], 0), &signed(&shape));
    let nobody = g.broadcast(g.scalar(0.0, DType::U32), &[x[at] as i64]);
    let last = g.index_select(g.put(nobody, which, order, 0), which, 0);
    let after = vec![1; x.len() - at - 1];
    g.reshape(g.eq(last, order), &signed(&[&shape[..], &after[..]].concat()))
}

/// The index that writes nothing.
const NO_ROW: i64 = -1;

op! {
    PutRows: "put_rows" as put_rows(x, rows, updates) []
    "x [n, …] with rows of updates [rows.., …] in place of its own where the row numbers say; a row number of −1 writes nothing. Which of \
     equal ones wins is not said: write distinct ones. What a cache of keys and values is filled by."
    infer: |c| {
        let [x, rows, updates] = [0, 1, 2].map(|i| &c.inputs[i]);
        if x.dtype.is_block() || x.rank() == 0 {
            return refuse("at least one axis, and a dtype of single elements", x);
        }
        if !matches!(rows.dtype, DType::I32 | DType::I64) {
            return refuse("row numbers of i32 or i64", rows);
        }
        let wanted = TensorType::new(x.dtype, [&rows.shape[..], &x.shape[1..]].concat());
        if *updates != wanted {
            return refuse(format!("updates {wanted}"), updates);
        }
        Ok(x.clone())
    };
    evaluate: |op, c, x| {
        let (size, inner): (usize, usize) = (c.shape(0)[0], c.shape(0)[1..].iter().product());
        let mut result = x[0].reshaped(accepted(op, c)?);
        for (k, row) in x[1].whole().into_iter().enumerate() {
            if row == NO_ROW {
                continue;
            }
            let outside = || Error::IndexOutOfRange { step: None, node: String::new(), index: row, position: k, limit: size };
            let row = usize::try_from(row).ok().filter(|&r| r < size).ok_or_else(outside)?;
            (0..inner).for_each(|e| result.set(row * inner + e, x[2].element(k * inner + e)));
        }
        Ok(result)
    };
    grad: |g, node, up| {
        let [x, rows, updates] = [0, 1, 2].map(|i| g.inputs_of(node)[i]);
        // the gradient of overwritten rows goes to the updates; updates that were not written get none
        let zeros = |like: Value| g.broadcast(g.scalar(0.0, g.ty(like).dtype), &signed(&g.shape(like)));
        let none = g.lt(rows, g.cast(g.scalar(0.0, DType::I32), g.ty(rows).dtype));
        let inner = vec![1; g.shape(x).len() - 1];
        let dropped = g.reshape(none, &signed(&[&g.shape(rows)[..], &inner].concat()));
        let at = g.select(none, g.cast(g.scalar(0.0, DType::I32), g.ty(rows).dtype), rows);
        let taken = g.select(dropped, zeros(updates), g.index_select(up, at, 0));
        Grad::Of(vec![Some(g.put_rows(up, rows, zeros(updates))), None, Some(taken)])
    };
    lower: |_| Lowering::TakePut { axis: 0, ignored: Some(NO_ROW) };
    samples: || {
        let rows = |shape: &[usize], values: &[f64]| cycle(DType::I32, shape, values);
        let wide = |values: &[f64]| cycle(DType::I64, &[values.len()], values);
        vec![
            sample([normal(&[1], 94), rows(&[1], &[0.0]), normal(&[1], 95)], Attrs::none()),
            sample([normal(&[5], 94), rows(&[4], &[3.0, -1.0, 0.0, -1.0]), normal(&[4], 95)], Attrs::none()),
            sample([normal(&[8, 2, 3], 94), rows(&[2, 2], &[6.0, 1.0, -1.0, 7.0]), normal(&[2, 2, 2, 3], 95)], Attrs::none()),
            sample([normal(&[4, 3], 94), wide(&[-1.0, 2.0]), normal(&[2, 3], 95)], Attrs::none()),
            sample([normal(&[3, 4], 94), rows(&[], &[2.0]), normal(&[4], 95)], Attrs::none()),
            kinked([as_dtype(normal(&[7, 3], 94), DType::F16), wide(&[6.0, -1.0, 0.0]), as_dtype(normal(&[3, 3], 95), DType::F16)], Attrs::none()),
            kinked([cycle(DType::U8, &[9], &[5.0, 250.0, 7.0]), rows(&[2], &[8.0, -1.0]), cycle(DType::U8, &[2], &[9.0, 255.0])], Attrs::none()),
            kinked([cycle(DType::I64, &[3, 2], &[5.0, -4e12]), rows(&[2], &[-1.0, 1.0]), cycle(DType::I64, &[2, 2], &[3e12, -1.0])], Attrs::none()),
        ]
    };
}

/// Indices of x's rank, no larger than x except along the axis.
fn gathered_axis(c: &Call<'_>) -> Checked<usize> {
    let axis = c.axis("axis", c.inputs[0].rank())?;
    let (x, indices) = (c.shape(0), c.shape(1));
    let fits = x.len() == indices.len() && (0..x.len()).all(|a| a == axis || indices[a] <= x[a]);
    if !fits {
        let wanted = format!("indices of x's rank, no larger than x except along axis {axis}");
        return refuse(wanted, format!("{} and {}", c.inputs[0], c.inputs[1]));
    }
    Ok(axis)
}

op! {
    Gather: "gather" as gather(x, indices) [axis: Int = "The axis of x that is indexed."]
    "Elements of x at each position of the indices, with the coordinate along the axis replaced by the index (PyTorch's gather)."
    infer: |c| {
        check_dtypes(c, false)?;
        gathered_axis(c)?;
        Ok(TensorType::new(c.inputs[0].dtype, c.shape(1)))
    };
    evaluate: |op, c, x| {
        let axis = lowered_axis(c);
        let mut which = checked_indices(x[1], c.shape(0)[axis])?.into_iter();
        Ok(Array::of_each(accepted(op, c)?, |index| {
            let mut at = index.to_vec();
            at[axis] = which.next().unwrap_or(0);
            x[0].element_at(&at)
        }))
    };
    grad: |g, node, up| {
        let [x, which] = [0, 1].map(|i| g.inputs_of(node)[i]);
        let axis = g.attrs_of(node).int("axis");
        Grad::Of(vec![Some(added_to_zeros(g, x, up, |zeros, up| g.scatter_add(zeros, which, up, axis))), None])
    };
    lower: |c| Lowering::Gather { axis: lowered_axis(c) };
    samples: || vec![
        sample([normal(&[1], 96), indices(&[1], 1, 1)], axis_attr(0)),
        sample([normal(&[5], 96), indices(&[9], 5, 2)], axis_attr(0)),
        sample([normal(&[4, 7], 96), indices(&[4, 3], 7, 3)], axis_attr(1)),
        sample([normal(&[4, 7], 96), indices(&[6, 5], 4, 4)], axis_attr(0)),
        sample([normal(&[2, 5, 3], 96), indices(&[1, 4, 3], 5, 5)], axis_attr(-2)),
        sample([normal(&[2, 1, 2, 3], 96), indices(&[2, 1, 1, 5], 3, 6)], axis_attr(3)),
        kinked([as_dtype(normal(&[3, 3], 96), DType::F16), as_dtype(indices(&[2, 3], 3, 7), DType::I64)], axis_attr(0)),
        kinked([cycle(DType::U32, &[4], &[4e9, 1.0, 2.0]), as_dtype(indices(&[3], 4, 8), DType::U32)], axis_attr(0)),
        kinked([cycle(DType::I64, &[3, 3], &[5e12, -2.0]), as_dtype(indices(&[2, 3], 3, 7), DType::I64)], axis_attr(0)),
    ];
}

op! {
    ScatterAdd: "scatter_add" as scatter_add(x, indices, updates) [axis: Int = "The axis of x that is indexed."]
    "x with each element of updates added at its position, with the coordinate along the axis replaced by the index (PyTorch's scatter_add)."
    infer: |c| {
        check_dtypes(c, true)?;
        gathered_axis(c)?;
        if c.shape(2) != c.shape(1) {
            return refuse("updates as large as the indices (slice them first)", format!("{} and {}", c.inputs[1], c.inputs[2]));
        }
        Ok(c.inputs[0].clone())
    };
    evaluate: |op, c, x| {
        let axis = lowered_axis(c);
        let which = checked_indices(x[1], c.shape(0)[axis])?;
        let mut result = x[0].reshaped(accepted(op, c)?);
        let mut k = 0;
        crate::graph::for_each_index(c.shape(1), |index| {
            let mut at = index.to_vec();
            at[axis] = which[k];
            let position = result.position(&at);
            add(&mut result, position, x[2].element(k));
            k += 1;
        });
        result.data.iter_mut().for_each(|v| *v = stored(result.ty.dtype, *v));
        Ok(result)
    };
    grad: |g, node, up| {
        let which = g.inputs_of(node)[1];
        Grad::Of(vec![Some(up), None, Some(g.gather(up, which, g.attrs_of(node).int("axis")))])
    };
    lower: |c| Lowering::ScatterAdd { axis: lowered_axis(c) };
    samples: || vec![
        sample([normal(&[1], 97), indices(&[1], 1, 1), normal(&[1], 98)], axis_attr(0)),
        sample([normal(&[5], 97), indices(&[9], 5, 2), normal(&[9], 98)], axis_attr(0)),
        sample([normal(&[4, 7], 97), indices(&[4, 3], 7, 3), normal(&[4, 3], 98)], axis_attr(1)),
        sample([normal(&[4, 7], 97), indices(&[6, 5], 4, 4), normal(&[6, 5], 98)], axis_attr(0)),
        sample([normal(&[2, 5, 3], 97), indices(&[1, 7, 3], 5, 5), normal(&[1, 7, 3], 98)], axis_attr(-2)),
        sample([normal(&[2, 1, 2, 3], 97), indices(&[2, 1, 1, 5], 3, 6), normal(&[2, 1, 1, 5], 98)], axis_attr(3)),
        kinked([cycle(DType::I32, &[3], &[5.0, -2.0]), indices(&[4], 3, 6), cycle(DType::I32, &[4], &[2e9, 7.0])], axis_attr(0)),
        kinked([cycle(DType::U32, &[3], &[5.0, 4e9]), cycle(DType::I64, &[4], &[1.0, 2.0]), cycle(DType::U32, &[4], &[3e9, 7.0])], axis_attr(0)),
        kinked([whole(&[3, 2], &WHOLE), cycle(DType::I64, &[3, 2], &[1.0, 0.0, 1.0]), whole(&[3, 2], &WHOLE[3..])], axis_attr(1)),
    ];
}

op! {
    OneHot: "one_hot" as one_hot(indices) [classes: Int = "Number of classes."]
    "f32 rows of `classes` with a 1 where the label says: […] → […, classes]. A label outside gives a row of zeros."
    infer: |c| {
        check_index_dtype(&c.inputs[0])?;
        let classes = c.attrs.int("classes");
        if !(1..1 << 31).contains(&classes) {
            return refuse("at least one class", classes);
        }
        Ok(TensorType::f32([c.shape(0), &[classes as usize]].concat()))
    };
    evaluate: |op, c, x| evaluate_decomposed(op, c, x);
    grad: |_, _, _| Grad::Of(vec![None]);
    lower: |_| Lowering::Decompose;
    decompose: |g, x, attrs| {
        // in the labels' own dtype: labels below 0 or beyond 32 bits equal no class
        let classes = g.cast(g.iota(&[attrs.int("classes")], 0), g.ty(x[0]).dtype);
        g.cast(g.eq(g.unsqueeze(x[0], -1), classes), DType::F32)
    };
    samples: || {
        let classes = |n| Attrs::none().with("classes", Attr::Int(n));
        vec![
            sample([indices(&[], 1, 1)], classes(1)),
            sample([indices(&[7], 5, 2)], classes(5)),
            sample([as_dtype(indices(&[2, 1, 3], 4, 3), DType::I64)], classes(4)),
            sample([as_dtype(indices(&[1, 2, 1, 3], 6, 4), DType::U32)], classes(6)),
            sample([cycle(DType::I32, &[5], &[0.0, -1.0, 3.0, 2.0])], classes(3)),
            sample([cycle(DType::I64, &[5], &[0.0, -1.0, 4294967296.0, 2.0])], classes(3)),
        ]
    };
}

/// A value that no label has: no label is ignored.
pub(super) const NONE_IGNORED: i64 = i64::MIN;

op! {
    CheckLabels: "check_labels" as check_labels(labels) [
        classes: Int = "Number of classes.",
        ignore_index: Int = "The ignored label; the smallest i64 for none.",
    ]
    "Class labels as i32, −1 for ignored ones: […] → […]. Any other label outside 0..classes is an error, like an index outside its table."
    infer: |c| {
        check_index_dtype(&c.inputs[0])?;
        let classes = c.attrs.int("classes");
        if !(1..1 << 31).contains(&classes) {
            return refuse("at least one class", classes);
        }
        Ok(TensorType::new(DType::I32, c.shape(0)))
    };
    evaluate: |op, c, x| {
        let (classes, ignored) = (c.attrs.int("classes"), c.attrs.int("ignore_index"));
        let check = |(position, v): (usize, i64)| match v {
            v if v == ignored && ignored != NONE_IGNORED => Ok(-1),
            v if (0..classes).contains(&v) => Ok(v),
            index => Err(Error::IndexOutOfRange { step: None, node: String::new(), index, position, limit: classes as usize }),
        };
        let checked: Result<Vec<i64>> = x[0].whole().into_iter().enumerate().map(check).collect();
        Ok(Array::from_whole(accepted(op, c)?, checked?))
    };
    grad: |_, _, _| Grad::Of(vec![None]);
    lower: |c| {
        let ignored = Some(c.attrs.int("ignore_index")).filter(|&i| i != NONE_IGNORED);
        Lowering::CheckLabels { classes: c.attrs.int("classes") as usize, ignored }
    };
    samples: || {
        let attrs = |classes, ignore| Attrs::none().with("classes", Attr::Int(classes)).with("ignore_index", Attr::Int(ignore));
        let far = |values: &[i64]| whole(&[values.len()], values);
        vec![
            sample([indices(&[], 1, 1)], attrs(1, -100)),
            sample([cycle(DType::I32, &[7], &[0.0, -100.0, 4.0])], attrs(5, -100)),
            sample([as_dtype(indices(&[2, 1, 3], 4, 3), DType::U32)], attrs(4, 2)),
            sample([far(&[3, -1, 0, 2, -1])], attrs(4, -1)),
            sample([far(&[3, 4294967297, 1, 0, 4294967297])], attrs(4, 4294967297)),
            sample([indices(&[1, 2, 1, 3, 2], 6, 4)], attrs(6, NONE_IGNORED)),
        ]
    };
}

pub(super) const FAMILY: &[&dyn Op] =
    &[&IndexSelect, &Embedding, &IndexAdd, &Put, &PutRows, &Gather, &ScatterAdd, &OneHot, &CheckLabels];
