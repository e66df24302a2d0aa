package dev.weft.samples.notes

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class FinderTest {
    @TempDir
    lateinit var folder: File

    @Test
    fun `notes are found in the order, and with the similarity, of sentence-transformers`() =
        blocking {
            Texts.opened { _, model ->
                val notes = Texts.recorded.keys.mapIndexed { at, text -> Note(at + 1L, text) }
                val finder = Finder(model, folder)
                for ((query, wanted) in Texts.recorded) {
                    val right = notes.associateWith { note -> Texts.recorded.getValue(note.text).zip(wanted) { a, b -> a.toDouble() * b }.sum() }
                    val found = finder.find(query, notes)
                    assertEquals(notes.sortedByDescending { right.getValue(it) }, found.map { it.note }, query)
                    found.forEach { assertEquals(right.getValue(it.note), it.similarity.toDouble(), 1e-5, "$query: ${it.note.text}") }
                }
                assertEquals(3, finder.find("cat", notes, most = 3).size)
                assertTrue(finder.find(" ", notes).isEmpty())
                assertTrue(finder.find("cat", emptyList()).isEmpty())
            }
        }

    @Test
    fun `texts are read once, and are known to the next process`() =
        blocking {
            Texts.opened { _, model ->
                val notes = Texts.topics.values.flatten().mapIndexed { at, text -> Note(at + 1L, text) }
                val told = mutableListOf<Pair<Int, Int>>()
                val finder = Finder(model, folder)
                finder.read(notes) { done, all -> told += done to all }
                assertEquals(listOf(0, 8, 16, 21), told.map { it.first })
                assertTrue(told.all { it.second == 21 })
                val again = Finder(model, folder)
                assertTrue(again.knows(notes))
                again.read(notes) { _, _ -> error("they are known") }
                for (note in notes) assertTrue(finder.embedding(note).contentEquals(again.embedding(note)))
                assertFalse(again.knows(listOf(Note(99, "a new one"))))

                // a damaged file is made again
                val file = folder.resolve("embeddings.safetensors")
                file.writeBytes(file.readBytes().copyOf(100))
                val third = Finder(model, folder)
                assertFalse(third.knows(notes))
                third.read(notes)
                assertTrue(Finder(model, folder).knows(notes))
            }
        }

    @Test
    fun `reading that is cancelled keeps what it read`() =
        blocking {
            Texts.opened { _, model ->
                val notes = Texts.topics.values.flatten().mapIndexed { at, text -> Note(at + 1L, text) }
                class Enough : Exception()
                val finder = Finder(model, folder)
                val thrown = runCatching { finder.read(notes) { done, _ -> if (done == 8) throw Enough() } }.exceptionOrNull()
                assertTrue(thrown is Enough, "$thrown")
                val again = Finder(model, folder)
                assertTrue(again.knows(notes.take(8)) && !again.knows(notes.take(9)))
            }
        }
}
