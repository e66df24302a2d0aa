import Foundation
import XCTest

@testable import Weft

/// The digits' classifier learns a hand that it does not know.
final class TrainingTests: XCTestCase {
    private struct Hand {
        let device: Device
        let examples: ArraySlice<Samples.Digit>
        let others: ArraySlice<Samples.Digit>
        let batches: [String: any TensorData & Sendable]

        init() throws {
            device = try Device.cpu(threads: 2)
            let all = try Samples.mirrored()
            examples = all[0..<600]
            others = all[600..<1000]
            batches = ["pixels": try Samples.pixels(examples), "labels": Samples.labels(examples)]
        }

        func learner() async throws -> Session {
            let graph = try Graph(parsing: Samples.classifier(20))
            let compiled = try await device.compile(graph, options: CompileOptions(training: true))
            let session = try compiled.session(weights: .load(from: Samples.classifierWeights))
            try session.setOptimizer(.adam(learningRate: 1e-3))
            return session
        }

        func accuracy(_ parameters: Parameters) async throws -> Double {
            let compiled = try await device.compile(Graph(parsing: Samples.classifier(others.count)))
            let session = try compiled.session(sharing: parameters)
            try await session.run(["pixels": Samples.pixels(others), "labels": Samples.labels(others)])
            let all: Tensor<Float> = try session.read("probabilities")
            let right = others.enumerated().filter { at, digit in
                (0..<10).max { all[at, $0] < all[at, $1] } == Int(digit.digit)
            }
            return Double(right.count) / Double(others.count)
        }

        /// The parameters of another session after so many steps of the same batches, one by one.
        func bits(after steps: Int) async throws -> [String: [UInt32]] {
            let session = try await learner()
            for at in 0..<steps {
                let batch = examples[at * 20..<at * 20 + 20]
                try session.set("pixels", Samples.pixels(batch))
                try session.set("labels", Samples.labels(batch))
                try session.step()
                try session.wait()
            }
            return try parameterBits(session)
        }
    }

    private static func collect(
        _ steps: AsyncThrowingStream<TrainingStep, any Error>, atMost: Int = .max
    ) async throws -> [TrainingStep] {
        var seen: [TrainingStep] = []
        for try await step in steps {
            seen.append(step)
            if seen.count == atMost { break }
        }
        return seen
    }

    func testFineTuningOnANewHandTellsEachStepAndMakesItsDigitsReadable() async throws {
        let hand = try Hand()
        let session = try await hand.learner()
        let before = try await hand.accuracy(session.parameters())
        let steps = try await TrainingTests.collect(session.train(hand.batches, epochs: 20))
        XCTAssertEqual(steps.map(\.done), Array(1...600))
        XCTAssertTrue(steps.allSatisfy { $0.all == 600 })
        XCTAssertEqual(try session.optimizerSteps, 600)
        let first = steps.prefix(30).map(\.loss).reduce(0, +)
        let last = steps.suffix(30).map(\.loss).reduce(0, +)
        XCTAssertLessThan(last, first / 3)
        let after = try await hand.accuracy(session.parameters())
        XCTAssertTrue(before < 0.6 && after > 0.85, "accuracy \(before), then \(after)")

        // what was learnt is saved, and is there again
        let file = try temporaryFolder().appendingPathComponent("learnt.safetensors")
        try session.parameters().weights().save(to: file)
        let compiled = try await hand.device.compile(Graph(parsing: Samples.classifier(20)))
        let again = try compiled.session(weights: .load(from: file))
        let read = try await hand.accuracy(again.parameters())
        XCTAssertEqual(read, after)
    }

    func testATrainingThatIsLeftInTheMidstIsWhatSoManyStepsMadeOfItAndGoesOn() async throws {
        let hand = try Hand()
        // more than once: the reader and the thread that trains race
        for _ in 0..<20 {
            let raced = try await hand.learner()
            let seen = try await TrainingTests.collect(raced.train(hand.batches), atMost: 7)
            XCTAssertEqual(seen.map(\.done), Array(1...7))
            let made = try raced.optimizerSteps
            XCTAssertTrue((7...8).contains(made), "\(made) steps, 7 of them seen")
        }
        let session = try await hand.learner()
        _ = try await TrainingTests.collect(session.train(hand.batches), atMost: 7)
        let made = try session.optimizerSteps
        let wanted = try await hand.bits(after: made)
        XCTAssertEqual(try parameterBits(session), wanted)
        let further = try await TrainingTests.collect(session.train(hand.batches))
        XCTAssertEqual(further.count, 30)
    }

    func testATrainingIsCancelledWithItsTaskWithinOneStep() async throws {
        let hand = try Hand()
        let batches = hand.batches
        let session = try await hand.learner()
        // by a stream
        let seen = Counter()
        let reading = Task {
            for try await step in session.train(batches, epochs: 1000) { seen.set(step.done) }
        }
        while seen.value < 5 { await Task.yield() }
        reading.cancel()
        // a reader that is cancelled sees the end of the stream, or the cancellation
        let end = await reading.result
        if case .failure(let error) = end { XCTAssertTrue(error is CancellationError, "\(error)") }
        let told = seen.value
        let made = try session.optimizerSteps
        XCTAssertTrue((told...told + 1).contains(made), "\(made) steps, \(told) of them seen")
        let wanted = made <= 30 ? try await hand.bits(after: made) : nil
        if let wanted { XCTAssertEqual(try parameterBits(session), wanted) }

        // by a function
        let done = Counter()
        let training = Task {
            try await session.train(batches, epochs: 1000) { step in
                done.set(step.done)
            }
        }
        while done.value < 5 { await Task.yield() }
        training.cancel()
        let outcome = await training.result
        XCTAssertThrowsError(try outcome.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        XCTAssertEqual(try session.optimizerSteps, made + done.value)
        XCTAssertLessThan(done.value, 30_000)
        let further = try await TrainingTests.collect(session.train(batches))
        XCTAssertEqual(further.count, 30)
    }

    func testAStreamThatIsNeverReadTrainsNothing() async throws {
        let hand = try Hand()
        let session = try await hand.learner()
        let batches = hand.batches
        _ = session.train(batches)
        XCTAssertEqual(try session.optimizerSteps, 0)
        let cancelled = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await TrainingTests.collect(session.train(batches))
        }
        let outcome = await cancelled.result
        if case .success(let steps) = outcome { XCTAssertEqual(steps, []) }
        XCTAssertEqual(try session.optimizerSteps, 0)
    }

    func testAnOptimizerSavedAndRestoredGoesOnWithTheSameBits() async throws {
        let hand = try Hand()
        let (one, other) = (try await hand.learner(), try await hand.learner())
        _ = try await TrainingTests.collect(one.train(hand.batches), atMost: 3)
        for info in one.tensors.parameters { try other.setParameter(info.name, one.parameter(info.name)) }
        try other.restoreOptimizer(one.saveOptimizer())
        _ = try await TrainingTests.collect(one.train(hand.batches))
        _ = try await TrainingTests.collect(other.train(hand.batches))
        XCTAssertEqual(try parameterBits(one), try parameterBits(other))
    }

    func testWhatAListenerThrowsEndsTheTrainingAndComesOut() async throws {
        struct Enough: Error {}
        let hand = try Hand()
        let session = try await hand.learner()
        do {
            try await session.train(hand.batches, epochs: 5) { if $0.done == 3 { throw Enough() } }
            XCTFail("nothing thrown")
        } catch {
            XCTAssertTrue(error is Enough, "\(error)")
        }
        XCTAssertEqual(try session.optimizerSteps, 3)
    }

    func testWhatATrainingRefusesComesOutOfTheStream() async throws {
        let hand = try Hand()
        let session = try await hand.learner()
        let few = try Tensor<Float>([Float](repeating: 0, count: 64 * 7), shape: [7, 64])
        await failsLater(.argument, "pixels") { _ = try await TrainingTests.collect(session.train(["pixels": few])) }
        await failsLater(.unknownName, "nothing") {
            _ = try await TrainingTests.collect(session.train(["nothing": few]))
        }
        await failsLater(.argument, "epochs") {
            _ = try await TrainingTests.collect(session.train(hand.batches, epochs: -1))
        }
        XCTAssertEqual(try session.optimizerSteps, 0)
    }
}

private func parameterBits(_ session: Session) throws -> [String: [UInt32]] {
    try session.tensors.parameters.reduce(into: [:]) { $0[$1.name] = Samples.bits(try session.parameter($1.name)) }
}
