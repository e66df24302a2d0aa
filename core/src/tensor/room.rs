//! Fallible allocation of large host memory: running out of it is an error and does not abort the process.

use crate::error::{Error, Result};

fn refused(wanted: usize, what: &str) -> Error {
    Error::OutOfMemory { wanted: wanted as u64, what: what.into() }
}

/// A copy of bytes; `what` describes them in the error.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn copied(bytes: &[u8], what: &str) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    all.try_reserve_exact(bytes.len()).map_err(|_| refused(bytes.len(), what))?;
    all.extend_from_slice(bytes);
    Ok(all)
}

/// A zeroed vector; `what` describes its purpose in the error.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(crate) fn zeros(bytes: usize, what: &str) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    all.try_reserve_exact(bytes).map_err(|_| refused(bytes, what))?;
    all.resize(bytes, 0);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert_eq!(copied(&[1, 2, 3], "three").unwrap(), [1, 2, 3]);
        assert_eq!(zeros(4, "four").unwrap(), [0; 4]);
        let e = zeros(usize::MAX / 2, "everything").unwrap_err();
        assert!(
            matches!(&e, Error::OutOfMemory { wanted, what } if *wanted > 1 << 62 && what == "everything")
        );
    }
}
