// Graphs: what is to be computed.

internal import WeftBindings

/// A graph: what is to be computed. It may be closed once it is compiled.
public final class Graph: Sendable {
    let native: NativeGraph

    /// Reads a graph's text form.
    ///
    /// - Throws: ``WeftError/Kind/parse``, with line and column.
    public init(parsing text: String) throws(WeftError) {
        native = try Weft.native { try NativeGraph.parse(text: text) }
    }

    /// Its text form.
    public func text() throws(WeftError) -> String {
        try Weft.native { try native.text() }
    }

    /// Closes it. What was compiled from it stays.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }
}
