//! Lowerings agree with evaluation: each archetype is evaluated here in f64, straight from its definition, over every sample.
//! The devices' own tests then compare them with the evaluation.

use std::collections::BTreeSet;
use weft::graph::{Array, Call, Lowering, RowwiseForm, ViewForm, for_each_index};
use weft::internals::expr::{Binary, Context, Expr, Fold, Scalar};
use weft::ops;
use weft::tensor::TensorType;

#[test]
fn lowerings_mean_what_evaluation_says() {
    let mut carried_out = BTreeSet::new();
    for op in ops::all() {
        for (i, sample) in op.samples().iter().enumerate() {
            let types: Vec<TensorType> = sample.inputs.iter().map(|a| a.ty.clone()).collect();
            let call = Call { inputs: &types, attrs: &sample.attrs };
            let arrays: Vec<&Array> = sample.inputs.iter().collect();
            let at = format!("{}, sample {i}", op.name());
            let ty = op.infer(&call).unwrap_or_else(|e| panic!("{at}: {e:?}"));
            let lowering = op.lower(&call);
            let Some(came) = carry_out(&lowering, &ty, &arrays) else { continue };
            carried_out.insert(format!("{lowering:?}").split(['(', ' ']).next().map(str::to_string));
            let wanted = op.evaluate(&call, &arrays).unwrap_or_else(|e| panic!("{at}: {e}"));
            assert_eq!(came.len(), wanted.data.len(), "{at}");
            let agree = |(a, b): (&f64, &f64)| {
                a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * (1.0 + b.abs())
            };
            assert!(came.iter().zip(&wanted.data).all(agree), "{at}:\n{came:?}\n{:?}", wanted.data);
        }
    }
    let archetypes = ["Place", "Pointwise", "Rowwise", "Scan", "View"].map(|a| Some(a.to_string()));
    assert_eq!(carried_out, BTreeSet::from(archetypes));
}

/// The elements a lowering gives; `None` for archetypes that have tests of their own.
fn carry_out(lowering: &Lowering, ty: &TensorType, x: &[&Array]) -> Option<Vec<f64>> {
    Some(match lowering {
        Lowering::View(form) => view(form, ty, x[0]),
        Lowering::Pointwise(e) => {
            each(&ty.shape, |index, flat| value(e, x, index, flat, &[]).cast(ty.dtype).number())
        }
        Lowering::Rowwise(form) => rowwise(form, ty, x),
        Lowering::Scan { axis } => scan(*axis, ty, x[0]),
        Lowering::Place { at, fill } => place(at, *fill, ty, x),
        _ => return None,
    })
}

fn each(shape: &[usize], mut f: impl FnMut(&[usize], usize) -> f64) -> Vec<f64> {
    let mut all = vec![];
    for_each_index(shape, |index| all.push(f(index, all.len())));
    all
}

/// An expression's value at an index of the domain, inputs broadcast to it.
fn value(e: &Expr, x: &[&Array], index: &[usize], flat: usize, reduced: &[Scalar]) -> Scalar {
    let inputs: Vec<Scalar> = x.iter().map(|a| a.element_at_broadcast(index)).collect();
    e.evaluate(&Context { inputs: &inputs, reduced, coords: index, flat })
}

fn view(form: &ViewForm, ty: &TensorType, x: &Array) -> Vec<f64> {
    match form {
        ViewForm::Reshape => x.data.clone(),
        ViewForm::Broadcast => each(&ty.shape, |index, _| x.at_broadcast(index)),
        ViewForm::Permute(order) => each(&ty.shape, |index, _| {
            let mut at = vec![0; order.len()];
            order.iter().zip(index).for_each(|(&axis, &i)| at[axis] = i);
            x.at(&at)
        }),
        ViewForm::Slice { start, step } => each(&ty.shape, |index, _| {
            let at = (0..index.len()).map(|a| (start[a] as isize + index[a] as isize * step[a]) as usize);
            x.at(&at.collect::<Vec<_>>())
        }),
    }
}

fn join(fold: Fold, row: &[Scalar]) -> Scalar {
    let joined = |op: Binary| {
        let both = Expr::Input(0).binary(op, Expr::Input(1));
        let step = |a: Scalar, &b: &Scalar| both.evaluate(&Context { inputs: &[a, b], ..Default::default() });
        row[1..].iter().fold(row[0], step)
    };
    let place = |better: fn(f64, f64) -> bool| {
        let wins = |v: f64, best: f64| !best.is_nan() && (v.is_nan() || better(v, best));
        let best = (1..row.len()).fold(0, |b, i| if wins(row[i].number(), row[b].number()) { i } else { b });
        Scalar::I(best as i32)
    };
    match fold {
        Fold::Sum => joined(Binary::Add),
        Fold::Prod => joined(Binary::Mul),
        Fold::Max => joined(Binary::Max),
        Fold::Min => joined(Binary::Min),
        Fold::ArgMax => place(|a, b| a > b),
        Fold::ArgMin => place(|a, b| a < b),
    }
}

fn rowwise(form: &RowwiseForm, ty: &TensorType, x: &[&Array]) -> Vec<f64> {
    let row_shape: Vec<usize> =
        form.domain.iter().enumerate().map(|(a, &n)| if form.axes.contains(&a) { 1 } else { n }).collect();
    let line: Vec<usize> =
        form.domain.iter().enumerate().map(|(a, &n)| if form.axes.contains(&a) { n } else { 1 }).collect();
    let mut rows: Vec<Vec<Scalar>> = vec![];
    for_each_index(&row_shape, |row| {
        let mut reduced: Vec<Scalar> = vec![];
        for r in &form.reductions {
            let mut terms = vec![];
            for_each_index(&line, |offset| {
                let index: Vec<usize> = row.iter().zip(offset).map(|(a, b)| a + b).collect();
                terms.push(value(&r.of, x, &index, 0, &reduced));
            });
            reduced.push(join(r.fold, &terms));
        }
        rows.push(reduced);
    });
    if form.per_row {
        let output =
            |(reduced, index): (&Vec<Scalar>, Vec<usize>)| value(&form.output, x, &index, 0, reduced);
        let mut indices = vec![];
        for_each_index(&row_shape, |row| indices.push(row.to_vec()));
        return rows.iter().zip(indices).map(output).map(|v| v.cast(ty.dtype).number()).collect();
    }
    let numbers = Array::new(TensorType::f32(row_shape), (0..rows.len()).map(|i| i as f64).collect());
    each(&form.domain, |index, flat| {
        let row = &rows[numbers.at_broadcast(index) as usize];
        value(&form.output, x, index, flat, row).cast(ty.dtype).number()
    })
}

fn scan(axis: usize, ty: &TensorType, x: &Array) -> Vec<f64> {
    let mut sums = Array::full(ty.clone(), 0.0);
    let add = Expr::Input(0) + Expr::Input(1);
    // sums stay unrounded while they run, as devices keep them in f32
    for_each_index(&ty.shape, |index| {
        let here = Scalar::of(ty.dtype, x.at(index));
        let mut before = index.to_vec();
        let total = if index[axis] == 0 {
            here
        } else {
            before[axis] -= 1;
            let last = Scalar::of(ty.dtype, sums.at(&before));
            add.evaluate(&Context { inputs: &[last, here], ..Default::default() })
        };
        let position = sums.position(index);
        sums.data[position] = total.number();
    });
    sums.data.iter().map(|&v| Scalar::of(ty.dtype, v).cast(ty.dtype).number()).collect()
}

fn place(at: &[Vec<usize>], fill: Option<f64>, ty: &TensorType, x: &[&Array]) -> Vec<f64> {
    let border = fill.map_or(f64::NAN, |v| Scalar::F(v).cast(ty.dtype).number());
    let mut all = Array::full(ty.clone(), border);
    let mut covered = 0;
    for (array, start) in x.iter().zip(at) {
        for_each_index(&array.ty.shape, |index| {
            let to: Vec<usize> = index.iter().zip(start).map(|(i, s)| i + s).collect();
            let position = all.position(&to);
            all.data[position] = array.at(index);
            covered += 1;
        });
    }
    assert!(fill.is_some() || covered == all.data.len(), "places without a fill leave gaps");
    all.data
}
