//! `weft demo`: load, compile, classify; a new user; fine-tune, save. Every figure is computed live.

use crate::args::{Demo, Options, Place};
use crate::classifier::{Answer, Course, accuracy, classify, compile, compile_learning};
use crate::devices::described;
use crate::digits::{self, Digit, Hand, draw};
use crate::failure::{Failure, Result};
use crate::output::{Progress, bytes, grouped, ms, time};
use crate::random::Random;
use serde_json::json;
use std::io::Write;
use std::time::{Duration, Instant};
use weft::session::{MemorySummary, Optimizer, Session};
use weft::tensor::{Bytes, Weights};

/// Trained by `weft train-digits`; embedded in the program so that the demo runs from anywhere.
const MODEL: &[u8] = include_bytes!("../../models/digits/model.safetensors");
/// The new user leans to the right and turns the sheet clockwise.
const USER: Hand = Hand { slant: 0.2, rotation: -15.0 };
/// Number of the user's digits to train on; the others are for testing.
const LEARNT: usize = 100;
/// Number of digits drawn.
const DRAWN: usize = 4;
const FINE_TUNING: Course = Course { batch: 20, epochs: 25, rate: 5e-3, last_rate: 1e-3 };

/// The demo's results.
struct Found {
    accuracy: f64,
    accuracy_new_user: f64,
    accuracy_adapted: f64,
    losses: (f32, f32),
    times: Times,
    memory: MemorySummary,
}

#[derive(Default)]
struct Times {
    load: Duration,
    compile: Duration,
    classify: Duration,
    compile_training: Duration,
    fine_tune: Duration,
    total: Duration,
}

/// Runs a function and returns its duration.
fn timed<T>(into: &mut Duration, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    let done = work();
    *into = start.elapsed();
    done
}

pub fn demo(args: &Demo, options: &Options, out: &mut dyn Write) -> Result<()> {
    let place = options.open()?;
    let digits = digits::shipped()?;
    let mut quiet = std::io::sink();
    let screen: &mut dyn Write = if options.json { &mut quiet } else { &mut *out };
    let found = walk(&place, &digits.held_out, args, screen)?;
    if options.json {
        let t = &found.times;
        let m = &found.memory;
        let all = json!({
            "accuracy": found.accuracy,
            "accuracy_new_user": found.accuracy_new_user,
            "accuracy_adapted": found.accuracy_adapted,
            "digits": {
                "trained_on": digits.learn.len(), "held_out": digits.held_out.len(),
                "adapted_on": LEARNT, "new_user": digits.held_out.len() - LEARNT,
            },
            "steps": FINE_TUNING.steps(LEARNT), "loss_first": found.losses.0, "loss_last": found.losses.1,
            "times_ms": {
                "load": ms(t.load), "compile": ms(t.compile), "classify_per_digit": ms(t.classify),
                "compile_training": ms(t.compile_training), "fine_tune": ms(t.fine_tune), "total": ms(t.total),
            },
            "memory": {
                "summary": m.to_string(), "buffers": m.buffers, "total_bytes": m.total_bytes,
                "optimizer_bytes": m.optimizer_bytes, "largest_bytes": m.largest_bytes,
            },
            "device": described(place.device.info()),
            "adapted_weights": args.out.display().to_string(),
        });
        writeln!(out, "{all}")?;
    }
    Ok(())
}

fn walk(place: &Place, held_out: &[Digit], args: &Demo, out: &mut dyn Write) -> Result<Found> {
    let begin = Instant::now();
    let mut times = Times::default();
    writeln!(
        out,
        "Weft {} on {} ({})\n",
        env!("CARGO_PKG_VERSION"),
        place.in_words(),
        place.device.info().detail
    )?;

    let weights = timed(&mut times.load, || Ok(weft::load::safetensors_bytes(Bytes::borrowed(MODEL))?))?;
    let mut session = timed(&mut times.compile, || Ok(compile(place)?.init(&weights)?))?;
    writeln!(
        out,
        "1. {}, loaded in {}, compiled in {}.",
        described_model(&weights),
        time(times.load),
        time(times.compile)
    )?;
    writeln!(out, "   Digits it was not trained on, and its answers:\n")?;
    show(&mut session, &held_out[..DRAWN], out)?;
    let start = Instant::now();
    let known = accuracy(&mut session, held_out)?;
    times.classify = start.elapsed() / held_out.len() as u32;
    let count = held_out.len();
    writeln!(
        out,
        "   {} of {count} such digits are right, at {} each.\n",
        percent(known),
        time(times.classify)
    )?;

    let theirs: Vec<Digit> = held_out.iter().map(|d| USER.write(d)).collect();
    let (examples, others) = theirs.split_at(LEARNT);
    writeln!(out, "2. A new user, whose digits are slanted and rotated:\n")?;
    show(&mut session, &examples[..DRAWN], out)?;
    let new_user = accuracy(&mut session, others)?;
    writeln!(out, "   {} of {} of their digits are right.\n", percent(new_user), others.len())?;

    writeln!(out, "3. Fine-tuning on {LEARNT} other digits of theirs, on this device:")?;
    out.flush()?;
    let mut learner = timed(&mut times.compile_training, || {
        Ok(compile_learning(place, FINE_TUNING.batch)?.init(&weights)?)
    })?;
    let losses = timed(&mut times.fine_tune, || fine_tune(&mut learner, examples))?;
    let (steps, took) = (FINE_TUNING.steps(LEARNT), time(times.fine_tune));
    writeln!(out, "   loss {:.3} → {:.3} in {steps} steps of Adam, {took}.", losses.0, losses.1)?;
    let mut adapted = compile(place)?.init_shared(&learner.parameters())?;
    let after = accuracy(&mut adapted, others)?;
    let gained = (after - new_user) * 100.0;
    writeln!(
        out,
        "   {} of the same {} digits are right now: {gained:+.1} points.",
        percent(after),
        others.len()
    )?;
    show_after(&mut adapted, &examples[..DRAWN], out)?;

    weft::load::save(&args.out, &learner.parameters().to_weights()?).map_err(|e| {
        Failure::from(e)
            .advise("The adapted weights could not be saved; choose another place with --out FILE.")
    })?;
    times.total = begin.elapsed();
    let memory = learner.memory_summary();
    writeln!(out, "\nSaved the adapted weights to {}.", args.out.display())?;
    writeln!(out, "Training took {memory}.")?;
    writeln!(out, "The whole demo took {}.", time(times.total))?;
    Ok(Found { accuracy: known, accuracy_new_user: new_user, accuracy_adapted: after, losses, times, memory })
}

fn fine_tune(learner: &mut Session, examples: &[Digit]) -> Result<(f32, f32)> {
    let bar = Progress::new(FINE_TUNING.steps(LEARNT), "   fine-tuning");
    let mut random = Random::new(1);
    learner.set_optimizer(Optimizer::adam(FINE_TUNING.rate))?;
    FINE_TUNING.run(
        learner,
        examples,
        &mut random,
        |digit, _| digit.clone(),
        |step, loss| {
            bar.at(step);
            bar.say(format!("   fine-tuning, loss {loss:.3}"));
        },
    )
}

fn described_model(weights: &Weights) -> String {
    let parameters: usize = weights.iter().map(|(_, t)| t.elements()).sum();
    format!(
        "A classifier of {} parameters ({} of safetensors)",
        grouped(parameters),
        bytes(MODEL.len() as u64)
    )
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Draws digits with their labels and classifications.
fn show(session: &mut Session, digits: &[Digit], out: &mut dyn Write) -> Result<()> {
    let answers = digits.iter().map(|d| classify(session, d)).collect::<Result<Vec<Answer>>>()?;
    let caption = |(digit, answer): (&Digit, &Answer)| {
        let (said, sure) = (answer.class, answer.probability * 100.0);
        match digit.class {
            class if class == said => format!("✓ {said}, {sure:.0} %"),
            class => format!("✗ {said}, {sure:.0} % (is {class})"),
        }
    };
    let captions = digits.iter().zip(&answers).map(caption);
    writeln!(out, "{}", draw(&digits.iter().zip(captions).collect::<Vec<_>>()))?;
    Ok(())
}

/// The classifications of digits drawn before, on one line.
fn show_after(session: &mut Session, digits: &[Digit], out: &mut dyn Write) -> Result<()> {
    let mut said = Vec::new();
    for digit in digits {
        let answer = classify(session, digit)?;
        said.push(format!("{} ({:.0} %)", answer.class, answer.probability * 100.0));
    }
    writeln!(out, "   The four above, which it learnt from, are now: {}.", said.join(", "))?;
    Ok(())
}
