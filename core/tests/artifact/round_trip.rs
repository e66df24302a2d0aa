//! Artifacts round-trip: the same bits from the same inputs, on every device.

use super::devices;
use super::models::{bert, decoder, filled, llama_config, minilm, run, small, weights};
use weft::device::Device;
use weft::graph::Graph;
use weft::models::{Llama, Logits};
use weft::profile::{Costs, DeviceKind, DeviceProfile, Limits};
use weft::session::{Artifact, Compiled, Compiler};
use weft::tensor::DType;

/// Both compute the same, and something.
fn same(name: &str, one: &Compiled, other: &Compiled) {
    let weights = weights(one.parameters());
    let training = !one.plan().gradients.is_empty();
    let results = |c: &Compiled| run(&mut c.init(&weights).unwrap(), training).unwrap();
    let (wanted, came) = (results(one), results(other));
    assert!(wanted.iter().any(|(_, bytes)| bytes.iter().any(|b| *b != 0)), "{name} computes nothing");
    assert!(wanted.iter().all(|(_, bytes)| !bytes.is_empty()));
    for ((output, a), (_, b)) in wanted.iter().zip(&came) {
        assert_eq!(a, b, "{name}: {output}");
    }
    assert_eq!(wanted.len(), came.len());
}

#[test]
fn every_model_comes_back_bit_for_bit_on_every_device() {
    for t in &devices::all() {
        for model in small() {
            let compiled = model.compile(&t.compiler());
            let bytes = compiled.to_bytes().unwrap();
            let loaded = Compiled::from_bytes(&t.device, bytes.clone()).unwrap();
            assert_eq!(loaded.to_bytes().unwrap(), bytes, "{} on {}", model.name, t.name());
            assert_eq!(loaded.plan().steps.len(), compiled.plan().steps.len());
            assert_eq!(loaded.precision(), t.precision);
            same(&format!("{} on {}", model.name, t.name()), &compiled, &loaded);
        }
    }
}

#[test]
fn every_operation_comes_back_bit_for_bit() {
    let cpu = Device::cpu(2);
    let mut count = 0;
    for op in weft::ops::all() {
        for (i, sample) in op.samples().iter().enumerate() {
            let g = Graph::new();
            let of = |(i, a): (usize, &weft::graph::Array)| {
                g.input(&format!("in{i}"), a.ty.dtype, a.ty.shape.clone())
            };
            let inputs: Vec<_> = sample.inputs.iter().enumerate().map(of).collect();
            g.output("y", g.apply(op, &inputs, sample.attrs.clone()));
            let compiled = Compiler::new(&cpu).compile(&g).unwrap();
            let loaded = Compiled::from_bytes(&cpu, compiled.to_bytes().unwrap()).unwrap();
            let result = |c: &Compiled| {
                let mut s = c.init_zeros().unwrap();
                for (i, a) in sample.inputs.iter().enumerate() {
                    let t = a.to_tensor().unwrap();
                    s.set_input_tensor(&format!("in{i}"), &t).unwrap();
                }
                s.step().map(|()| s.output_tensor("y").unwrap().bytes().to_vec())
            };
            assert_eq!(result(&compiled), result(&loaded), "{} {i}", op.name());
            count += 1;
        }
    }
    assert!(count > 300, "{count} samples");
}

#[test]
fn minilm_comes_back_bit_for_bit_over_its_weights() {
    let (config, weights) = minilm();
    let cpu = Device::cpu(2);
    let compiled = Compiler::new(&cpu).compile(&bert(&config, &weights, 1, 16)).unwrap();
    let loaded = Compiled::from_bytes(&cpu, compiled.to_bytes().unwrap()).unwrap();
    let embed = |c: &Compiled| run(&mut c.init(&weights).unwrap(), false).unwrap();
    assert_eq!(embed(&compiled), embed(&loaded));
}

#[test]
fn graphs_of_one_artifact_share_their_weights() {
    let (cpu, config) = (Device::cpu(2), llama_config());
    let compiler = Compiler::new(&cpu);
    let prefill = Graph::new();
    let ids = prefill.input("ids", DType::U32, [1, 5]);
    prefill.output("logits", Llama::new(&config).forward(&prefill, ids, Logits::Last));
    let mut artifact = Artifact::new();
    artifact.add("prefill", &compiler.compile(&prefill).unwrap()).unwrap();
    artifact.add("decode", &compiler.compile(&decoder(&config, 8)).unwrap()).unwrap();
    artifact.metadata_mut().insert("model".into(), "a tiny Llama ✓".into());
    let file = std::env::temp_dir().join(format!("weft-shared-{}.weftc", std::process::id()));
    artifact.save(&file).unwrap();
    let loaded = Artifact::load(&cpu, &file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(loaded.names().collect::<Vec<_>>(), ["prefill", "decode"]);
    assert_eq!(loaded.metadata()["model"], "a tiny Llama ✓");
    assert_eq!(loaded.weights(), artifact.weights());
    assert!(loaded.weights().iter().all(|w| w.transformations.is_empty()));
    let weights = weights(loaded.get("decode").unwrap().parameters());
    let mut sessions = loaded.init_all(&weights).unwrap();
    assert_eq!(sessions.iter().map(|s| s.0.as_str()).collect::<Vec<_>>(), ["prefill", "decode"]);
    // a change by one is seen by the other
    let name = "model.norm.weight";
    let before = run(&mut sessions[1].1, false).unwrap();
    let changed: Vec<f32> =
        sessions[0].1.read_parameter::<f32>(name).unwrap().iter().map(|v| v * 3.0).collect();
    sessions[0].1.set_parameter(name, &changed).unwrap();
    sessions[1].1.reset_state().unwrap();
    let after = run(&mut sessions[1].1, false).unwrap();
    assert_ne!(before[0], after[0]);
    assert_eq!(sessions[1].1.read_parameter::<f32>(name).unwrap(), changed);
    let unknown = loaded.get("train").map(|_| ()).unwrap_err();
    assert!(unknown.to_string().contains("prefill, decode"), "{unknown}");
}

#[test]
fn constants_lie_where_the_file_has_them_and_keep_their_bits() {
    let cpu = Device::cpu(1);
    let g = Graph::new();
    let x = g.input("x", DType::F32, [64, 64]);
    let table = filled(DType::F32, &[64, 64], 5);
    g.output("y", g.matmul(x, g.constant(table.clone())));
    let bytes = Compiler::new(&cpu).compile(&g).unwrap().to_bytes().unwrap();
    let at = bytes.windows(64).position(|w| w == &table.bytes()[..64]).unwrap();
    assert_eq!(at % 64, 0);
    assert!(bytes.len() < table.bytes().len() + 1024, "{} bytes", bytes.len());
}

#[test]
fn graphs_compile_for_devices_that_are_not_there() {
    let cpu = Device::cpu(2);
    let model = || small().remove(0);
    let absent = DeviceProfile { name: "a phone's cpu".into(), threads: 8, memory: 1 << 33, ..cpu.profile() };
    let made = model().compile(&Compiler::for_profile(&absent));
    assert!(made.device().is_none() && made.profile() == &absent);
    let why = made.init_zeros().map(|_| ()).unwrap_err();
    assert!(why.to_string().contains("not attached"), "{why}");
    let loaded = Compiled::from_bytes(&cpu, made.to_bytes().unwrap()).unwrap();
    same("for another cpu", &model().compile(&Compiler::new(&cpu)), &loaded);
    // the very GPU that is here, known by its profile's text alone
    let gpu = devices::gpu().device;
    let told: DeviceProfile = gpu.profile().to_string().parse().unwrap();
    let made = model().compile(&Compiler::for_profile(&told));
    let loaded = Compiled::from_bytes(&gpu, made.to_bytes().unwrap()).unwrap();
    same("for this gpu", &model().compile(&Compiler::new(&gpu)), &loaded);
    // one that nobody here has
    let large = DeviceProfile {
        name: "large".into(),
        kind: DeviceKind::Discrete,
        threads: 0,
        memory: 80 << 30,
        gpu: Some(Limits::large()),
        costs: Costs::gpu(132, true),
    };
    for training in small() {
        assert!(training.compile(&Compiler::for_profile(&large)).to_bytes().unwrap().len() > 64);
    }
    let none = DeviceProfile { gpu: Some(Limits { threads: 0, ..Limits::large() }), ..large };
    let refused = Compiler::for_profile(&none).compile(&model().graph).map(|_| ()).unwrap_err();
    assert!(refused.to_string().contains("gpu.threads"), "{refused}");
}
