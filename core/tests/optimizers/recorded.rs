//! The formulas of this test against what PyTorch, or NumPy with the authors' formula, gave.

use super::formulas::Formula;
use super::{SMALL, optimizers};
use std::path::Path;

#[test]
fn the_formulas_are_those_of_pytorch_and_of_the_authors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/optimizers.safetensors");
    let recorded = weft::load::safetensors(&path).unwrap();
    let mut compared = 0;
    for (name, optimizer) in optimizers() {
        for (t, (tensor, shape)) in SMALL.iter().enumerate() {
            let mut f = Formula::new(&optimizer, t, shape);
            for n in 1..=20 {
                f.step(n);
                let Some(wanted) = recorded.get(&format!("{name}/{n}/{tensor}")) else { continue };
                for (i, (came, wanted)) in f.p.iter().zip(wanted.to_f64()).enumerate() {
                    // recorded as f32; PyTorch's own sums are in f64, in another order
                    let off = (came - wanted).abs();
                    let allowed = 0.6 * f64::from(f32::EPSILON) * wanted.abs().max(1e-3);
                    assert!(
                        off <= allowed,
                        "{name}, {tensor}[{i}], step {n}: {came} where {wanted} was recorded"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, optimizers().len() * 2 * SMALL.iter().map(|s| super::count(s.1)).sum::<usize>());
}
