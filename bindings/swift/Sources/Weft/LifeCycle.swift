// The life of an app: what the system tells it, and what devices and work do then. Free of platforms: `AppleNotices` wires it.

import Foundation

/// What the system tells an app of itself.
public enum SystemNotice: Sendable, Hashable {
    /// The app is in the background, where iOS ends apps that use the GPU.
    case background
    /// The app is in the foreground again.
    case foreground
    /// Memory is short.
    case memoryWarning
    /// Whether the device is so hot that the system slows it down.
    case hot(Bool)
    /// Whether the system saves power.
    case lowPower(Bool)
}

/// What becomes of work that is given to a GPU while the app is in the background.
public enum WhileSuspended: String, Sendable, Hashable, Codable, CaseIterable {
    /// It waits until the app is in the foreground.
    case wait
    /// Sentence models compute on the CPU, with a model of their own there; other work waits.
    case useCPU
    /// It is refused: ``WeftError/Kind/suspended``.
    case refuse
}

/// What a ``LifeCycle`` does by itself: all of it, unless it is switched off.
public struct LifeCycleOptions: Sendable, Hashable, Codable {
    /// GPUs are suspended between two steps while the app is in the background.
    public var suspendsInBackground: Bool
    /// GPUs give back what can be made again when memory is short.
    public var trimsOnMemoryWarning: Bool
    /// Trainings pause between two steps while the device is hot.
    public var pausesWhenHot: Bool
    /// Trainings pause between two steps while the system saves power.
    public var pausesOnLowPower: Bool
    /// What becomes of work for a suspended GPU.
    public var whileSuspended: WhileSuspended

    /// Options; without arguments, the defaults.
    public init(
        suspendsInBackground: Bool = true,
        trimsOnMemoryWarning: Bool = true,
        pausesWhenHot: Bool = true,
        pausesOnLowPower: Bool = true,
        whileSuspended: WhileSuspended = .wait
    ) {
        self.suspendsInBackground = suspendsInBackground
        self.trimsOnMemoryWarning = trimsOnMemoryWarning
        self.pausesWhenHot = pausesWhenHot
        self.pausesOnLowPower = pausesOnLowPower
        self.whileSuspended = whileSuspended
    }
}

/// What the app was told of itself.
public struct LifeCycleState: Sendable, Hashable {
    /// Whether it is in the background.
    public internal(set) var isInBackground = false
    /// Whether the device is hot.
    public internal(set) var isHot = false
    /// Whether the system saves power.
    public internal(set) var savesPower = false
}

/// Who tells what the system says.
protocol NoticeSource {
    /// Calls `tell` for each notice, on any thread, from now on.
    func begin(_ tell: @escaping @Sendable (SystemNotice) -> Void)
}

/// A GPU that is suspended and resumed. Each function says whether it is open still.
protocol SuspendableDevice: Sendable {
    /// The same number for the same GPU, opened however often.
    var identity: Int64 { get }
    func suspend() throws(WeftError) -> Bool
    func resume() throws(WeftError) -> Bool
    func trim() throws(WeftError) -> Bool
}

/// The life of devices in an app that moves to the background and back, is asked for memory, gets hot, and runs on a battery.
///
/// ``shared`` has every device that is opened. On Apple's systems their notices come to it by themselves; elsewhere, and for notices of
/// the app's own, ``handle(_:)`` takes them. What happens is said by ``options``.
///
/// Functions that suspend (`async`) wait as ``LifeCycleOptions/whileSuspended`` says; ``Session/step()`` and others that block are
/// refused on a suspended GPU: ``WeftError/Kind/suspended``. The CPU may work in the background.
public final class LifeCycle: @unchecked Sendable {
    /// That of this process.
    public static let shared = LifeCycle()

    /// What waits, and for what.
    struct Work: Sendable {
        let onGPU: Bool
        var isTraining = false
    }

    private struct Rules {
        var state = LifeCycleState()
        var options = LifeCycleOptions()

        var suspends: Bool { state.isInBackground && options.suspendsInBackground }
        var pauses: Bool { state.isHot && options.pausesWhenHot || state.savesPower && options.pausesOnLowPower }

        func hold(_ work: Work) -> Bool { work.onGPU && suspends || work.isTraining && pauses }
    }

    /// Held by who suspends or resumes, so that the last notice decides.
    private let transition = NSLock()
    // all of what follows is reached with the lock of the condition
    private let changed = NSCondition()
    private var rules = Rules()
    /// Counts changes of the rules.
    private var version = 0
    private var inFlight = 0
    private var areSuspended = false
    private var devices: [any SuspendableDevice] = []
    private var waiting: [UUID: CheckedContinuation<Void, Never>] = [:]
    private var watching: [UUID: AsyncStream<LifeCycleState>.Continuation] = [:]

    init() {}

    // MARK: What apps use

    /// What happens by itself. A change counts at once.
    public var options: LifeCycleOptions {
        get { changed.withLock { rules.options } }
        set { change { $0.options = newValue } }
    }

    /// What the app was told.
    public var state: LifeCycleState { changed.withLock { rules.state } }

    /// What the app was told, now and after each change.
    public var states: AsyncStream<LifeCycleState> {
        let (stream, continuation) = AsyncStream.makeStream(
            of: LifeCycleState.self, bufferingPolicy: .bufferingNewest(1))
        let id = UUID()
        continuation.onTermination = { [weak self] _ in
            self?.changed.withLock { self?.watching[id] = nil }
        }
        changed.withLock {
            continuation.yield(rules.state)
            watching[id] = continuation
        }
        return stream
    }

    /// Does what the options say. At ``SystemNotice/background`` it returns when no step is on a GPU any more and all are suspended, as
    /// iOS wants it of who handles that notice.
    public func handle(_ notice: SystemNotice) {
        switch notice {
        case .background: change { $0.state.isInBackground = true }
        case .foreground: change { $0.state.isInBackground = false }
        case .hot(let hot): change { $0.state.isHot = hot }
        case .lowPower(let saves): change { $0.state.savesPower = saves }
        case .memoryWarning:
            if options.trimsOnMemoryWarning { each { device throws(WeftError) in try device.trim() } }
        }
    }

    // MARK: Notices and devices

    /// Listens to who tells notices.
    func follow(_ source: some NoticeSource) {
        source.begin { [weak self] in self?.handle($0) }
    }

    /// Lets a device follow until it is closed; returns the one that follows already, if the GPU was opened before.
    @discardableResult
    func add<Device: SuspendableDevice>(_ device: Device) -> Device {
        transition.withLock {
            let (known, suspended) = changed.withLock {
                let known = devices.first { $0.identity == device.identity } as? Device
                if known == nil { devices.append(device) }
                return (known, areSuspended)
            }
            // one that fails tells whoever uses it next
            if suspended && known == nil { _ = try? device.suspend() }
            return known ?? device
        }
    }

    /// Calls each device; those that are closed are forgotten. A device that fails does not keep the others from it: it tells whoever
    /// uses it next.
    private func each(_ call: (any SuspendableDevice) throws(WeftError) -> Bool) {
        // devices may come in the meantime, at the end; none goes, but here
        let all = changed.withLock { devices }
        var open: [any SuspendableDevice] = []
        for device in all where (try? call(device)) ?? true { open.append(device) }
        changed.withLock { devices = open + devices.dropFirst(all.count) }
    }

    private func change(_ next: (inout Rules) -> Void) {
        transition.withLock {
            var after = changed.withLock { rules }
            next(&after)
            if changed.withLock({ areSuspended }) {
                // devices work before anybody is let in
                if !after.suspends {
                    each { device throws(WeftError) in try device.resume() }
                    changed.withLock { areSuspended = false }
                }
                publish(after)
            } else {
                publish(after)
                guard after.suspends else { return }
                changed.withLock {
                    while inFlight > 0 { changed.wait() }
                    areSuspended = true
                }
                each { device throws(WeftError) in try device.suspend() }
            }
        }
    }

    private func publish(_ after: Rules) {
        let (resumed, watched, state) = changed.withLock {
            let differs = rules.state != after.state
            rules = after
            version += 1
            changed.broadcast()
            defer { waiting = [:] }
            return (Array(waiting.values), differs ? Array(watching.values) : [], rules.state)
        }
        for continuation in resumed { continuation.resume() }
        for continuation in watched { continuation.yield(state) }
    }

    // MARK: Work

    /// Whether a GPU of this life is suspended, or about to be.
    var suspends: Bool { changed.withLock { rules.suspends } }

    /// Where work is let in.
    enum Turn {
        /// Here; whoever got this ends it.
        case here
        /// On the CPU, instead of a suspended GPU.
        case onCPU
        /// Not while the rules are of this version.
        case later(Int)
    }

    /// Lets work in, if nothing holds it. With the lock.
    private func tryToBegin(_ work: Work, orOnCPU: Bool) throws(WeftError) -> Turn {
        if !rules.hold(work) {
            if work.onGPU { inFlight += 1 }
            return .here
        }
        if work.onGPU && rules.suspends {
            switch rules.options.whileSuspended {
            case .wait: break
            case .useCPU: if orOnCPU { return .onCPU }
            case .refuse:
                throw WeftError(.suspended, "the device is suspended: the app is in the background (LifeCycle)")
            }
        }
        return .later(version)
    }

    /// Lets work in, if nothing holds it.
    func attempt(_ work: Work, orOnCPU: Bool = false) throws(WeftError) -> Turn {
        let outcome: Result<Turn, WeftError> = changed.withLock {
            do throws(WeftError) {
                return .success(try tryToBegin(work, orOnCPU: orOnCPU))
            } catch {
                return .failure(error)
            }
        }
        return try outcome.get()
    }

    /// Returns when work may begin, and where; no thread waits meanwhile.
    func turn(_ work: Work, orOnCPU: Bool = false) async throws -> Turn {
        while true {
            try Task.checkCancellation()
            let turn = try attempt(work, orOnCPU: orOnCPU)
            guard case .later(let version) = turn else { return turn }
            await change(after: version)
        }
    }

    /// Returns when the rules are of a later version, or when the task is cancelled.
    private func change(after seen: Int) async {
        let id = UUID()
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let goesOn = changed.withLock {
                    // a cancellation before this found nobody to wake
                    if version != seen || Task.isCancelled { return true }
                    waiting[id] = continuation
                    return false
                }
                if goesOn { continuation.resume() }
            }
        } onCancel: {
            changed.withLock { waiting.removeValue(forKey: id) }?.resume()
        }
    }

    /// As ``turn``, for work that has a thread of its own, below which native code is. False if it was cancelled meanwhile.
    func waitForTurn(_ work: Work, unless cancelled: () -> Bool) throws(WeftError) -> Bool {
        while !cancelled() {
            guard case .later(let version) = try attempt(work) else { return true }
            changed.withLock {
                // nobody tells of a cancellation
                if self.version == version { _ = changed.wait(until: Date(timeIntervalSinceNow: 0.05)) }
            }
        }
        return false
    }

    /// Ends work that was let in here.
    func end(_ work: Work) {
        changed.withLock {
            if work.onGPU { inFlight -= 1 }
            changed.broadcast()
        }
    }
}
