import Foundation
import Testing
import Weft

@testable import NotesKit

/// Knuth's linear congruential generator of MMIX, for the same points on every machine.
private struct Numbers: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state
    }
}

@Suite struct TeacherTests {
    private typealias Examples = [(embedding: [Float], label: String)]

    /// Points around a centre a label.
    private func points(_ count: Int, _ components: Int) -> Examples {
        var numbers = Numbers(state: UInt64(count))
        return (0..<count).map { at in
            let point = (0..<components).map { i in
                Float.random(in: -1...1, using: &numbers) + (i % 3 == at % 3 ? 0.6 : 0)
            }
            return (point, "label \(at % 3)")
        }
    }

    /// Softmax regression by Adam (Kingma and Ba, 2015, algorithm 1) in f64, from zeros: losses, and probabilities of each example.
    private func oracle(_ examples: Examples, steps: Int) -> (losses: [Double], probabilities: [[Double]]) {
        let labels = Set(examples.map(\.label)).sorted()
        let n = examples[0].embedding.count + 1  // the bias is the last column
        var w = [Double](repeating: 0, count: labels.count * n)
        var (m, v) = (w, w)
        func probabilities(_ x: [Float]) -> [Double] {
            let row: [Double] = x.map { Double($0) } + [1.0]
            let logits: [Double] = labels.indices.map { c in
                var sum = 0.0
                for i in row.indices { sum += w[c * n + i] * row[i] }
                return sum
            }
            let most = logits.max() ?? 0
            let all = logits.map { exp($0 - most) }
            return all.map { $0 / all.reduce(0, +) }
        }
        let losses = (1...steps).map { step in
            var gradient = [Double](repeating: 0, count: w.count)
            var loss = 0.0
            for (x, label) in examples {
                let p = probabilities(x)
                for c in labels.indices {
                    let right = labels[c] == label
                    if right { loss -= log(p[c]) / Double(examples.count) }
                    let error = (p[c] - (right ? 1 : 0)) / Double(examples.count)
                    for i in 0..<n { gradient[c * n + i] += error * (i < n - 1 ? Double(x[i]) : 1) }
                }
            }
            for i in w.indices {
                m[i] = 0.9 * m[i] + 0.1 * gradient[i]
                v[i] = 0.999 * v[i] + 0.001 * gradient[i] * gradient[i]
                let (mean, square) = (m[i] / (1 - pow(0.9, Double(step))), v[i] / (1 - pow(0.999, Double(step))))
                w[i] -= 0.05 * mean / (square.squareRoot() + 1e-8)
            }
            return loss
        }
        return (losses, examples.map { probabilities($0.embedding) })
    }

    @Test(arguments: [7, 16, 37])  // neither a multiple of a step's rows, nor one such
    func itLearnsWhatSoftmaxRegressionLearns(count: Int) async throws {
        let examples = points(count, 12)
        let right = oracle(examples, steps: 40)
        try await Texts.inFolder { folder in
            let teacher = Teacher(device: try .cpu(threads: 2), components: 12, folder: folder)
            let told = Told<TrainingStep>()
            try await teacher.learn(examples, steps: 40) { await told.add($0) }
            let steps = await told.all
            #expect(steps.map(\.done) == Array(1...40))
            for (step, wanted) in zip(steps, right.losses) { #expect(abs(Double(step.loss) - wanted) < 1e-4) }
            let labels = await teacher.labels
            for (example, wanted) in zip(examples, right.probabilities) {
                let guesses = try await teacher.guess(example.embedding)
                #expect(Set(guesses.map(\.label)) == Set(labels))
                #expect(zip(guesses, guesses.dropFirst()).allSatisfy { $0.probability >= $1.probability })
                for guess in guesses {
                    let at = try #require(labels.firstIndex(of: guess.label))
                    #expect(abs(Double(guess.probability) - wanted[at]) < 1e-3)
                }
            }
        }
    }

    @Test func whatWasLearntIsThereInTheNextProcessAndMakesRoom() async throws {
        try await Texts.inFolder { folder in
            let device = try Device.cpu(threads: 2)
            let examples = points(12, 5)
            func teacher() async throws -> Teacher {
                let made = Teacher(device: device, components: 5, folder: folder)
                try await made.restore()
                return made
            }
            let first = try await teacher()
            #expect(try await first.guess(examples[0].embedding).isEmpty)
            try await first.learn(examples)
            let again = try await teacher()
            for (x, _) in examples { #expect(try await first.guess(x) == again.guess(x)) }
            try await again.learn(examples + [(embedding: [-1, -1, -1, -1, -1], label: "another")])
            let third = try await teacher()
            #expect(await third.labels == ["another", "label 0", "label 1", "label 2"])
            #expect(try await again.guess(examples[0].embedding) == third.guess(examples[0].embedding))
            #expect(try Texts.names(in: folder).count == 2, "of what was learnt before, nothing is left")
        }
    }

    @Test func learningThatIsCancelledLeavesWhatWasLearnt() async throws {
        try await Texts.inFolder { folder in
            let teacher = Teacher(device: try .cpu(threads: 2), components: 8, folder: folder)
            let examples = points(30, 8)
            try await teacher.learn(examples)
            let (before, files) = (try await teacher.guess(examples[0].embedding), try Texts.names(in: folder))
            let others = examples.map { (embedding: $0.embedding, label: $0.label + "!") }
            let told = Told<Int>()
            let learning = Task {
                try await teacher.learn(others, steps: 100_000) { step in
                    await told.add(step.done)
                    if step.done == 20 { withUnsafeCurrentTask { $0?.cancel() } }
                }
            }
            await #expect(throws: CancellationError.self) { try await learning.value }
            #expect(await told.all.count <= 21)
            #expect(try await teacher.guess(examples[0].embedding) == before)
            #expect(try Texts.names(in: folder) == files)
        }
    }

    @Test func oneLabelIsNothingToLearn() async throws {
        try await Texts.inFolder { folder in
            let teacher = Teacher(device: try .cpu(), components: 2, folder: folder)
            await #expect(throws: NotesError.tooFewLabels(1)) { try await teacher.learn([([1, 2], "a")]) }
            await #expect(throws: NotesError.tooFewLabels(0)) { try await teacher.learn([]) }
        }
    }
}
