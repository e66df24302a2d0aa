//! Dispatches of optimizers: every element is updated once, and the parts of a level do not race.

use super::*;
use crate::optimizer::Optimizer;

/// Limits with bindings of so many bytes.
fn limits(binding: usize) -> Limits {
    Limits { binding, ..Limits::least() }
}

fn training(optimizer: Optimizer, sizes: &[usize]) -> Training {
    let shapes: Vec<Vec<usize>> = sizes.iter().map(|n| vec![*n]).collect();
    let names: Vec<String> = (0..sizes.len()).map(|i| format!("p{i}")).collect();
    let all: Vec<(&str, &[usize])> =
        names.iter().zip(&shapes).map(|(n, s)| (n.as_str(), s.as_slice())).collect();
    Training::new(optimizer, &all).unwrap()
}

/// Applies p −= g, s₀ += 1 and s₁ −= 1 according to the batches' records.
fn run(batches: &[Batch], heaps: &mut [Vec<f32>; 4], chunk: usize) {
    for b in batches {
        let from = b.from.map(|at| at / 4);
        for r in b.records.chunks_exact(b.records.len() / b.parts) {
            let [p, g, s, n, distance] = [0, 1, 2, 3, 4].map(|i| r[i] as usize);
            assert!(n <= EACH);
            for i in 0..n {
                let (p, g) = (from[0] + p * 4 + i, from[1] + g * 4 + i);
                assert_eq!(from[0] * 4 / chunk, p * 4 / chunk, "one binding covers it");
                assert_eq!(from[1] * 4 / chunk, g * 4 / chunk, "one binding covers it");
                heaps[0][p] -= heaps[1 + usize::from(b.own)][g];
                for (k, by) in [(0, 1.0), (1, -1.0)] {
                    let s = from[2] + s * 4 + k * distance * 4 + i;
                    assert_eq!(from[2] * 4 / chunk, s * 4 / chunk, "one binding covers it");
                    heaps[3][s] += by;
                }
            }
        }
    }
}

#[test]
fn every_element_changes_once_by_its_own_gradient() {
    let chunk = 64 << 10;
    let sizes = [1usize, 3, 4, 4097, 16_384, 40_000, 9, 70_000];
    let (mut placed, mut at, mut wanted) = (vec![], [0usize; 4], vec![]);
    let mut heaps = [0; 4].map(|_| vec![0.0f32; 1 << 20]);
    for (i, &elements) in sizes.iter().enumerate() {
        let (own, offset) = (i % 2 == 1, if i % 3 == 1 { 12 } else { 0 });
        // pieces of one heap's chunks each, as `memory::place` lays them
        let mut lay = |heap: usize, elements: usize, most: usize, times: usize| -> Vec<usize> {
            let mut pieces = vec![];
            let mut left = elements * 4;
            while left > 0 {
                let bytes = left.min(most);
                let taken = bytes.next_multiple_of(16) * times;
                if at[heap] % chunk + taken > chunk {
                    at[heap] = at[heap].next_multiple_of(chunk);
                }
                pieces.push(at[heap]);
                at[heap] = (at[heap] + taken).next_multiple_of(256);
                left -= bytes;
            }
            pieces
        };
        let parameter = lay(0, elements, chunk, 1);
        let gradient = lay(1 + usize::from(own), elements + offset, chunk, 1);
        let states = lay(3, elements, unit(2, chunk) * 4, 2);
        let find = |pieces: &[usize], n: usize| pieces[n * 4 / chunk] / 4 + n % (chunk / 4);
        for n in 0..elements {
            let value = (i * 100_000 + n) as f32;
            heaps[1 + usize::from(own)][find(&gradient, n + offset)] = value;
            wanted.push((find(&parameter, n), -value));
        }
        let alone = i == 5;
        placed.push(Placed { parameter, gradient, offset, own, alone, states, ..Placed::default() });
    }
    let batches = arrange(&training(Optimizer::adam(0.1), &sizes), &placed, &limits(chunk));
    run(&batches, &mut heaps, chunk);
    for (at, value) in &wanted {
        assert_eq!(heaps[0][*at], *value);
    }
    let changed = heaps[0].iter().filter(|v| **v != 0.0).count();
    assert_eq!(changed, wanted.iter().filter(|w| w.1 != 0.0).count());
    let times = |by: f32| heaps[3].iter().filter(|v| **v == by).count();
    let all: usize = sizes.iter().sum();
    assert_eq!((times(1.0), times(-1.0), times(0.0)), (all, all, (1 << 20) - 2 * all));
}

#[test]
fn what_one_block_holds_is_one_dispatch() {
    let place = |i: usize| Placed {
        parameter: vec![i * 4096],
        gradient: vec![i * 4096 + 256],
        alone: i == 7,
        ..Placed::default()
    };
    let placed: Vec<Placed> = (0..20).map(place).collect();
    let training = training(Optimizer::sgd(0.1), &[1000; 20]);
    let batches = arrange(&training, &placed, &limits(1 << 30));
    assert_eq!(batches.len(), 2);
    assert_eq!(batches[1].from[1], 7 * 4096 + 256);
    assert_eq!(arrange(&training, &placed, &limits(8192)).len(), 11);
}

#[test]
fn every_value_of_a_mean_is_in_one_piece_of_its_sum() {
    for (count, sums, to) in [
        (1, 1, Span::Whole),
        (5, 33, Span::Row),
        (33, 5, Span::Column),
        (3, 7, Span::Matrix),
        (100_000, 1, Span::Whole),
        (1000, 300, Span::Column),
        (28_311_552, 1, Span::Whole),
    ] {
        for threads in [256, 64, 1] {
            let limits = Limits { threads, ..Limits::least() };
            let Some(cut) = cut(count, sums, to, &limits) else {
                assert!(count > threads * TURNS * 64, "{count} of {sums} by {threads}");
                continue;
            };
            let parts = threads / cut.width;
            assert!(parts * cut.width == threads && cut.length.div_ceil(parts) <= TURNS);
            assert!(cut.pieces <= PIECES && (cut.pieces - 1) * cut.length < count);
            assert!(cut.pieces * cut.length >= count);
        }
    }
    assert_eq!(cut(usize::MAX / 2, 1, Span::Whole, &Limits::least()), None);
}

/// Words of a heap: parameters (0), states (1), small values (2).
type Words = (usize, std::ops::Range<usize>);

/// What a part reads and writes, as its kernel does (`kernels/update`); gradients, which nobody writes, left out.
fn touched(training: &Training, member: usize, p: &Placed, b: &Batch, r: &[u32]) -> [Vec<Words>; 2] {
    let (update, of) = (training.update(member), training.members[member].geometry);
    let pass = &update.passes[b.pass.1];
    let r: Vec<usize> = r.iter().map(|&word| word as usize).collect();
    let small = |at: usize, span: Span| (2, at..at + of.count(span));
    let is_element = |i: usize| update.states[i].span == Span::Element;
    let number = |state: usize| (0..state).filter(|&i| is_element(i)).count();
    let (mut reads, mut writes) = (vec![], vec![]);
    let sort = Sort::of(pass);
    // the words that are changed, of what has so many as the pass is over
    let own = |at: usize| match sort {
        Sort::Smalls => (2, at + r[0]..at + r[0] + r[1]),
        Sort::Elements | Sort::Sums => (2, at..at),
    };
    let elements = |source: Source| match (source, sort) {
        (Source::Parameter, Sort::Elements) => (0, b.from[0] / 4 + r[0] * 4..b.from[0] / 4 + r[0] * 4 + r[3]),
        (Source::Parameter, _) => (0, b.from[0] / 4 + r[0]..b.from[0] / 4 + r[0] + of.count(Span::Element)),
        (Source::State(s), Sort::Elements) => {
            let at = b.from[2] / 4 + (r[2] + number(s) * r[4]) * 4;
            (1, at..at + r[3])
        }
        (Source::State(s), _) => {
            let at = b.from[2] / 4 + r[2] + number(s) * r[3];
            (1, at..at + of.count(Span::Element))
        }
        _ => (0, 0..0),
    };
    for load in &pass.loads {
        reads.push(match *load {
            Source::Parameter => elements(*load),
            Source::State(s) if is_element(s) => elements(*load),
            // one value of each that a pass is over as a whole
            Source::State(s) if update.states[s].span == pass.over => own(p.small.states[s].unwrap()),
            Source::State(s) => small(p.small.states[s].unwrap(), update.states[s].span),
            Source::Kept(k) => small(p.small.kept[k], update.kept[k]),
            Source::Mean(k) => {
                let (from, to) = update.means[k];
                let pieces =
                    cut(of.count(from) / of.count(to), of.count(to), to, &Limits::least()).unwrap().pieces;
                (2, p.small.means[k]..p.small.means[k] + of.count(to) * pieces)
            }
            Source::Gradient | Source::Scalar(_) => continue,
        });
    }
    for (target, _) in &pass.results {
        match *target {
            Target::Parameter => writes.push(elements(Source::Parameter)),
            Target::State(s) if is_element(s) => writes.push(elements(Source::State(s))),
            Target::State(s) => writes.push(own(p.small.states[s].unwrap())),
            Target::Kept(k) => writes.push(own(p.small.kept[k])),
            // its piece of each sum
            Target::Mean(_) => {
                let at = |i: usize| r[14] + (r[7] + i) * r[12] + r[13];
                writes.extend((0..r[8]).map(|i| (2, at(i)..at(i) + 1)));
            }
        }
    }
    [reads, writes]
}

#[test]
fn parts_of_a_level_change_nothing_that_another_reads_or_changes() {
    use crate::optimizer::RULES;
    let shapes: [&[usize]; 7] = [&[5], &[300, 41], &[1, 33], &[9000], &[3, 40, 70], &[7, 1], &[1]];
    let names: Vec<String> = (0..shapes.len()).map(|i| format!("p{i}")).collect();
    let all: Vec<(&str, &[usize])> = names.iter().zip(shapes).map(|(n, s)| (n.as_str(), s)).collect();
    let (limits, mut sorts) = (Limits::least(), std::collections::HashSet::new());
    for rule in RULES {
        let mut optimizer = Optimizer::named(rule.name).unwrap();
        // what a setting turns on has states and passes of its own
        for s in rule.settings.iter().filter(|s| ["momentum", "weight_decay", "beta1"].contains(&s.name)) {
            optimizer = optimizer.with(s.name, 0.5).unwrap();
        }
        let training = Training::new(optimizer, &all).unwrap();
        let mut ends = [0usize; 3];
        let mut lay = |heap: usize, words: usize| {
            let at = ends[heap];
            ends[heap] += words.next_multiple_of(64);
            at
        };
        let mut placed = vec![];
        for (i, m) in training.members.iter().enumerate() {
            let (update, of) = (training.update(i), m.geometry);
            let elements = of.count(Span::Element);
            let mut p =
                Placed { parameter: vec![lay(0, elements) * 4], gradient: vec![0], ..Placed::default() };
            let states = element_states(update);
            p.states = vec![lay(1, states * elements.next_multiple_of(4)) * 4];
            p.small.states = (update.states.iter())
                .map(|s| (s.span != Span::Element).then(|| lay(2, of.count(s.span))))
                .collect();
            p.small.kept = update.kept.iter().map(|span| lay(2, of.count(*span))).collect();
            for &(from, to) in &update.means {
                let sums = of.count(to);
                let pieces = cut(of.count(from) / sums, sums, to, &limits).unwrap().pieces;
                p.small.means.push(lay(2, pieces * sums));
            }
            placed.push(p);
        }
        // a part's words say whose it is, once each member's are tried by themselves
        let mut level: Vec<(usize, [Vec<Words>; 2])> = vec![];
        for member in 0..shapes.len() {
            let mut one = training.clone();
            one.members = vec![training.members[member].clone()];
            for b in arrange(&one, &placed[member..=member], &limits) {
                sorts.insert(format!("{:?}", Sort::of(&training.updates[b.pass.0].passes[b.pass.1])));
                for r in b.records.chunks_exact(b.records.len() / b.parts) {
                    level.push((b.level, touched(&training, member, &placed[member], &b, r)));
                }
            }
        }
        let mut written: std::collections::HashMap<(usize, usize, usize), usize> = Default::default();
        for (part, (at, [_, writes])) in level.iter().enumerate() {
            for (heap, words) in writes {
                for word in words.clone() {
                    let other = written.insert((*at, *heap, word), part);
                    assert!(other.is_none(), "{}: {part} and {other:?} change word {word}", rule.name);
                }
            }
        }
        assert!(written.len() > 20_000, "{}: {} words", rule.name, written.len());
        for (part, (at, [reads, _])) in level.iter().enumerate() {
            for (heap, words) in reads {
                for word in words.clone() {
                    let other = written.get(&(*at, *heap, word)).filter(|other| **other != part);
                    assert!(other.is_none(), "{}: {part} reads word {word} of {other:?}", rule.name);
                }
            }
        }
    }
    assert_eq!(sorts.len(), 3);
}
