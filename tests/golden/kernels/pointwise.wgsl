var<storage, read> b0: array<vec4<f32>>;
var<storage, read> b1: array<vec4<f32>>;
var<storage, read_write> b2: array<vec4<f32>>;
fn bits(b: u32) -> f32 { return bitcast<f32>(b); }
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn exp_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let t = clamp(x, -104.0f, 89.0f);
    let n = round(t * 1.44269504f);
    let r = (t - n * 0.693359375f) + n * 2.12194440e-4f;
    let p = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f
        + r * (0.00833333333f + r * (0.00138888889f + r * 0.000198412698f))))));
    let i = i32(n);
    let h = i / 2;
    return p * bits(bitcast<u32>((h + 127) << 23u)) * bits(bitcast<u32>((i - h + 127) << 23u));
}
fn sigmoid(x: f32) -> f32 { return 1.0f / (1.0f + exp_of(-x)); }
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
