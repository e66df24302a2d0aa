//! Processes and threads as hosts have them: children of fork, in which what came from the parent is refused and can be dropped
//! and new devices work; threads with small stacks.

#![cfg(unix)]

mod child;
mod devices;

use weft::device::{Device, Optimizer};
use weft::error::Error;
use weft::graph::Graph;
use weft::session::{Artifact, Compiler, Session};
use weft::tensor::DType;

/// Runs `inside` in a child, which must come to its end: whether it did, within a minute.
fn in_a_child(inside: impl FnOnce()) {
    let ended = child::in_a_child(|| {
        inside();
        17
    });
    assert_eq!(ended, (0, 17), "signal, exit status");
}

fn graph() -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [4, 8]);
    let w = g.parameter("w", [8, 8]);
    let y = g.matmul(x, w);
    g.output("y", y);
    g.set_loss(g.mean(y, &[0, 1], false));
    g
}

fn session(device: &Device) -> Session {
    let mut s = Compiler::new(device).compile_training(&graph()).unwrap().init_zeros().unwrap();
    s.set_parameter("w", &[0.5; 64]).unwrap();
    s.set_optimizer(Optimizer::sgd(0.1)).unwrap();
    s.set_input("x", &[1.0; 32]).unwrap();
    s
}

fn check(s: &mut Session) {
    s.set_parameter("w", &[0.5; 64]).unwrap();
    s.step().unwrap();
    assert_eq!(s.read_output::<f32>("y").unwrap(), [4.0; 32]);
}

fn forked<T>(outcome: Result<T, Error>) {
    match outcome {
        Err(Error::Forked { .. }) => {}
        Err(e) => panic!("wanted Forked, got {e}"),
        Ok(_) => panic!("wanted Forked, got something"),
    }
}

/// Everything that the parent made is refused, at once, and can be dropped.
fn refused(device: Device, mut s: Session) {
    forked(s.step());
    forked(s.wait());
    forked(s.wait_for(std::time::Duration::ZERO));
    forked(s.set_input("x", &[1.0; 32]));
    forked(s.read_output::<f32>("y"));
    forked(s.lend_output("y").map(drop));
    forked(s.loss());
    forked(s.read_gradient("w"));
    forked(s.set_parameter("w", &[0.0; 64]));
    forked(s.read_parameter::<f32>("w"));
    forked(s.set_optimizer(Optimizer::adam(0.1)));
    forked(s.set_learning_rate(0.1));
    forked(s.reset_state());
    forked(s.observe(|_| Ok(())));
    forked(s.gpu_time());
    forked(s.parameters().to_weights());
    forked(s.compiled().init_zeros());
    forked(s.compiled().init_shared(&s.parameters()));
    forked(device.suspend());
    forked(device.trim());
    device.resume();
    assert!(!device.is_suspended());
    forked(Compiler::new(&device).compile(&graph()));
    forked(Compiler::new(&device).compile_training(&graph()));
    let elsewhere = Compiler::for_profile(&device.profile()).compile(&graph()).unwrap();
    let mut artifact = Artifact::new();
    artifact.add("main", &elsewhere).unwrap();
    forked(Artifact::from_bytes(&device, artifact.to_bytes().unwrap()));
    let _ = s.memory_summary();
    drop((s, device));
}

#[test]
fn in_a_child_the_parent_s_devices_and_sessions_are_refused_and_new_ones_work() {
    for device in [Device::cpu(2), devices::gpu().device] {
        let mut s = session(&device);
        check(&mut s);
        for _ in 0..3 {
            let copy = device.clone();
            // the child has a copy of the memory: it may take what the parent goes on with
            let taken = std::mem::ManuallyDrop::new(&mut s);
            in_a_child(|| {
                // SAFETY: in the child nobody else has it, and the parent's own is untouched.
                let theirs = unsafe { std::ptr::read(&raw const **taken) };
                refused(copy, theirs);
                forked(Device::gpu());
                forked(Device::open("gpu", 0));
                check(&mut session(&Device::cpu(2)));
                let best = Device::best().unwrap();
                assert_eq!(best.info().name, "cpu");
                assert!(Device::all().iter().skip(1).all(|d| d.refused.is_some()));
            });
            check(&mut s);
        }
    }
}

#[test]
fn so_it_is_while_another_thread_steps_and_compiles() {
    for device in [Device::cpu(2), devices::gpu().device] {
        let over = std::sync::atomic::AtomicBool::new(false);
        let is_over = || over.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut s = session(&device);
                while !is_over() {
                    s.step().unwrap();
                }
                s.wait().unwrap();
            });
            scope.spawn(|| {
                while !is_over() {
                    drop(session(&device));
                }
            });
            for _ in 0..8 {
                let (s, copy) = (session(&device), device.clone());
                let mut s = std::mem::ManuallyDrop::new(s);
                in_a_child(|| {
                    // SAFETY: as above.
                    refused(copy, unsafe { std::mem::ManuallyDrop::take(&mut s) });
                    check(&mut session(&Device::cpu(3)));
                });
                // SAFETY: the parent's, which the child has only a copy of.
                unsafe { std::mem::ManuallyDrop::drop(&mut s) };
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}

#[test]
fn a_thread_with_a_stack_of_64_kib_opens_compiles_trains_and_reads() {
    let work = || {
        for device in [Device::cpu(2), devices::gpu().device] {
            let mut s = session(&device);
            check(&mut s);
            let g = Graph::parse(&graph().data().unwrap().to_string()).unwrap();
            let compiled = Compiler::new(&device).compile(&g).unwrap();
            let mut artifact = Artifact::new();
            artifact.add("main", &compiled).unwrap();
            let again = Artifact::from_bytes(&device, artifact.to_bytes().unwrap()).unwrap();
            let weights = s.parameters().to_weights().unwrap();
            let bytes = weft::load::to_bytes(&weights).unwrap();
            let weights = weft::load::safetensors_bytes(weft::tensor::Bytes::from_vec(bytes)).unwrap();
            let mut loaded = again.get("main").unwrap().init(&weights).unwrap();
            loaded.set_input("x", &[1.0; 32]).unwrap();
            loaded.step().unwrap();
            assert_eq!(loaded.read_output::<f32>("y").unwrap().len(), 32);
            Compiler::new(&device).explain(&g, true).unwrap();
            if let Some(gpu) = device.as_gpu() {
                // opened anew, not shared
                gpu.limited(|_| {}).unwrap();
            }
        }
    };
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap();
    thread.join().unwrap();
}
