package dev.weft

import dev.weft.internal.bindings.Memory
import dev.weft.internal.bindings.NativeCompiled
import dev.weft.internal.bindings.Ports
import dev.weft.internal.closing
import dev.weft.internal.native

/**
 * The tensors of a graph, by their roles.
 *
 * @property inputs what is given before each step
 * @property outputs what a step computes; the loss, if there is one, is the last
 * @property parameters weights
 * @property states what stays from step to step
 */
public class TensorInfos internal constructor(
    public val inputs: List<TensorInfo>,
    public val outputs: List<TensorInfo>,
    public val parameters: List<TensorInfo>,
    public val states: List<TensorInfo>,
) {
    internal companion object {
        fun of(ports: Ports): TensorInfos =
            TensorInfos(
                ports.inputs.map(TensorInfo::of),
                ports.outputs.map(TensorInfo::of),
                ports.parameters.map(TensorInfo::of),
                ports.states.map(TensorInfo::of),
            )
    }
}

/**
 * Sizes of what a session has allocated or mapped.
 *
 * @property buffers number of buffers
 * @property totalBytes their bytes together
 * @property optimizerBytes bytes of optimizer states among them
 * @property largestBytes bytes of the largest buffer
 */
public class MemorySummary internal constructor(
    public val buffers: Long,
    public val totalBytes: Long,
    public val optimizerBytes: Long,
    public val largestBytes: Long,
) {
    internal companion object {
        fun of(m: Memory): MemorySummary = MemorySummary(m.buffers, m.totalBytes, m.optimizerBytes, m.largestBytes)
    }
}

/** A compiled graph, without weights. Immutable; threads may share it. Sessions keep what they need of it. */
public class CompiledGraph internal constructor(
    internal val native: NativeCompiled,
) : AutoCloseable {
    /** Its tensors. */
    public val tensors: TensorInfos by lazy { TensorInfos.of(native { native.ports() }) }

    /** Whether it came out of the cache folder. */
    public val wasCached: Boolean get() = native { native.wasCached() }

    /** What a session will take, before anything is allocated. */
    public fun memory(): MemorySummary = MemorySummary.of(native { native.memory() })

    /** Saves it as an artifact of one graph, which [load] loads without compiling. */
    public fun save(path: String): Unit = native { native.save(path) }

    /**
     * A session over weights, bound by name.
     *
     * @throws WeftException.MissingWeight
     * @throws WeftException.WeightType
     */
    public fun init(weights: Weights): Session = Session(native { native.`init`(weights.native) })

    /** A session whose parameters are zeros until they are set. */
    public fun initZeros(): Session = Session(native { native.initZeros() })

    /** A session over the parameters of another, shared with it. */
    public fun init(parameters: Parameters): Session =
        Session(native { native.initShared(parameters.native) })

    /** As `init(parameters)`; parameters that the set lacks are taken from `weights`, and join it. */
    public fun init(parameters: Parameters, weights: Weights): Session =
        Session(native { native.initSharedWith(parameters.native, weights.native) })

    /** Closes it. Its sessions stay. */
    override fun close(): Unit = closing(native::release)

    /** Loads compiled graphs. */
    public companion object {
        /**
         * Loads what [save] saved.
         *
         * @throws WeftException.Artifact for a damaged file, and for one of another version, device or precision
         */
        @JvmStatic
        public fun load(device: Device, path: String): CompiledGraph =
            CompiledGraph(native { NativeCompiled.load(device.native, path) })
    }
}
