// Tensors: an immutable value (`Tensor`), and memory that is written where it lies (`TensorBuffer`).

import Foundation

/// Elements with a shape, row-major: a ``Tensor`` or a ``TensorBuffer`` of any element type.
public protocol TensorData {
    /// The type of its elements.
    var elementType: ElementType { get }
    /// Sizes of its axes.
    var shape: [Int] { get }
    /// Lends its bytes for the length of the call.
    func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R
}

/// A tensor as a value: elements of one type, row-major, with a shape. Immutable, so tasks may share it, and sessions may read it
/// where it lies for as long as they like. Copying it copies no elements.
public struct Tensor<Element: TensorElement>: Sendable, TensorData {
    /// Sizes of its axes.
    public let shape: [Int]
    let memory: Memory

    /// The type of its elements.
    public var elementType: ElementType { Element.elementType }

    /// How many elements it has.
    public var count: Int { memory.byteCount / MemoryLayout<Element>.stride }

    /// A copy of elements, as one axis.
    public init(_ elements: some Collection<Element>) {
        shape = [elements.count]
        memory = Memory(copying: elements)
    }

    /// A copy of elements.
    ///
    /// - Throws: ``WeftError/Kind/argument`` if their number is not the shape's.
    public init(_ elements: some Collection<Element>, shape: [Int]) throws(WeftError) {
        let bytes = try byteCount(of: Element.self, shape: shape)
        let count = bytes / MemoryLayout<Element>.stride
        guard elements.count == count else {
            throw .argument("elements", wanted: "\(count) of the shape \(shape)", came: "\(elements.count)")
        }
        self.shape = shape
        memory = Memory(copying: elements)
    }

    /// A tensor over the bytes of `Data`, which stays alive as long as the tensor: nothing is copied, unless the data has less than
    /// 64 bytes or is not aligned for the element type.
    ///
    /// - Throws: ``WeftError/Kind/argument`` if the number of bytes is not the shape's.
    public init(lending data: Data, shape: [Int]) throws(WeftError) {
        let bytes = try byteCount(of: Element.self, shape: shape)
        guard data.count == bytes else {
            throw .argument("data", wanted: "\(bytes) bytes of the shape \(shape)", came: "\(data.count)")
        }
        self.shape = shape
        memory = Memory(lending: data, alignment: MemoryLayout<Element>.alignment)
    }

    /// A tensor over memory of the caller, without a copy: it must not change, and must stay, until `release` is called, which
    /// happens when the last tensor and the last session over it are gone, on any thread.
    ///
    /// - Throws: ``WeftError/Kind/argument`` if the number of elements is not the shape's; `release` is then not called.
    public init(
        lending elements: UnsafeBufferPointer<Element>,
        shape: [Int],
        release: @escaping @Sendable () -> Void
    ) throws(WeftError) {
        let bytes = try byteCount(of: Element.self, shape: shape)
        guard elements.count * MemoryLayout<Element>.stride == bytes else {
            let wanted = "\(bytes / MemoryLayout<Element>.stride) of the shape \(shape)"
            throw .argument("elements", wanted: wanted, came: "\(elements.count)")
        }
        self.shape = shape
        memory = Memory(lending: UnsafeRawBufferPointer(elements), release: release)
    }

    init(shape: [Int], memory: Memory) {
        self.shape = shape
        self.memory = memory
    }

    /// A copy of its elements, row-major.
    public var elements: [Element] { withUnsafeElements { Array($0) } }

    /// Lends its elements for the length of the call.
    public func withUnsafeElements<R>(_ body: (UnsafeBufferPointer<Element>) throws -> R) rethrows -> R {
        try withUnsafeBytes { try body($0.bindMemory(to: Element.self)) }
    }

    /// Lends its bytes for the length of the call.
    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try withExtendedLifetime(memory) { try body(UnsafeRawBufferPointer(memory.bytes)) }
    }

    /// The element at a position of each axis. The position must be inside of the shape.
    public subscript(_ position: Int...) -> Element {
        withUnsafeElements { $0[offset(of: position, in: shape)] }
    }

    /// The same elements with another shape of as many.
    ///
    /// - Throws: ``WeftError/Kind/argument`` if it is of another number.
    public func reshaped(_ shape: [Int]) throws(WeftError) -> Tensor {
        guard try byteCount(of: Element.self, shape: shape) == memory.byteCount else {
            throw .argument("shape", wanted: "one of \(count) elements", came: "\(shape)")
        }
        return Tensor(shape: shape, memory: memory)
    }
}

extension Tensor: Hashable, CustomStringConvertible {
    /// Whether shape and elements are equal, as the elements' `==` has it: NaN is not equal to itself.
    public static func == (one: Tensor, other: Tensor) -> Bool {
        guard one.shape == other.shape else { return false }
        return one.withUnsafeElements { a in other.withUnsafeElements { b in a.elementsEqual(b) } }
    }

    /// Hashes shape and elements.
    public func hash(into hasher: inout Hasher) {
        hasher.combine(shape)
        withUnsafeElements { $0.forEach { hasher.combine($0) } }
    }

    /// Type and shape.
    public var description: String { "Tensor(\(elementType)\(shape))" }
}

/// A tensor in memory that is written where it lies, and that sessions read and fill without a copy in between. Its memory goes with
/// the last reference to it, a session's among them.
///
/// Not to be written while a step reads it; it is therefore not `Sendable`: it belongs to one task at a time.
public final class TensorBuffer<Element: TensorElement>: TensorData {
    /// Sizes of its axes.
    public let shape: [Int]
    let memory: Memory

    /// The type of its elements.
    public var elementType: ElementType { Element.elementType }

    /// How many elements it has.
    public var count: Int { memory.byteCount / MemoryLayout<Element>.stride }

    /// A tensor of zeros.
    ///
    /// - Throws: ``WeftError/Kind/argument`` for a shape of negative sizes, or of more bytes than there can be.
    public init(shape: [Int]) throws(WeftError) {
        let bytes = try byteCount(of: Element.self, shape: shape)
        self.shape = shape
        memory = Memory(zeros: bytes)
    }

    /// A copy of a tensor.
    public init(_ tensor: Tensor<Element>) {
        shape = tensor.shape
        memory = tensor.withUnsafeElements { Memory(copying: $0) }
    }

    /// Lends its elements, to be written, for the length of the call.
    public func withUnsafeMutableElements<R>(
        _ body: (UnsafeMutableBufferPointer<Element>) throws -> R
    ) rethrows -> R {
        try withExtendedLifetime(self) { try body(memory.bytes.bindMemory(to: Element.self)) }
    }

    /// Lends its bytes for the length of the call.
    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try withExtendedLifetime(self) { try body(UnsafeRawBufferPointer(memory.bytes)) }
    }

    /// The element at a position of each axis. The position must be inside of the shape.
    public subscript(_ position: Int...) -> Element {
        get { withUnsafeMutableElements { $0[offset(of: position, in: shape)] } }
        set { withUnsafeMutableElements { $0[offset(of: position, in: shape)] = newValue } }
    }

    /// A copy of its elements, row-major.
    public var elements: [Element] { withUnsafeMutableElements { Array($0) } }

    /// A copy, as a value.
    public func tensor() -> Tensor<Element> {
        Tensor(shape: shape, memory: withUnsafeMutableElements { Memory(copying: $0) })
    }
}

/// The bytes of a shape's elements.
func byteCount<Element: TensorElement>(of type: Element.Type, shape: [Int]) throws(WeftError) -> Int {
    var all = MemoryLayout<Element>.stride
    for size in shape {
        guard size >= 0 else {
            throw .argument("shape", wanted: "sizes of 0 or more", came: "\(shape)")
        }
        let (product, overflow) = all.multipliedReportingOverflow(by: size)
        guard !overflow else {
            throw .argument("shape", wanted: "at most \(Int.max) bytes", came: "\(shape)")
        }
        all = product
    }
    return all
}

/// Where an element is, row-major.
private func offset(of position: [Int], in shape: [Int]) -> Int {
    precondition(position.count == shape.count, "a position of \(shape.count) axes")
    var at = 0
    for (index, size) in zip(position, shape) {
        precondition(index >= 0 && index < size, "a position inside of \(shape)")
        at = at * size + index
    }
    return at
}
