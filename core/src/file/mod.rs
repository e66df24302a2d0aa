//! Files that are replaced whole. Stands on `error`; knows nothing of what they hold.

mod atomic;
mod mark;
mod place;
mod rights;
mod temporary;

pub use atomic::write_atomically;
pub use mark::without_mark;
