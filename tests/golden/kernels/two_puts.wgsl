var<storage, read> b0: array<u32>;
var<storage, read_write> b1: array<atomic<u32>>;
var<storage, read> b2: array<f32>;
var<storage, read_write> b3: array<f32>;
var<storage, read_write> b4: array<f32>;
var<storage, read_write> b5: array<f32>;
fn bits(b: u32) -> f32 { return bitcast<f32>(b); }
fn plus_whole(t: f32) -> f32 { return bits(bitcast<u32>(t + 12582912.0f) | 0x40000000u); }
fn exp_near(x: f32) -> f32 {
    let k = plus_whole(x * 1.44269504f);
    let n = k - 12582912.0f;
    let r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    return bits(bitcast<u32>(1.0f + (r + r * r * q)) + (bitcast<u32>(k) << 23u));
}
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn tanh_of(x: f32) -> f32 {
    if (is_nan(x)) { return x; }
    let a = abs(x);
    if (a < 0.625f) {
        let z = x * x;
        return x + x * (z * (-0.33333284f + z * (0.13331491f + z * (-0.053743497f + z * (0.020650588f - z * 0.005717045f)))));
    }
    let t = 1.0f - 2.0f / (exp_near(2.0f * min(a, 10.0f)) + 1.0f);
    return select(t, -t, x < 0.0f);
}
fn update_at0(o: u32, j: u32, i: u32) -> u32 { return (o * 1u + j) * 64u + i; }
fn index0(i: u32) -> u32 { return b0[(i + 0u)]; }
fn inline_0(i: u32) -> f32 {
let c0 = i;
let a0 = c0;
let x0 = b2[a0];
let r0 = x0;
let r1 = tanh_of(r0);
return r1;
}
fn part0(wid: vec3<u32>, lid: u32) {
let group = wid.x;
let t = group * 64u + lid;
if (t >= 128u) { return; }
let o = t / 64u;
let j = t / 64u % 1u;
let i = t % 64u;
let position = j;
var k = index0(position);
if (k >= 16u) { atomicMin(&b1[0], position); return; }
let to = (o * 16u + k) * 64u + i + 0u;
for (var s = j + 1u; s < 1u; s++) { if (index0(s) == index0(position)) { return; } }
b3[to] = inline_0((update_at0(o, j, i) + 0u));
}
fn update_at1(o: u32, j: u32, i: u32) -> u32 { return (o * 1u + j) * 64u + i; }
fn index1(i: u32) -> u32 { return b0[(i + 0u)]; }
fn inline_1(i: u32) -> f32 {
let c0 = i;
let a0 = c0;
let x0 = b2[a0];
let r0 = x0;
let r1 = -r0;
return r1;
}
fn part1(wid: vec3<u32>, lid: u32) {
let group = wid.x;
let t = group * 64u + lid;
if (t >= 128u) { return; }
let o = t / 64u;
let j = t / 64u % 1u;
let i = t % 64u;
let position = j;
var k = index1(position);
if (k >= 16u) { atomicMin(&b1[1], position); return; }
let to = (o * 16u + k) * 64u + i + 0u;
for (var s = j + 1u; s < 1u; s++) { if (index1(s) == index1(position)) { return; } }
b4[to] = inline_1((update_at1(o, j, i) + 0u));
}
fn part2(wid: vec3<u32>, lid: u32) {
let group = wid.x;
let t = group * 64u + lid;
if (t >= 128u) { return; }
let i = t * 1u;
let c0 = i;
let a0 = c0;
let x0 = b2[a0];
let r0 = x0;
let at = c0;
b5[at] = r0;
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
if (wid.x < 2u) { part0(vec3<u32>(wid.x - 0u, 0u, 0u), lid); return; }
if (wid.x < 4u) { part1(vec3<u32>(wid.x - 2u, 0u, 0u), lid); return; }
part2(vec3<u32>(wid.x - 4u, 0u, 0u), lid);
}
