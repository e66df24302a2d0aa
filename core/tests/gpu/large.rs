//! The kernels for large GPUs (large tiles, k shared inside workgroups, a key per thread), run on any device: every operation ×
//! sample against the reference, and sizes that fill tiles against the CPU device.

use super::{devices, near, ramp};
use std::collections::BTreeMap;
use weft::device::Device;
use weft::graph::{Array, Graph, Value};
use weft::ops::{AttentionOptions, Conv2dOptions};
use weft::session::{Compiler, OutputIndex};
use weft::tensor::{DType, Weights};

/// The device as a large one without matrix units.
fn large() -> Device {
    let device = devices::gpu().device;
    let gpu = device.as_gpu().unwrap().limited(|l| {
        if l.software {
            (l.software, l.units) = (false, 132);
        }
    });
    Device::from_gpu(gpu.unwrap())
}

#[test]
fn samples_agree_with_the_reference() {
    let device = large();
    // the operations whose kernels differ by device
    let names = [
        "matmul",
        "conv2d",
        "convolution",
        "conv_transpose2d",
        "attention",
        "attention_grad",
        "paged_attention",
        "softmax",
        "layer_norm",
        "sum",
        "max_over",
    ];
    let mut checked = 0;
    for op in weft::ops::all().filter(|op| names.contains(&op.name())) {
        for (i, sample) in op.samples().iter().enumerate() {
            let g = Graph::new();
            let mut given: BTreeMap<String, Array> = BTreeMap::new();
            let mut inputs = vec![];
            for (n, a) in sample.inputs.iter().enumerate() {
                inputs.push(g.input(&format!("x{n}"), a.ty.dtype, a.ty.shape.clone()));
                given.insert(format!("x{n}"), a.clone());
            }
            g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
            let wanted = &weft::reference::run(&g, &given).unwrap()["y"];
            if wanted.ty.dtype != DType::F32 || wanted.data.iter().any(|v| !v.is_finite()) {
                continue;
            }
            let mut s = Compiler::new(&device).compile(&g).unwrap().init(&Weights::new()).unwrap();
            for (name, a) in &given {
                s.set_input_tensor(name, &a.to_tensor().unwrap()).unwrap();
            }
            s.step().unwrap();
            let wanted: Vec<f32> = wanted.data.iter().map(|&v| v as f32).collect();
            println!("{} {i}", op.name());
            near(&s.read_output::<f32>(OutputIndex(0)).unwrap(), &wanted, 1e-5);
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} samples");
}

/// Runs a graph of f32 inputs on both and compares.
fn both(device: &Device, name: &str, build: impl Fn(&Graph) -> Value, tolerance: f32) {
    let run = |device: &Device| {
        let g = Graph::new();
        g.output("y", build(&g));
        let compiled = Compiler::new(device).compile(&g).unwrap();
        let mut s = compiled.init_zeros().unwrap();
        for (n, port) in compiled.inputs().iter().enumerate() {
            let count = port.shape.iter().product::<usize>();
            s.set_input(&port.name, &ramp(count + n, 1.0)[n..]).unwrap();
        }
        s.step().unwrap();
        s.read_output::<f32>(OutputIndex(0)).unwrap()
    };
    println!("{name}");
    near(&run(device), &run(&Device::cpu(2)), tolerance);
}

#[test]
fn sizes_that_fill_tiles_agree_with_the_cpu() {
    let device = large();
    let input = |g: &Graph, name: &str, shape: &[usize]| g.input(name, DType::F32, shape.to_vec());
    for [m, n, k] in
        [[128, 192, 96], [130, 70, 65], [512, 384, 64], [1, 512, 256], [4, 300, 129], [576, 512, 128]]
    {
        both(
            &device,
            &format!("matmul {m} {n} {k}"),
            |g| {
                let y = g.matmul_with(input(g, "a", &[m, k]), input(g, "b", &[n, k]), false, true);
                g.relu(g.add(y, input(g, "c", &[n])))
            },
            2e-5,
        );
        both(
            &device,
            &format!("transposed {m} {n} {k}"),
            |g| g.matmul_with(input(g, "a", &[k, m]), input(g, "b", &[k, n]), true, false),
            2e-5,
        );
    }
    for [b, h, kv, l, s, d] in
        [[1, 9, 3, 1, 256, 64], [2, 4, 4, 1, 130, 32], [1, 4, 2, 3, 515, 80], [1, 9, 3, 128, 128, 64]]
    {
        both(
            &device,
            &format!("attention {l} × {s}"),
            |g| {
                let (q, k) = (input(g, "q", &[b, h, l, d]), input(g, "k", &[b, kv, s, d]));
                g.attention(
                    q,
                    k,
                    input(g, "v", &[b, kv, s, d]),
                    None,
                    AttentionOptions::new(0.125).causal(true),
                )
            },
            2e-5,
        );
    }
    both(
        &device,
        "image",
        |g| {
            let y = g.conv2d(
                input(g, "x", &[4, 16, 20, 24]),
                input(g, "w", &[32, 16, 3, 3]),
                None,
                Conv2dOptions::new().padding([1, 1]),
            );
            g.relu(y)
        },
        2e-5,
    );
    both(&device, "long rows", |g| g.softmax(input(g, "x", &[3, 5000]), -1), 2e-5);
    both(&device, "a long sum", |g| g.sum(input(g, "x", &[300_000]), &[0], false), 2e-5);
    both(&device, "columns", |g| g.sum(input(g, "x", &[3000, 70]), &[0], false), 2e-5);
    both(&device, "row norms", |g| g.rms_norm(input(g, "x", &[700, 576]), input(g, "w", &[576]), 1e-5), 2e-5);
    both(&device, "transposed pointwise", |g| g.exp(g.permute(input(g, "x", &[200, 333]), &[1, 0])), 2e-5);
}

#[test]
fn block_formats_are_widened_where_they_are_used() {
    use weft::tensor::{Bytes, Tensor, TensorType, quantise_blocks};
    for dtype in [DType::Q8, DType::Q4] {
        for device in [devices::gpu().device, large()] {
            let run = |device: &Device| {
                let g = Graph::new();
                let w = g.parameter_of("w", TensorType::new(dtype, [48, 64]), false);
                let wide = g.dequantise(w);
                let y = g.matmul_with(g.input("x", DType::F32, [5, 64]), wide, false, true);
                g.output("y", g.add(y, g.sum(wide, &[1], false)));
                let packed = quantise_blocks(dtype, &ramp(48 * 64, 0.7)).unwrap();
                let packed = Tensor::from_bytes(dtype, [48, 64], Bytes::from_vec(packed)).unwrap();
                let weights: Weights = [("w".to_string(), packed)].into_iter().collect();
                let mut s = Compiler::new(device).compile(&g).unwrap().init(&weights).unwrap();
                s.set_input("x", &ramp(5 * 64, 1.0)).unwrap();
                s.step().unwrap();
                (s.read_output::<f32>(OutputIndex(0)).unwrap(), s.dispatches())
            };
            let (came, dispatches) = run(&device);
            near(&came, &run(&Device::cpu(1)).0, 1e-5);
            assert!(dispatches <= 2, "{dtype}: {dispatches} dispatches: it was stored widened");
        }
    }
}

#[test]
fn grids_past_the_limit_of_a_dimension_reach_every_element() {
    // an odd number, so that an element a thread is the only way
    let n = 65_535 * 256 + 1_001;
    let g = Graph::new();
    g.output("y", g.add(g.input("x", DType::F32, [n]), g.scalar(1.0, DType::F32)));
    let mut s = Compiler::new(&devices::gpu().device).compile(&g).unwrap().init_zeros().unwrap();
    let x: Vec<f32> = (0..n).map(|i| (i % 4096) as f32).collect();
    s.set_input("x", &x).unwrap();
    s.step().unwrap();
    let y = s.read_output::<f32>(OutputIndex(0)).unwrap();
    assert_eq!(x.iter().zip(&y).position(|(x, y)| x + 1.0 != *y), None);
}
