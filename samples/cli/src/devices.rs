//! `weft devices`: lists this machine's devices.

use crate::args::{Devices, Options};
use crate::failure::Result;
use crate::output::{bytes, table};
use serde_json::{Value, json};
use std::io::Write;
use weft::device::{Device, DeviceInfo, DeviceKind};

/// A device for machines to read.
pub fn described(device: &DeviceInfo) -> Value {
    json!({
        "index": device.index, "name": device.name, "kind": device.kind.name(), "detail": device.detail,
        "threads": device.threads, "memory": device.memory, "refused": device.refused,
        "driver": device.says.iter().map(|(name, value)| json!([name, value])).collect::<Vec<_>>(),
    })
}

/// The result of opening and testing a GPU: its limits, or why it is not used.
fn tried(device: &DeviceInfo) -> (Option<u64>, String, Value) {
    if device.kind == DeviceKind::Cpu {
        return (None, "ready".into(), Value::Null);
    }
    match Device::open(&device.index.to_string(), 0) {
        Ok(open) => {
            let limits = open.as_gpu().map(|g| g.limits().clone());
            let told = limits.map_or(Value::Null, |l| {
                json!({
                    "workgroup_threads": l.threads, "workgroup_memory": l.shared, "binding_bytes": l.binding,
                    "bindings": l.bindings, "subgroup": l.subgroup, "f16": l.f16,
                    "matrices_f16": l.coop, "matrices_f32": l.coop_f32, "units": l.units,
                    "loop_turns": l.turns,
                })
            });
            (Some(open.info().memory), "passes its self-test".into(), told)
        }
        Err(e) => (None, format!("not used: {e}"), Value::Null),
    }
}

/// The limits of kernels, as text.
fn used(limits: &Value) -> String {
    let number = |key: &str| limits[key].as_u64().unwrap_or(0);
    let matrices = match (number("matrices_f16"), number("matrices_f32")) {
        (0, 0) => "no matrices".into(),
        (0, n) => format!("f32 matrices {n}×{n}"),
        (n, _) => format!("f16 matrices {n}×{n}"),
    };
    format!(
        "workgroups of {} threads and {}, {} bindings of {}, {}, {}, {matrices}, {} multiprocessors, loops of at most {} turns",
        number("workgroup_threads"),
        bytes(number("workgroup_memory")),
        number("bindings"),
        bytes(number("binding_bytes")),
        if limits["subgroup"].is_null() {
            "no subgroups".into()
        } else {
            format!("subgroups of {}", number("subgroup"))
        },
        if limits["f16"] == true { "f16 in memory" } else { "no f16 in memory" },
        number("units"),
        number("loop_turns")
    )
}

pub fn devices(args: &Devices, options: &Options, out: &mut dyn Write) -> Result<()> {
    let best = options.open()?;
    if args.profile {
        write!(out, "{}", best.device.profile())?;
        return Ok(());
    }
    let all: Vec<_> = Device::all().into_iter().map(|d| (tried(&d), d)).collect();
    if options.json {
        let full = |((memory, state, limits), d): &((Option<u64>, String, Value), DeviceInfo)| {
            let mut v = described(d);
            v["state"] = json!(state);
            v["limits"] = limits.clone();
            if let Some(memory) = memory {
                v["memory"] = json!(memory);
            }
            v
        };
        writeln!(out, "{}", Value::Array(all.iter().map(full).collect()))?;
        return Ok(());
    }
    let mut rows =
        vec![["", "name", "kind", "threads", "memory", "state", "detail"].map(String::from).to_vec()];
    rows.extend(all.iter().map(|((memory, state, _), d)| {
        let memory = match memory.unwrap_or(d.memory) {
            0 => "unknown".into(),
            n => bytes(n),
        };
        let threads = if d.threads == 0 { String::new() } else { d.threads.to_string() };
        vec![
            d.index.to_string(),
            d.name.clone(),
            d.kind.name().into(),
            threads,
            memory,
            state.clone(),
            d.detail.clone(),
        ]
    }));
    table(out, &rows, &[3, 4])?;
    for ((_, _, limits), d) in all.iter().filter(|(_, d)| d.kind != DeviceKind::Cpu) {
        writeln!(out, "\n{} ({})", d.name, d.index)?;
        let mut lines: Vec<(&str, String)> = d.says.clone();
        if !limits.is_null() {
            lines.push(("kernels use", used(limits)));
        }
        for (name, value) in lines {
            writeln!(out, "  {name:<16}{value}")?;
        }
    }
    writeln!(out, "\n--device {} takes {}.", options.device, best.in_words())?;
    for why in best.device.passed_over() {
        writeln!(out, "Not taken: {why}")?;
    }
    Ok(())
}
