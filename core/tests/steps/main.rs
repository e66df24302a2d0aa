//! A refused step has no effect, and later valid steps count, on every device: states updated in place and copied, parameters,
//! optimizers; indices that are inputs, and indices that the step computes.

#[path = "../devices/mod.rs"]
mod devices;

mod life;
mod random;
mod settings;

use devices::Tested;
use weft::error::{Error, Result};
use weft::graph::{Graph, Value};
use weft::internals::plan::{IndexKind, IndexWork};
use weft::internals::target::gpu::forms::Work;
use weft::session::{Optimizer, Session};
use weft::tensor::{DType, Tensor, TensorType, Weights};

/// What a refused step says, whenever the device says it.
fn told(s: &mut Session) -> Error {
    s.step().and_then(|()| s.wait()).expect_err("a step that must be refused")
}

/// A step that a device may only refuse later.
fn bad_step(s: &mut Session) -> Result<()> {
    match s.step() {
        Err(Error::IndexOutOfRange { .. }) | Ok(()) => Ok(()),
        other => other,
    }
}

fn state(s: &Session, name: &str) -> Vec<f64> {
    s.read_state(name).unwrap().to_f64()
}

/// Indices of a look-up: as they are given, or computed in the step.
#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Input,
    /// From floats, so that no host knows them before.
    Computed,
    /// More than travels inside a step.
    Large,
}

const SOURCES: [By; 3] = [By::Input, By::Computed, By::Large];

/// How many indices `By::Large` has: 65,536 bytes is what travels inside a step.
const LARGE: usize = 16_400;

fn count(from: By) -> usize {
    if from == By::Large { LARGE } else { 1 }
}

/// An input of one index, and what a look-up takes.
fn index(g: &Graph, name: &str, from: By) -> Value {
    match from {
        By::Input => g.input(name, DType::I32, [1]),
        By::Computed => g.cast(g.input(name, DType::F32, [1]), DType::I32),
        By::Large => g.input(name, DType::I32, [LARGE]),
    }
}

fn give(s: &mut Session, name: &str, from: By, value: i32) {
    match from {
        By::Computed => s.set_input(name, &[value as f32]).unwrap(),
        _ => s.set_input::<i32>(name, &vec![value; count(from)]).unwrap(),
    }
}

fn session(t: &Tested, g: &Graph) -> Session {
    t.compiler().compile(g).unwrap().init_zeros().unwrap()
}

/// A cache of 4 rows, filled by a `put`; a state that counts, copied; a look-up apart from both.
fn cache(put_by: By, look_by: By) -> Graph {
    let g = Graph::new();
    let cache = g.state("cache", DType::F32, [4, 2]);
    let at = match put_by {
        By::Large => g.narrow(index(&g, "at", put_by), 0, 7, 1),
        _ => index(&g, "at", put_by),
    };
    let row = g.input("row", DType::F32, [1, 2]);
    let next = g.put(cache, at, row, 0);
    g.set_state(cache, next);
    let n = g.state("n", DType::F32, [3]);
    let table = g.constant_f32(&[5, 3], (0..15).map(|i| i as f32).collect());
    let looked = g.name(g.embedding(table, index(&g, "id", look_by)), "words");
    let more = g.add(n, g.mean(looked, &[0], false));
    g.set_state(n, more);
    g.output("sum", g.sum(next, &[0], false));
    g.output("n.now", more);
    g
}

#[test]
fn a_refused_step_changes_no_state_in_place_or_copied() {
    for t in devices::all() {
        for (put_by, look_by) in SOURCES.into_iter().flat_map(|a| SOURCES.map(|b| (a, b))) {
            let who = format!("{}, put by {put_by:?}, look-up by {look_by:?}", t.name());
            let mut s = session(&t, &cache(put_by, look_by));
            let set = |s: &mut Session, at: i32, id: i32, row: f32| {
                give(s, "at", put_by, at);
                give(s, "id", look_by, id);
                s.set_input("row", &[row, row + 0.5]).unwrap();
            };
            for row in 0..4 {
                set(&mut s, row, 1, row as f32 + 1.0);
                s.step().unwrap();
            }
            s.wait().unwrap();
            let (full, n) = ([1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5], [12.0, 16.0, 20.0]);
            assert_eq!((state(&s, "cache"), state(&s, "n")), (full.to_vec(), n.to_vec()), "{who}");
            // past its end; before its beginning; a word that is none
            for (at, id, index, limit) in [(4, 2, 4, 4), (-1, 2, -1, 4), (0, 5, 5, 5), (1, -7, -7, 5)] {
                set(&mut s, at, id, 9.0);
                match told(&mut s) {
                    Error::IndexOutOfRange { index: i, limit: l, .. } if (i, l) == (index, limit) => {}
                    e => panic!("{e}; {who}"),
                }
                let now = (state(&s, "cache"), state(&s, "n"));
                assert_eq!(now, (full.to_vec(), n.to_vec()), "({at}, {id}) on {who}");
                for _ in 0..2 {
                    let e = s.read_output::<f32>("sum").expect_err("outputs of a refused step");
                    let said = format!("index {index} at position");
                    assert!(matches!(e, Error::NotRun { .. }) && e.to_string().contains(&said), "{e}; {who}");
                }
            }
            // the next good one counts
            set(&mut s, 2, 0, 7.0);
            s.step().unwrap();
            assert_eq!(
                s.read_output::<f32>("sum").unwrap(),
                [1.0 + 2.0 + 7.0 + 4.0, 1.5 + 2.5 + 7.5 + 4.5],
                "{who}"
            );
            assert_eq!(s.read_output::<f32>("n.now").unwrap(), [12.0, 17.0, 22.0], "{who}");
        }
    }
}

#[test]
fn good_steps_after_a_bad_one_count_before_anybody_waits() {
    for t in devices::all() {
        for (put_by, look_by) in SOURCES.into_iter().flat_map(|a| SOURCES.map(|b| (a, b))) {
            let mut s = session(&t, &cache(put_by, look_by));
            s.set_input("row", &[1.0, 2.0]).unwrap();
            for (at, id) in [(0, 1), (4, 1), (1, 1), (2, 9), (3, 0), (-2, 8)] {
                give(&mut s, "at", put_by, at);
                give(&mut s, "id", look_by, id);
                bad_step(&mut s).unwrap();
            }
            let who = format!("{}, put by {put_by:?}, look-up by {look_by:?}", t.name());
            assert_eq!(state(&s, "cache"), [1.0, 2.0, 1.0, 2.0, 0.0, 0.0, 1.0, 2.0], "{who}");
            assert_eq!(state(&s, "n"), [6.0, 9.0, 12.0], "{who}");
        }
    }
}

#[test]
fn each_refusal_names_its_own_step_node_position_and_index() {
    for t in devices::all() {
        for from in [By::Input, By::Large, By::Computed] {
            let g = Graph::new();
            let table = g.constant_f32(&[5, 1], (0..5).map(|i| i as f32).collect());
            let n = if from == By::Large { LARGE } else { 3 };
            let ids = match from {
                By::Computed => g.cast(g.input("ids", DType::F32, [n]), DType::I64),
                _ => g.input("ids", DType::I32, [n]),
            };
            g.output("y", g.sum_all(g.name(g.embedding(table, ids), "words")));
            let mut s = session(&t, &g);
            let mut errors = vec![];
            for ids in [[1, 2, 3], [0, 9, 17], [4, 4, 4], [1, 1, -6], [0, 0, 0]] {
                let mut all = vec![0i32; n];
                all[n - 3..].copy_from_slice(&ids);
                match from {
                    By::Computed => {
                        s.set_input("ids", &all.iter().map(|&i| i as f32).collect::<Vec<_>>()).unwrap();
                    }
                    _ => s.set_input::<i32>("ids", &all).unwrap(),
                }
                errors.extend(s.step().err());
            }
            while let Err(e) = s.wait() {
                errors.push(e);
            }
            let said: Vec<String> = errors.iter().map(Error::to_string).collect();
            let place = |at: usize| n - 3 + at;
            let wanted = [(9, place(1), 2), (-6, place(2), 4)].map(|(index, position, step)| {
                format!("index {index} at position {position} is outside 0..5 (node \"words\", step {step})")
            });
            assert_eq!(said, wanted, "{from:?} on {}", t.name());
            // and the last step was good
            assert_eq!(s.read_output::<f32>("y").unwrap(), [0.0]);
        }
    }
}

#[test]
fn a_position_that_is_itself_a_state_stops_at_the_end_of_the_cache() {
    for t in devices::all() {
        let g = Graph::new();
        let at = g.state("at", DType::I32, [1]);
        g.set_state(at, g.add(at, g.scalar(1.0, DType::I32)));
        let cache = g.state("cache", DType::F32, [3, 2]);
        let next = g.put(cache, at, g.input("row", DType::F32, [1, 2]), 0);
        g.set_state(cache, next);
        g.output("sum", g.sum(next, &[0], false));
        let mut s = session(&t, &g);
        for row in 0..6 {
            s.set_input("row", &[row as f32 + 1.0, 0.25]).unwrap();
            bad_step(&mut s).unwrap();
        }
        assert_eq!(state(&s, "cache"), [1.0, 0.25, 2.0, 0.25, 3.0, 0.25], "{}", t.name());
        assert_eq!(state(&s, "at"), [3.0], "{}", t.name());
        let e = told(&mut s);
        assert!(matches!(e, Error::IndexOutOfRange { index: 3, position: 0, limit: 3, .. }), "{e}");
    }
}

/// Whether a state is changed where it is, by a `put`.
fn in_place(s: &Session, state: &str) -> bool {
    let plan = s.compiled().plan();
    let port = plan.states.iter().find(|p| p.name == state).unwrap();
    let puts = |w: &IndexWork| w.kind == IndexKind::TakePut && w.out.buffer == port.buffer;
    port.next == Some(port.buffer)
        && plan.steps.iter().any(|step| matches!(&step.work, Work::Index(w) if puts(w)))
}

#[test]
fn caches_are_copied_only_where_they_must_be() {
    for t in devices::all() {
        for (put_by, look_by) in SOURCES.into_iter().flat_map(|a| SOURCES.map(|b| (a, b))) {
            let s = session(&t, &cache(put_by, look_by));
            assert!(in_place(&s, "cache"), "put by {put_by:?}, look-up by {look_by:?}");
        }
        // what depends on the cache may yet refuse the step
        let g = Graph::new();
        for (name, reads) in [("read", true), ("left", false)] {
            let cache = g.state(name, DType::F32, [4]);
            let next = g.put(
                cache,
                g.input(&format!("{name}.at"), DType::I32, [1]),
                g.input(&format!("{name}.x"), DType::F32, [1]),
                0,
            );
            g.set_state(cache, next);
            g.output(&format!("{name}.sum"), g.sum_all(next));
            if reads {
                let which = g.reshape(g.cast(g.sum_all(next), DType::I32), &[1]);
                g.output("y", g.embedding(g.constant_f32(&[6, 1], vec![1.0; 6]), which));
            }
        }
        let s = session(&t, &g);
        assert_eq!([in_place(&s, "read"), in_place(&s, "left")], [false, true]);
    }
}

const CACHES: [&str; 4] = ["a", "b", "c", "d"];

/// Caches filled at the same place, which a state holds or an input gives.
fn caches(held: bool) -> Graph {
    let g = Graph::new();
    let at = if held { g.state("at", DType::I32, [1]) } else { g.input("at", DType::I32, [1]) };
    if held {
        g.set_state(at, g.add(at, g.scalar(1.0, DType::I32)));
    }
    let row = g.input("row", DType::F32, [1, 2]);
    let mut sum = g.scalar(0.0, DType::F32);
    for name in CACHES {
        let cache = g.state(name, DType::F32, [3, 2]);
        let next = g.put(cache, at, row, 0);
        g.set_state(cache, next);
        sum = g.add(sum, g.sum_all(next));
    }
    g.output("sum", sum);
    g
}

#[test]
fn a_place_that_a_state_holds_is_checked_once_for_all_caches() {
    for t in devices::all() {
        let (mut s, mut given) = (session(&t, &caches(true)), session(&t, &caches(false)));
        let is_check = |work: &Work| matches!(work, Work::Index(w) if w.kind == IndexKind::Check);
        let checks =
            |s: &Session| s.compiled().plan().steps.iter().filter(|step| is_check(&step.work)).count();
        assert_eq!((checks(&s), checks(&given)), (1, 0));
        assert!(CACHES.iter().all(|name| in_place(&s, name)));
        // the check, and what the place becomes: the puts still share a dispatch
        let (more, least) = (s.dispatches(), given.dispatches());
        assert!(
            more <= least + 2 + usize::from(t.device.as_gpu().is_none()),
            "{more} dispatches or steps, {least} without, on {}",
            t.name()
        );
        for step in 0..5 {
            s.set_input("row", &[step as f32 + 1.0, -0.5]).unwrap();
            bad_step(&mut s).unwrap();
        }
        for name in CACHES {
            assert_eq!(state(&s, name), [1.0, -0.5, 2.0, -0.5, 3.0, -0.5], "{name} on {}", t.name());
        }
        assert_eq!(state(&s, "at"), [3.0]);
    }
}

#[test]
fn a_look_up_by_what_a_cache_has_become_is_checked_before_the_cache_is_kept() {
    for t in devices::all() {
        let g = Graph::new();
        let cache = g.state("cache", DType::F32, [4]);
        let next = g.put(cache, g.input("at", DType::I32, [1]), g.input("x", DType::F32, [1]), 0);
        g.set_state(cache, next);
        // the sum of all that was put is a row of a table
        let table = g.constant_f32(&[6, 1], (0..6).map(|i| i as f32 * 10.0).collect());
        let which = g.reshape(g.cast(g.sum_all(next), DType::I32), &[1]);
        g.output("y", g.name(g.embedding(table, which), "words"));
        let mut s = session(&t, &g);
        let put = |s: &mut Session, at: i32, x: f32| {
            s.set_input::<i32>("at", &[at]).unwrap();
            s.set_input("x", &[x]).unwrap();
        };
        put(&mut s, 0, 2.0);
        s.step().unwrap();
        put(&mut s, 1, 3.0);
        s.step().unwrap();
        assert_eq!(s.read_output::<f32>("y").unwrap(), [50.0], "{}", t.name());
        put(&mut s, 3, 4.0);
        let e = told(&mut s);
        assert!(matches!(e, Error::IndexOutOfRange { index: 9, limit: 6, .. }), "{e}");
        assert_eq!(state(&s, "cache"), [2.0, 3.0, 0.0, 0.0], "{}", t.name());
        put(&mut s, 0, 1.0);
        s.step().unwrap();
        assert_eq!(s.read_output::<f32>("y").unwrap(), [40.0], "{}", t.name());
    }
}

#[test]
fn indices_that_the_graph_or_its_weights_hold_are_checked_too() {
    for t in devices::all() {
        for (constant, trained, by_input) in [
            (true, false, true),
            (true, false, false),
            (true, true, false),
            (false, false, true),
            (false, false, false),
        ] {
            let who =
                format!("constant {constant}, trained {trained}, of an input {by_input}, on {}", t.name());
            let g = Graph::new();
            let table = match by_input {
                true => g.input("table", DType::F32, [5, 2]),
                false => g.parameter("table", [5, 2]),
            };
            let ids = vec![1i32, 4, 11];
            let which = match constant {
                true => g.constant(Tensor::from_vec([3], ids.clone()).unwrap()),
                false => g.parameter_of("which", TensorType::new(DType::I32, [3]), false),
            };
            let rows = g.name(g.index_select(table, which, 0), "rows");
            if trained {
                g.set_loss(g.sum_all(rows));
            } else {
                let n = g.state("n", DType::F32, [3, 2]);
                g.set_state(n, g.add(n, rows));
            }
            g.output("y", g.neg(rows));
            let mut weights = Weights::new();
            weights.insert("table", Tensor::from_vec([5, 2], vec![1.0f32; 10]).unwrap());
            weights.insert("which", Tensor::from_vec([3], ids).unwrap());
            let compiled = match trained {
                true => t.compiler().compile_training(&g).unwrap(),
                false => t.compiler().compile(&g).unwrap(),
            };
            // what runs once refuses the session, what runs in each step refuses that
            let refused = match compiled.init(&weights) {
                Err(e) => e,
                Ok(mut s) => {
                    if trained {
                        s.set_optimizer(Optimizer::sgd(0.5)).unwrap();
                    }
                    if by_input {
                        s.set_input("table", &[1.0; 10]).unwrap();
                    }
                    let e = told(&mut s);
                    assert!(matches!(s.read_output::<f32>("y"), Err(Error::NotRun { .. })), "{who}");
                    match trained {
                        true => assert_eq!(s.read_parameter::<f32>("table").unwrap(), [1.0; 10], "{who}"),
                        false => assert_eq!(state(&s, "n"), [0.0; 6], "{who}"),
                    }
                    e
                }
            };
            let wanted =
                |e: &Error| matches!(e, Error::IndexOutOfRange { index: 11, position: 2, limit: 5, .. });
            assert!(wanted(&refused), "{refused}; {who}");
        }
    }
}

/// One weight whose loss is w², and a look-up that adds nothing to it.
fn shrinking(t: &Tested, from: By, optimizer: Optimizer) -> Session {
    let g = Graph::new();
    let w = g.parameter("w", [1]);
    let table = g.constant_f32(&[3, 1], vec![0.0; 3]);
    let nothing = g.mean_all(g.embedding(table, index(&g, "id", from)));
    g.set_loss(g.add(g.sum_all(g.mul(w, w)), nothing));
    let mut s = t.compiler().compile_training(&g).unwrap().init_zeros().unwrap();
    s.set_parameter("w", &[1.0]).unwrap();
    s.set_optimizer(optimizer).unwrap();
    s
}

#[test]
fn sgd_makes_every_good_step_and_no_bad_one() {
    for t in devices::all() {
        for from in SOURCES {
            let mut s = shrinking(&t, from, Optimizer::sgd(0.1));
            for id in [7, 0, 1, -1, 2] {
                give(&mut s, "id", from, id);
                bad_step(&mut s).unwrap();
            }
            let w = s.read_parameter::<f32>("w").unwrap()[0];
            assert!((w - 0.512).abs() < 1e-6, "{w} on {}, {from:?}", t.name());
        }
    }
}

#[test]
fn adam_counts_good_steps_alone() {
    for t in devices::all() {
        for from in SOURCES {
            let (mut met, mut never) =
                (shrinking(&t, from, Optimizer::adam(0.1)), shrinking(&t, from, Optimizer::adam(0.1)));
            for id in [9, 9, 1, 3, 0, 2, -4, 1] {
                give(&mut met, "id", from, id);
                bad_step(&mut met).unwrap();
                if (0..3).contains(&id) {
                    give(&mut never, "id", from, id);
                    never.step().unwrap();
                }
            }
            let [a, b] = [&met, &never].map(|s| s.read_parameter::<f32>("w").unwrap()[0].to_bits());
            assert_eq!(a, b, "{} and {} on {}, {from:?}", f32::from_bits(a), f32::from_bits(b), t.name());
        }
    }
}
