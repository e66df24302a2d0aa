// Artifacts: compiled graphs over one set of weights, as a file.

import Foundation
internal import WeftBindings

/// Compiled graphs over one set of weights, as a file: compiled once, loaded in milliseconds. Tasks may share it; adding a graph
/// needs it alone, and is ``WeftError/Kind/busy`` otherwise.
public final class Artifact: Sendable {
    let native: NativeArtifact
    /// That of its graphs; an empty one has none yet.
    private let place: Guarded<Place?>

    /// One without graphs.
    public init() throws(WeftError) {
        native = try Weft.native { try NativeArtifact() }
        place = Guarded(nil)
    }

    private init(_ native: NativeArtifact, _ place: Place) {
        self.native = native
        self.place = Guarded(place)
    }

    /// Loads one, on a thread for it; a GPU's driver compiles kernels meanwhile. Cancelling the task ends it.
    ///
    /// - Throws: ``WeftError/Kind/artifact`` for a damaged file, and for one of another version, device or precision.
    public static func load(
        from file: URL,
        on device: Device,
        onProgress: (@Sendable (Progress) -> Void)? = nil
    ) async throws -> Artifact {
        let path = try path(of: file)
        return try await cancellable { cancel in
            try device.place.retry(cancel) {
                try Artifact(
                    Weft.native {
                        try NativeArtifact.load(
                            device: device.native, path: path, cancel: cancel.native,
                            listener: onProgress.map(Listener.init))
                    }, device.place)
            }
        }
    }

    /// Names of its graphs.
    public var names: [String] {
        get throws(WeftError) { try Weft.native { try native.names() } }
    }

    /// Adds a compiled graph under a name.
    public func add(_ graph: CompiledGraph, named name: String) throws(WeftError) {
        try Weft.native { try native.add(name: name, compiled: graph.native) }
        place.with { $0 = $0 ?? graph.place }
    }

    /// A graph by its name.
    ///
    /// - Throws: ``WeftError/Kind/unknownName``.
    public func graph(_ name: String) throws(WeftError) -> CompiledGraph {
        let found = try Weft.native { try native.graph(name: name) }
        // one that has a graph has its place, too
        return try CompiledGraph(found, place.with { $0 } ?? Place(life: .shared, isGPU: false))
    }

    /// Saves it, whole or not at all.
    public func save(to file: URL) throws(WeftError) {
        let path = try path(of: file)
        try Weft.native { try native.save(path: path) }
    }

    /// Closes it. Graphs and sessions that came from it stay.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }
}
