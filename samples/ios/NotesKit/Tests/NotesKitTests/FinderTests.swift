import Foundation
import Testing
import Weft

@testable import NotesKit

@Suite struct FinderTests {
    private let notes = Texts.topics.flatMap(\.texts).enumerated().map { Note(id: $0 + 1, text: $1, label: nil) }

    private func model() async throws -> SentenceModel {
        try await SentenceModel.open(Texts.miniLM, on: .cpu(threads: 2))
    }

    @Test func notesAreFoundAsSentenceTransformersWould() async throws {
        try await Texts.inFolder { folder in
            let recorded = try Texts.recorded()
            let notes = recorded.enumerated().map { Note(id: $0 + 1, text: $1.text, label: nil) }
            let finder = try Finder(model: await model(), folder: folder)
            for query in recorded {
                let right = recorded.map { other in zip(query.embedding, other.embedding).reduce(0) { $0 + $1.0 * $1.1 }
                }
                let found = try await finder.find(query.text, in: notes)
                #expect(found.map(\.note) == notes.sorted { right[$0.id - 1] > right[$1.id - 1] })
                for one in found { #expect(abs(Double(one.similarity) - right[one.note.id - 1]) < 1e-5) }
            }
            #expect(try await finder.find("cat", in: notes, most: 3).count == 3)
            #expect(try await finder.find(" ", in: notes).isEmpty)
            #expect(try await finder.find("cat", in: []).isEmpty)
        }
    }

    @Test func textsAreReadOnceAndKnownToTheNextProcess() async throws {
        try await Texts.inFolder { folder in
            let model = try await model()
            let told = Told<[Int]>()
            let finder = try Finder(model: model, folder: folder)
            try await finder.read(notes) { await told.add([$0, $1]) }
            #expect(await told.all == [[0, 21], [8, 21], [16, 21], [21, 21]])
            let again = try Finder(model: model, folder: folder)
            #expect(await again.knows(notes))
            try await again.read(notes) { _, _ in Issue.record("they are known") }
            #expect(try await finder.embeddings(of: notes) == again.embeddings(of: notes))

            // a damaged file is made again
            let file = folder.appendingPathComponent("embeddings.safetensors")
            try Data(contentsOf: file).prefix(100).write(to: file)
            let third = try Finder(model: model, folder: folder)
            #expect(await !third.knows(notes))
            try await third.read(notes)
            #expect(try await Finder(model: model, folder: folder).knows(notes))
        }
    }

    @Test func readingThatEndsEarlyKeepsWhatItRead() async throws {
        struct Enough: Error {}
        try await Texts.inFolder { folder in
            let model = try await model()
            let finder = try Finder(model: model, folder: folder)
            await #expect(throws: Enough.self) {
                try await finder.read(notes) { done, _ in if done == 8 { throw Enough() } }
            }
            let again = try Finder(model: model, folder: folder)
            #expect(await again.knows(Array(notes.prefix(8))))
            #expect(await !again.knows(Array(notes.prefix(9))))
        }
    }
}
