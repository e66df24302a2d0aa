//! An object of the table of handles that a foreign object owns: freed when that is closed, or collected unclosed.

use crate::error::Result;
use abi::shared::{Alone, Object, Shared, WEFT_STATUS_HANDLE, alone, free, put, share};
use std::marker::PhantomData;

/// A handle of the table, as a number that Kotlin's `Long` and Swift's `Int64` hold.
pub type Handle = i64;

/// The pointer that the table knows a handle by.
pub fn pointer<T: Object>(handle: Handle) -> *mut T::C {
    std::ptr::without_provenance_mut(handle as usize)
}

/// An object of the table.
pub struct Owned<T: Object> {
    handle: Handle,
    of: PhantomData<fn() -> T>,
}

impl<T: Object> Owned<T> {
    /// Puts an object into the table.
    pub fn new(object: T) -> Result<Owned<T>> {
        Ok(Owned { handle: put(object)?.addr() as Handle, of: PhantomData })
    }

    /// Its handle, for the other interfaces.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// The object, for reading.
    pub fn share(&self) -> Result<Shared<T>>
    where
        T: Sync,
    {
        Ok(share::<T>(pointer::<T>(self.handle))?)
    }

    /// The object, while no other call uses it.
    pub fn alone(&self) -> Result<Alone<T>> {
        Ok(alone::<T>(pointer::<T>(self.handle))?)
    }

    /// Frees the object; does nothing if that was done before.
    pub fn close(&self) -> Result<()> {
        match free::<T>(pointer::<T>(self.handle)) {
            Err(failure) if failure.status != WEFT_STATUS_HANDLE => Err(failure.into()),
            _ => Ok(()),
        }
    }
}

impl<T: Object> Drop for Owned<T> {
    fn drop(&mut self) {
        // a call that still uses the object, of another interface, keeps it: nobody could free it afterwards
        let _ = self.close();
    }
}
