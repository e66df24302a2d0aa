// The library as a whole: its version, optimizers, log.

import Foundation
internal import WeftBindings

/// The library as a whole.
public enum WeftLibrary {
    /// The version of this library.
    public static var version: String { LibraryVersion.version }

    /// Compares the native library's version with this one's, which the first call of the library does otherwise.
    ///
    /// - Throws: ``WeftError/Kind/library``, which names the two versions.
    public static func check() throws(WeftError) {
        try LibraryVersion.checked.get()
    }

    /// The names of all optimizers.
    public static func optimizerNames() throws(WeftError) -> [String] {
        try native { WeftBindings.optimizerNames() }
    }
}

/// The log of the whole process.
public enum Log {
    /// How much a line matters.
    public enum Level: Int, Sendable, Hashable, Codable, CaseIterable, Comparable {
        /// Something is lost: for example a device that no longer responds.
        case error
        /// An anomaly that was handled.
        case warn
        /// Major events: devices opened, graphs compiled.
        case info
        /// Details.
        case debug

        /// By how much is told: errors are the least.
        public static func < (one: Level, other: Level) -> Bool { one.rawValue < other.rawValue }
    }

    /// Sends lines up to `level` to `handler` from now on, on the thread where they happen: any.
    public static func handle(
        upTo level: Level,
        _ handler: @escaping @Sendable (_ level: Level, _ line: String) -> Void
    ) throws(WeftError) {
        try native { setLog(level: level.native, hook: Hook(handler)) }
    }

    /// Ends what ``handle(upTo:_:)`` began. A line may still be on its way when this returns.
    public static func stop() throws(WeftError) {
        try native { setLog(level: .error, hook: nil) }
    }
}

private final class Hook: LogHook {
    private let handler: @Sendable (Log.Level, String) -> Void

    init(_ handler: @escaping @Sendable (Log.Level, String) -> Void) {
        self.handler = handler
    }

    func line(level: LogLevel, text: String) {
        handler(Log.Level(level), text)
    }
}

extension Log.Level {
    fileprivate var native: LogLevel {
        switch self {
        case .error: .error
        case .warn: .warn
        case .info: .info
        case .debug: .debug
        }
    }

    fileprivate init(_ level: LogLevel) {
        switch level {
        case .error: self = .error
        case .warn: self = .warn
        case .info: self = .info
        case .debug: self = .debug
        }
    }
}
