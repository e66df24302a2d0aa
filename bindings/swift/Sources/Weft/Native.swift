// Calls of the native library: by uniffi's functions (`native`), by the C ABI (`Handle.call`), and of what takes long
// (`cancellable`, `working`): on a thread for it, ended when the task is cancelled.

internal import CWeft
import Dispatch
internal import WeftBindings

/// Calls the control plane; its errors become ours.
func native<T>(_ call: () throws -> T) throws(WeftError) -> T {
    try LibraryVersion.checked.get()
    do {
        return try call()
    } catch {
        throw WeftError(error)
    }
}

/// The handle of an object that uniffi's object owns, for the C ABI. A closed one is refused by the table of handles.
struct Handle: Sendable {
    private let number: Int

    init(_ number: Int64) {
        self.number = Int(number)
    }

    var pointer: OpaquePointer? { OpaquePointer(bitPattern: number) }

    /// Calls a function of the C ABI for an object that `owner` keeps.
    @inline(__always)
    func call(
        for owner: AnyObject,
        _ function: (OpaquePointer?, UnsafeMutablePointer<OpaquePointer?>) -> weft_status
    ) throws(WeftError) {
        var error: OpaquePointer?
        // the owner's end would free the object in the midst of the call
        let status = withExtendedLifetime(owner) { function(pointer, &error) }
        if status != 0 {
            throw WeftError(status: status, error: error)
        }
    }
}

/// Runs what takes long on a thread for it: Swift's own threads are as many as cores, and are not to be kept waiting.
func working<T: Sendable>(_ work: @escaping @Sendable () throws -> T) async throws -> T {
    let priority = Task.currentPriority
    return try await withCheckedThrowingContinuation { continuation in
        DispatchQueue.global(qos: priority.quality).async {
            continuation.resume(with: Result(catching: work))
        }
    }
}

extension TaskPriority {
    fileprivate var quality: DispatchQoS.QoSClass {
        switch self {
        case .high: .userInitiated
        case .low: .utility
        case .background: .background
        default: .default
        }
    }
}

/// As ``working``, for native work that can be cancelled: if the task is cancelled meanwhile, the work is asked to end. This
/// returns when it has ended.
func cancellable<T: Sendable>(_ work: @escaping @Sendable (Cancellation) throws -> T) async throws -> T {
    try Task.checkCancellation()
    let cancel = try Cancellation()
    return try await withTaskCancellationHandler {
        do {
            return try await working { try work(cancel) }
        } catch let error as WeftError where error.kind == .cancelled && Task.isCancelled {
            throw CancellationError()
        }
    } onCancel: {
        cancel.request()
    }
}

/// Gets the progress of native work.
final class Listener: ProgressListener {
    private let tell: @Sendable (Progress) -> Void

    init(_ tell: @escaping @Sendable (Progress) -> Void) {
        self.tell = tell
    }

    func progress(done: Int64, all: Int64) {
        tell(Progress(done: Int(done), all: Int(all)))
    }
}
