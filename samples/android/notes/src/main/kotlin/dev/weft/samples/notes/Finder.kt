package dev.weft.samples.notes

import dev.weft.ElementType
import dev.weft.SentenceModel
import dev.weft.TensorBuffer
import dev.weft.WeftException
import dev.weft.Weights
import java.io.File
import java.security.MessageDigest

/**
 * A note that was found.
 *
 * @property note the note
 * @property similarity cosine of the angle between its embedding and the query's, -1 to 1
 */
data class Found(
    val note: Note,
    val similarity: Float,
)

/**
 * Finds notes by what they mean: those whose embeddings are nearest to the query's. Embeddings are computed once a text, and kept in a
 * safetensors file, named by the texts' hashes. For one coroutine at a time.
 *
 * @param folder what the app keeps; the file is made again where it is missing or damaged
 */
class Finder(
    private val model: SentenceModel,
    folder: File,
) {
    private val file = File(folder, "embeddings.safetensors")
    private val known = HashMap<String, FloatArray>()

    init {
        if (file.exists()) load()
    }

    private fun load() {
        try {
            Weights.load(file.path).use { weights ->
                for (tensor in weights.tensors) {
                    // of another model, perhaps
                    if (tensor.type != ElementType.F32 || !tensor.shape.contentEquals(longArrayOf(model.components.toLong()))) continue
                    known[tensor.name] = weights[tensor.name].toFloatArray()
                }
            }
        } catch (e: WeftException.Safetensors) {
            // computed again, as are those of notes that it lacks
            known.clear()
        }
    }

    /** Whether there is an embedding of each of these notes. */
    fun knows(notes: List<Note>): Boolean = notes.all { key(it.text) in known }

    /**
     * Computes the embeddings that these notes lack, some at a time, and saves them. Cancelling leaves those that are there.
     *
     * @param onProgress how many of how many are done
     */
    suspend fun read(notes: List<Note>, onProgress: (Int, Int) -> Unit = { _, _ -> }) {
        val lacking = notes.map { it.text }.distinct().filter { key(it) !in known }
        if (lacking.isEmpty()) return
        var done = 0
        onProgress(0, lacking.size)
        try {
            for (some in lacking.chunked(AT_ONCE)) {
                val embeddings = model.embed(some)
                some.zip(embeddings).forEach { (text, embedding) -> known[key(text)] = embedding }
                done += some.size
                onProgress(done, lacking.size)
            }
        } finally {
            if (done > 0) save()
        }
    }

    private fun save() {
        Weights().use { weights ->
            for ((key, embedding) in known) weights[key] = TensorBuffer.of(embedding)
            weights.save(file.path) // whole or not at all
        }
    }

    /** The embedding of a note that was [read]. */
    fun embedding(note: Note): FloatArray = checkNotNull(known[key(note.text)]) { "note ${note.id} was not read" }

    /** The notes nearest to a query, the nearest first. Reads notes that were not read. */
    suspend fun find(query: String, notes: List<Note>, most: Int = 10): List<Found> {
        if (query.isBlank() || notes.isEmpty()) return emptyList()
        read(notes)
        val wanted = model.embed(query)
        // the model's embeddings have length 1
        return notes.map { Found(it, dot(wanted, embedding(it))) }.sortedByDescending { it.similarity }.take(most)
    }

    private companion object {
        /** Few, so that cancelling does not take long; more at once are hardly faster. */
        const val AT_ONCE = 8

        fun key(text: String): String =
            MessageDigest.getInstance("SHA-256").digest(text.toByteArray()).joinToString("") { "%02x".format(it) }

        fun dot(a: FloatArray, b: FloatArray): Float {
            var sum = 0f
            for (i in a.indices) sum += a[i] * b[i]
            return sum
        }
    }
}
