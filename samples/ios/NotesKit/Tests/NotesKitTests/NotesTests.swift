import Foundation
import Testing
import Weft

@testable import NotesKit

@Suite struct NotesTests {
    @Test func whatIsChangedIsThereInAnotherProcess() async throws {
        try await Texts.inFolder { folder in
            let path = folder.appendingPathComponent("a/notes.json")
            var notes = try NoteFile(path)
            for text in ["one", "two\nlines\tand \"quotes\"", "ünï — 漢字 🙂"] { _ = try notes.add(text) }
            try notes.label(2, "  to \n do ")
            try notes.label(3, "x")
            try notes.label(3, nil)
            try notes.remove(1)
            let again = try NoteFile(path).notes
            #expect(again == notes.notes)
            #expect(again.map(\.text) == ["two\nlines\tand \"quotes\"", "ünï — 漢字 🙂"])
            #expect(again.map(\.label) == ["to do", nil])
            #expect(again.map(\.id) == [2, 3])
            #expect(try Texts.names(in: path.deletingLastPathComponent()) == ["notes.json"])
        }
    }

    @Test func badInputIsRefused() async throws {
        try await Texts.inFolder { folder in
            let path = folder.appendingPathComponent("notes.json")
            var notes = try NoteFile(path)
            #expect(throws: NotesError.blank("note")) { try notes.add(" \n\t") }
            _ = try notes.add("one")
            #expect(throws: NotesError.blank("label")) { try notes.label(1, " ") }
            #expect(throws: NotesError.noNote(7)) { try notes.label(7, "x") }
            #expect(notes.notes.map(\.label) == [nil])
            try Data("[{".utf8).write(to: path)
            #expect(throws: DecodingError.self) { try NoteFile(path) }
        }
    }

    @Test func miniLMIsInstalledOnceAndWhole() async throws {
        try await Texts.inFolder { folder in
            let model = ModelFolder(folder.appendingPathComponent("minilm"), files: ModelFolder.miniLM)
            #expect(!model.isThere)
            // one file is shorter
            let half = folder.appendingPathComponent("half")
            try FileManager.default.copyItem(at: Texts.miniLM, to: half)
            try Data("{}".utf8).write(to: half.appendingPathComponent("modules.json"))
            #expect {
                try model.install(from: half)
            } throws: { error in
                let message = error.localizedDescription
                return message.contains("modules.json: wanted") && message.hasSuffix("found 2")
            }
            #expect(!model.isThere)
            #expect(try Texts.names(in: folder) == ["half"])
            try FileManager.default.removeItem(at: half)
            try model.install(from: Texts.miniLM)
            #expect(model.isThere)
            try model.install(from: folder.appendingPathComponent("nothing"))
            #expect(try Texts.names(in: folder) == ["minilm"])
            let opened = try await SentenceModel.open(model.folder, on: .cpu(threads: 2))
            #expect(try await opened.embed("a text").count == 384)
        }
    }
}
