//! Optimizers on every device against formulas in f64 that are written here anew, and those against what PyTorch and the
//! authors' formulas gave (`tests/golden/optimizers.py`); many tensors of odd sizes, element by element. Their states are read,
//! written, saved and restored; an optimizer is one declaration.

mod declared;
#[path = "../devices/mod.rs"]
mod devices;
mod formulas;
mod limits;
mod recorded;
mod states;
mod trained;

use devices::Tested;
use formulas::Formula;
use weft::graph::Graph;
use weft::optimizer::{Optimizer, ParameterGroup};
use weft::session::{Compiled, Session};
use weft::tensor::DType;

/// A parameter: its name and shape.
pub type Shape = (&'static str, &'static [usize]);

/// Small tensors of odd sizes: what is recorded.
pub const SMALL: &[Shape] = &[
    ("scalar", &[]),
    ("one", &[1]),
    ("seven", &[7]),
    ("matrix", &[33, 5]),
    ("thousand", &[1003]),
    ("cube", &[3, 4, 5]),
    ("column", &[130, 1]),
    ("row", &[1, 6]),
    ("kernels", &[2, 3, 3, 2]),
];

/// Larger ones: several parts, rows and columns in several pieces, a length that is no multiple of 4.
pub const LARGE: &[Shape] = &[
    ("long", &[70_003]),
    ("wide", &[3, 20_011]),
    ("tall", &[9_001, 3]),
    ("square", &[257, 301]),
    ("many", &[500, 3, 3]),
];

/// A number in −1 to 1, of 24 bits, for an element of a tensor at a step; step 0 is the parameter itself.
pub fn number(tensor: usize, step: usize, i: usize) -> f32 {
    let mut x = (tensor as u32).wrapping_mul(0x9E37_79B1)
        ^ (step as u32).wrapping_mul(0x85EB_CA77)
        ^ (i as u32).wrapping_mul(0xC2B2_AE3D);
    x = (x ^ x >> 15).wrapping_mul(0x2C1B_3C6D);
    x = (x ^ x >> 12).wrapping_mul(0x297A_2D39);
    x ^= x >> 15;
    (x >> 8) as f32 / 8_388_608.0 - 1.0
}

/// The gradient of an element at a step: of sizes from 1/64 to 1.
pub fn gradient(tensor: usize, step: usize, i: usize) -> f32 {
    number(tensor, step, i) / (1 << (i % 7)) as f32
}

/// Elements of a shape.
pub fn count(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// A graph whose loss has the inputs `g.NAME` as the gradients of the parameters.
pub fn graph(shapes: &[Shape]) -> Graph {
    let g = Graph::new();
    let mut loss = g.scalar(0.0, DType::F32);
    for (name, shape) in shapes {
        let p = g.parameter(name, shape.to_vec());
        let c = g.input(&format!("g.{name}"), DType::F32, shape.to_vec());
        let axes: Vec<i64> = (0..shape.len() as i64).collect();
        let product = g.mul(p, c);
        loss = g.add(loss, if axes.is_empty() { product } else { g.sum(product, &axes, false) });
    }
    g.set_loss(loss);
    g
}

/// That graph for training on a device.
pub fn compiled(t: &Tested, shapes: &[Shape]) -> Compiled {
    t.compiler().compile_training(&graph(shapes)).unwrap()
}

/// A session whose parameters are the numbers of step 0.
pub fn session(compiled: &Compiled, shapes: &[Shape], optimizer: &Optimizer) -> Session {
    let mut s = compiled.init_zeros().unwrap();
    for (t, (name, shape)) in shapes.iter().enumerate() {
        let all: Vec<f32> = (0..count(shape)).map(|i| number(t, 0, i)).collect();
        s.set_parameter(name, &all).unwrap();
    }
    s.set_optimizer(optimizer.clone()).unwrap();
    s
}

/// One step with its gradients.
pub fn step(s: &mut Session, shapes: &[Shape], step: usize) {
    for (t, (name, shape)) in shapes.iter().enumerate() {
        let all: Vec<f32> = (0..count(shape)).map(|i| gradient(t, step, i)).collect();
        s.set_input(&format!("g.{name}"), &all).unwrap();
    }
    s.step().unwrap();
}

/// Optimizers with settings, by the names under which they are recorded.
pub fn optimizers() -> Vec<(&'static str, Optimizer)> {
    let with = |o: Optimizer, all: &[(&str, f32)]| {
        all.iter().fold(o, |o, (name, value)| o.with(name, *value).unwrap())
    };
    vec![
        ("sgd", Optimizer::sgd(0.1)),
        ("sgd_decay", with(Optimizer::sgd(0.1), &[("weight_decay", 0.1)])),
        ("sgd_momentum", with(Optimizer::sgd(0.1), &[("momentum", 0.9)])),
        (
            "sgd_nesterov",
            with(Optimizer::sgd(0.1), &[("momentum", 0.9), ("nesterov", 1.0), ("weight_decay", 0.01)]),
        ),
        ("adam", Optimizer::adam(0.01)),
        ("adam_decay", with(Optimizer::adam(0.01), &[("beta2", 0.99), ("weight_decay", 0.1)])),
        ("adamw", with(Optimizer::adamw(0.01), &[("weight_decay", 0.1)])),
        ("laprop", Optimizer::laprop(0.01)),
        ("laprop_decay", with(Optimizer::laprop(0.01), &[("weight_decay", 0.003)])),
        ("lion", with(Optimizer::lion(0.01), &[("weight_decay", 0.1)])),
        ("adafactor", Optimizer::adafactor(0.05)),
        (
            "adafactor_decay",
            with(
                Optimizer::adafactor(0.05),
                &[("weight_decay", 0.1), ("beta2_decay", -0.7), ("epsilon2", 0.7)],
            ),
        ),
    ]
}

/// A session's parameters are those of formulas, within rounding: an f32 step rounds the parameter once, by half a unit of its
/// last place, and with weight decay the factor and the product too; and the step, by some units of its own.
pub fn check(s: &Session, shapes: &[Shape], formulas: &[Formula], steps: usize, who: &str) {
    for ((name, _), f) in shapes.iter().zip(formulas) {
        let came = s.read_parameter::<f32>(name).unwrap();
        for (i, came) in came.iter().enumerate() {
            let (wanted, ulp) = (f.p[i], f64::from(f32::EPSILON));
            let allowed = ulp * (0.5 * f.roundings * steps as f64 * f.largest[i] + f.units * f.path[i]);
            let off = (f64::from(*came) - wanted).abs();
            assert!(
                off <= allowed,
                "{name}[{i}], {who}: {came} where {wanted} is right, {allowed:e} allowed"
            );
        }
    }
}

#[test]
fn twenty_steps_are_those_of_the_formula_on_every_device() {
    let shapes = [SMALL, LARGE].concat();
    for t in devices::all() {
        let compiled = compiled(&t, &shapes);
        for (name, optimizer) in optimizers() {
            let mut s = session(&compiled, &shapes, &optimizer);
            let mut formulas: Vec<Formula> =
                (0..shapes.len()).map(|i| Formula::new(&optimizer, i, shapes[i].1)).collect();
            for n in 1..=20 {
                step(&mut s, &shapes, n);
                formulas.iter_mut().for_each(|f| f.step(n));
                if n == 1 {
                    check(&s, &shapes, &formulas, n, &format!("{name}, step 1 on {}", t.name()));
                }
            }
            check(&s, &shapes, &formulas, 20, &format!("{name}, step 20 on {}", t.name()));
        }
    }
}

#[test]
fn groups_have_their_own_rate_and_decay() {
    for t in devices::all() {
        let compiled = compiled(&t, SMALL);
        for optimizer in [Optimizer::adamw(0.01), Optimizer::sgd(0.05), Optimizer::adafactor(0.05)] {
            let decay = optimizer.clone().with("weight_decay", 0.1).unwrap();
            let grouped = decay
                .clone()
                .group(ParameterGroup::new(["seven", "matrix"]).weight_decay(0.0))
                .group(ParameterGroup::new(["thousand"]).rate(0.25));
            let mut s = session(&compiled, SMALL, &grouped);
            let none = decay.clone().with("weight_decay", 0.0).unwrap();
            let slow =
                Optimizer::of(decay.rule(), decay.learning_rate() * 0.25).with("weight_decay", 0.1).unwrap();
            let mut formulas: Vec<Formula> = SMALL
                .iter()
                .enumerate()
                .map(|(i, (name, shape))| match *name {
                    "seven" | "matrix" => Formula::new(&none, i, shape),
                    "thousand" => Formula::new(&slow, i, shape),
                    _ => Formula::new(&decay, i, shape),
                })
                .collect();
            for n in 1..=5 {
                step(&mut s, SMALL, n);
                formulas.iter_mut().for_each(|f| f.step(n));
            }
            check(&s, SMALL, &formulas, 5, &format!("groups of {:?} on {}", decay.rule(), t.name()));
        }
    }
}

#[test]
fn the_learning_rate_changes_from_step_to_step() {
    for t in devices::all() {
        let compiled = compiled(&t, SMALL);
        for (name, optimizer) in optimizers() {
            if name.starts_with("laprop") {
                continue; // its mean has the rate of each step in it: below
            }
            let mut s = session(&compiled, SMALL, &optimizer);
            let mut formulas: Vec<Formula> =
                (0..SMALL.len()).map(|i| Formula::new(&optimizer, i, SMALL[i].1)).collect();
            for n in 1..=6 {
                let rate = 0.02 / n as f32;
                s.set_learning_rate(rate).unwrap();
                step(&mut s, SMALL, n);
                formulas.iter_mut().for_each(|f| {
                    f.rate = f64::from(rate);
                    f.step(n);
                });
            }
            check(&s, SMALL, &formulas, 6, &format!("{name} with other rates on {}", t.name()));
        }
    }
}
