import Foundation
import XCTest

@testable import Weft

/// A graph by hand, from text to outputs.
final class RunTests: XCTestCase {
    private func inputs() throws -> Weights {
        try Weights.load(from: Samples.file("samples/graphs/digits.safetensors"))
    }

    private func wanted() throws -> [UInt32] {
        let outputs = try Weights.load(from: Samples.fixtures.appendingPathComponent("outputs.safetensors"))
        return Samples.bits(try outputs.tensor("probabilities", of: Float.self))
    }

    func testEveryWayInAndOutGivesTheBitsOfWeftRun() async throws {
        let device = try Device.cpu(threads: 2)
        let compiled = try await device.compile(Graph(parsing: Samples.classifier()))
        let session = try compiled.session(weights: .load(from: Samples.classifierWeights))
        let (inputs, wanted) = (try inputs(), try wanted())
        let pixels = try inputs.tensor("pixels", of: Float.self)
        let labels = try inputs.tensor("labels", of: Int32.self)
        let data = pixels.withUnsafeBytes { Data($0) }
        let buffer = TensorBuffer(pixels)
        let ways: [(String, () throws -> Void)] = [
            ("a tensor", { try session.set("pixels", pixels) }),
            ("an array", { try session.set("pixels", pixels.elements) }),
            ("a buffer", { try session.set("pixels", buffer) }),
            ("data", { try session.set("pixels", bytes: data) }),
            ("a borrowed tensor", { try session.borrow("pixels", pixels) }),
            ("a borrowed buffer", { try session.borrow("pixels", buffer) }),
            ("borrowed data", { try session.borrow("pixels", bytes: data) }),
            ("a tensor over data", { try session.borrow("pixels", Tensor<Float>(lending: data, shape: [4, 64])) }),
        ]
        try session.set("labels", labels)
        let garbage = [Float](repeating: 0.5, count: 4 * 64)
        for (way, give) in ways {
            try session.set("pixels", garbage)
            try session.step()
            XCTAssertNotEqual(Samples.bits(try session.read("probabilities")), wanted, way)
            try give()
            try session.step()
            XCTAssertEqual(Samples.bits(try session.read("probabilities")), wanted, way)
        }
        try await session.run(["pixels": pixels, "labels": labels])

        let read: Tensor<Float> = try session.read("probabilities")
        XCTAssertEqual(read.shape, [4, 10])
        XCTAssertEqual(Samples.bits(read), wanted)
        var array = [Float](repeating: 0, count: 40)
        try session.read("probabilities", into: &array)
        XCTAssertEqual(Samples.bits(array), wanted)
        let into = try TensorBuffer<Float>(shape: [40])
        try session.read("probabilities", into: into)
        XCTAssertEqual(Samples.bits(into.elements), wanted)
        let bytes = try session.bytes(of: "probabilities")
        XCTAssertEqual(Samples.bits(try Tensor<Float>(lending: bytes, shape: [40])), wanted)
        let seen = try session.withOutput("probabilities", as: Float.self) { Samples.bits($0) }
        XCTAssertEqual(seen, wanted)
        let raw = try session.withOutput("probabilities") { Array($0.bindMemory(to: UInt32.self)) }
        XCTAssertEqual(raw, wanted)
    }

    func testABorrowedBufferIsReadAtEachStepWhereItLies() async throws {
        let session = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square)).sessionOfZeros()
        let x = TensorBuffer(Tensor<Float>([1, 2, 3]))
        try session.borrow("x", x)
        try session.step()
        XCTAssertEqual(try session.read("y", as: Float.self).elements, [1, 4, 9])
        x[1] = -5
        try session.step()
        XCTAssertEqual(try session.read("y", as: Float.self).elements, [1, 25, 9])
        // in a tensor of its own now
        try session.set("x", [Float](arrayLiteral: 1, 1, 2))
        x[0] = 100
        try session.step()
        XCTAssertEqual(try session.read("y", as: Float.self).elements, [1, 1, 4])
    }

    func testWhatIsBorrowedIsKeptAndThenLetGo() async throws {
        let session = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square)).sessionOfZeros()
        let memory = UnsafeMutableBufferPointer<Float>.allocate(capacity: 3)
        _ = memory.initialize(from: [2, 3, 4])
        let released = Counter()
        func borrow() throws {
            let tensor = try Tensor(lending: UnsafeBufferPointer(memory), shape: [3]) { released.set(1) }
            try session.borrow("x", tensor)
        }
        try borrow()
        try session.step()
        XCTAssertEqual(try session.read("y", as: Float.self).elements, [4, 9, 16])
        XCTAssertEqual(released.value, 0)
        try session.close()
        XCTAssertEqual(released.value, 1)
        memory.deallocate()
    }

    func testDataThatIsLentStaysAsItWas() async throws {
        let count = 1000
        let text = "weft 1\ninput x: f32[\(count)]\ny = neg(x)\noutput y = y\n"
        let session = try await Device.cpu(threads: 1).compile(Graph(parsing: text)).sessionOfZeros()
        func borrow() throws {
            var data = [Float](repeating: 2, count: count).withUnsafeBytes { Data($0) }
            try session.borrow("x", bytes: data)
            // the owner's own copy is changed, and then gone
            data.resetBytes(in: 0..<data.count)
        }
        try borrow()
        try session.step()
        XCTAssertEqual(try session.read("y").elements, [Float](repeating: -2, count: count))
    }

    func testIntegersOf32And64BitsCrossAsTheyAre() async throws {
        let text =
            "weft 1\ninput a: i32[3]\ninput b: i64[3]\nc = add(a, a)\nd = concat(b, b, axis=0)\noutput c = c\noutput d = d\n"
        let session = try await Device.cpu(threads: 1).compile(Graph(parsing: text)).sessionOfZeros()
        let large: Int64 = (1 << 53) + 1
        try session.set("a", [Int32](arrayLiteral: -3, 0, 1 << 29))
        try session.set("b", [Int64](arrayLiteral: -3, large, .min))
        try session.step()
        XCTAssertEqual(try session.read("c", as: Int32.self).elements, [-6, 0, 1 << 30])
        XCTAssertEqual(try session.read("d", as: Int64.self).elements, [-3, large, .min, -3, large, .min])
    }

    func testAnArtifactRunsWithoutCompilingAndGivesTheSameBits() async throws {
        let file = try temporaryFolder().appendingPathComponent("model.weftc")
        let device = try Device.cpu(threads: 2)
        let compiled = try await device.compile(Graph(parsing: Samples.classifier()))
        let written = try Artifact()
        try written.add(compiled, named: "classify")
        try written.save(to: file)
        let artifact = try await Artifact.load(from: file, on: device)
        XCTAssertEqual(try artifact.names, ["classify"])
        let session = try artifact.graph("classify").session(weights: .load(from: Samples.classifierWeights))
        let inputs = try inputs()
        try session.set("pixels", inputs.tensor("pixels", of: Float.self))
        try session.set("labels", inputs.tensor("labels", of: Int32.self))
        try session.step()
        XCTAssertEqual(Samples.bits(try session.read("probabilities")), try wanted())
        fails(.unknownName, "classify") { _ = try artifact.graph("nothing") }

        let single = try temporaryFolder().appendingPathComponent("one.weftc")
        try compiled.save(to: single)
        let loaded = try await CompiledGraph.load(from: single, on: device)
        XCTAssertEqual(loaded.tensors, compiled.tensors)
    }

    func testWhatWasCompiledComesOutOfTheCacheFolder() async throws {
        let device = try Device.cpu(threads: 2)
        let options = CompileOptions(cacheFolder: try temporaryFolder())
        let graph = try Graph(parsing: Samples.classifier())
        let first = try await device.compile(graph, options: options)
        XCTAssertFalse(try first.wasCached)
        let second = try await device.compile(graph, options: options)
        XCTAssertTrue(try second.wasCached)
    }

    func testWeightsByHandAreThoseThatAreRead() throws {
        let file = try temporaryFolder().appendingPathComponent("w.safetensors")
        let numbers: [Float] = [1, .nan, -0.0, Float(bitPattern: 214_083)]
        let weights = try Weights()
        try weights.set("a", Tensor(numbers, shape: [2, 2]))
        try weights.set("b", Tensor<Int64>([.max]))
        try weights.set("c", Tensor([BFloat16(1.5), BFloat16(-3)]))
        try weights.set("d", Tensor([true, false]))
        try weights.save(to: file)
        let read = try Weights.load(from: file)
        XCTAssertEqual(try read.tensors.map(\.description), ["a: f32[2, 2]", "b: i64[1]", "c: bf16[2]", "d: bool[2]"])
        XCTAssertEqual(Samples.bits(try read.tensor("a")), Samples.bits(numbers))
        XCTAssertEqual(try read.tensor("b", of: Int64.self).elements, [.max])
        XCTAssertEqual(try read.tensor("c", of: BFloat16.self).elements.map { Float($0) }, [1.5, -3])
        XCTAssertEqual(try read.tensor("d", of: Bool.self).elements, [true, false])
    }

    func testDevicesSayWhatTheyAre() async throws {
        let all = try await Device.all()
        XCTAssertEqual(all.first?.kind, .cpu)
        let device = try await Device.open(.cpu(threads: 2))
        XCTAssertEqual(device.info.name, "cpu")
        XCTAssertEqual(device.info.threads, 2)
        try device.suspend()
        XCTAssertFalse(try device.isSuspended)
        try device.trim()
        XCTAssertTrue(try WeftLibrary.optimizerNames().contains("adamw"))
    }

    func testConfigurationsAreCodable() throws {
        func same<T: Codable & Equatable>(_ value: T) throws {
            XCTAssertEqual(try JSONDecoder().decode(T.self, from: JSONEncoder().encode(value)), value)
        }
        let cache = URL(fileURLWithPath: "/cache", isDirectory: true)
        try same(CompileOptions(training: true, precision: .fast, cacheFolder: cache, cacheBytes: 5))
        try same(Optimizer("adamw", learningRate: 1e-4, settings: ["weight_decay": 0.1]))
        try same([DeviceChoice.best, .cpu(threads: 3), .gpu, .named("x")])
        try same([Prompt.default, .none, .named("query"), .text("a ")])
    }

    func testTensorsAreValues() throws {
        let tensor = try Tensor<Float>([1, 2, 3, 4, 5, 6], shape: [2, 3])
        XCTAssertEqual(tensor[1, 0], 4)
        XCTAssertEqual(try tensor.reshaped([3, 2])[2, 1], 6)
        XCTAssertEqual(tensor, try Tensor<Float>([1, 2, 3, 4, 5, 6], shape: [2, 3]))
        XCTAssertNotEqual(tensor, try tensor.reshaped([6]))
        let buffer = TensorBuffer(tensor)
        buffer[0, 0] = 9
        XCTAssertEqual(tensor[0, 0], 1)
        XCTAssertEqual(buffer.tensor().elements, [9, 2, 3, 4, 5, 6])
        XCTAssertEqual(tensor.description, "Tensor(f32[2, 3])")
        // bfloat16 is rounded to nearest, ties to even: 1 + 2⁻⁸ lies between 1 and 1 + 2⁻⁷
        XCTAssertEqual(Float(BFloat16(1 + 1 / 256)), 1)
        XCTAssertEqual(Float(BFloat16(1 + 3 / 256)), 1 + 1 / 64)
        XCTAssertTrue(Float(BFloat16(.nan)).isNaN)
        XCTAssertEqual(Float(BFloat16(.greatestFiniteMagnitude)), .infinity)
    }
}
