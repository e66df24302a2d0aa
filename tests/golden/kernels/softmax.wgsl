var<storage, read> b0: array<vec4<f32>>;
var<storage, read_write> b1: array<vec4<f32>>;
fn bits(b: u32) -> f32 { return bitcast<f32>(b); }
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn greater(a: f32, b: f32) -> f32 {
    if (is_nan(a)) { return a; }
    return select(select(a, b, b > a), b, is_nan(b));
}
fn plus_whole(t: f32) -> f32 { return bits(bitcast<u32>(t + 12582912.0f) | 0x40000000u); }
fn exp_near(x: f32) -> f32 {
    let k = plus_whole(x * 1.44269504f);
    let n = k - 12582912.0f;
    let r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    return bits(bitcast<u32>(1.0f + (r + r * r * q)) + (bitcast<u32>(k) << 23u));
}
fn exp_of(x: f32) -> f32 {
    if ((bitcast<u32>(x) & 0x7fffffffu) <= 0x42ae0000u) { return exp_near(x); }
    if (is_nan(x)) { return x; }
    let y = exp_near(0.5f * clamp(x, -170.0f, 170.0f));
    return y * y;
}
fn as_stored(x: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | select(0u, 0x400000u, is_nan(x)));
}
fn div_of(a: f32, b: f32) -> f32 {
    let mb = bitcast<u32>(b) & 0x7fffffffu;
    if (mb - 0x00800000u <= 0x7e000000u) { return a / b; }
    let ma = bitcast<u32>(a) & 0x7fffffffu;
    let sign = (bitcast<u32>(a) ^ bitcast<u32>(b)) & 0x80000000u;
    if (ma > 0x7f800000u || mb > 0x7f800000u || (ma == mb && (mb == 0u || mb == 0x7f800000u))) { return bits(0x7fc00000u); }
    if (mb == 0x7f800000u || ma == 0u) { return bits(sign); }
    if (mb == 0u || ma == 0x7f800000u) { return bits(sign | 0x7f800000u); }
    let tiny = mb < 0x00800000u;
    let scale = select(2.3283064365386963e-10f, 8388608.0f, tiny);
    let d = select(bits(mb) * 2.3283064365386963e-10f, f32(mb) * 1.1754943508222875e-38f, tiny);
    return bits(bitcast<u32>(as_stored(bits(ma) / d) * scale) | sign);
}
var<workgroup> s0: array<f32, 128>;
var<workgroup> s1: array<f32, 128>;
@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
let group = wid.x;
let part = lid % 128u;
let place = group * 1u + lid / 128u;
let live = place < 64u;
let row = min(place, 63u);
let k0 = row;
let a0 = k0 * 1000u;
let at = k0 * 1000u;
var acc0: f32 = bits(4286578688u);
for (var j = part * 4u; j < 1000u; j += 512u) {
let j0 = j;
let x0 = b0[((a0 + j0)) >> 2u];
{
let r0 = x0.x;
acc0 = greater(acc0, r0);
}
{
let r0 = x0.y;
acc0 = greater(acc0, r0);
}
{
let r0 = x0.z;
acc0 = greater(acc0, r0);
}
{
let r0 = x0.w;
acc0 = greater(acc0, r0);
}
}
s0[lid] = acc0;
workgroupBarrier();
if (part < 64u) {
s0[lid] = greater(s0[lid], s0[lid + 64u]);
}
workgroupBarrier();
if (part < 32u) {
s0[lid] = greater(s0[lid], s0[lid + 32u]);
}
workgroupBarrier();
if (part < 16u) {
s0[lid] = greater(s0[lid], s0[lid + 16u]);
}
workgroupBarrier();
if (part < 8u) {
s0[lid] = greater(s0[lid], s0[lid + 8u]);
}
workgroupBarrier();
if (part < 4u) {
s0[lid] = greater(s0[lid], s0[lid + 4u]);
}
workgroupBarrier();
if (part < 2u) {
s0[lid] = greater(s0[lid], s0[lid + 2u]);
}
workgroupBarrier();
if (part < 1u) {
s0[lid] = greater(s0[lid], s0[lid + 1u]);
}
workgroupBarrier();
let red0 = s0[0u];
var acc1: f32 = 0.0f;
let r1 = red0;
for (var j = part * 4u; j < 1000u; j += 512u) {
let j0 = j;
let x0 = b0[((a0 + j0)) >> 2u];
{
let r0 = x0.x;
let r2 = r0 - r1;
let r3 = exp_of(r2);
acc1 = acc1 + r3;
}
{
let r0 = x0.y;
let r2 = r0 - r1;
let r3 = exp_of(r2);
acc1 = acc1 + r3;
}
{
let r0 = x0.z;
let r2 = r0 - r1;
let r3 = exp_of(r2);
acc1 = acc1 + r3;
}
{
let r0 = x0.w;
let r2 = r0 - r1;
let r3 = exp_of(r2);
acc1 = acc1 + r3;
}
}
s1[lid] = acc1;
workgroupBarrier();
if (part < 64u) {
s1[lid] = s1[lid] + s1[lid + 64u];
}
workgroupBarrier();
if (part < 32u) {
s1[lid] = s1[lid] + s1[lid + 32u];
}
workgroupBarrier();
if (part < 16u) {
s1[lid] = s1[lid] + s1[lid + 16u];
}
workgroupBarrier();
if (part < 8u) {
s1[lid] = s1[lid] + s1[lid + 8u];
}
workgroupBarrier();
if (part < 4u) {
s1[lid] = s1[lid] + s1[lid + 4u];
}
workgroupBarrier();
if (part < 2u) {
s1[lid] = s1[lid] + s1[lid + 2u];
}
workgroupBarrier();
if (part < 1u) {
s1[lid] = s1[lid] + s1[lid + 1u];
}
workgroupBarrier();
let red1 = s1[0u];
let r4 = red1;
if (live) {
for (var j = part * 4u; j < 1000u; j += 512u) {
let j0 = j;
let x0 = b0[((a0 + j0)) >> 2u];
var y: vec4<f32>;
{
let r0 = x0.x;
let r2 = r0 - r1;
let r3 = exp_of(r2);
let r5 = div_of(r3, r4);
y.x = r5;
}
{
let r0 = x0.y;
let r2 = r0 - r1;
let r3 = exp_of(r2);
let r5 = div_of(r3, r4);
y.y = r5;
}
{
let r0 = x0.z;
let r2 = r0 - r1;
let r3 = exp_of(r2);
let r5 = div_of(r3, r4);
y.z = r5;
}
{
let r0 = x0.w;
let r2 = r0 - r1;
let r3 = exp_of(r2);
let r5 = div_of(r3, r4);
y.w = r5;
}
b1[((at + j0)) >> 2u] = y;}
}

}
