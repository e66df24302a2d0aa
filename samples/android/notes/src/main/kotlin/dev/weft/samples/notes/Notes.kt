package dev.weft.samples.notes

import java.io.File
import java.nio.file.Files
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.nio.file.StandardCopyOption.REPLACE_EXISTING

/**
 * A note.
 *
 * @property id its number, which it keeps
 * @property text what the user wrote
 * @property label the topic that the user gave it; null if none
 */
data class Note(
    val id: Long,
    val text: String,
    val label: String? = null,
)

/** The file of notes is not one. */
class NotesFileException(
    message: String,
) : Exception(message)

/**
 * Notes in a file: a line each, `number⇥label⇥text`, with `\n`, `\t`, `\r` and `\\` for what would break a line. A change is written to a
 * file beside it that then takes its place, so that an app that dies in between leaves the old notes or the new ones. For one thread at a time.
 */
class NoteFile(
    private val file: File,
) {
    private var notes: List<Note> = if (file.exists()) file.readLines().mapIndexed(::read) else emptyList()

    /** All notes, in the order in which they were added. */
    fun all(): List<Note> = notes

    /** Adds a note. */
    fun add(text: String): Note {
        require(text.isNotBlank()) { "a note needs a text, and this one is blank" }
        val note = Note((notes.maxOfOrNull { it.id } ?: 0) + 1, text)
        write(notes + note)
        return note
    }

    /** Gives a note a label, or takes it away. Spaces and line breaks in it become single spaces. */
    fun label(id: Long, label: String?) {
        require(notes.any { it.id == id }) { "there is no note $id" }
        require(label == null || label.isNotBlank()) { "a label needs a name, and this one is blank" }
        write(notes.map { if (it.id == id) it.copy(label = label?.trim()?.replace(Regex("\\s+"), " ")) else it })
    }

    /** Removes a note. */
    fun remove(id: Long): Unit = write(notes.filter { it.id != id })

    private fun write(changed: List<Note>) {
        replace(file) { beside ->
            beside.bufferedWriter().use { out ->
                for (note in changed) out.appendLine("${note.id}\t${escaped(note.label ?: "")}\t${escaped(note.text)}")
            }
        }
        notes = changed
    }

    private fun read(at: Int, line: String): Note {
        val parts = line.split('\t')
        val id = parts[0].toLongOrNull()
        if (parts.size != 3 || id == null) {
            throw NotesFileException("$file: line ${at + 1}: wanted number, label and text with tabs between, found \"${line.take(40)}\"")
        }
        return Note(id, plain(parts[2]), plain(parts[1]).ifEmpty { null })
    }
}

/** Lets `write` fill a file beside `file`, which then takes its place at once. */
internal fun replace(file: File, write: (File) -> Unit) {
    file.absoluteFile.parentFile.mkdirs()
    val beside = File.createTempFile("${file.name}.", ".part", file.absoluteFile.parentFile)
    try {
        write(beside)
        Files.move(beside.toPath(), file.toPath(), ATOMIC_MOVE, REPLACE_EXISTING)
    } finally {
        beside.delete()
    }
}

private val escapes = mapOf('\\' to "\\\\", '\n' to "\\n", '\t' to "\\t", '\r' to "\\r")

private fun escaped(text: String): String = buildString { text.forEach { append(escapes[it] ?: it) } }

private fun plain(text: String): String =
    buildString {
        var at = 0
        while (at < text.length) {
            val two = text.substring(at, minOf(at + 2, text.length))
            val meant = escapes.entries.firstOrNull { it.value == two }
            append(meant?.key ?: text[at])
            at += if (meant == null) 1 else 2
        }
    }
