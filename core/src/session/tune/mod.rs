//! Measures which cuts of a graph's products are fastest on its device. Each class of products is taken out of the plan,
//! run by itself over random data, and searched; what wins against the rule's choice, turn by turn, goes into the table.

mod alone;
mod search;
mod trial;

use super::Compiled;
use crate::device::gpu::Progress;
use crate::error::Result;
use crate::profile::{Cut, Limits, ProductClass, TunedProduct, Tuning};
use crate::target::TargetPlan;
use crate::target::gpu::kernels::{classes, neighbours, seeds};
use trial::Bench;

/// By how much a cut must be faster than the rule's to be kept, and one of a transposed weight than the best that has none: it
/// takes the weight's memory once more.
const MARGIN: f64 = 0.03;
const TRANSPOSED_MARGIN: f64 = 0.1;

/// How products are measured.
///
/// ```no_run
/// use weft::prelude::*;
/// use weft::profile::Tuning;
/// use weft::session::{Measure, Measured, Wrong};
///
/// fn tune(compiled: &Compiled) -> weft::error::Result<Tuning> {
///     let mut tuning = Tuning::default();
///     tuning.measure(compiled, &Measure { most: 32, ..Default::default() }, &mut |_, found: &Measured| {
///         println!("{} ({} of them): {} cuts", found.label, found.count, found.tried);
///         found.wrong.iter().for_each(|Wrong { why, .. }| println!("dropped: {why}"));
///     })?;
///     Ok(tuning)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Measure {
    /// Cuts that are tried for each class of products, at most.
    pub most: usize,
    /// Whether classes are measured that the table has already.
    pub again: bool,
    /// Whether weights are also tried by their other axis, of which a session then holds a copy.
    pub turn: bool,
    /// Told how many classes are done, of how many; its wish to end is heeded between cuts.
    pub progress: Progress,
}

impl Default for Measure {
    fn default() -> Measure {
        Measure { most: 128, again: false, turn: true, progress: Progress::default() }
    }
}

/// What was found of a class of products.
///
/// ```no_run
/// use weft::prelude::*;
/// use weft::profile::Tuning;
/// use weft::session::{Measure, Measured, Wrong};
///
/// fn tune(compiled: &Compiled) -> weft::error::Result<Tuning> {
///     let mut tuning = Tuning::default();
///     tuning.measure(compiled, &Measure { most: 32, ..Default::default() }, &mut |_, found: &Measured| {
///         println!("{} ({} of them): {} cuts", found.label, found.count, found.tried);
///         found.wrong.iter().for_each(|Wrong { why, .. }| println!("dropped: {why}"));
///     })?;
///     Ok(tuning)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Measured {
    /// As the table has it.
    pub product: TunedProduct,
    /// Names of the graph's nodes of the first such product.
    pub label: String,
    /// How many the graph has.
    pub count: usize,
    /// Cuts that were tried.
    pub tried: usize,
    /// Those that were dropped, since the driver refused them or their results were wrong.
    pub wrong: Vec<Wrong>,
    /// Why it could not be measured, if it could not; then the table does not have it.
    pub failed: Option<String>,
}

/// A cut that was dropped.
///
/// ```no_run
/// use weft::prelude::*;
/// use weft::profile::Tuning;
/// use weft::session::{Measure, Measured, Wrong};
///
/// fn tune(compiled: &Compiled) -> weft::error::Result<Tuning> {
///     let mut tuning = Tuning::default();
///     tuning.measure(compiled, &Measure { most: 32, ..Default::default() }, &mut |_, found: &Measured| {
///         println!("{} ({} of them): {} cuts", found.label, found.count, found.tried);
///         found.wrong.iter().for_each(|Wrong { why, .. }| println!("dropped: {why}"));
///     })?;
///     Ok(tuning)
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Wrong {
    /// The cut.
    pub cut: Cut,
    /// What was wrong with it.
    pub why: String,
}

/// Why a product is not measured: what is best by itself takes room from what runs at the same time (on an H200, cuts
/// found so made a step of training up to 5 % slower).
const BESIDE: &str = "it runs beside others, of which its own time tells nothing";

impl Tuning {
    /// Measures the products of a graph that was compiled for an attached GPU and adds what it finds; `each` is told of
    /// every class of products once it is done, so that the table can be saved on the way. Products that were cut by a
    /// tuning already count like others. On the CPU there is nothing to measure: its kernels are blocked by its caches,
    /// which do not change.
    ///
    /// # Errors
    /// [`Error::Device`](crate::error::Error::Device) for a graph that was compiled for a device that is not attached;
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost), [`Error::Cancelled`](crate::error::Error::Cancelled):
    /// what was measured before stays.
    pub fn measure(
        &mut self,
        compiled: &Compiled,
        how: &Measure,
        each: &mut dyn FnMut(&Tuning, &Measured),
    ) -> Result<()> {
        let device = compiled.here()?.0.clone();
        let profile = compiled.profile.clone();
        let (Some(limits), TargetPlan::Gpu(lowered)) = (&profile.gpu, compiled.target()) else {
            return Ok(());
        };
        let plan = &lowered.plan;
        let known = self.of(&profile).map_or(vec![], |d| d.products.iter().map(|p| p.class).collect());
        let all = distinct(classes(lowered), if how.again { &[] } else { &known });
        for (done, (step, class, count)) in all.iter().enumerate() {
            how.progress.done(done, all.len());
            let label = plan.steps[*step].label.clone();
            let rule =
                TunedProduct { class: *class, transpose_weight: false, cut: None, rule_us: 0.0, us: 0.0 };
            if class.shape.concurrent {
                let failed = Some(BESIDE.to_string());
                each(
                    self,
                    &Measured { product: rule, label, count: *count, tried: 0, wrong: vec![], failed },
                );
                continue;
            }
            let found = alone::alone(lowered, *step, limits).and_then(|alone| {
                let bench = Bench::new(&device, &profile, alone, *class)?;
                measure(bench, limits, how)
            });
            let measured = match found {
                Ok((product, tried, wrong)) => {
                    self.insert(&profile, product.clone());
                    Measured { product, label, count: *count, tried, wrong, failed: None }
                }
                Err(e) if is_the_end(&e) => return Err(e),
                Err(e) => {
                    let failed = Some(e.to_string());
                    Measured { product: rule, label, count: *count, tried: 0, wrong: vec![], failed }
                }
            };
            each(self, &measured);
        }
        how.progress.done(all.len(), all.len());
        Ok(())
    }
}

/// A time as tables have it.
fn thousandths(us: f64) -> f64 {
    (us * 1e3).round() / 1e3
}

fn is_the_end(e: &crate::error::Error) -> bool {
    use crate::error::Error::{Cancelled, DeviceLost};
    matches!(e, Cancelled { .. } | DeviceLost { .. })
}

/// Each class once, but those that are known: its first step, and how many there are.
fn distinct(all: Vec<(usize, ProductClass)>, known: &[ProductClass]) -> Vec<(usize, ProductClass, usize)> {
    let mut distinct: Vec<(usize, ProductClass, usize)> = vec![];
    for (step, class) in all.into_iter().filter(|(_, c)| !known.contains(c)) {
        match distinct.iter_mut().find(|d| d.1 == class) {
            Some(found) => found.2 += 1,
            None => distinct.push((step, class, 1)),
        }
    }
    distinct
}

/// Searches a product's cuts, and those of the product with its weight transposed.
fn measure(mut bench: Bench, limits: &Limits, how: &Measure) -> Result<(TunedProduct, usize, Vec<Wrong>)> {
    let class = bench.class;
    let begin = seeds(&class, limits);
    let rule = begin[0];
    bench.begin(&rule)?;
    let (mut best, mut wrong, mut tried) = (f64::INFINITY, vec![], 0);
    let mut ranked: Vec<(bool, Cut, f64)> = vec![];
    let transposed = if how.turn { bench.transposed(limits) } else { None };
    for (is_transposed, bench) in [(false, Some(&bench)), (true, transposed.as_ref())] {
        let Some(bench) = bench else { continue };
        let begin = if is_transposed { seeds(&bench.class, limits) } else { begin.clone() };
        let near = |cut: &Cut| neighbours(cut, &bench.class, limits);
        let found = search::search(begin, near, how.most, |cuts| {
            bench.try_all(cuts, &mut best, &mut wrong, &how.progress)
        })?;
        tried += found.tried;
        ranked.extend(found.ranked.first().map(|(cut, us)| (is_transposed, *cut, *us)));
    }
    let cost = |r: &(bool, Cut, f64)| if r.0 { r.2 * (1.0 + TRANSPOSED_MARGIN) } else { r.2 };
    crate::order::sort_by(&mut ranked, |a, b| cost(a).total_cmp(&cost(b)));
    let wrong = wrong.into_iter().map(|(cut, why)| Wrong { cut, why }).collect();
    let mut product = TunedProduct { class, transpose_weight: false, cut: None, rule_us: 0.0, us: 0.0 };
    let Some(&(is_transposed, cut, us)) = ranked.first() else { return Ok((product, tried, wrong)) };
    (product.rule_us, product.us) = (thousandths(us), thousandths(us));
    let other = if is_transposed { transposed.as_ref() } else { Some(&bench) };
    if let Some(other) = other.filter(|_| is_transposed || cut != rule) {
        let ([rule_us, us], faster) = bench.duel(&rule, (other, &cut))?;
        let margin = if is_transposed { TRANSPOSED_MARGIN } else { MARGIN };
        let better = faster && us < (1.0 - margin) * rule_us;
        let (us, rule_us) = (thousandths(if better { us } else { rule_us }), thousandths(rule_us));
        product = TunedProduct {
            transpose_weight: better && is_transposed,
            cut: better.then_some(cut),
            rule_us,
            us,
            class,
        };
    }
    Ok((product, tried, wrong))
}
