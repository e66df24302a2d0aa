//! Training: optimizers, the loop over batches, gradients. A session trains if its graph was compiled with `training`.

use crate::arguments::*;
use crate::compile::{weft_cancel, wish};
use crate::error::*;
use crate::guard::*;
use crate::handle;
use crate::session::{copy, weft_session};
use engine::session::{Batches, Optimizer, Session};
use std::ffi::{c_char, c_void};

/// A rule by which training changes parameters: one of WEFT_OPTIMIZER_….
pub type weft_optimizer_kind = u32;

/// Stochastic gradient descent: p -= learning_rate * g.
pub const WEFT_OPTIMIZER_SGD: weft_optimizer_kind = 0;
/// Adam (arXiv:1412.6980, algorithm 1).
pub const WEFT_OPTIMIZER_ADAM: weft_optimizer_kind = 1;

/// An optimizer. Begin with WEFT_OPTIMIZER_INIT: Adam with its authors' constants.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_optimizer {
    /// sizeof the structure.
    pub struct_size: usize,
    /// The rule.
    pub kind: weft_optimizer_kind,
    /// Learning rate, 0 or more.
    pub learning_rate: f32,
    /// Adam: decay of the mean of gradients, 0 or more and below 1.
    pub beta1: f32,
    /// Adam: decay of the mean of squared gradients, 0 or more and below 1.
    pub beta2: f32,
    /// Adam: added to the denominator, 0 or more.
    pub epsilon: f32,
    /// 0.
    pub reserved: u32,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_optimizer {
    const DEFAULT: Self = weft_optimizer {
        struct_size: size_of::<Self>(),
        kind: WEFT_OPTIMIZER_ADAM,
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        epsilon: 1e-8,
        reserved: 0,
    };
}

/// Makes every later step change the parameters. Adam begins anew. WEFT_STATUS_ARGUMENT for settings that are no finite numbers
/// or outside their range: the optimizer is then what it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_set_optimizer(
    session: *mut weft_session,
    optimizer: *const weft_optimizer,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_set_optimizer", err, || {
        // SAFETY: the preamble's promise.
        let o = unsafe { structure(optimizer, "optimizer") }?;
        if o.reserved != 0 {
            return Err(Failure::argument("reserved", 0, o.reserved));
        }
        let optimizer = match o.kind {
            WEFT_OPTIMIZER_SGD => Optimizer::sgd(o.learning_rate),
            WEFT_OPTIMIZER_ADAM => {
                let settings = [("beta1", o.beta1), ("beta2", o.beta2), ("epsilon", o.epsilon)];
                let with = |adam: Optimizer, (name, value)| adam.with(name, value);
                settings.into_iter().try_fold(Optimizer::adam(o.learning_rate), with)?
            }
            other => return Err(Failure::argument("kind", "one of WEFT_OPTIMIZER_…", other)),
        };
        Ok(handle::alone::<Session>(session)?.set_optimizer(optimizer)?)
    })
}

/// Changes the learning rate and nothing else. WEFT_STATUS_ARGUMENT for one that is not finite or below 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_set_learning_rate(
    session: *mut weft_session,
    learning_rate: f32,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_set_learning_rate", err, || {
        Ok(handle::alone::<Session>(session)?.set_learning_rate(learning_rate)?)
    })
}

/// The loss of the last step. Waits for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_loss(
    session: *const weft_session,
    loss: *mut f32,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_loss", err, || {
        let place = out(loss, "loss")?;
        place.set(handle::alone::<Session>(session)?.loss()?);
        Ok(())
    })
}

/// Copies the gradient of the loss by a trained parameter, of the last step, into the caller's memory, of exactly that many
/// elements.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_read_gradient(
    session: *const weft_session,
    parameter_name: *const c_char,
    name_length: usize,
    elements: *mut f32,
    count: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_read_gradient", err, || {
        // SAFETY: the preamble's promise.
        let (name, elements) =
            unsafe { (name(parameter_name, name_length, "name")?, array_mut(elements, count, "elements")?) };
        let found = handle::alone::<Session>(session)?.read_gradient(name)?;
        copy(&found, elements, name)
    })
}

/// One input's elements of every batch, one batch after the other: the caller's memory, during the call. Frozen: this structure
/// stays as it is, and has no struct_size.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_batches {
    /// The input's name.
    pub name: weft_str,
    /// The elements.
    pub data: *const c_void,
    /// Their bytes: whole batches, as many for every input.
    pub data_bytes: usize,
    /// The input's dtype.
    pub dtype: weft_dtype,
    /// 0.
    pub reserved: u32,
}

/// Gets the number of steps done, of how many, and the loss, after each step, on the thread that trains, which must not use the
/// session in it.
pub type weft_step_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, done: usize, all: usize, loss: f32)>;

/// How to train. Begin with WEFT_TRAIN_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_train_options {
    /// sizeof the structure.
    pub struct_size: usize,
    /// How often to step through all batches.
    pub epochs: usize,
    /// Follows the work; NULL for nobody.
    pub progress: weft_step_fn,
    /// What `progress` gets.
    pub progress_user_data: *mut c_void,
    /// Ends the work between two steps, with WEFT_STATUS_CANCELLED; NULL for never. Parameters are then as the steps left them.
    pub cancel: *const weft_cancel,
}
// SAFETY: plain data, the size first.
unsafe impl Versioned for weft_train_options {
    const DEFAULT: Self = weft_train_options {
        struct_size: size_of::<Self>(),
        epochs: 1,
        progress: None,
        progress_user_data: std::ptr::null_mut(),
        cancel: std::ptr::null(),
    };
}

/// Steps through batches of some inputs; the others keep what they were given. Set an optimizer before. `options` may be NULL.
/// Ends at a batch that is refused (see weft_session_step): parameters are then as the steps before left them.
/// Save the result with weft_session_parameters, weft_parameters_to_weights and weft_weights_save.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_train(
    session: *mut weft_session,
    batches: *const weft_batches,
    batches_count: usize,
    options: *const weft_train_options,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_train", err, || {
        // SAFETY: the preamble's promise.
        let (batches, o) = unsafe {
            let o =
                if options.is_null() { weft_train_options::DEFAULT } else { structure(options, "options")? };
            (array(batches, batches_count, "batches")?, o)
        };
        let read = |b: &weft_batches| -> Outcome<Batches<'_>> {
            // SAFETY: as above.
            let (name, bytes) =
                unsafe { (name(b.name.data, b.name.length, "name")?, bytes(b.data, b.data_bytes, "data")?) };
            Ok(Batches { name, dtype: dtype(b.dtype)?, bytes })
        };
        let data = batches.iter().map(read).collect::<Outcome<Vec<_>>>()?;
        let wish = wish(o.cancel)?;
        let mut see = |done, all, loss| {
            if let Some(progress) = o.progress {
                // SAFETY: the caller gave the function for this, with its data.
                unsafe { progress(o.progress_user_data, done, all, loss) }
            }
        };
        let mut session = handle::alone::<Session>(session)?;
        Ok(session.train(&data, o.epochs, &wish, &mut see)?)
    })
}
