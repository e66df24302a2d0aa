// Sentence models: texts in, embeddings out.

internal import CWeft
import Foundation
internal import WeftBindings

/// The prompt put before texts.
public enum Prompt: Sendable, Hashable, Codable {
    /// The model's default prompt; often empty.
    case `default`
    /// No prompt.
    case none
    /// The model's prompt of this name; every model has "query" and "document", which may be empty.
    case named(String)
    /// This text.
    case text(String)
}

/// A sentence encoder: a model with its tokenizer, from a Hugging Face folder. Tasks may share it; setting a prompt and adding an
/// artifact need it alone, and are ``WeftError/Kind/busy`` otherwise.
public final class SentenceModel: Sendable {
    private let native: NativeEncoder
    private let handle: Handle
    /// Components of an embedding.
    public let components: Int
    /// Tokens that are read of a text at most.
    public let maxTokens: Int

    /// Texts between two looks at whether the task was cancelled.
    private static let chunk = 64

    private init(_ native: NativeEncoder) throws(WeftError) {
        self.native = native
        handle = Handle(native.tableHandle())
        components = Int(try Weft.native { try native.components() })
        maxTokens = Int(try Weft.native { try native.maxTokens() })
    }

    /// Opens a folder, on a thread for it.
    public static func open(_ folder: URL, on device: Device, precision: Precision = .full) async throws
        -> SentenceModel
    {
        let path = try path(of: folder)
        return try await working {
            try SentenceModel(
                Weft.native {
                    try NativeEncoder.open(device: device.native, folder: path, precision: precision.native)
                })
        }
    }

    /// What was odd in the folder and did not matter.
    public var warnings: [String] {
        get throws(WeftError) { try Weft.native { try native.warnings() } }
    }

    /// What its sessions take.
    public func memory() throws(WeftError) -> MemorySummary {
        MemorySummary(try Weft.native { try native.memory() })
    }

    /// Sets the prompt put before texts from now on.
    public func setPrompt(_ prompt: Prompt) throws(WeftError) {
        let given: TextPrompt =
            switch prompt {
            case .default: .default
            case .none: .none
            case .named(let name): .named(name: name)
            case .text(let text): .text(text: text)
            }
        try Weft.native { try native.setPrompt(prompt: given) }
    }

    /// Takes sizes that were compiled ahead from an artifact; returns how many.
    @discardableResult
    public func add(_ artifact: Artifact) throws(WeftError) -> Int {
        Int(try Weft.native { try native.addArtifact(artifact: artifact.native) })
    }

    /// The embedding of a text, of ``components`` numbers, on a thread for it.
    public func embed(_ text: String) async throws -> [Float] {
        try await working { try self.embedded([text]) }
    }

    /// The embeddings of texts, in their order, on a thread for it. Cancelling the task ends it after some dozens of texts.
    public func embed(_ texts: [String]) async throws -> [[Float]] {
        var all: [[Float]] = []
        all.reserveCapacity(texts.count)
        for start in stride(from: 0, to: texts.count, by: Self.chunk) {
            try Task.checkCancellation()
            let some = Array(texts[start..<min(start + Self.chunk, texts.count)])
            let found = try await working { try self.embedded(some) }
            for at in some.indices {
                all.append(Array(found[at * components..<(at + 1) * components]))
            }
        }
        return all
    }

    /// Embeddings, one after the other.
    private func embedded(_ texts: [String]) throws(WeftError) -> [Float] {
        var bytes: [UInt8] = []
        var ends: [Int] = []
        for text in texts {
            bytes.append(contentsOf: text.utf8)
            ends.append(bytes.count)
        }
        var found = [Float](repeating: 0, count: texts.count * components)
        let count = found.count
        try handle.call(for: native) { encoder, error in
            bytes.withUnsafeBytes { bytes in
                var start = 0
                let lent = ends.map { end in
                    defer { start = end }
                    let part = UnsafeRawBufferPointer(rebasing: bytes[start..<end])
                    return weft_str(data: part.baseAddress?.assumingMemoryBound(to: CChar.self), length: part.count)
                }
                return found.withUnsafeMutableBufferPointer {
                    weft_encoder_embed(encoder, lent, lent.count, $0.baseAddress, count, nil, nil, error)
                }
            }
        }
        return found
    }

    /// Closes it.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }
}
