package dev.weft

import dev.weft.internal.bindings.NativeArtifact
import dev.weft.internal.closing
import dev.weft.internal.native
import dev.weft.internal.reporting

/** Compiled graphs over one set of weights, as a file: compiled once, loaded in milliseconds. */
public class Artifact internal constructor(
    internal val native: NativeArtifact,
) : AutoCloseable {
    /** One without graphs. */
    public constructor() : this(native { NativeArtifact() })

    /** Names of its graphs. */
    public val names: List<String> get() = native { native.names() }

    /** Adds a compiled graph under a name. */
    public fun add(name: String, graph: CompiledGraph): Unit = native { native.add(name, graph.native) }

    /** A graph by its name; it is the caller's to close. */
    public operator fun get(name: String): CompiledGraph = CompiledGraph(native { native.graph(name) })

    /** Saves it, whole or not at all. */
    public fun save(path: String): Unit = native { native.save(path) }

    /** Closes it. Graphs and sessions that came from it stay. */
    override fun close(): Unit = closing(native::release)

    /** Loads artifacts. */
    public companion object {
        /**
         * Loads one, on a thread for it; a GPU's driver compiles kernels meanwhile. Cancelling the coroutine ends it.
         *
         * @throws WeftException.Artifact for a damaged file, and for one of another version, device or precision
         */
        @JvmSynthetic
        public suspend fun load(device: Device, path: String, onProgress: (Progress) -> Unit = {}): Artifact =
            reporting(onProgress) { cancel, listener ->
                Artifact(native { NativeArtifact.load(device.native, path, cancel, listener) })
            }
    }
}
