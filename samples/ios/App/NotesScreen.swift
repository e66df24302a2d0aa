// The only screen: shows the state, and tells what the user does. Nothing is decided here.

import NotesKit
import SwiftUI

struct NotesScreen: View {
    @ObservedObject var notes: Notes
    @State private var query = ""
    @State private var text = ""

    private var shown: [Note] {
        notes.state.query.isEmpty ? notes.state.notes : notes.state.found.map(\.note)
    }

    var body: some View {
        NavigationStack {
            List {
                Section {
                    HStack {
                        TextField("A new note", text: $text, axis: .vertical)
                        Button("Add") {
                            notes.model.add(text)
                            text = ""
                        }
                    }
                    if let work = notes.state.work {
                        WorkRow(work: work) { notes.model.cancel() }
                    } else {
                        Button("Learn my labels") { notes.model.learn() }
                    }
                    if let error = notes.state.error {
                        Text(error).foregroundStyle(.red)
                    }
                }
                Section {
                    ForEach(shown) { note in
                        NoteRow(note: note, guess: notes.state.guesses[note.id]) { notes.model.label(note.id, $0) }
                    }
                    .onDelete { places in places.map { shown[$0].id }.forEach { notes.model.remove($0) } }
                }
            }
            .navigationTitle("Find it, teach it")
            .searchable(text: $query, prompt: "Find by meaning")
            .onSubmit(of: .search) { notes.model.find(query) }
            .onChange(of: query) { now in if now.isEmpty { notes.model.find("") } }
        }
    }
}

/// Progress, with a button that ends the work.
private struct WorkRow: View {
    let work: Work
    let cancel: () -> Void

    var body: some View {
        HStack {
            switch work {
            case .opening:
                ProgressView { Text("Opening the model") }
            case .reading(let done, let all):
                ProgressView(value: Double(done), total: Double(max(all, 1))) {
                    Text("Reading notes: \(done) of \(all)")
                }
            case .learning(let done, let all, let loss):
                ProgressView(value: Double(done), total: Double(max(all, 1))) {
                    Text("Learning: step \(done) of \(all)")
                    Text(loss, format: .number.precision(.fractionLength(3)))
                }
            }
            Button("Cancel", role: .cancel, action: cancel)
        }
    }
}

/// A note: its text, its label or the guess at it, which a tap takes up.
private struct NoteRow: View {
    let note: Note
    let guess: Guess?
    let label: (String?) -> Void
    @State private var naming = false
    @State private var name = ""

    var body: some View {
        VStack(alignment: .leading) {
            Text(note.text)
            HStack {
                if let given = note.label {
                    Text(given).font(.caption).bold()
                } else if let guess {
                    Button("\(guess.label)? \(Int((guess.probability * 100).rounded())) %") { label(guess.label) }
                        .font(.caption)
                }
                Spacer()
                Button("Label") {
                    name = note.label ?? ""
                    naming = true
                }
                .font(.caption)
            }
            .buttonStyle(.borderless)
        }
        .alert("Label", isPresented: $naming) {
            TextField("Topic", text: $name)
            Button("OK") { label(name.isEmpty ? nil : name) }
            Button("Cancel", role: .cancel) {}
        }
    }
}
