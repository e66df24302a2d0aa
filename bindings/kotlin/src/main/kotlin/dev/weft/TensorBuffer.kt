package dev.weft

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.nio.IntBuffer
import java.nio.LongBuffer

/**
 * A tensor in memory that native code reads and writes where it lies: a direct buffer in the machine's byte order, with a type
 * and a shape. Its memory goes with the last reference to it, a session's among them.
 *
 * Not to be written while a step reads it.
 *
 * @property type the type of its elements
 */
public class TensorBuffer private constructor(
    public val type: ElementType,
    private val sizes: LongArray,
    internal val memory: ByteBuffer,
) {
    /** Sizes of its axes, as a copy. */
    public val shape: LongArray get() = sizes.copyOf()

    /** How many elements it has. */
    public val elements: Int get() = memory.capacity() / type.bytes

    /** Bytes of its elements. */
    public val bytes: Int get() = memory.capacity()

    /** Its bytes; the buffer has a position of its own, and shares the memory. */
    public fun buffer(): ByteBuffer = memory.duplicate().order(ByteOrder.nativeOrder())

    /** Its elements, for F32. */
    public fun floats(): FloatBuffer = of(ElementType.F32).asFloatBuffer()

    /** Its elements, for I32 and U32. */
    public fun ints(): IntBuffer = of(ElementType.I32, ElementType.U32).asIntBuffer()

    /** Its elements, for I64. */
    public fun longs(): LongBuffer = of(ElementType.I64).asLongBuffer()

    /** A copy of its elements, for F32. */
    public fun toFloatArray(): FloatArray = floats().let { from -> FloatArray(from.remaining()).also { from.get(it) } }

    /** A copy of its elements, for I32 and U32. */
    public fun toIntArray(): IntArray = ints().let { from -> IntArray(from.remaining()).also { from.get(it) } }

    /** A copy of its elements, for I64. */
    public fun toLongArray(): LongArray = longs().let { from -> LongArray(from.remaining()).also { from.get(it) } }

    /** Its type and shape, as in `TensorBuffer(f32[2, 3])`. */
    override fun toString(): String = "TensorBuffer(${type.name.lowercase()}${sizes.contentToString()})"

    private fun of(vararg types: ElementType): ByteBuffer {
        if (type !in types) {
            val wanted = types.joinToString(" or ") { it.name.lowercase() } + " elements"
            throw WeftException.argument("tensor", wanted, type.name.lowercase())
        }
        return buffer()
    }

    /** Makes tensors. */
    public companion object {
        /** A tensor of zeros. */
        @JvmStatic
        public fun allocate(type: ElementType, vararg shape: Long): TensorBuffer {
            val bytes = bytes(type, shape)
            return TensorBuffer(type, shape.copyOf(), ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder()))
        }

        /** A copy of elements; without a shape, one axis of them. */
        @JvmStatic
        public fun of(elements: FloatArray, vararg shape: Long): TensorBuffer =
            filled(ElementType.F32, elements.size, shape).also { it.floats().put(elements) }

        /** A copy of elements; without a shape, one axis of them. */
        @JvmStatic
        public fun of(elements: IntArray, vararg shape: Long): TensorBuffer =
            filled(ElementType.I32, elements.size, shape).also { it.ints().put(elements) }

        /** A copy of elements; without a shape, one axis of them. */
        @JvmStatic
        public fun of(elements: LongArray, vararg shape: Long): TensorBuffer =
            filled(ElementType.I64, elements.size, shape).also { it.longs().put(elements) }

        /**
         * A tensor over the remaining bytes of a buffer, without a copy. The buffer must be direct and in the machine's byte
         * order; to be borrowed by a session, also aligned for the type.
         */
        @JvmStatic
        public fun wrap(buffer: ByteBuffer, type: ElementType, vararg shape: Long): TensorBuffer {
            checked(buffer, buffer.order())
            val bytes = bytes(type, shape)
            if (buffer.remaining() != bytes) {
                throw WeftException.argument("buffer", "$bytes bytes", "${buffer.remaining()}")
            }
            val memory = buffer.slice().order(ByteOrder.nativeOrder())
            return TensorBuffer(type, shape.copyOf(), memory)
        }

        private fun filled(type: ElementType, elements: Int, shape: LongArray): TensorBuffer {
            val made = allocate(type, *(if (shape.isEmpty()) longArrayOf(elements.toLong()) else shape))
            if (made.elements != elements) {
                throw WeftException.argument("elements", "${made.elements} of the shape ${shape.contentToString()}", "$elements")
            }
            return made
        }

        private fun bytes(type: ElementType, shape: LongArray): Int {
            if (type.bytes == 0) throw WeftException.argument("type", "one without blocks", type.name.lowercase())
            var all = type.bytes.toLong()
            for (size in shape) {
                if (size < 0) throw WeftException.argument("shape", "sizes of 0 or more", shape.contentToString())
                all = if (size != 0L && all > Int.MAX_VALUE / size) Long.MAX_VALUE else all * size
                if (all > Int.MAX_VALUE) {
                    throw WeftException.argument("shape", "at most ${Int.MAX_VALUE} bytes", shape.contentToString())
                }
            }
            return all.toInt()
        }
    }
}

/** Refuses buffers that native code cannot use where they lie. */
internal fun checked(buffer: Buffer, order: ByteOrder) {
    if (!buffer.isDirect) {
        throw WeftException.argument("buffer", "a direct buffer (ByteBuffer.allocateDirect)", "one in Java's heap")
    }
    if (order != ByteOrder.nativeOrder()) {
        val wanted = "the machine's byte order (order(ByteOrder.nativeOrder()))"
        throw WeftException.argument("buffer", wanted, order.toString())
    }
}
