// Values of graphs under construction, and their operators.

/// A value of a graph that is being built: what an input, a weight, a constant or an operation gives.
///
/// The operators are operations, elementwise; shapes broadcast as NumPy's do, and numbers become constants of the value's type.
/// Comparisons are written as those of Swift's vectors are (`.<`, `.==`): what they give is a value of booleans. They throw what the
/// operations throw.
public struct Value: Sendable {
    /// The graph that it belongs to; others refuse it.
    public let graph: Graph
    let index: Int64
    /// The type of its elements.
    public let type: ElementType
    /// Sizes of its axes.
    public let shape: [Int]

    /// How many axes it has.
    public var rank: Int { shape.count }

    /// Names it, for messages: see ``Graph/name(_:_:)``.
    @discardableResult
    public func named(_ name: String) throws(WeftError) -> Value {
        try graph.name(self, name)
    }
}

extension Value: CustomStringConvertible {
    /// Its type and shape, as in `f32[2, 3]`.
    public var description: String { "\(type)\(shape)" }
}

extension Value {
    /// ``Graph/neg(_:)``
    public static prefix func - (x: Value) throws(WeftError) -> Value { try x.graph.neg(x) }

    /// ``Graph/add(_:_:)``
    public static func + (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.add(a, b) }

    /// ``Graph/sub(_:_:)``
    public static func - (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.sub(a, b) }

    /// ``Graph/mul(_:_:)``
    public static func * (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.mul(a, b) }

    /// ``Graph/div(_:_:)``
    public static func / (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.div(a, b) }

    /// ``Graph/rem(_:_:)``
    public static func % (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.rem(a, b) }

    /// ``Graph/lt(_:_:)``
    public static func .< (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.lt(a, b) }

    /// ``Graph/le(_:_:)``
    public static func .<= (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.le(a, b) }

    /// ``Graph/gt(_:_:)``
    public static func .> (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.gt(a, b) }

    /// ``Graph/ge(_:_:)``
    public static func .>= (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.ge(a, b) }

    /// ``Graph/eq(_:_:)``
    public static func .== (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.eq(a, b) }

    /// ``Graph/ne(_:_:)``
    public static func .!= (a: Value, b: Value) throws(WeftError) -> Value { try a.graph.ne(a, b) }
}

/// A number that stands beside a ``Value`` in an expression, as a constant of its type. Swift's own numbers are; the library
/// conforms them.
public protocol GraphNumber {
    /// The number as a constant of a graph.
    func constant(in graph: Graph, _ type: ElementType) throws(WeftError) -> Value
}

extension GraphNumber where Self: BinaryFloatingPoint {
    /// The number as a constant of a graph.
    public func constant(in graph: Graph, _ type: ElementType) throws(WeftError) -> Value {
        try graph.scalar(self, type)
    }
}

extension GraphNumber where Self: BinaryInteger {
    /// The number as a constant of a graph.
    public func constant(in graph: Graph, _ type: ElementType) throws(WeftError) -> Value {
        try graph.scalar(self, type)
    }
}

extension Double: GraphNumber {}
extension Float: GraphNumber {}
extension Int: GraphNumber {}
extension Int32: GraphNumber {}
extension Int64: GraphNumber {}

extension Value {
    private func of(_ number: some GraphNumber) throws(WeftError) -> Value {
        try number.constant(in: graph, type)
    }

    /// ``Graph/add(_:_:)`` of a number.
    public static func + (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a + a.of(b) }

    /// ``Graph/sub(_:_:)`` of a number.
    public static func - (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a - a.of(b) }

    /// ``Graph/mul(_:_:)`` by a number.
    public static func * (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a * a.of(b) }

    /// ``Graph/div(_:_:)`` by a number.
    public static func / (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a / a.of(b) }

    /// ``Graph/rem(_:_:)`` by a number.
    public static func % (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a % a.of(b) }

    /// ``Graph/add(_:_:)`` to a number.
    public static func + (a: some GraphNumber, b: Value) throws(WeftError) -> Value { try b.of(a) + b }

    /// ``Graph/sub(_:_:)`` from a number.
    public static func - (a: some GraphNumber, b: Value) throws(WeftError) -> Value { try b.of(a) - b }

    /// ``Graph/mul(_:_:)`` of a number.
    public static func * (a: some GraphNumber, b: Value) throws(WeftError) -> Value { try b.of(a) * b }

    /// ``Graph/div(_:_:)`` of a number.
    public static func / (a: some GraphNumber, b: Value) throws(WeftError) -> Value { try b.of(a) / b }

    /// ``Graph/rem(_:_:)`` of a number.
    public static func % (a: some GraphNumber, b: Value) throws(WeftError) -> Value { try b.of(a) % b }

    /// ``Graph/lt(_:_:)`` of a number.
    public static func .< (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a .< a.of(b) }

    /// ``Graph/le(_:_:)`` of a number.
    public static func .<= (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a .<= a.of(b) }

    /// ``Graph/gt(_:_:)`` of a number.
    public static func .> (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a .> a.of(b) }

    /// ``Graph/ge(_:_:)`` of a number.
    public static func .>= (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a .>= a.of(b) }

    /// ``Graph/eq(_:_:)`` of a number.
    public static func .== (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a .== a.of(b) }

    /// ``Graph/ne(_:_:)`` of a number.
    public static func .!= (a: Value, b: some GraphNumber) throws(WeftError) -> Value { try a .!= a.of(b) }
}
