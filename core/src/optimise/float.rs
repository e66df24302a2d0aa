//! Properties of numbers in a dtype: normality, spacing.

use crate::tensor::DType;

/// Fraction bits of a significand, and the exponent of the smallest normal number.
fn form(d: DType) -> Option<(i32, i32)> {
    match d {
        DType::F32 => Some((23, -126)),
        DType::F16 => Some((10, -14)),
        DType::BF16 => Some((7, -126)),
        _ => None,
    }
}

/// Whether a number is normal in a dtype: neither 0, nor subnormal, nor infinite.
pub(super) fn is_normal(v: f64, d: DType) -> bool {
    let Some((_, least)) = form(d) else { return false };
    let stored = d.rounded(v).abs();
    stored.is_finite() && stored >= 2f64.powi(least)
}

/// The unit in the last place of a dtype at a number's magnitude.
fn unit(v: f64, d: DType) -> Option<f64> {
    let (bits, least) = form(d)?;
    let exponent = if v == 0.0 { least } else { v.abs().log2().floor() as i32 };
    Some(2f64.powi(exponent.max(least) - bits))
}

/// Whether a constant of a graph equals a number up to one unit in the last place of its dtype.
pub(super) fn is_near(constant: f64, wanted: f64, d: DType) -> bool {
    unit(wanted, d).is_some_and(|unit| (constant - wanted).abs() <= unit)
}

/// Whether a magnitude is between 2⁻¹⁰ and 2¹⁰: such factors may be moved across a product, or combined.
pub(super) fn is_mild(v: f64) -> bool {
    (1.0 / 1024.0..=1024.0).contains(&v.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_near_and_no_others() {
        let one = f64::from(1.0f32.next_up());
        assert!(is_near(one, 1.0, DType::F32) && !is_near(one + 1e-7, 1.0, DType::F32));
        // 1/n where it is subnormal: the unit no longer decreases
        assert!(is_near(DType::F16.rounded(1.0 / 20_000.0), 1.0 / 20_000.0, DType::F16));
        assert!(!is_near(0.100001, 0.1, DType::F32) && is_near(0.100001, 0.1, DType::F16));
        assert!(!is_near(1.0, 1.0, DType::I32));
    }

    #[test]
    fn what_a_dtype_cannot_hold_is_not_normal() {
        for (v, in_f32, in_f16) in
            [(1.0, true, true), (65_504.0, true, true), (65_520.0, true, false), (6.2e-5, true, true)]
        {
            assert_eq!((is_normal(v, DType::F32), is_normal(v, DType::F16)), (in_f32, in_f16), "{v}");
        }
        for v in [0.0, -0.0, 1e-39, 1e39, f64::NAN, f64::INFINITY] {
            assert!(![DType::F32, DType::F16, DType::BF16].iter().any(|&d| is_normal(v, d)), "{v}");
        }
    }
}
