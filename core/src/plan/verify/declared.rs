//! Proves what steps declare of themselves: see [`Declared`].

use super::{Checked, Checker, refuse};
use crate::plan::Rowwise;
use crate::plan::declared::{Columns, Declared};

impl Checker<'_> {
    /// What a row-wise step declares, whose operands stay in their buffers.
    pub(super) fn declared(&self, w: &Rowwise) -> Checked<()> {
        let Declared { columns } = &w.declared;
        columns.iter().try_for_each(|c| self.columns(w, c))
    }

    fn columns(&self, w: &Rowwise, c: &Columns) -> Checked<()> {
        let Some(o) = w.operands.get(c.operand) else {
            return refuse(format!("columns of one of {} operands", w.operands.len()), c.operand);
        };
        let elements = self.buffer(o.buffer)?.elements;
        match Columns::of((c.operand, o), &w.domain, c.all, elements) {
            Some(found) if found == *c => Ok(()),
            _ => refuse(format!("columns {} to {} of {}", c.from, c.to, c.all), format!("{o:?}")),
        }
    }
}
