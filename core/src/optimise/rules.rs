//! The rewrite rules: read from `rules/*.egg`, each with the operations it matches and produces, so that only those are loaded
//! that a graph can use. A rule's name is its test's.
//!
//! **The contract of every rule.** Floating-point numbers are not real numbers, and an author may rely on their rounding.
//!
//! 1. A rewrite may change a result by rounding errors of the size that the original operations themselves make on those values.
//! 2. It never removes a rounding that the author wrote: `(x + a) + b` stays.
//! 3. It never introduces an overflow, an underflow to zero or a NaN, and preserves the sign of zero.
//! 4. It recognises a constant as a number (√½, 1/n) only within one unit in the last place of its dtype.
//!
//! Three exceptions are allowed, and no others: products of f32 are reordered (adapters, chains, the factors of a batch norm);
//! a recognised composite keeps in f32 what its f16 or bf16 decomposition rounds at each step; and a *mild* scalar, of
//! magnitude 2⁻¹⁰ to 2¹⁰, is moved across a product or combined with another one, if the result is normal.
//!
//! Identities that only hold for real numbers are in the group [`Group::Exact`], which is off by default. `core/tests/rules.rs`
//! checks each rule against the contract in f32, f16 and bf16, over the dtype's whole range.
//!
//! The files contain egglog's `rewrite` and `rule` commands. An action is added to each, which records that the changed class
//! got an alternative from it, for [`explain`](super::Report).

use super::language::Language;
use crate::process::Own;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// The purpose of a rule; each group can be disabled.
///
/// ```
/// use weft::prelude::*;
/// use weft::session::Group;
///
/// let device = Device::cpu(1);
/// let plain = Compiler::new(&device).with_rules(&[]); // the graph as it came
/// let exact = Compiler::new(&device).allow(Group::Exact); // as if numbers were exact
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Group {
    /// Identities, strength reduction, constants moved through linear operations.
    Algebra,
    /// Recognition of composites in decomposed formulas.
    Raise,
    /// Work merged into one step.
    Fuse,
    /// Several products of one input merged into one.
    Pack,
    /// The order of products.
    Associate,
    /// Transposes, reshapes, permutations.
    Layout,
    /// Casts.
    Precision,
    /// Identities of real numbers that do not hold in floating point: off by default, see `Compiler::allow`.
    Exact,
}

impl Group {
    /// The default groups: they satisfy the contract of floating point.
    pub const ALL: [Group; 7] = [
        Group::Algebra,
        Group::Raise,
        Group::Fuse,
        Group::Pack,
        Group::Associate,
        Group::Layout,
        Group::Precision,
    ];
    /// Groups that do not, and must be enabled explicitly.
    pub const OPTIONAL: [Group; 1] = [Group::Exact];

    /// All groups.
    pub fn every() -> impl Iterator<Item = Group> {
        Group::ALL.into_iter().chain(Group::OPTIONAL)
    }

    /// Its name: that of its file of rules.
    pub fn name(self) -> &'static str {
        match self {
            Group::Algebra => "algebra",
            Group::Raise => "raise",
            Group::Fuse => "fuse",
            Group::Pack => "pack",
            Group::Associate => "associate",
            Group::Layout => "layout",
            Group::Precision => "precision",
            Group::Exact => "exact",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Group::Algebra => include_str!("rules/algebra.egg"),
            Group::Raise => include_str!("rules/raise.egg"),
            Group::Fuse => include_str!("rules/fuse.egg"),
            Group::Pack => include_str!("rules/pack.egg"),
            Group::Associate => include_str!("rules/associate.egg"),
            Group::Layout => include_str!("rules/layout.egg"),
            Group::Precision => include_str!("rules/precision.egg"),
            Group::Exact => include_str!("rules/exact.egg"),
        }
    }
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Its name, unique among all.
    pub name: String,
    /// Its group.
    pub group: Group,
    /// Constructors in its pattern.
    pub looks_for: BTreeSet<String>,
    /// Constructors in its result.
    pub makes: BTreeSet<String>,
    /// The outermost constructor of its result; `None` if it equates two matched values.
    pub head: Option<String>,
    /// The command, in egglog's language.
    pub text: String,
}

/// An S-expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sexp {
    Atom(String),
    List(Vec<Sexp>),
}

impl std::fmt::Display for Sexp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Sexp::Atom(a) => f.write_str(a),
            Sexp::List(all) => {
                f.write_str("(")?;
                for (i, s) in all.iter().enumerate() {
                    write!(f, "{}{s}", if i > 0 { " " } else { "" })?;
                }
                f.write_str(")")
            }
        }
    }
}

impl Sexp {
    /// All expressions of a text; `;` starts a comment.
    pub(super) fn parse(text: &str) -> Result<Vec<Sexp>, String> {
        let mut open: Vec<Vec<Sexp>> = vec![vec![]];
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            match c {
                ';' => rest = rest.split_once('\n').map_or("", |(_, after)| after),
                '(' => {
                    open.push(vec![]);
                    rest = &rest[1..];
                }
                ')' => {
                    let list = open.pop().filter(|_| !open.is_empty()).ok_or("a ) without its (")?;
                    if let Some(outer) = open.last_mut() {
                        outer.push(Sexp::List(list));
                    }
                    rest = &rest[1..];
                }
                c if c.is_whitespace() => rest = rest.trim_start(),
                '"' => {
                    let end = rest[1..].find('"').ok_or("a string without its end")? + 2;
                    open.last_mut().ok_or("nothing open")?.push(Sexp::Atom(rest[..end].into()));
                    rest = &rest[end..];
                }
                _ => {
                    let end =
                        rest.find(|c: char| c.is_whitespace() || "();\"".contains(c)).unwrap_or(rest.len());
                    open.last_mut().ok_or("nothing open")?.push(Sexp::Atom(rest[..end].into()));
                    rest = &rest[end..];
                }
            }
        }
        if open.len() != 1 {
            return Err("a ( without its )".into());
        }
        Ok(open.pop().unwrap_or_default())
    }

    fn list(&self) -> &[Sexp] {
        match self {
            Sexp::List(all) => all,
            Sexp::Atom(_) => &[],
        }
    }

    fn atom(&self) -> &str {
        match self {
            Sexp::Atom(a) => a,
            Sexp::List(_) => "",
        }
    }

    /// The constructor at the front, if it is a call of one.
    fn head(&self) -> Option<&str> {
        self.list().first().map(Sexp::atom).filter(|a| is_constructor(a))
    }

    fn constructors(&self, found: &mut BTreeSet<String>) {
        found.extend(self.head().map(String::from));
        self.list().iter().for_each(|s| s.constructors(found));
    }
}

/// Constructors start with a capital letter, primitives and functions do not.
fn is_constructor(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_uppercase())
}

/// The value after a keyword such as `:name`.
fn after<'a>(list: &'a [Sexp], key: &str) -> Option<&'a Sexp> {
    list.iter().position(|s| s.atom() == key).and_then(|i| list.get(i + 1))
}

impl Rule {
    fn read(group: Group, index: usize, command: &Sexp) -> Result<Rule, String> {
        let list = command.list();
        let name = after(list, ":name").map(|n| n.atom().trim_matches('"').to_string());
        let name = name.ok_or_else(|| format!("{command}: a rule without a name"))?;
        let (query, actions, changed, made) = match list {
            [kind, from, to, ..] if kind.atom() == "rewrite" => {
                let when = after(list, ":when").map_or(&[][..], Sexp::list);
                let facts: Vec<String> = when.iter().map(Sexp::to_string).collect();
                let query = format!("(= e__ {from}) {}", facts.join(" "));
                let mut all = vec![from.clone()];
                all.extend(when.iter().cloned());
                (query, format!("(union e__ {to})"), Sexp::List(all), to.clone())
            }
            [kind, facts, actions, ..] if kind.atom() == "rule" => {
                let union =
                    actions.list().iter().find(|a| a.list().first().is_some_and(|h| h.atom() == "union"));
                let [_, changed, made] = union.map_or(&[][..], Sexp::list) else {
                    return Err(format!("{name}: a rule ends in (union class alternative)"));
                };
                let words = |s: &Sexp| s.list().iter().map(Sexp::to_string).collect::<Vec<_>>().join(" ");
                let query = format!("(= e__ {changed}) {}", words(facts));
                (query, words(actions), facts.clone(), made.clone())
            }
            _ => return Err(format!("{command}: a rewrite or a rule is wanted")),
        };
        let (mut looks_for, mut makes) = (BTreeSet::new(), BTreeSet::new());
        changed.constructors(&mut looks_for);
        match list[0].atom() {
            "rule" => list[2].constructors(&mut makes),
            _ => made.constructors(&mut makes),
        }
        let text =
            format!("(rule ({query}) ({actions} (origin e__ {index})) :ruleset weft :name \"{name}\")");
        Ok(Rule { name, group, looks_for, makes, head: made.head().map(String::from), text })
    }
}

/// Rules that compute relations on nodes before each round, for other rules to query.
const FACTS: &str = include_str!("rules/facts.egg");

/// The commands that compute facts about nodes with these constructors.
pub(super) fn facts(there: &BTreeSet<String>) -> Vec<String> {
    let usable = |command: &Sexp| {
        let mut names = BTreeSet::new();
        command.constructors(&mut names);
        names.is_subset(there)
    };
    let text = |c: Sexp| {
        let parts: Vec<String> = c.list().iter().map(Sexp::to_string).collect();
        format!("({} :ruleset facts)", parts.join(" "))
    };
    Sexp::parse(FACTS).unwrap_or_default().into_iter().filter(usable).map(text).collect()
}

/// Every rule, in the order of the files; a rule's index is its number in the e-graph.
pub fn all() -> &'static [Rule] {
    static RULES: Own<OnceLock<Vec<Rule>>> = Own::new(OnceLock::new);
    RULES.get_or_init(|| {
        let mut rules = Vec::new();
        for group in Group::every() {
            // the files are part of the library, and a test parses them: unreadable ones are skipped
            for command in Sexp::parse(group.text()).unwrap_or_default() {
                rules.extend(Rule::read(group, rules.len(), &command).ok());
            }
        }
        rules
    })
}

/// The enabled rules that a graph with these constructors can use: all constructors in a rule's pattern exist, or are produced
/// by another usable rule. Also the constructors that may occur.
pub(super) fn usable(
    wanted: &dyn Fn(&Rule) -> bool,
    there: &BTreeSet<String>,
) -> (Vec<usize>, BTreeSet<String>) {
    let rules = all();
    let mut there = there.clone();
    let mut used = vec![false; rules.len()];
    loop {
        let before = used.iter().filter(|&&u| u).count();
        for (i, rule) in rules.iter().enumerate() {
            if !used[i] && wanted(rule) && rule.looks_for.is_subset(&there) {
                used[i] = true;
                there.extend(rule.makes.iter().cloned());
            }
        }
        if used.iter().filter(|&&u| u).count() == before {
            return ((0..rules.len()).filter(|&i| used[i]).collect(), there);
        }
    }
}

/// A digest of all rules and of their language: part of the cache key of compiled graphs.
pub fn version() -> &'static str {
    static VERSION: Own<OnceLock<String>> = Own::new(OnceLock::new);
    VERSION.get_or_init(|| {
        let text: String = Group::every().map(Group::text).chain([FACTS, Language::get().text()]).collect();
        // FNV-1a, 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/
        let hash = text
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        format!("{hash:016x}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_read_to_its_end() {
        for group in Group::every() {
            let commands = Sexp::parse(group.text()).unwrap_or_else(|e| panic!("{}: {e}", group.name()));
            for (i, c) in commands.iter().enumerate() {
                Rule::read(group, i, c).unwrap_or_else(|e| panic!("{}: {e}", group.name()));
            }
        }
        let everything = Language::get().names();
        assert_eq!(
            facts(&everything).len(),
            Sexp::parse(FACTS).unwrap().len(),
            "a fact of a constructor that is not there"
        );
        let mut names: Vec<&str> = all().iter().map(|r| r.name.as_str()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "two rules of one name");
    }

    #[test]
    fn rules_name_only_constructors_that_there_are() {
        for rule in all() {
            for name in rule.looks_for.iter().chain(&rule.makes) {
                assert!(Language::get().knows(name), "{}: no constructor {name}", rule.name);
            }
        }
    }

    #[test]
    fn unbalanced_text_is_refused() {
        assert!(
            Sexp::parse("(a (b)").is_err() && Sexp::parse("a) b").is_err() && Sexp::parse("(\"a").is_err()
        );
    }
}
