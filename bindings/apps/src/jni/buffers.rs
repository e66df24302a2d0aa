//! Tensors in direct buffers: read and written where they lie, or lent.

use super::{call, element_type, input_name, output_index, session};
use crate::error::Result;
use crate::graph::build;
use crate::owned::pointer;
use crate::types::sizes;
use abi::shared::{self, Alone, Failure};
use engine::graph::Graph;
use engine::session::Session;
use engine::tensor::{Bytes, Tensor, Weights};
use jni::objects::{JByteBuffer, JClass, JLongArray, JString};
use jni::sys::{jint, jlong};
use jni::{Env, EnvUnowned};
use std::sync::Arc;

/// The memory of a direct buffer from `offset` on, `bytes` long; `unit` is the bytes of the buffer's elements.
pub fn direct(
    env: &Env<'_>,
    buffer: &JByteBuffer<'_>,
    unit: jint,
    offset: jlong,
    bytes: jlong,
) -> Result<(*mut u8, usize)> {
    if buffer.is_null() {
        return Err(Failure::null("buffer").into());
    }
    let (Ok(start), Ok(capacity)) =
        (env.get_direct_buffer_address(buffer), env.get_direct_buffer_capacity(buffer))
    else {
        return Err(Failure::argument("buffer", "a direct buffer", "one in the heap").into());
    };
    let capacity = capacity.saturating_mul(unit.max(1) as usize);
    let range = usize::try_from(offset).ok().zip(usize::try_from(bytes).ok());
    let inside = range.filter(|(from, count)| from.checked_add(*count).is_some_and(|end| end <= capacity));
    let Some((from, count)) = inside else {
        let wanted = format!("a part of its {capacity} bytes");
        return Err(Failure::argument("buffer", wanted, format!("{bytes} bytes from {offset} on")).into());
    };
    // SAFETY: inside of the buffer.
    Ok((unsafe { start.add(from) }, count))
}

/// A shape.
fn sizes_of(env: &mut Env<'_>, shape: &JLongArray<'_>) -> Result<Vec<usize>> {
    let mut given = vec![0; shape.len(env)?];
    shape.get_region(env, 0, &mut given)?;
    sizes(&given)
}

/// Gives an input its elements, copied from a buffer.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_setInput<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    index: jint,
    dtype: jint,
    buffer: JByteBuffer<'local>,
    unit: jint,
    offset: jlong,
    bytes: jlong,
) {
    call(env, &class, "session_set_input", |env| {
        let (start, count) = direct(env, &buffer, unit, offset, bytes)?;
        // SAFETY: the buffer is reachable during the call; that nobody writes to it meanwhile is the method's rule.
        let data = unsafe { std::slice::from_raw_parts(start, count) };
        let mut session = session(handle)?;
        let name = input_name(&session, index)?;
        Ok(session.set_input_bytes(&name, element_type(dtype)?, data)?)
    })
}

/// Lets each step read an input where it lies, in a buffer that is kept until the input is given otherwise.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_borrowInput<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    index: jint,
    dtype: jint,
    buffer: JByteBuffer<'local>,
    unit: jint,
    offset: jlong,
    bytes: jlong,
) {
    call(env, &class, "session_borrow_input", |env| {
        let (start, count) = direct(env, &buffer, unit, offset, bytes)?;
        let kept = Arc::new(env.new_global_ref(&buffer)?);
        // SAFETY: the reference keeps the buffer's memory; the method's rule says when it may be written.
        let data = unsafe { Bytes::from_raw(start, count, kept) };
        let mut session = session(handle)?;
        let name = input_name(&session, index)?;
        Ok(session.borrow_input(&name, element_type(dtype)?, &data)?)
    })
}

/// Copies an output's elements into a buffer. Waits for the step.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_readOutput<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    index: jint,
    dtype: jint,
    buffer: JByteBuffer<'local>,
    unit: jint,
    offset: jlong,
    bytes: jlong,
) {
    call(env, &class, "session_read_output", |env| {
        let (start, count) = direct(env, &buffer, unit, offset, bytes)?;
        // SAFETY: as above; and that nobody else uses it meanwhile is the method's rule.
        let into = unsafe { std::slice::from_raw_parts_mut(start, count) };
        Ok(session(handle)?.read_output_bytes(output_index(index), element_type(dtype)?, into)?)
    })
}

/// Uses a session alone until `endLending`: other calls are refused as busy, so what is lent stays where it is.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_beginLending<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
) -> jlong {
    call(env, &class, "session_begin_lending", |_| {
        let alone = Box::new(session(handle)?);
        Ok(Box::into_raw(alone).expose_provenance() as jlong)
    })
}

/// An output's elements where they lie. Waits for the step.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_lendOutput<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    lending: jlong,
    index: jint,
) -> JByteBuffer<'local> {
    call(env, &class, "session_lend_output", |env| {
        let alone = std::ptr::with_exposed_provenance_mut::<Alone<Session>>(lending as usize);
        // SAFETY: `beginLending` made it, and the wrapper, which has it for itself, has not ended it yet.
        let session = unsafe { &mut *alone };
        let lent = session.lend_output(output_index(index))?;
        // SAFETY: the memory stays until the next step or the session's end, which both need the session.
        Ok(unsafe { env.new_direct_byte_buffer(lent.as_ptr().cast_mut(), lent.len()) }?)
    })
}

/// Ends what `beginLending` began.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_endLending<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    lending: jlong,
) {
    call(env, &class, "session_end_lending", |_| {
        let alone = std::ptr::with_exposed_provenance_mut::<Alone<Session>>(lending as usize);
        // SAFETY: `beginLending` made it, and the wrapper ends it once.
        drop(unsafe { Box::from_raw(alone) });
        Ok(())
    })
}

/// Adds a tensor to weights, copied from a buffer, or replaces the one of that name.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_insertWeight<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    name: JString<'local>,
    dtype: jint,
    shape: JLongArray<'local>,
    buffer: JByteBuffer<'local>,
    unit: jint,
    offset: jlong,
    bytes: jlong,
) {
    call(env, &class, "weights_insert", |env| {
        let name = name.try_to_string(env)?;
        let (start, count) = direct(env, &buffer, unit, offset, bytes)?;
        let shape = sizes_of(env, &shape)?;
        // SAFETY: as above.
        let data = unsafe { std::slice::from_raw_parts(start, count) }.to_vec();
        let tensor = Tensor::from_bytes(element_type(dtype)?, shape, Bytes::from_vec(data))?;
        shared::alone::<Weights>(pointer::<Weights>(handle))?.insert(name, tensor);
        Ok(())
    })
}

/// Copies a tensor of weights into a buffer, of exactly its dtype and bytes.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_readWeight<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    name: JString<'local>,
    buffer: JByteBuffer<'local>,
    unit: jint,
    offset: jlong,
    bytes: jlong,
) {
    call(env, &class, "weights_read", |env| {
        let name = name.try_to_string(env)?;
        let (start, count) = direct(env, &buffer, unit, offset, bytes)?;
        let weights = shared::share::<Weights>(pointer::<Weights>(handle))?;
        let Some(tensor) = weights.get(&name) else {
            let known = weights.names().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
            return Err(engine::error::Error::UnknownName { kind: "weight".into(), name, known }.into());
        };
        if tensor.bytes().len() != count {
            let (wanted, came) = (format!("{} bytes", tensor.bytes().len()), format!("{count} bytes"));
            return Err(engine::error::Error::Length { name, wanted, came }.into());
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(start, count) }.copy_from_slice(tensor.bytes());
        Ok(())
    })
}

/// Adds data, copied from a buffer, to a graph as a constant; returns its value's number.
#[unsafe(no_mangle)]
extern "system" fn Java_dev_weft_internal_Jni_addConstant<'local>(
    env: EnvUnowned<'local>,
    class: JClass<'local>,
    handle: jlong,
    dtype: jint,
    shape: JLongArray<'local>,
    buffer: JByteBuffer<'local>,
    unit: jint,
    offset: jlong,
    bytes: jlong,
) -> jlong {
    call(env, &class, "graph_constant", |env| {
        let (start, count) = direct(env, &buffer, unit, offset, bytes)?;
        let shape = sizes_of(env, &shape)?;
        // SAFETY: as above.
        let data = unsafe { std::slice::from_raw_parts(start, count) }.to_vec();
        let tensor = Tensor::from_bytes(element_type(dtype)?, shape, Bytes::from_vec(data))?;
        let graph = shared::alone::<Graph>(pointer::<Graph>(handle))?;
        let made = build(&graph, |g| Ok(g.constant(tensor)))?;
        Ok(made.index().map_or(-1, |at| at as jlong))
    })
}
