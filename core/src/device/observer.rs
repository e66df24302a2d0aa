//! Who is shown values as they are stored.

use crate::error::Result;
use crate::plan::BufferId;

/// Takes names, buffer, bytes.
pub type Observer<'a> = dyn FnMut(&str, BufferId, &[u8]) -> Result<()> + 'a;
