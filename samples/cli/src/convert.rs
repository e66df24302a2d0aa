//! `weft convert`: converts the floating-point weights of a file, folder or set of shards to another dtype, in one file.

use crate::args::{Convert, Options};
use crate::failure::{Failure, Result};
use crate::output::{Progress, bytes, ms, time};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;
use weft::tensor::StoredDType;

pub fn convert(args: &Convert, options: &Options, out: &mut dyn Write) -> Result<()> {
    let start = Instant::now();
    if args.out.is_dir() {
        let advice = format!("Give the file a name: {}.", args.out.join("model.safetensors").display());
        return Err(Failure::new(format!("{} is a folder", args.out.display())).advise(advice));
    }
    let mut bar: Option<Progress> = None;
    let mut told = |done: u64, total: u64| {
        let bar = bar.get_or_insert_with(|| Progress::new(megabytes(total), "converting, MB"));
        bar.at(megabytes(done));
    };
    let done = weft::load::convert(&args.path, &args.out, args.dtype, &mut told)?;
    drop(bar);
    let took = start.elapsed();
    let [before, after] = done.bytes;
    if options.json {
        let unchanged = |(name, dtype): &(String, StoredDType)| json!({"name": name, "dtype": dtype.name()});
        let told = json!({
            "file": args.out.display().to_string(), "dtype": args.dtype.name(), "converted": done.converted,
            "unchanged": done.unchanged.iter().map(unchanged).collect::<Vec<Value>>(),
            "bytes_before": before, "bytes": after, "ms": ms(took),
        });
        writeln!(out, "{told}")?;
        return Ok(());
    }
    let (converted, all) = (done.converted.len(), done.converted.len() + done.unchanged.len());
    writeln!(
        out,
        "converted {converted} of {all} tensors to {}, {} to {}, in {}, wrote {}",
        args.dtype,
        bytes(before),
        bytes(after),
        time(took),
        args.out.display()
    )?;
    let mut left: BTreeMap<&str, usize> = BTreeMap::new();
    done.unchanged.iter().for_each(|(_, dtype)| *left.entry(dtype.name()).or_default() += 1);
    if !left.is_empty() {
        let left: Vec<String> = left.iter().map(|(dtype, n)| format!("{n} {dtype}")).collect();
        writeln!(out, "left as they are: {}", left.join(", "))?;
    }
    Ok(())
}

fn megabytes(bytes: u64) -> usize {
    (bytes / 1_000_000) as usize
}
