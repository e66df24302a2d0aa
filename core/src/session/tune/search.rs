//! Searches the fastest tiling: first every seed, then repeatedly the neighbours of the best, until no neighbour is faster.
//! Independent of devices: the caller supplies times.

use crate::error::Result;
use crate::profile::Cut;

/// Only tilings within this factor of the best have their neighbours tried.
const NEAR: f64 = 1.25;
/// Maximum number of these.
const KEPT: usize = 4;

/// The result of a search.
pub(super) struct Found {
    /// Tilings with correct results and their times, the fastest first.
    pub(super) ranked: Vec<(Cut, f64)>,
    /// Number of tilings tried.
    pub(super) tried: usize,
}

/// Tries at most `most` tilings. `time` returns the time of each of several tilings, or `None` for failed ones.
///
/// # Errors
/// Those of `time`.
pub(super) fn search(
    seeds: Vec<Cut>,
    neighbours: impl Fn(&Cut) -> Vec<Cut>,
    most: usize,
    mut time: impl FnMut(&[Cut]) -> Result<Vec<Option<f64>>>,
) -> Result<Found> {
    let mut known: Vec<Cut> = vec![];
    let mut ranked: Vec<(Cut, f64)> = vec![];
    let mut seen: Vec<Cut> = vec![];
    let mut next = seeds;
    while !next.is_empty() {
        next.truncate(most.saturating_sub(known.len()));
        let times = time(&next)?;
        ranked.extend(next.iter().zip(times).filter_map(|(cut, t)| Some((*cut, t?))));
        known.append(&mut next);
        crate::order::sort_by(&mut ranked, |a, b| a.1.total_cmp(&b.1));
        // the best tilings whose neighbours have not been tried
        let Some(&(_, best)) = ranked.first().filter(|_| known.len() < most) else { break };
        let near = ranked.iter().take(KEPT).filter(|(_, t)| *t <= NEAR * best);
        for (cut, _) in near {
            if seen.contains(cut) {
                continue;
            }
            seen.push(*cut);
            next = neighbours(cut).into_iter().filter(|c| !known.contains(c)).collect();
            if !next.is_empty() {
                break;
            }
        }
    }
    Ok(Found { ranked, tried: known.len() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn tiled(bm: u32, bn: u32, depth: u32) -> Cut {
        Cut::Tiled { tile: [bm, bn, 16], block: [4, 4], slices: 1, split: 1, depth }
    }

    fn size(cut: &Cut) -> [u32; 3] {
        match cut {
            Cut::Tiled { tile: [bm, bn, _], depth, .. } => [*bm, *bn, *depth],
            _ => [0; 3],
        }
    }

    fn beside(cut: &Cut) -> Vec<Cut> {
        let [bm, bn, depth] = size(cut);
        let all = [[bm * 2, bn, depth], [bm / 2, bn, depth], [bm, bn * 2, depth], [bm, bn / 2, depth]];
        let more = [[bm, bn, depth + 1], [bm, bn, depth.saturating_sub(1)]];
        let fits =
            |[bm, bn, depth]: &[u32; 3]| (8..=512).contains(bm) && (8..=512).contains(bn) && *depth < 5;
        all.into_iter().chain(more).filter(fits).map(|[bm, bn, depth]| tiled(bm, bn, depth)).collect()
    }

    /// A test function with its minimum at 128 × 32 and a depth of 2.
    fn valley(cut: &Cut) -> f64 {
        let [bm, bn, depth] = size(cut).map(f64::from);
        10.0 + (bm / 128.0).log2().abs() + (bn / 32.0).log2().abs() + (depth - 2.0).abs()
    }

    #[test]
    fn a_search_ends_where_nothing_near_is_faster() {
        let mut asked: Vec<Cut> = vec![];
        let found = search(vec![tiled(16, 256, 0), tiled(64, 64, 1)], beside, 1000, |cuts| {
            asked.extend(cuts);
            Ok(cuts.iter().map(|c| Some(valley(c))).collect())
        })
        .unwrap();
        assert_eq!(found.ranked[0], (tiled(128, 32, 2), 10.0));
        assert_eq!(found.tried, asked.len());
        // none is tried twice, and few in total
        asked.sort_by_key(size);
        assert!(asked.windows(2).all(|w| w[0] != w[1]) && asked.len() < 60, "{}", asked.len());
    }

    #[test]
    fn what_is_out_is_not_ranked_and_a_budget_is_kept() {
        let out = tiled(128, 32, 2);
        let time = |c: &Cut| (*c != out).then(|| valley(c));
        let all = search(vec![tiled(64, 64, 1)], beside, 1000, |cuts| Ok(cuts.iter().map(time).collect()));
        let all = all.unwrap();
        assert!(all.ranked.iter().all(|(c, _)| *c != out) && all.ranked[0].1 == 11.0);
        let few = search(vec![tiled(64, 64, 1), tiled(8, 8, 0)], beside, 5, |cuts| {
            Ok(cuts.iter().map(|c| Some(valley(c))).collect())
        });
        assert_eq!(few.unwrap().tried, 5);
        let none = search(vec![], beside, 5, |_| Ok(vec![])).unwrap();
        assert!(none.ranked.is_empty() && none.tried == 0);
        let ended = search(vec![out], beside, 5, |_| Err(Error::Cancelled { what: "x".into() }));
        assert!(matches!(ended, Err(Error::Cancelled { .. })));
    }
}
