// Where work runs: the life that holds it, and whether it is a GPU's.

import Foundation
internal import WeftBindings

/// Where the work of sessions, models and compilers runs. They keep it, also when their device was closed.
struct Place: Sendable {
    let life: LifeCycle
    let isGPU: Bool

    /// Runs work when nothing holds it; GPUs are not suspended meanwhile.
    func run<R: Sendable>(_ body: () async throws -> R) async throws -> R {
        let work = LifeCycle.Work(onGPU: isGPU)
        _ = try await life.turn(work)
        defer { life.end(work) }
        return try await body()
    }

    /// As ``run(_:)``; work for a suspended GPU goes to the CPU instead, if that is the app's choice.
    func run<R: Sendable>(_ body: () async throws -> R, onCPU: () async throws -> R) async throws -> R {
        let work = LifeCycle.Work(onGPU: isGPU)
        if case .onCPU = try await life.turn(work, orOnCPU: true) { return try await onCPU() }
        defer { life.end(work) }
        return try await body()
    }

    /// Does what may begin when nothing holds it, on a thread of its own, and begins it again if the GPU was suspended in its midst: what
    /// takes too long to be waited for.
    func retry<R>(_ cancel: Cancellation, _ body: () throws -> R) throws -> R {
        let work = LifeCycle.Work(onGPU: isGPU)
        while true {
            guard try life.waitForTurn(work, unless: { cancel.isRequested }) else { throw cancel.error }
            life.end(work)
            do {
                return try body()
            } catch {
                // the app's own call of `Device.suspend` is its own to end
                guard (error as? WeftError)?.kind == .suspended, isGPU, life.suspends else { throw error }
            }
        }
    }

    /// Runs a training, on a thread of its own, whose steps the life may hold: between two of them, in ``Steps/between(isLast:_:)``.
    func train<R>(_ cancel: Cancellation, _ body: (Steps) throws(WeftError) -> R) throws(WeftError) -> R {
        let steps = Steps(self, cancel)
        guard try steps.enter() else { throw cancel.error }
        defer { steps.leave() }
        return try body(steps)
    }
}

/// The steps of one training, on the one thread that makes them.
final class Steps {
    private let place: Place
    private let cancel: Cancellation
    private let work: LifeCycle.Work
    private var isInside = false
    /// Why no further step is made.
    private(set) var refused: WeftError?

    init(_ place: Place, _ cancel: Cancellation) {
        self.place = place
        self.cancel = cancel
        work = LifeCycle.Work(onGPU: place.isGPU, isTraining: true)
    }

    fileprivate func enter() throws(WeftError) -> Bool {
        isInside = try place.life.waitForTurn(work, unless: { cancel.isRequested })
        return isInside
    }

    fileprivate func leave() {
        if isInside { place.life.end(work) }
        isInside = false
    }

    /// After a step: tells of it, and returns when the next one may be made. A GPU may be suspended meanwhile, however long the telling
    /// takes.
    func between(isLast: Bool, _ tell: () -> Void) {
        leave()
        tell()
        if isLast { return }
        do throws(WeftError) {
            _ = try enter()
        } catch {
            refused = error
            cancel.request()
        }
    }
}

/// A wish that native work ends.
final class Cancellation: Sendable {
    let native: NativeCancel
    private let asked = Guarded(false)

    init() throws(WeftError) {
        native = try Weft.native { try NativeCancel() }
    }

    var isRequested: Bool { asked.with { $0 } }

    /// Any thread.
    func request() {
        asked.with { $0 = true }
        // fails if the object was closed, which nobody does
        try? native.request()
    }

    /// What the native library says of work that was cancelled.
    var error: WeftError { WeftError(.cancelled, "cancelled by the caller") }
}

/// A GPU that was opened. It keeps nothing open: what was closed is gone.
final class GPULife: SuspendableDevice {
    let identity: Int64
    private let native: NativeLife
    private let leftAlone = Guarded(false)

    init(_ native: NativeLife) {
        self.native = native
        identity = native.identity()
    }

    /// Whether the app itself has suspended it, and will resume it.
    var isLeftAlone: Bool {
        get { leftAlone.with { $0 } }
        set { leftAlone.with { $0 = newValue } }
    }

    func suspend() throws(WeftError) -> Bool { try Weft.native { try native.suspend() } }

    func resume() throws(WeftError) -> Bool {
        try Weft.native { isLeftAlone ? native.isOpen() : try native.resume() }
    }

    func trim() throws(WeftError) -> Bool { try Weft.native { try native.trim() } }
}

/// A value that one thread at a time reaches.
final class Guarded<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) {
        self.value = value
    }

    func with<R>(_ body: (inout Value) throws -> R) rethrows -> R {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }
}
