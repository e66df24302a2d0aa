// The repository's models and data, and what other programs made of them.

import Foundation
import XCTest

@testable import Weft

/// What `bindings/swift/test` says in the environment.
enum Samples {
    static let repository = folder("WEFT_REPOSITORY")
    /// Made by the test script: `weft run`'s outputs, the unpacked digits.
    static let fixtures = folder("WEFT_FIXTURES")

    private static func folder(_ variable: String) -> URL {
        guard let path = ProcessInfo.processInfo.environment[variable] else {
            fatalError("\(variable) is not set: run bindings/swift/test")
        }
        return URL(fileURLWithPath: path, isDirectory: true)
    }

    static func file(_ path: String) -> URL { repository.appendingPathComponent(path) }

    static let square = "weft 1\ninput x: f32[3]\ny = mul(x, x)\noutput y = y\n"
    static let classifierWeights = file("samples/models/digits/model.safetensors")
    static let miniLM = file("samples/models/minilm")

    static func classifier() throws -> String {
        try String(contentsOf: file("samples/graphs/classifier.weft"), encoding: .utf8)
    }

    /// The digits' classifier over `count` digits, with a loss.
    static func classifier(_ count: Int) throws -> String {
        try classifier().replacingOccurrences(of: "[4, 64]", with: "[\(count), 64]")
            .replacingOccurrences(of: "i32[4]", with: "i32[\(count)]")
    }

    struct Digit {
        let pixels: [Float]
        let digit: Int32
    }

    /// Handwritten digits, mirrored: a user whom the classifier does not know.
    static func mirrored() throws -> [Digit] {
        let text = try String(contentsOf: fixtures.appendingPathComponent("digits.csv"), encoding: .utf8)
        return text.split(whereSeparator: \.isNewline).map { line in
            let numbers = line.split(separator: ",").compactMap { Int32($0.filter { !$0.isWhitespace }) }
            let pixels = (0..<64).map { Float(numbers[$0 / 8 * 8 + 7 - $0 % 8]) / 16 }
            return Digit(pixels: pixels, digit: numbers[64])
        }
    }

    static func pixels(_ digits: some Collection<Digit>) throws -> Tensor<Float> {
        try Tensor(digits.flatMap(\.pixels), shape: [digits.count, 64])
    }

    static func labels(_ digits: some Collection<Digit>) -> Tensor<Int32> {
        Tensor(digits.map(\.digit))
    }

    struct Sentence: Decodable {
        let text: String
        let embedding: [Double]
    }

    /// What sentence-transformers gives.
    static func sentences() throws -> [Sentence] {
        struct Recorded: Decodable {
            let items: [Sentence]
        }
        let data = try Data(contentsOf: file("tests/golden/minilm_sentences.json"))
        return try JSONDecoder().decode(Recorded.self, from: data).items
    }

    static func bits(_ numbers: some Sequence<Float>) -> [UInt32] { numbers.map(\.bitPattern) }
    static func bits(_ tensor: Tensor<Float>) -> [UInt32] { bits(tensor.elements) }
}

extension XCTestCase {
    /// A folder that is gone after the test.
    func temporaryFolder() throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("weft-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
        return folder
    }

    /// That a call throws an error of a kind whose message contains a text.
    @discardableResult
    func fails(
        _ kind: WeftError.Kind, _ message: String = "", line: UInt = #line, _ call: () throws -> Void
    ) -> WeftError? {
        do {
            try call()
        } catch {
            return check(error, kind, message, line: line)
        }
        XCTFail("nothing thrown, \(kind) wanted", line: line)
        return nil
    }

    /// As the other, of a call that suspends.
    @discardableResult
    func failsLater(
        _ kind: WeftError.Kind, _ message: String = "", line: UInt = #line, _ call: () async throws -> Void
    ) async -> WeftError? {
        do {
            try await call()
        } catch {
            return check(error, kind, message, line: line)
        }
        XCTFail("nothing thrown, \(kind) wanted", line: line)
        return nil
    }

    private func check(_ error: any Error, _ kind: WeftError.Kind, _ message: String, line: UInt) -> WeftError? {
        guard let error = error as? WeftError else {
            XCTFail("\(error) is no WeftError", line: line)
            return nil
        }
        XCTAssertEqual(error.kind, kind, error.message, line: line)
        XCTAssertEqual(error.code, kind.rawValue, line: line)
        XCTAssertTrue(
            message.isEmpty || error.message.contains(message), "\(error.message) lacks: \(message)", line: line)
        return error
    }
}

/// A number that tasks and threads change.
final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var number = 0

    var value: Int { lock.withLock { number } }

    func set(_ value: Int) { lock.withLock { number = value } }
}

/// Lines that tasks and threads add.
final class Lines: @unchecked Sendable {
    private let lock = NSLock()
    private var lines: [String] = []

    var all: [String] { lock.withLock { lines } }

    func add(_ line: String) { lock.withLock { lines.append(line) } }
}
