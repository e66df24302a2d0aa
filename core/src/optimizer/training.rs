//! Applies an optimizer to the parameters of a session: the update, the scalars and the state names of each.

use super::Optimizer;
use super::lower::{Source, Target, Update, lower};
use super::rule::Span;
use crate::error::{Error, Result};
use crate::tensor::Dims;

/// A parameter's shape as matrices of rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Number of matrices, rows per matrix, columns per row.
    pub sizes: [usize; 3],
}

impl Geometry {
    /// The last two axes of a shape, with all others merged; a shape of fewer axes is one row.
    pub fn of(shape: &[usize]) -> Self {
        let sizes = match shape {
            [others @ .., rows, columns] => [others.iter().product(), *rows, *columns],
            [columns] => [1, 1, *columns],
            [] => [1; 3],
        };
        Geometry { sizes }
    }

    /// Sizes of the axes of a span, 1 for axes it does not have.
    pub fn axes(&self, span: Span) -> [usize; 3] {
        let has = span.axes();
        [0, 1, 2].map(|i| if has[i] { self.sizes[i] } else { 1 })
    }

    /// Number of positions of a span.
    pub fn count(&self, span: Span) -> usize {
        self.axes(span).iter().product()
    }
}

/// A parameter that is trained.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Dims,
    /// As matrices.
    pub geometry: Geometry,
    /// The index of its update.
    pub update: usize,
    /// The index of its first scalar.
    pub scalars: usize,
}

/// A state of a parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct StateOf {
    /// The parameter, by its number.
    pub member: usize,
    /// The state, by its number among those of the update.
    pub state: usize,
    /// The state's name.
    pub name: &'static str,
    /// Its shape.
    pub shape: Dims,
}

/// An optimizer applied to parameters.
#[derive(Debug, Clone)]
pub struct Training {
    /// The optimizer.
    pub optimizer: Optimizer,
    /// The lowered forms of its update that the parameters need.
    pub updates: Vec<Update>,
    /// The parameters.
    pub members: Vec<Member>,
    /// Consecutive groups of scalars: their update, a factor on the learning rate, settings.
    runs: Vec<(usize, f32, Vec<f32>)>,
}

impl Training {
    /// Applies an optimizer to parameters with those names and shapes.
    ///
    /// # Errors
    /// [`Error::Argument`] for invalid settings and a parameter in two groups; [`Error::UnknownName`] if a group names a
    /// parameter that does not exist.
    pub fn new(optimizer: Optimizer, parameters: &[(&str, &[usize])]) -> Result<Training> {
        optimizer.check()?;
        let group_of = groups(&optimizer, parameters)?;
        let mut values = vec![optimizer.values(None)];
        values.extend(optimizer.groups.iter().map(|g| optimizer.values(Some(g))));
        let settings = optimizer.rule.settings.len();
        let used: Vec<bool> = (0..settings).map(|i| values.iter().any(|v| v.1[i] != 0.0)).collect();
        let mut t = Training { optimizer, updates: vec![], members: vec![], runs: vec![] };
        let mut forms: [Option<usize>; 2] = [None; 2];
        let mut at: Vec<(usize, usize, usize)> = vec![]; // update, group, first scalar
        let mut next = 0;
        for (&(name, shape), group) in parameters.iter().zip(group_of) {
            let matrix = shape.len() >= 2;
            let update = match forms[usize::from(matrix)] {
                Some(update) => update,
                None => {
                    let (update, at) = (lower(t.optimizer.rule, matrix, &used)?, t.updates.len());
                    // one for all, and one dispatch, where the rule does not ask what the parameter is
                    if !update.by_matrix {
                        forms = [Some(at); 2];
                    }
                    forms[usize::from(matrix)] = Some(at);
                    t.updates.push(update);
                    at
                }
            };
            let group = group.map_or(0, |g| g + 1);
            let known = at.iter().find(|a| (a.0, a.1) == (update, group)).map(|a| a.2);
            let scalars = known.unwrap_or_else(|| {
                let (factor, settings) = values[group].clone();
                t.runs.push((update, factor, settings));
                at.push((update, group, next));
                next += t.updates[update].scalar_count();
                at[at.len() - 1].2
            });
            let (name, shape, geometry) = (name.to_string(), Dims::from(shape), Geometry::of(shape));
            t.members.push(Member { name, shape, geometry, update, scalars });
        }
        Ok(t)
    }

    /// Computes the scalars of a step (counted from 1) for a learning rate.
    pub fn scalars(&self, rate: f32, step: u64, into: &mut [f32]) {
        let mut rest = into;
        for (update, factor, settings) in &self.runs {
            let update = &self.updates[*update];
            let (own, others) = rest.split_at_mut(update.scalar_count().min(rest.len()));
            update.scalars(rate * factor, step, settings, own);
            rest = others;
        }
    }

    /// Number of scalars.
    pub fn scalar_count(&self) -> usize {
        self.runs.iter().map(|r| self.updates[r.0].scalar_count()).sum()
    }

    /// Whether scalars depend on the step number.
    pub fn depends_on_step(&self) -> bool {
        self.updates.iter().any(Update::depends_on_step)
    }

    /// The update of a parameter.
    pub fn update(&self, member: usize) -> &Update {
        &self.updates[self.members[member].update]
    }

    /// Every state of every parameter, in order.
    pub fn states(&self) -> impl Iterator<Item = StateOf> + '_ {
        self.members.iter().enumerate().flat_map(move |(member, m)| {
            let of = move |(state, s): (usize, &super::StateForm)| StateOf {
                member,
                state,
                name: s.name,
                shape: shape(&m.shape, s.span),
            };
            self.update(member).states.iter().enumerate().map(of)
        })
    }

    /// Bytes of all states.
    pub fn state_bytes(&self) -> usize {
        let each = |(i, m): (usize, &Member)| -> usize {
            self.update(i).states.iter().map(|s| m.geometry.count(s.span) * 4).sum()
        };
        self.members.iter().enumerate().map(each).sum()
    }
}

/// The group of each parameter.
fn groups(optimizer: &Optimizer, parameters: &[(&str, &[usize])]) -> Result<Vec<Option<usize>>> {
    let mut of = vec![None; parameters.len()];
    for (i, group) in optimizer.groups.iter().enumerate() {
        for name in group.names() {
            let at = parameters.iter().position(|p| p.0 == name).ok_or_else(|| Error::UnknownName {
                kind: "trained parameter".into(),
                name: name.clone(),
                known: parameters.iter().map(|p| p.0).collect::<Vec<_>>().join(", "),
            })?;
            if of[at].replace(i).is_some() {
                return Err(Error::argument(
                    format!("group {i} of the optimizer"),
                    "parameters that no group has yet",
                    format!("\"{name}\""),
                ));
            }
        }
    }
    Ok(of)
}

/// The shape of a parameter's state: 1 for each axis that its span does not have.
fn shape(of: &[usize], span: Span) -> Dims {
    let [_, rows, columns] = span.axes();
    match (span, of) {
        (Span::Element, _) => Dims::from(of),
        (Span::Whole, _) => Dims::from(&[][..]),
        (_, [others @ .., r, c]) => {
            let last = [if rows { *r } else { 1 }, if columns { *c } else { 1 }];
            others.iter().copied().chain(last).collect()
        }
        // one row: its columns, or one value
        (_, [c]) if columns => Dims::from(&[*c][..]),
        _ => Dims::from(&[1][..]),
    }
}

impl Source {
    /// The span of an input; scalars are uniform.
    pub fn span(self, update: &Update) -> Span {
        match self {
            Source::Parameter | Source::Gradient => Span::Element,
            Source::State(i) => update.states[i].span,
            Source::Kept(i) => update.kept[i],
            Source::Mean(i) => update.means[i].1,
            Source::Scalar(_) => Span::Whole,
        }
    }
}

impl Target {
    /// The span of a stored value; for a mean, that of the averaged values.
    pub fn span(self, update: &Update) -> Span {
        match self {
            Target::Parameter => Span::Element,
            Target::State(i) => update.states[i].span,
            Target::Kept(i) => update.kept[i],
            Target::Mean(i) => update.means[i].0,
        }
    }
}
