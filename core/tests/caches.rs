//! Llama graphs over a paged cache, against Hugging Face's own logits (tests/golden/llama_tiny.py): in chunks of any size,
//! several sequences at once, truncated and continued, in 16 bits, with blocks in any order.

mod devices;

use devices::Tested;
use std::path::Path;
use weft::error::Error;
use weft::load;
use weft::models::{CacheConfig, Llama, LlamaConfig, Logits, RopeScaling, SequenceId, Sequences, StepConfig};
use weft::prelude::*;
use weft::session::Session;

/// Products and attention behind a logit: six a layer (two of them attention's), and the head.
const DEPTH: usize = 13;
const BATCH: usize = 2;
const SEQ: usize = 11;

struct Golden {
    config: LlamaConfig,
    weights: Weights,
    ids: Vec<u32>,
    logits: Vec<f64>,
}

fn golden() -> Golden {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let json = std::fs::read(folder.join("llama_tiny.json")).unwrap();
    let all = load::safetensors(folder.join("llama_tiny.safetensors")).unwrap();
    let model = |n: &str| n.starts_with("model.") || n == "lm_head.weight";
    Golden {
        config: LlamaConfig::from_json(&serde_json::from_slice(&json).unwrap()).unwrap(),
        weights: all.iter().filter(|(n, _)| model(n)).map(|(n, t)| (n.to_string(), t.clone())).collect(),
        ids: all.get("ids").unwrap().to_f64().iter().map(|&v| v as u32).collect(),
        logits: all.get("logits").unwrap().to_f64(),
    }
}

impl Golden {
    fn ids(&self, row: usize) -> &[u32] {
        &self.ids[row * SEQ..][..SEQ]
    }

    fn logits(&self, row: usize, position: usize) -> &[f64] {
        let n = self.config.vocabulary;
        &self.logits[(row * SEQ + position) * n..][..n]
    }

    fn session(&self, t: &Tested, cache: &CacheConfig, step: &StepConfig, logits: Logits) -> Session {
        let g = Graph::new();
        g.output("logits", Llama::new(&self.config).step(&g, cache, step, logits));
        let compiled = t.compiler().compile(&g).unwrap();
        // every cache is changed in place
        assert!(compiled.plan().states.iter().all(|s| s.next == Some(s.buffer)));
        compiled.init(&self.weights).unwrap()
    }
}

/// The largest difference, in units of the largest wanted.
fn off(came: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(came.len(), wanted.len());
    let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(largest > 1e-4, "nothing to compare with");
    came.iter().zip(wanted).fold(0.0f64, |m, (a, b)| m.max((f64::from(*a) - b).abs())) / largest
}

/// Runs a step and hands back its logits, `vocabulary` of them at a time.
fn logits(
    s: &mut Session,
    all: &mut Sequences,
    step: &StepConfig,
    work: &[(SequenceId, &[u32])],
) -> Vec<Vec<f32>> {
    let vocabulary = s.outputs()[0].shape.last().copied().unwrap();
    all.append(step, work).unwrap().set(s).unwrap();
    s.step().unwrap();
    s.read_output::<f32>("logits").unwrap().chunks(vocabulary).map(<[f32]>::to_vec).collect()
}

/// What a cache of that dtype may be off by.
fn tolerance(t: &Tested, dtype: DType) -> f64 {
    let stored = match dtype {
        DType::F16 => 2e-3,
        DType::BF16 => 1.6e-2,
        _ => 1e-5,
    };
    t.tolerance_behind(DEPTH, stored)
}

#[test]
fn chunks_of_any_size_are_the_whole_at_once() {
    let golden = golden();
    for t in devices::all() {
        for (block, dtype) in
            [(4, DType::F32), (1, DType::F32), (64, DType::F32), (4, DType::F16), (4, DType::BF16)]
        {
            let cache = CacheConfig::new(3 * SEQ).block(block).dtype(dtype);
            for tokens in [1, 3, 4, SEQ, 2 * SEQ] {
                let step = StepConfig::new(&cache, tokens);
                let mut s = golden.session(&t, &cache, &step, Logits::All);
                let mut all = Sequences::new(&cache);
                for row in 0..BATCH {
                    let id = all.open();
                    let mut position = 0;
                    for chunk in golden.ids(row).chunks(tokens) {
                        for came in logits(&mut s, &mut all, &step, &[(id, chunk)]).iter().take(chunk.len()) {
                            let off = off(came, golden.logits(row, position));
                            let what =
                                format!("{tokens} at a time, blocks of {block}, {dtype}, on {}", t.name());
                            assert!(
                                off < tolerance(&t, dtype),
                                "row {row}, position {position}, {what}: {off}"
                            );
                            position += 1;
                        }
                    }
                    // the next sequence finds blocks that held this one's
                    all.close(id).unwrap();
                }
            }
        }
    }
}

#[test]
fn several_sequences_of_one_step_do_not_meet() {
    let golden = golden();
    for t in devices::all() {
        let cache = CacheConfig::new(48).block(2);
        let step = StepConfig::new(&cache, 3).sequences(3).blocks(6);
        let mut s = golden.session(&t, &cache, &step, Logits::Last);
        let mut all = Sequences::new(&cache);
        let ids = [all.open(), all.open(), all.open()];
        let rows = [0, 1, 0];
        let mut done = [0; 3];
        // each goes on by its own number of tokens, in any place, or not at all
        let mut turn = 0;
        while done.iter().any(|n| *n < SEQ) {
            let mut work = vec![];
            for at in 0..3 {
                let which = (at + turn) % 3;
                let more = [(turn % 3 + 1), 2, (turn + which) % 4][which].min(SEQ - done[which]).min(3);
                if more > 0 {
                    work.push((which, done[which]..done[which] + more));
                }
            }
            turn += 1;
            if work.is_empty() {
                continue;
            }
            let given: Vec<_> =
                work.iter().map(|(w, range)| (ids[*w], &golden.ids(rows[*w])[range.clone()])).collect();
            let came = logits(&mut s, &mut all, &step, &given);
            for ((which, range), came) in work.into_iter().zip(came) {
                let off = off(&came, golden.logits(rows[which], range.end - 1));
                assert!(
                    off < tolerance(&t, DType::F32),
                    "sequence {which} to {range:?} on {}: {off}",
                    t.name()
                );
                done[which] = range.end;
            }
        }
    }
}

#[test]
fn a_sequence_that_is_cut_back_goes_on_as_if_nothing_had_come() {
    let golden = golden();
    for t in devices::all() {
        let cache = CacheConfig::new(16).block(4);
        let step = StepConfig::new(&cache, 4);
        let mut s = golden.session(&t, &cache, &step, Logits::Last);
        let mut all = Sequences::new(&cache);
        let id = all.open();
        let right = golden.ids(0);
        logits(&mut s, &mut all, &step, &[(id, &right[..4])]);
        logits(&mut s, &mut all, &step, &[(id, &right[4..6])]);
        logits(&mut s, &mut all, &step, &[(id, &[1, 2, 3])]);
        logits(&mut s, &mut all, &step, &[(id, &[4, 5, 6, 7])]);
        all.truncate(id, 6).unwrap();
        assert_eq!((all.length(id).unwrap(), all.free_blocks()), (6, 2));
        let came = logits(&mut s, &mut all, &step, &[(id, &right[6..9])]);
        let off = off(&came[0], golden.logits(0, 8));
        assert!(off < tolerance(&t, DType::F32), "on {}: {off}", t.name());
    }
}

#[test]
fn a_step_that_is_refused_leaves_the_cache_as_it_was() {
    let golden = golden();
    for t in devices::all() {
        let cache = CacheConfig::new(16).block(4);
        let step = StepConfig::new(&cache, 2);
        let mut s = golden.session(&t, &cache, &step, Logits::Last);
        let mut all = Sequences::new(&cache);
        let id = all.open();
        for chunk in golden.ids(0)[..8].chunks(2) {
            logits(&mut s, &mut all, &step, &[(id, chunk)]);
        }
        let before: Vec<Vec<u8>> =
            s.states().to_vec().iter().map(|p| s.read_state(&p.name).unwrap().bytes().to_vec()).collect();
        let good = all.clone().append(&step, &[(id, &golden.ids(0)[8..10])]).unwrap();
        for (what, index) in [("a token", 9_999), ("a row", 16), ("a block", 4)] {
            let mut bad = good.clone();
            match what {
                "a token" => bad.ids[1] = 9_999,
                "a row" => bad.rows[1] = 16,
                _ => bad.table[1] = 4,
            }
            bad.set(&mut s).unwrap();
            let e = s.step().and_then(|()| s.wait()).unwrap_err();
            assert!(
                matches!(e, Error::IndexOutOfRange { index: i, .. } if i == index),
                "{what} on {}: {e}",
                t.name()
            );
            let after: Vec<Vec<u8>> =
                s.states().to_vec().iter().map(|p| s.read_state(&p.name).unwrap().bytes().to_vec()).collect();
            assert!(before == after, "{what} on {}", t.name());
        }
        good.set(&mut s).unwrap();
        s.step().unwrap();
        let off = off(&s.read_output::<f32>("logits").unwrap(), golden.logits(0, 9));
        assert!(off < tolerance(&t, DType::F32), "on {}: {off}", t.name());
    }
}

#[test]
fn scaled_rotary_embeddings_have_tables_by_position() {
    let golden = golden();
    let scalings = [
        RopeScaling::Linear { factor: 2.0 },
        RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, length: 16.0 },
        RopeScaling::Yarn { factor: 4.0, attention: 1.2, from: 0.5, to: 2.5 },
    ];
    let cpu = Tested { device: Device::cpu(2), precision: Precision::Full };
    for rope_scaling in scalings {
        let model =
            Golden { config: LlamaConfig { rope_scaling, ..golden.config.clone() }, ..self::golden() };
        let g = Graph::new();
        let ids = g.input("ids", DType::U32, [1, SEQ]);
        g.output("logits", Llama::new(&model.config).forward(&g, ids, Logits::Last));
        let mut whole = cpu.compiler().compile(&g).unwrap().init(&model.weights).unwrap();
        let wanted = whole.run(&[("ids", &golden.ids(1).to_vec())]).unwrap().read::<f32>("logits").unwrap();
        let wanted: Vec<f64> = wanted.iter().map(|v| f64::from(*v)).collect();
        let cache = CacheConfig::new(24).block(4);
        // beside another sequence, so that positions are of both
        let step = StepConfig::new(&cache, 4).sequences(2).blocks(3);
        let mut s = model.session(&cpu, &cache, &step, Logits::Last);
        let mut all = Sequences::new(&cache);
        let [other, id] = [all.open(), all.open()];
        let mut last = vec![];
        for (n, chunk) in golden.ids(1).chunks(4).enumerate() {
            last = logits(&mut s, &mut all, &step, &[(other, &golden.ids(0)[n..=n]), (id, chunk)]);
        }
        assert!(off(&last[1], &wanted) < 1e-5, "{rope_scaling:?}: {}", off(&last[1], &wanted));
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_added() {
    let cache = CacheConfig::new(16).block(4);
    let step = StepConfig::new(&cache, 3).sequences(2).blocks(2);
    let mut all = Sequences::new(&cache);
    let (a, b, c) = (all.open(), all.open(), all.open());
    let mut refused = |work: &[(SequenceId, &[u32])], what: &str| {
        let before = all.clone();
        let e = all.append(&step, work).unwrap_err();
        assert!(matches!(&e, Error::Argument { .. }) && e.to_string().contains(what), "{e}");
        assert_eq!(before.free_blocks(), all.free_blocks());
    };
    refused(&[], "1 to 2 sequences");
    refused(&[(a, &[1]), (b, &[1]), (c, &[1])], "1 to 2 sequences");
    refused(&[(a, &[1]), (a, &[1])], "twice");
    refused(&[(a, &[])], "1 to 3 tokens");
    refused(&[(a, &[1]), (b, &[1, 2, 3, 4])], "1 to 3 tokens");
    for _ in 0..2 {
        all.append(&step, &[(a, &[1, 2, 3])]).unwrap();
    }
    all.append(&step, &[(a, &[1, 2])]).unwrap();
    let e = all.append(&step, &[(a, &[1])]).unwrap_err();
    assert!(e.to_string().contains("at most 8 tokens") && e.to_string().contains("1 after 8"), "{e}");
    all.append(&step, &[(b, &[1, 2, 3]), (c, &[1])]).unwrap();
    let d = all.open();
    let e = all.append(&step, &[(d, &[1])]).unwrap_err();
    assert!(
        e.to_string().contains("1 free blocks of 4 tokens") && e.to_string().contains("0 free of 4"),
        "{e}"
    );
    all.close(a).unwrap();
    assert!(all.close(a).is_err() && all.length(a).is_err() && all.truncate(a, 0).is_err());
    assert!(all.truncate(b, 4).is_err());
    assert_eq!(all.free_blocks(), 2);
    // the next one has its place, and is another
    let next = all.open();
    assert!(next != a && all.length(a).is_err());
    assert_eq!(all.length(next).unwrap(), 0);
}

#[test]
fn sessions_of_several_sizes_work_on_one_cache() {
    let golden = golden();
    for t in devices::all() {
        for dtype in [DType::F32, DType::F16] {
            let cache = CacheConfig::new(2 * SEQ + 2).block(3).dtype(dtype);
            let sizes = [
                StepConfig::new(&cache, 1),
                StepConfig::new(&cache, 7),
                StepConfig::new(&cache, 128),
                StepConfig::new(&cache, 1).sequences(2),
            ];
            let mut sessions: Vec<Session> = vec![];
            for step in &sizes {
                let g = Graph::new();
                g.output("logits", Llama::new(&golden.config).step(&g, &cache, step, Logits::Last));
                let compiled = t.compiler().compile(&g).unwrap();
                sessions.push(match sessions.first() {
                    None => compiled.init(&golden.weights).unwrap(),
                    Some(first) => {
                        compiled.init_shared_states(&first.parameters(), &first.shared_states()).unwrap()
                    }
                });
            }
            let mut all = Sequences::new(&cache);
            let ids = [all.open(), all.open()];
            // a prompt in one chunk of up to 128, the other in sevens; answers one by one; then both at once
            let parts = [(0, 2, 5), (1, 1, 7), (0, 0, 1), (1, 1, 2), (0, 1, 4)];
            let mut done = [0, 0];
            for (row, size, n) in parts {
                let chunk = &golden.ids(row)[done[row]..done[row] + n];
                let came = logits(&mut sessions[size], &mut all, &sizes[size], &[(ids[row], chunk)]);
                done[row] += n;
                let off = off(&came[0], golden.logits(row, done[row] - 1));
                assert!(off < tolerance(&t, dtype), "row {row} to {done:?}, {dtype}, on {}: {off}", t.name());
            }
            let work = [0, 1].map(|row| (ids[row], &golden.ids(row)[done[row]..=done[row]]));
            let came = logits(&mut sessions[3], &mut all, &sizes[3], &work);
            for row in 0..2 {
                let off = off(&came[row], golden.logits(row, done[row]));
                assert!(off < tolerance(&t, dtype), "row {row} at once, {dtype}, on {}: {off}", t.name());
            }
        }
    }
}
