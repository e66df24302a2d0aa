//! The GPU device: training, errors of data and of drivers, several sessions, memory, sharing.

#[cfg(target_os = "linux")]
#[path = "../addresses/mod.rs"]
mod addresses;
mod attention;
#[path = "../devices/mod.rs"]
mod devices;
mod faults;
mod large;
mod process;
mod sharing;
mod together;
mod training;

use weft::device::Device;
use weft::graph::Graph;
use weft::session::{Compiler, Session};
use weft::tensor::DType;

/// The GPU by itself: what is done to it does not reach other tests.
fn own_gpu() -> Device {
    let shared = devices::gpu().device;
    let gpu = shared.as_gpu().expect("a GPU").limited(|_| {}).unwrap();
    Device::from_gpu(gpu)
}

fn ramp(n: usize, scale: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1000) as f32 / 500.0 - 1.0) * scale).collect()
}

/// y = tanh(x · w) summed over rows, with a weight that is not zero.
fn small(device: &Device, rows: usize) -> Session {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [rows, 8]);
    let w = g.parameter("w", [8, 4]);
    g.output("y", g.sum(g.tanh(g.matmul(x, w)), &[0], false));
    let mut s = Compiler::new(device).compile(&g).unwrap().init_zeros().unwrap();
    s.set_parameter("w", &ramp(32, 0.5)).unwrap();
    s.set_input("x", &ramp(rows * 8, 1.0)).unwrap();
    s
}

fn small_wanted(rows: usize) -> Vec<f32> {
    let (x, w) = (ramp(rows * 8, 1.0), ramp(32, 0.5));
    let y = |r: usize, c: usize| {
        (0..8).map(|k| f64::from(x[r * 8 + k]) * f64::from(w[k * 4 + c])).sum::<f64>().tanh()
    };
    (0..4).map(|c| (0..rows).map(|r| y(r, c)).sum::<f64>() as f32).collect()
}

fn near(came: &[f32], wanted: &[f32], tolerance: f32) {
    assert_eq!(came.len(), wanted.len());
    let largest = wanted.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
    for (i, (a, b)) in came.iter().zip(wanted).enumerate() {
        assert!((a - b).abs() <= tolerance * largest, "[{i}] = {a}, wanted {b}");
    }
}
