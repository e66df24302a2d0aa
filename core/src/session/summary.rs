//! How much memory a session takes.

use std::fmt;

/// Sizes of what a session has allocated or mapped.
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
    /// Their bytes together.
    pub total_bytes: usize,
    /// Bytes of the optimizer's states among them.
    pub optimizer_bytes: usize,
    /// Bytes of the largest buffer.
    pub largest_bytes: usize,
}

impl MemorySummary {
    /// The summary of buffers of those sizes.
    pub(super) fn of(sizes: impl IntoIterator<Item = usize>, optimizer_bytes: usize) -> Self {
        let mut s = MemorySummary { optimizer_bytes, ..Default::default() };
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
        write!(
            f,
            "{} buffers, {:.1} MB total ({:.1} MB optimizer state), largest {:.1} MB",
            self.buffers,
            mb(self.total_bytes),
            mb(self.optimizer_bytes),
            mb(self.largest_bytes)
        )
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
            largest_bytes: 141_600_000,
        };
        assert_eq!(s.to_string(), "47 buffers, 312.4 MB total (0.0 MB optimizer state), largest 141.6 MB");
    }
}
