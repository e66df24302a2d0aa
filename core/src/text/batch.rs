//! Batches: encodings padded to one length, and the few lengths that models are compiled for.

use super::Encoding;
use crate::error::{Error, Result};

/// The lengths a model is compiled for: shapes are static, so a text is padded to the next of these.
///
/// ```
/// use weft::text::Buckets;
///
/// let buckets = Buckets::new(100);
/// assert_eq!((buckets.bucket(5), buckets.bucket(17), buckets.bucket(1000)), (8, 32, 100));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Buckets {
    sizes: Vec<usize>,
}

impl Buckets {
    /// Lengths up to `max`: 8, multiples of 16 to 128, then four to each doubling (160, 192, 224, 256, 320, …), and
    /// `max` itself. Beyond 16 tokens at most half of a batch of equal texts is padding, beyond 64 a fifth.
    pub fn new(max: usize) -> Self {
        let mut sizes = vec![8];
        let mut last = 8usize;
        while last < max {
            let step = if last < 128 { 16 } else { (1 << last.ilog2()) / 4 };
            last = (last / step + 1).saturating_mul(step);
            sizes.push(last);
        }
        sizes.retain(|&s| s < max);
        sizes.push(max.max(1));
        Buckets { sizes }
    }

    /// The smallest length that holds `tokens`; the largest there is for more than that.
    pub fn bucket(&self, tokens: usize) -> usize {
        let at = self.sizes.partition_point(|&s| s < tokens).min(self.sizes.len() - 1);
        self.sizes[at]
    }

    /// Every length, ascending.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }
}

/// Token ids of several texts, padded to one length. All three are `[batch, length]`, row-major.
///
/// ```
/// use weft::text::{Encoding, pad};
///
/// let text = |ids: &[u32]| Encoding { ids: ids.to_vec(), type_ids: vec![0; ids.len()], ..Default::default() };
/// let batch = pad(&[text(&[7, 8]), text(&[9])], 3, 0)?;
/// assert_eq!((&batch.ids[..], &batch.mask[..]), (&[7, 8, 0, 9, 0, 0][..], &[1.0, 1.0, 0.0, 1.0, 0.0, 0.0][..]));
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PaddedBatch {
    /// Token ids, the padding's id after each text's end.
    pub ids: Vec<u32>,
    /// 1 for a token, 0 for padding.
    pub mask: Vec<f32>,
    /// The text of a pair that a token belongs to, 0 or 1.
    pub type_ids: Vec<u32>,
    /// Number of texts.
    pub batch: usize,
    /// Tokens of each, including padding.
    pub length: usize,
}

/// Pads encodings to a length.
///
/// # Errors
/// [`Error::Argument`] for no encodings, a length of 0, or an encoding longer than `length`.
pub fn pad(encodings: &[Encoding], length: usize, pad_id: u32) -> Result<PaddedBatch> {
    let Some(size) = encodings.len().checked_mul(length).filter(|&n| n > 0) else {
        let came = format!("{} texts of {length} tokens", encodings.len());
        return Err(Error::argument("batch", "at least one text and one token", came));
    };
    if let Some((at, e)) = encodings.iter().enumerate().find(|(_, e)| e.ids.len() > length) {
        let came = format!("{} tokens in text {at}", e.ids.len());
        return Err(Error::argument("batch", format!("texts of at most {length} tokens"), came));
    }
    let mut out = PaddedBatch {
        ids: Vec::with_capacity(size),
        mask: Vec::with_capacity(size),
        type_ids: Vec::with_capacity(size),
        batch: encodings.len(),
        length,
    };
    for (row, e) in encodings.iter().enumerate() {
        let end = (row + 1) * length;
        out.mask.resize(out.ids.len() + e.ids.len(), 1.0);
        out.mask.resize(end, 0.0);
        out.ids.extend_from_slice(&e.ids);
        out.ids.resize(end, pad_id);
        out.type_ids.extend_from_slice(&e.type_ids);
        out.type_ids.resize(end, 0);
    }
    Ok(out)
}
