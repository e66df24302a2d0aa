package dev.weft

import dev.weft.internal.bindings.NativeGraph
import dev.weft.internal.closing
import dev.weft.internal.native

/** A graph: what is to be computed. It may be closed once it is compiled. */
public class Graph internal constructor(
    internal val native: NativeGraph,
) : AutoCloseable {
    /** Its text form. */
    public fun text(): String = native { native.text() }

    /** Closes it. What was compiled from it stays. */
    override fun close(): Unit = closing(native::release)

    public companion object {
        /**
         * Reads a graph's text form.
         *
         * @throws WeftException.Parse with line and column
         */
        @JvmStatic
        public fun parse(text: String): Graph = Graph(native { NativeGraph.parse(text) })
    }
}
