var<storage, read> b0: array<vec4<f32>>;
var<storage, read> b1: array<vec4<f32>>;
var<storage, read_write> b2: array<vec4<f32>>;
fn bits(b: u32) -> f32 { return bitcast<f32>(b); }
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn plus_whole(t: f32) -> f32 { return bits(bitcast<u32>(t + 12582912.0f) | 0x40000000u); }
fn sigmoid(x: f32) -> f32 {
    let t = -min(abs(x), 104.0f);
    let k = plus_whole(t * 1.44269504f);
    let n = k - 12582912.0f;
    let r = (t - n * 0.693359375f) + n * 2.12194440e-4f;
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    let z = bits(bitcast<u32>(1.0f + (r + r * r * q)) + ((bitcast<u32>(k) + 64u) << 23u)) * 5.42101086e-20f;
    return select(select(z, 1.0f, x >= 0.0f) / (1.0f + z), x, is_nan(x));
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
let group = wid.x;
let t = group * 256u + lid;
if (t >= 16384u) { return; }
let i = t * 4u;
let c1 = i % 256u;
let cq1 = i / 256u;
let c0 = cq1;
let a0 = c0 * 256u + c1;
let x0 = b0[(a0) >> 2u];
let a1 = c1;
let x1 = b1[(a1) >> 2u];
var y: vec4<f32>;
{
let r0 = x0.x;
let r1 = x1.x;
let r2 = r0 * r1;
let r3 = sigmoid(r2);
let r4 = r2 * r3;
y.x = r4;
}
{
let r0 = x0.y;
let r1 = x1.y;
let r2 = r0 * r1;
let r3 = sigmoid(r2);
let r4 = r2 * r3;
y.y = r4;
}
{
let r0 = x0.z;
let r1 = x1.z;
let r2 = r0 * r1;
let r3 = sigmoid(r2);
let r4 = r2 * r3;
y.z = r4;
}
{
let r0 = x0.w;
let r1 = x1.w;
let r2 = r0 * r1;
let r3 = sigmoid(r2);
let r4 = r2 * r3;
y.w = r4;
}
let at = c0 * 256u + c1;
b2[(at) >> 2u] = y;
}
