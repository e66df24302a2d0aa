package dev.weft.samples.notes.app

import androidx.compose.foundation.layout.Arrangement
import androidx.compose.foundation.layout.Column
import androidx.compose.foundation.layout.Row
import androidx.compose.foundation.layout.fillMaxSize
import androidx.compose.foundation.layout.fillMaxWidth
import androidx.compose.foundation.layout.padding
import androidx.compose.foundation.lazy.LazyColumn
import androidx.compose.foundation.lazy.items
import androidx.compose.material3.Button
import androidx.compose.material3.Card
import androidx.compose.material3.LinearProgressIndicator
import androidx.compose.material3.MaterialTheme
import androidx.compose.material3.OutlinedTextField
import androidx.compose.material3.Scaffold
import androidx.compose.material3.Text
import androidx.compose.material3.TextButton
import androidx.compose.runtime.Composable
import androidx.compose.runtime.getValue
import androidx.compose.runtime.mutableStateOf
import androidx.compose.runtime.remember
import androidx.compose.runtime.saveable.rememberSaveable
import androidx.compose.runtime.setValue
import androidx.compose.ui.Alignment
import androidx.compose.ui.Modifier
import androidx.compose.ui.res.stringResource
import androidx.compose.ui.unit.dp
import dev.weft.samples.notes.Guess
import dev.weft.samples.notes.Note
import dev.weft.samples.notes.NotesState
import dev.weft.samples.notes.Work

/** Shows the state, and tells what the user does. Nothing is decided here. */
@Composable
fun NotesScreen(
    state: NotesState,
    onFind: (String) -> Unit,
    onAdd: (String) -> Unit,
    onLabel: (Long, String?) -> Unit,
    onRemove: (Long) -> Unit,
    onLearn: () -> Unit,
    onCancel: () -> Unit,
) {
    MaterialTheme {
        Scaffold { inside ->
            Column(Modifier.fillMaxSize().padding(inside).padding(16.dp), Arrangement.spacedBy(8.dp)) {
                Line(stringResource(R.string.find), clearing = false, onDone = onFind)
                Line(stringResource(R.string.add), clearing = true, onDone = onAdd)
                state.work?.let { Working(it, onCancel) } ?: Button(onLearn) { Text(stringResource(R.string.learn)) }
                state.error?.let { Text(it, color = MaterialTheme.colorScheme.error) }
                val shown = if (state.query.isBlank()) state.notes else state.found.map { it.note }
                LazyColumn(verticalArrangement = Arrangement.spacedBy(8.dp)) {
                    items(shown, key = { it.id }) { note -> Entry(note, state.guesses[note.id], onLabel, onRemove) }
                }
            }
        }
    }
}

/** A line of text with a button. */
@Composable
private fun Line(title: String, clearing: Boolean, onDone: (String) -> Unit) {
    var text by rememberSaveable { mutableStateOf("") }
    Row(verticalAlignment = Alignment.CenterVertically) {
        OutlinedTextField(text, { text = it }, Modifier.weight(1f), label = { Text(title) }, singleLine = true)
        TextButton({
            onDone(text)
            if (clearing) text = ""
        }) { Text(title) }
    }
}

/** Progress, with a button that ends the work. */
@Composable
private fun Working(work: Work, onCancel: () -> Unit) {
    val (title, part) =
        when (work) {
            Work.Opening -> stringResource(R.string.opening) to null
            is Work.Reading -> stringResource(R.string.reading, work.done, work.all) to work.done.toFloat() / work.all
            is Work.Learning -> stringResource(R.string.learning, work.done, work.all, work.loss) to work.done.toFloat() / work.all
        }
    Row(Modifier.fillMaxWidth(), verticalAlignment = Alignment.CenterVertically) {
        Column(Modifier.weight(1f)) {
            Text(title)
            if (part == null) LinearProgressIndicator(Modifier.fillMaxWidth()) else LinearProgressIndicator({ part }, Modifier.fillMaxWidth())
        }
        TextButton(onCancel) { Text(stringResource(R.string.cancel)) }
    }
}

/** A note: its text, its label or the guess at it, which a tap takes up. */
@Composable
private fun Entry(note: Note, guess: Guess?, onLabel: (Long, String?) -> Unit, onRemove: (Long) -> Unit) {
    var label by remember(note.label) { mutableStateOf(note.label ?: "") }
    Card(Modifier.fillMaxWidth()) {
        Column(Modifier.padding(12.dp)) {
            Text(note.text)
            Row(verticalAlignment = Alignment.CenterVertically) {
                OutlinedTextField(label, { label = it }, Modifier.weight(1f), label = { Text(stringResource(R.string.label)) }, singleLine = true)
                TextButton({ onLabel(note.id, label.ifBlank { null }) }) { Text(stringResource(R.string.label)) }
                TextButton({ onRemove(note.id) }) { Text(stringResource(R.string.remove)) }
            }
            if (note.label == null && guess != null) {
                TextButton({ onLabel(note.id, guess.label) }) {
                    Text(stringResource(R.string.guess, guess.label, guess.probability * 100))
                }
            }
        }
    }
}
