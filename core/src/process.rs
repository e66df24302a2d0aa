//! Refuses what was made before a fork. Which process this is and what it shares is known below the engine, where the CPU's
//! threads need it too: [`weft_kernels::process`].

pub use weft_kernels::process::*;

use crate::error::{Error, Result};
use std::fmt::Display;

/// Refuses what was made in another process.
///
/// # Errors
/// [`Error::Forked`].
pub fn check(born: Born, what: impl Display) -> Result<()> {
    if born.is_here() {
        return Ok(());
    }
    let why = "it was made before the process was forked; make another here".into();
    Err(Error::Forked { what: what.to_string(), why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_in_another_process_is_refused_by_name() {
        assert_eq!(check(Born::here(), "a session"), Ok(()));
        let e = check(Born::of(generation() + 1), "a session").unwrap_err();
        assert!(matches!(&e, Error::Forked { what, .. } if what == "a session"), "{e}");
    }
}
