//! Optimizer updates in place: stochastic gradient descent and Adam. A step whose look-ups met a bad index changes
//! nothing.

use super::rowwise::entry;
use crate::device::gpu::wgsl::walk;

/// Threads of a workgroup.
pub const THREADS: usize = 256;

/// An update kernel's text over `elements` f32: `b0` the parameter, `b1` its gradient, `b2` the errors (`words` of
/// them), `b3` the rates, and for Adam `b4`, `b5` the moments. The grid that goes with it.
///
/// Rates: for SGD the learning rate; for Adam lr / (1 − β₁ᵗ), β₁, β₂, ε, 1 / √(1 − β₂ᵗ)
/// (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1).
pub fn kernel(adam: bool, elements: usize, words: usize) -> (String, [u32; 3]) {
    let mut text =
        String::from("var<storage, read_write> b0: array<f32>;\nvar<storage, read> b1: array<f32>;\n");
    text += "var<storage, read> b2: array<u32>;\nvar<storage, read> b3: array<f32>;\n";
    let (grid, mut body) = walk::each("i", elements, THREADS);
    if words > 0 {
        body +=
            &format!("for (var e = 0u; e < {words}u; e++) {{ if (b2[e] != 0xffffffffu) {{ return; }} }}\n");
    }
    body += "let g = b1[i];\n";
    if adam {
        text += "var<storage, read_write> b4: array<f32>;\nvar<storage, read_write> b5: array<f32>;\n";
        body +=
            "let m = b3[1] * b4[i] + (1.0f - b3[1]) * g;\nlet v = b3[2] * b5[i] + (1.0f - b3[2]) * g * g;\n";
        body += "b4[i] = m;\nb5[i] = v;\nb0[i] = b0[i] - b3[0] * m / (sqrt(v) * b3[4] + b3[3]);";
    } else {
        body += "b0[i] = b0[i] - b3[0] * g;";
    }
    (text + &entry(THREADS, &body), grid)
}
