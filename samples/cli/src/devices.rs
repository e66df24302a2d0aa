//! `weft devices`: what this machine can compute with.

use crate::args::Options;
use crate::failure::Result;
use crate::output::{bytes, table, threads};
use serde_json::{Value, json};
use std::io::Write;
use weft::device::{Device, DeviceInfo, DeviceKind};

/// A device for machines to read.
pub fn described(device: &DeviceInfo) -> Value {
    json!({
        "index": device.index, "name": device.name, "kind": kind(device.kind), "detail": device.detail,
        "threads": device.threads, "memory": device.memory,
    })
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "cpu",
        _ => "other",
    }
}

pub fn devices(options: &Options, out: &mut dyn Write) -> Result<()> {
    let best = options.open()?;
    let all = Device::all();
    if options.json {
        writeln!(out, "{}", Value::Array(all.iter().map(described).collect()))?;
        return Ok(());
    }
    let mut rows = vec![["", "name", "kind", "threads", "memory", "detail"].map(String::from).to_vec()];
    rows.extend(all.iter().map(|d| {
        let memory = if d.memory == 0 { "unknown".into() } else { bytes(d.memory) };
        vec![
            d.index.to_string(),
            d.name.clone(),
            kind(d.kind).into(),
            d.threads.to_string(),
            memory,
            d.detail.clone(),
        ]
    }));
    table(out, &rows, &[3, 4])?;
    writeln!(
        out,
        "\n--device {} takes {}, with {}.",
        options.device,
        best.info().name,
        threads(best.info().threads)
    )?;
    Ok(())
}
