//! Refused allocations, at every place where the engine allocates much: packed weights, a session's values, scratch, the
//! optimizer's states. The error names the purpose; the process is not aborted.

#![cfg(target_os = "linux")]

mod addresses;
mod child;

use std::collections::BTreeSet;
use std::ffi::c_int;
use weft::device::{Device, Optimizer};
use weft::error::{Error, Result};
use weft::graph::Graph;
use weft::session::{Compiled, Compiler};
use weft::tensor::{DType, Tensor, Weights};

/// What a child says by its exit status of what was refused; `DONE` if nothing was.
const WHATS: &[&str] = &[
    "arena",
    "input, output",
    "constant",
    "scratch",
    "packed weight",
    "weight",
    "optimizer's state",
    "set of states",
];
const DONE: usize = 40;

/// Runs `work` in a child that gets `more` bytes from where `prepare` left it.
fn with_memory<T>(more: u64, prepare: fn() -> T, work: fn(T) -> Result<()>) -> usize {
    let (signal, status) = child::in_a_child(|| {
        let prepared = prepare();
        // small things come of what the allocator has: only large ones are refused
        let mut small: Vec<Vec<u8>> = (0..4096).map(|_| vec![1; 1000]).collect();
        small.swap(0, 4095);
        small.truncate(1);
        let told = match addresses::with_addresses(more, || work(prepared)) {
            Ok(()) => DONE,
            Err(Error::OutOfMemory { what, wanted }) if wanted > 0 => {
                WHATS.iter().position(|w| what.contains(w)).unwrap_or_else(|| panic!("of what? {what}"))
            }
            Err(e) => panic!("{e}"),
        };
        drop(small);
        told as c_int + 1
    });
    assert_eq!(signal, 0, "killed by signal {signal} with {more} bytes");
    assert_ne!(status, 99, "the child panicked with {more} bytes");
    status as usize - 1
}

/// Large enough that the allocator asks the system for each: it keeps what is smaller.
const N: usize = 4096;
const ROWS: usize = 16;

fn weights() -> Weights {
    let w: Vec<f32> = (0..N * N).map(|i| (i % 7) as f32 * 1e-3).collect();
    [("w".to_string(), Tensor::from_vec([N, N], w).unwrap())].into_iter().collect()
}

fn network() -> Graph {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [ROWS, N]);
    let w = g.parameter("w", [N, N]);
    let y = g.softmax(g.matmul(x, w), -1);
    let kept = g.state("kept", DType::F32, [N, N]);
    g.set_state(kept, g.add(kept, w));
    g.output("y", y);
    g.set_loss(g.mean(g.mul(y, y), &[0, 1], false));
    g
}

fn training() -> (Compiled, Weights) {
    let device = Device::open("cpu", 2).unwrap();
    (Compiler::new(&device).compile_training(&network()).unwrap(), weights())
}

fn train((compiled, weights): (Compiled, Weights)) -> Result<()> {
    let mut s = compiled.init(&weights)?;
    s.set_optimizer(Optimizer::adam(1e-3))?;
    s.set_input("x", &vec![0.5; ROWS * N])?;
    s.step()?;
    s.step()
}

#[test]
fn whatever_memory_is_refused_the_error_says_for_what() {
    let mut met = BTreeSet::new();
    for more in (0..800).step_by(8) {
        let told = with_memory(more << 20, training, train);
        met.insert(WHATS.get(told).copied().unwrap_or("nothing"));
        if told == DONE {
            break;
        }
    }
    println!("refused: {met:?}");
    for what in ["nothing", "optimizer's state", "input, output", "set of states"] {
        assert!(met.contains(what), "{what} is not among {met:?}");
    }
}
