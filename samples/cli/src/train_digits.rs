//! `weft train-digits`: trains the classifier that `weft demo` ships with, from the digits alone.

use crate::args::{Options, TrainDigits};
use crate::classifier::{self, Course, accuracy, compile, compile_learning};
use crate::digits::{self, Digit, Hand};
use crate::failure::{Failure, Result};
use crate::output::{Progress, bytes, time};
use crate::random::Random;
use std::io::Write;
use std::time::Instant;
use weft::optimizer::Optimizer;

/// Batch size.
const BATCH: usize = 32;

/// Handwriting varies a little: each digit is randomly slanted and rotated a little, so that the classifier becomes robust
/// against it.
fn vary(digit: &Digit, random: &mut Random) -> Digit {
    Hand { slant: random.between(-0.09, 0.09), rotation: random.between(-6.0, 6.0) }.write(digit)
}

/// The requested optimizer.
fn optimizer(args: &TrainDigits) -> Result<Optimizer> {
    let own = Optimizer::named(&args.optimizer)?;
    let usual = if args.optimizer == "adam" { 3e-3 } else { own.learning_rate() };
    let rate = args.rate.unwrap_or(usual);
    let all = Optimizer::of(own.rule(), rate);
    Ok(args.set.iter().try_fold(all, |o, (name, value)| o.with(name, *value))?)
}

pub fn train_digits(args: &TrainDigits, options: &Options, out: &mut dyn Write) -> Result<()> {
    let place = options.open()?;
    let split = match &args.data {
        Some(path) => digits::from_file(path)?,
        None => digits::shipped()?,
    };
    let mut random = Random::new(args.seed);
    let start = Instant::now();
    let weights = match &args.weights {
        Some(path) => weft::load::weights(path)?,
        None => classifier::fresh_weights(&mut random)?,
    };
    let optimizer = optimizer(args)?;
    let rate = optimizer.learning_rate();
    let mut learner = compile_learning(&place, BATCH)?.init(&weights)?;
    learner.set_optimizer(optimizer)?;
    if let Some(path) = &args.restore_optimizer {
        learner.restore_optimizer(&weft::load::weights(path)?).map_err(|e| Failure::from(e).within(path))?;
    }
    let course = Course { batch: BATCH, epochs: args.epochs, rate, last_rate: rate / 300.0 };
    let bar = Progress::new(course.steps(split.learn.len()), "training");
    let (first, last) = course.run(&mut learner, &split.learn, &mut random, vary, |step, loss| {
        bar.at(step);
        bar.say(format!("training, loss {loss:.3}"));
    })?;
    drop(bar);
    let took = start.elapsed();

    let mut answers = compile(&place)?.init_shared(&learner.parameters())?;
    let (learnt, held_out) =
        (accuracy(&mut answers, &split.learn)?, accuracy(&mut answers, &split.held_out)?);
    let weights = learner.parameters().to_weights()?;
    weft::load::save(&args.out, &weights)?;
    if let Some(path) = &args.save_optimizer {
        weft::load::save(path, &learner.save_optimizer()?)?;
    }
    let size = weights.bytes() as u64;
    if options.json {
        let found = serde_json::json!({
            "accuracy": held_out, "accuracy_trained_on": learnt, "digits": split.learn.len(),
            "held_out": split.held_out.len(), "epochs": args.epochs, "optimizer": args.optimizer,
            "optimizer_steps": learner.optimizer_steps()?, "loss_first": first, "loss_last": last,
            "seconds": took.as_secs_f64(), "weights": args.out.display().to_string(), "bytes": size,
        });
        writeln!(out, "{found}")?;
        return Ok(());
    }
    let (count, kept) = (split.learn.len(), split.held_out.len());
    writeln!(
        out,
        "trained on {count} digits, {} passes, in {}: loss {first:.3} → {last:.3}",
        args.epochs,
        time(took)
    )?;
    writeln!(out, "right: {:.1} % of those, {:.1} % of {kept} held out", learnt * 100.0, held_out * 100.0)?;
    writeln!(out, "saved {} ({} of weights)", args.out.display(), bytes(size))?;
    Ok(())
}
