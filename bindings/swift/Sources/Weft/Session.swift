// Sessions: inputs in, a step, outputs out. The data plane goes over the C ABI: a call takes some dozens of nanoseconds.

internal import CWeft
import Foundation
internal import WeftBindings

/// A compiled graph with weights, ready to run: inputs in, a step, outputs out.
///
/// A session takes one call at a time, from any task or thread: a second one at the same time is ``WeftError/Kind/busy``, and changes
/// nothing. That is checked by the native library for every call, so a session is `Sendable` without being an actor, whose calls
/// would take longer than small steps do. Different sessions may run at once, also over the same parameters.
///
/// Data is checked: its type and its size must be those of the input or output.
public final class Session: Sendable {
    let native: NativeSession
    private let handle: Handle
    private let place: Place
    /// Its tensors.
    public let tensors: TensorInfos

    init(_ native: NativeSession, _ place: Place) throws(WeftError) {
        self.native = native
        self.place = place
        handle = Handle(native.tableHandle())
        tensors = try Weft.native { TensorInfos(try native.ports()) }
    }

    /// Calls a function of the C ABI.
    @inline(__always)
    private func call(
        _ function: (OpaquePointer?, UnsafeMutablePointer<OpaquePointer?>) -> weft_status
    ) throws(WeftError) {
        try handle.call(for: self, function)
    }

    // MARK: Inputs

    /// Gives an input its elements, copied once. It keeps them until it is given others.
    ///
    /// - Throws: ``WeftError/Kind/unknownName``, ``WeftError/Kind/dType``, ``WeftError/Kind/length``.
    @inlinable
    public func set(_ input: String, _ tensor: some TensorData) throws(WeftError) {
        let type = tensor.elementType
        if let failed = tensor.withUnsafeBytes({ give(input, type, $0) }) { throw failed }
    }

    /// Gives an input its elements, copied once.
    @inlinable
    public func set<Element: TensorElement>(_ input: String, _ elements: [Element]) throws(WeftError) {
        let failed = elements.withUnsafeBytes { give(input, Element.elementType, $0) }
        if let failed { throw failed }
    }

    /// Sets an input. Not generic: what calls it is compiled for its elements where it is used.
    @usableFromInline
    func give(_ input: String, _ type: ElementType, _ bytes: UnsafeRawBufferPointer) -> WeftError? {
        var error: OpaquePointer?
        let status = withExtendedLifetime(self) {
            weft_session_set_input(
                handle.pointer, input, input.utf8.count, type.rawValue, bytes.baseAddress, bytes.count, &error)
        }
        return status == 0 ? nil : WeftError(status: status, error: error)
    }

    /// Gives an input its elements as bytes, copied once; they are of the input's type, in the machine's byte order.
    public func set(_ input: String, bytes data: Data) throws(WeftError) {
        let type = try info(of: input, among: tensors.inputs, "input").type
        if let failed = data.withUnsafeBytes({ give(input, type, $0) }) { throw failed }
    }

    /// Lets each step read an input where it lies, without a copy, until the input is set or borrowed again or the session is closed;
    /// the tensor is kept for so long.
    public func borrow<Element>(_ input: String, _ tensor: Tensor<Element>) throws(WeftError) {
        try borrow(input, tensor.memory, Element.elementType)
    }

    /// Lets each step read an input where it lies, without a copy. The buffer's elements may be changed between steps: after
    /// ``wait()`` and before the next ``step()``.
    public func borrow<Element>(_ input: String, _ buffer: TensorBuffer<Element>) throws(WeftError) {
        try borrow(input, buffer.memory, Element.elementType)
    }

    /// Lets each step read an input in `Data`, which is kept, without a copy (of 64 bytes and more that are aligned for the input's
    /// type: other data is copied once).
    public func borrow(_ input: String, bytes data: Data) throws(WeftError) {
        let type = try info(of: input, among: tensors.inputs, "input").type
        try borrow(input, Memory(lending: data, alignment: type.alignment), type)
    }

    private func borrow(_ input: String, _ memory: Memory, _ type: ElementType) throws(WeftError) {
        let kept = Unmanaged.passRetained(memory)
        do {
            try call { session, error in
                weft_session_borrow_input(
                    session, input, input.utf8.count, type.rawValue, memory.bytes.baseAddress, memory.byteCount,
                    releaseMemory, kept.toOpaque(), error)
            }
        } catch {
            kept.release()
            throw error
        }
    }

    // MARK: Steps

    /// Runs the graph once; in a training session with an optimizer, then changes the parameters. The CPU is done when this returns,
    /// a GPU has then only begun. Not for an app's main thread, unless the model is small.
    ///
    /// - Throws: ``WeftError/Kind/inputNotSet``; ``WeftError/Kind/indexOutOfRange`` if the step is refused: it then changes nothing.
    public func step() throws(WeftError) {
        try call { weft_session_step($0, $1) }
    }

    /// Returns when every step is done.
    public func wait() throws(WeftError) {
        try call { weft_session_wait($0, $1) }
    }

    /// As ``step()`` and ``wait()``, on a thread for it, after inputs were set. A step that began is finished. On a GPU it waits while the
    /// app is in the background: see ``LifeCycle``.
    public func run(_ inputs: [String: any TensorData & Sendable] = [:]) async throws {
        try await place.run {
            try await working {
                for (name, tensor) in inputs {
                    try self.set(name, tensor)
                }
                try self.step()
                try self.wait()
            }
        }
    }

    /// The loss of the last step. Waits for it.
    public var loss: Float {
        get throws(WeftError) {
            var loss: Float = 0
            try call { weft_session_loss($0, &loss, $1) }
            return loss
        }
    }

    // MARK: Outputs

    /// An output, copied once. Waits for the step.
    ///
    /// - Throws: ``WeftError/Kind/notRun`` before a step, ``WeftError/Kind/unknownName``, ``WeftError/Kind/dType``.
    public func read<Element>(_ output: String, as type: Element.Type = Element.self) throws(WeftError) -> Tensor<
        Element
    > {
        let info = try info(of: output, among: tensors.outputs, "output")
        let memory = Memory(unwritten: info.byteCount)
        try read(output, Element.elementType, memory.bytes)
        return Tensor(shape: info.shape, memory: memory)
    }

    /// Copies an output into an array of its size, once. Waits for the step.
    @inlinable
    public func read<Element: TensorElement>(_ output: String, into elements: inout [Element]) throws(WeftError) {
        let failed = elements.withUnsafeMutableBytes { take(output, Element.elementType, $0) }
        if let failed { throw failed }
    }

    /// Copies an output into a buffer of its size, once. Waits for the step.
    public func read<Element>(_ output: String, into buffer: TensorBuffer<Element>) throws(WeftError) {
        try read(output, Element.elementType, buffer.memory.bytes)
    }

    /// An output's bytes, copied once, in the machine's byte order. Waits for the step.
    public func bytes(of output: String) throws(WeftError) -> Data {
        let info = try info(of: output, among: tensors.outputs, "output")
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: info.byteCount, alignment: 64)
        do {
            try read(output, info.type, bytes)
        } catch {
            bytes.deallocate()
            throw error
        }
        guard let start = bytes.baseAddress else {
            bytes.deallocate()
            return Data()
        }
        return Data(bytesNoCopy: start, count: bytes.count, deallocator: .custom { start, _ in start.deallocate() })
    }

    private func read(
        _ output: String, _ type: ElementType, _ into: UnsafeMutableRawBufferPointer
    ) throws(WeftError) {
        if let failed = take(output, type, into) { throw failed }
    }

    /// Reads an output. Not generic, as above.
    @usableFromInline
    func take(_ output: String, _ type: ElementType, _ into: UnsafeMutableRawBufferPointer) -> WeftError? {
        var error: OpaquePointer?
        let status = withExtendedLifetime(self) {
            weft_session_read_output(
                handle.pointer, output, output.utf8.count, type.rawValue, into.baseAddress, into.count, &error)
        }
        return status == 0 ? nil : WeftError(status: status, error: error)
    }

    /// Shows an output's bytes where they lie, without a copy on the CPU. They are valid during the call of `body`. Other calls on the
    /// session are ``WeftError/Kind/busy`` meanwhile.
    public func withOutput<R>(_ output: String, _ body: (UnsafeRawBufferPointer) throws -> R) throws -> R {
        var lending: UnsafeMutableRawPointer?
        var data: UnsafeRawPointer?
        var count = 0
        try call { weft_apps_lend_output($0, output, output.utf8.count, &lending, &data, &count, $1) }
        defer { weft_apps_end_lending(lending) }
        return try body(UnsafeRawBufferPointer(start: data, count: count))
    }

    /// As ``withOutput(_:_:)``, as elements of a type.
    ///
    /// - Throws: ``WeftError/Kind/dType`` if the output has another.
    public func withOutput<Element: TensorElement, R>(
        _ output: String, as type: Element.Type, _ body: (UnsafeBufferPointer<Element>) throws -> R
    ) throws -> R {
        let info = try info(of: output, among: tensors.outputs, "output")
        guard info.type == Element.elementType else {
            let (wanted, came) = ("\(info.type)", "\(Element.elementType)")
            throw WeftError(.dType, "output \"\(output)\" holds \(wanted), got \(came)", wanted: wanted, came: came)
        }
        return try withOutput(output) { try body($0.bindMemory(to: Element.self)) }
    }

    private func info(of name: String, among all: [TensorInfo], _ kind: String) throws(WeftError) -> TensorInfo {
        if let found = all.first(where: { $0.name == name }) { return found }
        let known = all.map(\.name).joined(separator: ", ")
        throw WeftError(
            .unknownName, "no \(kind) named \"\(name)\"; there are: \(known)", wanted: known, came: name)
    }

    // MARK: Parameters and states

    /// Its weights, to share with another session or to save.
    public func parameters() throws(WeftError) -> Parameters {
        Parameters(try Weft.native { try native.parameters() })
    }

    /// A copy of an f32 parameter.
    public func parameter(_ name: String) throws(WeftError) -> Tensor<Float> {
        let info = try info(of: name, among: tensors.parameters, "parameter")
        let memory = Memory(zeros: info.count * MemoryLayout<Float>.stride)
        let into = memory.bytes.bindMemory(to: Float.self)
        try call { weft_session_read_parameter($0, name, name.utf8.count, into.baseAddress, into.count, $1) }
        return Tensor(shape: info.shape, memory: memory)
    }

    /// Gives an f32 parameter other elements. Sessions over the same weights see the change.
    public func setParameter(_ name: String, _ elements: Tensor<Float>) throws(WeftError) {
        try call { session, error in
            elements.withUnsafeElements {
                weft_session_set_parameter(session, name, name.utf8.count, $0.baseAddress, $0.count, error)
            }
        }
    }

    /// Makes every state of its graph zeros, as after init.
    public func resetState() throws(WeftError) {
        try Weft.native { try native.resetState() }
    }

    /// What was odd at init and did not matter.
    public var warnings: [String] {
        get throws(WeftError) { try Weft.native { try native.warnings() } }
    }

    /// What the session takes.
    public func memory() throws(WeftError) -> MemorySummary {
        MemorySummary(try Weft.native { try native.memory() })
    }

    /// Closes the session, and lets go of what it borrowed.
    ///
    /// - Throws: ``WeftError/Kind/busy`` while another call uses it; it then stays open.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }

    /// Steps through batches: see ``train(_:epochs:onStep:)``.
    func train(
        _ batches: [String: any TensorData & Sendable], epochs: Int, cancel: Cancellation,
        _ tell: @Sendable (TrainingStep) -> Void
    ) throws(WeftError) {
        guard epochs >= 0 else {
            throw .argument("epochs", wanted: "0 or more", came: "\(epochs)")
        }
        let refused = try place.train(cancel) { steps throws(WeftError) in
            do throws(WeftError) {
                try train(batches, epochs, cancel) { step in
                    steps.between(isLast: step.done == step.all) { tell(step) }
                }
            } catch {
                throw steps.refused ?? error
            }
            return steps.refused
        }
        if let refused { throw refused }
    }

    private func train(
        _ batches: [String: any TensorData & Sendable], _ epochs: Int, _ cancel: Cancellation,
        _ tell: (TrainingStep) -> Void
    ) throws(WeftError) {
        try withoutActuallyEscaping(tell) { tell throws(WeftError) in
            let listener = StepListener(tell)
            try withBatches(batches) { batches throws(WeftError) in
                try call { session, error in
                    withExtendedLifetime((listener, cancel)) {
                        var options = weft_train_options()
                        options.struct_size = MemoryLayout<weft_train_options>.size
                        options.epochs = epochs
                        options.progress = { listener, done, all, loss in
                            guard let listener else { return }
                            let step = TrainingStep(done: done, all: all, loss: loss)
                            Unmanaged<StepListener>.fromOpaque(listener).takeUnretainedValue().tell(step)
                        }
                        options.progress_user_data = Unmanaged.passUnretained(listener).toOpaque()
                        options.cancel = Handle(cancel.native.tableHandle()).pointer
                        return weft_session_train(session, batches.baseAddress, batches.count, &options, error)
                    }
                }
            }
        }
    }
}

/// Gets each step of a training, from C.
private final class StepListener {
    let tell: (TrainingStep) -> Void

    init(_ tell: @escaping (TrainingStep) -> Void) {
        self.tell = tell
    }
}

/// Lends tensors to C, all at once: their addresses stay as long as `body` runs.
private func withBatches(
    _ tensors: [String: any TensorData & Sendable],
    _ body: (UnsafeBufferPointer<weft_batches>) throws(WeftError) -> Void
) throws(WeftError) {
    func lend(
        _ rest: ArraySlice<(key: String, value: any TensorData & Sendable)>, _ lent: [weft_batches]
    ) throws(WeftError) {
        guard let (name, tensor) = rest.first else {
            var failed: WeftError?
            lent.withUnsafeBufferPointer { batches in
                do throws(WeftError) { try body(batches) } catch { failed = error }
            }
            if let failed { throw failed }
            return
        }
        var failed: WeftError?
        let length = name.utf8.count
        name.withCString { start in
            tensor.withUnsafeBytes { bytes in
                var batch = weft_batches()
                batch.name = weft_str(data: start, length: length)
                batch.data = bytes.baseAddress
                batch.data_bytes = bytes.count
                batch.dtype = tensor.elementType.rawValue
                do throws(WeftError) {
                    try lend(rest.dropFirst(), lent + [batch])
                } catch {
                    failed = error
                }
            }
        }
        if let failed { throw failed }
    }
    try lend(tensors.sorted { $0.key < $1.key }[...], [])
}

extension ElementType {
    /// Bytes that elements are aligned to.
    fileprivate var alignment: Int {
        switch self {
        case .f32, .i32, .u32: 4
        case .f16, .bf16: 2
        case .i64: 8
        case .u8, .bool, .q8, .q4: 1
        }
    }
}

/// The weights of sessions, in a device's memory. Tasks may share it.
public final class Parameters: Sendable {
    let native: NativeParameters

    init(_ native: NativeParameters) {
        self.native = native
    }

    /// The weights as they are now, to look at or to save; those never changed are not copied.
    public func weights() throws(WeftError) -> Weights {
        Weights(try Weft.native { try native.weights() })
    }

    /// Closes this; sessions over the weights keep them.
    public func close() throws(WeftError) {
        try Weft.native { try native.release() }
    }
}
