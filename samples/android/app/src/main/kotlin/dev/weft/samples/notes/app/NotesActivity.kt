package dev.weft.samples.notes.app

import android.os.Bundle
import androidx.activity.ComponentActivity
import androidx.activity.compose.setContent
import androidx.activity.enableEdgeToEdge
import androidx.activity.viewModels
import androidx.compose.runtime.getValue
import androidx.lifecycle.compose.collectAsStateWithLifecycle

/** The only screen. */
class NotesActivity : ComponentActivity() {
    private val viewModel: NotesViewModel by viewModels()

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        enableEdgeToEdge()
        val notes = viewModel.notes
        setContent {
            val state by notes.state.collectAsStateWithLifecycle()
            NotesScreen(
                state = state,
                onFind = { notes.find(it) },
                onAdd = { notes.add(it) },
                onLabel = { id, label -> notes.label(id, label) },
                onRemove = { notes.remove(it) },
                onLearn = { notes.learn() },
                onCancel = { notes.cancel() },
            )
        }
    }
}
