package dev.weft.internal

import dev.weft.WeftException
import java.nio.Buffer
import java.nio.ByteBuffer

/** Gets each step of a training, on the thread that trains. */
internal fun interface StepListener {
    fun step(done: Long, all: Long, loss: Float)
}

/**
 * The native methods of the data plane (`bindings/apps/src/jni`). Objects are named by their handles, ports by their index. A
 * buffer comes with the bytes of its elements, the offset and the bytes of the part that is meant.
 */
internal object Jni {
    /** Called by native methods: the exception that they throw. */
    @JvmStatic
    fun failure(code: Int, message: String, wanted: String?, came: String?, node: String?): Throwable =
        WeftException.of(code, message, wanted, came, node)

    @JvmStatic external fun version(): String

    @JvmStatic external fun interfaceNumber(): Int

    @JvmStatic external fun step(session: Long)

    @JvmStatic external fun await(session: Long)

    @JvmStatic external fun loss(session: Long): Float

    @JvmStatic
    external fun setInput(session: Long, input: Int, type: Int, buffer: Buffer, unit: Int, offset: Long, bytes: Long)

    @JvmStatic
    external fun borrowInput(session: Long, input: Int, type: Int, buffer: Buffer, unit: Int, offset: Long, bytes: Long)

    @JvmStatic
    external fun readOutput(session: Long, output: Int, type: Int, buffer: Buffer, unit: Int, offset: Long, bytes: Long)

    @JvmStatic external fun setInputFloats(session: Long, input: Int, type: Int, elements: FloatArray)

    @JvmStatic external fun setInputInts(session: Long, input: Int, type: Int, elements: IntArray)

    @JvmStatic external fun setInputLongs(session: Long, input: Int, type: Int, elements: LongArray)

    @JvmStatic external fun setInputBytes(session: Long, input: Int, type: Int, elements: ByteArray)

    @JvmStatic external fun readOutputFloats(session: Long, output: Int, type: Int, into: FloatArray)

    @JvmStatic external fun readOutputInts(session: Long, output: Int, type: Int, into: IntArray)

    @JvmStatic external fun readOutputLongs(session: Long, output: Int, type: Int, into: LongArray)

    @JvmStatic external fun readOutputBytes(session: Long, output: Int, type: Int, into: ByteArray)

    @JvmStatic external fun beginLending(session: Long): Long

    @JvmStatic external fun lendOutput(lending: Long, output: Int): ByteBuffer

    @JvmStatic external fun endLending(lending: Long)

    @JvmStatic external fun setParameter(session: Long, name: String, elements: FloatArray)

    @JvmStatic external fun readParameter(session: Long, name: String): FloatArray

    @JvmStatic
    external fun train(
        session: Long,
        names: Array<String>,
        types: IntArray,
        buffers: Array<Buffer>,
        places: LongArray,
        epochs: Int,
        cancel: Long,
        listener: StepListener,
    )

    @JvmStatic external fun embed(encoder: Long, texts: Array<String>): FloatArray

    @JvmStatic
    external fun insertWeight(
        weights: Long,
        name: String,
        type: Int,
        shape: LongArray,
        buffer: Buffer,
        unit: Int,
        offset: Long,
        bytes: Long,
    )

    @JvmStatic
    external fun readWeight(weights: Long, name: String, buffer: Buffer, unit: Int, offset: Long, bytes: Long)

    @JvmStatic
    external fun addConstant(
        graph: Long,
        type: Int,
        shape: LongArray,
        buffer: Buffer,
        unit: Int,
        offset: Long,
        bytes: Long,
    ): Long
}
