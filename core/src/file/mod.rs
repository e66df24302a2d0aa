//! Atomic replacement of files. Depends on `error`; independent of their contents.
//!
//! Weft writes all files through `write_atomically`: links are followed, a regular file is replaced by renaming a temporary one
//! in the same folder, anything else is written in place. The writer locks its temporary file; the next writer in the folder
//! removes those whose lock it can acquire, since their writers are dead. Process ids are not used, since systems reuse them.
//! Machines that share a folder may not see each other's locks: temporary files of another machine must also be a day old.

mod atomic;
mod mark;
mod place;
mod rights;
mod temporary;

pub use atomic::write_atomically;
pub use mark::without_mark;
