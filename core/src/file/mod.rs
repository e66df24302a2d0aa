//! Files that are replaced whole. Stands on `error`; knows nothing of what they hold.
//!
//! **Writing files** (`file`). Whatever Weft writes goes through `write_atomically`: links are followed, a regular file is
//! replaced by renaming a temporary one beside it, anything else is written to. The temporary file is locked by its writer;
//! who writes next in the folder removes those whose lock it can get, since their writers are dead. No process numbers, which
//! are used again. Locks may be invisible between machines that share a folder: their files must be a day old as well.

mod atomic;
mod mark;
mod place;
mod rights;
mod temporary;

pub use atomic::write_atomically;
pub use mark::without_mark;
