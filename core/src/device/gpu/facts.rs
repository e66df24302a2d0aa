//! A device's properties as reported by its driver, as plain data: the limits for kernels are derived from them, and `weft
//! devices` prints them.

use super::limits::Limits;
use crate::target::gpu::wgsl::walk::MOST_GROUPS;

/// A device's relation to the processor and its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Memory of its own.
    Discrete,
    /// Shares the processor's memory.
    Integrated,
    /// A software GPU.
    Software,
}

/// A device's subgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subgroup {
    /// Their default size, and the range from which a driver may choose another.
    pub size: u32,
    /// The minimum.
    pub least: u32,
    /// The maximum.
    pub most: u32,
    /// Whether kernels may shuffle values between any two threads.
    pub shuffles: bool,
    /// Supported subgroup operations, in the specification's terms.
    pub operations: Vec<&'static str>,
}

/// A heap of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryHeap {
    /// Bytes.
    pub bytes: u64,
    /// Whether it is local to the device.
    pub local: bool,
    /// This process's budget and usage in bytes, if the driver reports them.
    pub budget: Option<(u64, u64)>,
}

/// A device's properties. Bytes and counts are as reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The id by which the device is opened.
    pub device_id: u32,
    /// The model.
    pub name: String,
    /// API and version.
    pub api: String,
    /// Kind of device.
    pub kind: Kind,
    /// Maximum threads of a workgroup.
    pub threads: u32,
    /// The same along each axis.
    pub sizes: [u32; 3],
    /// Maximum workgroups along each axis.
    pub groups: [u32; 3],
    /// Maximum bytes of workgroup memory.
    pub shared: u32,
    /// Maximum bytes of a binding.
    pub binding: u64,
    /// Required alignment of a binding's offset.
    pub alignment: u64,
    /// Maximum bytes of an allocation.
    pub allocation: u64,
    /// Maximum storage buffers of a kernel.
    pub buffers: u32,
    /// Maximum storage buffers of a descriptor set, and maximum resources of any kind of a kernel.
    pub resources: [u32; 2],
    /// Maximum bytes of an inline uniform block; 0 if unsupported.
    pub inline_uniforms: u32,
    /// Subgroups, if kernels may use them.
    pub subgroup: Option<Subgroup>,
    /// Supported arithmetic and storage types besides 32-bit ones, as text.
    pub types: Vec<&'static str>,
    /// Cooperative matrices, as text.
    pub matrices: Vec<String>,
    /// Multiprocessors, if the driver reports them.
    pub units: Option<u32>,
    /// Memory heaps.
    pub heaps: Vec<MemoryHeap>,
}

impl Facts {
    /// The limits for kernels. `coop` and `coop_f32` are the sides of the matrices that the driver's crate enables, `f16`
    /// whether kernels may load 16-bit floats from memory.
    pub fn limits(&self, [coop, coop_f32]: [usize; 2], f16: bool) -> Limits {
        let least = Limits::least();
        let software = self.kind == Kind::Software;
        // a bound region must fit in an allocation
        let binding = self.binding.min(self.allocation).min(u64::from(u32::MAX)) as usize;
        Limits {
            threads: self.threads.min(self.sizes[0]).min(4096) as usize,
            shared: (self.shared as usize).min(1 << 20),
            subgroup: self.subgroup.as_ref().and_then(Subgroup::known),
            coop,
            coop_f32,
            f16,
            units: match (self.units, self.kind) {
                (Some(units), _) => (units as usize).clamp(1, 1 << 16),
                (None, Kind::Software) => 2,
                (None, Kind::Integrated) => least.units,
                (None, Kind::Discrete) => 32,
            },
            software,
            binding: binding / 256 * 256,
            bindings: self
                .buffers
                .min(self.resources[0])
                .min(self.resources[1])
                .min(Limits::MOST_BINDINGS as u32) as usize,
            // drivers do not report it; the self-test measures it
            turns: least.turns,
        }
    }

    /// Maximum bytes of an allocation: the driver's limit, and the largest heap, if it reports heaps.
    pub fn largest_allocation(&self) -> u64 {
        let heap = self.heaps.iter().map(|h| h.bytes).max().unwrap_or(u64::MAX);
        self.allocation.min(heap)
    }

    /// Why the device cannot run our kernels, if so: a limit below what each specification guarantees.
    pub fn lacking(&self) -> Option<String> {
        let groups = u64::from(self.groups[0].min(self.groups[1]));
        let wanted = [
            ("threads of a workgroup", 64, u64::from(self.threads.min(self.sizes[0]))),
            ("bytes that a workgroup shares", 16 << 10, u64::from(self.shared)),
            ("workgroups along an axis", MOST_GROUPS as u64, groups),
            ("bytes of a binding", 4096, self.binding.min(self.allocation)),
            ("storage buffers of a kernel", 4, u64::from(self.buffers)),
        ];
        if self.alignment > crate::target::gpu::ALIGN as u64 {
            let least = crate::target::gpu::ALIGN;
            return Some(format!(
                "its bindings lie at multiples of {}, and {least} are wanted",
                self.alignment
            ));
        }
        let (what, wanted, came) = wanted.into_iter().find(|(_, wanted, came)| came < wanted)?;
        Some(format!("it has {came} {what}, and {wanted} are wanted"))
    }

    /// All properties for printing: names and values.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let three = |n: [u32; 3]| n.map(|n| n.to_string()).join(" × ");
        let some = |words: &[&str]| if words.is_empty() { "none".into() } else { words.join(", ") };
        let mut all = vec![
            ("interface", self.api.clone()),
            ("workgroup", format!("{} threads, {} at most", self.threads, three(self.sizes))),
            ("grid", format!("{} workgroups", three(self.groups))),
            ("shared memory", bytes(u64::from(self.shared))),
            ("binding", format!("{}, at multiples of {}", bytes(self.binding), self.alignment)),
            ("allocation", bytes(self.allocation)),
            (
                "bindings",
                format!(
                    "{} buffers of a kernel, {} of a set, {} resources",
                    self.buffers, self.resources[0], self.resources[1]
                ),
            ),
            (
                "inline uniforms",
                match self.inline_uniforms {
                    0 => "none".into(),
                    n => bytes(u64::from(n)),
                },
            ),
        ];
        let subgroup = match &self.subgroup {
            None => "not for kernels".into(),
            Some(s) if s.least == s.most => format!("{}: {}", s.size, some(&s.operations)),
            Some(s) => format!("{} ({} to {}): {}", s.size, s.least, s.most, some(&s.operations)),
        };
        all.push(("subgroup", subgroup));
        all.push(("other types", some(&self.types)));
        let matrices: Vec<&str> = self.matrices.iter().map(String::as_str).collect();
        all.push(("matrices", some(&matrices)));
        all.push(("multiprocessors", self.units.map_or("unknown".into(), |n| n.to_string())));
        for heap in &self.heaps {
            let own = if heap.local { "the device's" } else { "the processor's" };
            let budget = heap.budget.map(|(most, used)| {
                format!(", {} for this process, of which {} are in use", bytes(most), bytes(used))
            });
            all.push(("memory", format!("{}, {own}{}", bytes(heap.bytes), budget.unwrap_or_default())));
        }
        all
    }
}

impl Subgroup {
    /// Its size, if it is fixed and kernels may rely on subgroup operations.
    fn known(&self) -> Option<usize> {
        let fixed = self.least == self.size && self.most == self.size;
        (fixed && self.shuffles && self.size.is_power_of_two() && (2..=128).contains(&self.size))
            .then_some(self.size as usize)
    }
}

/// A number of bytes in its largest unit, exact if integral.
fn bytes(n: u64) -> String {
    let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(size, _)| n >= *size) {
        None => format!("{n} B"),
        Some((size, name)) if n.is_multiple_of(size) => format!("{} {name}", n / size),
        Some((size, name)) => format!("{:.1} {name}", n as f64 / size as f64),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An NVIDIA H200 as its driver (580) reports it.
    fn h200() -> Facts {
        Facts {
            device_id: 0x2335,
            name: "NVIDIA H200".into(),
            api: "Vulkan 1.4.312".into(),
            kind: Kind::Discrete,
            threads: 1024,
            sizes: [1024, 1024, 64],
            groups: [2_147_483_647, 65_535, 65_535],
            shared: 49_152,
            binding: 4_294_967_295,
            alignment: 16,
            allocation: 4_294_967_296,
            buffers: 1_048_576,
            resources: [1_048_576, 4_294_967_295],
            inline_uniforms: 256,
            subgroup: Some(Subgroup {
                size: 32,
                least: 32,
                most: 32,
                shuffles: true,
                operations: vec!["basic", "shuffle"],
            }),
            types: vec!["f16"],
            matrices: vec!["16 × 16 × 16 f16".into()],
            units: Some(132),
            heaps: vec![MemoryHeap { bytes: 150 << 30, local: true, budget: Some((149 << 30, 0)) }],
        }
    }

    #[test]
    fn an_allocation_is_bounded_by_the_driver_and_by_the_largest_heap() {
        assert_eq!(h200().largest_allocation(), 4_294_967_296);
        let heap = |bytes| MemoryHeap { bytes, local: true, budget: None };
        let small = Facts { heaps: vec![heap(1 << 28), heap(1 << 30)], ..h200() };
        assert_eq!(small.largest_allocation(), 1 << 30);
        assert_eq!(Facts { heaps: vec![], ..h200() }.largest_allocation(), 4_294_967_296);
    }

    #[test]
    fn limits_are_what_the_driver_says() {
        assert_eq!(h200().limits([16, 0], true), Limits::large());
        // SwiftShader, which allows 256 threads
        let small = Facts {
            kind: Kind::Software,
            threads: 256,
            sizes: [256, 256, 64],
            shared: 32 << 10,
            binding: 1 << 30,
            buffers: 200,
            resources: [8, 1000],
            units: None,
            ..h200()
        };
        let limits = small.limits([0, 0], false);
        assert_eq!((limits.threads, limits.shared, limits.units), (256, 32 << 10, 2));
        assert_eq!((limits.binding, limits.bindings, limits.software), (1 << 30, 8, true));
    }

    #[test]
    fn sizes_of_subgroups_are_used_where_they_never_change() {
        let of = |least, most, shuffles| {
            let subgroup = Subgroup { size: 32, least, most, shuffles, operations: vec![] };
            Facts { subgroup: Some(subgroup), ..h200() }.limits([0, 0], false).subgroup
        };
        assert_eq!(of(32, 32, true), Some(32));
        assert_eq!(of(8, 32, true), None);
        assert_eq!(of(32, 64, true), None);
        assert_eq!(of(32, 32, false), None);
    }

    #[test]
    fn a_device_that_has_too_little_is_told_what_it_lacks() {
        assert_eq!(h200().lacking(), None);
        let why = Facts { buffers: 3, ..h200() }.lacking().unwrap();
        assert!(why.contains("3 storage buffers") && why.contains("4 are wanted"), "{why}");
    }

    #[test]
    fn everything_is_shown() {
        let lines = h200().lines();
        let of = |name: &str| lines.iter().find(|l| l.0 == name).unwrap().1.clone();
        assert_eq!(of("shared memory"), "48 KiB");
        assert_eq!(of("memory"), "150 GiB, the device's, 149 GiB for this process, of which 0 B are in use");
        assert_eq!(of("subgroup"), "32: basic, shuffle");
    }
}
