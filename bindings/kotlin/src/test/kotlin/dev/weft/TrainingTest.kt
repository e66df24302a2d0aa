package dev.weft

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** The digits' classifier learns a hand that it does not know. */
class TrainingTest {
    private val device = Device.cpu(2)
    private val examples = Samples.mirrored.take(600)
    private val others = Samples.mirrored.drop(600).take(400)
    private val batches = mapOf("pixels" to Samples.pixels(examples), "labels" to Samples.labels(examples))

    private suspend fun learner(): Session {
        val options = CompileOptions(training = true)
        val compiled = device.compile(Graph.parse(Samples.classifier(20)), options)
        return compiled.init(Weights.load(Samples.classifierWeights)).also { it.setOptimizer(Optimizer.adam(1e-3f)) }
    }

    private suspend fun accuracy(parameters: Parameters): Double {
        val session = device.compile(Graph.parse(Samples.classifier(others.size))).init(parameters)
        session["pixels"] = Samples.pixels(others)
        session["labels"] = Samples.labels(others)
        session.run()
        val all = session.readFloats("probabilities")
        val right = others.withIndex().count { (at, digit) -> (0..9).maxBy { all[at * 10 + it] } == digit.digit }
        session.close()
        return right.toDouble() / others.size
    }

    @Test
    fun `fine-tuning on a new hand tells each step and makes its digits readable`(
        @TempDir folder: File,
    ) = blocking {
        val session = learner()
        val before = accuracy(session.parameters())
        val steps = session.train(batches, epochs = 20).toList()
        assertEquals((1L..600L).toList(), steps.map { it.done })
        assertTrue(steps.all { it.all == 600L })
        assertEquals(600L, session.optimizerSteps)
        val first = steps.take(30).map { it.loss }.average()
        val last = steps.takeLast(30).map { it.loss }.average()
        assertTrue(last < first / 3, "loss $first, then $last")
        val after = accuracy(session.parameters())
        assertTrue(before < 0.6 && after > 0.85, "accuracy $before, then $after")

        // what was learnt is saved, and is there again
        val path = folder.resolve("learnt.safetensors").path
        session.parameters().weights().save(path)
        val again = device.compile(Graph.parse(Samples.classifier(20))).init(Weights.load(path))
        assertEquals(after, accuracy(again.parameters()))
        session.close()
    }

    @Test
    fun `a training cancelled in the midst is what so many steps made of it, and goes on`() =
        blocking {
            // more than once: the collector's thread and the training one race
            repeat(20) {
                val raced = learner()
                assertEquals(7, raced.train(batches).take(7).toList().size)
                assertTrue(raced.optimizerSteps in 7..8, "${raced.optimizerSteps} steps, 7 of them seen")
                raced.close()
            }
            val session = learner()
            session.train(batches).take(7).toList()
            val made = session.optimizerSteps
            assertEquals(bitsAfter(made), bits(session))

            // the same through the coroutine, told by a function
            var done = 0L
            val job =
                launch(Dispatchers.Default) {
                    session.train(batches, 1000) {
                        done = it.done
                        if (it.done == 5L) coroutineContext[kotlinx.coroutines.Job]!!.cancel()
                    }
                }
            job.join()
            assertTrue(job.isCancelled)
            assertEquals(5L, done)
            assertEquals(made + 5, session.optimizerSteps)
            val further = session.train(batches).toList()
            assertEquals(30, further.size)
            session.close()
        }

    /** The parameters of another session after so many steps of the same batches, one by one. */
    private suspend fun bitsAfter(steps: Long): Map<String, List<Int>> {
        val session = learner()
        for (at in 0 until steps.toInt()) {
            val batch = examples.subList(at * 20, at * 20 + 20)
            session["pixels"] = Samples.pixels(batch)
            session["labels"] = Samples.labels(batch)
            session.run()
        }
        return bits(session).also { session.close() }
    }

    private fun bits(session: Session): Map<String, List<Int>> =
        session.tensors.parameters.associate { it.name to Samples.bits(session.readParameter(it.name)) }

    @Test
    fun `an optimizer saved and restored goes on with the same bits`() =
        blocking {
            val one = learner()
            one.train(batches).take(3).toList()
            val other = learner()
            for (info in one.tensors.parameters) other.setParameter(info.name, one.readParameter(info.name))
            other.restoreOptimizer(one.saveOptimizer())
            one.train(batches).toList()
            other.train(batches).toList()
            assertEquals(bits(one), bits(other))
            listOf(one, other).forEach { it.close() }
        }

    @Test
    fun `what a listener throws ends the training and comes out`() =
        blocking {
            val session = learner()
            val thrown =
                runCatching { session.train(batches, 5) { if (it.done == 3L) error("enough") } }.exceptionOrNull()
            assertEquals("enough", thrown?.message)
            assertEquals(3L, session.optimizerSteps)
            session.close()
        }
}
