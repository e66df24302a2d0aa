// The app's front on a terminal: `notes MODEL_FOLDER [NOTES_FOLDER]`; commands in, a line each.

import Foundation
import NotesKit

let help = """
    add TEXT          add a note
    find TEXT         notes whose meaning is nearest to the text's
    label N LABEL     give note N a label
    learn             learn the labels; the others' are then guessed
    list              all notes
    remove N          remove note N
    help, quit
    """

@MainActor
func list(_ state: NotesState) {
    for note in state.notes {
        let guess = state.guesses[note.id].map { "\($0.label)? \(Int(($0.probability * 100).rounded())) %" }
        print("\(note.id)  [\(note.label ?? guess ?? "–")]  \(note.text)")
    }
}

/// Waits for the work; then tells what went wrong, or does the rest.
@MainActor
func done(_ model: NotesModel, _ task: Task<Void, Never>, then: (NotesState) -> Void = { _ in }) async {
    await task.value
    if let error = model.state.error { print("error: \(error)") } else { then(model.state) }
}

@MainActor
func numbered(_ text: String, _ then: (Int, String) async -> Void) async {
    let parts = text.split(separator: " ", maxSplits: 1).map(String.init)
    guard let number = parts.first, let id = Int(number) else {
        print("wanted a note's number, found \"\(parts.first ?? "")\"")
        return
    }
    await then(id, parts.count > 1 ? parts[1] : "")
}

let arguments = CommandLine.arguments.dropFirst().map { URL(fileURLWithPath: $0) }
guard (1...2).contains(arguments.count), !CommandLine.arguments[1].hasPrefix("-") else {
    print("Usage: notes MODEL_FOLDER [NOTES_FOLDER]\n\nCommands:\n\(help)")
    exit(CommandLine.arguments.contains { $0 == "--help" || $0 == "-h" } ? 0 : 2)
}
let folder = arguments.count > 1 ? arguments[1] : URL(fileURLWithPath: "notes")
let model = NotesModel(folder: folder, modelFolder: { arguments[0] })
await done(model, model.start())
print("\(model.state.notes.count) notes. \"help\" lists the commands.")
reading: while let line = readLine() {
    let parts = line.split(separator: " ", maxSplits: 1).map(String.init)
    let rest = parts.count > 1 ? parts[1] : ""
    switch parts.first ?? "" {
    case "": continue
    case "quit": break reading
    case "help": print(help)
    case "list": list(model.state)
    case "add": await done(model, model.add(rest)) { print("note \($0.notes.last?.id ?? 0)") }
    case "remove": await numbered(rest) { id, _ in await done(model, model.remove(id)) }
    case "label": await numbered(rest) { id, label in await done(model, model.label(id, label)) }
    case "find":
        await done(model, model.find(rest)) { state in
            for found in state.found.prefix(5) {
                print("\(String(format: "%.2f", found.similarity))  \(found.note.id)  \(found.note.text)")
            }
        }
    case "learn": await done(model, model.learn(), then: list)
    case let other: print("no command \"\(other)\": \"help\" lists them")
    }
}
