//! Finds repetitions in a graph (the layers of a model, forward and backward) and cuts it into segments, so that each distinct
//! one is optimised once.
//!
//! Nodes are in the order of their creation, so equal layers are runs of equal *signatures* one period apart. A run is cut
//! where the fewest values cross from one period to the next.

use crate::graph::{GraphData, Node, NodeKind};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Minimum length of a period.
const SHORTEST: usize = 8;
/// Number of distances between equal nodes to try as periods.
const TRIED: usize = 8;
/// Bytes at the ends of a constant that are hashed.
const ENDS: usize = 4096;
/// Maximum length of a segment.
pub(super) const LONGEST: usize = 400;

/// A sequence of nodes, as positions in [`Outline::order`].
pub(super) type Range = std::ops::Range<usize>;

/// A graph's live nodes without its leaves, in order, and their segments.
pub(super) struct Outline {
    /// Indices of nodes.
    pub order: Vec<usize>,
    /// Consecutive segments that cover `order`.
    pub segments: Vec<Range>,
}

/// Inputs, parameters and states: they belong to no segment.
pub(super) fn is_leaf(node: &Node) -> bool {
    matches!(node.kind, NodeKind::Input | NodeKind::Parameter { .. } | NodeKind::State)
}

/// Cuts a graph into segments.
pub(super) fn outline(data: &GraphData, live: &[bool]) -> Outline {
    let order: Vec<usize> = (0..data.nodes.len()).filter(|&i| live[i] && !is_leaf(&data.nodes[i])).collect();
    let search = Search::new(data, &order);
    let mut segments = Vec::new();
    search.cut(0..order.len(), &mut segments);
    let segments = segments.into_iter().flat_map(|s| search.short(s)).collect();
    Outline { order, segments }
}

/// A hash of a node, independent of its position: of its inputs only the types count, so that the first layer equals the
/// others.
fn signature(data: &GraphData, node: &Node) -> u64 {
    let mut h = DefaultHasher::new();
    match &node.kind {
        // for large ones the ends suffice: blocks are compared exactly
        NodeKind::Constant(t) => {
            let bytes = t.bytes();
            let ends = bytes.len().min(ENDS);
            ("constant", &bytes[..ends], &bytes[bytes.len() - ends..]).hash(&mut h);
        }
        // two operations with the same name are distinguished when blocks are compared
        NodeKind::Op(op, attrs) => (op.name(), format!("{attrs:?}")).hash(&mut h),
        _ => "leaf".hash(&mut h),
    }
    node.ty.to_string().hash(&mut h);
    for &v in &node.inputs {
        data.node(v).ty.to_string().hash(&mut h);
    }
    h.finish()
}

struct Search {
    signatures: Vec<u64>,
    /// For each position, the positions of its inputs among the others.
    inputs: Vec<Vec<usize>>,
}

/// Consecutive periods of equal nodes.
struct Run {
    start: usize,
    period: usize,
    count: usize,
}

impl Search {
    fn new(data: &GraphData, order: &[usize]) -> Search {
        let mut at = vec![usize::MAX; data.nodes.len()];
        order.iter().enumerate().for_each(|(p, &i)| at[i] = p);
        let inputs = order.iter().map(|&i| {
            let all = data.nodes[i].inputs.iter().filter_map(|v| v.index()).map(|j| at[j]);
            all.filter(|&p| p != usize::MAX).collect()
        });
        let signatures = order.iter().map(|&i| signature(data, &data.nodes[i])).collect();
        Search { signatures, inputs: inputs.collect() }
    }

    /// Segments of a range: the part before its longest run, the run's periods, the part after.
    fn cut(&self, range: Range, segments: &mut Vec<Range>) {
        if range.is_empty() {
            return;
        }
        let Some(run) = self.longest_run(&range) else {
            segments.push(range);
            return;
        };
        let end = run.start + run.period * run.count;
        self.cut(range.start..run.start, segments);
        segments.extend((0..run.count).map(|i| {
            let from = run.start + i * run.period;
            from..from + run.period
        }));
        self.cut(end..range.end, segments);
    }

    fn longest_run(&self, range: &Range) -> Option<Run> {
        let mut best: Option<(usize, Run)> = None;
        for period in self.periods(range) {
            let mut start = range.start;
            while start + 2 * period <= range.end {
                let same = (start..range.end - period)
                    .take_while(|&i| self.signatures[i] == self.signatures[i + period])
                    .count();
                if same >= period {
                    let run = self.placed(start, period, same + period);
                    let covered = run.period * run.count;
                    if best.as_ref().is_none_or(|(c, b)| covered > *c || covered == *c && period < b.period) {
                        best = Some((covered, run));
                    }
                }
                start += same + 1;
            }
        }
        best.map(|(_, run)| run)
    }

    /// Likely periods: the most frequent distances from a node to the next with its signature.
    fn periods(&self, range: &Range) -> Vec<usize> {
        let mut last: HashMap<u64, usize> = HashMap::new();
        let mut counts: HashMap<usize, usize> = HashMap::new();
        for i in range.clone() {
            if let Some(before) = last.insert(self.signatures[i], i) {
                *counts.entry(i - before).or_default() += 1;
            }
        }
        let mut all: Vec<(usize, usize)> =
            counts.into_iter().filter(|&(d, _)| d >= SHORTEST).map(|(d, n)| (n * d, d)).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.into_iter().take(TRIED).map(|(_, d)| d).collect()
    }

    /// The run of a period in a stretch, starting where the fewest values cross its cuts.
    fn placed(&self, start: usize, period: usize, length: usize) -> Run {
        let most = length / period;
        let phases = (0..period).filter(|t| (length - t) / period >= most.saturating_sub(1).max(2));
        let phase = phases.min_by_key(|&t| (self.crossing(start + t + period, period), t)).unwrap_or(0);
        Run { start: start + phase, period, count: (length - phase) / period }
    }

    /// Number of values of the period before a cut that the period after it reads.
    fn crossing(&self, cut: usize, period: usize) -> usize {
        let after = cut..(cut + period).min(self.inputs.len());
        let mut read: Vec<usize> = after
            .flat_map(|i| self.inputs[i].iter().copied())
            .filter(|&j| j < cut && j + period >= cut)
            .collect();
        read.sort_unstable();
        read.dedup();
        read.len()
    }

    /// Divides a segment into pieces of at most the maximum length.
    fn short(&self, segment: Range) -> Vec<Range> {
        let pieces = segment.len().div_ceil(LONGEST).max(1);
        let size = segment.len().div_ceil(pieces);
        (0..pieces)
            .map(|i| segment.start + i * size..(segment.start + (i + 1) * size).min(segment.end))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Graph;
    use crate::tensor::DType;

    fn layered(layers: usize) -> Graph {
        let g = Graph::new();
        let mut x = g.relu(g.input("x", DType::F32, [4, 16]));
        for i in 0..layers {
            let w = |n: &str| g.parameter(&format!("{i}.{n}"), [16, 16]);
            let (q, k, v) = (g.linear(x, w("q"), None), g.linear(x, w("k"), None), g.linear(x, w("v"), None));
            let s = g.softmax(g.matmul_with(q, k, false, true), -1);
            x = g.add(x, g.gelu(g.matmul(s, v)));
            x = g.add(x, g.tanh(g.linear(x, w("o"), None)));
        }
        g.output("y", g.sigmoid(x));
        g
    }

    #[test]
    fn layers_are_segments_of_one_length() {
        let g = layered(5);
        let data = g.data().unwrap();
        let all = outline(&data, &vec![true; data.nodes.len()]);
        let lengths: Vec<usize> = all.segments.iter().map(|s| s.len()).collect();
        assert_eq!(lengths, [1, 11, 11, 11, 11, 11, 1]);
        assert_eq!(all.segments.iter().map(|s| s.len()).sum::<usize>(), all.order.len());
    }

    #[test]
    fn a_graph_that_does_not_repeat_is_one_segment() {
        let g = layered(1);
        let data = g.data().unwrap();
        assert_eq!(outline(&data, &vec![true; data.nodes.len()]).segments, vec![0..13; 1]);
    }
}
