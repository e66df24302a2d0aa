//! Invariants of the generated texts. Tests on devices check that they compute attention.

use super::{Hole, Input, Kernel, Lanes, Limits, Problem, Vectors, backward, forward};

fn problems() -> Vec<Problem> {
    let of = |[b, h, h_kv, l, s, d, d_v]: [usize; 7], causal, masked| Problem {
        b,
        h,
        h_kv,
        l,
        s,
        d,
        d_v,
        scale: 0.125,
        causal,
        window: 0,
        masked,
        paged: false,
        softmax_stats: false,
        vectors: Vectors { q: true, k: true, v: true, up: true, out: true },
    };
    let heads = [1, 3, 16, 32, 64, 80, 128, 256, 700];
    let mut all: Vec<Problem> = heads.iter().map(|&d| of([2, 6, 2, 37, 65, d, d], true, false)).collect();
    let lengths = [1, 16, 128, 1500, 4096];
    all.extend(lengths.iter().map(|&l| of([1, 9, 3, l, l.max(129), 64, 64], true, true)));
    all.push(of([300, 64, 64, 128, 128, 64, 48], false, true));
    let kept: Vec<Problem> = all.iter().map(|p| Problem { softmax_stats: true, ..p.clone() }).collect();
    // paged keys: one token at a time, chunks, large capacities, heads of odd sizes
    let sizes = [[1, 64, 256], [4, 64, 4096], [2, 128, 40_000], [128, 64, 4096], [33, 80, 4096], [1, 7, 300]];
    let paged = sizes.map(|[l, d, s]| Problem { paged: true, ..of([2, 6, 2, l, s, d, d], false, false) });
    [all, kept, paged.to_vec()].concat()
}

fn limits() -> Vec<Limits> {
    let of = |shared, units, software| Limits {
        shared,
        threads: 256,
        units,
        software,
        coop: 0,
        subgroup: 32,
        fast: false,
        turns: 1 << 15,
        scratch: 128 << 20,
    };
    let fast = Limits { coop: 16, fast: true, ..of(49_152, 132, false) };
    vec![of(16_384, 8, false), of(49_152, 132, false), of(32_768, 4, true), fast]
}

fn check(each: impl Fn(&Problem, &Limits, &Kernel, bool)) {
    for p in problems() {
        for limits in limits() {
            each(&p, &limits, &forward(&p, &limits), false);
            if !p.paged {
                each(&p, &limits, &backward(&p, &limits), true);
            }
        }
    }
}

/// The holes called in a text.
fn called(text: &str) -> Vec<String> {
    let calls = |name: &str| {
        let call = format!("{name}(");
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.match_indices(&call).any(|(at, _)| !text[..at].ends_with(inside))
    };
    let inputs = [Input::Q, Input::K, Input::V, Input::Up, Input::Out];
    let loads = inputs.into_iter().flat_map(|i| [Lanes::One, Lanes::Four].map(|n| Hole::Load(i, n)));
    let others = [
        Hole::LoadMask,
        Hole::LengthOf,
        Hole::Store,
        Hole::StoreDq,
        Hole::StoreDk,
        Hole::StoreDv,
        Hole::PartStore,
        Hole::PartLoad,
        Hole::StatStore,
        Hole::StatLoad,
        Hole::SoftmaxStatsStore,
        Hole::SoftmaxStatsLoad,
    ];
    loads.chain(others).map(Hole::name).filter(|name| calls(name)).collect()
}

#[test]
fn passes_list_the_holes_that_they_call() {
    check(|p, limits, kernel, _| {
        for pass in &kernel.passes {
            let listed: Vec<String> = pass.holes.iter().map(|h| h.name()).collect();
            assert_eq!(listed, called(&pass.text.all), "{p:?} on {limits:?}");
        }
    });
}

#[test]
fn passes_keep_within_the_limits_of_the_device() {
    check(|p, limits, kernel, _| {
        for pass in &kernel.passes {
            assert!(pass.text.shared <= limits.shared, "{p:?} on {limits:?}: {}", pass.text.shared);
            assert!(pass.text.threads <= limits.threads, "{p:?}: {} threads", pass.text.threads);
            assert!(pass.workgroups.iter().all(|n| (1..=65_535).contains(n)), "{p:?}: {:?}", pass.workgroups);
            assert_eq!(pass.text.all.matches("@compute").count(), 1);
        }
    });
}

#[test]
fn every_pass_stores_and_calls_only_the_holes_of_its_kernel() {
    check(|p, _, kernel, back| {
        let mut stored: Vec<String> = vec![];
        for pass in &kernel.passes {
            let names: Vec<String> = pass.holes.iter().map(|h| h.name()).collect();
            let has = |name: &str| names.iter().any(|n| n == name);
            assert!(
                names.iter().any(|n| n.contains("store")),
                "{p:?}: a pass that stores nothing: {names:?}"
            );
            assert!(p.masked || !has("load_mask"));
            assert!(!names.iter().any(|n| n.starts_with(if back { "part" } else { "stat" })), "{names:?}");
            let vectors = |width: usize, name: &str| width.is_multiple_of(4) && has(name);
            assert!(!vectors(p.d, "load_q") && !vectors(p.d_v, "load_v"), "single loads: {names:?}");
            stored.extend(names.into_iter().filter(|n| n.starts_with("store")));
        }
        let wanted: &[&str] = if back { &["store_dk", "store_dv", "store_dq"] } else { &["store"] };
        assert_eq!(stored, wanted, "{p:?}");
        assert!(kernel.scratch > 0 || !back || p.softmax_stats);
        let holes: Vec<Hole> = kernel.passes.iter().flat_map(|pass| pass.holes.clone()).collect();
        let keeps = holes.contains(if back { &Hole::SoftmaxStatsLoad } else { &Hole::SoftmaxStatsStore });
        assert_eq!(keeps, p.softmax_stats, "{p:?}: {holes:?}");
    });
}

#[test]
fn keys_of_few_queries_are_split_over_a_large_device() {
    let p = &problems()[9];
    assert_eq!((p.l, p.s), (1, 129));
    let long = Problem { s: 4096, ..p.clone() };
    let kernel = forward(&long, &limits()[1]);
    assert_eq!(kernel.passes.len(), 2);
    assert!(kernel.passes[0].workgroups[0] > 3, "{:?}", kernel.passes[0].workgroups);
}

#[test]
fn matrices_are_for_the_fast_precision_and_for_sizes_that_they_fit() {
    let limits = limits().remove(3);
    let of =
        |[b, h, h_kv, l, s, d, d_v]: [usize; 7]| Problem { b, h, h_kv, l, s, d, d_v, ..problems().remove(0) };
    let taken = |z: [usize; 7], limits: &Limits| {
        let kernel = forward(&of(z), limits);
        let enables = kernel.passes[0].enables;
        assert_eq!(kernel.passes[0].text.all.contains("coop_mat16x16"), !enables.is_empty());
        !enables.is_empty()
    };
    let usual = [1, 9, 3, 128, 128, 64, 64];
    assert!(taken(usual, &limits) && taken([32, 12, 12, 128, 128, 32, 32], &limits));
    assert!(taken([1, 2, 1, 40, 300, 48, 112], &limits) && taken([4, 32, 8, 2048, 2048, 128, 128], &limits));
    for z in [[1, 9, 3, 15, 128, 64, 64], [1, 9, 3, 128, 128, 72, 64], [1, 9, 3, 128, 128, 64, 256]] {
        assert!(!taken(z, &limits), "{z:?}");
    }
    // few workgroups with many keys use the split form
    assert!(!taken([1, 9, 3, 16, 4096, 64, 64], &limits));
    let lacking = [
        Limits { fast: false, ..limits.clone() },
        Limits { coop: 0, ..limits.clone() },
        Limits { subgroup: 0, ..limits.clone() },
        Limits { shared: 16_384, ..limits.clone() },
    ];
    assert!(lacking.iter().all(|limits| !taken(usual, limits)));
}
