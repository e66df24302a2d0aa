package dev.weft

import dev.weft.internal.Jni
import dev.weft.internal.bindings.NativeWeights
import dev.weft.internal.closing
import dev.weft.internal.native

/** Named tensors: of a safetensors file, or made by hand. Sessions keep what they need of it. */
public class Weights internal constructor(
    internal val native: NativeWeights,
) : AutoCloseable {
    /** No weights, to be set. */
    public constructor() : this(native { NativeWeights() })

    private val handle: Long = native.handle()

    /** The tensors that can be used, in the order of their names. */
    public val tensors: List<TensorInfo> get() = native { native.tensors().map(TensorInfo::of) }

    /** Adds a tensor, or replaces the one of that name; its elements are copied. */
    public operator fun set(name: String, tensor: TensorBuffer): Unit =
        Jni.insertWeight(handle, name, tensor.type.ordinal, tensor.shape, tensor.memory, 1, 0, tensor.bytes.toLong())

    /**
     * A copy of a tensor.
     *
     * @throws WeftException.UnknownName
     */
    public operator fun get(name: String): TensorBuffer {
        val all = tensors
        val info = all.find { it.name == name }
        if (info == null) {
            val known = all.joinToString { it.name }
            throw WeftException.of(300, "no weight named \"$name\"; there are: $known", known, name)
        }
        val into = TensorBuffer.allocate(info.type, *info.shape)
        Jni.readWeight(handle, name, into.memory, 1, 0, into.bytes.toLong())
        return into
    }

    /** Writes a safetensors file, whole or not at all. */
    public fun save(path: String): Unit = native { native.save(path) }

    /** Closes them. Sessions over them keep what they need. */
    override fun close(): Unit = closing(native::release)

    /** Loads weights. */
    public companion object {
        /**
         * Maps a safetensors file, a Hugging Face folder, or the index of a sharded set. The files must not be rewritten in place
         * while the weights or sessions over them live.
         *
         * @param floats the type that floating-point tensors are converted to; null to leave them
         */
        @JvmStatic
        @JvmOverloads
        public fun load(path: String, floats: ElementType? = null): Weights =
            Weights(native { NativeWeights.load(path, floats?.native) })
    }
}
