//! Memory usage of sessions.

use super::Session;
use std::fmt;

/// Sizes of the buffers that a session has allocated or mapped.
///
/// ```
/// use weft::prelude::*;
///
/// let g = Graph::new();
/// g.output("y", g.neg(g.input("x", DType::F32, [1000])));
/// let session = Compiler::new(&Device::cpu(1)).compile(&g)?.init(&Weights::new())?;
/// assert!(session.memory_summary().total_bytes >= 8000);
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemorySummary {
    /// Number of buffers.
    pub buffers: usize,
    /// Total bytes.
    pub total_bytes: usize,
    /// Bytes of optimizer states, included in the total.
    pub optimizer_bytes: usize,
    /// Bytes of the graph's states, included in the total: of the whole set, which other sessions may share.
    pub state_bytes: usize,
    /// Bytes of the largest buffer.
    pub largest_bytes: usize,
}

impl MemorySummary {
    /// The total over several sessions: weights and states that they share are counted once.
    ///
    /// ```
    /// use weft::prelude::*;
    /// use weft::session::MemorySummary;
    ///
    /// let g = Graph::new();
    /// let sum = g.state("sum", DType::F32, [1000]);
    /// g.set_state(sum, g.add(sum, g.input("x", DType::F32, [1000])));
    /// g.output("before", g.neg(sum));
    /// let compiled = Compiler::new(&Device::cpu(1)).compile(&g)?;
    /// let one = compiled.init(&Weights::new())?;
    /// let other = compiled.init_shared_states(&one.parameters(), &one.shared_states())?;
    /// let (each, both) = (one.memory_summary(), MemorySummary::of_all([&one, &other]));
    /// assert_eq!((each.state_bytes, both.state_bytes), (4000, 4000));
    /// assert_eq!(both.total_bytes, 2 * each.total_bytes - 4000);
    /// # Ok::<(), weft::error::Error>(())
    /// ```
    pub fn of_all<'a>(sessions: impl IntoIterator<Item = &'a Session>) -> Self {
        let (mut sizes, mut seen) = (vec![], vec![]);
        let (mut optimizer_bytes, mut state_bytes) = (0, 0);
        let mut first = |set: usize| {
            let first = !seen.contains(&set);
            seen.push(set);
            first
        };
        for session in sessions {
            let (set, weights) = session.parameters.sizes();
            if first(set) {
                sizes.extend(weights);
            }
            let (set, states) = session.states.sizes();
            if first(set) {
                state_bytes += states.iter().sum::<usize>();
                sizes.extend(states);
            }
            let optimizer = session.executor.optimizer_sizes();
            optimizer_bytes += optimizer.iter().sum::<usize>();
            sizes.extend(session.executor.sizes().into_iter().chain(optimizer));
        }
        MemorySummary { optimizer_bytes, state_bytes, ..MemorySummary::of(sizes) }
    }

    /// The summary of buffers with those sizes.
    pub(super) fn of(sizes: impl IntoIterator<Item = usize>) -> Self {
        let mut s = MemorySummary::default();
        for bytes in sizes.into_iter().filter(|&b| b > 0) {
            s.buffers += 1;
            s.total_bytes += bytes;
            s.largest_bytes = s.largest_bytes.max(bytes);
        }
        s
    }
}

impl fmt::Display for MemorySummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: usize| bytes as f64 / 1e6;
        let (total, optimizer) = (mb(self.total_bytes), mb(self.optimizer_bytes));
        write!(f, "{} buffers, {total:.1} MB total ({optimizer:.1} MB optimizer state", self.buffers)?;
        if self.state_bytes > 0 {
            write!(f, ", {:.1} MB states that sessions may share", mb(self.state_bytes))?;
        }
        write!(f, "), largest {:.1} MB", mb(self.largest_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_documented() {
        let s = MemorySummary {
            buffers: 47,
            total_bytes: 312_400_000,
            optimizer_bytes: 0,
            state_bytes: 0,
            largest_bytes: 141_600_000,
        };
        assert_eq!(s.to_string(), "47 buffers, 312.4 MB total (0.0 MB optimizer state), largest 141.6 MB");
        let s = MemorySummary { state_bytes: 25_000_000, ..s };
        assert!(s.to_string().contains("optimizer state, 25.0 MB states that sessions may share), largest"));
    }
}
