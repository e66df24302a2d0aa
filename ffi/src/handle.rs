//! Handles: numbers that C holds for objects. A handle is not an address: it contains a slot of a table and the generation of
//! the slot's object, so that a freed, forged or mistyped handle is detected without accessing its memory, and so is a parent's
//! handle in a forked child.
//!
//! A slot counts its users. Objects that threads may share are pinned by any number of calls at once, others by one; a second
//! user is refused, in release builds, too, since the count is needed anyway: freeing an object pins it exclusively.

use crate::arguments::weft_str;
use crate::guard::Failure;
use engine::error::Error;
use engine::internals::process::{Own, generation};
use std::any::Any;
use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// An object that C holds by a handle of type `Self::C`.
pub trait Object: Send + 'static {
    /// The opaque type of the header.
    type C;
    /// Its name in the header.
    const NAME: &'static str;
}

/// Ties an object to its opaque type in the header.
macro_rules! object {
    ($object:ty, $c:ident) => {
        impl $crate::handle::Object for $object {
            type C = $c;
            const NAME: &'static str = stringify!($c);
        }
    };
}
pub(crate) use object;

/// Bits of a handle for the slot; the generation is above them.
const INDEX_BITS: u32 = if usize::BITS == 64 { 24 } else { 14 };
const GENERATION: u32 = if usize::BITS == 64 { u32::MAX } else { (1 << 18) - 1 };
/// Slots in the first chunk; each further chunk doubles.
const FIRST: usize = 256;
const CHUNKS: usize = 17;
/// The pin count of a slot pinned exclusively.
const ALONE: u32 = u32::MAX;

struct Slot {
    /// Generation (odd while there is an object) in the upper half, pin count in the lower.
    state: AtomicU64,
    /// The process that inserted the object: its [`generation`].
    born: AtomicU32,
    object: UnsafeCell<Option<Box<dyn Any + Send>>>,
    /// Texts of the object returned to C, NUL-terminated, kept until the object is freed.
    texts: Mutex<BTreeSet<Arc<str>>>,
}

// SAFETY: `object` is only reached by who has pinned the slot: shared by `&T` of a `T: Sync` (`share`), or alone.
unsafe impl Sync for Slot {}

/// Chunks of slots, allocated on demand. Lock-free: a forked child continues with its parent's.
static TABLE: [AtomicPtr<Slot>; CHUNKS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNKS];
/// The first slot that was never used.
static FRESH: AtomicUsize = AtomicUsize::new(0);
/// Slots that this process used before and freed.
static FREED: Own<Mutex<Vec<u32>>> = Own::new(Mutex::default);

fn place(index: usize) -> (usize, usize) {
    let chunk = (index / FIRST + 1).ilog2() as usize;
    (chunk, index - FIRST * ((1 << chunk) - 1))
}

fn slot(index: usize) -> Option<&'static Slot> {
    let (chunk, at) = place(index);
    let first = TABLE.get(chunk)?.load(Ordering::Acquire);
    // SAFETY: NULL, or the first of a chunk, which is never freed.
    (!first.is_null()).then(|| unsafe { &*first.add(at) })
}

/// The slot of an index, in a chunk that is allocated if necessary.
fn slot_to_fill(index: usize) -> Option<&'static Slot> {
    let (chunk, _) = place(index);
    let at = TABLE.get(chunk)?;
    if at.load(Ordering::Acquire).is_null() {
        let empty = |_| Slot {
            state: AtomicU64::new(0),
            born: AtomicU32::new(0),
            object: UnsafeCell::new(None),
            texts: Mutex::default(),
        };
        let slots: Box<[Slot]> = (0..FIRST << chunk).map(empty).collect();
        let made = Box::into_raw(slots);
        let null = std::ptr::null_mut();
        if at.compare_exchange(null, made.cast::<Slot>(), Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: made a moment ago; another thread's was taken.
            drop(unsafe { Box::from_raw(made) });
        }
    }
    slot(index)
}

/// An index without an object.
fn vacant() -> Option<usize> {
    if let Some(index) = FREED.lock().unwrap_or_else(PoisonError::into_inner).pop() {
        return Some(index as usize);
    }
    let more = |n: usize| (n >> INDEX_BITS == 0 && place(n).0 < CHUNKS).then_some(n + 1);
    FRESH.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()
}

/// Inserts an object and returns its handle.
pub fn put<T: Object>(object: T) -> Result<*mut T::C, Failure> {
    let found = vacant().and_then(|index| Some((index, slot_to_fill(index)?)));
    let (index, slot) = found.ok_or_else(Failure::too_many_handles)?;
    // SAFETY: the slot is vacant (even generation) and no longer in the list: nobody else may touch it.
    unsafe { *slot.object.get() = Some(Box::new(object)) };
    slot.born.store(generation(), Ordering::Relaxed);
    let generation = (slot.state.load(Ordering::Relaxed) >> 32) as u32 + 1;
    slot.state.store(u64::from(generation) << 32, Ordering::Release);
    let bits = (generation & GENERATION) as usize;
    Ok(std::ptr::without_provenance_mut(bits << INDEX_BITS | index))
}

/// A pinned slot.
struct Pin {
    slot: &'static Slot,
    index: usize,
    alone: bool,
}

impl Pin {
    fn new<C>(handle: *const C, name: &'static str, alone: bool) -> Result<Pin, Failure> {
        let bits = handle.addr();
        if bits == 0 {
            return Err(Failure::null(name));
        }
        let (index, generation) = (bits & ((1 << INDEX_BITS) - 1), bits >> INDEX_BITS);
        let stale = || Failure::handle(name);
        let slot = slot(index).ok_or_else(stale)?;
        let mut state = slot.state.load(Ordering::Acquire);
        loop {
            let (now, pins) = ((state >> 32) as u32, state as u32);
            if now % 2 == 0 || (now & GENERATION) as usize != generation {
                return Err(stale());
            }
            // checked before the pins, which may belong to threads that only exist in the parent
            if slot.born.load(Ordering::Relaxed) != crate::handle::generation() {
                return Err(forked(name));
            }
            let pinned = match (alone, pins) {
                (_, ALONE) => return Err(Failure::busy(name)),
                (true, 0) => ALONE,
                (true, _) => return Err(Failure::busy(name)),
                (false, n) if n == ALONE - 1 => return Err(Failure::busy(name)),
                (false, n) => n + 1,
            };
            let next = u64::from(now) << 32 | u64::from(pinned);
            match slot.state.compare_exchange_weak(state, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Ok(Pin { slot, index, alone }),
                Err(seen) => state = seen,
            }
        }
    }

    fn object(&self) -> *mut Option<Box<dyn Any + Send>> {
        self.slot.object.get()
    }

    /// A text of the object, NUL-terminated, valid for the object's lifetime.
    fn show(&self, text: &str) -> weft_str {
        let ended: Arc<str> = [text, "\0"].concat().into();
        let mut texts = self.slot.texts.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = match texts.get(&ended) {
            Some(kept) => kept.clone(),
            None => {
                texts.insert(ended.clone());
                ended
            }
        };
        weft_str { data: kept.as_ptr().cast(), length: text.len() }
    }
}

#[cold]
fn forked(name: &str) -> Failure {
    let why = "it was made before the process was forked; make another here".into();
    Error::Forked { what: name.into(), why }.into()
}

impl Drop for Pin {
    fn drop(&mut self) {
        // an exclusive pin is all ones in the lower half
        let pins = if self.alone { u64::from(ALONE) } else { 1 };
        self.slot.state.fetch_sub(pins, Ordering::Release);
    }
}

/// An object that other calls may use concurrently.
pub struct Shared<T> {
    pin: Pin,
    of: PhantomData<T>,
}

/// The object of a handle, for shared access.
pub fn share<T: Object + Sync>(handle: *const T::C) -> Result<Shared<T>, Failure> {
    let pin = Pin::new(handle, T::NAME, false)?;
    // SAFETY: pinned, so nobody writes to the slot; whether the object is a T is asked before it is used as one.
    let is = unsafe { &*pin.object() }.as_ref().is_some_and(|object| object.is::<T>());
    if is { Ok(Shared { pin, of: PhantomData }) } else { Err(Failure::handle(T::NAME)) }
}

impl<T> Shared<T> {
    /// A text of the object for C, valid until the object is freed.
    pub fn show(&self, text: &str) -> weft_str {
        self.pin.show(text)
    }
}

impl<T: Object + Sync> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: pinned, and a T, as `share` found; other calls have shared references at most.
        let object = unsafe { &*self.pin.object() }.as_ref().and_then(|object| object.downcast_ref::<T>());
        // SAFETY: `share` has asked.
        unsafe { object.unwrap_unchecked() }
    }
}

/// An object used exclusively.
pub struct Alone<T> {
    pin: Pin,
    of: PhantomData<T>,
}

/// The object of a handle, for exclusive access.
pub fn alone<T: Object>(handle: *const T::C) -> Result<Alone<T>, Failure> {
    let pin = Pin::new(handle, T::NAME, true)?;
    // SAFETY: pinned alone.
    let is = unsafe { &*pin.object() }.as_ref().is_some_and(|object| object.is::<T>());
    if is { Ok(Alone { pin, of: PhantomData }) } else { Err(Failure::handle(T::NAME)) }
}

impl<T> Alone<T> {
    /// A text of the object for C, valid until the object is freed.
    pub fn show(&self, text: &str) -> weft_str {
        self.pin.show(text)
    }
}

impl<T: Object> Deref for Alone<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: pinned alone, and a T, as `alone` found.
        let object = unsafe { &*self.pin.object() }.as_ref().and_then(|object| object.downcast_ref::<T>());
        // SAFETY: `alone` has asked.
        unsafe { object.unwrap_unchecked() }
    }
}

impl<T: Object> DerefMut for Alone<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `&mut self`.
        let object =
            unsafe { &mut *self.pin.object() }.as_mut().and_then(|object| object.downcast_mut::<T>());
        // SAFETY: `alone` has asked.
        unsafe { object.unwrap_unchecked() }
    }
}

/// Removes an object from the table: its handle becomes invalid. NULL, and a parent's handle in a forked child, are ignored.
pub fn free<T: Object>(handle: *mut T::C) -> Result<(), Failure> {
    if handle.is_null() {
        return Ok(());
    }
    let pin = match alone::<T>(handle) {
        Err(failure) if failure.status == crate::error::WEFT_STATUS_FORKED => return Ok(()),
        found => found?.pin,
    };
    // SAFETY: pinned alone.
    let object = unsafe { &mut *pin.object() }.take();
    std::mem::take(&mut *pin.slot.texts.lock().unwrap_or_else(PoisonError::into_inner));
    let (slot, index) = (pin.slot, pin.index);
    // the next generation releases the slot, not the end of the pin
    std::mem::forget(pin);
    let generation = (slot.state.load(Ordering::Relaxed) >> 32) as u32;
    let next = generation.wrapping_add(1);
    slot.state.store(u64::from(next) << 32, Ordering::Release);
    // a slot whose generations are exhausted is not reused
    if next & GENERATION != 0 {
        FREED.lock().unwrap_or_else(PoisonError::into_inner).push(index as u32);
    }
    // outside of all locks: dropping it may call the host's release functions
    drop(object);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct c_number;
    struct c_word;
    #[derive(Debug, PartialEq)]
    struct Number(u64);
    struct Word(#[allow(dead_code)] String);
    object!(Number, c_number);
    object!(Word, c_word);

    fn status<T>(outcome: Result<T, Failure>) -> u32 {
        outcome.err().map_or(0, |f| f.status)
    }

    #[test]
    fn a_handle_leads_to_its_object_until_it_is_freed() {
        let handle = put(Number(7)).ok().unwrap();
        assert_eq!(*share::<Number>(handle).ok().unwrap(), Number(7));
        alone::<Number>(handle).ok().unwrap().0 = 8;
        assert_eq!(share::<Number>(handle).ok().unwrap().0, 8);
        assert_eq!(status(free::<Number>(handle)), 0);
        assert_eq!(status(share::<Number>(handle)), crate::error::WEFT_STATUS_HANDLE);
        assert_eq!(status(free::<Number>(handle)), crate::error::WEFT_STATUS_HANDLE);
        // the slot is used again, the handle is not
        let next = put(Number(9)).ok().unwrap();
        assert_eq!(status(share::<Number>(handle)), crate::error::WEFT_STATUS_HANDLE);
        assert_eq!(status(free::<Number>(next)), 0);
        assert_eq!(status(free::<Number>(std::ptr::null_mut())), 0);
    }

    #[test]
    fn a_handle_of_another_type_is_refused_and_stays_whole() {
        let handle = put(Word("word".into())).ok().unwrap();
        assert_eq!(status(share::<Number>(handle.cast())), crate::error::WEFT_STATUS_HANDLE);
        assert_eq!(status(free::<Number>(handle.cast())), crate::error::WEFT_STATUS_HANDLE);
        assert_eq!(status(free::<Word>(handle)), 0);
    }

    #[test]
    fn objects_are_shared_by_many_or_had_alone_by_one() {
        let handle = put(Number(1)).ok().unwrap();
        let (a, b) = (share::<Number>(handle).ok().unwrap(), share::<Number>(handle).ok().unwrap());
        assert_eq!(status(alone::<Number>(handle)), crate::error::WEFT_STATUS_BUSY);
        assert_eq!(status(free::<Number>(handle)), crate::error::WEFT_STATUS_BUSY);
        drop((a, b));
        let one = alone::<Number>(handle).ok().unwrap();
        assert_eq!(status(share::<Number>(handle)), crate::error::WEFT_STATUS_BUSY);
        drop(one);
        assert_eq!(status(free::<Number>(handle)), 0);
    }

    #[test]
    fn forged_handles_are_refused() {
        let handle = put(Number(3)).ok().unwrap();
        for bits in [1usize, 2, 0xdead_beef, usize::MAX, usize::MAX - 1, handle.addr() ^ (1 << INDEX_BITS)] {
            let forged = std::ptr::without_provenance_mut::<c_number>(bits);
            assert_eq!(status(share::<Number>(forged)), crate::error::WEFT_STATUS_HANDLE, "{bits:#x}");
        }
        assert_eq!(status(free::<Number>(handle)), 0);
    }

    #[test]
    fn places_fill_chunk_after_chunk_without_a_hole() {
        let mut next = (0, 0);
        for index in 0..FIRST * 31 {
            assert_eq!(place(index), next);
            next = if next.1 + 1 == FIRST << next.0 { (next.0 + 1, 0) } else { (next.0, next.1 + 1) };
        }
    }

    #[test]
    fn threads_that_use_and_free_one_handle_meet_statuses_only() {
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        for _ in 0..rounds {
            let handle = put(Number(5)).ok().unwrap().addr();
            let freed: u32 = std::thread::scope(|s| {
                let work = move || {
                    let handle = std::ptr::without_provenance_mut::<c_number>(handle);
                    for _ in 0..3 {
                        if let Ok(n) = share::<Number>(handle) {
                            assert_eq!(n.0, 5);
                        }
                    }
                    u32::from(status(free::<Number>(handle)) == 0)
                };
                let threads: Vec<_> = (0..3).map(|_| s.spawn(work)).collect();
                threads.into_iter().map(|t| t.join().unwrap()).sum()
            });
            assert!(freed <= 1, "freed {freed} times");
            if freed == 0 {
                // each met another's use
                assert_eq!(status(free::<Number>(std::ptr::without_provenance_mut(handle))), 0);
            }
        }
    }
}
