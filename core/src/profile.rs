//! Capabilities and costs of a device, as plain data with a text form: profiles of devices that are not attached are files.

mod product;
mod tuning;

pub use product::{Along, Cut, ProductClass, Shape};
pub use tuning::{TunedDevice, TunedProduct, Tuning};

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The kind of a device.
///
/// ```
/// use weft::{device::Device, profile::DeviceKind};
///
/// assert_eq!(Device::cpu(1).info().kind, DeviceKind::Cpu);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// The processor that runs the program.
    Cpu,
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A software GPU: correct, but slow.
    Software,
}

impl DeviceKind {
    /// Every kind.
    pub const ALL: [DeviceKind; 4] =
        [DeviceKind::Cpu, DeviceKind::Discrete, DeviceKind::Integrated, DeviceKind::Software];

    /// Its name in lists.
    pub fn name(self) -> &'static str {
        match self {
            DeviceKind::Cpu => "cpu",
            DeviceKind::Discrete => "discrete gpu",
            DeviceKind::Integrated => "integrated gpu",
            DeviceKind::Software => "software gpu",
        }
    }
}

/// A GPU's limits, as used by kernel generation: plain numbers, so that kernels are generated and tested without a GPU.
///
/// ```
/// use weft::profile::Limits;
///
/// assert!(Limits::least().threads <= Limits::large().threads);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Maximum threads of a workgroup.
    pub threads: usize,
    /// Maximum bytes of workgroup memory.
    pub shared: usize,
    /// Subgroup size, if known (cooperative kernels need it).
    pub subgroup: Option<usize>,
    /// Side of the f16 cooperative matrices; 0: none.
    pub coop: usize,
    /// Side of the f32 cooperative matrices; 0: none.
    pub coop_f32: usize,
    /// Whether kernels may use 16-bit floats, in memory, too.
    pub f16: bool,
    /// Approximate number of multiprocessors: the number of workgroups that keep the device busy.
    pub units: usize,
    /// Whether it is a software GPU.
    pub software: bool,
    /// Maximum bytes of a binding.
    pub binding: usize,
    /// Maximum buffers that a kernel may bind; [`Limits::MOST_BINDINGS`] at most.
    pub bindings: usize,
    /// Maximum total iterations of all loops of one invocation; longer work is split over workgroups and passes. Drivers kill
    /// long invocations, and Mesa's lavapipe ends every loop once an invocation's loops have made 65,535 iterations.
    pub turns: usize,
}

impl Limits {
    /// Maximum buffers that kernels bind, even if devices allow more.
    pub const MOST_BINDINGS: usize = 64;
    /// Loop iterations that every driver is assumed to allow: half of the lowest known limit (65,535).
    const TURNS: usize = 1 << 15;
    /// The lowest limit on loop iterations that kernels support.
    pub const FEWEST_TURNS: usize = 1 << 12;

    /// Limits that every recent Vulkan 1.1 and Metal device meets.
    pub fn least() -> Limits {
        Limits {
            threads: 256,
            shared: 16 * 1024,
            subgroup: None,
            coop: 0,
            coop_f32: 0,
            f16: false,
            units: 8,
            software: false,
            binding: 128 << 20,
            bindings: 8,
            turns: Self::TURNS,
        }
    }

    /// A current large GPU (NVIDIA's Hopper): used for golden texts and tests without a GPU.
    pub fn large() -> Limits {
        Limits {
            threads: 1024,
            shared: 48 * 1024,
            subgroup: Some(32),
            coop: 16,
            coop_f32: 0,
            f16: true,
            units: 132,
            software: false,
            binding: (4 << 30) - 256,
            bindings: Limits::MOST_BINDINGS,
            turns: Self::TURNS,
        }
    }

    /// Apple's GPUs: 8×8 matrices of f32 per SIMD group of 32 threads.
    pub fn apple() -> Limits {
        Limits {
            threads: 1024,
            shared: 32 * 1024,
            subgroup: Some(32),
            coop: 0,
            coop_f32: 8,
            f16: true,
            units: 16,
            software: false,
            binding: 128 << 20,
            bindings: 30,
            turns: Self::TURNS,
        }
    }

    /// Names and values, in the order of the text form.
    fn fields(&self) -> [(&'static str, usize); 11] {
        // destructured, so that a new field does not compile until it is handled
        let &Limits {
            threads,
            shared,
            subgroup,
            coop,
            coop_f32,
            f16,
            units,
            software,
            binding,
            bindings,
            turns,
        } = self;
        [
            ("gpu.threads", threads),
            ("gpu.shared", shared),
            ("gpu.subgroup", subgroup.unwrap_or(0)),
            ("gpu.coop", coop),
            ("gpu.coop_f32", coop_f32),
            ("gpu.f16", usize::from(f16)),
            ("gpu.units", units),
            ("gpu.software", usize::from(software)),
            ("gpu.binding", binding),
            ("gpu.bindings", bindings),
            ("gpu.turns", turns),
        ]
    }

    fn set(&mut self, key: &str, value: usize) -> bool {
        match key {
            "gpu.threads" => self.threads = value,
            "gpu.shared" => self.shared = value,
            "gpu.subgroup" => self.subgroup = (value > 0).then_some(value),
            "gpu.coop" => self.coop = value,
            "gpu.coop_f32" => self.coop_f32 = value,
            "gpu.f16" => self.f16 = value != 0,
            "gpu.units" => self.units = value,
            "gpu.software" => self.software = value != 0,
            "gpu.binding" => self.binding = value,
            "gpu.bindings" => self.bindings = value,
            "gpu.turns" => self.turns = value,
            _ => return false,
        }
        true
    }

    /// Checks that the limits are at least those that kernels support, and fit in 32-bit arithmetic.
    fn check(&self) -> Result<()> {
        let side = |n: usize| n == 0 || n == 8 || n == 16;
        for (what, wanted, came, good) in [
            ("gpu.threads", "64 to 4096", self.threads, (64..=4096).contains(&self.threads)),
            ("gpu.shared", "16384 to 1048576", self.shared, (16 << 10..=1 << 20).contains(&self.shared)),
            (
                "gpu.subgroup",
                "0 or a power of two up to 128",
                self.subgroup.unwrap_or(0),
                self.subgroup.is_none_or(|n| n.is_power_of_two() && n <= 128),
            ),
            ("gpu.coop", "0, 8 or 16", self.coop, side(self.coop)),
            ("gpu.coop_f32", "0, 8 or 16", self.coop_f32, side(self.coop_f32)),
            ("gpu.units", "1 to 65536", self.units, (1..=1 << 16).contains(&self.units)),
            (
                "gpu.binding",
                "a multiple of 256 from 4096 on, below 2^32",
                self.binding,
                (4096..=u32::MAX as usize).contains(&self.binding) && self.binding.is_multiple_of(256),
            ),
            ("gpu.bindings", "4 to 64", self.bindings, (4..=Limits::MOST_BINDINGS).contains(&self.bindings)),
            // below what drivers must allow: code around long loops takes some hundred iterations in any case
            ("gpu.turns", "16 to 2^30", self.turns, (16..=1 << 30).contains(&self.turns)),
        ] {
            if !good {
                return Err(Error::argument(format!("device profile: {what}"), wanted, came));
            }
        }
        Ok(())
    }
}

/// The cost model of a device, used by the optimiser.
///
/// ```
/// use weft::profile::Costs;
///
/// assert!(Costs::cpu(8).f32_per_us > Costs::cpu(1).f32_per_us);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Costs {
    /// Fixed microseconds of a step.
    pub start_us: f64,
    /// Bytes read or written per microsecond.
    pub bytes_per_us: f64,
    /// f32 operations per microsecond; a multiply-add is two.
    pub f32_per_us: f64,
    /// Operations per microsecond of f16 matrix units, if there are any.
    pub f16_per_us: Option<f64>,
    /// Whether one product with several weights concatenated is preferable to an epilogue on each.
    pub packs: bool,
}

impl Costs {
    /// A CPU core with 256-bit vectors, times `threads`. The start cost is a fork and join of threads.
    pub fn cpu(threads: usize) -> Costs {
        let threads = threads.max(1) as f64;
        Costs {
            start_us: 1.0,
            bytes_per_us: 15e3 * threads.min(4.0),
            f32_per_us: 1e5 * threads,
            f16_per_us: None,
            packs: false,
        }
    }

    /// A discrete GPU of about 130 multiprocessors (measured on an H100 through Vulkan: `tests/bench/RESULTS.md`), scaled to
    /// `multiprocessors`.
    pub fn gpu(multiprocessors: usize, matrices: bool) -> Costs {
        let share = (multiprocessors.max(1) as f64 / 132.0).min(2.0);
        Costs {
            start_us: 2.0,
            bytes_per_us: 3e6 * share,
            f32_per_us: 40e6 * share,
            f16_per_us: matrices.then_some(200e6 * share),
            packs: true,
        }
    }

    /// Names and values, in the order of the text form.
    fn fields(&self) -> [(&'static str, f64); 5] {
        // destructured, so that a new field does not compile until it is handled
        let &Costs { start_us, bytes_per_us, f32_per_us, f16_per_us, packs } = self;
        [
            ("cost.start_us", start_us),
            ("cost.bytes_per_us", bytes_per_us),
            ("cost.f32_per_us", f32_per_us),
            ("cost.f16_per_us", f16_per_us.unwrap_or(0.0)),
            ("cost.packs", f64::from(u8::from(packs))),
        ]
    }

    fn set(&mut self, key: &str, value: f64) -> bool {
        match key {
            "cost.start_us" => self.start_us = value,
            "cost.bytes_per_us" => self.bytes_per_us = value,
            "cost.f32_per_us" => self.f32_per_us = value,
            "cost.f16_per_us" => self.f16_per_us = (value > 0.0).then_some(value),
            "cost.packs" => self.packs = value != 0.0,
            _ => return false,
        }
        true
    }

    /// Checks that costs are comparable: no NaN, and no rate of 0.
    fn check(&self) -> Result<()> {
        for (what, value) in self.fields() {
            let rate = matches!(what, "cost.bytes_per_us" | "cost.f32_per_us");
            if !value.is_finite() || value < 0.0 || rate && value == 0.0 {
                return Err(Error::argument(format!("device profile: {what}"), "a positive number", value));
            }
        }
        Ok(())
    }
}

/// A device as seen by the optimiser and the planner. Created by a device, or read from its text form:
///
/// ```text
/// weft-profile 1
/// name Pixel
/// kind integrated gpu
/// threads 0
/// memory 4294967296
/// gpu.threads 256          # limits not given default to those of every GPU
/// cost.start_us 12.5       # costs not given are derived from the rest
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    /// The device's name.
    pub name: String,
    /// Its kind.
    pub kind: DeviceKind,
    /// Worker threads (CPU).
    pub threads: usize,
    /// Bytes of memory; 0 if unknown.
    pub memory: u64,
    /// The limits of a GPU; `None` for a CPU.
    pub gpu: Option<Limits>,
    /// Its cost model.
    pub costs: Costs,
}

/// The first line of the text form.
const OPENS: &str = "weft-profile 1";

impl DeviceProfile {
    /// Whether it is a GPU's.
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// Checks that kernels can be generated for its numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the field.
    pub fn check(&self) -> Result<()> {
        let gpu = self.kind != DeviceKind::Cpu;
        if gpu != self.gpu.is_some() {
            let wanted = if gpu { "a GPU's limits" } else { "no GPU's limits" };
            return Err(Error::argument(format!("device profile \"{}\"", self.name), wanted, "the opposite"));
        }
        if self.name.contains('\n') || self.name.trim() != self.name {
            return Err(Error::argument("device profile: name", "one line", format!("{:?}", self.name)));
        }
        self.costs.check()?;
        self.gpu.as_ref().map_or(Ok(()), Limits::check)
    }

    /// Checks that a graph compiled for `self` runs on a device of profile `other`; if not, returns what was wanted and what
    /// came. Any CPU runs graphs compiled for a CPU; a GPU must have exactly the limits that its kernels were generated for.
    /// Names, threads, memory and costs may differ.
    pub fn runs_on(&self, other: &DeviceProfile) -> std::result::Result<(), (String, String)> {
        match (&self.gpu, &other.gpu) {
            (None, None) => Ok(()),
            (Some(a), Some(b)) if a == b => Ok(()),
            (Some(a), Some(b)) => {
                let differ = |x: &Limits, y: &Limits| {
                    let pairs = x.fields().into_iter().zip(y.fields()).filter(|(x, y)| x != y);
                    pairs.map(|((name, x), _)| format!("{name} {x}")).collect::<Vec<_>>().join(", ")
                };
                Err((
                    format!("one compiled for {} with {}", other.name, differ(b, a)),
                    format!("one compiled for {} with {}", self.name, differ(a, b)),
                ))
            }
            _ => {
                let compiled = |p: &DeviceProfile| format!("one compiled for {} ({})", p.name, p.kind.name());
                Err((compiled(other), compiled(self)))
            }
        }
    }
}

impl fmt::Display for DeviceProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // destructured, so that a new field does not compile until it is handled
        let DeviceProfile { name, kind, threads, memory, gpu, costs } = self;
        writeln!(f, "{OPENS}\nname {name}\nkind {}\nthreads {threads}\nmemory {memory}", kind.name())?;
        let fields = gpu.iter().flat_map(Limits::fields);
        fields.into_iter().try_for_each(|(key, value)| writeln!(f, "{key} {value}"))?;
        costs.fields().into_iter().try_for_each(|(key, value)| writeln!(f, "{key} {value}"))
    }
}

impl FromStr for DeviceProfile {
    type Err = Error;

    /// Reads the text form; a `#` at the start of a line or after a space starts a comment, except in a name.
    ///
    /// # Errors
    /// [`Error::Config`] with the wrong line, [`Error::Argument`] for implausible numbers.
    fn from_str(text: &str) -> Result<DeviceProfile> {
        let wrong = |wanted: &str, came: &str| {
            let came = format!("{:?}", came.chars().take(80).collect::<String>());
            Error::config("device profile", wanted, came)
        };
        // a name may contain any character
        let remark =
            |l: &'_ str| if l.starts_with("name ") { l.len() } else { l.find(" #").unwrap_or(l.len()) };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().map(|l| l[..remark(l)].trim());
        let mut lines = lines.filter(|l| !l.is_empty() && !l.starts_with('#'));
        let first = lines.next().unwrap_or("");
        if first != OPENS {
            return Err(wrong(&format!("the first line {OPENS:?}"), first));
        }
        let (mut name, mut kind, mut threads, mut memory) = (None, None, 0, 0);
        let (mut limits, mut any) = (Limits::least(), false);
        let mut told: Vec<(&str, f64)> = vec![];
        for line in lines {
            let (key, value) = line.split_once(' ').ok_or_else(|| wrong("a name and a value", line))?;
            let value = value.trim();
            let number = || value.parse::<u64>().map_err(|_| wrong(&format!("{key} and a number"), line));
            match key {
                "name" => name = Some(value.to_string()),
                "kind" => {
                    let known = DeviceKind::ALL.into_iter().find(|k| k.name() == value);
                    kind = Some(known.ok_or_else(|| {
                        wrong("kind cpu, discrete gpu, integrated gpu or software gpu", line)
                    })?);
                }
                "threads" => threads = usize::try_from(number()?).map_err(|_| wrong("threads", line))?,
                "memory" => memory = number()?,
                _ if key.starts_with("cost.") => {
                    let value = value.parse().map_err(|_| wrong(&format!("{key} and a number"), line))?;
                    told.push((key, value));
                }
                _ => {
                    any = true;
                    let value = usize::try_from(number()?).map_err(|_| wrong(key, line))?;
                    if !limits.set(key, value) {
                        return Err(wrong("name, kind, threads, memory, gpu.… or cost.…", line));
                    }
                }
            }
        }
        let name = name.ok_or_else(|| wrong("a line that begins with name", "none"))?;
        let kind = kind.ok_or_else(|| wrong("a line that begins with kind", "none"))?;
        if kind == DeviceKind::Cpu && any {
            return Err(wrong("no gpu.… of a cpu", "such a line"));
        }
        let gpu = (kind != DeviceKind::Cpu).then_some(limits);
        let mut costs = match &gpu {
            Some(l) => Costs::gpu(l.units, l.coop > 0),
            None => Costs::cpu(threads),
        };
        if let Some((key, _)) = told.iter().find(|(key, value)| !costs.set(key, *value)) {
            return Err(wrong(
                "cost.start_us, cost.bytes_per_us, cost.f32_per_us, cost.f16_per_us or cost.packs",
                key,
            ));
        }
        let profile = DeviceProfile { name, kind, threads, memory, gpu, costs };
        profile.check()?;
        Ok(profile)
    }
}

/// The precision of a plan's arithmetic.
///
/// ```
/// use weft::prelude::*;
///
/// let compiler = Compiler::new(&Device::best()?).with_precision(Precision::Fast); // the CPU is exact all the same
/// # Ok::<(), weft::error::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Precision {
    /// f32 throughout.
    #[default]
    Full,
    /// Products and attention may round their operands to f16 if the device has matrix units for them, and accumulate in f32.
    /// Operands beyond ±65504 become infinite. Training always uses full precision.
    Fast,
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Full => "full",
            Precision::Fast => "fast",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_print_and_parse_back() {
        let cpu = DeviceProfile {
            name: "a # b".into(),
            kind: DeviceKind::Cpu,
            threads: 8,
            memory: 1 << 35,
            gpu: None,
            costs: Costs { start_us: 0.1, packs: true, ..Costs::cpu(8) },
        };
        let all = [Limits::least(), Limits::large(), Limits::apple()].map(|l| DeviceProfile {
            name: "Some GPU 3000".into(),
            kind: DeviceKind::Discrete,
            threads: 0,
            memory: 0,
            costs: Costs::gpu(l.units, l.coop > 0),
            gpu: Some(l),
        });
        for p in all {
            assert_eq!(p.to_string().parse::<DeviceProfile>().unwrap(), p);
        }
        assert_eq!(cpu.to_string().parse::<DeviceProfile>().unwrap(), cpu);
    }

    #[test]
    fn profiles_that_no_device_has_are_refused_by_line() {
        for (text, message) in [
            ("", "first line"),
            ("weft-profile 2\nname x\nkind cpu", "weft-profile 2"),
            ("weft-profile 1\nkind cpu", "name"),
            ("weft-profile 1\nname x\nkind tpu", "kind tpu"),
            ("weft-profile 1\nname x\nkind cpu\ngpu.threads 64", "cpu"),
            ("weft-profile 1\nname x\nkind software gpu\ngpu.threads 0", "gpu.threads"),
            ("weft-profile 1\nname x\nkind software gpu\ngpu.rays 1", "gpu.rays"),
            ("weft-profile 1\nname x\nkind cpu\nthreads -1", "threads -1"),
            ("weft-profile 1\nname x\nkind cpu\ncost.magic 1", "cost.magic"),
            ("weft-profile 1\nname x\nkind cpu\ncost.f32_per_us 0", "cost.f32_per_us"),
            ("weft-profile 1\nname x\nkind cpu\ncost.start_us NaN", "cost.start_us"),
        ] {
            let refused = text.parse::<DeviceProfile>().expect_err(message).to_string();
            assert!(refused.contains(message), "{refused}");
        }
    }

    #[test]
    fn a_profile_says_which_limits_another_gpu_lacks() {
        let of = |kind, gpu: Option<Limits>| DeviceProfile {
            name: "x".into(),
            kind,
            threads: 1,
            memory: 1,
            gpu,
            costs: Costs::cpu(1),
        };
        let (least, large) = (of(DeviceKind::Integrated, Some(Limits::least())), Limits::large());
        assert!(least.runs_on(&DeviceProfile { memory: 9, ..least.clone() }).is_ok());
        let (wanted, came) = least.runs_on(&of(DeviceKind::Discrete, Some(large))).unwrap_err();
        assert!(wanted.contains("gpu.units 132") && came.contains("gpu.units 8"), "{wanted} {came}");
        assert!(least.runs_on(&of(DeviceKind::Cpu, None)).is_err());
        assert!(of(DeviceKind::Cpu, None).runs_on(&of(DeviceKind::Cpu, None)).is_ok());
    }
}
