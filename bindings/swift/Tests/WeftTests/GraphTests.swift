import Foundation
import XCTest

@testable import Weft

/// Graphs built node by node are those of the text form, which the engine reads by itself.
final class GraphTests: XCTestCase {
    /// The graph of `Tests/byhand.weft`.
    private func byHand() throws -> Graph {
        try Graph { g in
            let pixels = try g.input("pixels", [4, 64])
            let labels = try g.input("labels", [4], .i32)
            let layers = try (0..<2).map { at in
                let outputs = at == 0 ? 64 : 10
                return try g.scope("layers.\(at)") {
                    (weight: try g.parameter("weight", [outputs, 64]), bias: try g.parameter("bias", [outputs]))
                }
            }
            // a convolution
            let image = try g.reshape(pixels, shape: [4, 1, 8, 8]).named("image")
            let cut = try g.slice(layers[0].weight, start: [0, 1], stop: [12, 19], step: [2, 2]).named("cut")
            let kernels = try g.reshape(cut, shape: [6, 1, 3, 3]).named("kernels")
            let maps = try g.conv2d(image, kernels, stride: [2, 1], padding: [1, 0], dilation: [1, 2]).named("maps")
            XCTAssertEqual(maps.shape, [4, 6, 4, 4])
            let means = try g.avgPool2d(maps, kernel: [1, 2]).named("means")
            let peaks = try g.maxPool2d(maps, kernel: [2, 1], stride: [1, 3], padding: [1, 0]).named("peaks")
            let poured = try g.reshape(means, shape: [4, -1]).named("poured")
            let padded = try g.pad(poured, before: [0, 3], after: [0, 13], value: 0.25).named("padded")

            // attention
            let first = try g.linear(pixels, weight: layers[0].weight, bias: layers[0].bias).named("first")
            let hidden = try g.gelu(first).named("hidden")
            let tokens = try g.reshape(hidden, shape: [4, 2, 8, 4]).named("tokens")
            let turned = try g.rope(tokens, theta: 100, offset: 1, interleaved: true).named("turned")
            let attended = try g.attention(turned, turned, tokens, causal: true, window: 3, scale: 0.5)
            let order = try g.permute(attended.named("attended"), axes: [0, 2, 1, 3]).named("order")
            let joined = try g.reshape(order, shape: [4, 64]).named("joined")
            let bias = try g.pad(layers[1].bias, before: [20], after: [34]).named("padded_bias")
            let normed = try g.layerNorm(joined, scale: layers[0].bias, bias: bias, eps: 0.01).named("normed")

            // operators and numbers
            let rows = try g.embedding(layers[1].weight, indices: labels).named("rows")
            let average = try g.mean(normed, axes: [1], keepdim: true).named("average")
            let centred = try (normed - average).named("centred")
            let mixed = try (centred + rows * Float(0.125) - 2 * padded).named("mixed")
            let positive = try (mixed .> 0.0).named("positive")
            XCTAssertEqual(positive.description, "bool[4, 64]")
            let kept = try g.select(positive, mixed, -mixed / 3).named("kept")
            let bounded = try g.clamp(kept, min: -1.5, max: 2.5).named("bounded")

            // what is given out
            let logits = try g.linear(bounded, weight: layers[1].weight, bias: layers[1].bias).named("logits")
            let likely = try g.logSoftmax(logits, axis: -1).named("likely")
            let best = try g.argmax(likely, axis: 1).named("best")
            try g.output("best", best)
            try g.output("likely", likely)
            let summed = try g.cumsum(bounded, axis: 1).named("summed")
            try g.output("alike", g.matmul(summed, bounded, transposeB: true).named("alike"))
            let all = try g.reduceMax(peaks, axes: [2, 3]).named("all")
            try g.output("both", g.concat([all, all, logits], axis: 1).named("both"))
            try g.setLoss(g.crossEntropy(logits, labels: labels, labelSmoothing: 0.1).named("mean"))
        }
    }

    func testAGraphByHandIsThatOfItsTextAndGivesTheBitsOfWeftRun() async throws {
        let file = Samples.file("bindings/swift/Tests/byhand.weft")
        let graph = try byHand()
        let parsed = try Graph(parsing: String(contentsOf: file, encoding: .utf8))
        XCTAssertEqual(try graph.text(), try parsed.text())

        let outputs = try Weights.load(from: Samples.fixtures.appendingPathComponent("byhand.safetensors"))
        let digits = try Weights.load(from: Samples.file("samples/graphs/digits.safetensors"))
        let compiled = try await Device.cpu(threads: 2).compile(graph)
        let session = try compiled.session(weights: .load(from: Samples.classifierWeights))
        try session.set("pixels", digits.tensor("pixels", of: Float.self))
        try session.set("labels", digits.tensor("labels", of: Int32.self))
        try session.step()
        XCTAssertEqual(session.tensors.outputs.map(\.name), ["best", "likely", "alike", "both", "loss"])
        for output in ["likely", "alike", "both"] {
            XCTAssertEqual(Samples.bits(try session.read(output)), Samples.bits(try outputs.tensor(output)), output)
        }
        XCTAssertEqual(
            try session.bytes(of: "best"), try outputs.tensor("best", of: Int32.self).withUnsafeBytes { Data($0) })
        // not all the same, so that they say something
        let likely: Tensor<Float> = try outputs.tensor("likely")
        XCTAssertGreaterThan(Set(likely.elements).count, 30)
        try graph.close()
    }

    // MARK: Every operation

    /// A graph of each operation, as the engine's own test has recorded it.
    private func texts() throws -> [String: String] {
        try JSONDecoder().decode(
            [String: String].self, from: Data(contentsOf: Samples.file("tests/golden/graph_texts.json")))
    }

    func testEveryOperationHasAFunctionWhichBuildsWhatItsTextSays() throws {
        let texts = try texts()
        XCTAssertGreaterThan(texts.count, 100)
        for (operation, text) in texts {
            XCTAssertEqual(try rebuilt(text).text(), try Graph(parsing: text).text(), operation)
        }
        XCTAssertNil(try call("nothing", of: Graph(), Inputs(all: []), Attributes("")))
    }

    /// Builds a text's graph by calling the functions that it names.
    private func rebuilt(_ text: String) throws -> Graph {
        let graph = try Graph()
        var values: [String: Value] = [:]
        for line in text.split(separator: "\n").dropFirst() {
            if let (_, name, type, sizes) = line.wholeMatch(of: /input (\w+): (\w+)\[(.*)\]/)?.output {
                let type = try XCTUnwrap(ElementType(named: type), "\(type)")
                values[String(name)] = try graph.input(String(name), Attributes.numbers(sizes), type)
            } else if let (_, name, value) = line.wholeMatch(of: /output (\w+) = (\S+)/)?.output {
                try graph.output(String(name), XCTUnwrap(values[String(value)]))
            } else if let (_, name, operation, given) = line.wholeMatch(of: /(\S+) = (\w+)\((.*)\)/)?.output {
                // the inputs come first
                let arguments = given.split(separator: /, (?=\w+=)/, omittingEmptySubsequences: true)
                let hasInputs = !given.isEmpty && arguments.first?.contains("=") == false
                let inputs = hasInputs ? arguments.first?.split(separator: ", ") ?? [] : []
                let attributes = Attributes(hasInputs ? arguments.dropFirst() : arguments[...])
                let all = try inputs.map { try XCTUnwrap(values[String($0)], "\($0)") }
                let made = try call(String(operation), of: graph, Inputs(all: all), attributes)
                XCTAssertEqual(attributes.unused, [], String(operation))
                values[String(name)] = try XCTUnwrap(made, "no function for \(operation)")
            } else {
                XCTFail("a line that this test does not read: \(line)")
            }
        }
        return graph
    }

    func testDefaultsAreThoseThatTheEnginesOptionsHave() throws {
        func text(_ shape: [Int], _ build: (Graph, Value) throws -> Value) throws -> String {
            try Graph { try $0.output("y", build($0, $0.input("x", shape))) }.text()
        }
        let wanted = [
            "conv2d(x, w, stride=[1, 1], padding=[0, 0], dilation=[1, 1], groups=1)": try text([1, 2, 5, 5]) {
                try $0.conv2d($1, $0.parameter("w", [3, 2, 3, 3]))
            },
            "avg_pool1d(x, kernel=3, stride=3, padding=0, count_include_pad=true)": try text([1, 2, 9]) {
                try $0.avgPool1d($1, kernel: 3)
            },
            "max_pool2d(x, kernel=[3, 2], stride=[3, 2], padding=[0, 0])": try text([1, 2, 9, 9]) {
                try $0.maxPool2d($1, kernel: [3, 2])
            },
            "max_pool2d(x, kernel=[3, 2], stride=[1, 1], padding=[0, 0])": try text([1, 2, 9, 9]) {
                try $0.maxPool2d($1, kernel: [3, 2], stride: [1, 1])
            },
            "rope(x, theta=10000.0, offset=0, interleaved=false)": try text([1, 2, 3, 4]) { try $0.rope($1) },
            "matmul(x, x, transpose_a=false, transpose_b=true)": try text([3, 2]) {
                try $0.matmul($1, $1, transposeB: true)
            },
            "sum(x, axes=[-1], keepdim=false)": try text([3, 2]) { try $0.sum($1, axes: [-1]) },
            "layer_norm(x, s, eps=1e-5)": try text([3, 2]) {
                try $0.layerNorm($1, scale: $0.parameter("s", [2]))
            },
            "cast(x, dtype=f16)": try text([2]) { try $0.cast($1, type: .f16) },
        ]
        for (call, text) in wanted { XCTAssertTrue(text.contains(" = \(call)\n"), "\(call) is not in\n\(text)") }
    }

    // MARK: Operators, states, names

    func testOperatorsAreOperationsWithNumbersOfTheValuesType() throws {
        func body(_ build: (Value, Value) throws -> Value) throws -> [String] {
            let graph = try Graph { g in
                try g.output("y", build(g.input("a", [3]), g.input("b", [2, 3])))
            }
            return try graph.text().split(separator: "\n").dropFirst(3).dropLast().map(String.init)
        }
        XCTAssertEqual(try body { try $0 + $1 }, ["%2 = add(a, b)"])
        XCTAssertEqual(try body { try $0 - $1 }, ["%2 = sub(a, b)"])
        XCTAssertEqual(try body { try $0 * $1 }, ["%2 = mul(a, b)"])
        XCTAssertEqual(try body { try $0 / $1 }, ["%2 = div(a, b)"])
        XCTAssertEqual(try body { try $0 % $1 }, ["%2 = rem(a, b)"])
        XCTAssertEqual(try body { a, _ in try -a }, ["%2 = neg(a)"])
        XCTAssertEqual(try body { try $0 .< $1 }, ["%2 = lt(a, b)"])
        XCTAssertEqual(try body { try $0 .<= $1 }, ["%2 = le(a, b)"])
        XCTAssertEqual(try body { try $0 .> $1 }, ["%2 = gt(a, b)"])
        XCTAssertEqual(try body { try $0 .>= $1 }, ["%2 = ge(a, b)"])
        XCTAssertEqual(try body { try $0 .== $1 }, ["%2 = eq(a, b)"])
        XCTAssertEqual(try body { try $0 .!= $1 }, ["%2 = ne(a, b)"])
        XCTAssertEqual(try body { a, _ in try a * 0.5 }, ["const %2: f32[] = [0.5]", "%3 = mul(a, %2)"])
        XCTAssertEqual(try body { a, _ in try 1 - a }, ["const %2: f32[] = [1.0]", "%3 = sub(%2, a)"])
        XCTAssertEqual(try body { a, _ in try a - 1 }, ["const %2: f32[] = [1.0]", "%3 = sub(a, %2)"])
        XCTAssertEqual(try body { try Float(2) / $1 }, ["const %2: f32[] = [2.0]", "%3 = div(%2, b)"])
        XCTAssertEqual(try body { try $1 / 4 }, ["const %2: f32[] = [4.0]", "%3 = div(b, %2)"])
        XCTAssertEqual(try body { try Int64(2) % $1 }, ["const %2: f32[] = [2.0]", "%3 = rem(%2, b)"])
        XCTAssertEqual(try body { try $1 % 2 }, ["const %2: f32[] = [2.0]", "%3 = rem(b, %2)"])
        XCTAssertEqual(try body { a, _ in try Int32(3) + a }, ["const %2: f32[] = [3.0]", "%3 = add(%2, a)"])
        XCTAssertEqual(try body { a, _ in try 3 * a + 1 }.last, "%5 = add(%3, %4)")
        XCTAssertEqual(try body { a, _ in try a .>= 1.5 }, ["const %2: f32[] = [1.5]", "%3 = ge(a, %2)"])
        let graph = try Graph { g in
            let sum = try g.input("a", [3]) + g.input("b", [2, 1])
            XCTAssertEqual(sum.description, "f32[2, 3]")
            XCTAssertEqual(sum.rank, 2)
            // every digit of 64 bits
            try g.output("large", g.scalar((1 << 53) + 1, .i64))
        }
        let text = try graph.text()
        XCTAssertTrue(text.contains("i64[] = [9007199254740993]"), text)
    }

    func testStatesConstantsAndTheLossAreTheGraphs() async throws {
        let graph = try Graph { g in
            let count = try g.state("count", [2])
            let next = try count + g.constant(Tensor<Float>([1, 10]))
            try g.setState(count, to: next)
            let w = try g.parameter("w", [2], trainable: false)
            try g.output("count", next)
            try g.output("norm", g.scope("inner") { try g.name(next * w, "product") })
            try g.setLoss(g.mean(next, axes: [0]))
        }
        let wanted =
            "weft 1\nstate count: f32[2]\nconst %1: f32[2] = [1.0, 10.0]\n%2 = add(count, %1)\nfrozen w: f32[2]\n"
            + "inner.product = mul(%2, w)\n%5 = mean(%2, axes=[0], keepdim=false)\nnext count = %2\n"
            + "output count = %2\noutput norm = inner.product\nloss %5\n"
        XCTAssertEqual(try graph.text(), wanted)
        let session = try await Device.cpu(threads: 1).compile(graph).sessionOfZeros()
        for _ in 0..<3 { try session.step() }
        XCTAssertEqual(try session.read("count", as: Float.self).elements, [3, 30])
    }

    func testABatchNormThatTracksHasItsStates() throws {
        let training = try Graph { g in
            let x = try g.input("x", [8, 3])
            let (scale, bias) = (try g.parameter("scale", [3]), try g.parameter("bias", [3]))
            try g.output("y", g.scope("net") { try g.batchNormTracking("norm", x, scale: scale, bias: bias) })
        }.text()
        for state in ["running_mean: f32[3]", "running_var: f32[3]", "num_batches_tracked: i32["] {
            XCTAssertTrue(training.contains("state net.norm.\(state)"), training)
        }
        let evaluating = try Graph { g in
            let (scale, bias) = (try g.parameter("scale", [3]), try g.parameter("bias", [3]))
            try g.output("y", g.batchNormTracked("norm", g.input("x", [8, 3]), scale: scale, bias: bias))
        }.text()
        XCTAssertTrue(evaluating.contains("state norm.running_var: f32[3]"), evaluating)
    }

    // MARK: Errors

    func testWhatAnOperationDoesNotAcceptSaysWhatWasWantedWhatCameAndWhereAndStaysTheGraphs() async throws {
        let graph = try Graph()
        let a = try graph.input("a", [2, 3])
        let error = fails(.op, "axis 7") { _ = try graph.softmax(a, axis: 7) }
        XCTAssertEqual(error?.code, 100)
        XCTAssertTrue(error?.wanted?.isEmpty == false, "\(String(describing: error?.wanted))")
        XCTAssertTrue(error?.came?.contains("7") == true, "\(String(describing: error?.came))")
        XCTAssertTrue(error?.node?.contains("softmax(a") == true, "\(String(describing: error?.node))")
        // it is of no further use
        let calls: [() throws -> Void] = [
            { _ = try graph.relu(a) }, { try graph.output("a", a) }, { _ = try graph.text() }, { _ = try a + 1 },
        ]
        for call in calls { fails(.op, "axis 7", call) }
        await failsLater(.op, "axis 7") { _ = try await Device.cpu(threads: 1).compile(graph) }
        try graph.close()
        fails(.closed, "graph") { _ = try graph.relu(a) }
        fails(.closed) { _ = try graph.constant(Tensor<Float>([1])) }

        let other = try Graph()
        let b = try other.input("b", [2, 3])
        let product = fails(.op, "inner dimensions") { _ = try other.matmul(b, b) }
        XCTAssertTrue(product?.came?.contains("[2, 3]") == true && product?.node?.contains("matmul(b, b)") == true)
    }

    func testNamesValuesNumbersAndShapesAreChecked() throws {
        func refused(
            _ kind: WeftError.Kind, _ message: String, line: UInt = #line, _ build: (Graph, Value) throws -> Void
        ) throws {
            let graph = try Graph()
            let a = try graph.input("a", [3], .u8)
            fails(kind, message, line: line) { try build(graph, a) }
        }
        let other = try Graph()
        let foreign = try other.input("a", [3], .u8)
        try refused(.op, "a value of another graph") { _ = try $0.add($1, foreign) }
        try refused(.op, "a value of another graph") { g, _ in try g.output("y", foreign) }
        try refused(.op, "a value of another graph") { _ = try foreign * $1 }
        try refused(.op, "a name not used before") { g, _ in _ = try g.input("a", []) }
        try refused(.op, "letters, digits") { g, _ in _ = try g.input("a b", []) }
        try refused(.op, "a number that u8 holds") { _ = try $1 * 0.5 }
        try refused(.argument, "a number that i64 holds") { g, _ in _ = try g.scalar(UInt64.max, .i64) }
        try refused(.op, "at least 1") { g, _ in _ = try g.input("b", [0]) }
        try refused(.argument, "sizes of 0 or more") { g, _ in _ = try g.input("b", [-1]) }
        try refused(.op, "one f32 element") { try $0.setLoss($1) }
        try refused(.op, "a value that `state` made") { try $0.setState($1, to: $1) }
        try refused(.op, "axis 7") { g, a in _ = try g.softmax(g.cast(a, type: .f32), axis: 7) }
        try refused(.unknownName, "no operation named \"nothing\"") { _ = try $0.operation("nothing", [$1]) }
        try refused(.unknownName, "softmax") { _ = try $0.operation("softmax", [$1], attribute("axes", 1)) }
        try refused(.op, "axis: Int") { _ = try $0.operation("softmax", [$1]) }
        let wrong = try Graph()
        let x = try wrong.input("x", [3])
        let error = fails(.op, "axis: Int") { _ = try wrong.operation("softmax", [x], attribute("axis", 1.5)) }
        XCTAssertTrue(error?.wanted?.contains("axis: Int") == true, "\(String(describing: error))")
        XCTAssertTrue(error?.came?.contains("1.5") == true, "\(String(describing: error))")
        XCTAssertTrue(error?.node?.contains("softmax") == true, "\(String(describing: error))")
        // the other graph is as it was
        XCTAssertEqual(try other.text(), "weft 1\ninput a: u8[3]\n")
    }

    func testWhatBuildingThrowsComesOut() throws {
        struct Mine: Error {}
        XCTAssertThrowsError(try Graph { _ in throw Mine() }) { XCTAssertTrue($0 is Mine) }
    }

    func testScopesOfTasksAndGraphsAreTheirOwn() async throws {
        let (one, other) = (try Graph(), try Graph())
        try one.scope("outer") {
            _ = try other.input("plain", [])
            try one.scope("inner") {
                _ = try one.input("x", [])
                try other.scope("else") { _ = try (one.input("y", []), other.input("z", [])) }
            }
        }
        _ = try one.input("w", [])
        XCTAssertEqual(
            try one.text(), "weft 1\ninput outer.inner.x: f32[]\ninput outer.inner.y: f32[]\ninput w: f32[]\n")
        XCTAssertEqual(try other.text(), "weft 1\ninput plain: f32[]\ninput else.z: f32[]\n")
    }
}

/// The inputs of an operation.
struct Inputs {
    let all: [Value]

    subscript(_ at: Int) -> Value { all[at] }

    func ifThere(_ at: Int) -> Value? { at < all.count ? all[at] : nil }
}

/// The attributes of an operation's text, by their names.
final class Attributes {
    private(set) var unused: Set<String> = []
    private var texts: [String: Substring] = [:]

    init(_ given: some Sequence<Substring>) {
        for attribute in given {
            let at = attribute.firstIndex(of: "=") ?? attribute.endIndex
            texts[String(attribute[..<at])] = attribute[at...].dropFirst()
        }
        unused = Set(texts.keys)
    }

    convenience init(_ none: String) {
        self.init([Substring]())
    }

    static func numbers(_ list: some StringProtocol) -> [Int] {
        list.split(separator: ", ").compactMap { Int($0) }
    }

    private func text(_ name: String) -> String {
        unused.remove(name)
        guard let text = texts[name] else {
            XCTFail("no attribute \(name)")
            return ""
        }
        return String(text)
    }

    func int(_ name: String) -> Int { Int(text(name)) ?? .min }
    func ints(_ name: String) -> [Int] { Self.numbers(text(name).dropFirst().dropLast()) }
    func float(_ name: String) -> Double { Double(text(name)) ?? .nan }
    func bool(_ name: String) -> Bool { text(name) == "true" }
    func type(_ name: String) -> ElementType { ElementType(named: text(name)) ?? .q4 }
}

extension ElementType {
    /// The type of a name of the text form.
    init?(named name: some StringProtocol) {
        guard let type = ElementType.allCases.first(where: { "\($0)" == name }) else { return nil }
        self = type
    }
}
