import Foundation
import XCTest

import class WeftBindings.NativeEncoder

@testable import Weft

/// What a life does with work and devices. A device that writes down what happens to it stands for a GPU, and a source that a test tells
/// what to say stands for the system: neither is on Linux.
final class LifeCycleTests: XCTestCase {
    private struct Recorder: SuspendableDevice {
        let identity = Int64.random(in: 0...Int64.max)
        let lines: Lines
        let isOpen = Guarded(true)

        private func told(_ what: String) -> Bool {
            guard isOpen.with({ $0 }) else { return false }
            lines.add(what)
            return true
        }

        func suspend() -> Bool { told("suspend") }
        func resume() -> Bool { told("resume") }
        func trim() -> Bool { told("trim") }
    }

    /// The system, as a stream of notices.
    private struct Notices: NoticeSource {
        let stream: AsyncStream<SystemNotice>

        func begin(_ tell: @escaping @Sendable (SystemNotice) -> Void) {
            let stream = stream
            Task.detached { for await notice in stream { tell(notice) } }
        }
    }

    private let lines = Lines()
    private let life = LifeCycle()
    private var gpu: Recorder { Recorder(lines: lines) }
    private var place: Place { Place(life: life, isGPU: true) }

    private func eventually(
        _ what: String, line: UInt = #line, _ holds: () throws -> Bool
    ) async throws {
        for _ in 0..<1000 {
            if try holds() { return }
            try await Task.sleep(for: .milliseconds(10))
        }
        XCTFail("\(what): \(lines.all), \(life.state)", line: line)
    }

    private func aWhile() async throws { try await Task.sleep(for: .milliseconds(100)) }

    func testNoticesOfTheSystemSuspendResumeAndTrimGPUs() async throws {
        let (stream, system) = AsyncStream.makeStream(of: SystemNotice.self)
        life.add(gpu)
        life.follow(Notices(stream: stream))
        for notice in [SystemNotice.memoryWarning, .background, .background, .hot(true), .foreground, .foreground] {
            system.yield(notice)
        }
        system.yield(.lowPower(true))
        try await eventually("all notices are heard") { life.state.savesPower }
        XCTAssertEqual(lines.all, ["trim", "suspend", "resume"])
        XCTAssertTrue(life.state.isHot && !life.state.isInBackground)
        // a device that is opened in the background is suspended at once; one that is opened twice follows once
        life.handle(.background)
        let late = Recorder(lines: Lines())
        XCTAssertEqual(life.add(late).identity, late.identity)
        XCTAssertEqual(late.lines.all, ["suspend"])
        XCTAssertEqual(life.add(late).identity, late.identity)
        life.handle(.foreground)
        XCTAssertEqual(late.lines.all, ["suspend", "resume"])
        system.finish()
    }

    func testGoingToTheBackgroundWaitsForTheWorkThatRunsAndWhatComesThenWaitsForTheForeground() async throws {
        let (life, lines, place) = (life, lines, place)
        life.add(gpu)
        let goesOn = Guarded(false)
        let first = Task {
            try await place.run {
                lines.add("first begins")
                while !goesOn.with({ $0 }) { try await Task.sleep(for: .milliseconds(5)) }
                lines.add("first ends")
            }
        }
        try await eventually("the first begins") { lines.all == ["first begins"] }
        let told = expectation(description: "background")
        Thread.detachNewThread {
            life.handle(.background)
            lines.add("handled")
            told.fulfill()
        }
        try await eventually("the state is told") { life.state.isInBackground }
        let second = Task { try await place.run { lines.add("second") } }
        try await aWhile()
        XCTAssertEqual(lines.all, ["first begins"])
        goesOn.with { $0 = true }
        try await first.value
        await fulfillment(of: [told], timeout: 60)
        try await aWhile()
        XCTAssertEqual(lines.all, ["first begins", "first ends", "suspend", "handled"])
        life.handle(.foreground)
        try await second.value
        XCTAssertEqual(lines.all.suffix(2), ["resume", "second"])
    }

    func testWorkThatWaitsIsCancelledWithItsTaskAndTheCPUWorksInTheBackground() async throws {
        let (life, lines, place) = (life, lines, place)
        life.add(gpu)
        life.handle(.background)
        let waiting = (0..<8).map { _ in Task { try await place.run { lines.add("never") } } }
        try await aWhile()
        for task in waiting { task.cancel() }
        for task in waiting {
            let outcome = await task.result
            XCTAssertThrowsError(try outcome.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        }
        try await Place(life: life, isGPU: false).run { lines.add("on the CPU") }
        life.handle(.foreground)
        XCTAssertEqual(lines.all, ["suspend", "on the CPU", "resume"])
    }

    func testEachReactionCanBeSwitchedOffAlsoWhileItHolds() async throws {
        life.add(gpu)
        life.options = LifeCycleOptions(suspendsInBackground: false, trimsOnMemoryWarning: false)
        life.handle(.background)
        life.handle(.memoryWarning)
        try await place.run { lines.add("work") }
        XCTAssertEqual(lines.all, ["work"])
        life.options = LifeCycleOptions()
        life.handle(.memoryWarning)
        XCTAssertEqual(lines.all, ["work", "suspend", "trim"])
        life.options.suspendsInBackground = false
        try await place.run { lines.add("again") }
        XCTAssertEqual(lines.all, ["work", "suspend", "trim", "resume", "again"])
        let steps = LifeCycle.Work(onGPU: false, isTraining: true)
        for (notice, off) in [
            (SystemNotice.hot(true), LifeCycleOptions(pausesWhenHot: false)),
            (.lowPower(true), LifeCycleOptions(pausesOnLowPower: false)),
        ] {
            let life = LifeCycle()
            life.handle(notice)
            XCTAssertFalse(try life.waitForTurn(steps, unless: { true }))
            guard case .later = try life.attempt(steps) else { return XCTFail("a training begins at \(notice)") }
            life.options = off
            guard case .here = try life.attempt(steps) else { return XCTFail("no training begins at \(notice)") }
        }
    }

    func testByChoiceWorkIsRefusedByItsKind() async throws {
        life.options.whileSuspended = .refuse
        life.handle(.background)
        let place = place
        await failsLater(.suspended, "in the background") { try await place.run {} }
        let cancel = try Cancellation()
        fails(.suspended, "in the background") { try place.retry(cancel) {} }
        life.handle(.foreground)
        try await place.run {}
        try place.retry(cancel) {}
    }

    func testWhatMetASuspendedDeviceInItsMidstBeginsAgain() throws {
        let (life, place, cancel) = (life, place, try Cancellation())
        var tries = 0
        let made = try place.retry(cancel) { () throws -> String in
            tries += 1
            if tries == 2 { return "made" }
            life.handle(.background)
            DispatchQueue.global().asyncAfter(deadline: .now() + 0.1) { life.handle(.foreground) }
            throw WeftError(.suspended, "the device is suspended")
        }
        XCTAssertEqual(made, "made")
        XCTAssertEqual(tries, 2)
        // who suspends a device without the life gets the error
        fails(.suspended, "mine") { try place.retry(cancel) { throw WeftError(.suspended, "mine") } }
        // what waits is cancelled
        life.handle(.background)
        DispatchQueue.global().asyncAfter(deadline: .now() + 0.1) { cancel.request() }
        fails(.cancelled) { try place.retry(cancel) {} }
    }

    func testADeviceThatFailsDoesNotKeepOthersFromBeingSuspendedAndClosedOnesAreForgotten() {
        struct Broken: SuspendableDevice {
            let identity: Int64 = -1
            func suspend() throws(WeftError) -> Bool { throw WeftError(.deviceLost, "lost") }
            func resume() throws(WeftError) -> Bool { throw WeftError(.deviceLost, "lost") }
            func trim() throws(WeftError) -> Bool { throw WeftError(.deviceLost, "lost") }
        }
        let closed = Recorder(lines: Lines())
        life.add(Broken())
        life.add(closed)
        life.add(gpu)
        life.handle(.background)
        closed.isOpen.with { $0 = false }
        life.handle(.memoryWarning)
        closed.isOpen.with { $0 = true }
        life.handle(.foreground)
        XCTAssertEqual(lines.all, ["suspend", "trim", "resume"])
        XCTAssertEqual(closed.lines.all, ["suspend"])
    }

    func testTheStateIsToldToWhoWatches() async throws {
        var states = life.states.makeAsyncIterator()
        let first = await states.next()
        XCTAssertEqual(first, LifeCycleState())
        life.handle(.hot(true))
        let second = await states.next()
        XCTAssertEqual(second?.isHot, true)
    }

    func testOptionsAreCodable() throws {
        let options = LifeCycleOptions(pausesWhenHot: false, whileSuspended: .useCPU)
        let read = try JSONDecoder().decode(LifeCycleOptions.self, from: JSONEncoder().encode(options))
        XCTAssertEqual(read, options)
    }

    // MARK: Trainings

    private struct Hand {
        let batches: [String: any TensorData & Sendable]
        let compiled: CompiledGraph

        init() async throws {
            let digits = try Samples.mirrored()[0..<600]
            batches = ["pixels": try Samples.pixels(digits), "labels": Samples.labels(digits)]
            compiled = try await Device.cpu(threads: 1).compile(
                Graph(parsing: Samples.classifier(20)), options: CompileOptions(training: true))
        }

        /// A training on the CPU that takes its place for `place`.
        func learner(_ place: Place) throws -> Session {
            let session = try CompiledGraph(compiled.native, place)
                .session(weights: .load(from: Samples.classifierWeights))
            try session.setOptimizer(.adam(learningRate: 1e-3))
            return session
        }

        func bits(_ session: Session) throws -> [String: [UInt32]] {
            try session.tensors.parameters.reduce(into: [:]) {
                $0[$1.name] = Samples.bits(try session.parameter($1.name))
            }
        }
    }

    /// Holds a training by one notice, sees it stand between two steps, and lets it go on: the same bits in the end.
    private func pausing(
        _ place: Place, _ hold: @escaping @Sendable (LifeCycle) -> Void, _ release: (LifeCycle) -> Void
    ) async throws {
        let hand = try await Hand()
        let undisturbed = try hand.learner(place)
        try await undisturbed.train(hand.batches, epochs: 4) { _ in }
        for asStream in [false, true] {
            let (life, session, batches) = (life, try hand.learner(place), hand.batches)
            let done = Counter()
            // the notice comes while the 40th step is told, from the thread that trains
            let seen: @Sendable (TrainingStep) -> Void = { step in
                done.set(step.done)
                if step.done == 40 { hold(life) }
            }
            let training = Task {
                if asStream {
                    for try await step in session.train(batches, epochs: 4) { seen(step) }
                } else {
                    try await session.train(batches, epochs: 4, onStep: seen)
                }
            }
            try await eventually("some steps are made") { done.value >= 40 }
            try await aWhile()
            let standing = done.value
            // a reader of a stream has taken a step when the next one is made already
            XCTAssertTrue((40...41).contains(standing), "\(standing) steps")
            try await aWhile()
            XCTAssertEqual(done.value, standing)
            release(life)
            try await training.value
            XCTAssertEqual(done.value, 120)
            XCTAssertEqual(try hand.bits(session), try hand.bits(undisturbed))
        }
    }

    func testATrainingPausesBetweenTwoStepsWhileTheDeviceIsHot() async throws {
        try await pausing(Place(life: life, isGPU: false)) {
            $0.handle(.hot(true))
        } _: {
            $0.handle(.hot(false))
        }
    }

    func testATrainingPausesOnLowPowerUntilThatIsSwitchedOff() async throws {
        try await pausing(Place(life: life, isGPU: false)) {
            $0.options.pausesOnLowPower = true
            $0.handle(.lowPower(true))
        } _: {
            $0.options.pausesOnLowPower = false
        }
    }

    func testATrainingOnAGPULetsItBeSuspendedBetweenTwoSteps() async throws {
        life.add(gpu)
        try await pausing(place) {
            $0.handle(.background)
        } _: {
            $0.handle(.foreground)
        }
        XCTAssertEqual(lines.all, ["suspend", "resume", "suspend", "resume"])
    }

    func testAGPUIsSuspendedWhileWhoReadsATrainingTakesTheirTime() async throws {
        life.add(gpu)
        let hand = try await Hand()
        let session = try hand.learner(place)
        for try await step in session.train(hand.batches) where step.done == 3 {
            // the reader is here: a suspension that waited for it would never come
            life.handle(.background)
            XCTAssertEqual(lines.all, ["suspend"])
            life.handle(.foreground)
        }
        XCTAssertEqual(try session.optimizerSteps, 30)
    }

    func testATrainingThatPausesIsCancelledAndOneThatIsRefusedSaysSo() async throws {
        let hand = try await Hand()
        let (life, batches) = (life, hand.batches)
        let session = try hand.learner(Place(life: life, isGPU: false))
        let done = Counter()
        let training = Task {
            try await session.train(batches, epochs: 1000) { step in
                done.set(step.done)
                if step.done == 5 { life.handle(.hot(true)) }
            }
        }
        try await eventually("five steps are made") { done.value == 5 }
        try await aWhile()
        training.cancel()
        let outcome = await training.result
        XCTAssertThrowsError(try outcome.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        XCTAssertEqual(try session.optimizerSteps, 5)
        // one that never began
        let never = Task { for try await _ in session.train(batches) {} }
        try await aWhile()
        never.cancel()
        _ = await never.result
        XCTAssertEqual(try session.optimizerSteps, 5)
        life.handle(.hot(false))
        try await session.train(batches) { _ in }
        XCTAssertEqual(try session.optimizerSteps, 35)

        life.options.whileSuspended = .refuse
        let other = try hand.learner(place)
        await failsLater(.suspended, "in the background") {
            try await other.train(batches) { if $0.done == 4 { life.handle(.background) } }
        }
        XCTAssertEqual(try other.optimizerSteps, 4)
        await failsLater(.suspended, "in the background") { for try await _ in other.train(batches) {} }
        XCTAssertEqual(try other.optimizerSteps, 4)
    }

    // MARK: Sentences, devices

    func testSentencesAreEmbeddedOnTheCPUMeanwhileByChoice() async throws {
        let (life, lines, place) = (life, lines, place)
        life.options.whileSuspended = .useCPU
        let device = try Device.cpu(threads: 2)
        let opened = Counter()
        let native = try NativeEncoder.open(device: device.native, folder: Samples.miniLM.path, precision: .full)
        let prepared = try await SentenceModel.open(Samples.miniLM, on: device)
        let model = try SentenceModel(native, place) {
            opened.set(opened.value + 1)
            return prepared
        }
        let sentence = try XCTUnwrap(Samples.sentences().first)
        func near(_ embedding: [Float]) {
            let far = zip(sentence.embedding, embedding).map { abs($0 - Double($1)) }.max() ?? .infinity
            XCTAssertLessThanOrEqual(far, 1e-5)
        }
        near(try await model.embed(sentence.text))
        XCTAssertEqual(opened.value, 0)
        try model.setPrompt(.text("query: "))
        let prompted = try await model.embed("a cat")
        life.handle(.background)
        let onCPU = try await model.embed("a cat")
        XCTAssertEqual(onCPU, prompted)
        try model.setPrompt(.none)
        for _ in 0..<2 { near(try await model.embed(sentence.text)) }
        XCTAssertEqual(opened.value, 1)
        // other work for a GPU waits
        let waiting = Task { try await place.run { lines.add("ran") } }
        try await aWhile()
        XCTAssertEqual(lines.all, [])
        life.handle(.foreground)
        try await waiting.value
        try model.close()
        fails(.closed) { try prepared.setPrompt(.none) }
    }

    func testSentencesWaitOtherwise() async throws {
        let device = try Device.cpu(threads: 2)
        let native = try NativeEncoder.open(device: device.native, folder: Samples.miniLM.path, precision: .full)
        let model = try SentenceModel(native, place) { throw WeftError(.internal, "nobody asked for it") }
        life.handle(.background)
        let done = Counter()
        let waiting = Task {
            let found = try await model.embed(["a", "b"])
            done.set(found.count)
        }
        try await aWhile()
        XCTAssertEqual(done.value, 0)
        life.handle(.foreground)
        try await waiting.value
        XCTAssertEqual(done.value, 2)
    }

    func testASessionOnAGPUWaitsAndSoDoesWhatCompilesForIt() async throws {
        let place = place
        let compiled = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square))
        let session = try CompiledGraph(compiled.native, place).sessionOfZeros()
        life.handle(.background)
        let done = Counter()
        let running = Task {
            try await session.run(["x": Tensor<Float>([1, 2, 3])])
            done.set(1)
        }
        try await aWhile()
        XCTAssertEqual(done.value, 0)
        life.handle(.foreground)
        try await running.value
        XCTAssertEqual(try session.read("y", as: Float.self).elements, [1, 4, 9])
    }

    func testTheCPUIsNotSuspendedAndDevicesFollowTheProcesssLife() async throws {
        let device = try Device.cpu(threads: 1)
        XCTAssertTrue(device.place.life === LifeCycle.shared && !device.place.isGPU)
        LifeCycle.shared.handle(.background)
        defer { LifeCycle.shared.handle(.foreground) }
        let session = try await device.compile(Graph(parsing: Samples.square)).sessionOfZeros()
        try await session.run(["x": Tensor<Float>([1, 2, 3])])
        XCTAssertEqual(try session.read("y", as: Float.self).elements, [1, 4, 9])
        XCTAssertFalse(try device.isSuspended)
        // the app's own suspension is the app's own to end
        try device.suspend()
        try device.resume()
    }
}
