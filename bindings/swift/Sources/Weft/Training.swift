// Training: optimizers, and the loop through batches.

internal import WeftBindings

/// An optimizer.
public struct Optimizer: Sendable, Hashable, Codable {
    /// One of ``WeftLibrary/optimizerNames()``.
    public var name: String
    /// Learning rate, 0 or more.
    public var learningRate: Float
    /// Settings that differ from their defaults, by the names of torch.optim: "weight_decay", "beta1", …
    public var settings: [String: Float]

    /// An optimizer by its name.
    public init(_ name: String, learningRate: Float, settings: [String: Float] = [:]) {
        self.name = name
        self.learningRate = learningRate
        self.settings = settings
    }

    /// Adam with its authors' constants.
    public static func adam(learningRate: Float = 1e-3) -> Optimizer {
        Optimizer("adam", learningRate: learningRate)
    }

    /// Stochastic gradient descent.
    public static func sgd(learningRate: Float) -> Optimizer {
        Optimizer("sgd", learningRate: learningRate)
    }
}

/// A step of a training.
public struct TrainingStep: Sendable, Hashable, CustomStringConvertible {
    /// Steps done.
    public let done: Int
    /// Steps altogether.
    public let all: Int
    /// The loss of this one.
    public let loss: Float

    /// As a line.
    public var description: String { "\(done) of \(all): loss \(loss)" }
}

extension Session {
    /// Makes every later step change the parameters; the optimizer's states begin anew.
    public func setOptimizer(_ optimizer: Optimizer) throws(WeftError) {
        let settings = OptimizerSettings(
            name: optimizer.name, learningRate: optimizer.learningRate, settings: optimizer.settings)
        try Weft.native { try native.setOptimizer(optimizer: settings) }
    }

    /// Changes the learning rate and nothing else.
    public func setLearningRate(_ rate: Float) throws(WeftError) {
        try Weft.native { try native.setLearningRate(rate: rate) }
    }

    /// How many steps the optimizer has made.
    public var optimizerSteps: Int {
        get throws(WeftError) { Int(try Weft.native { try native.optimizerSteps() }) }
    }

    /// Everything that the optimizer keeps, to be saved.
    public func saveOptimizer() throws(WeftError) -> Weights {
        Weights(try Weft.native { try native.saveOptimizer() })
    }

    /// Gives the optimizer, which was set before, what ``saveOptimizer()`` gave.
    public func restoreOptimizer(_ states: Weights) throws(WeftError) {
        try Weft.native { try native.restoreOptimizer(states: states.native) }
    }

    /// Steps through batches, `epochs` times, and tells each step. The training begins when the first step is asked for, waits for who
    /// reads, and ends with them within one step: a cancelled task, or a loop that is left, finds the session usable, and what the steps
    /// before did stays. Between two steps it pauses while the device is hot or saves power, and on a GPU while the app is in the
    /// background: see ``LifeCycle``.
    ///
    /// - Parameters:
    ///   - batches: the elements of all batches of an input, one after the other; inputs without batches keep what they were given.
    ///   - epochs: how often to go through all of them.
    public func train(
        _ batches: [String: any TensorData & Sendable], epochs: Int = 1
    ) -> AsyncThrowingStream<TrainingStep, any Error> {
        telling { cancel, tell in
            try self.train(batches, epochs: epochs, cancel: cancel, tell)
        }
    }

    /// As ``train(_:epochs:)``, on a thread for it, telling each step to a function there, which must not use the session. What it throws
    /// ends the training, and is thrown here. Cancelling the task ends the training within one step.
    public func train(
        _ batches: [String: any TensorData & Sendable],
        epochs: Int = 1,
        onStep: @escaping @Sendable (TrainingStep) throws -> Void
    ) async throws {
        try await cancellable { cancel in
            let thrown = Thrown()
            do {
                try self.train(batches, epochs: epochs, cancel: cancel) { step in
                    guard thrown.error == nil else { return }
                    do {
                        try onStep(step)
                    } catch {
                        thrown.error = error
                        cancel.request()
                    }
                }
            } catch {
                throw thrown.error ?? error
            }
            if let error = thrown.error { throw error }
        }
    }
}

/// What a function threw, on the one thread that calls it and looks here afterwards.
private final class Thrown: @unchecked Sendable {
    var error: (any Error)?
}
