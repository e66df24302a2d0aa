import Foundation
import Testing
import Weft

@testable import NotesKit

@Suite @MainActor struct NotesModelTests {
    private func model(_ folder: URL, minilm: URL = Texts.miniLM) -> NotesModel {
        NotesModel(folder: folder, modelFolder: { minilm }, openDevice: { try Device.cpu(threads: 2) })
    }

    @Test func notesAreFoundAndLabelsTaught() async throws {
        try await Texts.inFolder { folder in
            let texts = Texts.topics.flatMap { topic in topic.texts.map { (topic.label, $0) } }
            let first = model(folder)
            // all at once: they are done in their order
            for task in texts.map({ first.add($0.1) }) { await task.value }
            #expect(first.state.notes.map(\.text) == texts.map(\.1))
            await first.find("recipe for a loaf").value
            #expect(first.state.found.first?.note.text == "Bake the bread at 230 degrees until the crust is dark")
            for (at, text) in texts.enumerated() where at % 7 < 5 { await first.label(at + 1, text.0).value }
            #expect(first.state.guesses.isEmpty)
            await first.learn().value
            #expect(first.state.error == nil && first.state.work == nil)
            let guesses = first.state.guesses
            let unlabelled = texts.enumerated().filter { $0.offset % 7 >= 5 }
            #expect(Set(guesses.keys) == Set(unlabelled.map { $0.offset + 1 }))
            #expect(unlabelled.filter { guesses[$0.offset + 1]?.label == $0.element.0 }.count >= 4, "\(guesses)")

            let again = model(folder)
            await again.start().value
            #expect(again.state.guesses == guesses)
            await again.remove(7).value
            #expect(again.state.notes.count == texts.count - 1 && again.state.guesses[7] == nil)
        }
    }

    @Test func cancellingLearningLeavesTheGuessesAndTheNextWorkGoesOn() async throws {
        try await Texts.inFolder { folder in
            let model = model(folder)
            for text in ["Boil the rice", "Pay the rent", "Fry an egg"] { await model.add(text).value }
            await model.label(1, "cooking").value
            await model.label(2, "money").value
            await model.learn().value
            let before = model.state.guesses
            #expect(before[3]?.label == "cooking")
            let learning = model.learn()
            var steps = 0
            model.onChange = { state in
                if case .learning(let done, _, _) = state.work {
                    steps = done
                    model.cancel()
                }
            }
            await learning.value
            model.onChange = nil
            #expect((1...3).contains(steps), "cancelled in the first step, and ended after \(steps)")
            #expect(model.state.guesses == before && model.state.work == nil && model.state.error == nil)
            await model.find("breakfast").value
            #expect(model.state.found.first?.note.text == "Fry an egg")
        }
    }

    @Test func whatGoesWrongIsSaidAndChangesNothing() async throws {
        try await Texts.inFolder { folder in
            let model = model(folder)
            await model.add(" ").value
            #expect(model.state.error?.contains("blank") == true)
            await model.add("One").value
            #expect(model.state.error == nil)
            await model.learn().value
            #expect(model.state.error?.contains("2 labels") == true)
            await model.label(9, "x").value
            #expect(model.state.error?.contains("no note 9") == true)
            #expect(model.state.notes == [Note(id: 1, text: "One", label: nil)])
            let other = self.model(folder, minilm: folder.appendingPathComponent("nothing"))
            await other.start().value
            #expect(other.state.notes.count == 1)
            #expect(other.state.error?.contains("nothing") == true, "\(other.state.error ?? "no error")")
        }
    }
}
