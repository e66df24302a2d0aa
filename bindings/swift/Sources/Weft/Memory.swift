// The memory of tensors: allocated here, or lent by somebody who is told when it is no longer needed.

import Foundation

/// Memory, until the last reference to it is gone. Whether it may be written is for its owner to say: a ``Tensor`` never does, and a
/// ``TensorBuffer``, which does, belongs to one task at a time. Hence `@unchecked`.
final class Memory: @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer
    private let release: (@Sendable () -> Void)?

    var byteCount: Int { bytes.count }

    /// Aligned for any vector of a processor.
    private static let alignment = 64

    /// Zeros.
    init(zeros count: Int) {
        bytes = .allocate(byteCount: count, alignment: Self.alignment)
        bytes.initializeMemory(as: UInt8.self, repeating: 0)
        release = nil
    }

    /// What is in it is written before anybody reads it.
    init(unwritten count: Int) {
        bytes = .allocate(byteCount: count, alignment: Self.alignment)
        release = nil
    }

    /// A copy.
    init<Element: TensorElement>(copying elements: some Collection<Element>) {
        bytes = .allocate(byteCount: elements.count * MemoryLayout<Element>.stride, alignment: Self.alignment)
        _ = bytes.initializeMemory(as: Element.self, from: elements)
        release = nil
    }

    /// Somebody else's memory.
    init(lending lent: UnsafeRawBufferPointer, release: @escaping @Sendable () -> Void) {
        bytes = UnsafeMutableRawBufferPointer(mutating: lent)
        self.release = release
    }

    /// The memory of `Data`, which is kept. Small data lies within the value itself, which moves; that and what is not aligned is
    /// copied.
    init(lending data: Data, alignment: Int) {
        // a reference to the same storage: whoever changes the data from now on gets a copy of it
        let kept = data
        let lent = kept.withUnsafeBytes { $0 }
        let address = UInt(bitPattern: lent.baseAddress)
        if data.count < 64 || !address.isMultiple(of: UInt(alignment)) {
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: data.count, alignment: Self.alignment)
            data.withUnsafeBytes { copy.copyMemory(from: $0) }
            bytes = copy
            release = nil
        } else {
            bytes = UnsafeMutableRawBufferPointer(mutating: lent)
            release = { withExtendedLifetime(kept) {} }
        }
    }

    deinit {
        if let release {
            release()
        } else {
            bytes.deallocate()
        }
    }
}
