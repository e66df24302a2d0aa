//! An operation as the emitters read it: one description, made of the engine's table, for C, Kotlin and Swift.

use weft::graph::{AttrKind, AttrSpec, Inputs, Op};

/// An operation.
pub struct Operation {
    /// Its name in the engine, in snake case.
    pub name: &'static str,
    /// What it computes, with shapes.
    pub about: &'static str,
    /// Its inputs.
    pub inputs: Inputs,
    /// Its attributes, in the engine's order.
    pub attributes: Vec<Attribute>,
}

/// An attribute of an operation.
pub struct Attribute {
    /// Its name in the engine, in snake case.
    pub name: &'static str,
    /// Its type.
    pub kind: AttrKind,
    /// What it means.
    pub about: &'static str,
    /// Its default, if it has one.
    pub default: Option<Usual>,
}

/// The default of an attribute.
#[derive(Debug, PartialEq)]
pub enum Usual {
    Int(i64),
    Ints(Vec<i64>),
    Float(f64),
    Bool(bool),
    /// That of an attribute before it.
    Of(&'static str),
}

/// Every operation of the engine, in its table's order.
pub fn all() -> Result<Vec<Operation>, String> {
    weft::ops::all().map(describe).collect()
}

fn describe(op: &'static dyn Op) -> Result<Operation, String> {
    let specs = op.attributes();
    let attribute = |(at, spec): (usize, &'static AttrSpec)| -> Result<Attribute, String> {
        let default = spec.default.map(|text| {
            let unreadable =
                || format!("{}: the default {text} of {} is not a literal", op.name(), spec.name);
            usual(text, spec.kind, &specs[..at]).ok_or_else(unreadable)
        });
        Ok(Attribute { name: spec.name, kind: spec.kind, about: spec.about, default: default.transpose()? })
    };
    Ok(Operation {
        name: op.name(),
        about: op.about(),
        inputs: op.inputs(),
        attributes: specs.iter().enumerate().map(attribute).collect::<Result<_, _>>()?,
    })
}

/// A default, of its text in Rust.
fn usual(text: &str, kind: AttrKind, before: &[AttrSpec]) -> Option<Usual> {
    if let Some(other) = before.iter().find(|other| other.name == text && other.kind == kind) {
        return Some(Usual::Of(other.name));
    }
    let plain: String = text.chars().filter(|c| *c != '_' && !c.is_whitespace()).collect();
    match kind {
        AttrKind::Int => plain.parse().ok().map(Usual::Int),
        AttrKind::Ints => {
            let items =
                plain.strip_prefix('[')?.strip_suffix(']')?.split(',').filter(|item| !item.is_empty());
            items.map(|item| item.parse().ok()).collect::<Option<_>>().map(Usual::Ints)
        }
        AttrKind::Float => plain.parse().ok().map(Usual::Float),
        AttrKind::Bool => plain.parse().ok().map(Usual::Bool),
        AttrKind::DType => None,
    }
}

/// The same name in camel case.
pub fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let mut text = words.next().unwrap_or_default().to_string();
    for word in words {
        text.push_str(&word[..1].to_uppercase());
        text.push_str(&word[1..]);
    }
    text
}

/// A description for languages that write names in camel case, and documentation in Markdown: words in backticks are names; what
/// stands in brackets is a shape or an index, which Markdown would take for a link.
pub fn in_markdown(about: &str) -> String {
    let parts = about.split('`').enumerate();
    parts.map(|(at, part)| if at % 2 == 1 { format!("`{}`", camel(part)) } else { in_code(part) }).collect()
}

/// A text with each pair of brackets, and the word that it is attached to, between backticks.
fn in_code(text: &str) -> String {
    let mut made = String::new();
    let mut rest = text;
    while let Some((open, close)) =
        rest.find('[').and_then(|open| Some((open, open + rest[open..].find(']')?)))
    {
        let apart = |c: char| c.is_whitespace() || c == '(';
        let from = rest[..open].rfind(apart).map_or(0, |at| at + 1);
        made.push_str(&format!("{}`{}`", &rest[..from], &rest[from..=close]));
        rest = &rest[close + 1..];
    }
    made + rest
}

/// Lines of a text, of `width` characters at most where words allow it.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.into()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_read_by_type() {
        let kernel = [AttrSpec { name: "kernel", kind: AttrKind::Ints, about: "", default: None }];
        assert_eq!(usual("kernel", AttrKind::Ints, &kernel), Some(Usual::Of("kernel")));
        assert_eq!(usual("kernel", AttrKind::Int, &kernel), None);
        assert_eq!(usual("-100", AttrKind::Int, &[]), Some(Usual::Int(-100)));
        assert_eq!(usual("[1, 2]", AttrKind::Ints, &[]), Some(Usual::Ints(vec![1, 2])));
        assert_eq!(usual("10_000.0", AttrKind::Float, &[]), Some(Usual::Float(10_000.0)));
        assert_eq!(usual("false", AttrKind::Bool, &[]), Some(Usual::Bool(false)));
        assert_eq!(usual("0.5", AttrKind::Int, &[]), None);
    }

    #[test]
    fn names_and_texts_take_the_languages_forms() {
        assert_eq!(camel("conv_transpose2d"), "convTranspose2d");
        assert_eq!(in_markdown("see `check_labels` and a_b"), "see `checkLabels` and a_b");
        assert_eq!(in_markdown("x of [n, c] (row t[b, j / 2]·2)"), "x of `[n, c]` (row `t[b, j / 2]`·2)");
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
    }
}
