//! Any bytes behind a good head: an error, or an artifact that writes back to the same bytes and whose graphs run.
#![no_main]

use sha2::{Digest, Sha256};
use std::sync::OnceLock;
use weft::device::Device;
use weft::internals::plan::{FORMAT, Plan, Work};
use weft::session::Artifact;

/// Head, length and hash as the file form wants them, so that what lies behind is what is tested.
fn with_head(bytes: &[u8]) -> Vec<u8> {
    let mut all = bytes.to_vec();
    all.resize(all.len().max(64), 0);
    all[..64].fill(0);
    all[..8].copy_from_slice(b"\x93WEFT\r\n\x1a");
    all[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    let length = all.len() as u64;
    all[12..20].copy_from_slice(&length.to_le_bytes());
    let mut hasher = Sha256::new();
    hasher.update((length - 64).to_le_bytes());
    hasher.update(&all[64..]);
    all[20..52].copy_from_slice(&hasher.finalize());
    all
}

/// Whether a step of the plan takes a moment.
fn quick(plan: &Plan) -> bool {
    let work = |w: &Work| match w {
        Work::Rowwise(w) => w.domain.iter().map(|n| *n as f64).product(),
        Work::Product(w) => (w.m * w.n) as f64 * w.k as f64,
        Work::Attention(w) => (w.inputs.b * w.inputs.h * w.inputs.l) as f64 * (w.inputs.s * w.inputs.d) as f64,
        Work::Index(w) => w.indices_shape.iter().chain(&w.table_shape).map(|n| *n as f64).product(),
        Work::Convolution(_) | Work::Pool(_) => f64::INFINITY,
        _ => 0.0,
    };
    plan.init_steps.iter().chain(&plan.steps).all(|s| work(&s.work) < 1e6)
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static CPU: OnceLock<Device> = OnceLock::new();
    let cpu = CPU.get_or_init(|| Device::cpu(1));
    let bytes = with_head(bytes);
    let artifact = match Artifact::from_bytes(cpu, bytes) {
        Ok(artifact) => artifact,
        Err(e) => return assert!(e.code() == 403 && !e.to_string().is_empty(), "{e}"),
    };
    let written = artifact.to_bytes().expect("what was read can be written");
    let again = Artifact::from_bytes(cpu, written.clone()).expect("what we write can be read");
    assert_eq!(again.to_bytes().expect("again"), written);
    for name in artifact.names() {
        let compiled = artifact.get(name).expect("a graph of that name");
        if compiled.memory_summary().total_bytes < 1 << 22 && quick(compiled.plan()) {
            let Ok(mut session) = compiled.init_zeros() else { continue };
            for port in session.inputs().to_vec() {
                let n = weft::tensor::TensorType::new(port.dtype, port.shape.clone()).bytes().unwrap_or(0);
                let zeros = weft::tensor::Bytes::from_vec(vec![0u8; n]);
                let tensor = weft::tensor::Tensor::from_bytes(port.dtype, port.shape, zeros).expect("its type");
                session.set_input_tensor(&port.name, &tensor).expect("its input");
            }
            let _ = session.step();
        }
    }
});
