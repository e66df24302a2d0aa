//! Enumerates the GPUs of this machine, with the properties that their drivers report, before they are opened.

use super::ask;
use super::facts::{Facts, Kind};
use crate::stack::deep;
use blade_graphics as blade;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// An adapter as its driver reports it.
///
/// ```
/// for adapter in weft::device::gpu::adapters() {
///     println!("{} by {}: {}", adapter.name, adapter.driver, adapter.refused.as_deref().unwrap_or("usable"));
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The model.
    pub name: String,
    /// The driver, and its version where known.
    pub driver: String,
    /// The id by which it is opened.
    pub device_id: u32,
    /// A software GPU.
    pub software: bool,
    /// Whether it shares its memory with the processor.
    pub integrated: bool,
    /// Its features, as text.
    pub features: String,
    /// Why it cannot be used, if so.
    pub refused: Option<String>,
    /// Properties that the driver reports, as names and values.
    pub says: Vec<(&'static str, String)>,
}

impl Adapter {
    /// Order of preference: discrete before integrated before software.
    fn rank(&self) -> usize {
        match (self.software, self.integrated) {
            (false, false) => 0,
            (false, true) => 1,
            (true, _) => 2,
        }
    }
}

/// Every adapter of this machine, the best first. Cached: opening drivers takes time. A forked child of a process that called
/// this gets the cached list, and can use none of them.
pub fn adapters() -> Vec<Adapter> {
    static FOUND: std::sync::OnceLock<Vec<Adapter>> = std::sync::OnceLock::new();
    if let Err(e) = super::process_exit::allowed() {
        // in a child forked while its parent was enumerating, the list stays empty
        let mut found = FOUND.get().cloned().unwrap_or_default();
        found.iter_mut().for_each(|a| a.refused = Some(e.to_string()));
        return found;
    }
    FOUND.get_or_init(|| deep(find)).clone()
}

/// Properties of this machine's devices as drivers report them. Cached.
fn all_facts() -> &'static [Facts] {
    static FOUND: std::sync::OnceLock<Vec<Facts>> = std::sync::OnceLock::new();
    FOUND.get_or_init(|| {
        let Some(_inside) = super::process_exit::enter(super::process_exit::Work::Host) else {
            return vec![];
        };
        // a driver that cannot be queried counts as having the minimum
        catch_unwind(ask::ask).unwrap_or_default()
    })
}

/// The driver's properties of a device, by id (if known) and name.
pub(super) fn facts(device_id: Option<u32>, name: &str) -> Option<&'static Facts> {
    let mut of_id = all_facts().iter().filter(|f| device_id.is_none_or(|id| f.device_id == id));
    of_id.clone().find(|f| f.name == name).or_else(|| of_id.next().filter(|_| device_id.is_some()))
}

fn find() -> Vec<Adapter> {
    let Some(_inside) = super::process_exit::enter(super::process_exit::Work::Host) else { return vec![] };
    // a machine without a loader or driver has no adapters; that is not an error
    let reports = catch_unwind(AssertUnwindSafe(blade::Context::enumerate));
    let reports = reports.ok().and_then(Result::ok).unwrap_or_default();
    let mut all: Vec<Adapter> = reports.into_iter().map(adapter).collect();
    crate::order::sort_by_key(&mut all, Adapter::rank);
    all
}

fn adapter(report: blade::DeviceReport) -> Adapter {
    let info = report.information;
    let mut features = vec![];
    let refused = match &report.status {
        blade::DeviceReportStatus::Rejected(why) => Some(why.clone()),
        blade::DeviceReportStatus::Available { caps, .. } => {
            if caps.shader_float16 {
                features.push("f16".to_string());
            }
            match caps.cooperative_matrix.f16_tile {
                0 => {}
                n => features.push(format!("f16 matrices {n}×{n}")),
            }
            match caps.cooperative_matrix.f32_tile {
                0 => {}
                n => features.push(format!("f32 matrices {n}×{n}")),
            }
            None
        }
    };
    let facts = facts(Some(report.device_id), &info.device_name);
    let refused = refused.or_else(|| facts.and_then(Facts::lacking));
    Adapter {
        driver: [info.driver_name, info.driver_info].join(" ").trim().to_string(),
        name: info.device_name,
        device_id: report.device_id,
        software: info.is_software_emulated,
        integrated: facts.is_some_and(|f| f.kind == Kind::Integrated),
        features: features.join(", "),
        refused,
        says: facts.map_or(vec![], Facts::lines),
    }
}
