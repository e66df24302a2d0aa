//! Who is shown values as they are stored.

use crate::error::{Error, Result};
use crate::plan::BufferId;
use std::cell::RefCell;

/// Takes names, buffer, bytes.
pub type Observer<'a> = dyn FnMut(&str, BufferId, &[u8]) -> Result<()> + 'a;

thread_local! {
    /// Sets of weights or states (their addresses) that this thread has locked while it shows values of a step to its caller.
    static SHOWN: RefCell<Vec<usize>> = const { RefCell::new(vec![]) };
}

fn address<T>(set: &T) -> usize {
    std::ptr::from_ref(set).addr()
}

/// A caller is shown values of a step over a set, as long as this lives. Calls that want the same set meanwhile, on the same thread,
/// would wait for themselves: [`check_not_shown`] refuses them.
pub(crate) struct Showing(usize);

impl Showing {
    /// This thread has locked the set, and begins to show values.
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
        // a thread that ends meanwhile has forgotten them
        let _ = SHOWN.try_with(remove);
    }
}

/// Before a set is locked.
///
/// # Errors
/// [`Error::Argument`] from within what is shown values of a step over it.
pub(crate) fn check_not_shown<T>(set: &T, what: &str) -> Result<()> {
    let address = address(set);
    match SHOWN.try_with(|shown| shown.borrow().contains(&address)) {
        Ok(true) => {
            Err(Error::argument(what, "a call outside of `observe`", "one by what observes a step over them"))
        }
        _ => Ok(()),
    }
}
