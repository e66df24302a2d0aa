//! Optimizers as rules. A rule is declared once, as expressions over a parameter, its gradient and named states ([`RULES`]);
//! devices' work is derived from it: `lower` turns a rule into passes over tapes, `training` applies them to the parameters of
//! a session. Depends on shapes and names, never on a device. To add an optimizer, add its [`Rule`] to `table.rs`;
//! `core/tests/optimizers` then requires its expected values.
//!
//! A rule has settings with their ranges, and a formula in `expr` over parameter, gradient, named states, learning rate and
//! step; it may contain means over rows, columns or all elements, so that states may have one value per row (Adafactor).
//! `optimizer/lower` derives passes: subexpressions that are equal for all elements become *scalars*, computed in f64 on the
//! host once per step (bias corrections), means become passes of their own, and the last pass updates parameters and states in
//! place. The CPU runs passes as rowwise steps (`cpu/update`). On a GPU a kernel depends on the rule alone and reads its part
//! from a table (`target/gpu/kernels/update`, `updates`): all parameters whose memory one binding covers share a dispatch, and
//! a kernel binds at most six buffers. A session reads, writes, saves and restores states, including the step count, by name
//! (`session/optimizer`).

pub(crate) mod lower;
mod rule;
mod table;
pub(crate) mod training;

pub use rule::{Over, Range, Rule, Scope, Setting, Span, StateForm};
pub use table::RULES;

pub(crate) use lower::{Pass, Source, Target, Update};
pub(crate) use training::{Geometry, Member, StateOf, Training};

use crate::error::{Error, Result};

/// An optimizer for a session: a rule with its settings, and groups of parameters with different settings.
///
/// ```
/// # use weft::optimizer::{ParameterGroup, Optimizer};
/// # fn main() -> weft::error::Result<()> {
/// let all = Optimizer::adamw(1e-3).with("weight_decay", 0.1)?;
/// // biases and norms are not made smaller, the head learns ten times as fast
/// let all = all.group(ParameterGroup::new(["layers.0.bias", "norm.weight"]).weight_decay(0.0));
/// let all = all.group(ParameterGroup::new(["head.weight"]).rate(10.0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Optimizer {
    rule: &'static Rule,
    rate: f32,
    settings: Vec<f32>,
    groups: Vec<ParameterGroup>,
}

/// Parameters, by name, with settings of their own.
///
/// ```
/// use weft::optimizer::{Optimizer, ParameterGroup};
///
/// let head = ParameterGroup::new(["head.weight"]).rate(10.0).weight_decay(0.0);
/// assert_eq!(head.names(), ["head.weight"]);
/// Optimizer::adamw(1e-3).group(head).check()?;
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ParameterGroup {
    names: Vec<String>,
    rate: Option<f32>,
    weight_decay: Option<f32>,
}

impl ParameterGroup {
    /// The parameters with those names, with the optimizer's settings until changed.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        ParameterGroup { names: names.into_iter().map(Into::into).collect(), rate: None, weight_decay: None }
    }

    /// Multiplies their learning rate by a factor, 0 or more.
    pub fn rate(self, factor: f32) -> Self {
        ParameterGroup { rate: Some(factor), ..self }
    }

    /// Sets their weight decay.
    pub fn weight_decay(self, decay: f32) -> Self {
        ParameterGroup { weight_decay: Some(decay), ..self }
    }

    /// The names of its parameters.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl Optimizer {
    /// A rule with its default settings and the given learning rate.
    pub fn of(rule: &'static Rule, rate: f32) -> Self {
        Optimizer { rule, rate, settings: rule.settings.iter().map(|s| s.default).collect(), groups: vec![] }
    }

    /// The rule of that name with its default settings and learning rate.
    ///
    /// # Errors
    /// [`Error::UnknownName`], listing the existing names.
    pub fn named(name: &str) -> Result<Self> {
        let rule = RULES.iter().find(|r| r.name == name).ok_or_else(|| Error::UnknownName {
            kind: "optimizer".into(),
            name: name.into(),
            known: RULES.iter().map(|r| r.name).collect::<Vec<_>>().join(", "),
        })?;
        Ok(Optimizer::of(rule, rule.rate))
    }

    /// Stochastic gradient descent; `momentum`, `nesterov` and `weight_decay` are 0.
    pub fn sgd(rate: f32) -> Self {
        Optimizer::of(&table::SGD, rate)
    }

    /// Adam with its authors' constants.
    pub fn adam(rate: f32) -> Self {
        Optimizer::of(&table::ADAM, rate)
    }

    /// Adam with decoupled weight decay, 0.01.
    pub fn adamw(rate: f32) -> Self {
        Optimizer::of(&table::ADAMW, rate)
    }

    /// LaProp with its authors' constants.
    pub fn laprop(rate: f32) -> Self {
        Optimizer::of(&table::LAPROP, rate)
    }

    /// Lion with its authors' constants.
    pub fn lion(rate: f32) -> Self {
        Optimizer::of(&table::LION, rate)
    }

    /// Adafactor as in PyTorch.
    pub fn adafactor(rate: f32) -> Self {
        Optimizer::of(&table::ADAFACTOR, rate)
    }

    /// Sets a setting. Its range is checked when the optimizer is used ([`check`](Optimizer::check)).
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a setting that the rule does not have.
    pub fn with(mut self, setting: &str, value: f32) -> Result<Self> {
        let at = self.rule.setting(setting)?;
        self.settings[at] = value;
        Ok(self)
    }

    /// Adds a group of parameters with settings of their own.
    pub fn group(mut self, group: ParameterGroup) -> Self {
        self.groups.push(group);
        self
    }

    /// Its rule.
    pub fn rule(&self) -> &'static Rule {
        self.rule
    }

    /// Its learning rate.
    pub fn learning_rate(&self) -> f32 {
        self.rate
    }

    /// Changes the learning rate only.
    pub fn set_learning_rate(&mut self, rate: f32) {
        self.rate = rate;
    }

    /// The value of a setting.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn setting(&self, name: &str) -> Result<f32> {
        Ok(self.settings[self.rule.setting(name)?])
    }

    /// Checks that its settings cannot ruin weights: for example a learning rate that is NaN or negative, a moving average that
    /// never decays or grows, a denominator that may be negative.
    ///
    /// # Errors
    /// [`Error::Argument`] with the first invalid one.
    pub fn check(&self) -> Result<()> {
        check_rate(self.rate)?;
        self.rule.settings.iter().zip(&self.settings).try_for_each(|(s, &v)| s.check(v))?;
        for group in &self.groups {
            if let Some(factor) = group.rate {
                Range::NotNegative.check("learning rate of a group", factor)?;
            }
            if let Some(decay) = group.weight_decay {
                let at = self.rule.setting("weight_decay")?;
                self.rule.settings[at].range.check("weight_decay of a group", decay)?;
            }
        }
        Ok(())
    }

    /// The settings and the factor on the learning rate of a group, or of parameters in no group.
    fn values(&self, group: Option<&ParameterGroup>) -> (f32, Vec<f32>) {
        let mut settings = self.settings.clone();
        if let (Some(decay), Ok(at)) = (group.and_then(|g| g.weight_decay), self.rule.setting("weight_decay"))
        {
            settings[at] = decay;
        }
        (group.and_then(|g| g.rate).unwrap_or(1.0), settings)
    }
}

/// Checks that a learning rate is finite and not negative.
///
/// # Errors
/// [`Error::Argument`].
pub fn check_rate(rate: f32) -> Result<()> {
    Range::NotNegative.check("learning rate", rate)
}
