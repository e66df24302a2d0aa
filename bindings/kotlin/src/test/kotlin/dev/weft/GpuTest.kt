package dev.weft

import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test

/**
 * A GPU device (software Vulkan will do) computes what the CPU computes. On a machine without one these tests are skipped, and a line
 * says so, which `bindings/kotlin/test` prints.
 */
class GpuTest {
    private val digits = Samples.mirrored.take(100)

    private fun onGpu(test: suspend (Device) -> Unit): Unit =
        blocking {
            val gpus = Weft.devices().filter { it.kind != DeviceKind.CPU && it.refused == null }
            if (gpus.isEmpty()) println("GPU: none here, so GpuTest is skipped (Debian's mesa-vulkan-drivers has a software one)")
            assumeTrue(gpus.isNotEmpty(), "no GPU")
            println("GPU: ${gpus.first()}")
            Device.open(gpus.first().name).use { test(it) }
        }

    private suspend fun classifier(
        device: Device,
        options: CompileOptions = CompileOptions(),
        onProgress: (Progress) -> Unit = {
        },
    ) =
        Graph.parse(Samples.classifier(100)).use { graph ->
            device.compile(graph, options, onProgress).use { compiled ->
                Weights.load(Samples.classifierWeights).use { compiled.init(it) }
            }
        }

    private fun give(session: Session, some: List<Samples.Digit>) {
        session["pixels"] = Samples.pixels(some)
        session["labels"] = Samples.labels(some)
    }

    @Test
    fun `the classifier gives the CPU's answers, however its tensors come and go`() =
        onGpu { device ->
            assertTrue(device.info.kind != DeviceKind.CPU && device.info.threads == 0, device.toString())
            val wanted =
                Device.cpu(2).use { cpu ->
                    classifier(cpu).use { session ->
                        give(session, digits)
                        session.run()
                        session.readFloats("probabilities") to session.loss
                    }
                }

            fun near(found: FloatArray) = assertTrue(Samples.farthest(wanted.first, found) <= 1e-5f)
            val seen = mutableListOf<Progress>()
            val session = classifier(device) { synchronized(seen) { seen += it } }
            // a GPU compiles kernels, and tells each
            assertTrue(seen.size > 1 && seen.any { it.done == it.all }, "$seen")
            give(session, digits)
            session.run()
            near(session.readFloats("probabilities"))
            assertEquals(wanted.second, session.loss, 1e-5f)
            assertTrue(device.memoryUsed > 0)
            // it steps on while others are given; a step's own inputs are those that it had
            give(session, digits.reversed())
            session.step()
            give(session, digits)
            session.step()
            near(session.readFloats("probabilities"))
            val lent = TensorBuffer.of(FloatArray(6400), 100, 64)
            session.borrow("pixels", lent)
            session.run()
            assertTrue(Samples.farthest(wanted.first, session.readFloats("probabilities")) > 0.1f)
            lent.buffer().put(Samples.pixels(digits).buffer())
            session.run()
            near(session.useOutput("probabilities") { from -> FloatArray(1000).also { from.asFloatBuffer().get(it) } })
            val into = TensorBuffer.allocate(ElementType.F32, 100, 10)
            session.read("probabilities", into)
            near(into.toFloatArray())
            assertThrows(WeftException.Length::class.java) { session["pixels"] = FloatArray(3) }
            // sessions of the same weights at once
            val parameters = session.parameters()
            val compiled = device.compile(Graph.parse(Samples.classifier(100)))
            coroutineScope {
                val all =
                    List(4) {
                        async(Dispatchers.Default) {
                            compiled.init(parameters).use { other ->
                                give(other, digits)
                                other.run()
                                other.readFloats("probabilities")
                            }
                        }
                    }
                all.awaitAll().forEach(::near)
            }
            listOf(session, parameters, compiled).forEach { it.close() }
        }

    @Test
    fun `thirty steps of training make of the weights what the CPU makes of them, and cancelling ends within a step`() =
        onGpu { device ->
            suspend fun learner(
                on: Device,
            ) = classifier(on, CompileOptions(training = true)).also { it.setOptimizer(Optimizer.sgd(0.05f)) }
            val batches = mapOf("pixels" to Samples.pixels(digits), "labels" to Samples.labels(digits))
            Device.cpu(2).use { cpu ->
                val (wanted, found) = learner(cpu) to learner(device)
                val losses = listOf(wanted, found).map { session -> session.train(batches, 30).toList().map { it.loss } }
                assertTrue(losses[0].last() < losses[0].first() / 2, "${losses[0]}")
                for ((a, b) in losses[0].zip(losses[1])) assertEquals(a, b, 1e-4f)
                for (info in wanted.tensors.parameters) {
                    val far = Samples.farthest(wanted.readParameter(info.name), found.readParameter(info.name))
                    assertTrue(far <= 1e-4f, "${info.name}: $far")
                }
                assertEquals(5, found.train(batches, 1000).take(5).toList().size)
                assertTrue(found.optimizerSteps in 35..36, "${found.optimizerSteps} steps")
                found.train(batches, 2).toList()
                listOf(wanted, found).forEach { it.close() }
            }
        }

    @Test
    fun `while suspended it refuses work, changes nothing, and goes on when it is resumed`() =
        onGpu { device ->
            val session = classifier(device)
            give(session, digits)
            session.run()
            val before = Samples.bits(session.readFloats("probabilities"))
            device.suspend()
            assertTrue(device.isSuspended)
            val refused = assertThrows(WeftException.Suspended::class.java) { session.step() }
            assertEquals(605, refused.code)
            device.trim()
            device.resume()
            assertTrue(!device.isSuspended)
            session.run()
            assertEquals(before, Samples.bits(session.readFloats("probabilities")))
            session.close()
        }
}
