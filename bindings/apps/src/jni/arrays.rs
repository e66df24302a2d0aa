//! Tensors in Java's arrays: copied exactly once, between the array where it lies in the heap and the session.

use super::{call, element_type, input_name, output_index, session};
use crate::error::Result;
use jni::objects::TypeArray;
use jni::objects::{
    JByteArray, JClass, JFloatArray, JIntArray, JLongArray, JPrimitiveArray, JString, ReleaseMode,
};
use jni::sys::{jbyte, jfloat, jint, jlong};
use jni::{Env, EnvUnowned};

/// Copies an array into an input.
fn set<'local, T: TypeArray>(
    env: &mut Env<'local>,
    handle: jlong,
    index: jint,
    dtype: jint,
    array: &JPrimitiveArray<'local, T>,
) -> Result<()> {
    let dtype = element_type(dtype)?;
    let mut session = session(handle)?;
    let name = input_name(&session, index)?;
    // SAFETY: until they are released, nothing calls the JVM; copying into the session is short.
    let elements = unsafe { array.get_elements_critical(env, ReleaseMode::NoCopyBack) }?;
    let bytes = size_of_val(&*elements);
    // SAFETY: plain numbers.
    let data = unsafe { std::slice::from_raw_parts(elements.as_ptr().cast::<u8>(), bytes) };
    let done = session.set_input_bytes(&name, dtype, data);
    drop(elements);
    Ok(done?)
}

/// Copies an output into an array.
fn read<'local, T: TypeArray>(
    env: &mut Env<'local>,
    handle: jlong,
    index: jint,
    dtype: jint,
    array: &JPrimitiveArray<'local, T>,
) -> Result<()> {
    let dtype = element_type(dtype)?;
    let mut session = session(handle)?;
    // what may take long comes before the array is taken from the collector
    session.wait()?;
    // SAFETY: as above.
    let elements = unsafe { array.get_elements_critical(env, ReleaseMode::CopyBack) }?;
    let bytes = size_of_val(&*elements);
    // SAFETY: plain numbers; the array is ours until they are released.
    let into = unsafe { std::slice::from_raw_parts_mut(elements.as_ptr().cast::<u8>(), bytes) };
    let done = session.read_output_bytes(output_index(index), dtype, into);
    drop(elements);
    Ok(done?)
}

/// The native methods for one type of array.
macro_rules! arrays {
    ($( $array:ident, $set:ident, $read:ident; )*) => { $(
        /// Gives an input its elements.
        #[unsafe(no_mangle)]
        extern "system" fn $set<'local>(
            env: EnvUnowned<'local>,
            class: JClass<'local>,
            handle: jlong,
            index: jint,
            dtype: jint,
            array: $array<'local>,
        ) {
            call(env, &class, "session_set_input", |env| set(env, handle, index, dtype, &array))
        }

        /// Copies an output's elements. Waits for the step.
        #[unsafe(no_mangle)]
        extern "system" fn $read<'local>(
            env: EnvUnowned<'local>,
            class: JClass<'local>,
            handle: jlong,
            index: jint,
            dtype: jint,
            array: $array<'local>,
        ) {
            call(env, &class, "session_read_output", |env| read(env, handle, index, dtype, &array))
        }
    )* };
}

arrays! {
    JFloatArray, Java_dev_weft_internal_Jni_setInputFloats, Java_dev_weft_internal_Jni_readOutputFloats;
    JIntArray, Java_dev_weft_internal_Jni_setInputInts, Java_dev_weft_internal_Jni_readOutputInts;
    JLongArray, Java_dev_weft_internal_Jni_setInputLongs, Java_dev_weft_internal_Jni_readOutputLongs;
    JByteArray, Java_dev_weft_internal_Jni_setInputBytes, Java_dev_weft_internal_Jni_readOutputBytes;
}

/// Gives an f32 parameter other elements.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_setParameter<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    name: JString<'local>,
    array: JFloatArray<'local>,
) {
    call(env, &class, "session_set_parameter", |env| {
        let name = name.try_to_string(env)?;
        let mut elements = vec![0.0; array.len(env)?];
        array.get_region(env, 0, &mut elements)?;
        Ok(session(handle)?.set_parameter(&name, &elements)?)
    })
}

/// The elements of an f32 parameter.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_readParameter<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    name: JString<'local>,
) -> JFloatArray<'local> {
    call(env, &class, "session_read_parameter", |env| {
        let name = name.try_to_string(env)?;
        let found = session(handle)?.read_parameter::<f32>(&name)?;
        let array = env.new_float_array(found.len())?;
        array.set_region(env, 0, &found)?;
        Ok(array)
    })
}

const _: () = {
    // what the arrays hold are the engine's elements
    assert!(size_of::<jfloat>() == 4 && size_of::<jint>() == 4);
    assert!(size_of::<jlong>() == 8 && size_of::<jbyte>() == 1);
};
