//! Learning rates, decays and epsilons that would ruin weights are refused before they are used.

use super::{devices, shrinking};
use crate::By;
use weft::error::Error;
use weft::session::Optimizer;

const RATES: [f32; 5] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.1, -1e-30];
const DECAYS: [f32; 6] = [1.0, 1.5, -0.1, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
const EPSILONS: [f32; 4] = [-1e-8, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

fn adam(rate: f32, beta1: f32, beta2: f32, epsilon: f32) -> Optimizer {
    let o = Optimizer::adam(rate).with("beta1", beta1).unwrap();
    o.with("beta2", beta2).unwrap().with("epsilon", epsilon).unwrap()
}

fn wrong() -> Vec<(Optimizer, &'static str)> {
    let mut all = vec![];
    for v in RATES {
        all.push((Optimizer::sgd(v), "learning rate"));
        all.push((adam(v, 0.9, 0.999, 1e-8), "learning rate"));
    }
    for v in DECAYS {
        all.push((adam(0.1, v, 0.999, 1e-8), "beta1"));
        all.push((adam(0.1, 0.9, v, 1e-8), "beta2"));
    }
    all.extend(EPSILONS.map(|v| (adam(0.1, 0.9, 0.999, v), "epsilon")));
    all
}

#[test]
fn settings_that_ruin_weights_are_refused_and_leave_the_optimizer_as_it_was() {
    for t in devices::all() {
        let mut s = shrinking(&t, By::Input, Optimizer::sgd(0.1));
        super::give(&mut s, "id", By::Input, 0);
        s.step().unwrap();
        for (optimizer, what) in wrong() {
            match s.set_optimizer(optimizer.clone()) {
                Err(Error::Argument { what: who, .. }) if who == what => {}
                other => panic!("{optimizer:?} on {}: {other:?}", t.name()),
            }
        }
        for rate in RATES {
            let refused = s.set_learning_rate(rate);
            assert!(matches!(&refused, Err(Error::Argument { .. })), "{rate} on {}: {refused:?}", t.name());
        }
        s.step().unwrap();
        s.step().unwrap();
        let w = s.read_parameter::<f32>("w").unwrap()[0];
        assert!((w - 0.512).abs() < 1e-6, "{w} on {}", t.name());
        // the ends of what is allowed
        let most = 1.0f32.next_down();
        for optimizer in [Optimizer::sgd(0.0), adam(0.0, 0.0, 0.0, 0.0), adam(0.1, most, most, 1.0)] {
            s.set_optimizer(optimizer).unwrap();
            s.step().unwrap();
        }
        assert!(s.read_parameter::<f32>("w").unwrap()[0].is_finite());
    }
}
