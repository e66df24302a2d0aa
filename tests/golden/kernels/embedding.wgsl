var<storage, read> b0: array<u32>;
var<storage, read_write> b1: array<atomic<u32>>;
var<storage, read> b2: array<vec4<f32>>;
var<storage, read_write> b3: array<vec4<f32>>;
fn index(i: u32) -> u32 { return b0[(i + 0u)]; }
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
let group = wid.x;
let t = group * 64u + lid;
if (t >= 112u) { return; }
let i = t * 4u;
let j = i / 64u % 7u;
var k = index(j);
if (k >= 1000u) { atomicMin(&b1[0], j); k = 0u; }
let place = (i / 448u * 1000u + k) * 64u + i % 64u + 0u;
let to = i + 0u;
b3[(to) >> 2u] = b2[(place) >> 2u];
}
