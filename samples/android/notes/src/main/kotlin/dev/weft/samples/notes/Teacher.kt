package dev.weft.samples.notes

import dev.weft.CompileOptions
import dev.weft.Device
import dev.weft.Graph
import dev.weft.Optimizer
import dev.weft.Session
import dev.weft.TensorBuffer
import dev.weft.Weights
import java.io.File

/**
 * A guess at a note's label.
 *
 * @property label the label
 * @property probability what the classifier gives it, 0 to 1
 */
data class Guess(
    val label: String,
    val probability: Float,
)

/** There is too little to learn from. */
class TooFewLabelsException(
    labels: Int,
) : Exception("to learn, notes of at least 2 labels are needed, and there are $labels")

/**
 * Learns the user's labels: a linear classifier over the notes' embeddings (softmax regression), trained on the device with Adam, in which the
 * user's notes never leave it. It is small, so each step takes all labelled notes at once. For one coroutine at a time.
 *
 * @param components components of an embedding
 * @param folder what the app keeps: the classifier's weights, and its labels in their order
 */
class Teacher(
    private val device: Device,
    private val components: Int,
    private val folder: File,
) : AutoCloseable {
    private class Learnt(
        val labels: List<String>,
        val session: Session,
    )

    private var learnt: Learnt? = null

    /** The labels that it tells apart; none before it has learnt. */
    val labels: List<String> get() = learnt?.labels ?: emptyList()

    /** Takes up what an earlier process has learnt, if it did. */
    suspend fun restore() {
        val names = current() ?: return
        val labels = File(folder, "$names.labels").readLines()
        Weights.load(File(folder, "$names.safetensors").path).use { weights -> use(labels, weights) }
    }

    /**
     * Learns the labels of notes. Cancelling ends it within a step, and leaves what was learnt before.
     *
     * @param examples embeddings with the labels of their notes
     * @param steps steps of training
     * @param onStep which step of how many, and the mean loss in it
     * @throws TooFewLabelsException
     */
    suspend fun learn(
        examples: List<Pair<FloatArray, String>>,
        steps: Int = 200,
        onStep: (Int, Int, Float) -> Unit = { _, _, _ -> },
    ) {
        val labels = examples.map { it.second }.distinct().sorted()
        if (labels.size < 2) throw TooFewLabelsException(labels.size)
        val rows = (examples.size + ROWS - 1) / ROWS * ROWS
        val inputs = FloatArray(rows * components)
        val answers = IntArray(rows) { NO_ANSWER }
        examples.forEachIndexed { row, (embedding, label) ->
            embedding.copyInto(inputs, row * components)
            answers[row] = labels.indexOf(label)
        }
        val batch =
            mapOf(
                "embeddings" to TensorBuffer.of(inputs, rows.toLong(), components.toLong()),
                "labels" to TensorBuffer.of(answers),
            )
        val weights =
            compiled(rows, labels.size, training = true).use { it.initZeros() }.use { session ->
                session.setOptimizer(Optimizer.adam(LEARNING_RATE))
                session.train(batch, steps) { onStep(it.done.toInt(), it.all.toInt(), it.loss) }
                session.parameters().use { it.weights() }
            }
        weights.use {
            save(labels, it)
            use(labels, it)
        }
    }

    /** The labels of a note, the likeliest first; none before it has learnt. */
    fun guess(embedding: FloatArray): List<Guess> {
        val (labels, session) = learnt?.let { it.labels to it.session } ?: return emptyList()
        session["embeddings"] = embedding
        session.step()
        val probabilities = session.readFloats("probabilities")
        return labels.zip(probabilities.asList()) { label, p -> Guess(label, p) }.sortedByDescending { it.probability }
    }

    private suspend fun use(labels: List<String>, weights: Weights) {
        val session = compiled(1, labels.size, training = false).use { it.init(weights) }
        learnt?.session?.close()
        learnt = Learnt(labels, session)
    }

    private suspend fun compiled(rows: Int, labels: Int, training: Boolean) =
        Graph.parse(if (training) trained(rows, labels) else graph(rows, labels)).use { device.compile(it, CompileOptions(training = training)) }

    private fun graph(rows: Int, labels: Int) =
        """
        weft 1
        input embeddings: f32[$rows, $components]
        param weight: f32[$labels, $components]
        param bias: f32[$labels]

        logits = linear(embeddings, weight, bias)
        probabilities = softmax(logits, axis=-1)
        output probabilities = probabilities
        """.trimIndent() + "\n"

    /** The same with the loss; rows without an answer count nothing. */
    private fun trained(rows: Int, labels: Int) =
        graph(rows, labels).replace("param weight", "input labels: i32[$rows]\nparam weight") +
            "mean = cross_entropy(logits, labels, ignore_index=$NO_ANSWER, label_smoothing=0.0)\nloss mean\n"

    /** Weights and labels belong together: both have a new name, and one file says which name holds. */
    private fun save(labels: List<String>, weights: Weights) {
        folder.mkdirs()
        val before = current()
        val name = "classifier-${System.nanoTime()}"
        weights.save(File(folder, "$name.safetensors").path)
        replace(File(folder, "$name.labels")) { it.writeText(labels.joinToString("") { label -> "$label\n" }) }
        replace(File(folder, CURRENT)) { it.writeText(name) }
        if (before != null) listOf("safetensors", "labels").forEach { File(folder, "$before.$it").delete() }
    }

    private fun current(): String? = File(folder, CURRENT).takeIf { it.exists() }?.readText()

    override fun close() {
        learnt?.session?.close()
        learnt = null
    }

    private companion object {
        const val ROWS = 16
        const val NO_ANSWER = -100
        const val LEARNING_RATE = 0.05f
        const val CURRENT = "classifier"
    }
}
