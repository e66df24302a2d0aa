//! Checks every conversion of floats against the nearest value of the dtype, found by exhaustive search.

use super::convert::*;
use super::*;
use half::{bf16, f16};

/// All non-NaN values of a 16-bit dtype, in order, with their bits.
fn all(dtype: DType) -> Vec<(f64, u16)> {
    let value =
        |b: u16| if dtype == DType::F16 { f16::from_bits(b).to_f64() } else { bf16::from_bits(b).to_f64() };
    let mut all: Vec<(f64, u16)> =
        (0..=0x7fffu16).map(|b| (value(b), b)).filter(|v| v.0.is_finite()).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all
}

/// The bits of the nearest value, ties to even (IEEE 754, 4.3.1); `None` above the largest, from where the next power of two
/// would be nearer.
fn nearest(all: &[(f64, u16)], v: f64) -> Option<u16> {
    let size = v.abs();
    let at = all.partition_point(|a| a.0 <= size);
    let (low, last) = (all[at - 1], all[all.len() - 1]);
    // continues the spacing of the last binade
    let high = all.get(at).copied().unwrap_or((2.0 * last.0 - all[all.len() - 2].0, last.1 + 1));
    // differences of an f64 from neighbours with few bits: exact, or far from the tie
    let bits = match (size - low.0).total_cmp(&(high.0 - size)) {
        std::cmp::Ordering::Less => low.1,
        std::cmp::Ordering::Greater => high.1,
        std::cmp::Ordering::Equal => low.1 + (low.1 & 1),
    };
    (bits <= last.1).then_some(bits | if v.is_sign_negative() { 0x8000 } else { 0 })
}

/// Values between, at and next to the ties of a dtype, over its whole range.
fn probes(all: &[(f64, u16)]) -> Vec<f64> {
    let mut found = vec![0.0, 1e-300, f64::MIN_POSITIVE, f64::from_bits(1)];
    for pair in all.windows(2) {
        let tie = (pair[0].0 + pair[1].0) / 2.0;
        let hair = tie * f64::EPSILON;
        found.extend([pair[0].0, tie, tie + hair, tie - hair, tie * (1.0 + 1e-9), tie * (1.0 - 1e-9)]);
    }
    let last = all[all.len() - 1].0;
    let edge = last + (last - all[all.len() - 2].0) / 2.0;
    found.extend([last, edge * (1.0 - 1e-12)]);
    let negative: Vec<f64> = found.iter().map(|v| -v).collect();
    found.into_iter().chain(negative).collect()
}

fn bytes<T: Element>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

fn halves(from: Floats, given: &[u8], to: DType) -> Vec<u16> {
    let found = converted(from, given, to).unwrap();
    found.as_chunks::<2>().0.iter().map(|c| u16::from_le_bytes(*c)).collect()
}

#[test]
fn each_value_is_rounded_once_to_the_nearest() {
    for to in [DType::F16, DType::BF16] {
        let all = all(to);
        let probes = probes(&all);
        let given: Vec<u8> = probes.iter().flat_map(|v| v.to_le_bytes()).collect();
        let found = halves(Floats::F64, &given, to);
        for (v, found) in probes.iter().zip(&found) {
            assert_eq!(Some(*found), nearest(&all, *v), "{v:e} to {to}");
        }
        // via f32 some of them would be rounded twice: the test can detect this
        let twice = |v: f64| {
            if to == DType::F16 {
                f16::from_f32(v as f32).to_bits()
            } else {
                bf16::from_f32(v as f32).to_bits()
            }
        };
        assert!(probes.iter().zip(&found).filter(|(v, f)| twice(**v) != **f).count() > 1000);

        let single: Vec<f32> = probes.iter().map(|v| *v as f32).collect();
        let single: Vec<f32> =
            single.into_iter().filter(|v| nearest(&all, f64::from(*v)).is_some()).collect();
        for (v, found) in single.iter().zip(halves(Floats::Known(DType::F32), bytes(&single), to)) {
            assert_eq!(Some(found), nearest(&all, f64::from(*v)), "{v:e} to {to}");
        }
        let tensor = Tensor::from_f64(&TensorType::new(to, [probes.len()]), &probes).unwrap();
        assert_eq!(tensor.bytes(), found.iter().flat_map(|b| b.to_le_bytes()).collect::<Vec<u8>>());
    }
    // between the two 16-bit dtypes
    let (f, b) = (all(DType::F16), all(DType::BF16));
    let from: Vec<f16> = f.iter().map(|v| f16::from_bits(v.1)).collect();
    for (v, found) in f.iter().zip(halves(Floats::Known(DType::F16), bytes(&from), DType::BF16)) {
        assert_eq!(Some(found), nearest(&b, v.0));
    }
    let small = b.iter().filter(|v| v.0 < 65520.0);
    let from: Vec<bf16> = small.clone().map(|v| bf16::from_bits(v.1)).collect();
    for (v, found) in small.zip(halves(Floats::Known(DType::BF16), bytes(&from), DType::F16)) {
        assert_eq!(Some(found), nearest(&f, v.0));
    }
    // and to f32, which represents all of them
    for (dtype, all) in [(DType::F16, &f), (DType::BF16, &b)] {
        let given: Vec<u8> = all.iter().flat_map(|v| v.1.to_le_bytes()).collect();
        let found = converted(Floats::Known(dtype), &given, DType::F32).unwrap();
        let found = found.as_chunks::<4>().0.iter().map(|c| f64::from(f32::from_le_bytes(*c)));
        assert!(found.eq(all.iter().map(|v| v.0)));
    }
}

#[test]
fn nan_and_infinity_stay_and_finite_values_are_not_made_infinite() {
    let odd = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -f64::NAN];
    let dtypes = [DType::F32, DType::F16, DType::BF16];
    for from in dtypes {
        let tensor = Tensor::from_f64(&TensorType::new(from, [4]), &odd).unwrap();
        for to in dtypes {
            let found = tensor.to_floats(to).unwrap().to_f64();
            assert!(found[0].is_nan() && found[3].is_nan(), "{from} to {to}: {found:?}");
            assert_eq!(found[1..3], odd[1..3], "{from} to {to}");
        }
    }
    // the edge: half a step above the largest value rounds to infinity in IEEE 754
    let f32s = |v: &[f32]| Tensor::from_vec([v.len()], v.to_vec()).unwrap();
    assert_eq!(f32s(&[65519.996]).to_floats(DType::F16).unwrap().to_f64(), [65504.0]);
    let mut many = vec![1.0f32; 100_000];
    (many[70_000], many[99_999], many[5]) = (65520.0, -70_000.0, f32::INFINITY);
    assert_eq!(f32s(&many).to_floats(DType::F16).unwrap_err(), Beyond { value: -70_000.0, at: 99_999 });
    assert!(f32s(&[f32::MAX]).to_floats(DType::BF16).is_err());
    for (v, to) in
        [(1e39f64, DType::F32), (3.4e38, DType::BF16), (65520.0, DType::F16), (-1e300, DType::BF16)]
    {
        assert_eq!(converted(Floats::F64, &v.to_le_bytes(), to).unwrap_err(), Beyond { value: v, at: 0 });
    }
    let below: f64 = 65519.99999999999;
    assert_eq!(halves(Floats::F64, &below.to_le_bytes(), DType::F16), [0x7bff]);
}

#[test]
fn weights_are_converted_by_name_and_others_are_left() {
    let mut weights = Weights::new();
    weights.insert("a", Tensor::from_vec([2, 2], vec![1f32, 2.0, 3.0, 0.1]).unwrap().transposed().unwrap());
    weights.insert("ids", Tensor::from_vec([1], vec![1i64 << 60]).unwrap());
    weights.insert("q", Tensor::from_f64(&TensorType::new(DType::Q8, [32]), &[0.5; 32]).unwrap());
    weights.metadata_mut().insert("k".into(), "v".into());
    let half = weights.to_dtype(DType::F16).unwrap();
    assert_eq!(half.get("a").unwrap().to_vec::<f16>().unwrap(), [1.0, 3.0, 2.0, 0.1].map(f16::from_f32));
    assert_eq!(half.get("ids").unwrap().to_vec::<i64>().unwrap(), [1 << 60]);
    assert_eq!((half.get("q").unwrap().dtype(), &half.metadata()["k"][..]), (DType::Q8, "v"));
    // without a change of dtype the bytes are shared
    let same = half.to_dtype(DType::F16).unwrap();
    assert_eq!(same.get("a").unwrap().bytes().as_ptr(), half.get("a").unwrap().bytes().as_ptr());
    // a round trip equals rounding to f16
    let back = half.to_dtype(DType::F32).unwrap();
    assert_eq!(back.get("a").unwrap().to_f64(), [1.0, 3.0, 2.0, f16::from_f32(0.1).to_f64()]);
    for dtype in [DType::I32, DType::Bool, DType::Q4] {
        let e = weights.to_dtype(dtype).unwrap_err().to_string();
        assert_eq!(e, format!("dtype: wanted f32, f16 or bf16, got {dtype}"));
    }
    assert!(Weights::new().to_dtype(DType::F32).unwrap().is_empty());
}
