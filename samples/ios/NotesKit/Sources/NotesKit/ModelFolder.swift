// How a model gets into the app.

import Foundation

#if canImport(CryptoKit)
    import CryptoKit
#endif

/// A model's folder. In the app's bundle it lies ready, and its signature covers it: `Bundle.main.url(forResource: "minilm", …)` is the folder.
/// What was downloaded, or comes with on-demand resources, is copied once by ``install(from:)``.
public struct ModelFolder: Sendable {
    /// A file of the model.
    public struct File: Sendable, Hashable {
        /// Its path in the folder.
        public let name: String
        /// Its length.
        public let bytes: Int
        /// Its SHA-256, as hexadecimal digits.
        public let sha256: String
    }

    /// Where the model will be.
    public let folder: URL
    private let files: [File]

    /// A folder for these files.
    public init(_ folder: URL, files: [File]) {
        self.folder = folder
        self.files = files
    }

    /// Whether the model is there. Only its files' lengths are looked at: the rest was checked when they came.
    public var isThere: Bool { files.allSatisfy { Self.bytes(folder.appendingPathComponent($0.name)) == $0.bytes } }

    /// Copies the model from a folder, unless it is there, and marks it as what backups leave out. Each file's length is checked, and, where
    /// there is CryptoKit, its SHA-256. The folder appears whole or not at all.
    public func install(from source: URL) throws {
        guard !isThere else { return }
        let manager = FileManager.default
        let parent = folder.deletingLastPathComponent()
        var beside = parent.appendingPathComponent("\(folder.lastPathComponent).\(UUID().uuidString)")
        defer { try? manager.removeItem(at: beside) }
        for file in files {
            let (from, to) = (source.appendingPathComponent(file.name), beside.appendingPathComponent(file.name))
            try manager.createDirectory(at: to.deletingLastPathComponent(), withIntermediateDirectories: true)
            try manager.copyItem(at: from, to: to)
            try check(file, to)
        }
        #if canImport(Darwin)
            var values = URLResourceValues()
            values.isExcludedFromBackup = true
            try beside.setResourceValues(values)
        #endif
        if manager.fileExists(atPath: folder.path) { try manager.removeItem(at: folder) }
        try manager.moveItem(at: beside, to: folder)
        beside = folder.appendingPathComponent(UUID().uuidString)  // nothing is left to remove
    }

    private func check(_ file: File, _ at: URL) throws {
        let bytes = Self.bytes(at)
        guard bytes == file.bytes else {
            throw NotesError.modelFile(name: file.name, wanted: "\(file.bytes) bytes", came: "\(bytes ?? 0)")
        }
        #if canImport(CryptoKit)
            let digest = SHA256.hash(data: try Data(contentsOf: at, options: .alwaysMapped))
            let sha256 = digest.map { String(format: "%02x", $0) }.joined()
            guard sha256 == file.sha256 else {
                throw NotesError.modelFile(name: file.name, wanted: "SHA-256 \(file.sha256)", came: sha256)
            }
        #endif
    }

    private static func bytes(_ file: URL) -> Int? {
        (try? FileManager.default.attributesOfItem(atPath: file.path)[.size] as? NSNumber)?.intValue
    }

    /// The files of all-MiniLM-L6-v2 (Apache-2.0) that Weft reads, as `samples/models/fetch minilm` brings them.
    public static let miniLM: [File] = [
        File(
            name: "1_Pooling/config.json", bytes: 190,
            sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
        File(
            name: "config.json", bytes: 612,
            sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
        File(
            name: "model.safetensors", bytes: 90868376,
            sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
        File(
            name: "modules.json", bytes: 349,
            sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        File(
            name: "sentence_bert_config.json", bytes: 53,
            sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
        File(
            name: "tokenizer.json", bytes: 466247,
            sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
        File(
            name: "tokenizer_config.json", bytes: 350,
            sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    ]
}
