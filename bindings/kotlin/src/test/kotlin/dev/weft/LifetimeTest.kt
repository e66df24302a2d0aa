package dev.weft

import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.async
import kotlinx.coroutines.awaitAll
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.Test
import java.io.File
import java.util.concurrent.CopyOnWriteArrayList
import kotlin.time.measureTime

/** Objects are closed, used by several, cancelled. */
class LifetimeTest {
    private val square = "weft 1\ninput x: f32[3]\ny = mul(x, x)\noutput y = y\n"

    @Test
    fun `use after close is an error, and closing twice is none`() {
        val device = Device.cpu(1)
        val graph = Graph.parse(square)
        val compiled = runBlocking { device.compile(graph) }
        val session = compiled.initZeros()
        val parameters = session.parameters()
        val weights = parameters.weights()
        val artifact = Artifact()
        val model = SentenceModel.openBlocking(device, Samples.miniLm)
        // what a session needs outlives what it was made of
        listOf(model, artifact, weights, parameters, compiled, graph, device).forEach { it.close() }
        session["x"] = floatArrayOf(1f, 2f, 3f)
        session.step()
        assertArrayEquals(floatArrayOf(1f, 4f, 9f), session.readFloats("y"))
        session.close()
        val calls: List<Pair<String, () -> Unit>> =
            listOf(
                "device" to { device.trim() },
                "device, compiling" to { runBlocking { device.compile(Graph.parse(square)) } },
                "graph" to { graph.text() },
                "graph, compiled" to { runBlocking { Device.cpu(1).compile(graph) } },
                "compiled" to { compiled.initZeros() },
                "parameters" to { parameters.weights() },
                "weights" to { weights.save("nowhere") },
                "weights, inserting" to { weights["a"] = TensorBuffer.of(FloatArray(1)) },
                "artifact" to { artifact.names },
                "model" to { model.embedBlocking(listOf("a")) },
                "session, step" to { session.step() },
                "session, input" to { session["x"] = FloatArray(3) },
                "session, input of a tensor" to { session["x"] = TensorBuffer.of(FloatArray(3)) },
                "session, output" to { session.readFloats("y") },
                "session, lending" to { session.useOutput("y") {} },
                "session, loss" to { session.loss },
                "session, parameters" to { session.parameters() },
                "session, training" to { runBlocking { session.train(mapOf("x" to TensorBuffer.of(FloatArray(3)))).toList() } },
            )
        for ((name, call) in calls) {
            val thrown = assertThrows(WeftException::class.java, { call() }, name)
            assertEquals(WeftException.Closed::class, thrown::class, "$name: ${thrown.message}")
        }
        listOf(session, model, artifact, weights, parameters, compiled, graph, device).forEach { it.close() }
    }

    @Test
    fun `while an output is lent, other calls are refused, from any thread`() =
        blocking {
            val session = Device.cpu(1).compile(Graph.parse(square)).initZeros()
            session["x"] = floatArrayOf(1f, 2f, 3f)
            session.step()
            session.useOutput("y") { seen ->
                assertEquals(4f, seen.getFloat(4))
                assertTrue(seen.isReadOnly)
                assertThrows(WeftException.Busy::class.java) { session.step() }
                assertThrows(WeftException.Busy::class.java) { session.close() }
                runBlocking(Dispatchers.Default) { assertThrows(WeftException.Busy::class.java) { session.loss } }
                assertEquals(4f, seen.getFloat(4))
            }
            // also when the block throws
            assertThrows(IllegalStateException::class.java) { session.useOutput("y") { error("mine") } }
            session.step()
            session.close()
        }

    @Test
    @Tag("many-calls")
    fun `a thousand cycles of open and close take no memory`() =
        blocking {
            val graph = Graph.parse(Samples.classifier)
            val compiled = Device.cpu(1).compile(graph)
            val pixels = TensorBuffer.allocate(ElementType.F32, 4, 64)

            suspend fun cycle() {
                Device.cpu(1).use { device ->
                    Graph.parse(square).use { graph -> device.compile(graph).use { it.initZeros().close() } }
                }
                Weights.load(Samples.classifierWeights).use { weights ->
                    compiled.init(weights).use { session ->
                        session.borrow("pixels", pixels)
                        session["labels"] = IntArray(4)
                        session.step()
                        session.useOutput("probabilities") { assertEquals(160, it.remaining()) }
                        session.parameters().close()
                    }
                }
                assertThrows(WeftException.Parse::class.java) { Graph.parse("weft 1\nnot a graph") }
            }
            repeat(300) { cycle() }
            val before = resident()
            repeat(1000) { cycle() }
            val after = resident()
            println("1,000 cycles: ${(after - before) shr 10} kB more of ${after shr 20} MB")
            // a session of the classifier has 100 kB: a fifth of a thousand that are kept would be seen
            assertTrue(after - before < 20 shl 20, "$before bytes, then $after")
        }

    /** Bytes of this process in memory, after a collection. */
    private fun resident(): Long {
        System.gc()
        Thread.sleep(200)
        val line = File("/proc/self/status").takeIf { it.exists() }?.readLines()?.first { it.startsWith("VmRSS") }
        return line?.filter(Char::isDigit)?.toLong()?.times(1024) ?: 0
    }

    @Test
    fun `eight tasks run sessions over the same weights at once`() =
        blocking {
            val device = Device.cpu(2)
            val compiled = device.compile(Graph.parse(Samples.classifier))
            val first = compiled.init(Weights.load(Samples.classifierWeights))
            val shared = first.parameters()
            val digits = Samples.mirrored

            fun answers(session: Session, task: Int): List<List<Int>> =
                (0 until 50).map { step ->
                    val four = digits.subList(task * 200 + step * 4, task * 200 + step * 4 + 4)
                    session["pixels"] = Samples.pixels(four)
                    session["labels"] = IntArray(4)
                    session.step()
                    Samples.bits(session.readFloats("probabilities"))
                }
            val wanted = (0 until 8).map { answers(first, it) }
            val atOnce =
                (0 until 8).map { task ->
                    async(Dispatchers.Default) { compiled.init(shared).use { answers(it, task) } }
                }
            assertEquals(wanted, atOnce.awaitAll())
            // and eight over one session are refused or right, never mixed up
            val outcomes =
                (0 until 8).map { task ->
                    async(Dispatchers.Default) { runCatching { repeat(200) { first.step() } }.exceptionOrNull() }
                }
            assertTrue(outcomes.awaitAll().all { it == null || it is WeftException.Busy })
            listOf(first, shared, compiled, device).forEach { it.close() }
        }

    /** A graph of many different layers, which takes a while to compile. */
    private fun deep(layers: Int): String =
        buildString {
            append("weft 1\ninput x0: f32[8, 64]\n")
            for (i in 0 until layers) {
                append("param w$i: f32[${65 + i}, ${64 + i}]\n")
                append("l$i = linear(x$i, w$i)\nx${i + 1} = tanh(l$i)\n")
            }
            append("output y = x$layers\n")
        }

    @Test
    fun `compiling is cancelled with its coroutine, and compiles afterwards`() =
        blocking {
            val device = Device.cpu(2)
            val graph = Graph.parse(deep(2000))
            val whole = measureTime { device.compile(graph).close() }
            // three times, since the machine may be busy: three quarters of the work were left, and most of that is not done
            val ending =
                List(3) {
                    val work = async(Dispatchers.Default) { device.compile(graph) }
                    delay(whole / 4)
                    work.cancel()
                    var thrown: Throwable? = null
                    val ending = measureTime { thrown = runCatching { work.await() }.exceptionOrNull() }
                    assertTrue(thrown is CancellationException, "$thrown")
                    ending
                }
            println("a compilation of $whole, cancelled after a quarter, ended within $ending")
            assertTrue(ending.min() < whole / 2, "cancelled after a quarter of $whole, it ended within $ending")
            val seen = CopyOnWriteArrayList<String>()
            device.compile(graph) { seen += it.toString() }.close()
            assertTrue(seen.isNotEmpty() && seen.last().let { it == "1 of 1" }, "$seen")
            val events = device.compiling(graph).toList()
            assertTrue(events.dropLast(1).all { it is Compiling.Working } && events.size > 1)
            (events.last() as Compiling.Done).graph.close()
            val future = device.compileAsync(graph)
            future.get().close()
            listOf(graph, device).forEach { it.close() }
        }

    @Test
    fun `what a listener of progress throws comes out`() =
        blocking {
            Device.cpu(1).use { device ->
                Graph.parse(square).use { graph ->
                    val thrown = runCatching { device.compile(graph) { error("enough") } }.exceptionOrNull()
                    assertEquals("enough", thrown?.message)
                    device.compile(graph).close()
                }
            }
        }

    @Test
    fun `lines of the log come to the listener`() =
        blocking {
            val lines = CopyOnWriteArrayList<String>()
            Weft.log(LogLevel.DEBUG) { level, text -> lines += "$level $text" }
            Device.cpu(1).use { device -> Graph.parse(square).use { device.compile(it).close() } }
            Weft.stopLog()
            val heard = lines.size
            assertTrue(heard > 0)
            Device.cpu(1).use { device -> Graph.parse(square).use { device.compile(it).close() } }
            assertEquals(heard, lines.size)
        }
}
