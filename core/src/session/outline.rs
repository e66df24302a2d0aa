//! Folds repetitions in a list: for example the layers of a model among the launches of its plan. Independent of both.

/// A sequence of items that occurs several times in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub start: usize,
    /// Items per repetition.
    pub length: usize,
    pub times: usize,
}

/// Maximum length of a repeated sequence.
const LONGEST: usize = 512;

/// Folds a list into runs, in order: the repetition that saves most items first, then recursively the items before and after
/// it. Items that do not repeat are runs with a count of one.
pub(super) fn outline<T: PartialEq>(items: &[T]) -> Vec<Run> {
    let mut runs = vec![];
    cut(items, 0..items.len(), &mut runs);
    runs
}

fn cut<T: PartialEq>(items: &[T], range: std::ops::Range<usize>, runs: &mut Vec<Run>) {
    if range.is_empty() {
        return;
    }
    match longest(items, &range) {
        None => runs.push(Run { start: range.start, length: range.len(), times: 1 }),
        Some(run) => {
            let end = run.start + run.length * run.times;
            cut(items, range.start..run.start, runs);
            runs.push(run);
            cut(items, end..range.end, runs);
        }
    }
}

/// The repetition that saves most items; of equal ones the shortest sequence, the first.
fn longest<T: PartialEq>(items: &[T], range: &std::ops::Range<usize>) -> Option<Run> {
    let mut best: Option<Run> = None;
    let saves = |r: &Run| r.length * (r.times - 1);
    for length in 1..=(range.len() / 2).min(LONGEST) {
        let mut start = range.start;
        while start + 2 * length <= range.end {
            let same = (start..range.end - length).take_while(|&i| items[i] == items[i + length]).count();
            let run = Run { start, length, times: same / length + 1 };
            if run.times > 1 && best.as_ref().is_none_or(|b| saves(&run) > saves(b)) {
                best = Some(run);
            }
            start += same + 1;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<(String, usize)> {
        let items: Vec<char> = text.chars().collect();
        let word = |r: &Run| items[r.start..r.start + r.length].iter().collect::<String>();
        outline(&items).iter().map(|r| (word(r), r.times)).collect()
    }

    #[test]
    fn layers_are_told_once_between_what_stands_alone() {
        let of = |all: &[(&str, usize)]| all.iter().map(|(s, n)| (s.to_string(), *n)).collect::<Vec<_>>();
        assert_eq!(told("eabcabcabcabch"), of(&[("e", 1), ("abc", 4), ("h", 1)]));
        assert_eq!(told("xyz"), of(&[("xyz", 1)]));
        assert_eq!(told(""), of(&[]));
        // forward layers, then backward ones
        assert_eq!(told("ababablcdcdcd"), of(&[("ab", 3), ("l", 1), ("cd", 3)]));
    }

    #[test]
    fn runs_put_together_are_the_list() {
        let mut state = 7u32;
        for length in 0..200 {
            let items: Vec<u32> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) % 3
                })
                .collect();
            let whole: Vec<u32> = outline(&items)
                .iter()
                .flat_map(|r| items[r.start..r.start + r.length].repeat(r.times))
                .collect();
            assert_eq!(whole, items);
        }
    }
}
