import Foundation
import XCTest

@testable import Weft

/// That nothing is copied where the documentation says so, and what a call of the data plane costs. `bindings/swift/test` runs it in
/// release, where times are what an app has.
final class CopiesTests: XCTestCase {
    private let elements = 4 << 20

    func testLending16MBInAndOutTakesLessThanAHundredthOfCopyingThem() async throws {
        let text = "weft 1\ninput x: f32[\(elements)]\ny = neg(x)\noutput y = y\n"
        let session = try await Device.cpu(threads: 2).compile(Graph(parsing: text)).sessionOfZeros()
        let x = try TensorBuffer<Float>(shape: [elements])
        let y = try TensorBuffer<Float>(shape: [elements])
        let data = Data(count: elements * 4)
        let tensor = x.tensor()
        // each by itself: a step between them takes longer than both, and would have to be subtracted
        let setting = try fastest { try session.set("x", x) }
        try session.step()
        let copying = try setting + fastest { try session.read("y", into: y) }
        let ways: [(String, () throws -> Void)] = [
            ("a buffer", { try session.borrow("x", x) }),
            ("a tensor", { try session.borrow("x", tensor) }),
            ("data", { try session.borrow("x", bytes: data) }),
        ]
        for (way, borrow) in ways {
            let lending = try fastest {
                try borrow()
                _ = try session.withOutput("y", as: Float.self) { $0[1] }
            }
            print("16 MB in and out: copied \(copying), lent as \(way) \(lending)")
            XCTAssertLessThan(lending * 100, copying, way)
        }
        // what was measured works, at the last element, too
        x[elements - 1] = 3
        try session.borrow("x", x)
        try session.step()
        XCTAssertEqual(try session.withOutput("y", as: Float.self) { $0[elements - 1] }, -3)
    }

    func testACallOfTheDataPlaneTakesLessThanAFifthOfAMicrosecond() async throws {
        let session = try await Device.cpu(threads: 1).compile(Graph(parsing: Samples.square)).sessionOfZeros()
        let x = Tensor<Float>([1, 2, 3])
        var y = [Float](repeating: 1, count: 3)
        try session.set("x", x)
        try session.step()
        let calls = 20_000
        let each: [(String, () throws -> Void)] = [
            ("wait", { try session.wait() }),
            ("set, a tensor", { try session.set("x", x) }),
            ("set, an array", { try session.set("x", y) }),
            ("borrow", { try session.borrow("x", x) }),
            ("read, into an array", { try session.read("y", into: &y) }),
            ("withOutput", { try session.withOutput("y") { _ in } }),
        ]
        for (name, call) in each {
            let whole = try fastest { for _ in 0..<calls { try call() } }
            let nanoseconds = Double(whole.components.attoseconds) / 1e9 / Double(calls)
            print("a call: \(name) takes \(nanoseconds) ns")
            #if !DEBUG
                XCTAssertLessThan(nanoseconds, 200, name)
            #endif
        }
    }

    /// The fastest of some calls.
    private func fastest(_ call: () throws -> Void) throws -> Duration {
        let clock = ContinuousClock()
        for _ in 0..<3 { try call() }
        return try (0..<20).map { _ in try clock.measure(call) }.min() ?? .zero
    }
}
