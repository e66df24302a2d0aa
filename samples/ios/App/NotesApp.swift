// Find it, teach it: the app.

import NotesKit
import SwiftUI

@main
struct NotesApp: App {
    @StateObject private var notes = Notes()

    var body: some Scene {
        WindowGroup { NotesScreen(notes: notes) }
    }
}

/// The app's logic, as SwiftUI watches it.
@MainActor
final class Notes: ObservableObject {
    @Published private(set) var state = NotesState()
    let model: NotesModel

    init() {
        let support = URL.applicationSupportDirectory
        model = NotesModel(
            folder: support.appendingPathComponent("notes"),
            modelFolder: {
                // the project copies samples/models/minilm into the bundle
                guard let folder = Bundle.main.url(forResource: "minilm", withExtension: nil) else {
                    throw CocoaError(.fileNoSuchFile, userInfo: [NSFilePathErrorKey: "minilm, in the app's bundle"])
                }
                return folder
            })
        model.onChange = { [weak self] state in self?.state = state }
        model.start()
    }
}
