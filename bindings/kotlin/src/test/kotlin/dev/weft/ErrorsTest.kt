package dev.weft

import dev.weft.internal.NativeLibrary
import dev.weft.internal.bindings.ErrorKind
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.reflect.KClass

/** Errors by type and message. */
class ErrorsTest {
    private val device = Device.cpu(1)
    private val square = Graph.parse("weft 1\ninput x: f32[3]\ny = mul(x, x)\noutput y = y\n")

    private fun session(): Session = runBlocking { device.compile(square).initZeros() }

    private fun <E : WeftException> fails(type: KClass<E>, message: String, call: () -> Unit): E {
        val thrown = assertThrows(WeftException::class.java) { call() }
        assertEquals(type, thrown::class, thrown.message)
        assertTrue(thrown.message.orEmpty().contains(message), "${thrown.message} does not contain: $message")
        @Suppress("UNCHECKED_CAST")
        return thrown as E
    }

    @Test
    fun `every kind of the native library has its class by name`() {
        val codes = (1..6).filter { it != 5 } + (100..104) + (200..201) + (300..307) + (400..403) + (500..502) + (600..606) + 900
        val names = codes.map { WeftException.of(it, "m")::class.simpleName!!.uppercase() }
        val kinds = ErrorKind.entries.map { it.name.replace("_", "") }
        assertEquals(kinds, names)
        assertEquals(codes, codes.map { WeftException.of(it, "m").code })
    }

    @Test
    fun `a graph that does not parse names line and column`() {
        val e = fails(WeftException.Parse::class, "line 2, column") { Graph.parse("weft 1\ninput x f32[3]\n") }
        assertEquals(103, e.code)
        assertTrue(e.wanted != null && e.came != null)
    }

    @Test
    fun `an operation says what it wanted, what came, and where`() {
        val inputs = "input a: f32[2, 3]\ninput b: f32[4, 5]\n"
        val text = "weft 1\n${inputs}c = matmul(a, b, transpose_a=false, transpose_b=false)\noutput c = c\n"
        val e = fails(WeftException.Op::class, "matmul") { runBlocking { device.compile(Graph.parse(text)) } }
        assertTrue(e.node!!.contains("matmul(a, b), line 4"), e.node)
        assertTrue(e.came!!.let { "[2, 3]" in it && "[4, 5]" in it }, e.came)
        assertTrue(e.wanted!!.isNotEmpty())
    }

    @Test
    fun `weights that lack one, files that are not there or not what they should be`() {
        val compiled = runBlocking { device.compile(Graph.parse(Samples.classifier)) }
        fails(WeftException.MissingWeight::class, "layers.0.weight") { compiled.init(Weights()) }
        val weights = Weights()
        weights["layers.0.weight"] = TensorBuffer.allocate(ElementType.F32, 3)
        fails(WeftException.WeightType::class, "layers.0.weight") { compiled.init(weights) }
        fails(WeftException.UnknownName::class, "layers.0.weight") { weights["nothing"] }
        fails(WeftException.Io::class, "no such folder") { Weights.load("no such folder") }
        fails(WeftException.Safetensors::class, "classifier.weft") {
            Weights.load(Samples.file("samples/graphs/classifier.weft").path)
        }
        fails(WeftException.Artifact::class, "classifier.weft") {
            CompiledGraph.load(device, Samples.file("samples/graphs/classifier.weft").path)
        }
        fails(WeftException.Io::class, "no such folder") { SentenceModel.openBlocking(device, "no such folder") }
        fails(WeftException.Device::class, "no such device") { Device.open("no such device") }
        fails(WeftException.Argument::class, "threads") { Device.cpu(-1) }
    }

    @Test
    fun `data of another name, type or size is refused`() {
        val session = session()
        fails(WeftException.InputNotSet::class, "\"x\"") { session.step() }
        fails(WeftException.NotRun::class, "run a step first") { session.readFloats("y") }
        fails(WeftException.UnknownName::class, "no input named \"z\"; there are: x") { session["z"] = FloatArray(3) }
        fails(WeftException.UnknownName::class, "no output named \"z\"; there are: y") { session.readFloats("z") }
        fails(WeftException.DType::class, "\"x\" holds") { session["x"] = IntArray(3) }
        fails(WeftException.DType::class, "\"x\" holds") { session["x"] = TensorBuffer.of(longArrayOf(1, 2, 3)) }
        val length = fails(WeftException.Length::class, "\"x\" is") { session["x"] = FloatArray(4) }
        assertEquals(301, length.code)
        fails(WeftException.Length::class, "\"x\" is") { session.borrow("x", TensorBuffer.of(FloatArray(2))) }
        session["x"] = FloatArray(3)
        session.step()
        fails(WeftException.Length::class, "y") { session.read("y", FloatArray(2)) }
        fails(WeftException.DType::class, "y") { session.read("y", LongArray(3)) }
        session.close()
    }

    @Test
    fun `buffers that native code cannot use are refused`() {
        val session = session()
        fails(WeftException.Argument::class, "direct") { session["x"] = ByteBuffer.allocate(12).order(ByteOrder.nativeOrder()) }
        fails(WeftException.Argument::class, "direct") { session["x"] = java.nio.FloatBuffer.wrap(FloatArray(3)) }
        val foreign = if (ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN) ByteOrder.BIG_ENDIAN else ByteOrder.LITTLE_ENDIAN
        fails(WeftException.Argument::class, "byte order") { session["x"] = ByteBuffer.allocateDirect(12).order(foreign) }
        fails(WeftException.Argument::class, "byte order") {
            session["x"] = ByteBuffer.allocateDirect(12).order(foreign).asFloatBuffer()
        }
        fails(WeftException.Length::class, "x") { session["x"] = ByteBuffer.allocateDirect(16).order(ByteOrder.nativeOrder()) }
        val odd = ByteBuffer.allocateDirect(16).order(ByteOrder.nativeOrder())
        odd.position(1).limit(13)
        fails(WeftException.Argument::class, "alignment") { session.borrow("x", TensorBuffer.wrap(odd, ElementType.F32, 3)) }
        session["x"] = FloatArray(3)
        session.step()
        val readOnly = ByteBuffer.allocateDirect(12).asReadOnlyBuffer().order(ByteOrder.nativeOrder())
        fails(WeftException.Argument::class, "read-only") { session.read("y", readOnly) }
        fails(WeftException.Argument::class, "wanted 16 bytes, got 12") { TensorBuffer.wrap(odd, ElementType.F32, 4) }
        fails(WeftException.Argument::class, "shape") { TensorBuffer.allocate(ElementType.F32, 1L shl 40) }
        fails(WeftException.Argument::class, "shape") { TensorBuffer.allocate(ElementType.F32, -1) }
        session.close()
    }

    @Test
    fun `a refused step names the index, and changes nothing`() =
        blocking {
            val options = CompileOptions(training = true)
            val session = device.compile(Graph.parse(Samples.classifier), options).init(Weights.load(Samples.classifierWeights))
            session.setOptimizer(Optimizer.sgd(0.1f))
            session["pixels"] = FloatArray(256)
            session["labels"] = intArrayOf(1, 2, 10, 3)
            val before = session.readParameter("layers.1.bias")
            val e = fails(WeftException.IndexOutOfRange::class, "index 10 at position 2") { session.step() }
            assertEquals("check_labels", e.node)
            assertEquals(Samples.bits(before), Samples.bits(session.readParameter("layers.1.bias")))
            assertEquals(0L, session.optimizerSteps)
            session.close()
        }

    @Test
    fun `bad settings of an optimizer are refused`() {
        val session = runBlocking { device.compile(Graph.parse(Samples.classifier), CompileOptions(training = true)).initZeros() }
        fails(WeftException.UnknownName::class, "adam") { session.setOptimizer(Optimizer("nothing", 0.1f)) }
        fails(WeftException.Argument::class, "learning") { session.setOptimizer(Optimizer.adam(Float.NaN)) }
        session.close()
    }

    @Test
    fun `a library of another version is refused, and both are named`() {
        val e = assertThrows(WeftException.Library::class.java) { NativeLibrary.check("0.2.0", 7) }
        val wanted = "the Kotlin library is version 0.1.0 (interface 1), the native library is version 0.2.0 (interface 7)"
        assertTrue(e.message!!.contains(wanted), e.message)
        NativeLibrary.check(NativeLibrary.VERSION, NativeLibrary.INTERFACE)
    }
}
