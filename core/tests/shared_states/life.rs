//! The lifecycle of a shared set: memory, suspended devices, forked children, artifacts.

use super::*;

#[test]
fn states_longer_than_a_binding_are_shared_in_pieces() {
    let Some(Tested { device, .. }) = gpu() else { return };
    let gpu = device.as_gpu().unwrap().limited(|l| l.binding = 4096).unwrap();
    let t = Tested { device: Device::from_gpu(gpu), precision: devices::precision() };
    const LONG: usize = 5000;
    let mut one = compile(&t, &counter(1, LONG)).init(&Weights::new()).unwrap();
    let mut two = share(&compile(&t, &counter(2, LONG)), &one);
    let states = one.shared_states();
    let ramp: Vec<i32> = (0..LONG as i32).collect();
    states.write("count", &Tensor::from_vec([LONG], ramp.clone()).unwrap()).unwrap();
    one.step().unwrap();
    two.step().unwrap();
    let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
    assert!(count.iter().zip(&ramp).all(|(a, b)| *a == b + 3));
    // more states join behind the pieces
    let g = counter(1, LONG);
    let more = g.state("more", DType::F32, [LONG]);
    g.set_state(more, g.add(more, g.scalar(1.0, DType::F32)));
    let mut three = share(&compile(&t, &g), &one);
    three.step().unwrap();
    assert_eq!(states.read("more").unwrap().to_f64(), vec![1.0; LONG]);
    let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
    assert!(count.iter().zip(&ramp).all(|(a, b)| *a == b + 4));
    states.reset().unwrap();
    assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), vec![0; LONG]);
}

#[test]
fn states_that_find_no_memory_leave_the_set_as_it_was() {
    let Some(t) = gpu().map(apart) else { return };
    let mut small = compile(&t, &counter(1, 10)).init(&Weights::new()).unwrap();
    let states = small.shared_states();
    small.step().unwrap();
    let g = counter(2, 10);
    let large = g.state("large", DType::F32, [4 << 20]);
    g.output("y", g.max_over(large, &[0], false));
    let compiled = compile(&t, &g);
    t.device.set_memory_budget(t.device.memory().0 + (8 << 20));
    let e = compiled.init_shared_states(&small.parameters(), &states).expect_err("no memory");
    assert!(matches!(&e, Error::OutOfMemory { what, .. } if what.contains("states")), "{e}");
    assert_eq!(states.types().unwrap().len(), 1);
    small.step().unwrap();
    t.device.set_memory_budget(1 << 30);
    share(&compiled, &small).step().unwrap();
    assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), [4; 10]);
    assert_eq!(states.types().unwrap().len(), 2);
}

#[test]
fn memory_is_there_once_and_counted_once() {
    const BIG: usize = 1 << 20;
    for t in devices::all().into_iter().map(apart) {
        let compiled: Vec<Compiled> = (1..=4).map(|by| compile(&t, &counter(by, BIG))).collect();
        let used = || t.device.memory().0 as i64;
        let before = used();
        let first = compiled[0].init(&Weights::new()).unwrap();
        let (one, from) = (used() - before, used());
        let others: Vec<Session> = compiled[1..].iter().map(|c| share(c, &first)).collect();
        let (states, each) = (4 * BIG, first.memory_summary());
        assert_eq!(each.state_bytes, states);
        assert_eq!(first.shared_states().memory_summary().unwrap().total_bytes, states);
        let all: Vec<&Session> = others.iter().chain([&first]).collect();
        let together = MemorySummary::of_all(all);
        assert_eq!((together.state_bytes, together.total_bytes), (states, 4 * each.total_bytes - 3 * states));
        assert!(compiled[0].memory_summary().state_bytes == states);
        if !t.is_cpu() {
            let more = (used() - from) / 3;
            assert!(one - more >= states as i64, "{}: {one} bytes, then {more}", t.name());
        }
    }
}

/// Bytes of this process in memory.
fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

#[test]
fn three_hundred_sessions_over_one_set_leave_nothing_behind() {
    // in a process of its own: what this one takes up depends on the tests beside it
    if std::env::var_os("WEFT_TEST_ALONE").is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "life::three_hundred_sessions_over_one_set_leave_nothing_behind";
        let run =
            std::process::Command::new(own).args(["--exact", name]).env("WEFT_TEST_ALONE", "1").output();
        let run = run.unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    for t in devices::all().into_iter().map(apart) {
        let (a, b) = (compile(&t, &writer(4)), compile(&t, &writer(1)));
        let keeps = a.init(&Weights::new()).unwrap();
        let (states, weights) = (keeps.shared_states(), keeps.parameters());
        let mut marks = vec![];
        for n in 0..300 {
            let mut s = [&a, &b][n % 2].init_shared_states(&weights, &states).unwrap();
            if n % 10 < 2 {
                write(&mut s, n % 8, if n % 2 == 0 { 4 } else { 1 });
            }
            let own = b.init(&Weights::new()).unwrap();
            drop((s, own));
            if n % 100 == 99 {
                states.read("rows").unwrap();
                marks.push((t.device.memory().0 as i64, resident()));
            }
        }
        let [(gpu, host), .., (gpu_end, host_end)] = marks[..] else { panic!() };
        assert!(gpu_end <= gpu, "{}: {marks:?}", t.name());
        assert!(host_end - host < 8 << 20, "{}: {marks:?}", t.name());
        assert_eq!(states.read("rows").unwrap().to_f64(), [30.0 * 4.0 + 30.0], "{}", t.name());
    }
}

#[test]
fn graphs_of_an_artifact_share_as_compiled_ones_do() {
    for t in devices::all() {
        let mut artifact = Artifact::new();
        artifact.add("prefill", &compile(&t, &writer(4))).unwrap();
        artifact.add("decode", &compile(&t, &writer(1))).unwrap();
        let loaded = Artifact::from_bytes(&t.device, artifact.to_bytes().unwrap()).unwrap();
        let mut prefill = loaded.get("prefill").unwrap().init(&Weights::new()).unwrap();
        let mut decode = share(loaded.get("decode").unwrap(), &prefill);
        let mut alone = compile(&t, &writer(1)).init(&Weights::new()).unwrap();
        write(&mut prefill, 0, 4);
        write(&mut decode, 4, 1);
        (0..5).for_each(|i| drop(write(&mut alone, i, 1)));
        let rows = |s: &Session| s.read_state("cache.f32").unwrap().to_f64();
        assert_eq!(rows(&prefill), rows(&alone), "{}", t.name());
        // those that a program asks for all at once have states of their own
        let apart = loaded.init_all(&Weights::new()).unwrap();
        assert!(apart.iter().all(|(_, s)| rows(s).iter().all(|v| *v == 0.0)));
    }
}

#[test]
fn a_suspended_device_gives_and_takes_no_states_and_keeps_them() {
    let Some(t) = gpu().map(apart) else { return };
    let mut s = compile(&t, &counter(3, 4)).init(&Weights::new()).unwrap();
    let states = s.shared_states();
    s.step().unwrap();
    t.device.suspend().unwrap();
    assert!(matches!(states.read("count"), Err(Error::Suspended { .. })));
    assert!(matches!(states.reset(), Err(Error::Suspended { .. })));
    assert!(matches!(s.step(), Err(Error::Suspended { .. })));
    t.device.resume();
    t.device.trim().unwrap();
    s.step().unwrap();
    assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), [6; 4]);
}

#[test]
fn a_child_of_fork_refuses_the_set_at_once_also_while_a_step_holds_it() {
    for t in devices::all() {
        let s = compile(&t, &counter(1, 3)).init(&Weights::new()).unwrap();
        let (states, compiled, weights) = (s.shared_states(), s.compiled().clone(), s.parameters());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let held = states.clone();
            let (c, w, over) = (&compiled, &weights, &over);
            scope.spawn(move || {
                let mut s = c.init_shared_states(w, &held).unwrap();
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    s.step().unwrap();
                }
            });
            for _ in 0..5 {
                let outcome = child::in_a_child(|| {
                    let forked =
                        |e: weft::error::Result<()>| assert!(matches!(e, Err(Error::Forked { .. })), "{e:?}");
                    forked(states.types().map(drop));
                    forked(states.read("count").map(drop));
                    forked(states.write("count", &Tensor::from_vec([3], vec![1i32; 3]).unwrap()));
                    forked(states.reset());
                    forked(states.save().map(drop));
                    forked(states.restore(&Weights::new()));
                    forked(states.memory_summary().map(drop));
                    forked(s.read_state("count").map(drop));
                    forked(compiled.init_shared_states(&weights, &states).map(drop));
                    forked(States::new(&t.device).map(drop));
                    assert!(format!("{states:?}").starts_with("States"));
                    drop(states.clone());
                    0
                });
                assert_eq!(outcome, (0, 0), "{}", t.name());
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(states.types().unwrap(), [("count".to_string(), TensorType::new(DType::I32, [3]))]);
    }
}

#[test]
fn every_f16_is_kept_as_it_is_in_whatever_form_a_device_has_it() {
    for t in devices::all() {
        // each of the 65,536, but for NaNs, of which only that they are is kept
        let all: Vec<half::f16> = (0..=u16::MAX).map(half::f16::from_bits).collect();
        let ty = TensorType::new(DType::F16, [256, 256]);
        let bytes = all.iter().flat_map(|v| v.to_bits().to_le_bytes()).collect();
        let tensor =
            Tensor::from_bytes(DType::F16, [256, 256], weft::tensor::Bytes::from_vec(bytes)).unwrap();
        assert_eq!(tensor.ty(), ty);
        let g = Graph::new();
        let (x, at) = (g.input("x", DType::F16, [256, 256]), g.iota(&[256], 0));
        let put = g.state("put", DType::F16, [256, 256]);
        let next = g.put(put, at, x, 0);
        g.set_state(put, next);
        g.set_state(g.state("copied", DType::F16, [256, 256]), x);
        g.set_state(g.state("computed", DType::F16, [256, 256]), g.cast(g.cast(x, DType::F32), DType::F16));
        let kept = g.state("written", DType::F16, [256, 256]);
        g.output("read", g.cast(kept, DType::F32));
        let mut s = compile(&t, &g).init(&Weights::new()).unwrap();
        s.write_state("written", &tensor).unwrap();
        s.set_input_tensor("x", &tensor).unwrap();
        s.step().unwrap();
        let same = |what: &str, came: Vec<f64>| {
            for (a, b) in came.iter().zip(all.iter().map(|v| v.to_f64())) {
                assert!(
                    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
                    "{} {what}: {a} for {b}",
                    t.name()
                );
            }
        };
        for state in ["put", "copied", "computed", "written"] {
            same(state, s.read_state(state).unwrap().to_f64());
        }
        same("read", s.read_output::<f32>("read").unwrap().into_iter().map(f64::from).collect());
    }
}
