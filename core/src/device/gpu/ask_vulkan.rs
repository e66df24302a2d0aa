//! Queries Vulkan drivers for the properties of their devices, most of which the driver's crate (blade) does not expose.

use super::facts::{Facts, Kind, MemoryHeap, Subgroup};
use ash::{Entry, Instance, vk};
use std::ffi::CStr;

/// The properties of every device; empty if there is no loader or no driver responds.
pub fn ask() -> Vec<Facts> {
    // SAFETY: the system's Vulkan loader, opened as the driver's crate does.
    let Ok(entry) = (unsafe { Entry::load() }) else { return vec![] };
    let app = vk::ApplicationInfo::default().engine_name(c"weft").api_version(vk::API_VERSION_1_1);
    // SAFETY: the structures below are ash's own, and live as long as the calls.
    let instance = match unsafe { entry.try_enumerate_instance_version() } {
        Ok(Some(version)) if version >= vk::API_VERSION_1_1 => unsafe {
            entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&app), None)
        },
        _ => return vec![],
    };
    let Ok(instance) = instance else { return vec![] };
    // SAFETY: the instance is there until below.
    let devices = unsafe { instance.enumerate_physical_devices() }.unwrap_or_default();
    let all = devices.into_iter().filter_map(|device| Asked::new(&entry, &instance, device));
    let all = all.map(|a| a.facts()).collect();
    // SAFETY: nothing of it is used any more.
    unsafe { instance.destroy_instance(None) };
    all
}

/// A device being queried.
struct Asked<'a> {
    entry: &'a Entry,
    instance: &'a Instance,
    device: vk::PhysicalDevice,
    properties: vk::PhysicalDeviceProperties,
    extensions: Vec<vk::ExtensionProperties>,
}

impl<'a> Asked<'a> {
    /// `None` for devices of Vulkan 1.0, which do not support these queries.
    fn new(entry: &'a Entry, instance: &'a Instance, device: vk::PhysicalDevice) -> Option<Asked<'a>> {
        // SAFETY: the device is one of the instance's.
        let properties = unsafe { instance.get_physical_device_properties(device) };
        // SAFETY: as above.
        let extensions =
            unsafe { instance.enumerate_device_extension_properties(device) }.unwrap_or_default();
        let asked = Asked { entry, instance, device, properties, extensions };
        (properties.api_version >= vk::API_VERSION_1_1).then_some(asked)
    }

    fn has(&self, extension: &CStr) -> bool {
        self.extensions.iter().any(|e| e.extension_name_as_c_str() == Ok(extension))
    }

    /// Whether the device has that version, or the extension that became part of it.
    fn since(&self, version: u32, extension: &CStr) -> bool {
        self.properties.api_version >= version || self.has(extension)
    }

    fn properties<T: Default + vk::ExtendsPhysicalDeviceProperties2>(&self) -> T {
        let mut found = T::default();
        let mut all = vk::PhysicalDeviceProperties2::default().push_next(&mut found);
        // SAFETY: the device is one of the instance's and has the structure, which whoever asks has seen.
        unsafe { self.instance.get_physical_device_properties2(self.device, &mut all) };
        found
    }

    fn features<T: Default + vk::ExtendsPhysicalDeviceFeatures2>(&self) -> T {
        let mut found = T::default();
        let mut all = vk::PhysicalDeviceFeatures2::default().push_next(&mut found);
        // SAFETY: as above.
        unsafe { self.instance.get_physical_device_features2(self.device, &mut all) };
        found
    }

    fn facts(&self) -> Facts {
        let p = &self.properties;
        let limits = &p.limits;
        let (version, driver) = (p.api_version, p.driver_version);
        let [major, minor, patch] =
            [vk::api_version_major, vk::api_version_minor, vk::api_version_patch].map(|part| part(version));
        let sized: vk::PhysicalDeviceMaintenance3Properties<'_> = self.properties();
        Facts {
            device_id: p.device_id,
            name: p.device_name_as_c_str().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            api: format!("Vulkan {major}.{minor}.{patch}, vendor {:#x}, driver {driver:#x}", p.vendor_id),
            kind: match p.device_type {
                vk::PhysicalDeviceType::CPU => Kind::Software,
                vk::PhysicalDeviceType::INTEGRATED_GPU => Kind::Integrated,
                _ => Kind::Discrete,
            },
            threads: limits.max_compute_work_group_invocations,
            sizes: limits.max_compute_work_group_size,
            groups: limits.max_compute_work_group_count,
            shared: limits.max_compute_shared_memory_size,
            binding: u64::from(limits.max_storage_buffer_range),
            alignment: limits.min_storage_buffer_offset_alignment,
            allocation: sized.max_memory_allocation_size,
            buffers: limits.max_per_stage_descriptor_storage_buffers,
            resources: [limits.max_descriptor_set_storage_buffers, limits.max_per_stage_resources],
            inline_uniforms: self.inline_uniforms(),
            subgroup: self.subgroup(),
            types: self.types(),
            matrices: self.matrices(),
            units: self.units(),
            heaps: self.heaps(),
        }
    }

    fn inline_uniforms(&self) -> u32 {
        if !self.since(vk::API_VERSION_1_3, vk::EXT_INLINE_UNIFORM_BLOCK_NAME) {
            return 0;
        }
        let found: vk::PhysicalDeviceInlineUniformBlockProperties<'_> = self.properties();
        found.max_inline_uniform_block_size
    }

    fn subgroup(&self) -> Option<Subgroup> {
        let found: vk::PhysicalDeviceSubgroupProperties<'_> = self.properties();
        if !found.supported_stages.contains(vk::ShaderStageFlags::COMPUTE) {
            return None;
        }
        let size = found.subgroup_size;
        let (least, most) = match self.since(vk::API_VERSION_1_3, vk::EXT_SUBGROUP_SIZE_CONTROL_NAME) {
            true => {
                let bounds: vk::PhysicalDeviceSubgroupSizeControlProperties<'_> = self.properties();
                (bounds.min_subgroup_size, bounds.max_subgroup_size)
            }
            false => (size, size),
        };
        use vk::SubgroupFeatureFlags as Flags;
        let names = [
            (Flags::BASIC, "basic"),
            (Flags::VOTE, "vote"),
            (Flags::ARITHMETIC, "arithmetic"),
            (Flags::BALLOT, "ballot"),
            (Flags::SHUFFLE, "shuffle"),
            (Flags::SHUFFLE_RELATIVE, "relative shuffle"),
            (Flags::CLUSTERED, "clustered"),
            (Flags::QUAD, "quad"),
        ];
        let there = |flag: Flags| found.supported_operations.contains(flag);
        let operations = names.into_iter().filter(|(flag, _)| there(*flag)).map(|(_, name)| name).collect();
        let shuffles = there(Flags::BASIC) && there(Flags::SHUFFLE);
        Some(Subgroup { size, least, most, shuffles, operations })
    }

    fn types(&self) -> Vec<&'static str> {
        // SAFETY: the device is one of the instance's.
        let core = unsafe { self.instance.get_physical_device_features(self.device) };
        let halves: vk::PhysicalDevice16BitStorageFeatures<'_> = self.features();
        let mut all = vec![];
        if self.since(vk::API_VERSION_1_2, vk::KHR_SHADER_FLOAT16_INT8_NAME) {
            let found: vk::PhysicalDeviceShaderFloat16Int8Features<'_> = self.features();
            all.extend([(found.shader_float16, "f16"), (found.shader_int8, "i8")]);
        }
        all.extend([
            (core.shader_int16, "i16"),
            (core.shader_int64, "i64"),
            (core.shader_float64, "f64"),
            (halves.storage_buffer16_bit_access, "16 bits in memory"),
        ]);
        if self.since(vk::API_VERSION_1_2, vk::KHR_8BIT_STORAGE_NAME) {
            let found: vk::PhysicalDevice8BitStorageFeatures<'_> = self.features();
            all.push((found.storage_buffer8_bit_access, "8 bits in memory"));
        }
        if self.since(vk::API_VERSION_1_3, vk::KHR_SHADER_INTEGER_DOT_PRODUCT_NAME) {
            let found: vk::PhysicalDeviceShaderIntegerDotProductFeatures<'_> = self.features();
            all.push((found.shader_integer_dot_product, "integer dot products"));
        }
        all.into_iter().filter(|(there, _)| *there == vk::TRUE).map(|(_, name)| name).collect()
    }

    fn matrices(&self) -> Vec<String> {
        if !self.has(vk::KHR_COOPERATIVE_MATRIX_NAME) {
            return vec![];
        }
        let asking = ash::khr::cooperative_matrix::Instance::new(self.entry, self.instance);
        // SAFETY: the device is one of the instance's, and has the extension.
        let found = unsafe { asking.get_physical_device_cooperative_matrix_properties(self.device) };
        let ty = |t: vk::ComponentTypeKHR| {
            use vk::ComponentTypeKHR as T;
            match t {
                T::FLOAT16 => "f16".into(),
                T::FLOAT32 => "f32".into(),
                T::FLOAT64 => "f64".into(),
                T::SINT8 => "i8".into(),
                T::UINT8 => "u8".into(),
                T::SINT32 => "i32".into(),
                T::UINT32 => "u32".into(),
                other => format!("type {}", other.as_raw()),
            }
        };
        let mut all: Vec<String> = vec![];
        for m in found.unwrap_or_default().iter().filter(|m| m.scope == vk::ScopeKHR::SUBGROUP) {
            let (size, [a, b, c]) = ([m.m_size, m.n_size, m.k_size], [m.a_type, m.b_type, m.c_type].map(ty));
            let text = format!("{} {a}·{b} + {c}", size.map(|n| n.to_string()).join("×"));
            if !all.contains(&text) {
                all.push(text);
            }
        }
        all
    }

    /// Multiprocessors, from vendor extensions.
    fn units(&self) -> Option<u32> {
        let found = if self.has(vk::NV_SHADER_SM_BUILTINS_NAME) {
            self.properties::<vk::PhysicalDeviceShaderSMBuiltinsPropertiesNV<'_>>().shader_sm_count
        } else if self.has(vk::AMD_SHADER_CORE_PROPERTIES2_NAME) {
            self.properties::<vk::PhysicalDeviceShaderCoreProperties2AMD<'_>>().active_compute_unit_count
        } else if self.has(vk::AMD_SHADER_CORE_PROPERTIES_NAME) {
            let p: vk::PhysicalDeviceShaderCorePropertiesAMD<'_> = self.properties();
            let arrays = p.shader_engine_count.saturating_mul(p.shader_arrays_per_engine_count);
            arrays.saturating_mul(p.compute_units_per_shader_array)
        } else if self.has(vk::ARM_SHADER_CORE_BUILTINS_NAME) {
            self.properties::<vk::PhysicalDeviceShaderCoreBuiltinsPropertiesARM<'_>>().shader_core_count
        } else {
            0
        };
        (found > 0).then_some(found)
    }

    fn heaps(&self) -> Vec<MemoryHeap> {
        let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let told = self.has(vk::EXT_MEMORY_BUDGET_NAME);
        let mut all = vk::PhysicalDeviceMemoryProperties2::default();
        if told {
            all = all.push_next(&mut budget);
        }
        // SAFETY: the device is one of the instance's, and has what is asked for.
        unsafe { self.instance.get_physical_device_memory_properties2(self.device, &mut all) };
        let memory = all.memory_properties;
        let heap = |(i, heap): (usize, &vk::MemoryHeap)| MemoryHeap {
            bytes: heap.size,
            local: heap.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL),
            budget: told.then(|| (budget.heap_budget[i], budget.heap_usage[i])),
        };
        memory.memory_heaps_as_slice().iter().enumerate().map(heap).collect()
    }
}
