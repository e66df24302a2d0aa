//! The parts of a rule, and the scope in which its update is defined.

use crate::error::{Error, Result};
use crate::expr::Expr;
use std::cell::Cell;

/// An optimizer, declared.
///
/// ```
/// use weft::optimizer::{Over, Range, Rule, Setting, Span};
///
/// /// AdaGrad (Duchi, Hazan & Singer 2011), each row of a matrix held to a root mean square of `bound` at most.
/// static BOUNDED: Rule = Rule {
///     name: "bounded",
///     about: "AdaGrad with bounded rows.",
///     rate: 0.1,
///     settings: &[Setting { name: "bound", default: 1.0, range: Range::Positive, about: "Bound of rows." }],
///     update: |x| {
///         let [bound] = x.settings();
///         let g = x.gradient();
///         let sums = x.state("sum", Span::Element, 1e-8);
///         let sums = x.becomes(sums.clone(), sums + g.clone() * g.clone());
///         let moved = x.parameter() - x.rate() * g * sums.rsqrt();
///         let square = x.mean(moved.clone() * moved.clone(), Over::Columns);
///         let scale = x.keep((bound / square.sqrt()).min(1.0));
///         moved * scale
///     },
/// };
/// use weft::prelude::*;
/// let g = Graph::new();
/// g.set_loss(g.mean_all(g.parameter("w", [2, 2])));
/// let mut session = Compiler::new(&Device::cpu(1)).compile_training(&g)?.init_zeros()?;
/// session.set_optimizer(Optimizer::of(&BOUNDED, 0.5))?;
/// session.step()?;
/// assert_eq!(session.optimizer_states()[0].name, "sum");
/// # Ok::<(), weft::error::Error>(())
/// ```
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// A description with its source.
    pub about: &'static str,
    /// The default learning rate of its authors, or of PyTorch.
    pub rate: f32,
    /// Its settings, besides the learning rate.
    pub settings: &'static [Setting],
    /// Its formula: returns the parameter's next value, and defines in the scope the next values of states. Called once for
    /// parameters of two or more axes and once for the others, if it uses [`Scope::is_matrix`].
    pub update: fn(&mut Scope<'_>) -> Expr,
}

/// Rules are compared by their declarations.
impl PartialEq for Rule {
    fn eq(&self, other: &Rule) -> bool {
        std::ptr::eq(self, other)
    }
}

impl std::fmt::Debug for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Rule {
    /// The index of a setting.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn setting(&self, name: &str) -> Result<usize> {
        self.settings.iter().position(|s| s.name == name).ok_or_else(|| Error::UnknownName {
            kind: format!("setting of {}", self.name),
            name: name.into(),
            known: self.settings.iter().map(|s| s.name).collect::<Vec<_>>().join(", "),
        })
    }
}

/// A numeric setting of a rule.
///
/// ```
/// let setting = &weft::optimizer::Optimizer::adam(1e-3).rule().settings[0];
/// assert_eq!((setting.name, setting.default), ("beta1", 0.9));
/// assert!(setting.check(1.0).is_err()); // a mean that never forgets
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its default value.
    pub default: f32,
    /// Its valid values.
    pub range: Range,
    /// Its effect.
    pub about: &'static str,
}

impl Setting {
    /// Checks that a value is valid.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(&self, value: f32) -> Result<()> {
        self.range.check(self.name, value)
    }
}

/// The valid values of a setting.
///
/// ```
/// use weft::optimizer::Range;
///
/// assert!(Range::Decay.check("beta", 0.9).is_ok() && Range::Decay.check("beta", f32::NAN).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// 0 ≤ x < 1: the decay factor of a moving average.
    Decay,
    /// 0 ≤ x.
    NotNegative,
    /// 0 < x.
    Positive,
    /// x ≤ 0.
    NotPositive,
    /// 0 or 1.
    Switch,
}

impl Range {
    /// Checks that a value is in the range.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(self, what: &str, value: f32) -> Result<()> {
        let (allowed, wanted) = match self {
            Range::Decay => ((0.0..1.0).contains(&value), "a number from 0, below 1"),
            Range::NotNegative => (value >= 0.0, "a finite number, 0 or more"),
            Range::Positive => (value > 0.0, "a finite number above 0"),
            Range::NotPositive => (value <= 0.0, "a finite number, 0 or less"),
            Range::Switch => (value == 0.0 || value == 1.0, "0 or 1"),
        };
        if allowed && value.is_finite() { Ok(()) } else { Err(Error::argument(what, wanted, value)) }
    }
}

/// The number of values per parameter. A parameter of two or more axes consists of matrices of rows and columns, its last two
/// axes; any other is one row.
///
/// ```
/// use weft::optimizer::{Over, Span};
///
/// assert_eq!(Span::Row.with(Span::Column), Span::Element);
/// assert_eq!(Span::Element.mean(Over::Columns), Some(Span::Row));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// One per element.
    Element,
    /// One per row.
    Row,
    /// One per column.
    Column,
    /// One per matrix.
    Matrix,
    /// One per parameter.
    Whole,
}

impl Span {
    /// Whether it has an index along matrices, rows, columns.
    pub fn axes(self) -> [bool; 3] {
        match self {
            Span::Element => [true, true, true],
            Span::Row => [true, true, false],
            Span::Column => [true, false, true],
            Span::Matrix => [true, false, false],
            Span::Whole => [false; 3],
        }
    }

    fn of(axes: [bool; 3]) -> Span {
        match axes {
            [_, true, true] => Span::Element,
            [_, true, false] => Span::Row,
            [_, false, true] => Span::Column,
            [true, false, false] => Span::Matrix,
            [false, false, false] => Span::Whole,
        }
    }

    /// The span of a value computed from values of both.
    pub fn with(self, other: Span) -> Span {
        let (a, b) = (self.axes(), other.axes());
        Span::of([0, 1, 2].map(|i| a[i] || b[i]))
    }

    /// The span of a mean over axes; `None` if it has none of them.
    pub fn mean(self, over: Over) -> Option<Span> {
        let [b, r, c] = self.axes();
        match over {
            Over::Columns => c.then(|| Span::of([b, r, false])),
            Over::Rows => r.then(|| Span::of([b, false, c])),
            Over::All => (b || r || c).then_some(Span::Whole),
        }
    }
}

/// The axes of a mean.
///
/// ```
/// use weft::optimizer::{Over, Span};
///
/// assert_eq!(Span::Row.mean(Over::Columns), None); // one value a row has no columns
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The last axis: one mean per row.
    Columns,
    /// The last axis but one: one mean per column; for per-row values, one per matrix.
    Rows,
    /// Everything.
    All,
}

/// A state that a rule keeps for a parameter.
///
/// ```
/// use weft::optimizer::{Span, StateForm};
///
/// let momentum = StateForm { name: "momentum_buffer", span: Span::Element, initial: 0.0 };
/// assert!(momentum.span.axes().iter().all(|has| *has));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StateForm {
    /// Its name.
    pub name: &'static str,
    /// Its number of values.
    pub span: Span,
    /// Its initial value.
    pub initial: f32,
}

/// A mean in a rule.
#[derive(Debug, Clone)]
pub struct Mean {
    /// The averaged values.
    pub(super) of: Expr,
    /// The axes.
    pub(super) over: Over,
}

/// A value that a rule stores.
#[derive(Debug, Clone)]
pub(super) enum Definition {
    /// A state's next value.
    State(usize, Expr),
    /// An intermediate value.
    Kept(usize, Expr),
}

/// The free names of a rule's expressions, as numbers of inputs.
pub(super) mod leaf {
    pub const PARAMETER: usize = 0;
    pub const GRADIENT: usize = 1;
    pub const RATE: usize = 2;
    pub const STEP: usize = 3;
    pub const SETTINGS: usize = 4;
    pub const STATES: usize = 32;
    pub const NEXT: usize = 64;
    pub const KEPT: usize = 96;
    pub const SCALARS: usize = 128;
}

/// The scope of a rule's update: its inputs, and the values to store.
///
/// ```
/// use weft::{expr::Expr, optimizer::Scope};
///
/// /// p − lr·g, as a rule's `update`.
/// fn descend(x: &mut Scope<'_>) -> Expr {
///     x.parameter() - x.rate() * x.gradient()
/// }
/// # let _: fn(&mut Scope<'_>) -> Expr = descend;
/// ```
#[derive(Debug)]
pub struct Scope<'a> {
    matrix: bool,
    /// Whether the rule asked for it.
    pub(super) asked: Cell<bool>,
    used: &'a [bool],
    settings: &'static [Setting],
    pub(super) states: Vec<StateForm>,
    pub(super) means: Vec<Mean>,
    pub(super) definitions: Vec<Definition>,
    pub(super) kept: usize,
}

impl<'a> Scope<'a> {
    pub(super) fn new(rule: &Rule, matrix: bool, used: &'a [bool]) -> Self {
        let settings = rule.settings;
        Scope {
            matrix,
            asked: Cell::new(false),
            used,
            settings,
            states: vec![],
            means: vec![],
            definitions: vec![],
            kept: 0,
        }
    }

    /// The parameter's element.
    pub fn parameter(&self) -> Expr {
        Expr::Input(leaf::PARAMETER)
    }

    /// Its gradient.
    pub fn gradient(&self) -> Expr {
        Expr::Input(leaf::GRADIENT)
    }

    /// The learning rate.
    pub fn rate(&self) -> Expr {
        Expr::Input(leaf::RATE)
    }

    /// The number of this step, from 1.
    pub fn step(&self) -> Expr {
        Expr::Input(leaf::STEP)
    }

    /// The first settings, in the order of the declaration.
    pub fn settings<const N: usize>(&self) -> [Expr; N] {
        std::array::from_fn(|i| Expr::Input(leaf::SETTINGS + i))
    }

    /// Whether a setting is non-zero for some parameter: otherwise work and states for it can be omitted.
    pub fn uses(&self, setting: &str) -> bool {
        self.settings.iter().zip(self.used).any(|(s, used)| s.name == setting && *used)
    }

    /// Whether the parameter has rows and columns: two or more axes.
    pub fn is_matrix(&self) -> bool {
        self.asked.set(true);
        self.matrix
    }

    /// A state's value from the previous step; `initial` before the first.
    pub fn state(&mut self, name: &'static str, span: Span, initial: f32) -> Expr {
        self.states.push(StateForm { name, span, initial });
        Expr::Input(leaf::STATES + self.states.len() - 1)
    }

    /// Sets a state's next value, and returns it.
    pub fn becomes(&mut self, state: Expr, next: Expr) -> Expr {
        let at = match state {
            Expr::Input(i) if (leaf::STATES..leaf::NEXT).contains(&i) => i - leaf::STATES,
            _ => usize::MAX, // refused when the rule is lowered
        };
        self.definitions.push(Definition::State(at, next));
        Expr::Input(leaf::NEXT.saturating_add(at))
    }

    /// The mean of a value over axes of the parameter.
    pub fn mean(&mut self, of: Expr, over: Over) -> Expr {
        self.means.push(Mean { of, over });
        Expr::Reduced(self.means.len() - 1)
    }

    /// Stores a value with fewer than one per element, so that it is computed once and not by each user.
    pub fn keep(&mut self, value: Expr) -> Expr {
        self.definitions.push(Definition::Kept(self.kept, value));
        self.kept += 1;
        Expr::Input(leaf::KEPT + self.kept - 1)
    }
}
