//! Lowers an optimizer's rule to passes over tapes, which every device executes in its own way.
//!
//! Subexpressions that are equal for all elements (bias corrections, products of settings) become *scalars*, which the host
//! computes in f64 once per step. Means become passes of their own; states with fewer than one value per element are stored
//! before their first use; the last pass processes a parameter's elements and stores them with the per-element states.

use super::rule::{Definition, Mean, Rule, Scope, Span, StateForm, leaf};
use crate::error::{Error, Result};
use crate::expr::{Bindings, Context, Expr, Instr, Kind, Reg, Scalar, Tape, Words};

/// An input of a pass at a position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The parameter.
    Parameter,
    /// Its gradient.
    Gradient,
    /// A state.
    State(usize),
    /// A value stored by an earlier pass.
    Kept(usize),
    /// A mean, computed by an earlier pass, at this position.
    Mean(usize),
    /// A scalar.
    Scalar(usize),
}

/// The destination of a pass's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// Into the parameter.
    Parameter,
    /// Into a state.
    State(usize),
    /// An intermediate value for later passes.
    Kept(usize),
    /// A mean: the results of all positions that it covers are added.
    Mean(usize),
}

/// A computation at every position of a span.
#[derive(Debug, Clone)]
pub struct Pass {
    /// It runs after passes of lower levels; passes of one level are independent.
    pub level: usize,
    /// The positions.
    pub over: Span,
    /// The sources of `Instr::Load(i)`.
    pub loads: Vec<Source>,
    /// The code.
    pub tape: Tape,
    /// Destinations and registers of results: either one mean, or any others.
    pub results: Vec<(Target, Reg)>,
}

/// A rule lowered for parameters of one form.
#[derive(Debug, Clone)]
pub struct Update {
    /// The states of a parameter.
    pub states: Vec<StateForm>,
    /// The spans of intermediate values.
    pub kept: Vec<Span>,
    /// For each mean, the span of the values it covers, and its own.
    pub means: Vec<(Span, Span)>,
    /// The passes, in order.
    pub passes: Vec<Pass>,
    /// Whether parameters of two or more axes have another update than the others have.
    pub by_matrix: bool,
    scalars: Vec<Expr>,
}

impl Update {
    /// Number of scalars.
    pub fn scalar_count(&self) -> usize {
        self.scalars.len()
    }

    /// Computes the scalars of a step; steps count from 1.
    pub fn scalars(&self, rate: f32, step: u64, settings: &[f32], into: &mut [f32]) {
        let mut inputs = [Scalar::F(0.0); leaf::STATES];
        inputs[leaf::RATE] = Scalar::F(f64::from(rate));
        inputs[leaf::STEP] = Scalar::F(step as f64);
        for (to, &v) in inputs[leaf::SETTINGS..].iter_mut().zip(settings) {
            *to = Scalar::F(f64::from(v));
        }
        let at = Context { inputs: &inputs, ..Default::default() };
        for (to, e) in into.iter_mut().zip(&self.scalars) {
            *to = e.evaluate(&at).number() as f32;
        }
    }

    /// Whether scalars depend on the step number.
    pub fn depends_on_step(&self) -> bool {
        fn counts(e: &Expr) -> bool {
            let mut found = *e == Expr::Input(leaf::STEP);
            e.with_parts(&mut |part| {
                found |= counts(part);
                part.clone()
            });
            found
        }
        self.scalars.iter().any(counts)
    }

    /// Whether it has a single pass, over per-element values only.
    pub fn is_elementwise(&self) -> bool {
        self.passes.len() == 1
    }
}

/// Lowers a rule for parameters with rows and columns (`matrix`), or without. `used` says which settings are non-zero.
///
/// # Errors
/// [`Error::Internal`] for an inconsistent rule: a test lowers each one in the table.
pub fn lower(rule: &Rule, matrix: bool, used: &[bool]) -> Result<Update> {
    let mut scope = Scope::new(rule, matrix, used);
    let parameter = (rule.update)(&mut scope);
    let by_matrix = scope.asked.get();
    let wrong = |what: &str| Error::internal(format!("optimizer {}: {what}", rule.name));
    if rule.settings.len() > leaf::STATES - leaf::SETTINGS || scope.states.len() > 32 || scope.kept > 32 {
        return Err(wrong("more names than there is room for"));
    }
    let mut hoisting = Hoisting::default();
    let parameter = hoisting.hoist(&parameter);
    let means: Vec<Mean> =
        scope.means.iter().map(|m| Mean { of: hoisting.hoist(&m.of), over: m.over }).collect();
    let mut l = Lowering {
        next: vec![None; scope.states.len()],
        stored: vec![None; scope.states.len()],
        states: scope.states,
        spans: vec![None; scope.means.len()],
        kept: vec![(None, 0); scope.kept],
        folded: vec![None; means.len()],
        materialised: vec![None; means.len()],
        means,
        passes: vec![],
        own: None,
    };
    // means of intermediate values, intermediate values of means: resolved in rounds
    for _ in 0..l.means.len() + l.kept.len() {
        for i in 0..l.means.len() {
            let from = l.span(&l.means[i].of);
            l.spans[i] = from.and_then(|from| Some((from, from.mean(l.means[i].over)?)));
        }
        for definition in &scope.definitions {
            if let Definition::Kept(i, value) = definition {
                l.kept[*i].0 = l.span(value).filter(|s| *s != Span::Element);
            }
        }
    }
    if l.spans.contains(&None) || l.kept.iter().any(|k| k.0.is_none()) {
        return Err(wrong("a mean over an axis that is not there, or a kept value of one an element"));
    }
    let mut last = vec![(Target::Parameter, parameter)];
    for definition in scope.definitions {
        match definition {
            Definition::State(i, next) => {
                let state = *l.states.get(i).ok_or_else(|| wrong("what becomes something is no state"))?;
                let next = hoisting.hoist(&next);
                l.next[i] = Some(next.clone());
                if state.span == Span::Element {
                    last.push((Target::State(i), next));
                    continue;
                }
                l.own = Some(i);
                let level = l.apply(state.span, &[(Target::State(i), next)]);
                l.own = None;
                l.stored[i] = Some(level.ok_or_else(|| wrong("a state's next value"))?);
            }
            Definition::Kept(i, value) => {
                let value = hoisting.hoist(&value);
                let level = l.kept[i].0.and_then(|span| l.apply(span, &[(Target::Kept(i), value)]));
                l.kept[i].1 = level.ok_or_else(|| wrong("a kept value"))?;
            }
        }
    }
    l.apply(Span::Element, &last).ok_or_else(|| wrong("the last pass"))?;
    // the last pass overwrites inputs of all others
    if let Some((last, others)) = l.passes.split_last_mut() {
        last.level = others.iter().map(|p| p.level + 1).max().unwrap_or(0);
    }
    l.passes.sort_by_key(|p| p.level);
    Ok(Update {
        states: l.states,
        kept: l.kept.into_iter().filter_map(|k| k.0).collect(),
        means: l.spans.into_iter().flatten().collect(),
        passes: l.passes,
        by_matrix,
        scalars: hoisting.scalars,
    })
}

/// Hoists subexpressions that are equal for all elements.
#[derive(Default)]
struct Hoisting {
    scalars: Vec<Expr>,
}

impl Hoisting {
    fn hoist(&mut self, e: &Expr) -> Expr {
        match uniform(e) {
            Uniform::Named => {
                let at = self.scalars.iter().position(|s| s == e).unwrap_or_else(|| {
                    self.scalars.push(e.clone());
                    self.scalars.len() - 1
                });
                Expr::Input(leaf::SCALARS + at)
            }
            Uniform::Literal => e.clone(),
            Uniform::No => e.with_parts(&mut |part| self.hoist(part)),
        }
    }
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Uniform {
    /// Only literals.
    Literal,
    /// Depends on settings, the rate or the step.
    Named,
    /// Varies between elements.
    No,
}

fn uniform(e: &Expr) -> Uniform {
    match e {
        Expr::Const(_) => Uniform::Literal,
        Expr::Input(i) if (leaf::RATE..leaf::STATES).contains(i) => Uniform::Named,
        Expr::Unary(_, a) | Expr::Cast(_, a) => uniform(a),
        Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => most(uniform(a), uniform(b)),
        Expr::Select(c, a, b) => most(uniform(c), most(uniform(a), uniform(b))),
        _ => Uniform::No,
    }
}

fn most(a: Uniform, b: Uniform) -> Uniform {
    if a < b { b } else { a }
}

struct Lowering {
    states: Vec<StateForm>,
    /// Next values of states, where known.
    next: Vec<Option<Expr>>,
    /// The level at which each state with fewer than one value per element is stored.
    stored: Vec<Option<usize>>,
    /// Spans and levels of intermediate values.
    kept: Vec<(Option<Span>, usize)>,
    means: Vec<Mean>,
    /// Their spans: see [`Update::means`].
    spans: Vec<Option<(Span, Span)>>,
    /// The level at which the values of each mean are added.
    folded: Vec<Option<usize>>,
    /// The intermediate value that stores each mean.
    materialised: Vec<Option<usize>>,
    passes: Vec<Pass>,
    /// The state that is about to be stored: only its own pass may read its old value.
    own: Option<usize>,
}

impl Lowering {
    /// The span of an expression; `None` if it depends on unresolved values.
    fn span(&self, e: &Expr) -> Option<Span> {
        match e {
            Expr::Input(leaf::PARAMETER | leaf::GRADIENT) => Some(Span::Element),
            Expr::Input(i) if (leaf::STATES..leaf::NEXT).contains(i) => {
                Some(self.states.get(i - leaf::STATES)?.span)
            }
            Expr::Input(i) if (leaf::NEXT..leaf::KEPT).contains(i) => {
                Some(self.states.get(i - leaf::NEXT)?.span)
            }
            Expr::Input(i) if (leaf::KEPT..leaf::SCALARS).contains(i) => self.kept.get(i - leaf::KEPT)?.0,
            Expr::Reduced(k) => Some((*self.spans.get(*k)?)?.1),
            Expr::Input(_) | Expr::Const(_) => Some(Span::Whole),
            Expr::Unary(_, a) | Expr::Cast(_, a) => self.span(a),
            Expr::Binary(_, a, b) | Expr::Compare(_, a, b) => Some(self.span(a)?.with(self.span(b)?)),
            Expr::Select(c, a, b) => Some(self.span(c)?.with(self.span(a)?).with(self.span(b)?)),
            Expr::Coord(_) | Expr::Flat | Expr::Random { .. } => None,
        }
    }

    /// Adds the pass that sums the values of a mean; returns its level.
    fn fold(&mut self, k: usize) -> Option<usize> {
        if let Some(level) = self.folded[k] {
            return Some(level);
        }
        let of = self.means[k].of.clone();
        let level = self.pass(self.spans[k]?.0, None, &[(Target::Mean(k), of)])?;
        self.folded[k] = Some(level);
        Some(level)
    }

    /// Adds a pass that stores results at every position of a span; returns its level.
    fn apply(&mut self, over: Span, results: &[(Target, Expr)]) -> Option<usize> {
        self.pass(over, Some(over), results)
    }

    /// Adds a pass over a span; means of the span `inline` are finished by their reader, others are stored first.
    fn pass(&mut self, over: Span, inline: Option<Span>, results: &[(Target, Expr)]) -> Option<usize> {
        let mut loads: Vec<Source> = vec![];
        let mut level = 0;
        let mut resolved = vec![];
        for (_, e) in results {
            resolved.push(self.resolve(e, inline, &mut loads, &mut level)?);
        }
        let mut tape = Tape::default();
        let inputs: Vec<Words> =
            (0..loads.len()).map(|i| Words::One(tape.push(Instr::Load(i), Kind::F))).collect();
        let bindings = Bindings { inputs: &inputs, reduced: &[], coords: &[], flat: &[] };
        let mut to = vec![];
        for ((target, _), e) in results.iter().zip(&resolved) {
            to.push((*target, tape.add(e, &bindings)?.one()?));
        }
        self.passes.push(Pass { level, over, loads, tape, results: to });
        Some(level)
    }

    /// Converts an expression to one over loads, and returns the level from which on these are available.
    fn resolve(
        &mut self,
        e: &Expr,
        inline: Option<Span>,
        loads: &mut Vec<Source>,
        level: &mut usize,
    ) -> Option<Expr> {
        let mut after = |stored: usize| *level = (*level).max(stored + 1);
        let source = match e {
            Expr::Input(leaf::PARAMETER) => Source::Parameter,
            Expr::Input(leaf::GRADIENT) => Source::Gradient,
            Expr::Input(i) if *i >= leaf::SCALARS => Source::Scalar(i - leaf::SCALARS),
            Expr::Input(i) if *i >= leaf::KEPT => {
                after(self.kept[i - leaf::KEPT].1);
                Source::Kept(i - leaf::KEPT)
            }
            Expr::Input(i) if *i >= leaf::NEXT => {
                let state = i - leaf::NEXT;
                match (self.states.get(state)?.span, self.stored[state]) {
                    // per-element states are stored at the end only: recomputed by each reader
                    (Span::Element, _) => {
                        let next = self.next[state].clone()?;
                        return self.resolve(&next, inline, loads, level);
                    }
                    (_, stored) => after(stored?),
                }
                Source::State(state)
            }
            Expr::Input(i) if *i >= leaf::STATES => {
                let state = i - leaf::STATES;
                let readable = self.states.get(state)?.span == Span::Element || self.own == Some(state);
                readable.then_some(Source::State(state))?
            }
            Expr::Reduced(k) if self.spans[*k].map(|s| s.1) == inline => {
                let folded = self.fold(*k)?;
                *level = (*level).max(folded + 1);
                Source::Mean(*k)
            }
            Expr::Reduced(k) => {
                let kept = match self.materialised[*k] {
                    Some(kept) => kept,
                    None => {
                        let (span, own, at) = (self.spans[*k]?.1, self.own.take(), self.kept.len());
                        self.kept.push((Some(span), 0));
                        self.kept[at].1 = self.apply(span, &[(Target::Kept(at), e.clone())])?;
                        self.own = own;
                        self.materialised[*k] = Some(at);
                        at
                    }
                };
                *level = (*level).max(self.kept[kept].1 + 1);
                Source::Kept(kept)
            }
            Expr::Input(_) | Expr::Coord(_) | Expr::Flat | Expr::Random { .. } => return None,
            _ => {
                let mut known = true;
                let made = e.with_parts(&mut |part| match self.resolve(part, inline, loads, level) {
                    Some(part) => part,
                    None => {
                        known = false;
                        part.clone()
                    }
                });
                return known.then_some(made);
            }
        };
        let at = loads.iter().position(|s| *s == source).unwrap_or_else(|| {
            loads.push(source);
            loads.len() - 1
        });
        Some(Expr::Input(at))
    }
}
