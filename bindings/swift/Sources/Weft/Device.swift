// Devices: which there are, opening one, its life in an app, compiling for it.

import Foundation
internal import WeftBindings

/// What there is to know of a device.
public struct DeviceInfo: Sendable, Hashable, CustomStringConvertible {
    /// What sort of device it is.
    public enum Kind: String, Sendable, Hashable, Codable, CaseIterable {
        /// The processor.
        case cpu
        /// A GPU that shares the processor's memory.
        case integratedGPU
        /// A GPU with memory of its own.
        case discreteGPU
        /// A processor that emulates a GPU.
        case softwareGPU
        /// Another sort.
        case other
    }

    /// Its place in the list.
    public let index: Int
    /// Its name, as ``DeviceChoice/named(_:)`` takes it.
    public let name: String
    /// Model, instruction set; driver and features.
    public let detail: String
    /// Why its driver cannot be used, if it cannot.
    public let refused: String?
    /// What sort it is.
    public let kind: Kind
    /// Threads it uses; 0 for GPUs.
    public let threads: Int
    /// Bytes of its memory; 0 if unknown.
    public let memory: Int

    /// Name and detail.
    public var description: String { "\(name) (\(detail))" }

    init(_ d: DeviceDescription) {
        index = Int(d.index)
        name = d.name
        detail = d.detail
        refused = d.refused
        threads = Int(d.threads)
        memory = Int(d.memory)
        kind =
            switch d.kind {
            case .cpu: .cpu
            case .integratedGpu: .integratedGPU
            case .discreteGpu: .discreteGPU
            case .softwareGpu: .softwareGPU
            case .other: .other
            }
    }
}

/// Which device to open.
public enum DeviceChoice: Sendable, Hashable, Codable {
    /// A real GPU that passes its self-test, else the CPU.
    case best
    /// The CPU, with so many threads; 0 is as many as there are cores.
    case cpu(threads: Int = 0)
    /// The best GPU, software GPUs included.
    case gpu
    /// The one of this name, of ``Device/all()``.
    case named(String)
}

/// How exactly to compute.
public enum Precision: String, Sendable, Hashable, Codable, CaseIterable {
    /// In f32.
    case full
    /// GPUs may use f16 matrix units with f32 sums. Training is always in full precision.
    case fast

    var native: ComputePrecision {
        switch self {
        case .full: .full
        case .fast: .fast
        }
    }
}

/// How to compile.
public struct CompileOptions: Sendable, Hashable, Codable {
    /// With the backward pass, for a graph with a loss.
    public var training: Bool
    /// How exactly to compute.
    public var precision: Precision
    /// A folder that keeps what was compiled; nil for none.
    public var cacheFolder: URL?
    /// Bytes of the folder at most; what was used longest ago makes room.
    public var cacheBytes: Int

    /// Options; without arguments, the defaults.
    public init(
        training: Bool = false,
        precision: Precision = .full,
        cacheFolder: URL? = nil,
        cacheBytes: Int = 64 << 20
    ) {
        self.training = training
        self.precision = precision
        self.cacheFolder = cacheFolder
        self.cacheBytes = cacheBytes
    }
}

/// How far something that takes long is.
public struct Progress: Sendable, Hashable {
    /// Parts done.
    public let done: Int
    /// Parts altogether.
    public let all: Int
}

/// What ``Device/compiling(_:options:)`` tells.
public enum Compiling: Sendable {
    /// Some parts are done.
    case working(Progress)
    /// All is done; the last.
    case done(CompiledGraph)
}

/// An open device. Tasks may share it. Sessions keep it open: it may be closed before them.
public final class Device: Sendable {
    let native: NativeDevice
    /// What it is.
    public let info: DeviceInfo
    let place: Place
    private let gpu: GPULife?

    private init(which: String, threads: Int) throws(WeftError) {
        let threads = try int32(threads, "threads")
        let native = try Weft.native { try NativeDevice.open(which: which, threads: threads) }
        self.native = native
        info = try Weft.native { DeviceInfo(try native.info()) }
        let life = LifeCycle.shared
        gpu = try Weft.native { try native.life() }.map { life.add(GPULife($0)) }
        place = Place(life: life, isGPU: gpu != nil)
        LifeCycle.hearsTheSystem
    }

    /// Opens a device, on a thread for it: a GPU is tested first.
    ///
    /// - Throws: ``WeftError/Kind/device`` if there is none.
    public static func open(_ choice: DeviceChoice = .best) async throws -> Device {
        try await working {
            switch choice {
            case .best: try Device(which: "best", threads: 0)
            case .cpu(let threads): try Device(which: "cpu", threads: threads)
            case .gpu: try Device(which: "gpu", threads: 0)
            case .named(let name): try Device(which: name, threads: 0)
            }
        }
    }

    /// The CPU, with so many threads; 0 is as many as there are cores.
    public static func cpu(threads: Int = 0) throws(WeftError) -> Device {
        try Device(which: "cpu", threads: threads)
    }

    /// The devices of this machine: the CPU, then the GPUs, the best first.
    public static func all() async throws -> [DeviceInfo] {
        try await working { try Weft.native { try devices().map(DeviceInfo.init) } }
    }

    /// Why ``DeviceChoice/best`` did not take the devices before this one.
    public func passedOver() throws(WeftError) -> [String] {
        try Weft.native { try native.passedOver() }
    }

    /// Bytes that this process uses on a GPU; 0 for the CPU.
    public var memoryUsed: Int {
        get throws(WeftError) { Int(try Weft.native { try native.memoryUsed() }) }
    }

    /// Bytes that this process may use on a GPU; 0 for the CPU, which has no budget.
    public var memoryBudget: Int {
        get throws(WeftError) { Int(try Weft.native { try native.memoryBudget() }) }
    }

    /// Sets how many bytes this process may use on a GPU.
    ///
    /// - Throws: ``WeftError/Kind/device`` for the CPU.
    public func setMemoryBudget(_ bytes: Int) throws(WeftError) {
        try Weft.native { try native.setMemoryBudget(bytes: Int64(bytes)) }
    }

    /// Whether it is suspended.
    public var isSuspended: Bool {
        get throws(WeftError) { try Weft.native { try native.isSuspended() } }
    }

    /// For an app that has a reason of its own to leave a GPU alone, besides the background, which ``LifeCycle`` sees to: waits for the
    /// work that the GPU was given, gives back what can be made again, and refuses more with ``WeftError/Kind/suspended`` until
    /// ``resume()``. Nothing happens on the CPU, which may run in the background.
    public func suspend() throws(WeftError) {
        gpu?.isLeftAlone = true
        try Weft.native { try native.suspend() }
    }

    /// Lets a suspended device work again; in the background, once the app is in the foreground.
    public func resume() throws(WeftError) {
        gpu?.isLeftAlone = false
        if place.isGPU && place.life.suspends { return }
        try Weft.native { try native.resume() }
    }

    /// When the system asks for memory: gives back what can be made again. The next step takes a little longer.
    public func trim() throws(WeftError) {
        try Weft.native { try native.trim() }
    }

    /// Compiles a graph, without weights, on a thread for it. Cancelling the task ends the compilation, soon. `onProgress` gets how far
    /// it is, on any thread.
    public func compile(
        _ graph: Graph,
        options: CompileOptions = CompileOptions(),
        onProgress: (@Sendable (Progress) -> Void)? = nil
    ) async throws -> CompiledGraph {
        let settings = try options.settings()
        return try await cancellable { cancel in
            try self.place.retry(cancel) { try self.compiled(graph, settings, cancel, onProgress) }
        }
    }

    /// As ``compile(_:options:onProgress:)``, as a stream of how far it is, and of what comes of it. The compilation begins with the
    /// first element that is asked for; it waits for who reads, and ends with them.
    public func compiling(
        _ graph: Graph,
        options: CompileOptions = CompileOptions()
    ) -> AsyncThrowingStream<Compiling, any Error> {
        telling { cancel, tell in
            let settings = try options.settings()
            let made = try self.place.retry(cancel) {
                try self.compiled(graph, settings, cancel) { tell(.working($0)) }
            }
            tell(.done(made))
        }
    }

    private func compiled(
        _ graph: Graph,
        _ settings: CompileSettings,
        _ cancel: Cancellation,
        _ onProgress: (@Sendable (Progress) -> Void)?
    ) throws(WeftError) -> CompiledGraph {
        try CompiledGraph(
            Weft.native {
                try WeftBindings.compile(
                    device: native, graph: graph.native, settings: settings, cancel: cancel.native,
                    listener: onProgress.map(Listener.init))
            }, place)
    }

    /// Closes it. Sessions on it stay.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }
}

extension Device: CustomStringConvertible {
    /// What it is.
    public var description: String { "Device(\(info))" }
}

extension CompileOptions {
    fileprivate func settings() throws(WeftError) -> CompileSettings {
        CompileSettings(
            training: training, precision: precision.native, cacheFolder: try cacheFolder.map(path(of:)),
            cacheBytes: Int64(cacheBytes))
    }
}

/// The path of a file.
func path(of file: URL) throws(WeftError) -> String {
    guard file.isFileURL else {
        throw .argument("file", wanted: "a file URL", came: file.absoluteString)
    }
    return file.path
}

/// A number that the native library takes as 32 bits.
func int32(_ number: Int, _ name: String) throws(WeftError) -> Int32 {
    guard let small = Int32(exactly: number) else {
        throw .argument(name, wanted: "a number of 32 bits", came: "\(number)")
    }
    return small
}
