//! Training graphs with states of their own: running means that the loss uses, a cache that a step puts into, look-ups that
//! refuse steps.

use super::devices;
use weft::error::Error;
use weft::graph::Graph;
use weft::optimizer::Optimizer;
use weft::tensor::DType;

const RATE: f32 = 0.1;

/// The loss is Σ w·(x − running mean) over rows of a table; the running mean moves towards the rows' mean, `last` keeps the ids.
fn graph(computed: bool) -> Graph {
    let g = Graph::new();
    let table = g.parameter("table", [5, 3]);
    let ids = g.input("ids", DType::I32, [4]);
    let ids = if computed { g.add(ids, g.scalar(1.0, DType::I32)) } else { ids };
    let x = g.embedding(table, ids);
    let mean = g.mean(x, &[0], false);
    let running = g.state("running", DType::F32, [3]);
    let next = g.add(g.mul(running, g.scalar(0.75, DType::F32)), g.mul(mean, g.scalar(0.25, DType::F32)));
    g.set_state(running, next);
    // a state changed in place, by a put at a place that the host gives
    let log = g.state("log", DType::F32, [6, 3]);
    let place = g.input("place", DType::U32, [1]);
    g.set_state(log, g.put(log, place, g.reshape(mean, &[1, 3]), 0));
    let centred = g.sub(x, running);
    g.set_loss(g.mean(g.mul(centred, centred), &[0, 1], false));
    g.output("running now", running);
    g
}

/// The same by hand, in f64.
struct ByHand {
    table: Vec<f64>,
    running: [f64; 3],
    log: [f64; 18],
}

impl ByHand {
    fn step(&mut self, ids: &[usize; 4], place: usize) {
        let mut gradient = [0.0; 15];
        let mut mean = [0.0; 3];
        for &id in ids {
            for j in 0..3 {
                let x = self.table[id * 3 + j];
                gradient[id * 3 + j] += 2.0 * (x - self.running[j]) / 12.0;
                mean[j] += x / 4.0;
            }
        }
        for (j, mean) in mean.into_iter().enumerate() {
            self.running[j] = 0.75 * self.running[j] + 0.25 * mean;
            self.log[place * 3 + j] = mean;
        }
        self.table.iter_mut().zip(gradient).for_each(|(p, g)| *p -= f64::from(RATE) * g);
    }
}

#[test]
fn training_changes_states_as_inference_does_and_refused_steps_change_none() {
    for t in devices::all() {
        for computed in [false, true] {
            let shift = i32::from(computed);
            let compiled = t.compiler().compile_training(&graph(computed)).unwrap();
            let mut s = compiled.init_zeros().unwrap();
            let table: Vec<f32> = (0..15).map(|i| super::number(3, 0, i)).collect();
            s.set_parameter("table", &table).unwrap();
            s.set_optimizer(Optimizer::sgd(RATE)).unwrap();
            let mut hand = ByHand {
                table: table.iter().map(|v| f64::from(*v)).collect(),
                running: [0.0; 3],
                log: [0.0; 18],
            };
            let steps: [([usize; 4], usize); 6] = [
                ([0, 1, 2, 3], 0),
                ([4, 4, 0, 2], 5),
                ([9, 1, 1, 1], 2), // no row of the table
                ([3, 2, 3, 1], 2),
                ([3, 2, 3, 1], 6), // no place of the log
                ([1, 0, 4, 4], 5),
            ];
            for (ids, place) in steps {
                s.set_input("ids", &ids.map(|i| i as i32 - shift)).unwrap();
                s.set_input("place", &[place as u32]).unwrap();
                let done = s.step().and_then(|()| s.wait());
                match ids[0] < 5 && place < 6 {
                    true => {
                        done.unwrap();
                        hand.step(&ids, place);
                    }
                    false => assert!(matches!(done, Err(Error::IndexOutOfRange { .. })), "{done:?}"),
                }
                let who = format!("{ids:?} on {}, computed: {computed}", t.name());
                let near = |came: &[f64], wanted: &[f64], what: &str| {
                    for (came, wanted) in came.iter().zip(wanted) {
                        assert!((came - wanted).abs() < 2e-6, "{what} after {who}: {came}, {wanted}");
                    }
                };
                let came: Vec<f64> =
                    s.read_parameter::<f32>("table").unwrap().iter().map(|v| f64::from(*v)).collect();
                near(&came, &hand.table, "table");
                near(&s.read_state("running").unwrap().to_f64(), &hand.running, "running");
                near(&s.read_state("log").unwrap().to_f64(), &hand.log, "log");
            }
            assert_eq!(s.optimizer_steps().unwrap(), 4);
            // a second session over the same weights has states of its own
            let other = compiled.init_shared(&s.parameters()).unwrap();
            assert_eq!(other.read_state("running").unwrap().to_f64(), [0.0; 3]);
        }
    }
}
