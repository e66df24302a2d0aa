var<storage, read> b0: array<f32>;
var<storage, read_write> b1: array<f32>;
var<storage, read> b2: array<f32>;
fn part0(wid: vec3<u32>, lid: u32) {
let group = wid.x;
let t = group * 256u + lid;
if (t >= 6144u) { return; }
let i = t * 1u;
let c0 = i;
let a0 = c0;
let x0 = b0[a0];
let r0 = x0;
let at = c0;
b1[at] = r0;
}
fn part1(wid: vec3<u32>, lid: u32) {
let group = wid.x;
let t = group * 256u + lid;
if (t >= 6144u) { return; }
let i = t * 1u;
let c0 = i;
let a0 = c0;
let x0 = b2[a0];
let r0 = x0;
let at = c0 + 6144u;
b1[at] = r0;
}
@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
if (wid.x < 24u) { part0(vec3<u32>(wid.x - 0u, 0u, 0u), lid); return; }
part1(vec3<u32>(wid.x - 24u, 0u, 0u), lid);
}

// next kernel
var<storage, read> b0: array<vec4<f32>>;
var<storage, read> b1: array<f32>;
var<storage, read> b2: array<vec4<f32>>;
var<storage, read> b3: array<f32>;
var<storage, read> b4: array<vec4<f32>>;
var<storage, read_write> b5: array<f32>;
var<storage, read_write> b6: array<vec4<f32>>;
fn bits(b: u32) -> f32 { return bitcast<f32>(b); }
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn rsqrt_of(x: f32) -> f32 {
    let b = bitcast<u32>(x);
    if (b - 0x00800000u < 0x7f000000u) { return inverseSqrt(x); }
    if (is_nan(x)) { return x; }
    if ((b & 0x7fffffffu) == 0u) { return bits(b | 0x7f800000u); }
    if (b >= 0x80000000u) { return bits(0x7fc00000u); }
    if (b == 0x7f800000u) { return 0.0f; }
    return inverseSqrt(f32(b) * 2.350988701644575e-38f) * 4096.0f;
}
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
fn element4(k: u32, v: vec4<f32>) -> vec4<f32> {
let a0 = k;
let x0 = b0[(a0) >> 2u];
var y: vec4<f32>;
{
let r0 = v.x;
let r1 = x0.x;
let r2 = r0 * r1;
y.x = r2;
}
{
let r0 = v.y;
let r1 = x0.y;
let r2 = r0 * r1;
y.y = r2;
}
{
let r0 = v.z;
let r1 = x0.z;
let r2 = r0 * r1;
y.z = r2;
}
{
let r0 = v.w;
let r1 = x0.w;
let r2 = r0 * r1;
y.w = r2;
}
return y;
}
fn measured4(v: vec4<f32>) -> f32 {
var y: vec4<f32>;
{
let r0 = v.x;
let r1 = r0 * r0;
y.x = r1;
}
{
let r0 = v.y;
let r1 = r0 * r0;
y.y = r1;
}
{
let r0 = v.z;
let r1 = r0 * r0;
y.z = r1;
}
{
let r0 = v.w;
let r1 = r0 * r0;
y.w = r1;
}
return y.x + y.y + y.z + y.w;
}
fn factor(v: f32) -> f32 {
let r0 = v;
let r1 = 0.015625f;
let r2 = r0 * r1;
let r3 = 1e-5f;
let r4 = r2 + r3;
let r5 = rsqrt_of(r4);
return r5;
}
fn load_a(z: u32, row: u32, k: u32) -> f32 {
let z0 = z;
let at = row * 64u + k;
return b1[at];
}
fn load_a4(z: u32, row: u32, k: u32) -> vec4<f32> {
let z0 = z;
let at = row * 64u + k;
return b2[(at) >> 2u];
}
fn load_b(z: u32, k: u32, col: u32) -> f32 {
let z0 = z;
let at = k + col * 64u;
return b3[at];
}
fn load_b4(z: u32, k: u32, col: u32) -> vec4<f32> {
let z0 = z;
let at = k + col * 64u;
return b4[(at) >> 2u];
}
fn finished(outer: u32, col: u32, at: u32, v: f32, u: f32) {
let e0 = outer;
let r0 = v;
let r1 = sigmoid(r0);
let r2 = r0 * r1;
let r3 = u;
let r4 = r2 * r3;
b5[at] = r4;
}
fn finished4(outer: u32, col: u32, at: u32, v: vec4<f32>, u: vec4<f32>) {
let e0 = outer;
var y: vec4<f32>;
{
let r0 = v.x;
let r1 = sigmoid(r0);
let r2 = r0 * r1;
let r3 = u.x;
let r4 = r2 * r3;
y.x = r4;
}
{
let r0 = v.y;
let r1 = sigmoid(r0);
let r2 = r0 * r1;
let r3 = u.y;
let r4 = r2 * r3;
y.y = r4;
}
{
let r0 = v.z;
let r1 = sigmoid(r0);
let r2 = r0 * r1;
let r3 = u.z;
let r4 = r2 * r3;
y.z = r4;
}
{
let r0 = v.w;
let r1 = sigmoid(r0);
let r2 = r0 * r1;
let r3 = u.w;
let r4 = r2 * r3;
y.w = r4;
}
b6[(at) >> 2u] = y;
}
fn store(z: u32, row: u32, col: u32, v: f32, u: f32) {
let z0 = z;
let at = row * 96u + col;
finished(z * 64u + row, col, at, v, u);
}
fn store4(z: u32, row: u32, col: u32, v: vec4<f32>, u: vec4<f32>) {
let z0 = z;
let at = row * 96u + col;
finished4(z * 64u + row, col, at, v, u);
}
var<workgroup> tile: array<vec4<f32>, 952>;
var<workgroup> factors: array<f32, 32>;
fn fetch_a(z: u32, row: u32, k: u32) -> vec4<f32> {
return load_a4(z, row, k);
}
fn fetch_b(z: u32, k: u32, col: u32) -> vec4<f32> {
let c = col / 24u * 12u + col % 12u;
let at = c + select(0u, 96u, col % 24u >= 12u);
return load_b4(z, k, at);
}
fn put(z: u32, row: u32, col: u32, v: vec4<f32>, u: vec4<f32>) {
store4(z, row, col, v, u);
}
@compute @workgroup_size(48)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
let id = wg.x;
let out_z = 0u;
let z = 0u;
let k0 = 0u;
let row0 = id % 2u * 32u;
let col0 = id / 2u * 24u;

let slice = t / 24u;
let tx = (t % 24u) % 6u;
let ty = (t % 24u) / 6u;
var c0_0 = vec4<f32>();
var c1_0 = vec4<f32>();
var c2_0 = vec4<f32>();
var c3_0 = vec4<f32>();
var c4_0 = vec4<f32>();
var c5_0 = vec4<f32>();
var c6_0 = vec4<f32>();
var c7_0 = vec4<f32>();
var q0 = 0.0;
var q1 = 0.0;
var q2 = 0.0;
var q3 = 0.0;
var q4 = 0.0;
var q5 = 0.0;
var q6 = 0.0;
var q7 = 0.0;
var q8 = 0.0;
var q9 = 0.0;
var q10 = 0.0;
var a0_0: vec4<f32>;
var a0_1: vec4<f32>;
var a0_2: vec4<f32>;
var a0_3: vec4<f32>;
var a0_4: vec4<f32>;
var a0_5: vec4<f32>;
var a0_6: vec4<f32>;
var a0_7: vec4<f32>;
var a0_8: vec4<f32>;
var a0_9: vec4<f32>;
var a0_10: vec4<f32>;
var a1_0: vec4<f32>;
var a1_1: vec4<f32>;
var a1_2: vec4<f32>;
var a1_3: vec4<f32>;
var a1_4: vec4<f32>;
var a1_5: vec4<f32>;
var a1_6: vec4<f32>;
var a1_7: vec4<f32>;
var a1_8: vec4<f32>;
var a1_9: vec4<f32>;
var a1_10: vec4<f32>;
var a2_0: vec4<f32>;
var a2_1: vec4<f32>;
var a2_2: vec4<f32>;
var a2_3: vec4<f32>;
var a2_4: vec4<f32>;
var a2_5: vec4<f32>;
var a2_6: vec4<f32>;
var a2_7: vec4<f32>;
var a2_8: vec4<f32>;
var a2_9: vec4<f32>;
var a2_10: vec4<f32>;
var b0_0: vec4<f32>;
var b0_1: vec4<f32>;
var b0_2: vec4<f32>;
var b0_3: vec4<f32>;
var b0_4: vec4<f32>;
var b0_5: vec4<f32>;
var b0_6: vec4<f32>;
var b0_7: vec4<f32>;
var b1_0: vec4<f32>;
var b1_1: vec4<f32>;
var b1_2: vec4<f32>;
var b1_3: vec4<f32>;
var b1_4: vec4<f32>;
var b1_5: vec4<f32>;
var b1_6: vec4<f32>;
var b1_7: vec4<f32>;
var b2_0: vec4<f32>;
var b2_1: vec4<f32>;
var b2_2: vec4<f32>;
var b2_3: vec4<f32>;
var b2_4: vec4<f32>;
var b2_5: vec4<f32>;
var b2_6: vec4<f32>;
var b2_7: vec4<f32>;
{ let e = t + 0u; a0_0 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 48u; a0_1 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 96u; a0_2 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 144u; a0_3 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 192u; a0_4 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 240u; a0_5 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 288u; a0_6 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 336u; a0_7 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 384u; a0_8 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 432u; a0_9 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); }
{ let e = t + 480u; if e < 512u { a0_10 = fetch_a(z, row0 + e / 16u, k0 + 0u + e % 16u * 4u); } }
{ let e = t + 0u; b0_0 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
{ let e = t + 48u; b0_1 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
{ let e = t + 96u; b0_2 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
{ let e = t + 144u; b0_3 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
{ let e = t + 192u; b0_4 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
{ let e = t + 240u; b0_5 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
{ let e = t + 288u; b0_6 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
{ let e = t + 336u; b0_7 = fetch_b(z, k0 + 0u + e % 16u * 4u, col0 + e / 16u % 6u * 4u + e / 96u); }
for (var i = 0u; i < 1u; i++) {
{
let n = i * 1u + 0u;
let k = k0 + n * 64u;
{ let e = t + 0u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q0 += measured4(a0_0); y = element4(s, a0_0); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 48u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q1 += measured4(a0_1); y = element4(s, a0_1); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 96u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q2 += measured4(a0_2); y = element4(s, a0_2); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 144u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q3 += measured4(a0_3); y = element4(s, a0_3); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 192u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q4 += measured4(a0_4); y = element4(s, a0_4); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 240u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q5 += measured4(a0_5); y = element4(s, a0_5); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 288u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q6 += measured4(a0_6); y = element4(s, a0_6); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 336u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q7 += measured4(a0_7); y = element4(s, a0_7); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 384u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q8 += measured4(a0_8); y = element4(s, a0_8); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 432u; let s = k + e % 16u * 4u; var y = vec4<f32>(); q9 += measured4(a0_9); y = element4(s, a0_9); tile[0u + e / 16u * 17u + e % 16u] = y; }
{ let e = t + 480u; if e < 512u { let s = k + e % 16u * 4u; var y = vec4<f32>(); q10 += measured4(a0_10); y = element4(s, a0_10); tile[0u + e / 16u * 17u + e % 16u] = y; } }
{ let e = t + 0u; tile[544u + e / 16u * 17u + e % 16u] = b0_0; }
{ let e = t + 48u; tile[544u + e / 16u * 17u + e % 16u] = b0_1; }
{ let e = t + 96u; tile[544u + e / 16u * 17u + e % 16u] = b0_2; }
{ let e = t + 144u; tile[544u + e / 16u * 17u + e % 16u] = b0_3; }
{ let e = t + 192u; tile[544u + e / 16u * 17u + e % 16u] = b0_4; }
{ let e = t + 240u; tile[544u + e / 16u * 17u + e % 16u] = b0_5; }
{ let e = t + 288u; tile[544u + e / 16u * 17u + e % 16u] = b0_6; }
{ let e = t + 336u; tile[544u + e / 16u * 17u + e % 16u] = b0_7; }
workgroupBarrier();
for (var s = 0u; s < 8u; s++) {
let q = slice * 8u + s;
let r0_0 = tile[544u + tx * 17u + q];
let r0_1 = tile[646u + tx * 17u + q];
let r0_2 = tile[748u + tx * 17u + q];
let r0_3 = tile[850u + tx * 17u + q];
let s0_0 = vec4<f32>(r0_0.x, r0_1.x, r0_2.x, r0_3.x);
let s0_1 = vec4<f32>(r0_0.y, r0_1.y, r0_2.y, r0_3.y);
let s0_2 = vec4<f32>(r0_0.z, r0_1.z, r0_2.z, r0_3.z);
let s0_3 = vec4<f32>(r0_0.w, r0_1.w, r0_2.w, r0_3.w);
let a0 = tile[0u + ty * 17u + q];
c0_0 = c0_0 + a0.x * s0_0 + a0.y * s0_1 + a0.z * s0_2 + a0.w * s0_3;
let a1 = tile[68u + ty * 17u + q];
c1_0 = c1_0 + a1.x * s0_0 + a1.y * s0_1 + a1.z * s0_2 + a1.w * s0_3;
let a2 = tile[136u + ty * 17u + q];
c2_0 = c2_0 + a2.x * s0_0 + a2.y * s0_1 + a2.z * s0_2 + a2.w * s0_3;
let a3 = tile[204u + ty * 17u + q];
c3_0 = c3_0 + a3.x * s0_0 + a3.y * s0_1 + a3.z * s0_2 + a3.w * s0_3;
let a4 = tile[272u + ty * 17u + q];
c4_0 = c4_0 + a4.x * s0_0 + a4.y * s0_1 + a4.z * s0_2 + a4.w * s0_3;
let a5 = tile[340u + ty * 17u + q];
c5_0 = c5_0 + a5.x * s0_0 + a5.y * s0_1 + a5.z * s0_2 + a5.w * s0_3;
let a6 = tile[408u + ty * 17u + q];
c6_0 = c6_0 + a6.x * s0_0 + a6.y * s0_1 + a6.z * s0_2 + a6.w * s0_3;
let a7 = tile[476u + ty * 17u + q];
c7_0 = c7_0 + a7.x * s0_0 + a7.y * s0_1 + a7.z * s0_2 + a7.w * s0_3;
}
workgroupBarrier();
}
}
{ let e = t + 0u; tile[e].x = q0; }
{ let e = t + 48u; tile[e].x = q1; }
{ let e = t + 96u; tile[e].x = q2; }
{ let e = t + 144u; tile[e].x = q3; }
{ let e = t + 192u; tile[e].x = q4; }
{ let e = t + 240u; tile[e].x = q5; }
{ let e = t + 288u; tile[e].x = q6; }
{ let e = t + 336u; tile[e].x = q7; }
{ let e = t + 384u; tile[e].x = q8; }
{ let e = t + 432u; tile[e].x = q9; }
{ let e = t + 480u; if e < 512u { tile[e].x = q10; } }
workgroupBarrier();
for (var r = t; r < 32u; r += 48u) {
var sum = 0.0;
for (var g = 0u; g < 16u; g++) { sum += tile[r * 16u + g].x; }
factors[r] = factor(sum);
}
workgroupBarrier();
let cell = slice * 192u + tx;
tile[cell + (0u + ty) * 6u + 0u] = c0_0;
tile[cell + (4u + ty) * 6u + 0u] = c1_0;
tile[cell + (8u + ty) * 6u + 0u] = c2_0;
tile[cell + (12u + ty) * 6u + 0u] = c3_0;
tile[cell + (16u + ty) * 6u + 0u] = c4_0;
tile[cell + (20u + ty) * 6u + 0u] = c5_0;
tile[cell + (24u + ty) * 6u + 0u] = c6_0;
tile[cell + (28u + ty) * 6u + 0u] = c7_0;
workgroupBarrier();
for (var e = t; e < 96u; e += 48u) {
let r = e / 3u;
let g = e % 3u;
var at = r * 6u + g;
var sum = tile[at];
var other = tile[at + 3u];
for (var s = 1u; s < 2u; s++) {
at += 192u;
sum += tile[at];
other += tile[at + 3u];
}
put(out_z, row0 + r, col0 / 2u + g * 4u, sum * factors[r], other * factors[r]);
}
}
