//! Files that are not artifacts, damaged, or for another engine or device give an error that says so.

use super::devices;
use super::models::{small, weights};
use sha2::{Digest, Sha256};
use weft::device::Device;
use weft::error::Error;
use weft::graph::Graph;
use weft::session::{Artifact, Compiled, Compiler};
use weft::tensor::DType;

/// Puts the hash right, as anybody can.
pub fn rehash(bytes: &mut [u8]) {
    let mut hasher = Sha256::new();
    hasher.update((bytes.len() as u64 - 64).to_le_bytes());
    hasher.update(&bytes[64..]);
    let hash = hasher.finalize();
    bytes[20..52].copy_from_slice(&hash);
}

/// Puts the length right, and the hash.
pub fn resized(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = bytes.len() as u64;
    bytes[12..20].copy_from_slice(&length.to_le_bytes());
    rehash(&mut bytes);
    bytes
}

pub fn mlp_bytes(device: &Device) -> Vec<u8> {
    small().pop().unwrap().compile(&Compiler::new(device)).to_bytes().unwrap()
}

/// What the error says is wrong.
fn what(device: &Device, bytes: &[u8]) -> String {
    match Compiled::from_bytes(device, bytes).map(|_| ()) {
        Err(e @ Error::Artifact { .. }) => {
            assert_eq!(e.code(), 403);
            let Error::Artifact { what, wanted, came, .. } = e else { unreachable!() };
            assert!(!wanted.is_empty() && !came.is_empty() && wanted != came, "{wanted} and {came}");
            what
        }
        other => panic!("wanted an artifact's error, got {other:?}"),
    }
}

#[test]
fn what_is_not_an_artifact_for_here_is_refused_by_name() {
    let cpu = Device::cpu(1);
    let good = mlp_bytes(&cpu);
    assert!(Compiled::from_bytes(&cpu, good.clone()).is_ok());
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        bytes
    };
    assert_eq!(what(&cpu, b""), "magic");
    assert_eq!(what(&cpu, b"weft 1\ninput x: f32[1]\n"), "magic");
    assert_eq!(what(&cpu, &good[..40]), "length");
    assert_eq!(what(&cpu, &changed(&|b| b[8] = 99)), "format");
    assert_eq!(what(&cpu, &changed(&|b| b.push(0))), "length");
    assert_eq!(what(&cpu, &resized(changed(&|b| b.push(0)))), "length");
    assert_eq!(what(&cpu, &changed(&|b| b.truncate(b.len() - 1))), "length");
    assert_eq!(what(&cpu, &changed(&|b| b[25] ^= 1)), "hash");
    assert_eq!(what(&cpu, &changed(&|b| *b.last_mut().unwrap() ^= 1)), "hash");
    assert_eq!(what(&cpu, &changed(&|b| b[60] = 1)), "contents");
    let at = good.windows(5).position(|w| w == b"weft ").unwrap();
    let other = changed(&|b| {
        b[at + 5] = b'9';
        rehash(b);
    });
    assert_eq!(what(&cpu, &other), "engine");
}

#[test]
fn an_artifact_for_another_device_is_refused() {
    let (cpu, gpu) = (Device::cpu(1), devices::gpu().device);
    assert_eq!(what(&gpu, &mlp_bytes(&cpu)), "device");
    let bytes = mlp_bytes(&gpu);
    assert_eq!(what(&cpu, &bytes), "device");
    let small = Device::from_gpu(gpu.as_gpu().unwrap().limited(|l| l.binding = 1 << 20).unwrap());
    assert_eq!(what(&small, &bytes), "device");
    assert!(Compiled::from_bytes(&gpu, bytes).is_ok());
}

#[test]
fn an_engine_that_would_write_other_kernels_says_so() {
    let gpu = devices::gpu().device;
    let compiled = small().pop().unwrap().compile(&Compiler::new(&gpu));
    let bytes = compiled.to_bytes().unwrap();
    // the hash is the only run of 32 bytes behind the graph's name, its precision and a 1
    let at = bytes.windows(6).position(|w| w == b"\x04main\x00").unwrap() + 7;
    let mut other = bytes.clone();
    other[at] ^= 1;
    rehash(&mut other);
    assert_eq!(what(&gpu, &other), "kernels");
}

#[test]
fn graphs_that_do_not_go_together_are_refused() {
    let (cpu, gpu) = (Device::cpu(1), devices::gpu().device);
    let graph = |n: usize| {
        let g = Graph::new();
        let x = g.input("x", DType::F32, [2, 3]);
        g.output("y", g.matmul(x, g.parameter("w", [3, n])));
        g
    };
    let mut artifact = Artifact::new();
    assert!(matches!(artifact.to_bytes(), Err(Error::Argument { .. })));
    artifact.add("a", &Compiler::new(&cpu).compile(&graph(4)).unwrap()).unwrap();
    for (name, compiled) in [
        ("a", Compiler::new(&cpu).compile(&graph(4)).unwrap()),
        ("b", Compiler::new(&cpu).compile(&graph(5)).unwrap()),
        ("c", Compiler::new(&gpu).compile(&graph(4)).unwrap()),
    ] {
        assert!(matches!(artifact.add(name, &compiled), Err(Error::Argument { .. })), "{name}");
    }
    assert!(matches!(artifact.init_all(&weights([])), Err(Error::MissingWeight { .. })));
}

#[test]
fn an_artifact_cut_anywhere_is_refused() {
    let cpu = Device::cpu(1);
    let good = mlp_bytes(&cpu);
    for n in 0..good.len() {
        let error = Compiled::from_bytes(&cpu, &good[..n]).map(|_| ()).unwrap_err();
        assert!(matches!(error, Error::Artifact { .. }), "{n}: {error}");
        // and with length and hash put right
        if n >= 64 {
            let error = Compiled::from_bytes(&cpu, resized(good[..n].to_vec())).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Artifact { .. }), "{n}: {error}");
        }
    }
    let tiny = small().remove(0);
    let long = tiny.compile(&Compiler::new(&cpu)).to_bytes().unwrap();
    for n in (64..long.len()).step_by(7) {
        assert!(Compiled::from_bytes(&cpu, resized(long[..n].to_vec())).is_err(), "{n}");
    }
}

#[test]
fn a_missing_file_is_an_error_of_the_system() {
    let error = Artifact::load(&Device::cpu(1), "/nowhere/a.weft").map(|_| ()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}
