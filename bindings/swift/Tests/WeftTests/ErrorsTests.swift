import Foundation
import WeftBindings
import XCTest

@testable import Weft

private typealias Tensor = Weft.Tensor

/// Errors by type and message.
final class ErrorsTests: XCTestCase {
    private func session() async throws -> Session {
        try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square)).sessionOfZeros()
    }

    func testEveryKindOfTheNativeLibraryIsAKindByNameAndCode() throws {
        let text = try String(contentsOf: Samples.file("bindings/apps/src/error.rs"), encoding: .utf8)
        let part = try XCTUnwrap(text.components(separatedBy: "kinds! {").last?.components(separatedBy: "\n}").first)
        let statuses = ["WEFT_STATUS_NULL": 1, "WEFT_STATUS_HANDLE": 2, "WEFT_STATUS_BUSY": 3, "WEFT_STATUS_UTF8": 4]
        var wanted: [String: Int] = [:]
        for line in part.split(separator: "\n") where line.contains(" = ") && !line.contains("///") {
            let sides = line.trimmingCharacters(in: CharacterSet(charactersIn: " ,")).components(separatedBy: " = ")
            let status = sides[1].replacingOccurrences(of: "statuses::", with: "")
            wanted[sides[0].lowercased()] = Int(status) ?? statuses[status] ?? (status == "WEFT_STATUS_PANIC" ? 6 : -1)
        }
        var kinds = Dictionary(
            uniqueKeysWithValues: Weft.WeftError.Kind.allCases.map { ("\($0)".lowercased(), $0.rawValue) })
        // this library's own
        XCTAssertEqual(kinds.removeValue(forKey: "library"), 10)
        XCTAssertEqual(kinds, wanted)
        XCTAssertGreaterThan(wanted.count, 30)
    }

    func testAGraphThatDoesNotParseNamesLineAndColumn() {
        let error = fails(.parse, "line 2, column") { _ = try Graph(parsing: "weft 1\ninput x f32[3]\n") }
        XCTAssertEqual(error?.code, 103)
        XCTAssertNotNil(error?.wanted)
        XCTAssertNotNil(error?.came)
        XCTAssertEqual(error?.localizedDescription, error?.message)
    }

    func testAnOperationSaysWhatItWantedWhatCameAndWhere() async throws {
        let text =
            "weft 1\ninput a: f32[2, 3]\ninput b: f32[4, 5]\nc = matmul(a, b, transpose_a=false, transpose_b=false)\noutput c = c\n"
        let error = await failsLater(.op, "matmul") {
            _ = try await Device.cpu(threads: 1).compile(Graph(parsing: text))
        }
        XCTAssertTrue(error?.node?.contains("matmul(a, b), line 4") == true, error?.node ?? "no node")
        XCTAssertTrue(error?.came?.contains("[2, 3]") == true && error?.came?.contains("[4, 5]") == true)
        XCTAssertFalse(error?.wanted?.isEmpty ?? true)
    }

    func testWeightsThatLackOneFilesThatAreNotThereOrNotWhatTheyShouldBe() async throws {
        let device = try Device.cpu(threads: 1)
        let compiled = try await device.compile(Graph(parsing: Samples.classifier()))
        fails(.missingWeight, "layers.0.weight") { _ = try compiled.session(weights: Weights()) }
        let weights = try Weights()
        try weights.set("layers.0.weight", Tensor<Float>([1, 2, 3]))
        fails(.weightType, "layers.0.weight") { _ = try compiled.session(weights: weights) }
        fails(.unknownName, "layers.0.weight") { _ = try weights.tensor("nothing", of: Float.self) }
        let type = fails(.dType, "layers.0.weight") { _ = try weights.tensor("layers.0.weight", of: Int32.self) }
        XCTAssertEqual([type?.wanted, type?.came], ["f32", "i32"])
        let nowhere = URL(fileURLWithPath: "/no such folder")
        let text = Samples.file("samples/graphs/classifier.weft")
        fails(.io, "no such folder") { _ = try Weights.load(from: nowhere) }
        fails(.safetensors, "classifier.weft") { _ = try Weights.load(from: text) }
        fails(.argument, "file URL") { _ = try Weights.load(from: XCTUnwrap(URL(string: "https://example.org/a"))) }
        await failsLater(.artifact, "classifier.weft") { _ = try await CompiledGraph.load(from: text, on: device) }
        await failsLater(.artifact, "classifier.weft") { _ = try await Artifact.load(from: text, on: device) }
        await failsLater(.io, "no such folder") { _ = try await SentenceModel.open(nowhere, on: device) }
        await failsLater(.device, "no such device") { _ = try await Device.open(.named("no such device")) }
        fails(.argument, "threads") { _ = try Device.cpu(threads: -1) }
        fails(.argument, "threads") { _ = try Device.cpu(threads: 1 << 40) }
        fails(.device, "budget") { try device.setMemoryBudget(1) }
    }

    func testDataOfAnotherNameTypeOrSizeIsRefused() async throws {
        let session = try await session()
        fails(.inputNotSet, "\"x\"") { try session.step() }
        fails(.notRun, "run a step first") { _ = try session.read("y", as: Float.self) }
        let zeros = [Float](repeating: 0, count: 3)
        let unknown = fails(.unknownName, "\"z\"") { try session.set("z", zeros) }
        XCTAssertEqual([unknown?.wanted, unknown?.came], ["x", "z"])
        fails(.unknownName, "no output named \"z\"; there are: y") { _ = try session.read("z", as: Float.self) }
        fails(.unknownName, "\"z\"") { try session.withOutput("z") { _ in } }
        fails(.dType, "\"x\" holds") { try session.set("x", [Int32](repeating: 0, count: 3)) }
        fails(.dType, "\"x\" holds") { try session.borrow("x", Tensor<Int64>([1, 2, 3])) }
        let length = fails(.length, "\"x\" is") { try session.set("x", [Float](repeating: 0, count: 4)) }
        XCTAssertEqual(length?.code, 301)
        XCTAssertTrue(length?.wanted != nil && length?.came != nil)
        fails(.length, "\"x\" is") { try session.borrow("x", Tensor<Float>([1, 2])) }
        fails(.length, "\"x\" is") { try session.set("x", bytes: Data(count: 16)) }
        try session.set("x", zeros)
        try session.step()
        var two = [Float](repeating: 0, count: 2)
        fails(.length, "y") { try session.read("y", into: &two) }
        fails(.dType, "y") { _ = try session.read("y", as: Int32.self) }
        fails(.dType, "y") { try session.withOutput("y", as: Int32.self) { _ in } }
        fails(.unknownName, "there are:") { _ = try session.parameter("w") }
        // the session is as it was
        try session.step()
        XCTAssertEqual(try session.read("y", as: Float.self).elements, zeros)
    }

    func testTensorsOfImpossibleShapesAreRefused() throws {
        fails(.argument, "shape") { _ = try TensorBuffer<Float>(shape: [1 << 40, 1 << 40]) }
        fails(.argument, "shape") { _ = try TensorBuffer<Float>(shape: [-1]) }
        fails(.argument, "wanted 4 of the shape [2, 2], got 3") { _ = try Tensor<Float>([1, 2, 3], shape: [2, 2]) }
        fails(.argument, "wanted 16 bytes") { _ = try Tensor<Float>(lending: Data(count: 12), shape: [4]) }
        fails(.argument, "shape") { _ = try Tensor<Float>([1, 2, 3]).reshaped([2]) }
        // data that is not aligned is copied
        let odd = Data([UInt8](repeating: 7, count: 401)).dropFirst()
        XCTAssertEqual(try Tensor<Float>(lending: odd, shape: [100]).withUnsafeBytes { Array($0) }, [UInt8](odd))
    }

    func testARefusedStepNamesTheIndexAndChangesNothing() async throws {
        let compiled = try await Device.cpu(threads: 1)
            .compile(Graph(parsing: Samples.classifier()), options: CompileOptions(training: true))
        let session = try compiled.session(weights: .load(from: Samples.classifierWeights))
        try session.setOptimizer(.sgd(learningRate: 0.1))
        try session.set("pixels", [Float](repeating: 0, count: 256))
        try session.set("labels", [Int32](arrayLiteral: 1, 2, 10, 3))
        let before = try session.parameter("layers.1.bias")
        let error = fails(.indexOutOfRange, "index 10 at position 2") { try session.step() }
        XCTAssertEqual(error?.node, "check_labels")
        XCTAssertEqual(error?.wanted, "0..10")
        XCTAssertEqual(error?.came, "10")
        XCTAssertEqual(Samples.bits(before), Samples.bits(try session.parameter("layers.1.bias")))
        XCTAssertEqual(try session.optimizerSteps, 0)
    }

    func testBadSettingsOfAnOptimizerAreRefused() async throws {
        let session = try await Device.cpu(threads: 1)
            .compile(Graph(parsing: Samples.classifier()), options: CompileOptions(training: true)).sessionOfZeros()
        fails(.unknownName, "adam") { try session.setOptimizer(Optimizer("nothing", learningRate: 0.1)) }
        fails(.argument, "learning") { try session.setOptimizer(.adam(learningRate: .nan)) }
    }

    func testALibraryOfAnotherVersionIsRefusedAndBothAreNamed() throws {
        let wanted =
            "the Swift library is version 0.1.0 (interface 1), the native library is version 0.2.0 (interface 7)"
        let error = fails(.library, wanted) { try LibraryVersion.check(version: "0.2.0", interface: 7).get() }
        XCTAssertEqual(error?.came, "0.2.0 (interface 7)")
        fails(.library) { try LibraryVersion.check(version: LibraryVersion.version, interface: 2).get() }
        fails(.library) { try LibraryVersion.check(version: "0.1.1", interface: LibraryVersion.interface).get() }
        try WeftLibrary.check()
        // what the native library says of itself
        let rust = try String(contentsOf: Samples.file("bindings/apps/src/version.rs"), encoding: .utf8)
        XCTAssertTrue(rust.contains("INTERFACE: u32 = \(LibraryVersion.interface);"))
    }
}
