// Weights: named tensors, of files or made by hand.

internal import CWeft
import Foundation
internal import WeftBindings

/// Named tensors: of a safetensors file, or made by hand. Sessions keep what they need of it. Tasks may share it; adding a tensor needs
/// it alone, and is ``WeftError/Kind/busy`` otherwise.
public final class Weights: Sendable {
    let native: NativeWeights
    private let handle: Handle

    /// No weights, to be set.
    public convenience init() throws(WeftError) {
        self.init(try Weft.native { try NativeWeights() })
    }

    init(_ native: NativeWeights) {
        self.native = native
        handle = Handle(native.tableHandle())
    }

    /// Maps a safetensors file, a Hugging Face folder, or the index of a sharded set. The files must not be rewritten in place while
    /// the weights or sessions over them live. Floating-point tensors are converted to the type `floats`, if it is given.
    public static func load(from file: URL, floats: ElementType? = nil) throws(WeftError) -> Weights {
        let path = try path(of: file)
        return Weights(try Weft.native { try NativeWeights.load(path: path, floats: floats?.native) })
    }

    /// The tensors that can be used, in the order of their names.
    public var tensors: [TensorInfo] {
        get throws(WeftError) { try Weft.native { try native.tensors().map(TensorInfo.init) } }
    }

    /// Adds a tensor, or replaces the one of that name, without a copy: it is kept.
    public func set<Element>(_ name: String, _ tensor: Tensor<Element>) throws(WeftError) {
        let shape = tensor.shape
        let kept = Unmanaged.passRetained(tensor.memory)
        let bytes = UnsafeRawBufferPointer(tensor.memory.bytes)
        do {
            try handle.call(for: native) { weights, error in
                weft_weights_insert_borrowed(
                    weights, name, name.utf8.count, Element.elementType.rawValue, shape, shape.count,
                    bytes.baseAddress, bytes.count, releaseMemory, kept.toOpaque(), error)
            }
        } catch {
            kept.release()
            throw error
        }
    }

    /// A copy of a tensor.
    ///
    /// - Throws: ``WeftError/Kind/unknownName``; ``WeftError/Kind/dType`` if its elements are of another type.
    public func tensor<Element>(_ name: String, of type: Element.Type = Element.self) throws(WeftError) -> Tensor<
        Element
    > {
        let all = try tensors
        guard let info = all.first(where: { $0.name == name }) else {
            let known = all.map(\.name).joined(separator: ", ")
            throw WeftError(
                .unknownName, "no weight named \"\(name)\"; there are: \(known)", wanted: known, came: name)
        }
        guard info.type == Element.elementType else {
            let (wanted, came) = ("\(info.type)", "\(Element.elementType)")
            throw WeftError(
                .dType, "weight \"\(name)\" holds \(wanted), got \(came)", wanted: wanted, came: came)
        }
        let memory = Memory(unwritten: info.byteCount)
        try handle.call(for: native) { weights, error in
            var info = weft_tensor_info()
            info.struct_size = MemoryLayout<weft_tensor_info>.size
            var data: UnsafeRawPointer?
            let status = weft_weights_find(weights, name, name.utf8.count, &info, &data, error)
            if status == 0, info.bytes == memory.byteCount {
                memory.bytes.copyMemory(from: UnsafeRawBufferPointer(start: data, count: info.bytes))
            }
            return status
        }
        return Tensor(shape: info.shape, memory: memory)
    }

    /// Writes a safetensors file, whole or not at all.
    public func save(to file: URL) throws(WeftError) {
        let path = try path(of: file)
        try Weft.native { try native.save(path: path) }
    }

    /// Closes them. Sessions over them keep what they need.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }
}

/// Lets go of a tensor's memory that the native library kept.
let releaseMemory: @convention(c) (UnsafeMutableRawPointer?) -> Void = { kept in
    if let kept {
        Unmanaged<Memory>.fromOpaque(kept).release()
    }
}
