//! Stable sorts with a single copy of the code: each type and closure that the standard library's sort is instantiated with
//! adds 6 kB to a library. For lists that are not on a hot path.

use std::cmp::Ordering;

/// Sorts like `slice::sort_by`.
pub(crate) fn sort_by<T>(list: &mut [T], mut compare: impl FnMut(&T, &T) -> Ordering) {
    let mut from: Vec<usize> = (0..list.len()).collect();
    sort_places(&mut from, &mut |a, b| compare(&list[a], &list[b]));
    // follows the cycles of the permutation: fetches the right element, and continues at the place that it left
    for begin in 0..from.len() {
        let mut at = begin;
        while from[at] != begin {
            let next = from[at];
            list.swap(at, next);
            from[at] = at;
            at = next;
        }
        from[at] = at;
    }
}

/// Sorts like `slice::sort_by_key`.
pub(crate) fn sort_by_key<T, K: Ord>(list: &mut [T], mut key: impl FnMut(&T) -> K) {
    sort_by(list, |a, b| key(a).cmp(&key(b)));
}

#[inline(never)]
fn sort_places(places: &mut [usize], compare: &mut dyn FnMut(usize, usize) -> Ordering) {
    places.sort_by(|&a, &b| compare(a, b));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_as_the_standard_library_does() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            state >> 24
        };
        for length in 0..200 {
            // few distinct keys, so that stability is tested
            let list: Vec<(u32, usize)> = (0..length).map(|i| (random() % 20, i)).collect();
            let (mut ours, mut theirs) = (list.clone(), list);
            sort_by_key(&mut ours, |p| p.0);
            theirs.sort_by_key(|p| p.0);
            assert_eq!(ours, theirs);
            sort_by(&mut ours, |a, b| b.cmp(a));
            theirs.sort_by(|a, b| b.cmp(a));
            assert_eq!(ours, theirs);
        }
    }
}
