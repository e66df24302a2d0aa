package dev.weft

import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder

/** A graph by hand, from text to outputs. */
class RunTest {
    private val inputs = Weights.load(Samples.file("samples/graphs/digits.safetensors").path)
    private val wanted = Weights.load(System.getProperty("weft.run.outputs"))["probabilities"].toFloatArray()

    @Test
    fun `every way in and out gives the bits of weft run`() =
        blocking {
            Device.cpu(2).use { device ->
                Graph.parse(Samples.classifier).use { graph ->
                    device.compile(graph).use { compiled ->
                        Weights.load(Samples.classifierWeights).use { weights ->
                            compiled.init(weights).use { everyWay(it) }
                        }
                    }
                }
            }
        }

    private fun everyWay(session: Session) {
        val pixels = inputs["pixels"]
        val labels = inputs["labels"]
        val direct = ByteBuffer.allocateDirect(4 + pixels.bytes).order(ByteOrder.nativeOrder())
        direct.position(4)
        direct.slice().order(ByteOrder.nativeOrder()).put(pixels.buffer())
        val ways: List<Pair<String, () -> Unit>> =
            listOf(
                "a tensor" to { session["pixels"] = pixels },
                "an array" to { session["pixels"] = pixels.toFloatArray() },
                "a float buffer" to { session["pixels"] = pixels.floats() },
                "a part of a byte buffer" to { session["pixels"] = direct },
                "a borrowed tensor" to { session.borrow("pixels", pixels) },
            )
        session["labels"] = labels.toIntArray()
        val garbage = FloatArray(4 * 64) { 0.5f }
        for ((way, give) in ways) {
            session["pixels"] = garbage
            session.step()
            assertFalse(session.readFloats("probabilities").contentEquals(wanted), way)
            give()
            session.step()
            assertEquals(Samples.bits(wanted), Samples.bits(session.readFloats("probabilities")), way)
        }
        val tensor = TensorBuffer.allocate(ElementType.F32, 4, 10)
        session.read("probabilities", tensor)
        assertArrayEquals(wanted, tensor.toFloatArray())
        val floats = TensorBuffer.allocate(ElementType.F32, 40).floats()
        session.read("probabilities", floats)
        assertArrayEquals(wanted, FloatArray(40).also { floats.get(it) })
        val bytes = ByteBuffer.allocateDirect(168).order(ByteOrder.nativeOrder())
        bytes.position(8)
        session.read("probabilities", bytes)
        assertArrayEquals(wanted, FloatArray(40).also { bytes.slice().order(ByteOrder.nativeOrder()).asFloatBuffer().get(it) })
        val seen = session.useOutput("probabilities") { seen -> FloatArray(40).also { seen.asFloatBuffer().get(it) } }
        assertArrayEquals(wanted, seen)
    }

    @Test
    fun `a borrowed tensor is read at each step where it lies`() =
        blocking {
            val graph = Graph.parse("weft 1\ninput x: f32[3]\ny = mul(x, x)\noutput y = y\n")
            val session = Device.cpu(1).compile(graph).initZeros()
            val x = TensorBuffer.of(floatArrayOf(1f, 2f, 3f))
            session.borrow("x", x)
            session.run()
            assertArrayEquals(floatArrayOf(1f, 4f, 9f), session.readFloats("y"))
            x.floats().put(1, -5f)
            session.run()
            assertArrayEquals(floatArrayOf(1f, 25f, 9f), session.readFloats("y"))
            // in a tensor of its own now
            session["x"] = floatArrayOf(1f, 1f, 2f)
            x.floats().put(0, 100f)
            session.run()
            assertArrayEquals(floatArrayOf(1f, 1f, 4f), session.readFloats("y"))
            session.close()
        }

    @Test
    fun `integers of 32 and 64 bits cross as they are`() =
        blocking {
            val inputs = "input a: i32[3]\ninput b: i64[3]\n"
            val text = "weft 1\n${inputs}c = add(a, a)\nd = concat(b, b, axis=0)\noutput c = c\noutput d = d\n"
            val session = Device.cpu(1).compile(Graph.parse(text)).initZeros()
            val large = (1L shl 53) + 1
            session["a"] = intArrayOf(-3, 0, 1 shl 29)
            session["b"] = longArrayOf(-3, large, Long.MIN_VALUE)
            session.run()
            assertArrayEquals(intArrayOf(-6, 0, 1 shl 30), IntArray(3).also { session.read("c", it) })
            val wanted = longArrayOf(-3, large, Long.MIN_VALUE, -3, large, Long.MIN_VALUE)
            assertArrayEquals(wanted, LongArray(6).also { session.read("d", it) })
            session.close()
        }

    @Test
    fun `an artifact runs without compiling and gives the same bits`(
        @TempDir folder: File,
    ) = blocking {
        val device = Device.cpu(2)
        val compiled = device.compile(Graph.parse(Samples.classifier))
        Artifact().use { artifact ->
            artifact.add("classify", compiled)
            artifact.save(folder.resolve("model.weftc").path)
        }
        val artifact = Artifact.load(device, folder.resolve("model.weftc").path)
        assertEquals(listOf("classify"), artifact.names)
        val session = artifact["classify"].init(Weights.load(Samples.classifierWeights))
        session["pixels"] = inputs["pixels"]
        session["labels"] = inputs["labels"]
        session.run()
        assertEquals(Samples.bits(wanted), Samples.bits(session.readFloats("probabilities")))
        listOf(session, artifact, compiled, device).forEach { it.close() }
    }

    @Test
    fun `what was compiled comes out of the cache folder`(
        @TempDir folder: File,
    ) = blocking {
        val device = Device.cpu(2)
        val options = CompileOptions(cacheFolder = folder.path)
        val graph = Graph.parse(Samples.classifier)
        assertFalse(device.compile(graph, options).use { it.wasCached })
        assertTrue(device.compile(graph, options).use { it.wasCached })
        graph.close()
    }

    @Test
    fun `weights by hand are those that are read`(
        @TempDir folder: File,
    ) {
        val path = folder.resolve("w.safetensors").path
        Weights().use { weights ->
            weights["a"] = TensorBuffer.of(floatArrayOf(1f, Float.NaN, -0f, 3e-40f), 2, 2)
            weights["b"] = TensorBuffer.of(longArrayOf(Long.MAX_VALUE))
            weights.save(path)
        }
        Weights.load(path).use { weights ->
            assertEquals(listOf("a: f32[2, 2]", "b: i64[1]"), weights.tensors.map { it.toString() })
            val wanted = listOf(1f, Float.NaN, -0f, 3e-40f).map { it.toRawBits() }
            assertEquals(wanted, Samples.bits(weights["a"].toFloatArray()))
            assertArrayEquals(longArrayOf(Long.MAX_VALUE), weights["b"].toLongArray())
        }
    }

    @Test
    fun `devices say what they are`() {
        val all = Weft.devices()
        assertEquals(DeviceKind.CPU, all.first().kind)
        Device.cpu(2).use { device ->
            assertEquals("cpu", device.info.name)
            assertEquals(2, device.info.threads)
            device.suspend()
            assertFalse(device.isSuspended)
            device.trim()
        }
    }
}
