//! The devices that tests run on: the CPU and the best GPU, or what the environment names.
//!
//! `WEFT_DEVICE` (a name or index of `weft devices`, "cpu" or "gpu") and `WEFT_PRECISION` ("full" or "fast") choose one.
//! Without them a machine without a GPU fails: install a software one (Debian: mesa-vulkan-drivers), or say cpu.
#![allow(dead_code)]

use weft::device::{Device, DeviceKind};
use weft::profile::Precision;
use weft::session::Compiler;

/// A device with the precision to test on it.
pub struct Tested {
    pub device: Device,
    pub precision: Precision,
}

impl Tested {
    /// Its name in reports.
    pub fn name(&self) -> String {
        format!("{} ({})", self.device.info().name, self.precision)
    }

    /// A compiler for it.
    pub fn compiler(&self) -> Compiler {
        Compiler::new(&self.device).with_precision(self.precision)
    }

    /// The error allowed where `full` is allowed in f32: f16 products round their operands.
    pub fn tolerance(&self, full: f64) -> f64 {
        self.tolerance_behind(1, full)
    }

    /// The same behind so many products and attentions, one after the other: each rounds anew, by up to that much.
    pub fn tolerance_behind(&self, products: usize, full: f64) -> f64 {
        if self.precision == Precision::Fast { full.max(2e-3 * products.max(1) as f64) } else { full }
    }

    pub fn is_fast(&self) -> bool {
        self.precision == Precision::Fast
    }

    pub fn is_cpu(&self) -> bool {
        self.device.info().kind == DeviceKind::Cpu
    }
}

pub fn precision() -> Precision {
    match std::env::var("WEFT_PRECISION").as_deref() {
        Ok("fast") => Precision::Fast,
        Ok("full") | Err(_) => Precision::Full,
        Ok(other) => panic!("WEFT_PRECISION: wanted full or fast, got {other}"),
    }
}

fn open(which: &str) -> Tested {
    let device = Device::open(which, 2).unwrap_or_else(|e| panic!("{e}"));
    Tested { device, precision: precision() }
}

/// Every device to test.
pub fn all() -> Vec<Tested> {
    match std::env::var("WEFT_DEVICE") {
        Ok(which) => vec![open(&which)],
        Err(_) => vec![open("cpu"), gpu()],
    }
}

/// The GPU to test: the one that the environment names, or the best.
pub fn gpu() -> Tested {
    let which = std::env::var("WEFT_DEVICE").ok().filter(|w| w != "cpu");
    open(which.as_deref().unwrap_or("gpu"))
}

/// That GPU as one that is no software: with kernels that share memory, split k and use matrix units, as real ones have.
pub fn hard() -> Device {
    let device = gpu().device;
    let hard = device.as_gpu().unwrap().limited(|l| {
        (l.software, l.units) = (false, 40);
        if l.coop > 0 {
            // software Vulkan does not say; it is its vectors' length
            l.subgroup.get_or_insert(8);
        }
    });
    Device::from_gpu(hard.unwrap())
}
