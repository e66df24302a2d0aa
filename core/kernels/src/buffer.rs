//! Memory aligned to a cache line, zeroed when new, and never reallocated.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// Bytes of a cache line, and of the widest vector.
pub const LINE: usize = 64;
/// Bytes of a huge page, and the size from which a buffer asks for them.
const HUGE: usize = 2 << 20;

/// Owned, aligned bytes.
pub struct Buffer {
    block: NonNull<u8>,
    layout: Layout,
    offset: usize,
    len: usize,
}

// SAFETY: the buffer owns its memory and gives out only raw pointers.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Zeroed memory; the process ends if there is none (see [`try_new`](Buffer::try_new)).
    pub fn new(len: usize) -> Self {
        Self::try_new(len).unwrap_or_else(|| handle_alloc_error(Layout::new::<u8>()))
    }

    /// Zeroed memory, or `None` if there is not enough.
    pub fn try_new(len: usize) -> Option<Self> {
        let len = len.max(LINE);
        let align = if len >= 2 * HUGE { HUGE } else { LINE };
        // Aligned by hand: the system's aligned allocation is not zero yet, and zeroing it here, by one thread, would
        // touch every page.
        let layout = Layout::from_size_align(len.checked_add(align)?, 16).ok()?;
        // SAFETY: the layout is not empty.
        let pointer = unsafe { alloc_zeroed(layout) };
        let block = NonNull::new(pointer)?;
        let buffer = Self { block, layout, offset: pointer.align_offset(align), len };
        if align == HUGE {
            want_huge_pages(buffer.pointer(), len / HUGE * HUGE);
        }
        Some(buffer)
    }

    /// Bytes; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The first byte.
    pub fn pointer(&self) -> *mut u8 {
        self.block.as_ptr().wrapping_add(self.offset)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.block.as_ptr(), self.layout) }
    }
}

/// Asks for huge pages: fewer faults while packing, fewer TLB misses afterwards. Only a wish; a refusal changes nothing.
#[cfg(target_os = "linux")]
fn want_huge_pages(from: *mut u8, bytes: usize) {
    unsafe extern "C" {
        fn madvise(from: *mut core::ffi::c_void, bytes: usize, advice: i32) -> i32;
    }
    /// `MADV_HUGEPAGE` of <linux/mman.h>.
    const HUGE_PAGE: i32 = 14;
    // SAFETY: whole pages inside one live allocation; the advice does not change their contents.
    unsafe { madvise(from.cast(), bytes, HUGE_PAGE) };
}

#[cfg(not(target_os = "linux"))]
fn want_huge_pages(_: *mut u8, _: usize) {}
