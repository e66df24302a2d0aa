// Graphs: what is to be computed, built node by node or read from its text form.

internal import CWeft
internal import WeftBindings

/// A graph: what is to be computed. It is built node by node, or read from its text form, and may be closed once it is compiled.
///
/// ```swift
/// let graph = try Graph { g in
///     let x = try g.input("x", [20, 64])
///     let hidden = try g.scope("hidden") {
///         try g.relu(g.linear(x, weight: g.parameter("weight", [32, 64]), bias: g.parameter("bias", [32])))
///     }
///     let logits = try g.linear(hidden, weight: g.parameter("out.weight", [10, 32]))    // logits.shape is [20, 10]
///     try g.output("probabilities", g.softmax(logits, axis: -1))
///     try g.output("scaled", 2 * logits - 1)
/// }
/// ```
///
/// Types and shapes are checked at once, and readable at each ``Value``. A graph that has thrown an error of its building throws it
/// from then on, also when it is compiled. One task at a time builds it: a second one is ``WeftError/Kind/busy``.
public final class Graph: Sendable {
    let native: NativeGraph
    private let handle: Handle

    private init(_ native: NativeGraph) {
        self.native = native
        handle = Handle(native.tableHandle())
    }

    /// An empty graph.
    public convenience init() throws(WeftError) {
        self.init(try Weft.native { try NativeGraph() })
    }

    /// A graph that `build` fills.
    public convenience init(_ build: (Graph) throws -> Void) throws {
        try self.init()
        try build(self)
    }

    /// Reads a graph's text form.
    ///
    /// - Throws: ``WeftError/Kind/parse``, with line and column.
    public convenience init(parsing text: String) throws(WeftError) {
        self.init(try Weft.native { try NativeGraph.parse(text: text) })
    }

    /// Its text form.
    public func text() throws(WeftError) -> String {
        try Weft.native { try native.text() }
    }

    /// An input: data that is set before each step.
    public func input(_ name: String, _ shape: [Int], _ type: ElementType = .f32) throws(WeftError) -> Value {
        try value(native.input(name: named(name), elementType: type.native, shape: shape.map(Int64.init)))
    }

    /// A weight. Training changes it if it is `trainable` and of a floating-point type.
    public func parameter(
        _ name: String, _ shape: [Int], _ type: ElementType = .f32, trainable: Bool = true
    ) throws(WeftError) -> Value {
        try value(
            native.parameter(
                name: named(name), elementType: type.native, shape: shape.map(Int64.init), trainable: trainable))
    }

    /// Data that a session carries from one step to the next, zeros at first; ``setState(_:to:)`` says what it is after a step.
    public func state(_ name: String, _ shape: [Int], _ type: ElementType = .f32) throws(WeftError) -> Value {
        try value(native.state(name: named(name), elementType: type.native, shape: shape.map(Int64.init)))
    }

    /// Makes `next`, of the same type and shape, what a state is after each step. Within a step it has its old value.
    public func setState(_ state: Value, to next: Value) throws(WeftError) {
        let (state, next) = (try index(state), try index(next))
        try Weft.native { try native.setState(state: state, next: next) }
    }

    /// Data that is part of the graph, copied.
    public func constant<Element>(_ tensor: Tensor<Element>) throws(WeftError) -> Value {
        try LibraryVersion.checked.get()
        let shape = tensor.shape
        var made: weft_value = 0
        try handle.call(for: native) { graph, error in
            tensor.withUnsafeBytes {
                weft_graph_constant(
                    graph, Element.elementType.rawValue, shape, shape.count, $0.baseAddress, $0.count, &made, error)
            }
        }
        return Value(graph: self, index: Int64(made), type: Element.elementType, shape: shape)
    }

    /// A constant of one element, without axes: a number of the type, which floating-point types round.
    public func scalar(_ number: some BinaryFloatingPoint, _ type: ElementType = .f32) throws(WeftError) -> Value {
        let number = Double(number)
        return try value(native.scalar(number: number, elementType: type.native))
    }

    /// A constant of one element, without axes: a whole number of the type, which floating-point types round.
    public func scalar(_ number: some BinaryInteger, _ type: ElementType = .f32) throws(WeftError) -> Value {
        guard type == .i64 else { return try scalar(Double(number), type) }
        guard let whole = Int64(exactly: number) else {
            throw .argument("number", wanted: "a number that i64 holds", came: "\(number)")
        }
        return try value(native.wholeScalar(number: whole))
    }

    /// A batch norm for training that keeps running statistics, as PyTorch's `BatchNorm` does: of `x` of `[n, c, …]`, with `scale`
    /// and `bias` of `[c]`. Its states are `NAME.running_mean`, `NAME.running_var` and `NAME.num_batches_tracked`.
    public func batchNormTracking(
        _ name: String, _ x: Value, scale: Value, bias: Value, momentum: Double = 0.1, eps: Double = 1e-5
    ) throws(WeftError) -> Value {
        let (x, scale, bias) = (try index(x), try index(scale), try index(bias))
        return try value(
            native.batchNormTracking(
                name: named(name), x: x, scale: scale, bias: bias, momentum: momentum, eps: eps))
    }

    /// The same by the running statistics, for an evaluation graph whose session gets the states of one that trained.
    public func batchNormTracked(
        _ name: String, _ x: Value, scale: Value, bias: Value, eps: Double = 1e-5
    ) throws(WeftError) -> Value {
        let (x, scale, bias) = (try index(x), try index(scale), try index(bias))
        return try value(native.batchNormTracked(name: named(name), x: x, scale: scale, bias: bias, eps: eps))
    }

    /// Names a value, for messages. Names are unique in a graph: letters, digits and `_ . - /`.
    @discardableResult
    public func name(_ value: Value, _ name: String) throws(WeftError) -> Value {
        let index = try index(value)
        try Weft.native { try native.nameValue(value: index, name: named(name)) }
        return value
    }

    /// Makes a value an output, with a name.
    public func output(_ name: String, _ value: Value) throws(WeftError) {
        let index = try index(value)
        try Weft.native { try native.output(name: name, value: index) }
    }

    /// Makes a value of one f32 element the loss, which training minimises.
    public func setLoss(_ value: Value) throws(WeftError) {
        let index = try index(value)
        try Weft.native { try native.setLoss(value: index) }
    }

    /// Closes it. What was compiled from it stays.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }

    // MARK: Scopes

    /// What stands before names, by graph, in the calls that a scope makes.
    @TaskLocal private static var prefixes: [ObjectIdentifier: String] = [:]

    /// Puts `name.` before every name that is given to inputs, weights, states and values in `build`. Outputs keep their names.
    public func scope<R>(_ name: String, _ build: () throws -> R) rethrows -> R {
        var inner = Graph.prefixes
        inner[ObjectIdentifier(self)] = named(name) + "."
        return try Graph.$prefixes.withValue(inner, operation: build)
    }

    private func named(_ name: String) -> String {
        (Graph.prefixes[ObjectIdentifier(self)] ?? "") + name
    }

    // MARK: Nodes

    /// Adds an operation; inputs that are nil are left out.
    func operation(
        _ name: String, _ inputs: [Value?], _ attributes: OperationAttribute...
    ) throws(WeftError) -> Value {
        var indices: [Int64] = []
        for case let input? in inputs { indices.append(try index(input)) }
        return try value(native.operation(name: name, inputs: indices, attributes: attributes))
    }

    private func value(_ make: @autoclosure () throws -> GraphValue) throws(WeftError) -> Value {
        let made = try Weft.native(make)
        return Value(
            graph: self, index: made.index, type: ElementType(made.elementType), shape: made.shape.map { Int($0) })
    }

    private func index(_ value: Value) throws(WeftError) -> Int64 {
        guard value.graph === self else {
            let (wanted, came) = ("values of this graph", "a value of another graph")
            throw WeftError(.op, "wanted \(wanted), got \(came)", wanted: wanted, came: came)
        }
        return value.index
    }
}

/// An attribute, by its name in the engine.
func attribute(_ name: String, _ value: Int) -> OperationAttribute {
    OperationAttribute(name: name, value: .whole(value: Int64(value)))
}

func attribute(_ name: String, _ values: [Int]) -> OperationAttribute {
    OperationAttribute(name: name, value: .wholes(values: values.map(Int64.init)))
}

func attribute(_ name: String, _ value: Double) -> OperationAttribute {
    OperationAttribute(name: name, value: .real(value: value))
}

func attribute(_ name: String, _ value: Bool) -> OperationAttribute {
    OperationAttribute(name: name, value: .flag(value: value))
}

func attribute(_ name: String, _ value: ElementType) -> OperationAttribute {
    OperationAttribute(name: name, value: .type(value: value.native))
}
