// Notes, and the file that keeps them.

import Foundation

/// A note.
public struct Note: Sendable, Hashable, Codable, Identifiable {
    /// Its number, which it keeps.
    public let id: Int
    /// What the user wrote.
    public let text: String
    /// The topic that the user gave it, if any.
    public var label: String?
}

/// What a user is told of a mistake in the app's own work; the library's errors are `WeftError`.
public enum NotesError: Error, Hashable, LocalizedError {
    /// A note or a label without a text.
    case blank(String)
    /// There is no such note.
    case noNote(Int)
    /// Too few labels to learn from.
    case tooFewLabels(Int)
    /// A file of the model is not the one that is wanted.
    case modelFile(name: String, wanted: String, came: String)

    /// As a sentence.
    public var errorDescription: String? {
        switch self {
        case .blank(let what): "a \(what) needs a text, and this one is blank"
        case .noNote(let id): "there is no note \(id)"
        case .tooFewLabels(let count): "to learn, notes of at least 2 labels are needed, and there are \(count)"
        case .modelFile(let name, let wanted, let came): "\(name): wanted \(wanted), found \(came)"
        }
    }
}

/// Notes in a JSON file, which is replaced whole: an app that dies in between leaves the old notes or the new ones.
struct NoteFile {
    private let file: URL
    private(set) var notes: [Note]

    init(_ file: URL) throws {
        self.file = file
        let exists = FileManager.default.fileExists(atPath: file.path)
        notes = exists ? try JSONDecoder().decode([Note].self, from: Data(contentsOf: file)) : []
    }

    mutating func add(_ text: String) throws -> Note {
        guard !text.allSatisfy(\.isWhitespace) else { throw NotesError.blank("note") }
        let note = Note(id: (notes.map(\.id).max() ?? 0) + 1, text: text, label: nil)
        try write(notes + [note])
        return note
    }

    /// Spaces and line breaks in a label become single spaces.
    mutating func label(_ id: Int, _ label: String?) throws {
        guard let at = notes.firstIndex(where: { $0.id == id }) else { throw NotesError.noNote(id) }
        let words = label?.split(whereSeparator: \.isWhitespace).joined(separator: " ")
        if words?.isEmpty == true { throw NotesError.blank("label") }
        var changed = notes
        changed[at].label = words
        try write(changed)
    }

    mutating func remove(_ id: Int) throws {
        try write(notes.filter { $0.id != id })
    }

    private mutating func write(_ changed: [Note]) throws {
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try JSONEncoder().encode(changed).write(to: file, options: .atomic)
        notes = changed
    }
}
