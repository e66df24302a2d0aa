//! Every instruction set against plain loops in f64 over a spread-out, padded image, which share no code with the kernels.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::super::EACH;
use super::super::isa::available;
use super::*;
use crate::graph::ConvolutionForm;
use crate::plan::Operand;
use crate::tensor::DType;

/// xorshift64*.
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }

    fn next(&mut self) -> f32 {
        (self.bits() % 20_001) as f32 / 10_000.0 - 1.0
    }

    fn below(&mut self, n: usize) -> usize {
        self.bits() as usize % n
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[derive(Clone, Debug)]
struct Case {
    n: usize,
    c: usize,
    o: usize,
    input: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    pad: [isize; 2],
    /// Zeros after the last row and column; may be negative, as `pad`.
    after: [isize; 2],
    dilation: [usize; 2],
    spread: [usize; 2],
    groups: usize,
    /// The order in memory of the axes of input and weights, the last the fastest.
    order: [[usize; 4]; 2],
    /// Weights flipped along both axes.
    flipped: bool,
}

const ROW_MAJOR: [usize; 4] = [0, 1, 2, 3];

const PLAIN: Case = Case {
    n: 1,
    c: 4,
    o: 8,
    input: [12, 12],
    kernel: [3, 3],
    stride: [1, 1],
    pad: [1, 1],
    after: [1, 1],
    dilation: [1, 1],
    spread: [1, 1],
    groups: 1,
    order: [ROW_MAJOR; 2],
    flipped: false,
};

impl Case {
    /// Size of the output along an axis; none where a window does not fit.
    fn size(&self, axis: usize) -> Option<usize> {
        let whole =
            ((self.input[axis] - 1) * self.spread[axis] + 1) as isize + self.pad[axis] + self.after[axis];
        let window = ((self.kernel[axis] - 1) * self.dilation[axis] + 1) as isize;
        (whole >= window).then(|| ((whole - window) as usize) / self.stride[axis] + 1)
    }

    fn plan(&self) -> Option<plan::Convolution> {
        let input_shape = [self.n, self.c, self.input[0], self.input[1]];
        let weight_shape = [self.o, self.c / self.groups, self.kernel[0], self.kernel[1]];
        let out_shape = [self.n, self.o, self.size(0)?, self.size(1)?];
        let operand = |buffer, shape: [usize; 4], order: [usize; 4], flipped: bool| {
            let (mut strides, mut step, mut offset) = (vec![0; 4], 1, 0);
            for &axis in order.iter().rev() {
                strides[axis] = step;
                step *= shape[axis] as isize;
            }
            for axis in [2, 3].into_iter().filter(|_| flipped) {
                offset += (shape[axis] as isize - 1) * strides[axis];
                strides[axis] = -strides[axis];
            }
            Operand { buffer, dtype: DType::F32, offset, strides }
        };
        Some(plan::Convolution {
            form: ConvolutionForm {
                stride: self.stride,
                pad_before: self.pad,
                dilation: self.dilation,
                input_dilation: self.spread,
                groups: self.groups,
            },
            input: operand(0, input_shape, self.order[0], false),
            input_shape,
            weight: operand(1, weight_shape, self.order[1], self.flipped),
            weight_shape,
            out: operand(2, out_shape, ROW_MAJOR, false),
            out_shape,
            epilogue: None,
        })
    }
}

/// Element of an operand.
fn get(data: &[f32], operand: &Operand, at: [usize; 4]) -> f64 {
    let offset: isize = at.iter().zip(&operand.strides).map(|(&i, s)| i as isize * s).sum();
    data[(operand.offset + offset) as usize] as f64
}

/// The image with its zeros: spread out, padded and cropped. Every convolution of it is a plain one.
fn image(case: &Case, p: &plan::Convolution, x: &[f32], n: usize, c: usize) -> (Vec<f64>, usize) {
    let size = [0, 1].map(|axis| {
        (((case.input[axis] - 1) * case.spread[axis] + 1) as isize + case.pad[axis] + case.after[axis])
            as usize
    });
    let mut all = vec![0.0; size[0] * size[1]];
    for y in 0..case.input[0] {
        for x_ in 0..case.input[1] {
            let to =
                [(y * case.spread[0]) as isize + case.pad[0], (x_ * case.spread[1]) as isize + case.pad[1]];
            if (0..2).all(|i| to[i] >= 0 && to[i] < size[i] as isize) {
                all[to[0] as usize * size[1] + to[1] as usize] = get(x, &p.input, [n, c, y, x_]);
            }
        }
    }
    (all, size[1])
}

fn reference(case: &Case, p: &plan::Convolution, x: &[f32], w: &[f32]) -> Vec<f64> {
    let [n, o, oh, ow] = p.out_shape;
    let (cg, og) = (case.c / case.groups, case.o / case.groups);
    let mut out = vec![0.0; n * o * oh * ow];
    for n in 0..n {
        for c in 0..case.c {
            let (image, width) = image(case, p, x, n, c);
            for o_ in (c / cg) * og..(c / cg + 1) * og {
                for (ky, kx) in (0..case.kernel[0]).flat_map(|ky| (0..case.kernel[1]).map(move |kx| (ky, kx)))
                {
                    let w = get(w, &p.weight, [o_, c % cg, ky, kx]);
                    for (y, x) in (0..oh).flat_map(|y| (0..ow).map(move |x| (y, x))) {
                        let from = (y * case.stride[0] + ky * case.dilation[0]) * width;
                        let from = from + x * case.stride[1] + kx * case.dilation[1];
                        out[((n * o + o_) * oh + y) * ow + x] += w * image[from];
                    }
                }
            }
        }
    }
    out
}

/// Checks a case on every instruction set, with and without a finish; says which way it went.
fn check(case: &Case, pools: &[ThreadPool], noise: &mut Noise) -> Option<Way> {
    let p = case.plan()?;
    let mut x: Vec<f32> = (0..p.input_shape.iter().product()).map(|_| noise.next()).collect();
    let mut w: Vec<f32> = (0..p.weight_shape.iter().product()).map(|_| noise.next()).collect();
    let wanted = reference(case, &p, &x, &w);
    let plane = p.out_shape[2] * p.out_shape[3];
    let terms = (p.weight_shape[1] * p.weight_shape[2] * p.weight_shape[3]) as f64;
    let mut way = None;
    for isa in available() {
        let prepared = PreparedConvolution::new_on(isa, &p);
        way = Some(prepared.way);
        let mut bits: Option<Vec<f32>> = None;
        for pool in pools {
            for finishing in [false, true] {
                let mut out = vec![f32::NAN; wanted.len()];
                let mut scratch = Scratch::new(pool.threads(), prepared.scratch_bytes_per_worker());
                let bases = [&mut x, &mut w, &mut out].map(|v| v.as_mut_ptr().cast::<u8>());
                let calls: Vec<AtomicUsize> = wanted.iter().map(|_| AtomicUsize::new(0)).collect();
                let finish = |worker: usize, outer: usize, column: usize, piece: &mut [f32]| {
                    assert!(worker < pool.threads() && column + piece.len() <= plane);
                    for (i, x) in piece.iter_mut().enumerate() {
                        *x = 3.0 * *x + outer as f32;
                        calls[outer * plane + column + i].fetch_add(1, Ordering::Relaxed);
                    }
                };
                // SAFETY: the buffers were made for the plan; `isa` is available.
                unsafe { prepared.run(pool, Bases(&bases), &mut scratch, finishing.then_some(&finish)) };
                for (i, (&got, &want)) in out.iter().zip(&wanted).enumerate() {
                    let want = if finishing { 3.0 * want + (i / plane) as f64 } else { want };
                    // Rounding of a sum of so many terms of size 1, and of the finish.
                    let most = 4e-7 * (terms + terms.sqrt() + 4.0 * want.abs()) + 1e-6;
                    assert!((got as f64 - want).abs() < most, "{isa:?} {case:?} at {i}: {got} not {want}");
                    assert_eq!(
                        calls[i].load(Ordering::Relaxed),
                        finishing as usize,
                        "{isa:?} {case:?} at {i}"
                    );
                }
                if !finishing {
                    assert!(
                        bits.get_or_insert(out.clone()) == &out,
                        "{isa:?} {case:?}: threads change the bits"
                    );
                }
            }
        }
    }
    way
}

fn pools() -> [ThreadPool; 2] {
    [ThreadPool::new(1), ThreadPool::new(2)]
}

#[test]
fn named_geometries_match_f64() {
    let point = Case { kernel: [1, 1], pad: [0; 2], after: [0; 2], ..PLAIN };
    let depthwise = Case { c: 6, o: 6, groups: 6, ..PLAIN };
    let cases = [
        (PLAIN, Way::Panels),
        (Case { c: 3, o: 16, input: [40, 40], stride: [2, 2], n: 2, ..PLAIN }, Way::Panels),
        (Case { c: 20, o: 40, input: [30, 31], ..point.clone() }, Way::Plain),
        (Case { stride: [2, 2], input: [31, 30], ..point.clone() }, Way::Panels),
        (Case { input: [40, 1], ..point.clone() }, Way::Panels),
        (Case { c: 64, o: 64, input: [40, 40], ..PLAIN }, Way::Panels),
        (Case { n: 5, input: [7, 7], c: 16, o: 20, ..PLAIN }, Way::SideBySide(5)),
        (Case { n: 70, input: [7, 7], c: 5, o: 6, ..PLAIN }, Way::SideBySide(42)),
        (Case { n: 3, input: [1, 1], c: 16, o: 20, ..point.clone() }, Way::SideBySide(3)),
        (Case { n: 3, input: [5, 5], c: 8, o: 12, groups: 2, ..PLAIN }, Way::SideBySide(3)),
        (Case { n: 2, input: [33, 50], ..depthwise.clone() }, Way::Direct),
        (Case { input: [33, 50], stride: [2, 2], ..depthwise.clone() }, Way::Direct),
        (Case { input: [33, 50], stride: [3, 3], o: 12, ..depthwise.clone() }, Way::Direct),
        (
            Case { input: [14, 15], kernel: [5, 5], pad: [2, 2], after: [2, 2], ..depthwise.clone() },
            Way::Direct,
        ),
        (Case { input: [15, 16], spread: [2, 2], pad: [-1, 2], after: [1, -2], ..depthwise }, Way::Direct),
        // The gradient with respect to a strided convolution's input.
        (Case { spread: [2, 2], flipped: true, order: [ROW_MAJOR, [1, 0, 2, 3]], ..PLAIN }, Way::Panels),
        // The gradient with respect to its weights: batch as channels, the upstream image as the kernel.
        (
            Case {
                n: 6,
                c: 4,
                o: 9,
                input: [28, 28],
                kernel: [28, 28],
                order: [[1, 0, 2, 3], [1, 0, 2, 3]],
                ..PLAIN
            },
            Way::SideBySide(6),
        ),
        (
            Case { n: 6, c: 2, o: 9, input: [28, 28], kernel: [14, 14], dilation: [2, 2], ..PLAIN },
            Way::SideBySide(6),
        ),
    ];
    let (pools, mut noise) = (pools(), Noise(0xc0));
    for (case, way) in cases.into_iter().skip(if cfg!(miri) { 8 } else { 0 }).step_by(EACH) {
        assert_eq!(check(&case, &pools, &mut noise), Some(way), "{case:?}");
    }
}

#[test]
fn random_geometries_match_f64() {
    let (pools, mut noise, mut done) = (pools(), Noise(0xabc), 0);
    let orders = [ROW_MAJOR, ROW_MAJOR, [1, 0, 2, 3], [0, 2, 3, 1], [0, 1, 3, 2]];
    while done < 150 / EACH {
        let groups = noise.of(&[1, 1, 1, 2, 3]);
        let depthwise = noise.below(5) == 0;
        let two = |noise: &mut Noise, choices: &[usize]| [noise.of(choices), noise.of(choices)];
        let pads = |noise: &mut Noise| [noise.below(6) as isize - 2, noise.below(6) as isize - 2];
        let c = groups * if depthwise { 1 } else { noise.of(&[1, 2, 3, 8]) };
        let case = Case {
            n: noise.of(&[1, 2, 5]),
            c,
            o: groups * noise.of(&[1, 2, 4, 7, 13]),
            input: two(&mut noise, &[1, 2, 3, 5, 7, 8, 13, 16, 33]),
            kernel: two(&mut noise, &[1, 1, 2, 3, 3, 5, 7]),
            stride: two(&mut noise, &[1, 1, 2, 3]),
            pad: pads(&mut noise),
            after: pads(&mut noise),
            dilation: two(&mut noise, &[1, 1, 2, 3]),
            spread: two(&mut noise, &[1, 1, 2, 3]),
            groups,
            order: [noise.of(&orders), noise.of(&orders)],
            flipped: noise.below(3) == 0,
        };
        done += usize::from(check(&case, &pools, &mut noise).is_some());
    }
}
