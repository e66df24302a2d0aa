//! The mapping from a value's axes to its buffer, and the effect of views on it.

use crate::graph::ViewForm;
use crate::tensor::contiguous_strides;

/// Offset and strides, in elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Offset of the first element.
    pub offset: isize,
    /// Distance between neighbours along each axis.
    pub strides: Vec<isize>,
}

impl Layout {
    /// Row-major from the buffer's start.
    pub fn contiguous(shape: &[usize]) -> Layout {
        Layout { offset: 0, strides: contiguous_strides(shape) }
    }

    /// Row-major without gaps (from any offset); axes of size 1 do not matter.
    pub fn is_contiguous(&self, shape: &[usize]) -> bool {
        let wanted = contiguous_strides(shape);
        shape.iter().zip(&self.strides).zip(wanted).all(|((&n, &s), w)| n == 1 || s == w)
    }

    /// The layout of a view of a value with this layout and shape `from`, or `None` if strides cannot express it without a
    /// copy.
    pub fn view(&self, form: &ViewForm, from: &[usize], to: &[usize]) -> Option<Layout> {
        match form {
            ViewForm::Reshape => self.reshape(from, to),
            ViewForm::Permute(axes) => {
                Some(Layout { offset: self.offset, strides: axes.iter().map(|&a| self.strides[a]).collect() })
            }
            ViewForm::Broadcast => {
                let lead = to.len() - from.len();
                let stride = |a: usize| match a.checked_sub(lead) {
                    Some(own) if from[own] != 1 => self.strides[own],
                    _ => 0,
                };
                Some(Layout { offset: self.offset, strides: (0..to.len()).map(stride).collect() })
            }
            ViewForm::Slice { start, step } => {
                let shift: isize = start.iter().zip(&self.strides).map(|(&i, &s)| i as isize * s).sum();
                let strides = step.iter().zip(&self.strides).map(|(&k, &s)| k * s).collect();
                Some(Layout { offset: self.offset + shift, strides })
            }
        }
    }

    fn reshape(&self, from: &[usize], to: &[usize]) -> Option<Layout> {
        // axes longer than 1, merged where contiguous; then split according to `to`
        let mut runs: Vec<(usize, isize)> = Vec::new();
        for (&n, &s) in from.iter().zip(&self.strides).filter(|(n, _)| **n != 1) {
            match runs.last_mut() {
                Some((m, t)) if *t == s * n as isize => (*m, *t) = (*m * n, s),
                _ => runs.push((n, s)),
            }
        }
        let mut strides = vec![0isize; to.len()];
        let mut run = runs.iter().rev();
        let (mut left, mut stride) = (1usize, 1isize);
        for axis in (0..to.len()).rev() {
            if to[axis] == 1 {
                continue;
            }
            if left == 1 {
                (left, stride) = *run.next()?;
            }
            if left % to[axis] != 0 {
                return None;
            }
            strides[axis] = stride;
            stride *= to[axis] as isize;
            left /= to[axis];
        }
        Some(Layout { offset: self.offset, strides })
    }

    /// Strides over a domain: `axes[i]` is the domain's axis of this value's axis i.
    pub fn over(&self, shape: &[usize], axes: &[usize], rank: usize) -> Vec<isize> {
        let mut strides = vec![0isize; rank];
        for (i, &axis) in axes.iter().enumerate() {
            if shape[i] != 1 {
                strides[axis] = self.strides[i];
            }
        }
        strides
    }
}

/// The domain axes of a value that broadcasts to it: aligned at the last axes.
pub fn trailing_axes(rank: usize, domain: usize) -> Vec<usize> {
    (domain - rank..domain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reshapes_of_views_are_found_where_they_exist() {
        let heads = Layout::contiguous(&[2, 5, 12]).reshape(&[2, 5, 12], &[2, 5, 3, 4]).unwrap();
        assert_eq!(heads.strides, [60, 12, 4, 1]);
        let swapped = heads.view(&ViewForm::Permute(vec![0, 2, 1, 3]), &[2, 5, 3, 4], &[2, 3, 5, 4]).unwrap();
        assert_eq!(swapped.strides, [60, 4, 12, 1]);
        assert_eq!(swapped.reshape(&[2, 3, 5, 4], &[2, 15, 4]), None);
        assert_eq!(swapped.reshape(&[2, 3, 5, 4], &[2, 3, 1, 5, 2, 2]).unwrap().strides[5], 1);
        let flipped = ViewForm::Slice { start: vec![4], step: vec![-1] };
        let flipped = Layout::contiguous(&[5]).view(&flipped, &[5], &[5]).unwrap();
        assert_eq!((flipped.offset, flipped.strides), (4, vec![-1]));
    }
}
