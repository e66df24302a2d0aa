// A classifier that learns the user's labels.

import Foundation
import Weft

/// A guess at a note's label.
public struct Guess: Sendable, Hashable {
    /// The label.
    public let label: String
    /// What the classifier gives it, 0 to 1.
    public let probability: Float
}

/// Learns the user's labels: a linear classifier over the notes' embeddings (softmax regression), trained on the device with Adam. It is
/// small, so each step takes all labelled notes at once. What it learnt stays in a folder.
public actor Teacher {
    private static let rows = 16
    private static let noAnswer: Int32 = -100
    private static let learningRate: Float = 0.05

    /// Which files hold, and the labels in their order.
    private struct Current: Codable {
        var weights: String
        var labels: [String]
    }

    private let device: Device
    private let components: Int
    private let folder: URL
    private var session: Session?

    /// The labels that it tells apart, sorted; none before it has learnt.
    public private(set) var labels: [String] = []

    /// A teacher for embeddings of so many components.
    public init(device: Device, components: Int, folder: URL) {
        self.device = device
        self.components = components
        self.folder = folder
    }

    /// Takes up what an earlier process has learnt, if it did.
    public func restore() async throws {
        guard let current = try current() else { return }
        let weights = try Weights.load(from: folder.appendingPathComponent(current.weights))
        try await use(current.labels, weights)
    }

    /// Learns the labels of notes. Cancelling ends it within a step, and leaves what was learnt before.
    ///
    /// - Parameters:
    ///   - examples: embeddings with the labels of their notes.
    ///   - steps: steps of training.
    ///   - onStep: gets each step, with the mean loss in it.
    public func learn(
        _ examples: [(embedding: [Float], label: String)], steps: Int = 200,
        onStep: @Sendable (TrainingStep) async throws -> Void = { _ in }
    ) async throws {
        let labels = Set(examples.map(\.label)).sorted()
        guard labels.count >= 2 else { throw NotesError.tooFewLabels(labels.count) }
        let rows = (examples.count + Self.rows - 1) / Self.rows * Self.rows
        var inputs = examples.flatMap(\.embedding)
        inputs += [Float](repeating: 0, count: rows * components - inputs.count)
        var answers = examples.map { example in labels.firstIndex(of: example.label).map { Int32($0) } ?? Self.noAnswer
        }
        answers += [Int32](repeating: Self.noAnswer, count: rows - answers.count)
        let batch: [String: any TensorData & Sendable] = [
            "embeddings": try Tensor(inputs, shape: [rows, components]), "labels": Tensor(answers),
        ]
        let learner = try await compiled(rows: rows, labels: labels.count, training: true).sessionOfZeros()
        try learner.setOptimizer(.adam(learningRate: Self.learningRate))
        for try await step in learner.train(batch, epochs: steps) { try await onStep(step) }
        // a stream of a cancelled task ends without an error
        try Task.checkCancellation()
        let weights = try learner.parameters().weights()
        try save(labels, weights)
        try await use(labels, weights)
    }

    /// The labels of a note, the likeliest first; none before it has learnt.
    public func guess(_ embedding: [Float]) throws -> [Guess] {
        guard let session else { return [] }
        try session.set("embeddings", embedding)
        try session.step()
        let probabilities = try session.read("probabilities", as: Float.self).elements
        return zip(labels, probabilities).map { Guess(label: $0, probability: $1) }
            .sorted { $0.probability > $1.probability }
    }

    private func use(_ labels: [String], _ weights: Weights) async throws {
        session = try await compiled(rows: 1, labels: labels.count, training: false).session(weights: weights)
        self.labels = labels
    }

    private func compiled(rows: Int, labels: Int, training: Bool) async throws -> CompiledGraph {
        let graph = try Graph(parsing: text(rows: rows, labels: labels, training: training))
        return try await device.compile(graph, options: CompileOptions(training: training))
    }

    /// The graph; to train, with the loss, in which rows without an answer count nothing.
    private func text(rows: Int, labels: Int, training: Bool) -> String {
        """
        weft 1
        input embeddings: f32[\(rows), \(components)]
        \(training ? "input labels: i32[\(rows)]" : "")
        param weight: f32[\(labels), \(components)]
        param bias: f32[\(labels)]

        logits = linear(embeddings, weight, bias)
        probabilities = softmax(logits, axis=-1)
        output probabilities = probabilities
        \(training ? "mean = cross_entropy(logits, labels, ignore_index=\(Self.noAnswer), label_smoothing=0.0)\nloss mean" : "")

        """
    }

    /// Weights have a new name each time, and one file, replaced whole, says which name holds, and the labels.
    private func save(_ labels: [String], _ weights: Weights) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let before = try current()
        let name = "classifier-\(UUID().uuidString).safetensors"
        try weights.save(to: folder.appendingPathComponent(name))
        try JSONEncoder().encode(Current(weights: name, labels: labels)).write(to: currentFile, options: .atomic)
        if let before { try? FileManager.default.removeItem(at: folder.appendingPathComponent(before.weights)) }
    }

    private var currentFile: URL { folder.appendingPathComponent("classifier.json") }

    private func current() throws -> Current? {
        guard FileManager.default.fileExists(atPath: currentFile.path) else { return nil }
        return try JSONDecoder().decode(Current.self, from: Data(contentsOf: currentFile))
    }
}
