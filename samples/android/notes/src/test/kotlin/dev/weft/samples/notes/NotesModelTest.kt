package dev.weft.samples.notes

import dev.weft.Device
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.Job
import kotlinx.coroutines.SupervisorJob
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.joinAll
import kotlinx.coroutines.launch
import kotlinx.coroutines.withTimeout
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.PrintStream

class NotesModelTest {
    @TempDir
    lateinit var folder: File

    private val scope = CoroutineScope(SupervisorJob() + Dispatchers.Default)

    private fun model(path: String = Texts.miniLm.path) = NotesModel(scope, folder, { Device.cpu(2) }, { path })

    @Test
    fun `notes are found, labels are taught, and both are there in the next process`() =
        blocking {
            val texts = Texts.topics.flatMap { (label, texts) -> texts.map { label to it } }
            val guesses: Map<Long, Guess>
            model().use { model ->
                model.start().join()
                // all at once: they are done in their order
                texts.map { (_, text) -> model.add(text) }.joinAll()
                assertEquals(texts.map { it.second }, model.state.value.notes.map { it.text })
                model.find("recipe for a loaf").join()
                assertEquals("Bake the bread at 230 degrees until the crust is dark", model.state.value.found.first().note.text)
                texts.forEachIndexed { at, (label, _) -> if (at % 7 < 5) model.label(at + 1L, label).join() }
                assertTrue(model.state.value.guesses.isEmpty())
                model.learn().join()
                assertNull(model.state.value.error)
                assertNull(model.state.value.work)
                guesses = model.state.value.guesses
            }
            val unlabelled = texts.withIndex().filter { it.index % 7 >= 5 }.associate { it.index + 1L to it.value.first }
            assertEquals(unlabelled.keys, guesses.keys)
            assertTrue(unlabelled.count { (id, label) -> guesses.getValue(id).label == label } >= 4, "$guesses")
            model().use { model ->
                model.start().join()
                assertEquals(guesses, model.state.value.guesses)
                model.remove(7).join()
                assertEquals(texts.size - 1, model.state.value.notes.size)
            }
        }

    @Test
    fun `cancelling learning leaves the guesses, and the next work goes on`() =
        blocking {
            model().use { model ->
                listOf("Boil the rice", "Pay the rent").forEach { model.add(it).join() }
                model.label(1, "cooking").join()
                model.label(2, "money").join()
                model.add("Fry an egg").join()
                model.learn().join()
                val before = model.state.value.guesses
                assertEquals("cooking", before.getValue(3).label)
                val learning = model.learn()
                withTimeout(60_000) { model.state.first { it.work is Work.Learning } }
                val waiting = model.add("never")
                model.cancel()
                withTimeout(10_000) { learning.join() }
                waiting.join()
                assertEquals(3, model.state.value.notes.size)
                assertTrue(learning.isCancelled)
                assertEquals(before, model.state.value.guesses)
                assertNull(model.state.value.work)
                model.find("breakfast").join()
                assertEquals("Fry an egg", model.state.value.found.first().note.text)
            }
        }

    @Test
    fun `what goes wrong is said, and changes nothing`() =
        blocking {
            model().use { model ->
                suspend fun error(job: Job): String {
                    job.join()
                    return model.state.value.error ?: "none"
                }
                assertTrue("blank" in error(model.add(" ")))
                model.add("One").join()
                assertNull(model.state.value.error)
                assertTrue("2 labels" in error(model.learn()))
                assertTrue("no note 9" in error(model.label(9, "x")))
                assertEquals(listOf(Note(1, "One")), model.state.value.notes)
            }
            model(folder.resolve("nothing").path).use { model ->
                model.start().join()
                assertEquals(listOf(Note(1, "One")), model.state.value.notes)
                assertTrue("nothing" in model.state.value.error!!, model.state.value.error)
            }
        }

    @Test
    fun `the terminal's commands`() =
        blocking {
            val commands = "add Boil the rice\nadd Pay the rent\nadd Fry an egg\nlabel 1 cooking\nlabel 2 money\nlabel x y\nlearn\nfind breakfast\nnonsense\nadd \nremove 2\nlist\nquit\nadd never"
            val out = ByteArrayOutputStream()
            model().use { model -> scope.launch { Terminal(model, PrintStream(out, true)).run(commands.reader().buffered()) }.join() }
            val lines = out.toString().lines()
            assertTrue(lines.first().startsWith("0 notes"), "$lines")
            assertTrue(lines.any { it.matches(Regex("3  \\[cooking\\? \\d+ %]  Fry an egg")) }, "$lines")
            assertTrue(lines.any { it.matches(Regex("0\\.\\d\\d  3  Fry an egg")) }, "$lines")
            assertTrue(lines.any { it.startsWith("step 200 of 200: loss") }, "$lines")
            assertTrue("wanted a note's number, found \"x\"" in lines && lines.any { "nonsense" in it } && lines.any { it.startsWith("error: ") && "blank" in it }, "$lines")
            assertTrue(lines.none { "never" in it } && lines.takeLast(3).none { "rent" in it }, "$lines")
        }
}
