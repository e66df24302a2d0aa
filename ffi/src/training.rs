//! Training: optimizers, the loop over batches, gradients. A session can be trained if its graph was compiled with `training`.

use crate::arguments::*;
use crate::compile::{weft_cancel, wish};
use crate::error::*;
use crate::guard::*;
use crate::handle;
use crate::session::{copy, weft_session};
use crate::weights::weft_weights;
use engine::optimizer::{Optimizer, ParameterGroup, RULES};
use engine::session::{Batches, Session};
use engine::tensor::{Tensor, Weights};
use std::ffi::{c_char, c_void};

/// An optimizer: one of WEFT_OPTIMIZER_…. There are more, by name: weft_session_set_optimizer_named.
pub type weft_optimizer_kind = u32;

/// Stochastic gradient descent: p -= learning_rate * g.
pub const WEFT_OPTIMIZER_SGD: weft_optimizer_kind = 0;
/// Adam (arXiv:1412.6980, algorithm 1).
pub const WEFT_OPTIMIZER_ADAM: weft_optimizer_kind = 1;

/// An optimizer. Start from WEFT_OPTIMIZER_INIT: Adam with its authors' constants.
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

/// Sets the optimizer: every later step updates the parameters. Optimizer states and step count are reset. WEFT_STATUS_ARGUMENT
/// for settings that are not finite or outside their range: the previous optimizer then stays.
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

/// A setting of an optimizer. Frozen: this structure stays as it is, and has no struct_size.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_setting {
    /// Its name: "beta1".
    pub name: weft_str,
    /// Its value.
    pub value: f32,
    /// 0.
    pub reserved: u32,
}

/// Parameters with settings of their own. Frozen: this structure stays as it is, and has no struct_size.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_parameter_group {
    /// The parameters' names.
    pub names: *const weft_str,
    /// Their number.
    pub names_count: usize,
    /// Factor on their learning rate; 1 for no change.
    pub rate: f32,
    /// Their weight decay; NaN for the optimizer's own.
    pub weight_decay: f32,
}

/// The names of all optimizers, for weft_session_set_optimizer_named, one per line: "sgd", "adam", "adamw", "laprop", "lion",
/// "adafactor". Freed with weft_bytes_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_optimizer_names(
    names: *mut *mut weft_bytes,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_optimizer_names", err, || {
        let place = out(names, "names")?;
        let all: String = RULES.iter().map(|rule| [rule.name, "\n"].concat()).collect();
        give(place, BytesObject::new(all))
    })
}

/// Sets the optimizer with that name: every later step updates the parameters. Settings have their defaults unless given; they
/// are named as in torch.optim where that has them ("momentum", "nesterov", "weight_decay", "beta1", "beta2", "epsilon", …).
/// Parameters of a group have their own learning rate factor or weight decay. Optimizer states and step count are reset.
/// WEFT_STATUS_ARGUMENT for values outside their range, WEFT_STATUS_UNKNOWN_NAME for an unknown name, WEFT_STATUS_DEVICE for a
/// rule that the device cannot run: the previous optimizer then stays. `settings` and `groups` may be NULL if their counts are
/// 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_set_optimizer_named(
    session: *mut weft_session,
    optimizer_name: *const c_char,
    name_length: usize,
    learning_rate: f32,
    settings: *const weft_setting,
    settings_count: usize,
    groups: *const weft_parameter_group,
    groups_count: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_set_optimizer_named", err, || {
        // SAFETY: the preamble's promise.
        let (rule, settings, groups) = unsafe {
            (
                name(optimizer_name, name_length, "name")?,
                array(settings, settings_count, "settings")?,
                array(groups, groups_count, "groups")?,
            )
        };
        let mut optimizer = Optimizer::of(Optimizer::named(rule)?.rule(), learning_rate);
        for s in settings {
            if s.reserved != 0 {
                return Err(Failure::argument("reserved", 0, s.reserved));
            }
            // SAFETY: as above.
            optimizer = optimizer.with(unsafe { name(s.name.data, s.name.length, "setting") }?, s.value)?;
        }
        for g in groups {
            // SAFETY: as above.
            let names = unsafe { array(g.names, g.names_count, "names") }?;
            // SAFETY: as above.
            let read = |n: &weft_str| unsafe { name(n.data, n.length, "parameter") };
            let names = names.iter().map(read).collect::<Outcome<Vec<_>>>()?;
            let group = ParameterGroup::new(names).rate(g.rate);
            let own = g.weight_decay.is_nan();
            optimizer = optimizer.group(if own { group } else { group.weight_decay(g.weight_decay) });
        }
        Ok(handle::alone::<Session>(session)?.set_optimizer(optimizer)?)
    })
}

/// The optimizer's step count; refused steps do not count. Waits for pending steps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_optimizer_steps(
    session: *const weft_session,
    steps: *mut u64,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_optimizer_steps", err, || {
        let place = out(steps, "steps")?;
        place.set(handle::alone::<Session>(session)?.optimizer_steps()?);
        Ok(())
    })
}

/// Copies the named state ("exp_avg") of a parameter to the caller's memory, whose number of elements must match. Waits for
/// pending steps.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_read_optimizer_state(
    session: *const weft_session,
    state_name: *const c_char,
    name_length: usize,
    parameter_name: *const c_char,
    parameter_length: usize,
    elements: *mut f32,
    count: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_read_optimizer_state", err, || {
        // SAFETY: the preamble's promise.
        let (state, parameter, elements) = unsafe {
            (
                name(state_name, name_length, "name")?,
                name(parameter_name, parameter_length, "parameter")?,
                array_mut(elements, count, "elements")?,
            )
        };
        let found = handle::alone::<Session>(session)?.read_optimizer_state(state, parameter)?;
        copy(&found.to_vec::<f32>()?, elements, state)
    })
}

/// Sets the elements of the named state of a parameter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_write_optimizer_state(
    session: *mut weft_session,
    state_name: *const c_char,
    name_length: usize,
    parameter_name: *const c_char,
    parameter_length: usize,
    elements: *const f32,
    count: usize,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_write_optimizer_state", err, || {
        // SAFETY: the preamble's promise.
        let (state, parameter, elements) = unsafe {
            (
                name(state_name, name_length, "name")?,
                name(parameter_name, parameter_length, "parameter")?,
                array(elements, count, "elements")?,
            )
        };
        let mut session = handle::alone::<Session>(session)?;
        let all = session.optimizer_states();
        let shape = all.iter().find(|s| s.name == state && s.parameter == parameter).map(|s| &s.shape);
        let fits = shape.filter(|s| s.iter().product::<usize>() == count);
        // the engine refuses a wrong number, with its own message
        let shape = fits.cloned().unwrap_or_else(|| vec![count]);
        Ok(session.write_optimizer_state(state, parameter, &Tensor::borrowed(shape, elements)?)?)
    })
}

/// All data of the optimizer for saving: its states, named "OPTIMIZER/STATE/PARAMETER", and its step count, an i64 named
/// "OPTIMIZER/step". With these and the parameters another process can resume training exactly. Freed with weft_weights_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_save_optimizer(
    session: *const weft_session,
    states: *mut *mut weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_save_optimizer", err, || {
        let place = out(states, "states")?;
        let saved = handle::alone::<Session>(session)?.save_optimizer()?;
        give(place, saved)
    })
}

/// Restores the optimizer, which must have been set, from weft_session_save_optimizer's result for the same optimizer and
/// parameters. An input named "step_counter" continues counting from there. Nothing is changed if a tensor is missing or of
/// another type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn weft_session_restore_optimizer(
    session: *mut weft_session,
    states: *const weft_weights,
    err: *mut *mut weft_error,
) -> weft_status {
    guard("weft_session_restore_optimizer", err, || {
        let states = handle::share::<Weights>(states)?;
        Ok(handle::alone::<Session>(session)?.restore_optimizer(&states)?)
    })
}

/// Changes the learning rate only. WEFT_STATUS_ARGUMENT for a rate that is not finite or negative.
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

/// Copies the gradient of the loss with respect to a trained parameter, of the last step, to the caller's memory, whose number
/// of elements must match.
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

/// One input's elements for all batches, concatenated: the caller's memory, used during the call.
/// Frozen: this structure stays as it is, and has no struct_size.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_batches {
    /// The input's name.
    pub name: weft_str,
    /// The elements.
    pub data: *const c_void,
    /// Their number of bytes: whole batches, the same number for every input.
    pub data_bytes: usize,
    /// The input's dtype.
    pub dtype: weft_dtype,
    /// 0.
    pub reserved: u32,
}

/// Receives the number of steps done, the total, and the loss, after each step, on the training thread, which must not use the
/// session in it.
pub type weft_step_fn =
    Option<unsafe extern "C" fn(user_data: *mut c_void, done: usize, all: usize, loss: f32)>;

/// Options of training. Start from WEFT_TRAIN_OPTIONS_INIT.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct weft_train_options {
    /// sizeof the structure.
    pub struct_size: usize,
    /// Number of passes over all batches.
    pub epochs: usize,
    /// Receives progress; may be NULL.
    pub progress: weft_step_fn,
    /// Passed to `progress`.
    pub progress_user_data: *mut c_void,
    /// Cancels the call between two steps, with WEFT_STATUS_CANCELLED; may be NULL. Parameters then have the values after the
    /// previous steps.
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

/// Runs a step for each batch of some inputs; the others keep their data. Set an optimizer before. `options` may be NULL. Ends
/// at a batch that is refused (see weft_session_step): parameters then have the values after the previous steps. Save the
/// result with weft_session_parameters, weft_parameters_to_weights and weft_weights_save.
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
