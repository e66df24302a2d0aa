// Streams of what blocking work tells: the work waits for who reads, and ends with them.

import Foundation

/// A stream of what `work` tells, on a thread for it. The work begins when the first element is asked for, and then waits in `tell`
/// until the element is taken. If the reader's task is cancelled, or the stream is given up, the work is asked to end; the stream ends,
/// or is gone, when the work has ended.
func telling<Element: Sendable>(
    _ work: @escaping @Sendable (Cancellation, @escaping @Sendable (Element) -> Void) throws -> Void
) -> AsyncThrowingStream<Element, any Error> {
    let reader = Reader(work)
    return AsyncThrowingStream { try await reader.next() }
}

/// Who reads, as long as there is one.
private final class Reader<Element: Sendable>: Sendable {
    typealias Work = @Sendable (Cancellation, @escaping @Sendable (Element) -> Void) throws -> Void
    private let handoff = Handoff<Element>()
    private let work: Work

    init(_ work: @escaping Work) {
        self.work = work
    }

    deinit {
        // what is told no longer interests; the session that is worked on is free when this returns
        handoff.end()
        handoff.waitUntilFinished()
    }

    func next() async throws -> Element? {
        try handoff.begin { cancel, handoff in
            let work = self.work
            DispatchQueue.global().async {
                let outcome = Result { try work(cancel) { handoff.give($0, cancel) } }
                handoff.finish(outcome)
            }
        }
        do {
            return try await withTaskCancellationHandler {
                try await withCheckedThrowingContinuation { handoff.take($0) }
            } onCancel: {
                handoff.end()
            }
        } catch let error as WeftError where error.kind == .cancelled && Task.isCancelled {
            throw CancellationError()
        }
    }
}

/// Elements handed from a thread that works to a task that reads, one at a time.
private final class Handoff<Element: Sendable>: @unchecked Sendable {
    // all of what follows is reached with the lock of the condition
    private let changed = NSCondition()
    private var offered: Element?
    private var waiting: CheckedContinuation<Element?, any Error>?
    private var outcome: Result<Void, any Error>?
    private var cancel: Cancellation?
    private var ended = false

    /// Starts the work, once.
    func begin(_ start: (Cancellation, Handoff) -> Void) throws {
        changed.lock()
        defer { changed.unlock() }
        guard cancel == nil, outcome == nil, !ended else { return }
        try Task.checkCancellation()
        let made = try Cancellation()
        cancel = made
        start(made, self)
    }

    /// Hands over an element, and returns when it was taken, or when nobody reads any more.
    func give(_ element: Element, _ cancel: Cancellation) {
        changed.lock()
        defer { changed.unlock() }
        while offered != nil && !ended { changed.wait() }
        if ended { return }
        if let waiting {
            self.waiting = nil
            waiting.resume(returning: element)
            return
        }
        offered = element
        while offered != nil && !ended { changed.wait() }
        offered = nil
    }

    /// Gets the next element, as soon as there is one.
    func take(_ continuation: CheckedContinuation<Element?, any Error>) {
        changed.lock()
        defer { changed.unlock() }
        if let element = offered {
            offered = nil
            changed.broadcast()
            continuation.resume(returning: element)
        } else if let outcome {
            self.outcome = .success(())
            continuation.resume(with: outcome.map { nil })
        } else if cancel == nil {
            // ended before it began
            continuation.resume(throwing: CancellationError())
        } else {
            waiting = continuation
        }
    }

    /// Asks the work to end.
    func end() {
        changed.lock()
        defer { changed.unlock() }
        ended = true
        changed.broadcast()
        cancel?.request()
    }

    /// The work has ended.
    func finish(_ outcome: Result<Void, any Error>) {
        changed.lock()
        defer { changed.unlock() }
        self.outcome = outcome
        changed.broadcast()
        if let waiting {
            self.waiting = nil
            self.outcome = .success(())
            waiting.resume(with: outcome.map { nil })
        }
    }

    /// Returns when the work has ended, or if it never began.
    func waitUntilFinished() {
        changed.lock()
        defer { changed.unlock() }
        while cancel != nil && outcome == nil { changed.wait() }
    }
}
