//! Concatenations that are never stored: an element is loaded from its part.

use super::source::{Slot, Source, View};
use crate::target::gpu::storage::concat::ConcatView;

/// An element of a concatenation at an index in elements of the view: a call of a function that selects its part.
pub fn element(source: &mut Source<'_>, concat: &ConcatView, view: View, index: &str) -> String {
    let (lanes, parts) = (view.bytes() / 4, &concat.parts);
    // named after its first binding: kernels with the same cache key must have the same text
    let Some(first) = parts.first().map(|p| Slot::Buffer(p.from.buffer, 0)) else { return String::new() };
    let own = source.at(first, view, index);
    if concat.adjacent {
        return own;
    }
    let first = own.split(['[', '(']).next().unwrap_or_default().to_string();
    let name = format!("joined_{first}");
    let mut text = format!("fn {name}(i: u32) -> {} {{\n", view.text());
    for (part, next) in parts.iter().zip(parts.iter().skip(1).map(Some).chain([None])) {
        let (start, offset) = (part.start / lanes, part.from.offset as usize / lanes);
        let value = source.element(part.from.buffer, view, &format!("i - {start}u + {offset}u"));
        text += &match next {
            Some(next) => format!("if (i < {}u) {{ return {value}; }}\n", next.start / lanes),
            None => format!("return {value};\n}}"),
        };
    }
    source.function(text);
    format!("{name}({index})")
}
