//! Whether a device can run a kernel: what it binds, its threads, what they share, its grid. Read off the kernel itself,
//! whoever wrote it.

use super::Limits;
use crate::target::gpu::wgsl::source::Kernel;
use crate::target::gpu::wgsl::walk::MOST_GROUPS;

/// What of a device a kernel takes too much of: what was wanted, and what the kernel has.
pub fn excess(kernel: &Kernel, limits: &Limits) -> Option<(String, String)> {
    let threads = threads(&kernel.text);
    let groups = kernel.groups.iter().copied().max().unwrap_or(1) as usize;
    let shared = shared(&kernel.text);
    let all = [
        (kernel.bindings.len(), limits.bindings, "bound buffers"),
        (threads, limits.threads, "threads of a workgroup"),
        (shared, limits.shared, "bytes that a workgroup shares"),
        (groups, MOST_GROUPS, "workgroups along an axis"),
    ];
    let (came, most, what) = all.into_iter().find(|(came, most, _)| came > most)?;
    Some((
        format!("kernels of at most {most} {what}, which is what the device has"),
        format!("one of {came}"),
    ))
}

/// The product of the numbers in `@workgroup_size(…)`.
fn threads(text: &str) -> usize {
    let sizes = text.split("@workgroup_size(").nth(1).and_then(|t| t.split(')').next()).unwrap_or("1");
    sizes.split(',').map(|n| n.trim().trim_end_matches('u').parse().unwrap_or(1)).product()
}

/// Bytes of the variables that a workgroup shares, each on a multiple of 16.
fn shared(text: &str) -> usize {
    let types = text.split("var<workgroup>").skip(1).filter_map(|v| v.split(';').next()?.split_once(':'));
    types.map(|(_, ty)| size(ty.trim()).next_multiple_of(16)).sum()
}

/// Bytes of a type: scalars, vectors, and arrays of these.
fn size(ty: &str) -> usize {
    let inner = |prefix: &str| ty.strip_prefix(prefix).and_then(|t| t.strip_suffix('>'));
    if let Some((of, count)) = inner("array<").and_then(|t| t.rsplit_once(',')) {
        let count: usize = count.trim().trim_end_matches('u').parse().unwrap_or(0);
        return size(of.trim()) * count;
    }
    match (inner("vec4<"), inner("vec3<"), inner("vec2<")) {
        (Some(of), _, _) | (_, Some(of), _) => 4 * size(of),
        (_, _, Some(of)) => 2 * size(of),
        _ if ty == "f16" => 2,
        _ => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(text: &str) -> Kernel {
        Kernel { text: text.into(), bindings: vec![], groups: [1, 1, 1] }
    }

    #[test]
    fn threads_and_shared_memory_are_read_off_a_kernel() {
        let text = "var<workgroup> a: array<vec4<f32>, 256>;\nvar<workgroup> b: array<f16, 7>;\n\
                    var<workgroup> c: u32;\n@compute @workgroup_size(32, 4u)\nfn main() {}";
        assert_eq!(threads(text), 128);
        assert_eq!(shared(text), 4096 + 16 + 16);
        let tight = Limits { threads: 64, ..Limits::least() };
        let (wanted, came) = excess(&kernel(text), &tight).unwrap();
        assert!(wanted.contains("at most 64 threads") && came == "one of 128", "{wanted}, {came}");
        assert_eq!(excess(&kernel(text), &Limits::least()), None);
        let tight = Limits { shared: 4096, ..Limits::least() };
        assert!(excess(&kernel(text), &tight).unwrap().0.contains("4096 bytes"));
    }
}
