//! `weft tune`: measures the products of a model, and writes the best tilings to a file for `--tuning`.

use crate::args::{Compile, Options, Place, Tune};
use crate::failure::{Failure, Result};
use crate::output::{note, table, time, warn};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Instant;
use weft::device::DeviceKind;
use weft::profile::Tuning;
use weft::session::{Compiled, Measure, Measured};
use weft::tensor::DType;

pub fn tune(args: &Tune, options: &Options, out: &mut dyn Write) -> Result<()> {
    if options.tuning.is_some() {
        return Err(Failure::Usage("weft tune writes a tuning and follows none: leave out --tuning".into()));
    }
    let place = options.open()?;
    if place.device.info().kind == DeviceKind::Cpu {
        let what = "there is nothing to tune on the CPU: its kernels have one way of cutting a product";
        return Err(Failure::new(what).advise("`weft devices` lists the GPUs, --device NAME takes one."));
    }
    // a pipe or device cannot be read, and gets the table once
    let is_file = args.out.is_file();
    let is_written_on_the_way = is_file || !args.out.exists();
    let mut tuning = if is_file { Tuning::load(&args.out).map_err(within(args))? } else { Tuning::default() };
    let how = Measure { most: args.cuts, again: args.again, turn: !args.no_turn, ..Measure::default() };
    let start = Instant::now();
    let mut all: Vec<Measured> = vec![];
    for compiled in compiled(args, &place)? {
        let mut unsaved = Ok(());
        let save = |tuning: &Tuning, m: &Measured| {
            note(format_args!("{}: {}", m.product.class, in_short(m)));
            m.wrong.iter().for_each(|w| warn(format_args!("dropped {}: {}", w.cut, w.why)));
            all.push(m.clone());
            // a crashing driver ends this process, but results so far are saved
            if unsaved.is_ok() && is_written_on_the_way {
                unsaved = tuning.save(&args.out);
            }
        };
        tuning.measure(&compiled, &how, &mut { save })?;
        unsaved?;
    }
    tuning.save(&args.out)?;
    if options.json {
        let told = json!({
            "device": place.device.info().name, "file": args.out.display().to_string(),
            "seconds": start.elapsed().as_secs_f64(), "products": all.iter().map(told).collect::<Vec<_>>(),
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    if all.is_empty() {
        writeln!(out, "{} has every product already: --again measures them again", args.out.display())?;
        return Ok(());
    }
    print(&all, out)?;
    let won = all.iter().filter(|m| m.product.cut.is_some()).count();
    writeln!(
        out,
        "\n{won} of {} better than the rule, measured in {} on {}, wrote {}",
        all.len(),
        time(start.elapsed()),
        place.in_words(),
        args.out.display()
    )?;
    Ok(())
}

fn within(args: &Tune) -> impl Fn(weft::error::Error) -> Failure + '_ {
    |e| Failure::from(e).within(&args.out)
}

/// The graphs to measure, compiled without a tuning.
fn compiled(args: &Tune, place: &Place) -> Result<Vec<Compiled>> {
    let Some(model) = &args.model else {
        return Ok(vec![crate::bench::case(args.case.as_deref().unwrap_or_default(), place)?]);
    };
    let (tokens, training) = (args.tokens.clone(), args.training);
    let what = Compile {
        model: model.clone(),
        out: args.out.clone(),
        profile: None,
        tokens,
        batch: args.batch,
        training,
        cache: None,
        cache_dtype: DType::F32,
        allow: vec![],
    };
    let compiler = place.compiler();
    let parts = crate::compile::parts(&what)?;
    parts.iter().map(|p| p.compile(&compiler).map_err(|e| Failure::from(e).within(model))).collect()
}

fn in_short(m: &Measured) -> String {
    let p = &m.product;
    match (&m.failed, &p.cut) {
        (Some(why), _) => format!("not measured: {why}"),
        (None, None) => format!("{:.1} µs, the rule's, of {} cuts", p.us, m.tried),
        (None, Some(_)) => format!("{:.1} µs for {:.1}, of {} cuts", p.us, p.rule_us, m.tried),
    }
}

fn told(m: &Measured) -> Value {
    let p = &m.product;
    json!({
        "class": p.class.to_string(), "label": m.label, "count": m.count, "rule_us": p.rule_us, "us": p.us,
        "transpose_weight": p.transpose_weight, "cut": p.cut.map(|c| c.to_string()), "tried": m.tried, "failed": m.failed,
        "wrong": m.wrong.iter().map(|w| json!({"cut": w.cut.to_string(), "why": w.why})).collect::<Vec<_>>(),
    })
}

fn print(all: &[Measured], out: &mut dyn Write) -> Result<()> {
    let head =
        ["product", "times", "rule µs", "best µs", "gain", "tried", "choice"].map(String::from).to_vec();
    let row = |m: &Measured| {
        let p = &m.product;
        let choice = match (&m.failed, &p.cut) {
            (Some(why), _) => format!("the rule's, not measured: {why}"),
            (None, None) => "the rule's".into(),
            (None, Some(cut)) => {
                format!("{cut}{}", if p.transpose_weight { ", weight transposed" } else { "" })
            }
        };
        let gain = if p.us > 0.0 { (1.0 - p.us / p.rule_us) * 100.0 } else { 0.0 };
        let [rule, best] = [p.rule_us, p.us].map(|us| format!("{us:.1}"));
        let found = [rule, best, format!("{gain:.0} %"), m.tried.to_string()];
        let found = if m.failed.is_some() { found.map(|_| "–".into()) } else { found };
        let mut row = vec![p.class.to_string(), m.count.to_string()];
        row.extend(found);
        row.push(choice);
        row
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(all.iter().map(row)).collect();
    table(out, &rows, &[1, 2, 3, 4, 5])?;
    Ok(())
}
