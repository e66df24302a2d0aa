package dev.weft

import dev.weft.internal.bindings.CompileSettings
import dev.weft.internal.bindings.ComputePrecision
import dev.weft.internal.bindings.DeviceDescription
import dev.weft.internal.bindings.NativeDevice
import dev.weft.internal.closing
import dev.weft.internal.native
import dev.weft.internal.reporting
import dev.weft.internal.working
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.channels.onFailure
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.future.future
import java.util.concurrent.CompletableFuture
import dev.weft.internal.bindings.compile as nativeCompile

/** What sort of device it is. */
public enum class DeviceKind {
    /** The processor. */
    CPU,

    /** A GPU that shares the processor's memory. */
    INTEGRATED_GPU,

    /** A GPU with memory of its own. */
    DISCRETE_GPU,

    /** A processor that emulates a GPU. */
    SOFTWARE_GPU,

    /** Another sort. */
    OTHER,
}

/**
 * What there is to know of a device.
 *
 * @property index its place in the list
 * @property name its name, as [Device.open] takes it
 * @property detail model, instruction set; driver and features
 * @property refused why its driver cannot be used, if it cannot
 * @property kind what sort it is
 * @property threads threads it uses; 0 for GPUs
 * @property memory bytes of its memory; 0 if unknown
 */
public class DeviceInfo internal constructor(
    public val index: Int,
    public val name: String,
    public val detail: String,
    public val refused: String?,
    public val kind: DeviceKind,
    public val threads: Int,
    public val memory: Long,
) {
    /** Its name and its detail. */
    override fun toString(): String = "$name ($detail)"

    internal companion object {
        fun of(d: DeviceDescription): DeviceInfo =
            DeviceInfo(d.index, d.name, d.detail, d.refused, DeviceKind.entries[d.kind.ordinal], d.threads, d.memory)
    }
}

/** How exactly to compute. */
public enum class Precision {
    /** In f32. */
    FULL,

    /** GPUs may use f16 matrix units with f32 sums. Training is always in full precision. */
    FAST,
    ;

    internal val native: ComputePrecision get() = ComputePrecision.entries[ordinal]
}

/**
 * How to compile.
 *
 * @property training with the backward pass, for a graph with a loss
 * @property precision how exactly to compute
 * @property cacheFolder a folder that keeps what was compiled; null for none
 * @property cacheBytes bytes of the folder at most; what was used longest ago makes room
 */
public class CompileOptions
    @JvmOverloads
    constructor(
        public val training: Boolean = false,
        public val precision: Precision = Precision.FULL,
        public val cacheFolder: String? = null,
        public val cacheBytes: Long = 64L shl 20,
    )

/**
 * How far a compilation is.
 *
 * @property done parts done
 * @property all parts altogether
 */
public class Progress internal constructor(
    public val done: Long,
    public val all: Long,
) {
    /** As in `3 of 20`. */
    override fun toString(): String = "$done of $all"
}

/** What [Device.compiling] emits. */
public sealed interface Compiling {
    /**
     * Some parts are done.
     *
     * @property progress how many
     */
    public class Working internal constructor(
        public val progress: Progress,
    ) : Compiling

    /**
     * All is done; the last that is emitted.
     *
     * @property graph the compiled graph, to be closed by whoever gets it
     */
    public class Done internal constructor(
        public val graph: CompiledGraph,
    ) : Compiling
}

/** An open device. Threads may share it. Sessions keep it open: it may be closed before them. */
public class Device internal constructor(
    internal val native: NativeDevice,
) : AutoCloseable {
    /** What it is. */
    public val info: DeviceInfo by lazy { DeviceInfo.of(native { native.info() }) }

    /** Why "best" did not take the devices before this one. */
    public fun passedOver(): List<String> = native { native.passedOver() }

    /** Bytes that this process uses on a GPU; 0 for the CPU. */
    public val memoryUsed: Long get() = native { native.memoryUsed() }

    /** Bytes that this process may use on a GPU; 0 for the CPU, which has no budget. */
    public var memoryBudget: Long
        get() = native { native.memoryBudget() }
        set(bytes) = native { native.setMemoryBudget(bytes) }

    /** Whether it is suspended. */
    public val isSuspended: Boolean get() = native { native.isSuspended() }

    /**
     * For an app that goes to the background: waits for the work that a GPU was given, gives back what can be made again, and
     * refuses more with [WeftException.Suspended]. Nothing happens on the CPU, which may run in the background.
     */
    public fun suspend(): Unit = native { native.suspend() }

    /** Lets a suspended device work again. */
    public fun resume(): Unit = native { native.resume() }

    /** When the system asks for memory: gives back what can be made again. The next step takes a little longer. */
    public fun trim(): Unit = native { native.trim() }

    /**
     * Compiles a graph, without weights, on a thread for it. Cancelling the coroutine ends the compilation, soon.
     *
     * @param onProgress gets how far it is, on any thread; what it throws ends the compilation
     */
    @JvmSynthetic
    public suspend fun compile(
        graph: Graph,
        options: CompileOptions = CompileOptions(),
        onProgress: (Progress) -> Unit = {},
    ): CompiledGraph {
        val settings =
            CompileSettings(options.training, options.precision.native, options.cacheFolder, options.cacheBytes)
        return reporting(onProgress) { cancel, listener ->
            CompiledGraph(native { nativeCompile(native, graph.native, settings, cancel, listener) })
        }
    }

    /** As [compile], as a flow of how far it is, and of what comes of it. Each collector compiles. */
    @JvmSynthetic
    public fun compiling(graph: Graph, options: CompileOptions = CompileOptions()): Flow<Compiling> =
        channelFlow {
            val compiled =
                compile(graph, options) { progress ->
                    trySendBlocking(Compiling.Working(progress)).onFailure { throw CancellationException("nobody collects", it) }
                }
            try {
                send(Compiling.Done(compiled))
            } catch (e: Throwable) {
                compiled.close()
                throw e
            }
        }

    /** As [compile], for Java. Cancelling the future ends the compilation. */
    @JvmOverloads
    public fun compileAsync(
        graph: Graph,
        options: CompileOptions = CompileOptions(),
    ): CompletableFuture<CompiledGraph> = CoroutineScope(working).future { compile(graph, options) }

    /** Closes it. Sessions on it stay. */
    override fun close(): Unit = closing(native::release)

    /** What it is, as [info] says it. */
    override fun toString(): String = "Device($info)"

    /** Opens devices. */
    public companion object {
        /**
         * Opens a device: "best" (a real GPU that passes its self-test, else the CPU), "cpu", "gpu", or a name of
         * [Weft.devices]. `threads` is for CPUs; 0 is as many as there are cores.
         */
        @JvmStatic
        @JvmOverloads
        public fun open(which: String = "best", threads: Int = 0): Device =
            Device(native { NativeDevice.open(which, threads) })

        /** The CPU. */
        @JvmStatic
        @JvmOverloads
        public fun cpu(threads: Int = 0): Device = open("cpu", threads)
    }
}
