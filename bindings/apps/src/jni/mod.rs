//! Kotlin's data plane: the native methods of `dev.weft.internal.Jni`. Objects are named by their handles, ports by their index.
//! Buffers are direct; that they have the machine's byte order is checked in Kotlin, where it is known.
#![allow(non_snake_case)] // Java's names of native methods

mod arrays;
mod buffers;
mod training;

use crate::error::{Result, WeftError};
use crate::owned::{Handle, pointer};
use abi::shared::{self, Alone, Failure, caught, dtype};
use engine::models::Encoder;
use engine::session::{OutputIndex, Session};
use engine::tensor::DType;
use jni::errors::ThrowRuntimeExAndDefault;
use jni::objects::{JClass, JFloatArray, JObject, JObjectArray, JString, JThrowable};
use jni::sys::{jfloat, jint, jlong};
use jni::{Env, EnvUnowned, JValue, jni_sig, jni_str};

impl From<jni::errors::Error> for WeftError {
    fn from(e: jni::errors::Error) -> WeftError {
        WeftError::new(900, format!("internal error (please report it): JNI: {e}"))
    }
}

/// Runs a native method's inside. What fails is thrown, as the exception that `Jni.failure` makes of it.
fn call<'local, T: Default>(
    mut env: EnvUnowned<'local>,
    class: &JClass<'local>,
    name: &'static str,
    inside: impl FnOnce(&mut Env<'local>) -> Result<T>,
) -> T {
    let outcome = env.with_env(|env| -> jni::errors::Result<T> {
        match caught(name, || inside(env)) {
            Ok(value) => Ok(value),
            Err(error) => {
                throw(env, class, &error)?;
                Ok(T::default())
            }
        }
    });
    outcome.resolve::<ThrowRuntimeExAndDefault>()
}

#[cold]
fn throw<'local>(
    env: &mut Env<'local>,
    class: &JClass<'local>,
    error: &WeftError,
) -> jni::errors::Result<()> {
    // what the app's own code threw, called from here, goes on as it is
    if env.exception_check() {
        return Ok(());
    }
    let details = error.details();
    let message = env.new_string(&details.message)?;
    let mut text = |text: &Option<String>| -> jni::errors::Result<JObject<'local>> {
        match text {
            Some(text) => Ok(env.new_string(text)?.into()),
            None => Ok(JObject::null()),
        }
    };
    let (wanted, came, node) = (text(&details.wanted)?, text(&details.came)?, text(&details.node)?);
    let made = env.call_static_method(
        class,
        jni_str!("failure"),
        jni_sig!(
            "(ILjava/lang/String;Ljava/lang/String;Ljava/lang/String;Ljava/lang/String;)Ljava/lang/Throwable;"
        ),
        &[
            JValue::Int(details.code),
            JValue::Object(&message),
            JValue::Object(&wanted),
            JValue::Object(&came),
            JValue::Object(&node),
        ],
    )?;
    let made = env.cast_local::<JThrowable>(made.l()?)?;
    match env.throw(made) {
        Ok(()) | Err(jni::errors::Error::JavaException) => Ok(()),
        Err(other) => Err(other),
    }
}

/// The session of a handle, alone.
fn session(handle: Handle) -> Result<Alone<Session>> {
    Ok(shared::alone::<Session>(pointer::<Session>(handle))?)
}

/// A dtype by its number.
fn element_type(number: jint) -> Result<DType> {
    Ok(dtype(number as u32)?)
}

/// The name of an input, by its index.
fn input_name(session: &Session, index: jint) -> Result<String> {
    let inputs = session.inputs();
    let found = usize::try_from(index).ok().and_then(|at| inputs.get(at));
    let wanted = || Failure::argument("input", format!("an index below {}", inputs.len()), index);
    Ok(found.ok_or_else(wanted)?.name.clone())
}

/// The index of an output.
fn output_index(index: jint) -> OutputIndex {
    OutputIndex(usize::try_from(index).unwrap_or(usize::MAX))
}

/// The version of this library, for the check at load. No other function is called before.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_version<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
) -> JString<'local> {
    call(env, &class, "version", |env| Ok(env.new_string(crate::version::VERSION)?))
}

/// The number of this library's interface, for the check at load.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_interfaceNumber<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
) -> jint {
    call(env, &class, "interface_number", |_| Ok(crate::version::INTERFACE as jint))
}

/// Runs a session's graph once.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_step<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
) {
    call(env, &class, "session_step", |_| Ok(session(handle)?.step()?))
}

/// Returns when every step of a session is done.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_await<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
) {
    call(env, &class, "session_wait", |_| Ok(session(handle)?.wait()?))
}

/// The loss of the last step.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_loss<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
) -> jfloat {
    call(env, &class, "session_loss", |_| Ok(session(handle)?.loss()?))
}

/// Embeds texts: one embedding after the other.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_embed<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    texts: JObjectArray<'local, JString<'local>>,
) -> JFloatArray<'local> {
    call(env, &class, "encoder_embed", |env| {
        let given = strings(env, &texts)?;
        let encoder = shared::share::<Encoder>(pointer::<Encoder>(handle))?;
        let found = encoder.embed(&given)?;
        let size = encoder.hidden_size();
        let all = env.new_float_array(found.len() * size)?;
        for (at, embedding) in found.iter().enumerate() {
            all.set_region(env, (at * size) as jint, &embedding.embedding)?;
        }
        Ok(all)
    })
}

/// The texts of an array.
fn strings<'local>(
    env: &mut Env<'local>,
    array: &JObjectArray<'local, JString<'local>>,
) -> Result<Vec<String>> {
    let mut all = Vec::with_capacity(array.len(env)?);
    for at in 0..array.len(env)? {
        let text = array.get_element(env, at)?;
        if text.is_null() {
            return Err(Failure::null("text").into());
        }
        all.push(text.try_to_string(env)?);
        // a frame of native methods has room for few references
        env.delete_local_ref(text);
    }
    Ok(all)
}
