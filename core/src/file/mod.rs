//! Files that are replaced whole. Stands on `error`; knows nothing of what they hold.

mod atomic;

pub use atomic::write_atomically;
