//! Measures the fastest tilings of a graph's products on its device. One product of each class is extracted from the plan, run
//! by itself on random data, and searched; a tiling that beats the cost model's choice in alternating runs is added to the
//! table.

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

/// Minimum relative advantage of a tiling over the cost model's choice, and of a transposed weight over the best without: it
/// takes the weight's memory again.
const MARGIN: f64 = 0.03;
const TRANSPOSED_MARGIN: f64 = 0.1;

/// Options of a measurement of products.
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
    /// Maximum tilings to try for each class of products.
    pub most: usize,
    /// Whether to measure classes that are in the table already.
    pub again: bool,
    /// Whether to try transposed weights, too, of which a session then holds a copy.
    pub turn: bool,
    /// Gets the numbers of classes done and in total; cancels between tilings.
    pub progress: Progress,
}

impl Default for Measure {
    fn default() -> Measure {
        Measure { most: 128, again: false, turn: true, progress: Progress::default() }
    }
}

/// The result for a class of products.
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
    /// Its entry in the table.
    pub product: TunedProduct,
    /// Node names of the first such product.
    pub label: String,
    /// Number of such products in the graph.
    pub count: usize,
    /// Number of tilings tried.
    pub tried: usize,
    /// Tilings that were dropped because the driver refused them or their results were wrong.
    pub wrong: Vec<Wrong>,
    /// Why it could not be measured, if so; then the table has no entry.
    pub failed: Option<String>,
}

/// A tiling that was dropped.
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
    /// The tiling.
    pub cut: Cut,
    /// The reason.
    pub why: String,
}

/// Why a concurrent product is not measured: tiles that are best in isolation lose occupancy when products run concurrently (on
/// an H200, such tilings made a training step up to 5 % slower).
/// found so made a step of training up to 5 % slower).
const CONCURRENT: &str =
    "it runs concurrently with other products, so its time in isolation is not meaningful";

impl Tuning {
    /// Measures the products of a graph compiled for an attached GPU, and adds the results; `each` is called after every class
    /// of products, so that the table can be saved in between. Products with a tiling from a tuning are measured like others.
    /// There is nothing to measure on the CPU: its block sizes follow from its caches.
    ///
    /// # Errors
    /// [`Error::Device`](crate::error::Error::Device) for a graph compiled for a device that is not attached;
    /// [`Error::DeviceLost`](crate::error::Error::DeviceLost), [`Error::Cancelled`](crate::error::Error::Cancelled): previous
    /// results stay.
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
                let failed = Some(CONCURRENT.to_string());
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

/// A time rounded as in tables.
fn thousandths(us: f64) -> f64 {
    (us * 1e3).round() / 1e3
}

fn is_the_end(e: &crate::error::Error) -> bool {
    use crate::error::Error::{Cancelled, DeviceLost};
    matches!(e, Cancelled { .. } | DeviceLost { .. })
}

/// The distinct classes that are not known yet: the first step and the number of steps of each.
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

/// Searches the tilings of a product, with its weight as it is and transposed.
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
