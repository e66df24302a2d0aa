//! Buffers bound in pieces; buffers shared with a host application.

use super::{devices, near, ramp, small, small_wanted};
use weft::device::Device;
use weft::device::gpu::Gpu;
use weft::error::Error;
use weft::graph::Graph;
use weft::models::mlp;
use weft::session::{Compiler, Optimizer, OutputIndex};
use weft::tensor::{DType, Tensor, TensorType};

#[test]
fn what_is_longer_than_a_binding_is_held_in_pieces() {
    let whole = devices::gpu().device;
    let pieces = Device::from_gpu(whole.as_gpu().unwrap().limited(|l| l.binding = 8192).unwrap());
    // 96 × 80 f32 weights are 30,720 bytes; logits of 48 × 96 are 18,432
    let run = |device: &Device| {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [48, 80]);
        let labels = g.input("labels", DType::U32, [48]);
        let half = g.parameter_of("half", TensorType::new(DType::F16, [80, 80]), false);
        let h = g.matmul(x, half);
        let y = mlp(&g, h, &[80, 96]);
        g.output("logits", g.permute(y, &[1, 0]));
        g.set_loss(g.cross_entropy(y, labels, Default::default()));
        let mut s = Compiler::new(device)
            .compile_training(&g)
            .unwrap()
            .init(
                &[
                    ("half".to_string(), f16_tensor(&[80, 80])),
                    ("layers.0.weight".to_string(), Tensor::from_vec([96, 80], ramp(7680, 0.3)).unwrap()),
                    ("layers.0.bias".to_string(), Tensor::from_vec([96], ramp(96, 0.1)).unwrap()),
                ]
                .into_iter()
                .collect(),
            )
            .unwrap();
        s.set_optimizer(Optimizer::adam(0.01)).unwrap();
        s.set_input("x", &ramp(48 * 80, 1.0)).unwrap();
        s.set_input::<u32>("labels", &(0..48).map(|i| i % 96).collect::<Vec<_>>()).unwrap();
        for _ in 0..3 {
            s.step().unwrap();
        }
        (
            s.read_output::<f32>("logits").unwrap(),
            s.loss().unwrap(),
            s.read_parameter::<f32>("layers.0.weight").unwrap(),
        )
    };
    let (a, b, c) = (run(&Device::cpu(1)), run(&whole), run(&pieces));
    near(&b.0, &a.0, 1e-4);
    near(&c.0, &b.0, 1e-6);
    assert!((b.1 - a.1).abs() < 1e-4 && (c.1 - b.1).abs() < 1e-6);
    near(&c.2, &b.2, 1e-6);
}

fn f16_tensor(shape: &[usize]) -> Tensor<'static> {
    let values = ramp(shape.iter().product(), 0.2);
    let bytes: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    Tensor::from_bytes(DType::F16, shape, weft::tensor::Bytes::from_vec(bytes)).unwrap()
}

#[test]
fn a_host_application_shares_its_context_and_buffers() {
    // the application's side: its own context, its own buffers
    let context = devices::gpu().device.as_gpu().unwrap().blade();
    let gpu = Gpu::sharing(context.clone()).unwrap();
    let device = Device::from_gpu(gpu);
    let mut producer = small(&device, 16);
    producer.step().unwrap();
    producer.wait().unwrap();
    // one session's output is another's input, without a copy by the host
    let out = producer.shared_output("y").unwrap();
    assert!(out.bytes >= 16);
    let g = Graph::new();
    g.output("twice", g.mul(g.input("y", DType::F32, [4]), g.scalar(2.0, DType::F32)));
    let mut consumer = Compiler::new(&device).compile(&g).unwrap().init_zeros().unwrap();
    assert!(matches!(consumer.step(), Err(Error::InputNotSet { .. })));
    consumer.adopt_buffer("y", out).unwrap();
    for scale in [1.0f32, 0.25] {
        producer.set_input("x", &ramp(16 * 8, scale)).unwrap();
        producer.step().unwrap();
        consumer.step().unwrap();
        let wanted: Vec<f32> =
            producer.read_output::<f32>(OutputIndex(0)).unwrap().iter().map(|v| 2.0 * v).collect();
        near(&consumer.read_output::<f32>(OutputIndex(0)).unwrap(), &wanted, 1e-6);
    }
    let short = weft::device::gpu::Foreign { bytes: 8, ..out };
    assert!(matches!(consumer.adopt_buffer("y", short), Err(Error::Length { .. })));
    assert!(matches!(small(&Device::cpu(1), 2).shared_output("y"), Err(Error::Device { .. })));
    assert_eq!(small_wanted(16).len(), 4);
}
