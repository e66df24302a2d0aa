package dev.weft.samples.notes

import dev.weft.Device
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import java.io.BufferedReader
import java.io.File
import java.io.PrintStream

private const val HELP = """add TEXT          add a note
find TEXT         notes whose meaning is nearest to the text's
label N LABEL     give note N a label
learn             learn the labels; the others' are then guessed
list              all notes
remove N          remove note N
help, quit"""

/** The app's front on a terminal: commands in, a line each. */
internal class Terminal(
    private val model: NotesModel,
    private val out: PrintStream,
) {
    private val state get() = model.state.value

    suspend fun run(commands: BufferedReader) {
        model.start().join()
        tellError()
        out.println("${state.notes.size} notes. \"help\" lists the commands.")
        for (line in commands.lineSequence()) if (!command(line.trim())) break
    }

    private suspend fun command(line: String): Boolean {
        val (word, rest) = line.split(' ', limit = 2).let { it[0] to it.getOrElse(1) { "" }.trim() }
        when (word) {
            "" -> Unit
            "quit" -> return false
            "help" -> out.println(HELP)
            "list" -> list()
            "add" -> done(model.add(rest)) { out.println("note ${state.notes.last().id}") }
            "remove" -> numbered(rest) { id, _ -> done(model.remove(id)) }
            "label" -> numbered(rest) { id, label -> done(model.label(id, label)) }
            "find" -> done(model.find(rest)) { state.found.take(5).forEach { out.println("%.2f  %d  %s".format(it.similarity, it.note.id, it.note.text)) } }
            "learn" -> learn()
            else -> out.println("no command \"$word\": \"help\" lists them")
        }
        return true
    }

    private suspend fun done(job: kotlinx.coroutines.Job, then: () -> Unit = {}) {
        job.join()
        if (!tellError()) then()
    }

    private suspend fun learn(): Unit =
        coroutineScope {
            val watching =
                launch {
                    model.state.collect { (it.work as? Work.Learning)?.let { work -> if (work.done % 50 == 0) out.println("step ${work.done} of ${work.all}: loss %.4f".format(work.loss)) } }
                }
            done(model.learn()) { list() }
            watching.cancelAndJoin()
        }

    private suspend fun numbered(rest: String, then: suspend (Long, String) -> Unit) {
        val (number, text) = rest.split(' ', limit = 2).let { it[0] to it.getOrElse(1) { "" } }
        val id = number.toLongOrNull()
        if (id == null) out.println("wanted a note's number, found \"$number\"") else then(id, text)
    }

    private fun list() {
        for (note in state.notes) {
            val label = note.label ?: state.guesses[note.id]?.let { "%s? %.0f %%".format(it.label, it.probability * 100) } ?: "–"
            out.println("${note.id}  [$label]  ${note.text}")
        }
    }

    private fun tellError(): Boolean = state.error?.let { out.println("error: $it") } != null
}

/** `notes MODEL_FOLDER [NOTES_FOLDER]` */
fun main(arguments: Array<String>) {
    if (arguments.size !in 1..2 || arguments[0].startsWith("-")) {
        println("Usage: notes MODEL_FOLDER [NOTES_FOLDER]\n\nNotes in NOTES_FOLDER (notes), found by meaning with the sentence model in MODEL_FOLDER. Commands:\n$HELP")
        return
    }
    runBlocking(Dispatchers.Default) {
        NotesModel(this, File(arguments.getOrElse(1) { "notes" }), { Device.open() }, { arguments[0] }).use { model ->
            Terminal(model, System.out).run(System.`in`.bufferedReader())
        }
    }
}
