// Types of elements: as a value, and as Swift's types.

internal import WeftBindings

/// The type of a tensor's elements. Raw values are those of the C library's `WEFT_DTYPE_…`.
public enum ElementType: UInt32, Sendable, Hashable, Codable, CaseIterable {
    /// 32-bit floating point.
    case f32
    /// 16-bit floating point (IEEE 754 binary16).
    case f16
    /// bfloat16.
    case bf16
    /// Signed 32-bit integers.
    case i32
    /// Unsigned 32-bit integers.
    case u32
    /// Signed 64-bit integers.
    case i64
    /// Unsigned bytes.
    case u8
    /// Booleans: one byte, 0 or 1.
    case bool
    /// Blocks of 32 int8 values with a scale.
    case q8
    /// Blocks of 32 int4 values with a scale.
    case q4

    init(_ type: WeftBindings.ElementType) {
        switch type {
        case .f32: self = .f32
        case .f16: self = .f16
        case .bf16: self = .bf16
        case .i32: self = .i32
        case .u32: self = .u32
        case .i64: self = .i64
        case .u8: self = .u8
        case .bool: self = .bool
        case .q8: self = .q8
        case .q4: self = .q4
        }
    }

    var native: WeftBindings.ElementType {
        switch self {
        case .f32: .f32
        case .f16: .f16
        case .bf16: .bf16
        case .i32: .i32
        case .u32: .u32
        case .i64: .i64
        case .u8: .u8
        case .bool: .bool
        case .q8: .q8
        case .q4: .q4
        }
    }
}

/// A Swift type that is the element of a ``Tensor``. Any bit pattern of its size is a value, except for `Bool`, whose bytes are 0 or
/// 1; the library conforms the types that there are.
public protocol TensorElement: Sendable, BitwiseCopyable, Hashable {
    /// Its element type.
    static var elementType: ElementType { get }
    /// Zero, or false.
    static var zero: Self { get }
}

extension Float: TensorElement {
    /// `f32`.
    public static var elementType: ElementType { .f32 }
}

#if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
    extension Float16: TensorElement {
        /// `f16`.
        public static var elementType: ElementType { .f16 }
    }
#endif

/// The 16 upper bits of a `Float`.
public struct BFloat16: TensorElement {
    /// The bits.
    public var bitPattern: UInt16

    /// Of bits.
    public init(bitPattern: UInt16) {
        self.bitPattern = bitPattern
    }

    /// The nearest to a float; ties to even. NaN stays NaN.
    public init(_ value: Float) {
        let bits = value.bitPattern
        if value.isNaN {
            bitPattern = UInt16(truncatingIfNeeded: bits >> 16) | 0x40
        } else {
            let half: UInt32 = 0x7fff + (bits >> 16 & 1)
            bitPattern = UInt16(truncatingIfNeeded: (bits &+ half) >> 16)
        }
    }

    /// `bf16`.
    public static var elementType: ElementType { .bf16 }
    /// 0.
    public static var zero: BFloat16 { BFloat16(bitPattern: 0) }
}

extension Float {
    /// The same value.
    public init(_ value: BFloat16) {
        self.init(bitPattern: UInt32(value.bitPattern) << 16)
    }
}

extension Int32: TensorElement {
    /// `i32`.
    public static var elementType: ElementType { .i32 }
}

extension UInt32: TensorElement {
    /// `u32`.
    public static var elementType: ElementType { .u32 }
}

extension Int64: TensorElement {
    /// `i64`.
    public static var elementType: ElementType { .i64 }
}

extension UInt8: TensorElement {
    /// `u8`.
    public static var elementType: ElementType { .u8 }
}

extension Bool: TensorElement {
    /// `bool`.
    public static var elementType: ElementType { .bool }
    /// `false`.
    public static var zero: Bool { false }
}

/// A tensor's name and type.
public struct TensorInfo: Sendable, Hashable, CustomStringConvertible {
    /// Its name.
    public let name: String
    /// The type of its elements.
    public let type: ElementType
    /// Sizes of its axes.
    public let shape: [Int]
    /// Bytes of its elements together.
    public let byteCount: Int
    /// Whether training changes it.
    public let isTrainable: Bool

    /// How many elements it has.
    public var count: Int { shape.reduce(1, *) }

    /// Name, type and shape.
    public var description: String { "\(name): \(type)\(shape)" }

    init(_ info: WeftBindings.TensorInfo) {
        name = info.name
        type = ElementType(info.elementType)
        shape = info.shape.map(Int.init)
        byteCount = Int(info.bytes)
        isTrainable = info.trainable
    }
}
