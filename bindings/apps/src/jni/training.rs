//! The training loop: the engine's, with its reports to a Kotlin object.

use super::buffers::direct;
use super::{call, element_type, session, strings};
use crate::error::Result;
use crate::owned::pointer;
use abi::shared::{self, Failure, Wish};
use engine::session::Batches;
use jni::objects::{JByteBuffer, JClass, JIntArray, JLongArray, JObject, JObjectArray, JString};
use jni::sys::{jint, jlong};
use jni::{EnvUnowned, JValue, jni_sig, jni_str};

/// Steps through batches. Of each input: its name, its dtype, its buffer, and three numbers: the buffer's unit, offset, bytes.
/// `listener.step(done, all, loss)` is called after each step, on this thread; what it throws ends the training.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_train<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    names: JObjectArray<'local, JString<'local>>,
    dtypes: JIntArray<'local>,
    buffers: JObjectArray<'local, JObject<'local>>,
    places: JLongArray<'local>,
    epochs: jint,
    cancel: jlong,
    listener: JObject<'local>,
) {
    call(env, &class, "session_train", |env| {
        let names = strings(env, &names)?;
        let mut numbers = vec![0; names.len()];
        dtypes.get_region(env, 0, &mut numbers)?;
        let mut at = vec![0; names.len() * 3];
        places.get_region(env, 0, &mut at)?;
        let mut data = vec![];
        for (i, name) in names.iter().enumerate() {
            let buffer = buffers.get_element(env, i)?;
            // SAFETY: only asked for its address, which any buffer that is none refuses.
            let buffer = unsafe { JByteBuffer::from_raw(env, buffer.into_raw()) };
            let (start, count) = direct(env, &buffer, at[3 * i] as jint, at[3 * i + 1], at[3 * i + 2])?;
            // SAFETY: the array of buffers is reachable during the call.
            let bytes = unsafe { std::slice::from_raw_parts(start, count) };
            data.push(Batches { name, dtype: element_type(numbers[i])?, bytes });
        }
        let wish = shared::share::<Wish>(pointer::<Wish>(cancel))?.0.clone();
        let epochs = usize::try_from(epochs).map_err(|_| Failure::argument("epochs", "0 or more", epochs))?;
        let mut broken: Result<()> = Ok(());
        let mut see = |done: usize, all: usize, loss: f32| {
            let report = [JValue::Long(done as jlong), JValue::Long(all as jlong), JValue::Float(loss)];
            if let Err(e) = env.call_method(&listener, jni_str!("step"), jni_sig!("(JJF)V"), &report) {
                broken = Err(e.into());
                wish.cancel();
            }
        };
        let done = session(handle)?.train(&data, epochs, &wish, &mut see);
        broken?;
        Ok(done?)
    })
}
