var<storage, read> b0: array<f32>;
var<storage, read> b1: array<vec4<f32>>;
var<storage, read> b2: array<f32>;
var<storage, read> b3: array<vec4<f32>>;
var<storage, read> b4: array<f32>;
var<storage, read_write> b5: array<f32>;
var<storage, read> b6: array<vec4<f32>>;
var<storage, read_write> b7: array<vec4<f32>>;
fn bits(b: u32) -> f32 { return bitcast<f32>(b); }
fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn plus_whole(t: f32) -> f32 { return bits(bitcast<u32>(t + 12582912.0f) | 0x40000000u); }
fn ndtr_of(x: f32) -> f32 {
    let a = min(abs(x), 14.5f);
    let z = a * a;
    let near = 0.5f + x * (0.3989423f + z * (-0.06649033f + z * (0.009973171f + z * (-0.0011859847f
        + z * (1.1314364e-4f - z * 7.5303033e-6f)))));
    let h = bits(bitcast<u32>(a) & 0xfffff000u);
    let square = h * h;
    let k = plus_whole(square * -0.72134752f);
    let n = k - 12582912.0f;
    let r = ((-0.5f * square - n * 0.693359375f) + n * 2.12194440e-4f) - 0.5f * (a - h) * (a + h);
    let q = 0.49999994f + r * (0.16666521f + r * (0.04166839f + r * (0.008368745f + r * 0.001381454f)));
    let d = a + 1.75f;
    let inverse = 1.0f / d;
    let u = (a - 3.0f) * inverse;
    let p = 0.57719123f + u * (-0.19896859f + u * (0.0061719553f + u * (0.016419755f + u * (5.3425867e-4f
        + u * (-0.002197429f + u * (-5.902299e-4f + u * (2.32093e-4f + u * 1.5472545e-4f)))))));
    let guess = p * inverse;
    let g = r + r * r * q;
    let tail = guess + (guess * g + (inverse + inverse * g) * (p - d * guess));
    // from 12.9 on the result may be subnormal: by way of a number 2⁶⁴ times as large
    let far = a > 12.9f;
    let y = bits(bitcast<u32>(tail) + ((bitcast<u32>(k) + select(0u, 64u, far)) << 23u));
    let below = select(y, y * 5.421010862427522e-20f, far);
    return select(select(select(below, 1.0f - below, x > 0.0f), near, a < 1.0f), x, is_nan(x));
}
fn load_a(z: u32, row: u32, k: u32) -> f32 {
let z0 = z;
let at = row * 96u + k;
return b0[at];
}
fn load_a4(z: u32, row: u32, k: u32) -> vec4<f32> {
let z0 = z;
let at = row * 96u + k;
return b1[(at) >> 2u];
}
fn load_b(z: u32, k: u32, col: u32) -> f32 {
let z0 = z;
let at = k + col * 96u;
return b2[at];
}
fn load_b4(z: u32, k: u32, col: u32) -> vec4<f32> {
let z0 = z;
let at = k + col * 96u;
return b3[(at) >> 2u];
}
fn finished(outer: u32, col: u32, at: u32, v: f32) {
let e0 = outer;
let a0 = col;
let x0 = b4[a0];
let r0 = v;
let r1 = x0;
let r2 = r0 + r1;
let r3 = ndtr_of(r2);
let r4 = r2 * r3;
b5[at] = r4;
}
fn finished4(outer: u32, col: u32, at: u32, v: vec4<f32>) {
let e0 = outer;
let a0 = col;
let x0 = b6[(a0) >> 2u];
var y: vec4<f32>;
{
let r0 = v.x;
let r1 = x0.x;
let r2 = r0 + r1;
let r3 = ndtr_of(r2);
let r4 = r2 * r3;
y.x = r4;
}
{
let r0 = v.y;
let r1 = x0.y;
let r2 = r0 + r1;
let r3 = ndtr_of(r2);
let r4 = r2 * r3;
y.y = r4;
}
{
let r0 = v.z;
let r1 = x0.z;
let r2 = r0 + r1;
let r3 = ndtr_of(r2);
let r4 = r2 * r3;
y.z = r4;
}
{
let r0 = v.w;
let r1 = x0.w;
let r2 = r0 + r1;
let r3 = ndtr_of(r2);
let r4 = r2 * r3;
y.w = r4;
}
b7[(at) >> 2u] = y;
}
fn store(z: u32, row: u32, col: u32, v: f32) {
let z0 = z;
let at = row * 128u + col;
finished(z * 64u + row, col, at, v);
}
fn store4(z: u32, row: u32, col: u32, v: vec4<f32>) {
let z0 = z;
let at = row * 128u + col;
finished4(z * 64u + row, col, at, v);
}
var<workgroup> tile: array<vec4<f32>, 832>;
fn fetch_a(z: u32, row: u32, k: u32) -> vec4<f32> {
return load_a4(z, row, k);
}
fn fetch_b(z: u32, k: u32, col: u32) -> vec4<f32> {
return load_b4(z, k, col);
}
fn put(z: u32, row: u32, col: u32, v: vec4<f32>) {
store4(z, row, col, v);
}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3<u32>, @builtin(local_invocation_index) t: u32) {
let id = wg.x;
let out_z = 0u;
let z = 0u;
let k0 = 0u;
let row0 = id % 2u * 32u;
let col0 = id / 2u * 32u;

let slice = t / 32u;
let tx = (t % 32u) % 8u;
let ty = (t % 32u) / 8u;
var c0_0 = vec4<f32>();
var c1_0 = vec4<f32>();
var c2_0 = vec4<f32>();
var c3_0 = vec4<f32>();
var c4_0 = vec4<f32>();
var c5_0 = vec4<f32>();
var c6_0 = vec4<f32>();
var c7_0 = vec4<f32>();
var a0_0: vec4<f32>;
var a0_1: vec4<f32>;
var a0_2: vec4<f32>;
var a0_3: vec4<f32>;
var a0_4: vec4<f32>;
var a0_5: vec4<f32>;
var a1_0: vec4<f32>;
var a1_1: vec4<f32>;
var a1_2: vec4<f32>;
var a1_3: vec4<f32>;
var a1_4: vec4<f32>;
var a1_5: vec4<f32>;
var b0_0: vec4<f32>;
var b0_1: vec4<f32>;
var b0_2: vec4<f32>;
var b0_3: vec4<f32>;
var b0_4: vec4<f32>;
var b0_5: vec4<f32>;
var b1_0: vec4<f32>;
var b1_1: vec4<f32>;
var b1_2: vec4<f32>;
var b1_3: vec4<f32>;
var b1_4: vec4<f32>;
var b1_5: vec4<f32>;
{ let e = t + 0u; a0_0 = fetch_a(z, row0 + e / 12u, k0 + 0u + e % 12u * 4u); }
{ let e = t + 64u; a0_1 = fetch_a(z, row0 + e / 12u, k0 + 0u + e % 12u * 4u); }
{ let e = t + 128u; a0_2 = fetch_a(z, row0 + e / 12u, k0 + 0u + e % 12u * 4u); }
{ let e = t + 192u; a0_3 = fetch_a(z, row0 + e / 12u, k0 + 0u + e % 12u * 4u); }
{ let e = t + 256u; a0_4 = fetch_a(z, row0 + e / 12u, k0 + 0u + e % 12u * 4u); }
{ let e = t + 320u; a0_5 = fetch_a(z, row0 + e / 12u, k0 + 0u + e % 12u * 4u); }
{ let e = t + 0u; b0_0 = fetch_b(z, k0 + 0u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 64u; b0_1 = fetch_b(z, k0 + 0u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 128u; b0_2 = fetch_b(z, k0 + 0u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 192u; b0_3 = fetch_b(z, k0 + 0u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 256u; b0_4 = fetch_b(z, k0 + 0u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 320u; b0_5 = fetch_b(z, k0 + 0u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 0u; a1_0 = fetch_a(z, row0 + e / 12u, k0 + 48u + e % 12u * 4u); }
{ let e = t + 64u; a1_1 = fetch_a(z, row0 + e / 12u, k0 + 48u + e % 12u * 4u); }
{ let e = t + 128u; a1_2 = fetch_a(z, row0 + e / 12u, k0 + 48u + e % 12u * 4u); }
{ let e = t + 192u; a1_3 = fetch_a(z, row0 + e / 12u, k0 + 48u + e % 12u * 4u); }
{ let e = t + 256u; a1_4 = fetch_a(z, row0 + e / 12u, k0 + 48u + e % 12u * 4u); }
{ let e = t + 320u; a1_5 = fetch_a(z, row0 + e / 12u, k0 + 48u + e % 12u * 4u); }
{ let e = t + 0u; b1_0 = fetch_b(z, k0 + 48u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 64u; b1_1 = fetch_b(z, k0 + 48u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 128u; b1_2 = fetch_b(z, k0 + 48u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 192u; b1_3 = fetch_b(z, k0 + 48u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 256u; b1_4 = fetch_b(z, k0 + 48u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
{ let e = t + 320u; b1_5 = fetch_b(z, k0 + 48u + e % 12u * 4u, col0 + e / 12u % 8u * 4u + e / 96u); }
for (var i = 0u; i < 1u; i++) {
{
let n = i * 2u + 0u;
let k = k0 + n * 48u;
{ let e = t + 0u; tile[0u + e / 12u * 13u + e % 12u] = a0_0; }
{ let e = t + 64u; tile[0u + e / 12u * 13u + e % 12u] = a0_1; }
{ let e = t + 128u; tile[0u + e / 12u * 13u + e % 12u] = a0_2; }
{ let e = t + 192u; tile[0u + e / 12u * 13u + e % 12u] = a0_3; }
{ let e = t + 256u; tile[0u + e / 12u * 13u + e % 12u] = a0_4; }
{ let e = t + 320u; tile[0u + e / 12u * 13u + e % 12u] = a0_5; }
{ let e = t + 0u; tile[416u + e / 12u * 13u + e % 12u] = b0_0; }
{ let e = t + 64u; tile[416u + e / 12u * 13u + e % 12u] = b0_1; }
{ let e = t + 128u; tile[416u + e / 12u * 13u + e % 12u] = b0_2; }
{ let e = t + 192u; tile[416u + e / 12u * 13u + e % 12u] = b0_3; }
{ let e = t + 256u; tile[416u + e / 12u * 13u + e % 12u] = b0_4; }
{ let e = t + 320u; tile[416u + e / 12u * 13u + e % 12u] = b0_5; }
workgroupBarrier();
for (var s = 0u; s < 6u; s++) {
let q = slice * 6u + s;
let r0_0 = tile[416u + tx * 13u + q];
let r0_1 = tile[520u + tx * 13u + q];
let r0_2 = tile[624u + tx * 13u + q];
let r0_3 = tile[728u + tx * 13u + q];
let s0_0 = vec4<f32>(r0_0.x, r0_1.x, r0_2.x, r0_3.x);
let s0_1 = vec4<f32>(r0_0.y, r0_1.y, r0_2.y, r0_3.y);
let s0_2 = vec4<f32>(r0_0.z, r0_1.z, r0_2.z, r0_3.z);
let s0_3 = vec4<f32>(r0_0.w, r0_1.w, r0_2.w, r0_3.w);
let a0 = tile[0u + ty * 13u + q];
c0_0 = c0_0 + a0.x * s0_0 + a0.y * s0_1 + a0.z * s0_2 + a0.w * s0_3;
let a1 = tile[52u + ty * 13u + q];
c1_0 = c1_0 + a1.x * s0_0 + a1.y * s0_1 + a1.z * s0_2 + a1.w * s0_3;
let a2 = tile[104u + ty * 13u + q];
c2_0 = c2_0 + a2.x * s0_0 + a2.y * s0_1 + a2.z * s0_2 + a2.w * s0_3;
let a3 = tile[156u + ty * 13u + q];
c3_0 = c3_0 + a3.x * s0_0 + a3.y * s0_1 + a3.z * s0_2 + a3.w * s0_3;
let a4 = tile[208u + ty * 13u + q];
c4_0 = c4_0 + a4.x * s0_0 + a4.y * s0_1 + a4.z * s0_2 + a4.w * s0_3;
let a5 = tile[260u + ty * 13u + q];
c5_0 = c5_0 + a5.x * s0_0 + a5.y * s0_1 + a5.z * s0_2 + a5.w * s0_3;
let a6 = tile[312u + ty * 13u + q];
c6_0 = c6_0 + a6.x * s0_0 + a6.y * s0_1 + a6.z * s0_2 + a6.w * s0_3;
let a7 = tile[364u + ty * 13u + q];
c7_0 = c7_0 + a7.x * s0_0 + a7.y * s0_1 + a7.z * s0_2 + a7.w * s0_3;
}
workgroupBarrier();
}
{
let n = i * 2u + 1u;
let k = k0 + n * 48u;
{ let e = t + 0u; tile[0u + e / 12u * 13u + e % 12u] = a1_0; }
{ let e = t + 64u; tile[0u + e / 12u * 13u + e % 12u] = a1_1; }
{ let e = t + 128u; tile[0u + e / 12u * 13u + e % 12u] = a1_2; }
{ let e = t + 192u; tile[0u + e / 12u * 13u + e % 12u] = a1_3; }
{ let e = t + 256u; tile[0u + e / 12u * 13u + e % 12u] = a1_4; }
{ let e = t + 320u; tile[0u + e / 12u * 13u + e % 12u] = a1_5; }
{ let e = t + 0u; tile[416u + e / 12u * 13u + e % 12u] = b1_0; }
{ let e = t + 64u; tile[416u + e / 12u * 13u + e % 12u] = b1_1; }
{ let e = t + 128u; tile[416u + e / 12u * 13u + e % 12u] = b1_2; }
{ let e = t + 192u; tile[416u + e / 12u * 13u + e % 12u] = b1_3; }
{ let e = t + 256u; tile[416u + e / 12u * 13u + e % 12u] = b1_4; }
{ let e = t + 320u; tile[416u + e / 12u * 13u + e % 12u] = b1_5; }
workgroupBarrier();
for (var s = 0u; s < 6u; s++) {
let q = slice * 6u + s;
let r0_0 = tile[416u + tx * 13u + q];
let r0_1 = tile[520u + tx * 13u + q];
let r0_2 = tile[624u + tx * 13u + q];
let r0_3 = tile[728u + tx * 13u + q];
let s0_0 = vec4<f32>(r0_0.x, r0_1.x, r0_2.x, r0_3.x);
let s0_1 = vec4<f32>(r0_0.y, r0_1.y, r0_2.y, r0_3.y);
let s0_2 = vec4<f32>(r0_0.z, r0_1.z, r0_2.z, r0_3.z);
let s0_3 = vec4<f32>(r0_0.w, r0_1.w, r0_2.w, r0_3.w);
let a0 = tile[0u + ty * 13u + q];
c0_0 = c0_0 + a0.x * s0_0 + a0.y * s0_1 + a0.z * s0_2 + a0.w * s0_3;
let a1 = tile[52u + ty * 13u + q];
c1_0 = c1_0 + a1.x * s0_0 + a1.y * s0_1 + a1.z * s0_2 + a1.w * s0_3;
let a2 = tile[104u + ty * 13u + q];
c2_0 = c2_0 + a2.x * s0_0 + a2.y * s0_1 + a2.z * s0_2 + a2.w * s0_3;
let a3 = tile[156u + ty * 13u + q];
c3_0 = c3_0 + a3.x * s0_0 + a3.y * s0_1 + a3.z * s0_2 + a3.w * s0_3;
let a4 = tile[208u + ty * 13u + q];
c4_0 = c4_0 + a4.x * s0_0 + a4.y * s0_1 + a4.z * s0_2 + a4.w * s0_3;
let a5 = tile[260u + ty * 13u + q];
c5_0 = c5_0 + a5.x * s0_0 + a5.y * s0_1 + a5.z * s0_2 + a5.w * s0_3;
let a6 = tile[312u + ty * 13u + q];
c6_0 = c6_0 + a6.x * s0_0 + a6.y * s0_1 + a6.z * s0_2 + a6.w * s0_3;
let a7 = tile[364u + ty * 13u + q];
c7_0 = c7_0 + a7.x * s0_0 + a7.y * s0_1 + a7.z * s0_2 + a7.w * s0_3;
}
workgroupBarrier();
}
}
let cell = slice * 256u + tx;
tile[cell + (0u + ty) * 8u + 0u] = c0_0;
tile[cell + (4u + ty) * 8u + 0u] = c1_0;
tile[cell + (8u + ty) * 8u + 0u] = c2_0;
tile[cell + (12u + ty) * 8u + 0u] = c3_0;
tile[cell + (16u + ty) * 8u + 0u] = c4_0;
tile[cell + (20u + ty) * 8u + 0u] = c5_0;
tile[cell + (24u + ty) * 8u + 0u] = c6_0;
tile[cell + (28u + ty) * 8u + 0u] = c7_0;
workgroupBarrier();
for (var e = t; e < 256u; e += 64u) {
var sum = tile[e];
for (var s = 1u; s < 2u; s++) { sum += tile[s * 256u + e]; }
put(out_z, row0 + e / 8u, col0 + e % 8u * 4u, sum);
}
}
