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
    private let place: Place
    /// The model on the CPU, for a GPU that is suspended: made when it is first needed.
    private let onCPU: Guarded<SentenceModel?> = Guarded(nil)
    private let prompt = Guarded(Prompt.default)
    private let openOnCPU: @Sendable () throws -> SentenceModel
    /// Components of an embedding.
    public let components: Int
    /// Tokens that are read of a text at most.
    public let maxTokens: Int

    /// Texts between two looks at whether the task was cancelled.
    private static let chunk = 64

    init(
        _ native: NativeEncoder, _ place: Place, openOnCPU: @escaping @Sendable () throws -> SentenceModel
    ) throws(WeftError) {
        self.native = native
        self.place = place
        self.openOnCPU = openOnCPU
        handle = Handle(native.tableHandle())
        components = Int(try Weft.native { try native.components() })
        maxTokens = Int(try Weft.native { try native.maxTokens() })
    }

    /// Opens a folder, on a thread for it.
    public static func open(_ folder: URL, on device: Device, precision: Precision = .full) async throws
        -> SentenceModel
    {
        let path = try path(of: folder)
        return try await cancellable { cancel in
            try device.place.retry(cancel) { try open(path, on: device, precision) }
        }
    }

    private static func open(_ path: String, on device: Device, _ precision: Precision) throws(WeftError)
        -> SentenceModel
    {
        let native = try Weft.native {
            try NativeEncoder.open(device: device.native, folder: path, precision: precision.native)
        }
        return try SentenceModel(native, device.place) { try open(path, on: .cpu(), .full) }
    }

    /// The model on the CPU, with the prompt of this one.
    private func cpu() throws -> SentenceModel {
        try onCPU.with { made in
            if let made { return made }
            let new = try openOnCPU()
            try new.setPrompt(prompt.with { $0 })
            made = new
            return new
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
        self.prompt.with { $0 = prompt }
        let cpu = onCPU.with { $0 }
        try cpu?.setPrompt(prompt)
    }

    /// Takes sizes that were compiled ahead from an artifact; returns how many.
    @discardableResult
    public func add(_ artifact: Artifact) throws(WeftError) -> Int {
        Int(try Weft.native { try native.addArtifact(artifact: artifact.native) })
    }

    /// The embedding of a text, of ``components`` numbers: as for several texts.
    public func embed(_ text: String) async throws -> [Float] {
        try await some([text])
    }

    /// The embeddings of texts, in their order, on a thread for it. Cancelling the task ends it after some dozens of texts. On a GPU it
    /// waits while the app is in the background, or goes to the CPU: see ``LifeCycleOptions/whileSuspended``.
    public func embed(_ texts: [String]) async throws -> [[Float]] {
        var all: [[Float]] = []
        all.reserveCapacity(texts.count)
        for start in stride(from: 0, to: texts.count, by: Self.chunk) {
            try Task.checkCancellation()
            let some = Array(texts[start..<min(start + Self.chunk, texts.count)])
            let found = try await self.some(some)
            for at in some.indices {
                all.append(Array(found[at * components..<(at + 1) * components]))
            }
        }
        return all
    }

    /// Embeddings, one after the other, on a thread for them, where the life of the app wants it.
    private func some(_ texts: [String]) async throws -> [Float] {
        try await place.run {
            try await working { try self.embedded(texts) }
        } onCPU: {
            try await working { try self.cpu().embedded(texts) }
        }
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
        let cpu = onCPU.with { made in
            defer { made = nil }
            return made
        }
        try cpu?.close()
    }
}
