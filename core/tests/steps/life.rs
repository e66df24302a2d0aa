//! Refused steps combined with other features of a session: observing, waiting with a timeout, suspending, sharing, loops.

use super::{By, Tested, bad_step, devices, give, session, shrinking, state};
use std::time::Duration;
use weft::device::Device;
use weft::error::Error;
use weft::graph::Graph;
use weft::session::{Compiled, Optimizer, OutputIndex, Profiling, Session};
use weft::tensor::DType;

/// y = x + the words' sum, a counter beside it.
fn small(from: By) -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [1]);
    let table = g.constant_f32(&[3, 1], vec![0.0; 3]);
    let y = g.add(x, g.mean(g.name(g.embedding(table, super::index(&g, "id", from)), "words"), &[0], false));
    g.output("y", y);
    let n = g.state("n", DType::F32, [1]);
    g.set_state(n, g.add(n, g.add(g.sub(y, x), g.scalar(1.0, DType::F32))));
    g
}

fn set(s: &mut Session, from: By, x: f32, id: i32) {
    s.set_input("x", &[x]).unwrap();
    give(s, "id", from, id);
}

#[test]
fn outputs_are_those_of_the_last_step_observed_or_not() {
    for t in devices::all() {
        for from in super::SOURCES {
            let mut s = session(&t, &small(from));
            set(&mut s, from, 1.0, 0);
            s.step().unwrap();
            assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), [1.0]);
            set(&mut s, from, 9.0, 1);
            s.observe(|_| Ok(())).unwrap();
            assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), [9.0], "observed, on {}", t.name());
            set(&mut s, from, 4.0, 2);
            s.step().unwrap();
            assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), [4.0], "{}", t.name());
            assert_eq!(state(&s, "n"), [3.0], "{}", t.name());
            // a refused one, observed
            set(&mut s, from, 5.0, 3);
            let e = s.observe(|_| Ok(())).and_then(|()| s.wait()).unwrap_err();
            assert!(matches!(e, Error::IndexOutOfRange { index: 3, limit: 3, .. }), "{e}");
            assert!(e.to_string().contains("step 4"), "{e}");
            assert!(
                matches!(s.read_output::<f32>(OutputIndex(0)), Err(Error::NotRun { .. })),
                "{}",
                t.name()
            );
            assert_eq!(state(&s, "n"), [3.0], "{}", t.name());
            // one whose observer gives up has no outputs, and the next is whole
            set(&mut s, from, 6.0, 0);
            let given_up = s.observe(|_| Err(Error::Cancelled { what: "seen enough".into() }));
            assert!(matches!(given_up, Err(Error::Cancelled { .. })));
            assert!(
                matches!(s.read_output::<f32>(OutputIndex(0)), Err(Error::NotRun { .. })),
                "{}",
                t.name()
            );
            s.step().unwrap();
            assert_eq!(s.read_output::<f32>(OutputIndex(0)).unwrap(), [6.0]);
            s.wait().unwrap();
        }
    }
}

#[test]
fn a_refusal_is_told_by_whatever_waits_first_and_reading_stays_refused_until_a_good_step() {
    for t in devices::all() {
        for from in super::SOURCES {
            let mut s = session(&t, &small(from));
            set(&mut s, from, 2.0, 8);
            let at_once = s.step();
            let mut errors = vec![];
            errors.extend(at_once.err());
            let e = s.read_output::<f32>("y").unwrap_err();
            errors.push(e);
            assert!(
                errors.iter().any(|e| matches!(e, Error::IndexOutOfRange { index: 8, .. })),
                "{errors:?} on {}",
                t.name()
            );
            for _ in 0..3 {
                assert!(matches!(s.read_output::<f32>("y"), Err(Error::NotRun { .. })));
                assert!(matches!(s.lend_output("y"), Err(Error::NotRun { .. })));
                assert!(matches!(s.output_tensor("y"), Err(Error::NotRun { .. })));
                s.wait().unwrap();
                assert!(s.wait_for(Duration::ZERO).unwrap());
            }
            set(&mut s, from, 3.0, 2);
            s.step().unwrap();
            assert_eq!(s.read_output::<f32>("y").unwrap(), [3.0]);
            assert_eq!(s.lend_output("y").unwrap(), 3f32.to_le_bytes());
        }
    }
}

#[test]
fn profiling_suspending_and_trimming_with_refused_steps_under_way() {
    for t in devices::all() {
        for from in super::SOURCES {
            // a device of its own: others are not to be suspended
            let device = match t.device.as_gpu() {
                Some(gpu) => Device::from_gpu(gpu.limited(|_| ()).unwrap()),
                None => Device::cpu(1),
            };
            let t = Tested { device, precision: t.precision };
            let mut s = session(&t, &small(from));
            let step = |s: &mut Session, id: i32| {
                set(s, from, id as f32, id);
                bad_step(s).unwrap();
            };
            (0..3).for_each(|i| step(&mut s, i));
            step(&mut s, 4);
            s.set_profiling(Profiling::Dispatch).unwrap();
            step(&mut s, 5);
            step(&mut s, 1);
            t.device.suspend().unwrap();
            let asleep = s.step();
            t.device.resume();
            if t.device.as_gpu().is_some() {
                assert!(matches!(asleep, Err(Error::Suspended { .. })), "{asleep:?}");
                assert_eq!(state(&s, "n"), [4.0]);
                // one that no device took is none, and tells of none
                assert!(matches!(
                    s.read_output::<f32>("y"),
                    Err(Error::NotRun { .. } | Error::IndexOutOfRange { .. })
                ));
            }
            step(&mut s, 6);
            t.device.trim().unwrap();
            step(&mut s, 2);
            while s.wait().is_err() {}
            assert_eq!(s.read_output::<f32>("y").unwrap(), [2.0]);
            let slept = usize::from(t.device.as_gpu().is_none());
            assert_eq!(state(&s, "n"), [5.0 + slept as f64], "{}", t.name());
        }
    }
}

#[test]
fn of_sessions_over_the_same_weights_a_refused_one_leaves_them_to_the_others() {
    for t in devices::all() {
        for from in super::SOURCES {
            let mut a = shrinking(&t, from, Optimizer::sgd(0.1));
            let compiled = a.compiled().clone();
            let mut b = compiled.init_shared(&a.parameters()).unwrap();
            b.set_optimizer(Optimizer::sgd(0.1)).unwrap();
            for (id_a, id_b) in [(0, 7), (-1, 1), (9, 9), (2, -3)] {
                give(&mut a, "id", from, id_a);
                give(&mut b, "id", from, id_b);
                bad_step(&mut a).unwrap();
                bad_step(&mut b).unwrap();
            }
            let w = b.read_parameter::<f32>("w").unwrap()[0];
            assert!((w - 0.512).abs() < 1e-6, "{w} on {}, {from:?}", t.name());
        }
    }
}

#[test]
fn a_training_loop_ends_at_the_wrong_batch_and_can_go_on() {
    for t in devices::all() {
        let mut s = shrinking(&t, By::Input, Optimizer::sgd(0.1));
        let ids: Vec<u8> = [0i32, 1, 5, 2].iter().flat_map(|i| i.to_le_bytes()).collect();
        let data = [weft::session::Batches { name: "id", dtype: DType::I32, bytes: &ids }];
        let mut seen = 0;
        let e = s.train(&data, 1, &Default::default(), &mut |_, _, _| seen += 1).unwrap_err();
        assert!(matches!(e, Error::IndexOutOfRange { index: 5, position: 0, limit: 3, .. }), "{e}");
        assert!(e.to_string().contains("step 3"), "{e}");
        assert_eq!(seen, 2);
        assert!(matches!(s.loss(), Err(Error::NotRun { .. })));
        give(&mut s, "id", By::Input, 0);
        s.step().unwrap();
        let w = s.read_parameter::<f32>("w").unwrap()[0];
        assert!((w - 0.512).abs() < 1e-6, "{w} on {}", t.name());
    }
}

#[test]
fn the_step_counter_counts_good_steps() {
    for t in devices::all() {
        for from in super::SOURCES {
            let g = Graph::new();
            let n = g.input("step_counter", DType::U32, [1]);
            let table = g.constant_f32(&[3, 1], vec![0.0; 3]);
            let words = g.mean_all(g.embedding(table, super::index(&g, "id", from)));
            g.output("n", g.add(g.cast(n, DType::F32), words));
            let mut s = session(&t, &g);
            for id in [0, 5, 1, -1, 4, 2] {
                give(&mut s, "id", from, id);
                bad_step(&mut s).unwrap();
            }
            while s.wait().is_err() {}
            assert_eq!(s.read_output::<f32>("n").unwrap(), [2.0], "{from:?} on {}", t.name());
        }
    }
}

#[test]
fn an_index_in_a_buffer_of_the_host_application_is_checked_too() {
    let Some(t) = devices::all().into_iter().find(|t| t.device.as_gpu().is_some()) else { return };
    // one session's output is the other's index
    let g = Graph::new();
    g.output("id", g.cast(g.input("v", DType::F32, [1]), DType::I32));
    let mut producer = session(&t, &g);
    for trained in [false, true] {
        let mut s = match trained {
            false => session(&t, &small(By::Input)),
            true => shrinking(&t, By::Input, Optimizer::adam(0.1)),
        };
        if !trained {
            s.set_input("x", &[1.0]).unwrap();
        }
        s.adopt_buffer("id", producer.shared_output("id").unwrap()).unwrap();
        let mut never = shrinking(&t, By::Input, Optimizer::adam(0.1));
        for (v, good) in [(0.0, true), (7.0, false), (2.0, true), (-3.0, false), (1.0, true)] {
            producer.set_input("v", &[v]).unwrap();
            producer.step().unwrap();
            producer.wait().unwrap();
            bad_step(&mut s).unwrap();
            let told = s.wait();
            match told {
                Ok(()) => assert!(good),
                Err(Error::IndexOutOfRange { index, limit: 3, .. }) => {
                    assert_eq!((index, good), (v as i64, false))
                }
                Err(e) => panic!("{e}"),
            }
            if good {
                give(&mut never, "id", By::Input, 0);
                never.step().unwrap();
            }
        }
        match trained {
            false => assert_eq!(state(&s, "n"), [3.0]),
            true => {
                assert_eq!(s.read_parameter::<f32>("w").unwrap(), never.read_parameter::<f32>("w").unwrap())
            }
        }
    }
}

#[test]
fn an_artifact_refuses_as_its_graph_does() {
    for t in devices::all() {
        let g = super::cache(By::Computed, By::Computed);
        let bytes = t.compiler().compile(&g).unwrap().to_bytes().unwrap();
        let mut s = Compiled::from_bytes(&t.device, bytes).unwrap().init_zeros().unwrap();
        s.set_input("row", &[1.0, 2.0]).unwrap();
        for (at, id) in [(0.0, 1.0), (1.0, 5.0), (2.0, 0.0), (4.0, 1.0)] {
            s.set_input("at", &[at]).unwrap();
            s.set_input("id", &[id]).unwrap();
            bad_step(&mut s).unwrap();
        }
        assert_eq!(state(&s, "cache"), [1.0, 2.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0], "{}", t.name());
        assert_eq!(state(&s, "n"), [3.0, 5.0, 7.0], "{}", t.name());
    }
}

#[test]
fn sessions_of_several_threads_count_their_good_steps() {
    const RATE: f32 = 1.0 / 64.0;
    for t in devices::all() {
        for from in super::SOURCES {
            let g = Graph::new();
            let w = g.parameter("w", [1]);
            let table = g.constant_f32(&[3, 1], vec![0.0; 3]);
            let nothing = g.mean_all(g.embedding(table, super::index(&g, "id", from)));
            g.set_loss(g.add(g.sum_all(w), nothing));
            let compiled = t.compiler().compile_training(&g).unwrap();
            let owner = compiled.init_zeros().unwrap();
            let good = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..3)
                    .map(|thread| {
                        let mut s = compiled.init_shared(&owner.parameters()).unwrap();
                        s.set_optimizer(Optimizer::sgd(RATE)).unwrap();
                        scope.spawn(move || {
                            let ids: Vec<i32> = (0..25).map(|i| (i * 7 + thread) % 5 - 1).collect();
                            for &id in &ids {
                                give(&mut s, "id", from, id);
                                bad_step(&mut s).unwrap();
                            }
                            while s.wait().is_err() {}
                            ids.iter().filter(|id| (0..3).contains(*id)).count()
                        })
                    })
                    .collect();
                threads.into_iter().map(|t| t.join().unwrap()).sum::<usize>()
            });
            assert_eq!(
                owner.read_parameter::<f32>("w").unwrap(),
                [-RATE * good as f32],
                "{from:?} on {}",
                t.name()
            );
        }
    }
}
