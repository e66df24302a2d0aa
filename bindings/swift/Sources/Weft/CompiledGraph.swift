// Compiled graphs: what a device runs, without weights.

import Foundation
internal import WeftBindings

/// The tensors of a graph, by their roles.
public struct TensorInfos: Sendable, Hashable {
    /// What is given before each step.
    public let inputs: [TensorInfo]
    /// What a step computes; the loss, if there is one, is the last.
    public let outputs: [TensorInfo]
    /// Weights.
    public let parameters: [TensorInfo]
    /// What stays from step to step.
    public let states: [TensorInfo]

    init(_ ports: Ports) {
        inputs = ports.inputs.map(TensorInfo.init)
        outputs = ports.outputs.map(TensorInfo.init)
        parameters = ports.parameters.map(TensorInfo.init)
        states = ports.states.map(TensorInfo.init)
    }
}

/// Sizes of what a session has allocated or mapped.
public struct MemorySummary: Sendable, Hashable {
    /// Number of buffers.
    public let buffers: Int
    /// Their bytes together.
    public let totalBytes: Int
    /// Bytes of optimizer states among them.
    public let optimizerBytes: Int
    /// Bytes of the largest buffer.
    public let largestBytes: Int

    init(_ m: WeftBindings.Memory) {
        buffers = Int(m.buffers)
        totalBytes = Int(m.totalBytes)
        optimizerBytes = Int(m.optimizerBytes)
        largestBytes = Int(m.largestBytes)
    }
}

/// A compiled graph, without weights. Immutable; tasks may share it. Sessions keep what they need of it.
public final class CompiledGraph: Sendable {
    let native: NativeCompiled
    /// Its tensors.
    public let tensors: TensorInfos
    let place: Place

    init(_ native: NativeCompiled, _ place: Place) throws(WeftError) {
        self.native = native
        self.place = place
        tensors = try Weft.native { TensorInfos(try native.ports()) }
    }

    /// Loads what ``save(to:)`` saved.
    ///
    /// - Throws: ``WeftError/Kind/artifact`` for a damaged file, and for one of another version, device or precision.
    public static func load(from file: URL, on device: Device) async throws -> CompiledGraph {
        let path = try path(of: file)
        return try await cancellable { cancel in
            try device.place.retry(cancel) {
                try CompiledGraph(
                    Weft.native { try NativeCompiled.load(device: device.native, path: path) }, device.place)
            }
        }
    }

    /// Saves it as an artifact of one graph, whole or not at all.
    public func save(to file: URL) throws(WeftError) {
        let path = try path(of: file)
        try Weft.native { try native.save(path: path) }
    }

    /// Whether it came out of the cache folder.
    public var wasCached: Bool {
        get throws(WeftError) { try Weft.native { try native.wasCached() } }
    }

    /// What a session will take, before anything is allocated.
    public func memory() throws(WeftError) -> MemorySummary {
        MemorySummary(try Weft.native { try native.memory() })
    }

    /// A session over weights, bound by name.
    ///
    /// - Throws: ``WeftError/Kind/missingWeight``, ``WeftError/Kind/weightType``.
    public func session(weights: Weights) throws(WeftError) -> Session {
        try Session(Weft.native { try native.`init`(weights: weights.native) }, place)
    }

    /// A session whose parameters are zeros until they are set.
    public func sessionOfZeros() throws(WeftError) -> Session {
        try Session(Weft.native { try native.initZeros() }, place)
    }

    /// A session over the parameters of another, shared with it.
    public func session(sharing parameters: Parameters) throws(WeftError) -> Session {
        try Session(Weft.native { try native.initShared(parameters: parameters.native) }, place)
    }

    /// As ``session(sharing:)``; parameters that the set lacks are taken from `weights`, and join it.
    public func session(sharing parameters: Parameters, weights: Weights) throws(WeftError) -> Session {
        try Session(
            Weft.native { try native.initSharedWith(parameters: parameters.native, weights: weights.native) }, place)
    }

    /// Closes it. Its sessions stay.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }
}
