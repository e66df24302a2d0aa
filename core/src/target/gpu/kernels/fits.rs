//! Checks a kernel against a device's limits: bindings, threads, workgroup memory, grid.

use super::Limits;
use crate::target::gpu::wgsl::source::Kernel;
use crate::target::gpu::wgsl::walk::MOST_GROUPS;

/// The limit that a kernel exceeds, if any: the limit, and the kernel's value.
pub fn excess(kernel: &Kernel, limits: &Limits) -> Option<(String, String)> {
    let groups = kernel.groups.iter().copied().max().unwrap_or(1) as usize;
    let all = [
        (kernel.bindings.len(), limits.bindings, "bound buffers"),
        (kernel.threads, limits.threads, "threads of a workgroup"),
        (kernel.shared, limits.shared, "bytes that a workgroup shares"),
        (groups, MOST_GROUPS, "workgroups along an axis"),
    ];
    let (came, most, what) = all.into_iter().find(|(came, most, _)| came > most)?;
    Some((
        format!("kernels of at most {most} {what}, which is what the device has"),
        format!("one of {came}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::gpu::kernels::rowwise::entry;
    use crate::target::gpu::storage::Storage;
    use crate::target::gpu::wgsl::source::Source;

    #[test]
    fn a_kernel_of_more_than_a_device_has_is_told() {
        let storage = Storage::empty(1 << 20);
        let mut source = Source::new(&storage);
        source.share("a", "vec4<f32>", 256);
        source.share("b", "f16", 7);
        source.share_one("c", "atomic<u32>");
        source.share("a", "vec4<f32>", 256);
        let kernel = source.finish(&entry(128, "let x = lid;"), [1, 1, 1]);
        assert_eq!((kernel.threads, kernel.shared), (128, 4096 + 16 + 16));
        assert!(kernel.text[kernel.entry..].starts_with("@compute"), "{}", kernel.text);
        assert!(kernel.text[kernel.body..].starts_with("let x = lid;"), "{}", kernel.text);
        let tight = Limits { threads: 64, ..Limits::least() };
        let (wanted, came) = excess(&kernel, &tight).unwrap();
        assert!(wanted.contains("at most 64 threads") && came == "one of 128", "{wanted}, {came}");
        assert_eq!(excess(&kernel, &Limits::least()), None);
        let tight = Limits { shared: 4096, ..Limits::least() };
        assert!(excess(&kernel, &tight).unwrap().0.contains("4096 bytes"));
    }
}
