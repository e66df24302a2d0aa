// Memory of Apple's frameworks, lent as tensors. Linux, where the tests run, has neither framework: this file is thin for that reason.

import Foundation

#if canImport(Metal)
    import Metal

    extension Tensor {
        /// A tensor over a part of a buffer that the processor sees (`storageModeShared`), without a copy; the buffer is kept. Nobody may
        /// write there while a step reads it.
        ///
        /// - Throws: ``WeftError/Kind/argument`` for a private buffer, and if the part is not inside of it.
        public init(lending buffer: any MTLBuffer, offset: Int = 0, shape: [Int]) throws(WeftError) {
            let count = try byteCount(of: Element.self, shape: shape) / MemoryLayout<Element>.stride
            guard buffer.storageMode == .shared else {
                throw .argument("buffer", wanted: "storageModeShared", came: "\(buffer.storageMode)")
            }
            let bytes = count * MemoryLayout<Element>.stride
            guard offset >= 0, offset <= buffer.length, bytes <= buffer.length - offset,
                offset.isMultiple(of: MemoryLayout<Element>.alignment)
            else {
                let wanted = "\(bytes) aligned bytes inside of \(buffer.length)"
                throw .argument("buffer", wanted: wanted, came: "an offset of \(offset)")
            }
            let start = buffer.contents().advanced(by: offset).assumingMemoryBound(to: Element.self)
            let kept = Kept(buffer)
            try self.init(
                lending: UnsafeBufferPointer(start: start, count: count), shape: shape,
                release: { withExtendedLifetime(kept) {} })
        }
    }
#endif

#if canImport(CoreML)
    import CoreML

    extension Tensor where Element == Float {
        /// A tensor over an array of `float32` whose elements lie row-major without gaps, without a copy; the array is kept. Nobody may
        /// write there while a step reads it.
        ///
        /// - Throws: ``WeftError/Kind/argument`` for elements of another type or order.
        public init(lending array: MLMultiArray) throws(WeftError) {
            let shape = array.shape.map(\.intValue)
            guard array.dataType == .float32 else {
                throw .argument("array", wanted: "float32", came: "\(array.dataType)")
            }
            var strides: [Int] = []
            var stride = 1
            for size in shape.reversed() {
                strides.insert(stride, at: 0)
                stride *= size
            }
            guard array.strides.map(\.intValue) == strides else {
                throw .argument("array", wanted: "strides of \(strides)", came: "\(array.strides)")
            }
            let start = array.dataPointer.assumingMemoryBound(to: Float.self)
            let kept = Kept(array)
            try self.init(
                lending: UnsafeBufferPointer(start: start, count: array.count), shape: shape,
                release: { withExtendedLifetime(kept) {} })
        }
    }
#endif

#if canImport(Metal) || canImport(CoreML)
    /// An object that is kept and not used: so it may be let go of by any thread.
    private final class Kept: @unchecked Sendable {
        private let object: AnyObject

        init(_ object: AnyObject) {
            self.object = object
        }
    }
#endif
