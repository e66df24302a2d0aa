//! Optimizer updates in place: stochastic gradient descent and Adam, over many parameters at once. A step whose
//! look-ups met a bad index changes nothing.

use super::rowwise::entry;
use crate::target::gpu::wgsl::walk;

/// Threads of a workgroup.
pub const THREADS: usize = 256;
/// Elements of a workgroup's part, at most; a multiple of four times [`THREADS`].
pub const EACH: usize = 4096;
/// Look-ups up to which every thread asks after all of them.
const MANY: usize = 1024;

/// An update kernel's text for so many parts, each a workgroup's: `b0` parameters, `b1` their gradients, `b2` the errors
/// (`words` of them), `b3` the rates, `b4` the parts (see `updates::Batch`), and for Adam `b5`, `b6` the moments. The grid
/// that goes with it.
///
/// Rates: for SGD the learning rate; for Adam lr / (1 − β₁ᵗ), β₁, β₂, ε, 1 / √(1 − β₂ᵗ)
/// (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1).
pub fn kernel(adam: bool, parts: usize, words: usize) -> (String, [u32; 3]) {
    let mut text = String::from(
        "var<storage, read_write> b0: array<vec4<f32>>;\nvar<storage, read> b1: array<vec4<f32>>;\n\
         var<storage, read> b2: array<u32>;\nvar<storage, read> b3: array<f32>;\n\
         var<storage, read> b4: array<vec4<u32>>;\n",
    );
    let grid = walk::fold(parts);
    let mut body = walk::group_number(grid);
    if words > MANY {
        // a workgroup shares them
        text += "var<workgroup> bad: atomic<u32>;\n";
        body += "if (lid == 0u) { atomicStore(&bad, 0u); }\nworkgroupBarrier();\n";
        body += &format!("for (var e = lid; e < {words}u; e += {THREADS}u) {{\n");
        body += "if (b2[e] != 0xffffffffu) { atomicStore(&bad, 1u); }\n}\nworkgroupBarrier();\n";
        body += "if (atomicLoad(&bad) != 0u) { return; }\n";
    } else if words > 0 {
        body +=
            &format!("for (var e = 0u; e < {words}u; e++) {{ if (b2[e] != 0xffffffffu) {{ return; }} }}\n");
    }
    body += "let part = b4[group];\n";
    body +=
        &format!("for (var n = 0u; n < {}u; n++) {{\nlet i = n * {THREADS}u + lid;\n", EACH / 4 / THREADS);
    body += "if (i * 4u >= part.w) { break; }\n";
    // elements beyond the parameter's last stay as they are
    body += "let ours = (vec4<u32>(0u, 1u, 2u, 3u) + i * 4u) < vec4<u32>(part.w);\n\
             let p = b0[part.x + i];\nlet g = b1[part.y + i];\n";
    if adam {
        text += "var<storage, read_write> b5: array<vec4<f32>>;\nvar<storage, read_write> b6: array<vec4<f32>>;\n";
        body += "let m = b3[1] * b5[part.z + i] + (1.0f - b3[1]) * g;\n\
                 let v = b3[2] * b6[part.z + i] + (1.0f - b3[2]) * g * g;\n\
                 b5[part.z + i] = m;\nb6[part.z + i] = v;\n\
                 b0[part.x + i] = select(p, p - b3[0] * m / (sqrt(v) * b3[4] + b3[3]), ours);\n";
    } else {
        body += "b0[part.x + i] = select(p, p - b3[0] * g, ours);\n";
    }
    body += "}";
    (text + &entry(THREADS, &body), grid)
}
