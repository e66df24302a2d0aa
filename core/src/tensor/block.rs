//! Block formats: 32 values share an f16 scale. Encoding and decoding on the host.

use super::{BLOCK, DType};
use crate::error::{Error, Result};
use half::f16;

/// Encodes values in a block format: round to nearest, scale = largest magnitude over 127 (Q8) or 7 (Q4).
///
/// # Errors
/// [`Error::Argument`] if the dtype is not a block format or the values are not whole blocks of 32.
pub fn quantise_blocks(dtype: DType, values: &[f32]) -> Result<Vec<u8>> {
    if !dtype.is_block() || !values.len().is_multiple_of(BLOCK) {
        return Err(Error::argument(
            "quantise",
            "a block format and whole blocks of 32 values",
            format!("{dtype} and {} values", values.len()),
        ));
    }
    let (top, blocks) = (if dtype == DType::Q8 { 127.0 } else { 7.0 }, values.as_chunks::<BLOCK>().0);
    let mut quants = Vec::with_capacity(values.len());
    let mut scales = Vec::with_capacity(blocks.len() * 2);
    for block in blocks {
        let largest = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let scale = f16::from_f32(largest / top);
        let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        let q = |v: f32| (v * inverse).round().clamp(-top, top) as i8;
        match dtype {
            DType::Q8 => quants.extend(block.iter().map(|&v| q(v) as u8)),
            _ => quants.extend(
                block.as_chunks::<2>().0.iter().map(|p| (q(p[0]) + 8) as u8 | ((q(p[1]) + 8) as u8) << 4),
            ),
        }
        scales.extend_from_slice(&scale.to_le_bytes());
    }
    quants.extend_from_slice(&scales);
    Ok(quants)
}

/// Decodes the bytes of a block-format tensor to f32. The bytes must be whole blocks of that dtype.
pub fn dequantise_blocks(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let per_block = if dtype == DType::Q8 { BLOCK } else { BLOCK / 2 };
    let blocks = bytes.len() / (per_block + 2);
    let (quants, scales) = bytes.split_at(blocks * per_block);
    let mut out = Vec::with_capacity(blocks * BLOCK);
    for (block, scale) in quants.chunks_exact(per_block).zip(scales.as_chunks::<2>().0) {
        let scale = f16::from_le_bytes(*scale).to_f32();
        match dtype {
            DType::Q8 => out.extend(block.iter().map(|&q| q as i8 as f32 * scale)),
            _ => out.extend(
                block
                    .iter()
                    .flat_map(|&q| [((q & 15) as f32 - 8.0) * scale, ((q >> 4) as f32 - 8.0) * scale]),
            ),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_round_trip_within_half_a_step() {
        let values: Vec<f32> = (0..96).map(|i| ((i * 37 % 96) as f32 - 48.0) / 10.0).collect();
        for (dtype, steps) in [(DType::Q8, 127.0), (DType::Q4, 7.0)] {
            let packed = quantise_blocks(dtype, &values).unwrap();
            assert_eq!(Some(packed.len()), dtype.bytes(values.len()));
            let wide = dequantise_blocks(dtype, &packed);
            for (block, out) in values.chunks(32).zip(wide.chunks(32)) {
                let step = block.iter().fold(0.0f32, |m, v| m.max(v.abs())) / steps;
                for (a, b) in block.iter().zip(out) {
                    assert!((a - b).abs() <= 0.505 * step, "{dtype}: {a} became {b}");
                }
            }
        }
    }

    #[test]
    fn broken_blocks_are_refused() {
        assert!(quantise_blocks(DType::Q8, &[0.0; 33]).is_err());
        assert!(quantise_blocks(DType::F32, &[0.0; 32]).is_err());
    }
}
