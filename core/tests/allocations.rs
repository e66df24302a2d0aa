//! A step allocates nothing. Alone in its program, so that no other test allocates at the same time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use weft::device::Device;
use weft::graph::Graph;
use weft::models::{Encoder, mlp};
use weft::session::{Compiler, Optimizer, Session};
use weft::tensor::DType;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, p: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(p, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of the second of two steps.
fn allocations(s: &mut Session) -> usize {
    s.step().unwrap();
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    s.step().unwrap();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn a_step_allocates_nothing() {
    let g = Graph::new();
    let x = g.input("x", DType::F32, [12, 6]);
    let labels = g.input("labels", DType::U32, [12]);
    g.set_loss(g.cross_entropy(mlp(&g, x, &[6, 16, 3]), labels, Default::default()));
    let mut trained = Compiler::new(&Device::cpu(2)).compile_training(&g).unwrap().init_zeros().unwrap();
    trained.set_optimizer(Optimizer::adam(0.01)).unwrap();
    trained.set_input("x", &(0..72).map(|i| i as f32 * 0.01).collect::<Vec<_>>()).unwrap();
    trained.set_input::<u32>("labels", &[1; 12]).unwrap();
    assert_eq!(allocations(&mut trained), 0, "a training step allocates");

    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/models/minilm");
    let mut forward = Encoder::open(folder, &Device::cpu(2)).unwrap().forward_session(1, 8).unwrap();
    forward.set_input::<u32>("input_ids", &[101, 1996, 4937, 7719, 2648, 102, 0, 0]).unwrap();
    forward.set_input::<u32>("token_type_ids", &[0; 8]).unwrap();
    forward.set_input("attention_mask", &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]).unwrap();
    assert_eq!(allocations(&mut forward), 0, "a forward step allocates");
}
