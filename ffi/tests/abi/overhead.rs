//! The overhead of a call through C compared with the engine's own interface: the fastest of many rounds on each side.

use crate::tools::{folder, program, root, run};
use engine::device::Device;
use engine::graph::Graph;
use engine::session::Compiler;
use std::collections::HashMap;
use std::process::Command;
use std::time::Instant;

/// Nanoseconds of an empty step through the engine's own interface.
fn empty_step() -> f64 {
    let g = Graph::parse("weft 1\nconst c: f32[1] = [1.0]\noutput y = c\n").unwrap();
    let mut session = Compiler::new(&Device::cpu(1)).compile(&g).unwrap().init_zeros().unwrap();
    let round = |_| {
        let from = Instant::now();
        (0..1000).for_each(|_| session.step().unwrap());
        from.elapsed().as_nanos() as f64 / 1000.0
    };
    (0..300).map(round).fold(f64::INFINITY, f64::min)
}

#[test]
fn an_empty_step_costs_little_more_than_in_rust_and_lent_inputs_are_not_copied() {
    let built = program(&root().join("tests/abi/overhead.c"), &folder("overhead").join("overhead"), &["-O2"]);
    let said = run(&mut Command::new(built));
    let all: HashMap<&str, f64> =
        said.lines().filter_map(|l| l.split_once(' ')).map(|(n, v)| (n, v.parse().unwrap())).collect();
    let (c, rust) = (all["step"], empty_step());
    println!(
        "an empty step: {c:.0} ns through C, {rust:.0} ns in Rust; 4 MB: copied in {:.0} ns, lent in {:.0} ns",
        all["copied"], all["lent"]
    );
    assert!(c - rust < 200.0, "{c} ns through C, {rust} ns in Rust");
    // an input of that size cannot be copied in this time
    assert!(all["lent"] * 20.0 < all["copied"], "copied in {} ns, lent in {} ns", all["copied"], all["lent"]);
}
