// Search by meaning.

import Foundation
import Weft

/// A note that was found.
public struct Found: Sendable, Hashable {
    /// The note.
    public let note: Note
    /// Cosine of the angle between its embedding and the query's, -1 to 1.
    public let similarity: Float
}

/// Finds notes by what they mean: those whose embeddings are nearest to the query's. Embeddings are computed once a text, and kept in a
/// safetensors file, which is made again where it is missing or damaged.
public actor Finder {
    /// Few, so that cancelling does not take long; more at once are hardly faster.
    private static let atOnce = 8

    private let model: SentenceModel
    private let file: URL
    private var known: [String: [Float]] = [:]

    /// A finder that keeps its embeddings in a folder.
    public init(model: SentenceModel, folder: URL) throws {
        self.model = model
        file = folder.appendingPathComponent("embeddings.safetensors")
        guard FileManager.default.fileExists(atPath: file.path) else { return }
        do {
            known = try Self.load(file, components: model.components)
        } catch let error as WeftError where error.kind == .safetensors {
            // computed again
        }
    }

    private static func load(_ file: URL, components: Int) throws -> [String: [Float]] {
        let weights = try Weights.load(from: file)
        var known: [String: [Float]] = [:]
        // the others are of another model
        for tensor in try weights.tensors where tensor.shape == [components] && tensor.type == .f32 {
            known[tensor.name] = try weights.tensor(tensor.name, of: Float.self).elements
        }
        return known
    }

    /// A text's name in the file, which no text can make another entry of.
    private static func key(_ text: String) -> String { "text:" + text }

    /// Whether there is an embedding of each of these notes.
    public func knows(_ notes: [Note]) -> Bool {
        notes.allSatisfy { known[Self.key($0.text)] != nil }
    }

    /// Computes the embeddings that these notes lack, some at a time, and saves them. Cancelling leaves those that are there.
    ///
    /// - Parameter onProgress: gets how many of how many are done.
    public func read(_ notes: [Note], onProgress: @Sendable (Int, Int) async throws -> Void = { _, _ in }) async throws
    {
        var seen: Set<String> = []
        let lacking = notes.map(\.text).filter { known[Self.key($0)] == nil && seen.insert($0).inserted }
        guard !lacking.isEmpty else { return }
        var done = 0
        do {
            try await onProgress(0, lacking.count)
            while done < lacking.count {
                let some = Array(lacking[done..<min(done + Self.atOnce, lacking.count)])
                for (text, embedding) in zip(some, try await model.embed(some)) { known[Self.key(text)] = embedding }
                done += some.count
                try await onProgress(done, lacking.count)
            }
        } catch {
            if done > 0 { try save() }
            throw error
        }
        try save()
    }

    private func save() throws {
        let weights = try Weights()
        for (name, embedding) in known { try weights.set(name, Tensor(embedding)) }
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try weights.save(to: file)  // whole or not at all
    }

    /// The embeddings of notes, which are read if they were not.
    public func embeddings(of notes: [Note]) async throws -> [[Float]] {
        try await read(notes)
        return notes.compactMap { known[Self.key($0.text)] }
    }

    /// The notes nearest to a query, the nearest first.
    public func find(_ query: String, in notes: [Note], most: Int = 10) async throws -> [Found] {
        guard !query.allSatisfy(\.isWhitespace), !notes.isEmpty else { return [] }
        let embeddings = try await embeddings(of: notes)
        let wanted = try await model.embed(query)
        // the model's embeddings have length 1
        let found = zip(notes, embeddings).map { note, embedding in
            Found(note: note, similarity: zip(wanted, embedding).reduce(0) { $0 + $1.0 * $1.1 })
        }
        return Array(found.sorted { $0.similarity > $1.similarity }.prefix(most))
    }
}
