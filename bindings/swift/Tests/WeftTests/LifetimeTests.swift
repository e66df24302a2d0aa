import Foundation
import XCTest

@testable import Weft

/// Objects are closed, used by several tasks, cancelled.
final class LifetimeTests: XCTestCase {
    func testUseAfterCloseIsAnErrorAndClosingTwiceIsNone() async throws {
        let device = try Device.cpu(threads: 1)
        let graph = try Graph(parsing: Samples.square)
        let compiled = try await device.compile(graph)
        let session = try compiled.sessionOfZeros()
        let parameters = try session.parameters()
        let weights = try parameters.weights()
        let artifact = try Artifact()
        let model = try await SentenceModel.open(Samples.miniLM, on: device)
        // what a session needs outlives what it was made of
        func closeOthers() throws {
            try model.close()
            try artifact.close()
            try weights.close()
            try parameters.close()
            try compiled.close()
            try graph.close()
            try device.close()
        }
        try closeOthers()
        let x = Tensor<Float>([1, 2, 3])
        try session.set("x", x)
        try session.step()
        XCTAssertEqual(try session.read("y", as: Float.self).elements, [1, 4, 9])
        try session.close()
        let calls: [(String, () async throws -> Void)] = [
            ("device", { try device.trim() }),
            ("device, compiling", { _ = try await device.compile(Graph(parsing: Samples.square)) }),
            (
                "device, compiling, as a stream",
                { for try await _ in try device.compiling(Graph(parsing: Samples.square)) {} }
            ),
            ("graph", { _ = try graph.text() }),
            ("graph, compiled", { _ = try await Device.cpu(threads: 1).compile(graph) }),
            ("compiled", { _ = try compiled.sessionOfZeros() }),
            ("parameters", { _ = try parameters.weights() }),
            ("weights", { _ = try weights.tensors }),
            ("weights, inserting", { try weights.set("a", x) }),
            ("artifact", { _ = try artifact.names }),
            ("model", { _ = try await model.embed("a") }),
            ("session, step", { try session.step() }),
            ("session, running", { try await session.run(["x": x]) }),
            ("session, input", { try session.set("x", x) }),
            ("session, borrowing", { try session.borrow("x", x) }),
            ("session, output", { _ = try session.read("y", as: Float.self) }),
            ("session, lending", { try session.withOutput("y") { _ in } }),
            ("session, loss", { _ = try session.loss }),
            ("session, parameters", { _ = try session.parameters() }),
            ("session, training", { for try await _ in session.train(["x": x]) {} }),
        ]
        for (name, call) in calls {
            do {
                try await call()
                XCTFail("\(name): nothing thrown")
            } catch {
                XCTAssertEqual((error as? WeftError)?.kind, .closed, "\(name): \(error)")
            }
        }
        try closeOthers()
        try session.close()
    }

    func testWhileAnOutputIsLentOtherCallsAreRefusedFromAnyThread() async throws {
        let session = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square)).sessionOfZeros()
        try session.set("x", Tensor<Float>([1, 2, 3]))
        try session.step()
        try session.withOutput("y", as: Float.self) { seen in
            XCTAssertEqual(seen[1], 4)
            fails(.busy) { try session.step() }
            fails(.busy) { try session.close() }
            let other = expectation(description: "another thread")
            Thread.detachNewThread {
                do throws(WeftError) {
                    try session.wait()
                } catch {
                    if error.kind == .busy { other.fulfill() }
                }
            }
            XCTAssertEqual(XCTWaiter.wait(for: [other], timeout: 60), .completed)
            XCTAssertEqual(seen[1], 4)
        }
        // also when the body throws
        struct Mine: Error {}
        XCTAssertThrowsError(try session.withOutput("y") { _ in throw Mine() }) { XCTAssertTrue($0 is Mine) }
        try session.step()
        try session.close()
    }

    func testAThousandCyclesOfOpenAndCloseTakeNoMemory() async throws {
        let compiled = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.classifier()))
        let pixels = try Tensor([Float](repeating: 0, count: 256), shape: [4, 64])
        let labels = [Int32](repeating: 0, count: 4)

        func cycle(closing: Bool) async throws {
            let device = try Device.cpu(threads: 1)
            let graph = try Graph(parsing: Samples.square)
            let square = try await device.compile(graph).sessionOfZeros()
            let weights = try Weights.load(from: Samples.classifierWeights)
            let session = try compiled.session(weights: weights)
            try session.borrow("pixels", pixels)
            try session.set("labels", labels)
            try session.step()
            XCTAssertEqual(try session.withOutput("probabilities") { $0.count }, 160)
            let parameters = try session.parameters()
            fails(.parse) { _ = try Graph(parsing: "weft 1\nnot a graph") }
            fails(.dType) { try session.set("labels", pixels) }
            guard closing else { return }
            try parameters.close()
            try session.close()
            try weights.close()
            try square.close()
            try graph.close()
            try device.close()
        }
        // what is not closed is freed with the last reference
        for at in 0..<300 { try await cycle(closing: at % 2 == 0) }
        let before = try resident()
        for at in 0..<1000 { try await cycle(closing: at % 2 == 0) }
        let after = try resident()
        print("1,000 cycles: \((after - before) / 1024) kB more of \(after >> 20) MB")
        // a session of the classifier has 100 kB: a fifth of a thousand that are kept would be seen
        XCTAssertLessThan(after - before, 20 << 20)
    }

    /// Bytes of this process in memory.
    private func resident() throws -> Int {
        let status = try String(contentsOf: URL(fileURLWithPath: "/proc/self/status"), encoding: .utf8)
        let line = try XCTUnwrap(status.split(separator: "\n").first { $0.hasPrefix("VmRSS") })
        return try XCTUnwrap(Int(line.filter(\.isNumber))) * 1024
    }

    func testEightTasksRunSessionsOverTheSameWeightsAtOnce() async throws {
        let device = try Device.cpu(threads: 2)
        let compiled = try await device.compile(Graph(parsing: Samples.classifier()))
        let first = try compiled.session(weights: .load(from: Samples.classifierWeights))
        let shared = try first.parameters()
        let digits = try Samples.mirrored()
        let labels = [Int32](repeating: 0, count: 4)
        let pixels = try (0..<8).map { task in
            try (0..<50).map { step in try Samples.pixels(digits[task * 200 + step * 4..<task * 200 + step * 4 + 4]) }
        }

        @Sendable func answers(_ session: Session, _ task: Int) throws -> [[UInt32]] {
            try pixels[task].map { four in
                try session.set("pixels", four)
                try session.set("labels", labels)
                try session.step()
                return Samples.bits(try session.read("probabilities"))
            }
        }
        let wanted = try (0..<8).map { try answers(first, $0) }
        let atOnce = try await withThrowingTaskGroup(of: (Int, [[UInt32]]).self) { group in
            for task in 0..<8 {
                group.addTask { (task, try answers(compiled.session(sharing: shared), task)) }
            }
            return try await group.reduce(into: [Int: [[UInt32]]]()) { $0[$1.0] = $1.1 }
        }
        XCTAssertEqual((0..<8).map { atOnce[$0] }, wanted)
        // and eight over one session are refused or right, never mixed up
        let kinds = await withTaskGroup(of: WeftError.Kind?.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    var refused: WeftError.Kind?
                    for _ in 0..<200 {
                        do { try await first.run() } catch { refused = (error as? WeftError)?.kind ?? .internal }
                    }
                    return refused
                }
            }
            return await group.reduce(into: [WeftError.Kind?]()) { $0.append($1) }
        }
        XCTAssertTrue(kinds.allSatisfy { $0 == nil || $0 == .busy }, "\(kinds)")
        try first.step()
    }

    /// A graph of many different layers, which takes a while to compile.
    private func deep(_ layers: Int) -> String {
        var text = "weft 1\ninput x0: f32[8, 64]\n"
        for i in 0..<layers {
            text += "param w\(i): f32[\(65 + i), \(64 + i)]\nl\(i) = linear(x\(i), w\(i))\nx\(i + 1) = tanh(l\(i))\n"
        }
        return text + "output y = x\(layers)\n"
    }

    func testCompilingIsCancelledWithItsTaskAndCompilesAfterwards() async throws {
        let device = try Device.cpu(threads: 2)
        let graph = try Graph(parsing: deep(2000))
        let clock = ContinuousClock()
        let whole = try await clock.measure { _ = try await device.compile(graph) }
        // three times, since the machine may be busy: three quarters of the work were left, and some of that is not done
        var ending: [Duration] = []
        for _ in 0..<3 {
            let work = Task { try await device.compile(graph) }
            try await Task.sleep(for: whole / 4)
            let cancelling = clock.now
            work.cancel()
            let outcome = await work.result
            ending.append(clock.now - cancelling)
            XCTAssertThrowsError(try outcome.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        }
        print("compiling takes \(whole), and ends within \(ending) of being cancelled after a quarter")
        XCTAssertLessThan(try XCTUnwrap(ending.min()), whole * 2 / 3)
        let seen = Lines()
        _ = try await device.compile(graph) { seen.add("\($0.done) of \($0.all)") }
        XCTAssertEqual(seen.all.last, "1 of 1")

        var events: [Compiling] = []
        for try await event in device.compiling(graph) { events.append(event) }
        XCTAssertGreaterThan(events.count, 1)
        let compiled = try XCTUnwrap(events.popLast())
        guard case .done(let result) = compiled else { return XCTFail("\(compiled) is the last") }
        XCTAssertEqual(result.tensors.outputs.map(\.name), ["y"])
        for event in events {
            guard case .working = event else { return XCTFail("\(event) is not the last") }
        }
        // a stream that is left at once
        for try await _ in device.compiling(graph) { break }
        // and tasks that are cancelled before they begin
        let never = Task {
            withUnsafeCurrentTask { $0?.cancel() }
            return try await device.compile(graph)
        }
        let refused = await never.result
        XCTAssertThrowsError(try refused.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
    }

    func testLinesOfTheLogComeToTheHandler() async throws {
        let lines = Lines()
        try Log.handle(upTo: .debug) { level, line in lines.add("\(level) \(line)") }
        _ = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square))
        try Log.stop()
        let heard = lines.all.count
        XCTAssertGreaterThan(heard, 0)
        _ = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square))
        XCTAssertEqual(lines.all.count, heard)
    }
}
