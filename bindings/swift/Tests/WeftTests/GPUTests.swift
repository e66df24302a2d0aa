import Foundation
import XCTest

@testable import Weft

/// On a GPU, if there is one: Debian's software Vulkan serves. Not under ThreadSanitizer, which knows nothing of a driver's threads.
final class GPUTests: XCTestCase {
    private func needsAGPU() async throws {
        let all = try await Device.all()
        guard all.contains(where: { $0.kind != .cpu && $0.refused == nil }) else { throw XCTSkip("there is no GPU") }
    }

    func testAGPUIsSuspendedInTheBackgroundAndGoesOnWhereItWas() async throws {
        try await needsAGPU()
        let life = LifeCycle.shared
        defer {
            life.options = LifeCycleOptions()
            life.handle(.foreground)
        }
        let gpu = try await Device.open(.gpu)
        XCTAssertTrue(gpu.place.isGPU)
        let session = try await gpu.compile(Graph(parsing: Samples.square)).sessionOfZeros()
        let x = Tensor<Float>([1, 2, 3])
        try await session.run(["x": x])
        life.handle(.background)
        XCTAssertTrue(try gpu.isSuspended)
        fails(.suspended) { try session.step() }
        let running = Task {
            try await session.run(["x": Tensor<Float>([3, 4, 5])])
            return try session.read("y", as: Float.self).elements
        }
        let compiling = Task { try await gpu.compile(Graph(parsing: Samples.square)).sessionOfZeros() }
        try await Task.sleep(for: .milliseconds(100))
        XCTAssertTrue(try gpu.isSuspended)
        life.handle(.memoryWarning)
        life.handle(.foreground)
        XCTAssertFalse(try gpu.isSuspended)
        let squares = try await running.value
        XCTAssertEqual(squares, [9, 16, 25])
        try await compiling.value.run(["x": x])

        // sessions keep a device that was closed, and it follows all the same
        try gpu.close()
        life.handle(.background)
        fails(.suspended) { try session.step() }
        life.handle(.foreground)
        try session.step()

        // the app's own suspension is its own to end, whatever the system says meanwhile
        let other = try await Device.open(.gpu)
        try other.suspend()
        life.handle(.background)
        life.handle(.foreground)
        XCTAssertTrue(try other.isSuspended)
        life.handle(.background)
        try other.resume()
        XCTAssertTrue(try other.isSuspended)
        life.handle(.foreground)
        XCTAssertFalse(try other.isSuspended)
    }

    func testATrainingOnAGPUIsSuspendedBetweenTwoStepsAndGoesOn() async throws {
        try await needsAGPU()
        let life = LifeCycle.shared
        defer { life.handle(.foreground) }
        let gpu = try await Device.open(.gpu)
        let digits = try Samples.mirrored()[0..<200]
        let batches: [String: any TensorData & Sendable] = [
            "pixels": try Samples.pixels(digits), "labels": Samples.labels(digits),
        ]
        let compiled = try await gpu.compile(
            Graph(parsing: Samples.classifier(20)), options: CompileOptions(training: true))
        func learner() throws -> Session {
            let session = try compiled.session(weights: .load(from: Samples.classifierWeights))
            try session.setOptimizer(.sgd(learningRate: 0.01))
            return session
        }
        let undisturbed = try learner()
        try await undisturbed.train(batches, epochs: 2) { _ in }
        let session = try learner()
        let seen = Lines()
        for try await step in session.train(batches, epochs: 2) {
            if step.done == 4 {
                life.handle(.background)
                seen.add("suspended: \(try gpu.isSuspended)")
                try await Task.sleep(for: .milliseconds(100))
                life.handle(.foreground)
            }
            if step.done == step.all { seen.add("\(step.done) steps") }
        }
        XCTAssertEqual(seen.all, ["suspended: true", "20 steps"])
        for info in session.tensors.parameters {
            let (one, other) = (try session.parameter(info.name), try undisturbed.parameter(info.name))
            XCTAssertEqual(Samples.bits(one), Samples.bits(other), info.name)
        }
    }

    func testSentencesOfAGPUAreThoseRecordedAndGoToTheCPUMeanwhile() async throws {
        try await needsAGPU()
        let life = LifeCycle.shared
        defer {
            life.options = LifeCycleOptions()
            life.handle(.foreground)
        }
        life.options.whileSuspended = .useCPU
        let model = try await SentenceModel.open(Samples.miniLM, on: .open(.gpu))
        let sentence = try XCTUnwrap(Samples.sentences().first)
        for background in [false, true, false] {
            life.handle(background ? .background : .foreground)
            let found = try await model.embed(sentence.text)
            let far = zip(sentence.embedding, found).map { abs($0 - Double($1)) }.max() ?? .infinity
            // as core/tests/minilm.rs has it for GPUs
            XCTAssertLessThanOrEqual(far, 2e-5)
        }
    }
}
