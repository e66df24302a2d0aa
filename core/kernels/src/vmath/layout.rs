//! Moves lanes without computing: fills, strides, counts.

/// `dst[i] = value`.
///
/// # Safety
/// `dst` is valid for `n` lanes.
pub unsafe fn fill<T: Copy>(dst: *mut T, value: T, n: usize) {
    for i in 0..n {
        // SAFETY: `i < n`.
        unsafe { dst.add(i).write(value) }
    }
}

/// `dst[i] = src[i·stride]`; the stride counts elements, and may be 0 or negative. Any 8-, 16-, 32- or 64-bit type.
///
/// # Safety
/// `dst` is valid for `n` lanes, `src` at every stride; they are disjoint.
pub unsafe fn load_strided<T: Copy>(dst: *mut T, src: *const T, stride: isize, n: usize) {
    // SAFETY: the caller's promise; offsets are those it vouches for.
    unsafe {
        match stride {
            0 if n > 0 => fill(dst, src.read(), n),
            1 => std::ptr::copy_nonoverlapping(src, dst, n),
            _ => {
                for i in 0..n {
                    dst.add(i).write(src.offset(i as isize * stride).read());
                }
            }
        }
    }
}

/// `dst[i·stride] = src[i]`; the stride counts elements, and may be negative.
///
/// # Safety
/// `src` is valid for `n` lanes, `dst` at every stride; they are disjoint.
pub unsafe fn store_strided<T: Copy>(dst: *mut T, src: *const T, stride: isize, n: usize) {
    // SAFETY: the caller's promise; offsets are those it vouches for.
    unsafe {
        if stride == 1 {
            return std::ptr::copy_nonoverlapping(src, dst, n);
        }
        for i in 0..n {
            dst.offset(i as isize * stride).write(src.add(i).read());
        }
    }
}

/// `dst[i] = start + i·step`, wrapping: i32 and u32 alike (a negative step as its two's complement).
///
/// # Safety
/// `dst` is valid for `n` lanes.
pub unsafe fn iota(dst: *mut u32, start: u32, step: u32, n: usize) {
    for i in 0..n {
        // SAFETY: `i < n`.
        unsafe { dst.add(i).write(start.wrapping_add((i as u32).wrapping_mul(step))) }
    }
}
