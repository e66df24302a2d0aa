package dev.weft

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** MiniLM against what sentence-transformers gives. */
class SentenceModelTest {
    @Test
    fun `embeddings equal those recorded, alone, together and from eight tasks at once`() =
        blocking {
            val sentences = Samples.sentences
            assertEquals(8, sentences.size)
            Device.cpu(2).use { device ->
                SentenceModel.open(device, Samples.miniLm).use { model ->
                    assertEquals(384, model.components)
                    assertEquals(emptyList<String>(), model.warnings)
                    val together = model.embed(sentences.map { it.text })
                    for ((sentence, embedding) in sentences.zip(together)) near(sentence, embedding)
                    val atOnce = sentences.map { async(Dispatchers.Default) { model.embed(it.text) } }.awaitAll()
                    for ((sentence, embedding) in sentences.zip(atOnce)) near(sentence, embedding)
                }
            }
        }

    private fun near(sentence: Samples.Sentence, embedding: FloatArray) {
        val far = Samples.farthest(sentence.embedding, embedding)
        // as core/tests/minilm.rs has it for the CPU
        assertTrue(far <= 1e-5f, "${sentence.text}: $far")
    }

    @Test
    fun `a text of any characters has an embedding of length one`() =
        blocking {
            Device.cpu(2).use { device ->
                SentenceModel.open(device, Samples.miniLm).use { model ->
                    val texts = listOf("", "🦀🎉", "مرحبا بالعالم", "a\u0000b", "\uD800 alone")
                    for ((text, embedding) in texts.zip(model.embed(texts))) {
                        val length = embedding.fold(0f) { sum, v -> sum + v * v }
                        assertTrue(kotlin.math.abs(length - 1) < 1e-5f, "$text: $length")
                    }
                    assertEquals(emptyList<FloatArray>(), model.embed(emptyList()))
                }
            }
        }
}
