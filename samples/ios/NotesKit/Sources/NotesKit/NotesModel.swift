// The app without its screens.

import Foundation
import Weft

/// What the app is doing that takes long, for a progress bar with a button to cancel.
public enum Work: Sendable, Hashable {
    /// The model is being opened.
    case opening
    /// Notes are being read: so many of so many.
    case reading(done: Int, all: Int)
    /// The classifier is learning.
    case learning(done: Int, all: Int, loss: Float)
}

/// What the screens show.
public struct NotesState: Sendable, Hashable {
    /// All notes.
    public var notes: [Note] = []
    /// What the last search found.
    public var found: [Found] = []
    /// The last search.
    public var query = ""
    /// The classifier's guess for each note without a label, by the note's number.
    public var guesses: [Int: Guess] = [:]
    /// What is being done.
    public var work: Work?
    /// What went wrong last, in a sentence.
    public var error: String?
}

/// *Find it* by meaning, *teach it* labels. Works one thing at a time, in the order asked; everything stays in `folder`. Screens call its
/// functions, whose tasks they need not wait for, and show ``state``.
@MainActor
public final class NotesModel {
    private struct Engine {
        let finder: Finder
        let teacher: Teacher
    }

    private let folder: URL
    private let modelFolder: @Sendable () async throws -> URL
    private let openDevice: @Sendable () async throws -> Device
    private var file: NoteFile?
    private var engine: Engine?
    /// What is being done and what waits, in the order asked.
    private var tasks: [Task<Void, Never>] = []

    /// What the screens show.
    public private(set) var state = NotesState() {
        didSet { onChange?(state) }
    }

    /// Gets each new state.
    public var onChange: ((NotesState) -> Void)?

    /// - Parameters:
    ///   - folder: where everything stays.
    ///   - modelFolder: the model's folder.
    ///   - openDevice: opens the device to compute on.
    public init(
        folder: URL, modelFolder: @escaping @Sendable () async throws -> URL,
        openDevice: @escaping @Sendable () async throws -> Device = { try await Device.open() }
    ) {
        self.folder = folder
        self.modelFolder = modelFolder
        self.openDevice = openDevice
    }

    /// Shows the notes, opens the model and reads what it has not read.
    @discardableResult
    public func start() -> Task<Void, Never> {
        working { model in
            try model.show { _ in }
            try await model.read()
        }
    }

    /// Adds a note.
    @discardableResult
    public func add(_ text: String) -> Task<Void, Never> {
        working { model in
            try model.show { _ = try $0.add(text) }
            try await model.read()
        }
    }

    /// Gives a note a label, or takes it away with nil.
    @discardableResult
    public func label(_ id: Int, _ label: String?) -> Task<Void, Never> {
        working { model in
            try model.show { try $0.label(id, label) }
            model.state.guesses[id] = nil
        }
    }

    /// Removes a note.
    @discardableResult
    public func remove(_ id: Int) -> Task<Void, Never> {
        working { model in
            try model.show { try $0.remove(id) }
            model.state.guesses[id] = nil
            model.state.found.removeAll { $0.note.id == id }
        }
    }

    /// Finds notes by what they mean.
    @discardableResult
    public func find(_ query: String) -> Task<Void, Never> {
        working { model in
            let found = try await model.opened().finder.find(query, in: model.state.notes)
            model.state.found = found
            model.state.query = query
        }
    }

    /// Learns the labels that the user gave.
    @discardableResult
    public func learn() -> Task<Void, Never> {
        working { model in
            let engine = try await model.opened()
            let labelled = model.state.notes.filter { $0.label != nil }
            let embeddings = try await engine.finder.embeddings(of: labelled)
            let examples = zip(labelled, embeddings).map { (embedding: $1, label: $0.label ?? "") }
            try await engine.teacher.learn(examples) { step in
                await model.show(.learning(done: step.done, all: step.all, loss: step.loss))
            }
            try await model.guess(engine)
        }
    }

    /// Ends what is being done, soon, and what waits for it. What was learnt before stays.
    public func cancel() {
        tasks.forEach { $0.cancel() }
    }

    private func working(_ what: @escaping @MainActor (NotesModel) async throws -> Void) -> Task<Void, Never> {
        let before = tasks.last
        let task = Task {
            await before?.value
            state.error = nil
            do {
                try Task.checkCancellation()
                try await what(self)
            } catch is CancellationError {
            } catch {
                state.error = error.localizedDescription
            }
            state.work = nil
            tasks.removeFirst()
        }
        tasks.append(task)
        return task
    }

    private func show(_ work: Work) {
        state.work = work
    }

    /// Changes the notes, and shows them.
    private func show(_ change: (inout NoteFile) throws -> Void) throws {
        var changed = try file ?? NoteFile(folder.appendingPathComponent("notes.json"))
        try change(&changed)
        file = changed
        state.notes = changed.notes
    }

    private func opened() async throws -> Engine {
        if let engine { return engine }
        state.work = .opening
        let device = try await openDevice()
        let model = try await SentenceModel.open(modelFolder(), on: device)
        let teacher = Teacher(device: device, components: model.components, folder: folder)
        try await teacher.restore()
        let made = Engine(finder: try Finder(model: model, folder: folder), teacher: teacher)
        engine = made
        return made
    }

    private func read() async throws {
        let engine = try await opened()
        try await engine.finder.read(state.notes) { done, all in await self.show(.reading(done: done, all: all)) }
        try await guess(engine)
    }

    private func guess(_ engine: Engine) async throws {
        let open = state.notes.filter { $0.label == nil }
        var guesses: [Int: Guess] = [:]
        for (note, embedding) in zip(open, try await engine.finder.embeddings(of: open)) {
            guesses[note.id] = try await engine.teacher.guess(embedding).first
        }
        state.guesses = guesses
    }
}
