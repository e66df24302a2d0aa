import XCTest

@testable import Weft

/// MiniLM against what sentence-transformers gives.
final class SentenceModelTests: XCTestCase {
    func testEmbeddingsEqualThoseRecordedAloneTogetherAndFromEightTasksAtOnce() async throws {
        let sentences = try Samples.sentences()
        XCTAssertEqual(sentences.count, 8)
        let model = try await SentenceModel.open(Samples.miniLM, on: .cpu(threads: 2))
        XCTAssertEqual(model.components, 384)
        XCTAssertEqual(try model.warnings, [])
        let together = try await model.embed(sentences.map(\.text))
        XCTAssertEqual(together.count, 8)
        for (sentence, embedding) in zip(sentences, together) { near(sentence, embedding) }
        let atOnce = try await withThrowingTaskGroup(of: (Int, [Float]).self) { group in
            for (at, sentence) in sentences.enumerated() {
                let text = sentence.text
                group.addTask { (at, try await model.embed(text)) }
            }
            return try await group.reduce(into: [Int: [Float]]()) { $0[$1.0] = $1.1 }
        }
        for (at, sentence) in sentences.enumerated() { near(sentence, try XCTUnwrap(atOnce[at])) }
        try model.close()
    }

    private func near(_ sentence: Samples.Sentence, _ embedding: [Float]) {
        XCTAssertEqual(sentence.embedding.count, embedding.count)
        let far = zip(sentence.embedding, embedding).map { abs($0 - Double($1)) }.max() ?? .infinity
        // as core/tests/minilm.rs has it for the CPU
        XCTAssertLessThanOrEqual(far, 1e-5, sentence.text)
    }

    func testATextOfAnyCharactersHasAnEmbeddingOfLengthOne() async throws {
        let model = try await SentenceModel.open(Samples.miniLM, on: .cpu(threads: 2))
        let texts = ["", "🦀🎉", "مرحبا بالعالم", "a\0b", "\u{FFFD} alone"]
        let found = try await model.embed(texts)
        XCTAssertEqual(found.count, texts.count)
        for (text, embedding) in zip(texts, found) {
            let length = embedding.reduce(0) { $0 + $1 * $1 }
            XCTAssertEqual(length, 1, accuracy: 1e-5, text)
        }
        let none = try await model.embed([String]())
        XCTAssertEqual(none, [])
    }

    func testAPromptIsPutBeforeTexts() async throws {
        let model = try await SentenceModel.open(Samples.miniLM, on: .cpu(threads: 2))
        let wanted = try await model.embed("query: a cat")
        try model.setPrompt(.text("query: "))
        let prompted = try await model.embed("a cat")
        XCTAssertEqual(prompted, wanted)
        try model.setPrompt(.none)
        let plain = try await model.embed("a cat")
        XCTAssertNotEqual(plain, wanted)
        fails(.unknownName, "nothing") { try model.setPrompt(.named("nothing")) }
    }

    func testEmbeddingIsCancelledWithItsTask() async throws {
        let model = try await SentenceModel.open(Samples.miniLM, on: .cpu(threads: 2))
        let many = [String](repeating: "The cat sits outside, and the dog inside", count: 20_000)
        let task = Task { try await model.embed(many) }
        try await Task.sleep(nanoseconds: 50_000_000)
        task.cancel()
        let outcome = await task.result
        XCTAssertThrowsError(try outcome.get()) { XCTAssertTrue($0 is CancellationError, "\($0)") }
        let after = try await model.embed("a cat")
        XCTAssertEqual(after.count, 384)
    }
}
