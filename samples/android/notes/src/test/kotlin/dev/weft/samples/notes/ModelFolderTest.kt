package dev.weft.samples.notes

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.io.IOException

class ModelFolderTest {
    @TempDir
    lateinit var folder: File

    @Test
    fun `MiniLM is installed once, and is then the model`() =
        blocking {
            val model = ModelFolder(folder.resolve("a/minilm"), ModelFolder.miniLm)
            assertFalse(model.isThere)
            val told = mutableListOf<Int>()
            model.install({ done, all -> told += done.also { assertEquals(7, all) } }) { Texts.miniLm.resolve(it).inputStream() }
            assertEquals((0..7).toList(), told)
            assertTrue(model.isThere)
            model.install { error("it is there") }
            assertEquals(listOf("minilm"), folder.resolve("a").list()!!.asList())
            dev.weft.Device.cpu(2).use { device ->
                dev.weft.SentenceModel.open(device, model.path).use { assertEquals(384, it.embed("a text").size) }
            }
        }

    @Test
    fun `files that are others, or end early, install nothing`() {
        val path = folder.resolve("minilm")
        val model = ModelFolder(path, ModelFolder.miniLm)
        val changed =
            assertThrows(IOException::class.java) {
                model.install { name -> Texts.miniLm.resolve(name).inputStream().let { if (name == "tokenizer.json") it.also { _ -> it.skip(1) } else it } }
            }
        assertTrue("tokenizer.json" in changed.message!! && ModelFolder.miniLm.getValue("tokenizer.json") in changed.message!!, changed.message)
        assertThrows(IOException::class.java) { model.install { throw IOException("no network") } }
        assertFalse(model.isThere)
        assertEquals(emptyList<String>(), folder.list()!!.asList())
        // a part of an older one makes room
        path.mkdirs()
        path.resolve("config.json").writeText("{}")
        model.install { Texts.miniLm.resolve(it).inputStream() }
        assertTrue(model.isThere && path.resolve("config.json").length() > 100)
    }
}
