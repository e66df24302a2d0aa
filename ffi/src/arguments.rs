//! Arguments from C: texts, arrays, structures, places for results. Every pointer is checked here: NULL, alignment, lengths.
//! That it can be read or written is the caller's promise, by the header's preamble.

use crate::error::{WEFT_STATUS_STRUCT, WEFT_STATUS_UTF8};
use crate::guard::{Failure, Outcome};
use crate::handle::{self, Object, object};
use engine::tensor::{Bytes, DType};
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A length that means: the text ends with NUL.
pub const WEFT_NUL_TERMINATED: usize = usize::MAX;

/// Maximum bytes of a name or path.
const LONGEST_NAME: usize = 1 << 16;
/// Maximum bytes of a text.
const LONGEST_TEXT: usize = 1 << 30;

/// A text of the library or the caller: UTF-8 with that many bytes. Texts from the library are never NULL, and are followed by
/// a NUL that `length` does not count, so that C can print them. Frozen: this structure stays as it is, and has no
/// struct_size.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_str {
    /// The first byte.
    pub data: *const c_char,
    /// Number of bytes; for texts from the caller also WEFT_NUL_TERMINATED.
    pub length: usize,
}

impl weft_str {
    /// No text.
    pub const EMPTY: weft_str = weft_str { data: c"".as_ptr(), length: 0 };

    /// Calls `see` with a text that is valid during the call: for callbacks. Texts of handles are made by
    /// `handle::Shared::show` and `handle::Alone::show`.
    pub fn during<T>(text: &str, see: impl FnOnce(weft_str) -> T) -> T {
        let ended = [text, "\0"].concat();
        see(weft_str { data: ended.as_ptr().cast(), length: text.len() })
    }
}

/// A message for C; NULs inside (quoted names may contain them) would truncate it and are replaced.
pub fn sentence(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "?") } else { text }
}

/// Bytes created by the library: a text, an artifact, a safetensors file. Immutable; threads may share it. Freed with
/// weft_bytes_free.
pub struct weft_bytes {
    _opaque: [u8; 0],
}

/// The object behind weft_bytes: bytes followed by a NUL.
pub struct BytesObject(Vec<u8>);
object!(BytesObject, weft_bytes);

impl BytesObject {
    /// Bytes for C.
    pub fn new(bytes: impl Into<Vec<u8>>) -> BytesObject {
        let mut bytes = bytes.into();
        bytes.push(0);
        BytesObject(bytes)
    }
}

/// The bytes, valid until the object is freed, followed by a NUL that `*length` does not count, so that a text can be printed.
/// `length` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_bytes_data(
    bytes: *const weft_bytes,
    data: *mut *const u8,
    length: *mut usize,
    err: *mut *mut crate::error::weft_error,
) -> crate::error::weft_status {
    crate::guard::guard("weft_bytes_data", err, || {
        let data = out(data, "data")?;
        let bytes = handle::share::<BytesObject>(bytes)?;
        if !length.is_null() {
            out(length, "length")?.set(bytes.0.len() - 1);
        }
        data.set(bytes.0.as_ptr());
        Ok(())
    })
}

/// Frees bytes. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_bytes_free(bytes: *mut weft_bytes) -> crate::error::weft_status {
    crate::guard::guard("weft_bytes_free", std::ptr::null_mut(), || handle::free::<BytesObject>(bytes))
}

/// A place for a result, written at the end of a successful call.
pub struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the result.
    pub fn set(self, value: T) {
        // SAFETY: `out` saw that it is not NULL and aligned; that it can be written is the caller's promise.
        unsafe { self.0.write(value) }
    }
}

/// The place passed by C for a result.
pub fn out<T>(place: *mut T, name: &str) -> Outcome<Out<T>> {
    if place.is_null() {
        return Err(Failure::null(name));
    }
    if !place.is_aligned() {
        return Err(Failure::argument(
            name,
            format!("alignment to {} bytes", align_of::<T>()),
            format!("{place:p}"),
        ));
    }
    Ok(Out(place))
}

/// Adds an object to the table, and writes its handle to its place.
pub fn give<T: Object>(place: Out<*mut T::C>, object: T) -> Outcome {
    place.set(handle::put(object)?);
    Ok(())
}

/// An array passed by C.
///
/// # Safety
/// Not NULL, it has `count` elements that nobody writes to during the call.
pub unsafe fn array<'a, T>(data: *const T, count: usize, name: &str) -> Outcome<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(Failure::null(name));
    }
    fits::<T>(data, count, name)?;
    // SAFETY: not NULL, aligned, not too long; the rest is promised.
    Ok(unsafe { std::slice::from_raw_parts(data, count) })
}

/// An array passed by C for results.
///
/// # Safety
/// Not NULL, it has `count` elements that nobody else uses during the call.
pub unsafe fn array_mut<'a, T>(data: *mut T, count: usize, name: &str) -> Outcome<&'a mut [T]> {
    if count == 0 {
        return Ok(&mut []);
    }
    if data.is_null() {
        return Err(Failure::null(name));
    }
    fits::<T>(data, count, name)?;
    // SAFETY: as above.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, count) })
}

fn fits<T>(data: *const T, count: usize, name: &str) -> Outcome {
    if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure::argument(name, "a length that memory can have", count));
    }
    if !data.is_aligned() {
        return Err(Failure::argument(
            name,
            format!("alignment to {} bytes", align_of::<T>()),
            format!("{data:p}"),
        ));
    }
    Ok(())
}

/// Bytes of elements passed by C.
///
/// # Safety
/// As [`array`].
pub unsafe fn bytes<'a>(data: *const c_void, count: usize, name: &str) -> Outcome<&'a [u8]> {
    // SAFETY: passed on.
    unsafe { array(data.cast::<u8>(), count, name) }
}

/// A name or path passed by C.
///
/// # Safety
/// As [`array`]; with WEFT_NUL_TERMINATED there is a NUL.
pub unsafe fn name<'a>(data: *const c_char, length: usize, what: &str) -> Outcome<&'a str> {
    // SAFETY: passed on.
    unsafe { limited(data, length, what, LONGEST_NAME) }
}

/// A text passed by C.
///
/// # Safety
/// As [`name`].
pub unsafe fn text<'a>(data: *const c_char, length: usize, what: &str) -> Outcome<&'a str> {
    // SAFETY: passed on.
    unsafe { limited(data, length, what, LONGEST_TEXT) }
}

unsafe fn limited<'a>(data: *const c_char, length: usize, what: &str, most: usize) -> Outcome<&'a str> {
    let bytes = if length == WEFT_NUL_TERMINATED {
        if data.is_null() {
            return Err(Failure::null(what));
        }
        // SAFETY: a NUL is promised.
        unsafe { CStr::from_ptr(data) }.to_bytes()
    } else if length > most {
        return Err(Failure::argument(what, format!("at most {most} bytes"), format!("{length} bytes")));
    } else {
        // SAFETY: passed on.
        unsafe { array(data.cast::<u8>(), length, what) }?
    };
    if bytes.len() > most {
        return Err(Failure::argument(
            what,
            format!("at most {most} bytes"),
            format!("{} bytes", bytes.len()),
        ));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let message = format!("{what}: wanted UTF-8, but byte {} begins none", e.valid_up_to());
        Failure::new(WEFT_STATUS_UTF8, message)
    })
}

/// A structure whose first field is its size as known to the caller.
///
/// # Safety
/// Plain data: any bytes are a value, and the first field is `size_t struct_size`.
pub unsafe trait Versioned: Copy {
    /// Values of the fields that the caller does not know.
    const DEFAULT: Self;
}

/// A structure passed by C: a shorter one comes from an older caller, a longer one must be zero beyond the fields we know.
///
/// # Safety
/// Not NULL, it can be read as far as its first field says.
pub unsafe fn structure<T: Versioned>(from: *const T, name: &str) -> Outcome<T> {
    let size = struct_size(from, name)?;
    let mut value = T::DEFAULT;
    let known = size.min(size_of::<T>());
    // SAFETY: as long as it says, and plain data; `value` has room.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), known) };
    // SAFETY: as above.
    let tail = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known) };
    if tail.iter().any(|&b| b != 0) {
        return Err(bad_struct(name, "fields that this library knows", "others that are not zero"));
    }
    Ok(value)
}

/// Fills a structure of the caller as far as the caller knows it; fields beyond ours are not written.
///
/// # Safety
/// As [`structure`], and it can be written.
pub unsafe fn fill<T: Versioned>(into: *mut T, mut value: T, name: &str) -> Outcome {
    let size = struct_size(into, name)?;
    // SAFETY: the first field is the size.
    unsafe { (&raw mut value).cast::<usize>().write(size) };
    let known = size.min(size_of::<T>());
    // SAFETY: as long as it says.
    unsafe { std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), into.cast::<u8>(), known) };
    Ok(())
}

fn struct_size<T: Versioned>(at: *const T, name: &str) -> Outcome<usize> {
    if at.is_null() {
        return Err(Failure::null(name));
    }
    fits(at, 1, name)?;
    // SAFETY: not NULL, aligned; the first field is the size.
    let size = unsafe { at.cast::<usize>().read() };
    if size < size_of::<usize>() || size > 4096 {
        return Err(bad_struct(name, "struct_size set to the structure's size", size));
    }
    Ok(size)
}

fn bad_struct(name: &str, wanted: &str, came: impl std::fmt::Display) -> Failure {
    Failure::new(WEFT_STATUS_STRUCT, format!("{name}: wanted {wanted}, got {came}"))
}

/// Called once, with the caller's `user_data`, when the library no longer needs a borrowed object, on the thread that released
/// it last. May be NULL.
pub type weft_release_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A caller's pointer, and the function to call when it is no longer needed.
pub struct Held {
    release: weft_release_fn,
    user_data: *mut c_void,
    taken: AtomicBool,
}

// SAFETY: the pointer is only passed back, and the header says on which threads.
unsafe impl Send for Held {}
// SAFETY: as above.
unsafe impl Sync for Held {}

impl Held {
    /// A pointer offered by the caller. It is only released after it is [`taken`](Held::taken).
    pub fn new(release: weft_release_fn, user_data: *mut c_void) -> Held {
        Held { release, user_data, taken: AtomicBool::new(false) }
    }

    /// The caller's pointer.
    pub fn user_data(&self) -> *mut c_void {
        self.user_data
    }

    /// Marks the call as successful: the library must now release the pointer. Failed calls leave it with the caller.
    pub fn taken(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let (Some(release), true) = (self.release, *self.taken.get_mut()) {
            // SAFETY: the caller gave the function for this.
            unsafe { release(self.user_data) }
        }
    }
}

/// Bytes borrowed from the caller, by contract unchanged until they are released.
///
/// # Safety
/// As [`array`], until `release` is called.
pub unsafe fn lent(
    data: *const c_void,
    count: usize,
    name: &str,
    held: &Arc<Held>,
) -> Outcome<Bytes<'static>> {
    // SAFETY: passed on.
    let seen = unsafe { bytes(data, count, name) }?;
    // SAFETY: promised until `held` goes.
    Ok(unsafe { Bytes::from_raw(seen.as_ptr(), seen.len(), held.clone()) })
}

/// An element type: one of WEFT_DTYPE_….
pub type weft_dtype = u32;

/// IEEE 754 binary32.
pub const WEFT_DTYPE_F32: weft_dtype = 0;
/// IEEE 754 binary16.
pub const WEFT_DTYPE_F16: weft_dtype = 1;
/// bfloat16.
pub const WEFT_DTYPE_BF16: weft_dtype = 2;
/// Signed 32-bit integer.
pub const WEFT_DTYPE_I32: weft_dtype = 3;
/// Unsigned 32-bit integer.
pub const WEFT_DTYPE_U32: weft_dtype = 4;
/// Signed 64-bit integer.
pub const WEFT_DTYPE_I64: weft_dtype = 5;
/// Unsigned 8-bit integer.
pub const WEFT_DTYPE_U8: weft_dtype = 6;
/// Boolean: one byte, 0 or 1.
pub const WEFT_DTYPE_BOOL: weft_dtype = 7;
/// Blocks of 32 int8 values with an f16 scale: all values, then all scales.
pub const WEFT_DTYPE_Q8: weft_dtype = 8;
/// Blocks of 32 int4 values with an f16 scale: all values, two a byte, then all scales.
pub const WEFT_DTYPE_Q4: weft_dtype = 9;

/// The engine's dtype.
pub fn dtype(number: weft_dtype) -> Outcome<DType> {
    Ok(match number {
        WEFT_DTYPE_F32 => DType::F32,
        WEFT_DTYPE_F16 => DType::F16,
        WEFT_DTYPE_BF16 => DType::BF16,
        WEFT_DTYPE_I32 => DType::I32,
        WEFT_DTYPE_U32 => DType::U32,
        WEFT_DTYPE_I64 => DType::I64,
        WEFT_DTYPE_U8 => DType::U8,
        WEFT_DTYPE_BOOL => DType::Bool,
        WEFT_DTYPE_Q8 => DType::Q8,
        WEFT_DTYPE_Q4 => DType::Q4,
        other => return Err(Failure::argument("dtype", "one of WEFT_DTYPE_…", other)),
    })
}

/// The number of a dtype.
pub fn dtype_number(dtype: DType) -> weft_dtype {
    match dtype {
        DType::F32 => WEFT_DTYPE_F32,
        DType::F16 => WEFT_DTYPE_F16,
        DType::BF16 => WEFT_DTYPE_BF16,
        DType::I32 => WEFT_DTYPE_I32,
        DType::U32 => WEFT_DTYPE_U32,
        DType::I64 => WEFT_DTYPE_I64,
        DType::U8 => WEFT_DTYPE_U8,
        DType::Bool => WEFT_DTYPE_BOOL,
        DType::Q8 => WEFT_DTYPE_Q8,
        DType::Q4 => WEFT_DTYPE_Q4,
        // a test finds dtypes without a number
        _ => weft_dtype::MAX,
    }
}

/// A shape passed by C.
///
/// # Safety
/// As [`array`].
pub unsafe fn shape(data: *const usize, rank: usize) -> Outcome<Vec<usize>> {
    if rank > 64 {
        return Err(Failure::argument("rank", "at most 64", rank));
    }
    // SAFETY: passed on.
    Ok(unsafe { array(data, rank, "shape") }?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    #[repr(C)]
    struct Options {
        struct_size: usize,
        a: u32,
        b: u32,
    }
    // SAFETY: plain data, the size first.
    unsafe impl Versioned for Options {
        const DEFAULT: Options = Options { struct_size: size_of::<Options>(), a: 1, b: 2 };
    }

    #[test]
    fn every_dtype_of_the_engine_has_a_number_that_leads_back_to_it() {
        for (i, wanted) in DType::ALL.into_iter().enumerate() {
            assert_eq!(dtype(dtype_number(wanted)).ok().unwrap(), wanted);
            assert_eq!(dtype(i as u32).ok().unwrap(), wanted);
        }
        assert!(dtype(DType::ALL.len() as u32).is_err());
    }

    #[test]
    fn texts_are_read_by_length_or_to_their_end() {
        let given = c"säen";
        let read = |length| unsafe { name(given.as_ptr(), length, "name") };
        assert_eq!(read(WEFT_NUL_TERMINATED).ok(), Some("säen"));
        assert_eq!(read(3).ok(), Some("sä"));
        assert_eq!(read(2).err().unwrap().status, WEFT_STATUS_UTF8);
        assert_eq!(read(0).ok(), Some(""));
        assert!(read(1 << 40).is_err());
        let null = unsafe { name(std::ptr::null(), WEFT_NUL_TERMINATED, "name") };
        assert_eq!(null.err().unwrap().status, crate::error::WEFT_STATUS_NULL);
        assert!(unsafe { name(std::ptr::null(), 0, "name") }.is_ok());
    }

    #[test]
    fn arrays_too_long_for_memory_are_refused_unread() {
        let one = [1.0f32];
        assert!(unsafe { array(one.as_ptr(), usize::MAX / 2, "data") }.is_err());
        assert!(
            unsafe { array(one.as_ptr().cast::<u8>().wrapping_add(1).cast::<f32>(), 1, "data") }.is_err()
        );
        assert_eq!(unsafe { array(one.as_ptr(), 1, "data") }.ok().unwrap(), [1.0]);
    }

    #[test]
    fn structures_shorter_and_longer_than_ours_are_read() {
        let short = Options { struct_size: 12, a: 7, b: 9 };
        let read = unsafe { structure(&short, "options") }.ok().unwrap();
        assert_eq!((read.a, read.b), (7, 2));
        #[repr(C)]
        struct Longer(Options, u64);
        let mut longer = Longer(Options { struct_size: size_of::<Longer>(), a: 7, b: 9 }, 0);
        let seen = |l: &Longer| unsafe { structure((l as *const Longer).cast::<Options>(), "options") };
        assert_eq!(seen(&longer).ok().unwrap().b, 9);
        longer.1 = 1;
        assert_eq!(seen(&longer).err().unwrap().status, WEFT_STATUS_STRUCT);
        let wrong = Options { struct_size: 0, a: 0, b: 0 };
        assert_eq!(unsafe { structure(&wrong, "options") }.err().unwrap().status, WEFT_STATUS_STRUCT);
        let mut into = Options { struct_size: 12, a: 0, b: 5 };
        assert!(unsafe { fill(&mut into, Options { struct_size: 0, a: 3, b: 4 }, "into") }.is_ok());
        assert_eq!((into.struct_size, into.a, into.b), (12, 3, 5));
    }

    #[test]
    fn what_is_lent_is_released_once_when_the_last_user_goes() {
        unsafe extern "C" fn count(user_data: *mut c_void) {
            // SAFETY: the counter below.
            unsafe { *user_data.cast::<u32>() += 1 };
        }
        let mut released = 0u32;
        let place = &raw mut released;
        let data = [1u8, 2, 3];
        let held = Arc::new(Held::new(Some(count), place.cast()));
        let bytes = unsafe { lent(data.as_ptr().cast(), 3, "data", &held) }.ok().unwrap();
        let part = bytes.part(1, 3).unwrap();
        held.taken();
        drop((held, bytes));
        assert_eq!(&part[..], [2, 3]);
        // SAFETY: nobody else uses it now.
        assert_eq!(unsafe { *place }, 0);
        drop(part);
        // SAFETY: as above.
        assert_eq!(unsafe { *place }, 1);
    }

    #[test]
    fn texts_for_c_have_one_end() {
        assert_eq!(sentence("a\0b".into()), "a?b");
        weft_str::during("abc", |text| {
            assert_eq!(text.length, 3);
            assert_eq!(unsafe { CStr::from_ptr(text.data) }, c"abc");
        });
    }
}
