package dev.weft.samples.notes

import dev.weft.Device
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.launch
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import kotlin.math.exp
import kotlin.math.ln
import kotlin.math.pow
import kotlin.math.sqrt
import kotlin.random.Random

class TeacherTest {
    @TempDir
    lateinit var folder: File

    private val device = Device.cpu(2)

    /** Points around a centre a label. */
    private fun points(count: Int, components: Int, seed: Int): List<Pair<FloatArray, String>> {
        val random = Random(seed)
        return List(count) { at ->
            val label = at % 3
            FloatArray(components) { (random.nextDouble(-1.0, 1.0) + if (it % 3 == label) 0.6 else 0.0).toFloat() } to "label $label"
        }
    }

    /** Softmax regression by Adam (Kingma and Ba, 2015, algorithm 1) in f64, from zeros: losses, and the probabilities of each example. */
    private fun oracle(examples: List<Pair<FloatArray, String>>, steps: Int): Pair<List<Double>, List<DoubleArray>> {
        val labels = examples.map { it.second }.distinct().sorted()
        val n = examples[0].first.size
        val size = labels.size * (n + 1) // the bias is the last column
        val (w, m, v) = List(3) { DoubleArray(size) }
        fun probabilities(x: FloatArray): DoubleArray {
            val logits = DoubleArray(labels.size) { c -> (0 until n).sumOf { w[c * (n + 1) + it] * x[it] } + w[c * (n + 1) + n] }
            val most = logits.max()
            val all = logits.map { exp(it - most) }
            return DoubleArray(labels.size) { all[it] / all.sum() }
        }
        val losses =
            (1..steps).map { step ->
                val gradient = DoubleArray(size)
                var loss = 0.0
                for ((x, label) in examples) {
                    val right = labels.indexOf(label)
                    val p = probabilities(x)
                    loss -= ln(p[right]) / examples.size
                    for (c in labels.indices) {
                        val error = (p[c] - if (c == right) 1.0 else 0.0) / examples.size
                        for (i in 0 until n) gradient[c * (n + 1) + i] += error * x[i]
                        gradient[c * (n + 1) + n] += error
                    }
                }
                for (i in 0 until size) {
                    m[i] = 0.9 * m[i] + 0.1 * gradient[i]
                    v[i] = 0.999 * v[i] + 0.001 * gradient[i] * gradient[i]
                    w[i] -= 0.05 * (m[i] / (1 - 0.9.pow(step))) / (sqrt(v[i] / (1 - 0.999.pow(step))) + 1e-8)
                }
                loss
            }
        return losses to examples.map { probabilities(it.first) }
    }

    @Test
    fun `it learns what softmax regression by Adam in f64 learns`() =
        blocking {
            // neither a multiple of the rows that a step has, nor one such
            for (count in listOf(7, 16, 37)) {
                val examples = points(count, 12, count)
                val (losses, right) = oracle(examples, 40)
                Teacher(device, 12, folder.resolve("$count")).use { teacher ->
                    val told = mutableListOf<Float>()
                    teacher.learn(examples, 40) { done, all, loss ->
                        assertEquals(told.size + 1 to 40, done to all)
                        told += loss
                    }
                    losses.zip(told).forEachIndexed { at, (wanted, found) -> assertEquals(wanted, found.toDouble(), 1e-4, "step $at of $count") }
                    for ((at, example) in examples.withIndex()) {
                        val guesses = teacher.guess(example.first)
                        assertEquals(teacher.labels.toSet(), guesses.map { it.label }.toSet())
                        assertTrue(guesses.zipWithNext().all { (a, b) -> a.probability >= b.probability })
                        for (guess in guesses) {
                            assertEquals(right[at][teacher.labels.indexOf(guess.label)], guess.probability.toDouble(), 1e-3)
                        }
                    }
                }
            }
        }

    @Test
    fun `topics of notes are told apart after five notes of each`() =
        blocking {
            Texts.opened { device, model ->
                val embedded = Texts.topics.mapValues { (_, texts) -> model.embed(texts) }
                var right = 0
                // each note is one of those not seen twice: 42 guesses
                for (first in 0..6) {
                    val unseen = setOf(first, (first + 1) % 7)
                    val examples = embedded.flatMap { (label, all) -> all.filterIndexed { at, _ -> at !in unseen }.map { it to label } }
                    Teacher(device, model.components, folder).use { teacher ->
                        teacher.learn(examples)
                        for ((label, all) in embedded) right += unseen.count { teacher.guess(all[it]).first().label == label }
                    }
                }
                // by chance 14
                assertTrue(right >= 34, "$right of 42")
            }
        }

    @Test
    fun `what was learnt is there in the next process, and learning again takes its place`() =
        blocking {
            val examples = points(12, 5, 1)
            val first = Teacher(device, 5, folder)
            first.restore()
            assertTrue(first.labels.isEmpty() && first.guess(examples[0].first).isEmpty())
            first.learn(examples)
            val again = Teacher(device, 5, folder)
            again.restore()
            for ((x, _) in examples) assertEquals(first.guess(x), again.guess(x))
            again.learn(examples.map { it.first to it.second.replace("label", "topic") } + (FloatArray(5) { -1f } to "another"))
            val third = Teacher(device, 5, folder)
            third.restore()
            assertEquals(listOf("another", "topic 0", "topic 1", "topic 2"), third.labels)
            assertEquals(again.guess(examples[0].first), third.guess(examples[0].first))
            assertEquals(3, folder.list()!!.size, "of what was learnt before, nothing is left")
            listOf(first, again, third).forEach { it.close() }
        }

    @Test
    fun `learning that is cancelled ends within a step and leaves what was learnt`() =
        blocking {
            val examples = points(30, 8, 2)
            val teacher = Teacher(device, 8, folder)
            teacher.learn(examples)
            val before = teacher.guess(examples[0].first)
            val files = folder.list()!!.toSet()
            var steps = 0
            val job =
                launch(Dispatchers.Default) {
                    teacher.learn(examples.map { it.first to "${it.second}!" }, 100_000) { done, _, _ ->
                        steps = done
                        if (done == 20) coroutineContext[kotlinx.coroutines.Job]!!.cancel(CancellationException("enough"))
                    }
                }
            job.join()
            assertTrue(job.isCancelled)
            assertEquals(20, steps)
            assertEquals(before, teacher.guess(examples[0].first))
            assertEquals(files, folder.list()!!.toSet())
            teacher.close()
        }

    @Test
    fun `one label is nothing to learn`() =
        blocking {
            Teacher(device, 2, folder).use { teacher ->
                for (few in listOf(emptyList(), listOf(floatArrayOf(1f, 2f) to "a"))) {
                    val e = runCatching { teacher.learn(few) }.exceptionOrNull()
                    assertTrue(e is TooFewLabelsException && "${few.size}" in e.message!!, "$e")
                }
            }
        }
}
