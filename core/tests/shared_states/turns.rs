//! The order of steps: threads, steps without waiting, refused ones, observed ones, in random order.

use super::*;
use weft::internals::expr::{philox_word, uniform};

#[test]
fn steps_of_eight_sessions_on_eight_threads_are_whole_and_all_of_them_count() {
    const ELEMENTS: usize = 5000;
    for t in devices::all() {
        let each = if t.is_cpu() { 200 } else { 12 };
        let states = States::new(&t.device).unwrap();
        let compiled: Vec<Compiled> = (1..=8).map(|by| compile(&t, &counter(by, ELEMENTS))).collect();
        let weights = compiled[0].init(&Weights::new()).unwrap().parameters();
        std::thread::scope(|scope| {
            for c in &compiled {
                let (states, weights) = (states.clone(), weights.clone());
                scope.spawn(move || {
                    let mut s = c.init_shared_states(&weights, &states).unwrap();
                    for n in 0..each {
                        s.step().unwrap();
                        if n % 3 == 0 {
                            let next = s.read_output::<i32>("next").unwrap();
                            assert!(next.iter().all(|v| *v == next[0]), "a step in parts");
                            let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
                            assert!(
                                count.iter().all(|v| *v == count[0]) && count[0] >= next[0],
                                "a part of a step"
                            );
                        }
                    }
                    s.wait().unwrap();
                });
            }
        });
        let count = states.read("count").unwrap().to_vec::<i32>().unwrap();
        assert_eq!(count, vec![36 * each; ELEMENTS], "{}", t.name());
    }
}

#[test]
fn steps_that_nobody_waits_for_run_in_the_order_in_which_they_were_asked_for() {
    for t in devices::all() {
        let times = |by: i32, add: i32| {
            let g = Graph::new();
            let v = g.state("v", DType::I32, [777]);
            let constant = |c: i32| g.constant(Tensor::from_vec([1], vec![c]).unwrap());
            g.set_state(v, g.add(g.mul(v, constant(by)), constant(add)));
            g.output("old", g.neg(v));
            compile(&t, &g)
        };
        let mut a = times(3, 1).init(&Weights::new()).unwrap();
        let (mut b, states) = (share(&times(1, 7), &a), a.shared_states());
        let mut wanted = 0i32;
        for n in 0..40 {
            let (s, by, add) = if n % 5 == 0 { (&mut b, 1i32, 7) } else { (&mut a, 3, 1) };
            s.step().unwrap();
            wanted = wanted.wrapping_mul(by).wrapping_add(add);
            if n == 20 {
                // written between two steps, at once for both
                states.write("v", &Tensor::from_vec([777], vec![5i32; 777]).unwrap()).unwrap();
                wanted = 5;
            }
        }
        assert_eq!(states.read("v").unwrap().to_vec::<i32>().unwrap(), vec![wanted; 777], "{}", t.name());
    }
}

/// Looks up rows of a table by indices that a state holds, and counts; `long`: more indices than come down with a step.
fn look_up(indices: usize) -> Graph {
    let g = Graph::new();
    let ids = g.state("ids", DType::I32, [indices]);
    let table = g.constant(Tensor::from_vec([10, 1], (0..10).map(|i| i as f32).collect::<Vec<_>>()).unwrap());
    g.output("sum", g.sum(g.embedding(table, ids), &[0, 1], false));
    let count = g.state("count", DType::I32, [1]);
    g.set_state(count, g.add(count, g.constant(Tensor::from_vec([1], vec![1i32]).unwrap())));
    g
}

/// Makes all indices what it is given.
fn set_ids(indices: usize) -> Graph {
    let g = Graph::new();
    let ids = g.state("ids", DType::I32, [indices]);
    let to = g.input("to", DType::I32, [1]);
    g.set_state(ids, g.add(g.mul(ids, g.constant(Tensor::from_vec([1], vec![0i32]).unwrap())), to));
    g.output("was", g.max_over(ids, &[0], false));
    g
}

#[test]
fn a_refused_step_of_one_session_leaves_the_set_as_it_was_and_names_its_own_index_whoever_changes_it_then() {
    for t in devices::all() {
        for indices in [3, 40_000] {
            let mut looks = compile(&t, &look_up(indices)).init(&Weights::new()).unwrap();
            let states = looks.shared_states();
            let mut sets = share(&compile(&t, &set_ids(indices)), &looks);
            let ids = |v: i32| Tensor::from_vec([indices], vec![v; indices]).unwrap();
            let count = || states.read("count").unwrap().to_vec::<i32>().unwrap()[0];
            looks.step().unwrap();
            assert_eq!(looks.read_output::<f32>("sum").unwrap(), [0.0]);
            // who changes the indices before anybody has heard of the refusal: a session, the set, the set begun anew
            let ways: [&mut dyn FnMut(); 3] = [
                &mut || {
                    sets.set_input("to", &[2i32]).unwrap();
                    sets.step().unwrap();
                },
                &mut || states.write("ids", &ids(2)).unwrap(),
                &mut || {
                    let kept = states.read("count").unwrap();
                    states.reset().unwrap();
                    states.write("count", &kept).unwrap();
                    states.write("ids", &ids(2)).unwrap();
                },
            ];
            for (n, change) in ways.into_iter().enumerate() {
                let bad = 99 + n as i32;
                states.write("ids", &ids(bad)).unwrap();
                let stepped = looks.step();
                change();
                let e = stepped.and_then(|()| looks.wait()).expect_err("refused");
                let named =
                    matches!(&e, Error::IndexOutOfRange { index, limit: 10, .. } if *index == i64::from(bad));
                assert!(named, "{}, {indices} indices, way {n}: {e}", t.name());
                assert_eq!(count(), 1 + n as i32, "{}", t.name());
                looks.step().unwrap();
                let sum = looks.read_output::<f32>("sum").unwrap();
                assert_eq!((sum[0], count()), (2.0 * indices as f32, 2 + n as i32), "{}", t.name());
            }
        }
        // a put outside its state, with other sessions' steps before and after it
        let mut one = compile(&t, &writer(1)).init(&Weights::new()).unwrap();
        let mut four = share(&compile(&t, &writer(4)), &one);
        write(&mut one, 0, 1);
        let before = held(&one.shared_states());
        four.set_input("x", &[9.0f32; 4 * WIDTH]).unwrap();
        four.set_input("position", &[CAPACITY as u32 - 2]).unwrap();
        let e = four.step().and_then(|()| four.wait()).expect_err("refused");
        assert!(matches!(e, Error::IndexOutOfRange { step: Some(1), limit: CAPACITY, .. }), "{e}");
        assert_eq!(held(&one.shared_states()), before, "{}", t.name());
        write(&mut one, 1, 1);
        assert_eq!(one.read_state("rows").unwrap().to_f64(), [2.0]);
    }
}

#[test]
fn what_observes_a_step_may_not_ask_for_its_states_or_weights_and_others_wait_until_it_is_done() {
    for t in devices::all() {
        let g = counter(1, 3);
        g.output("w", g.neg(g.parameter("w", [1])));
        let mut s = compile(&t, &g).init_zeros().unwrap();
        let (states, mut other) = (s.shared_states(), share(&compile(&t, &g), &s));
        let (mut seen, weights) = (0, s.parameters());
        s.observe(|_| {
            seen += 1;
            assert!(matches!(states.read("count"), Err(Error::Argument { what, .. }) if what == "states"));
            assert!(matches!(states.reset(), Err(Error::Argument { .. })));
            assert!(matches!(weights.to_weights(), Err(Error::Argument { what, .. }) if what == "weights"));
            assert!(matches!(other.step(), Err(Error::Argument { .. })));
            assert!(matches!(other.set_parameter("w", &[1.0f32]), Err(Error::Argument { .. })));
            Ok(())
        })
        .unwrap();
        assert!(seen > 0);
        other.step().unwrap();
        assert_eq!(states.read("count").unwrap().to_vec::<i32>().unwrap(), [2; 3], "{}", t.name());
    }
}

#[test]
fn random_steps_refusals_reads_writes_and_resets_over_one_set_are_those_of_a_model_of_it() {
    for t in devices::all() {
        let rows = [4, 1, 2];
        let compiled = rows.map(|rows| compile(&t, &writer(rows)));
        for seed in 0..if t.is_cpu() { 60 } else { 12 } {
            let mut drawn = 0;
            let mut draw = |n: usize| {
                drawn += 1;
                (uniform(philox_word(seed, 5, drawn)) * n as f64) as usize
            };
            let first = compiled[0].init(&Weights::new()).unwrap();
            let states = first.shared_states();
            let mut sessions: Vec<Session> = compiled.iter().map(|c| share(c, &first)).collect();
            // what the caches hold, how many rows were written; per session its steps, and which refused ones are untold
            let (mut model, mut written) = (vec![0.0f32; CAPACITY * WIDTH], 0.0);
            let (mut steps, mut untold) = ([0u64; 3], [vec![], vec![], vec![]]);
            for n in 0..50 {
                let at = draw(3);
                let (s, rows) = (&mut sessions[at], rows[at]);
                match draw(12) {
                    0..=6 => {
                        let from = draw(CAPACITY + 2);
                        let x: Vec<f32> = (n..n + rows).flat_map(row).collect();
                        s.set_input("x", &x).unwrap();
                        s.set_input("position", &[from as u32]).unwrap();
                        let stepped = s.step();
                        steps[at] += 1;
                        let good = from + rows <= CAPACITY;
                        if good {
                            model[from * WIDTH..(from + rows) * WIDTH].copy_from_slice(&x);
                            written += rows as f64;
                        }
                        match (good || !t.is_cpu(), stepped) {
                            (true, Ok(())) if good => {}
                            (true, Ok(())) => untold[at].push(steps[at]),
                            (false, Err(Error::IndexOutOfRange { step, .. })) => {
                                assert_eq!(step, Some(steps[at]))
                            }
                            (_, other) => panic!("{}, seed {seed}, {n}: {other:?}", t.name()),
                        }
                    }
                    7 | 8 => {
                        for step in untold[at].drain(..) {
                            let told = s.wait().expect_err("refused");
                            assert!(
                                matches!(told, Error::IndexOutOfRange { step: Some(told), .. } if told == step)
                            );
                        }
                        s.wait().unwrap();
                    }
                    9 => {
                        model.iter_mut().for_each(|v| *v = draw(9) as f32);
                        for dtype in DTYPES {
                            let to = |v: &f32| {
                                f64::from(if dtype == DType::Bool { (*v > 0.0).into() } else { *v })
                            };
                            let ty = TensorType::new(dtype, [CAPACITY, WIDTH]);
                            let all: Vec<f64> = model.iter().map(to).collect();
                            states.write(&name(dtype), &Tensor::from_f64(&ty, &all).unwrap()).unwrap();
                        }
                    }
                    10 => {
                        if draw(2) == 0 {
                            states.reset().unwrap()
                        } else {
                            s.reset_state().unwrap()
                        }
                        (model, written) = (vec![0.0; CAPACITY * WIDTH], 0.0);
                    }
                    _ => {
                        for (what, came) in held(&states) {
                            let to = |v: &f32| {
                                f64::from(if what == "cache.bool" { (*v > 0.0).into() } else { *v })
                            };
                            let wanted: Vec<f64> = match what.as_str() {
                                "rows" => vec![written],
                                _ => model.iter().map(to).collect(),
                            };
                            assert_eq!(came, wanted, "{}, seed {seed}, {n}: {what}", t.name());
                        }
                    }
                }
            }
            let own = held(&states).into_iter().find(|s| s.0 == "cache.f32").unwrap().1;
            assert!(own.iter().zip(&model).all(|(a, b)| *a == f64::from(*b)), "{}, seed {seed}", t.name());
        }
    }
}
