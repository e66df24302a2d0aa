// Errors: one type for whatever fails, made from those of the C ABI and of uniffi's functions.

internal import CWeft
import Foundation
internal import WeftBindings

/// What went wrong: the ``kind``, and in the ``message`` who failed, what was wanted and what came.
///
/// Every function of this library that throws, throws this type; functions that suspend also throw `CancellationError`, when their
/// task is cancelled.
public struct WeftError: Error, Sendable, Hashable {
    /// The sort of error. Raw values are the stable codes of the C library's `WEFT_STATUS_…`.
    public enum Kind: Int, Sendable, Hashable, Codable, CaseIterable {
        /// A reference that must not be null is null.
        case null = 1
        /// The object was closed.
        case closed = 2
        /// Another call is using the object, which cannot be shared.
        case busy = 3
        /// A text is not valid Unicode.
        case unicode = 4
        /// The library panicked: a defect of Weft.
        case panic = 6
        /// The native library is of another version than this Swift library.
        case library = 10
        /// An operation was given inputs or attributes it does not accept.
        case op = 100
        /// The graph as a whole is malformed.
        case graph = 101
        /// Values of a graph's text form depend on each other in a cycle.
        case cycle = 102
        /// The text form of a graph does not parse.
        case parse = 103
        /// An operation has no gradient with respect to an input that needs one.
        case noGradient = 104
        /// The weights lack one that the graph needs.
        case missingWeight = 200
        /// A weight's shape or type differs from the graph's parameter.
        case weightType = 201
        /// No input, output, parameter or weight of that name.
        case unknownName = 300
        /// Data of the wrong length.
        case length = 301
        /// Data of the wrong element type.
        case dType = 302
        /// A step without data for an input.
        case inputNotSet = 303
        /// An output index outside the session's outputs.
        case outputIndex = 304
        /// A step was refused: an index in its data is outside its table.
        case indexOutOfRange = 305
        /// Results were asked for before a step.
        case notRun = 306
        /// An argument outside its range.
        case argument = 307
        /// A file could not be read or written.
        case io = 400
        /// A file is not valid safetensors.
        case safetensors = 401
        /// A configuration file is not as it should be.
        case config = 402
        /// A file cannot be loaded as an artifact.
        case artifact = 403
        /// A model's architecture is not supported.
        case architecture = 500
        /// An option of a model is not supported.
        case modelOption = 501
        /// A tokenizer could not be read or used.
        case tokenizer = 502
        /// A device cannot be used.
        case device = 600
        /// Not enough memory.
        case outOfMemory = 601
        /// The device no longer responds.
        case deviceLost = 602
        /// A GPU driver failed.
        case driver = 603
        /// The caller cancelled the work.
        case cancelled = 604
        /// The device is suspended.
        case suspended = 605
        /// The object was made before the process was forked.
        case forked = 606
        /// A defect of Weft.
        case `internal` = 900
    }

    /// The sort of error.
    public let kind: Kind
    /// Its stable number, as the C library has it; the raw value of ``kind``, unless the native library is newer and has one more.
    public let code: Int
    /// A sentence: who failed, what was wanted, what came.
    public let message: String
    /// What was wanted, where the sort of error has it.
    public let wanted: String?
    /// What came, where the sort of error has it.
    public let came: String?
    /// The graph's node, where there is one.
    public let node: String?

    init(_ code: Int, _ message: String, wanted: String? = nil, came: String? = nil, node: String? = nil) {
        self.kind = Kind(rawValue: code) ?? .internal
        self.code = code
        self.message = message
        self.wanted = wanted
        self.came = came
        self.node = node
    }

    init(_ kind: Kind, _ message: String, wanted: String? = nil, came: String? = nil) {
        self.init(kind.rawValue, message, wanted: wanted, came: came)
    }

    /// An argument outside its range.
    static func argument(_ what: String, wanted: String, came: String) -> WeftError {
        WeftError(.argument, "\(what): wanted \(wanted), got \(came)", wanted: wanted, came: came)
    }

    /// Of the C ABI, whose error object is freed.
    init(status: weft_status, error: OpaquePointer?) {
        defer { _ = weft_error_free(error) }
        guard let error else {
            self.init(Int(status), weft_status_name(status).map { String(cString: $0) } ?? "status \(status)")
            return
        }
        var (wanted, came, node) = (weft_str(), weft_str(), weft_str())
        _ = weft_apps_error_details(error, &wanted, &came, &node)
        let message = String(weft_error_message(error)) ?? ""
        self.init(Int(status), message, wanted: String(wanted), came: String(came), node: String(node))
    }

    /// Of uniffi's functions.
    init(_ error: any Error) {
        switch error {
        case let error as WeftError:
            self = error
        case WeftBindings.WeftError.Failed(let d):
            self.init(Int(d.code), d.message, wanted: d.wanted, came: d.came, node: d.node)
        default:
            self.init(.internal, "internal error (please report it): \(error)")
        }
    }
}

extension WeftError: LocalizedError, CustomStringConvertible {
    /// The ``message``.
    public var errorDescription: String? { message }

    /// The kind and the message.
    public var description: String { "\(kind) (\(code)): \(message)" }
}

extension String {
    /// A text of the C ABI; nil for NULL.
    init?(_ text: weft_str) {
        guard let data = text.data else { return nil }
        let bytes = UnsafeRawBufferPointer(start: data, count: text.length)
        self = String(decoding: bytes, as: UTF8.self)
    }
}
