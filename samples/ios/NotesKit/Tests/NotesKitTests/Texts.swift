// What the tests use of the repository.

import Foundation
import NotesKit
import Weft

enum Texts {
    static let repository = URL(fileURLWithPath: ProcessInfo.processInfo.environment["WEFT_REPOSITORY"] ?? "../../..")
    static let miniLM = repository.appendingPathComponent("samples/models/minilm")

    private struct Recorded: Decodable {
        struct Item: Decodable {
            let text: String
            let embedding: [Double]
        }
        let items: [Item]
    }

    /// Sentences with the embeddings that sentence-transformers gives them.
    static func recorded() throws -> [(text: String, embedding: [Double])] {
        let file = repository.appendingPathComponent("tests/golden/minilm_sentences.json")
        let all = try JSONDecoder().decode(Recorded.self, from: Data(contentsOf: file))
        return all.items.map { ($0.text, $0.embedding) }
    }

    /// Notes of three topics.
    static let topics: [(label: String, texts: [String])] = [
        (
            "cooking",
            [
                "Soak the chickpeas overnight before boiling them",
                "Bake the bread at 230 degrees until the crust is dark",
                "The tomato sauce needs more basil and a little sugar",
                "Whisk three eggs with a cup of flour for the pancakes",
                "Roast the potatoes with rosemary and olive oil",
                "Let the dough rise for two hours under a towel",
                "Simmer the lentil soup with cumin and carrots",
            ]
        ),
        (
            "money",
            [
                "Transfer the rent on the first of the month",
                "The tax return is due at the end of May",
                "Compare the interest rates of both savings accounts",
                "The insurance premium went up by eight percent",
                "Cancel the credit card that charges a yearly fee",
                "Ask the bank about refinancing the mortgage",
                "Invoice 4711 has not been paid yet",
            ]
        ),
        (
            "garden",
            [
                "Prune the apple tree before the buds open",
                "Slugs ate the lettuce seedlings again",
                "Plant the tulip bulbs ten centimetres deep",
                "Water the tomato plants early in the morning",
                "The compost heap needs more dry leaves",
                "Sow carrots and radishes in the raised bed",
                "Cut back the lavender after it has flowered",
            ]
        ),
    ]

    /// An empty folder, which is removed afterwards.
    static func inFolder(
        isolation: isolated (any Actor)? = #isolation, _ body: (URL) async throws -> Void
    ) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("notes-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try await body(folder)
    }

    static func names(in folder: URL) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder.path).sorted()
    }
}

/// Collects what closures on other threads tell.
actor Told<Element: Sendable> {
    private(set) var all: [Element] = []
    func add(_ element: Element) { all.append(element) }
}
