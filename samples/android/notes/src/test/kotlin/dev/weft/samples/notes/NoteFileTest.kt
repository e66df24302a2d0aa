package dev.weft.samples.notes

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class NoteFileTest {
    @TempDir
    lateinit var folder: File

    private val path get() = folder.resolve("a/notes.txt")

    @Test
    fun `what is added, labelled and removed is there in another process`() {
        val texts = listOf("one", "two\nlines\tand a tab", "a \\n that is none, and a \\", "\r\n", "ünï — 漢字 🙂").filter { it.isNotBlank() }
        val notes = NoteFile(path)
        texts.forEach { notes.add(it) }
        notes.label(2, "  to \n do ")
        notes.label(3, "x")
        notes.label(3, null)
        notes.remove(1)
        val again = NoteFile(path).all()
        assertEquals(notes.all(), again)
        assertEquals(texts.drop(1), again.map { it.text })
        assertEquals(listOf("to do", null, null), again.map { it.label })
        assertEquals(listOf(2L, 3L, 4L), again.map { it.id })
        // numbers are not given twice while a later note is there
        assertEquals(5L, NoteFile(path).add("five").id)
        assertEquals(listOf("notes.txt"), path.parentFile.list()!!.asList())
    }

    @Test
    fun `a write that fails leaves the notes as they are`() {
        val notes = NoteFile(path)
        notes.add("one")
        val before = path.readText()
        assertThrows(IllegalStateException::class.java) {
            replace(path) {
                it.writeText("half of i")
                error("the battery is empty")
            }
        }
        assertEquals(before, path.readText())
        assertEquals(listOf("notes.txt"), path.parentFile.list()!!.asList())
    }

    @Test
    fun `bad input is refused, and says what was wanted`() {
        val notes = NoteFile(path)
        for (blank in listOf("", " \n\t")) assertThrows(IllegalArgumentException::class.java) { notes.add(blank) }
        notes.add("one")
        assertThrows(IllegalArgumentException::class.java) { notes.label(1, " ") }
        val none = assertThrows(IllegalArgumentException::class.java) { notes.label(7, "x") }
        assertTrue("7" in none.message!!, none.message)
        assertNull(notes.all().single().label)
        for (bad in listOf("one\t\tx", "1\tx", "1\ta\tb\tc", "")) {
            path.writeText("1\t\tgood\n$bad\n")
            val e = assertThrows(NotesFileException::class.java) { NoteFile(path) }
            assertTrue("line 2" in e.message!!, e.message)
        }
    }
}
