//! Observers of values as they are stored.

use crate::error::{Error, Result};
use crate::plan::BufferId;
use std::cell::RefCell;

/// Takes names, buffer, bytes.
pub type Observer<'a> = dyn FnMut(&str, BufferId, &[u8]) -> Result<()> + 'a;

thread_local! {
    /// Sets of weights or states (their addresses) that this thread has locked while it passes values of a step to its caller.
    static SHOWN: RefCell<Vec<usize>> = const { RefCell::new(vec![]) };
}

fn address<T>(set: &T) -> usize {
    std::ptr::from_ref(set).addr()
}

/// While this lives, a caller observes values of a step over a set. Calls that need the same set, on the same thread, would
/// deadlock: [`check_not_shown`] refuses them.
pub(crate) struct Showing(usize);

impl Showing {
    /// Registers the set, which this thread has locked, as being observed.
    pub fn of<T>(set: &T) -> Showing {
        SHOWN.with(|shown| shown.borrow_mut().push(address(set)));
        Showing(address(set))
    }
}

impl Drop for Showing {
    fn drop(&mut self) {
        let remove = |shown: &RefCell<Vec<usize>>| {
            let mut shown = shown.borrow_mut();
            if let Some(at) = shown.iter().rposition(|s| *s == self.0) {
                shown.remove(at);
            }
        };
        // at thread exit the list may be destroyed already
        let _ = SHOWN.try_with(remove);
    }
}

/// Checks, before a set is locked, that this thread is not observing a step over it.
///
/// # Errors
/// [`Error::Argument`] from within an observer of a step over the set.
pub(crate) fn check_not_shown<T>(set: &T, what: &str) -> Result<()> {
    let address = address(set);
    match SHOWN.try_with(|shown| shown.borrow().contains(&address)) {
        Ok(true) => {
            Err(Error::argument(what, "a call outside of `observe`", "one by what observes a step over them"))
        }
        _ => Ok(()),
    }
}
