package dev.weft

import com.sun.jna.Function
import com.sun.jna.Memory
import com.sun.jna.Native
import com.sun.jna.Pointer
import com.sun.jna.ptr.PointerByReference
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.Test
import com.sun.jna.NativeLibrary as Library

/** What Kotlin computes is what C computes, by the functions of `weft.h` in the same library, bit for bit. */
@Tag("tools")
class CTest {
    private val library = Library.getInstance(System.getProperty("weft.library"))

    /** WEFT_NUL_TERMINATED */
    private val untilNul = -1L

    /** Calls a function that returns a status, and takes an error as its last argument. */
    private fun call(name: String, vararg arguments: Any?) {
        val error = PointerByReference()
        val status = function(name).invokeInt(arrayOf(*arguments, error))
        check(status == 0) { "$name: status $status" }
    }

    private fun function(name: String): Function = library.getFunction(name)

    /** Calls a function that makes an object. */
    private fun made(name: String, vararg arguments: Any?): Pointer {
        val out = PointerByReference()
        call(name, *arguments, out)
        return out.value
    }

    private fun free(kind: String, of: Pointer): Unit = assertEquals(0, function("weft_${kind}_free").invokeInt(arrayOf(of)))

    /** WEFT_COMPILE_OPTIONS_INIT, with training. */
    private fun training(): Memory {
        val size = 24L + 8 * Native.POINTER_SIZE
        val options = Memory(size)
        options.clear()
        options.setLong(0, size)
        options.setInt(8, 1)
        options.setLong(24L + Native.POINTER_SIZE, untilNul)
        options.setLong(size - Native.POINTER_SIZE, untilNul)
        return options
    }

    private class Run(
        val device: Pointer,
        val session: Pointer,
    )

    /** A session of the classifier over `count` digits. */
    private fun session(count: Int, options: Memory?): Run {
        val device = made("weft_device_open", "cpu", untilNul, 2)
        val graph = made("weft_graph_parse", Samples.classifier(count), untilNul)
        val compiled = made("weft_compile", device, graph, options)
        val weights = made("weft_weights_load", Samples.classifierWeights, untilNul)
        val session = made("weft_compiled_init", compiled, weights)
        free("weights", weights)
        free("compiled", compiled)
        free("graph", graph)
        return Run(device, session)
    }

    private fun end(run: Run) {
        free("session", run.session)
        free("device", run.device)
    }

    private fun give(run: Run, name: String, type: ElementType, tensor: TensorBuffer): Unit =
        call(
            "weft_session_set_input",
            run.session,
            name,
            untilNul,
            type.ordinal,
            Native.getDirectBufferPointer(tensor.buffer()),
            tensor.bytes.toLong(),
        )

    private fun step(run: Run): Unit = call("weft_session_step", run.session)

    private fun parameter(run: Run, info: TensorInfo): List<Int> {
        val memory = Memory(info.elements * 4)
        call("weft_session_read_parameter", run.session, info.name, untilNul, memory, info.elements)
        return Samples.bits(memory.getFloatArray(0, info.elements.toInt()))
    }

    @Test
    fun `the classifier's answers for a hundred digits`() =
        blocking {
            val digits = Samples.mirrored.take(100)
            val pixels = Samples.pixels(digits)
            val labels = Samples.labels(digits)
            val c = session(100, null)
            give(c, "pixels", ElementType.F32, pixels)
            give(c, "labels", ElementType.I32, labels)
            step(c)
            val memory = Memory(4000)
            call("weft_session_read_output", c.session, "probabilities", untilNul, ElementType.F32.ordinal, memory, 4000L)
            val wanted = memory.getFloatArray(0, 1000)
            end(c)
            // of each digit, they are probabilities
            assertTrue(wanted.toList().chunked(10).all { row -> kotlin.math.abs(row.sum() - 1) < 1e-5 && row.all { it >= 0 } })

            val session =
                Device.cpu(
                    2,
                ).compile(Graph.parse(Samples.classifier(100))).init(Weights.load(Samples.classifierWeights))
            session["pixels"] = pixels
            session["labels"] = labels
            session.run()
            assertEquals(Samples.bits(wanted), Samples.bits(session.readFloats("probabilities")))
            session.close()
        }

    @Test
    fun `the classifier's weights after thirty steps of Adam`() =
        blocking {
            val batches = Samples.mirrored.take(600).chunked(20)
            val c = session(20, training())
            call("weft_session_set_optimizer_named", c.session, "adam", untilNul, 1e-3f, null, 0L, null, 0L)
            for (batch in batches) {
                give(c, "pixels", ElementType.F32, Samples.pixels(batch))
                give(c, "labels", ElementType.I32, Samples.labels(batch))
                step(c)
            }
            val options = CompileOptions(training = true)
            val compiled = Device.cpu(2).compile(Graph.parse(Samples.classifier(20)), options)
            val session = compiled.init(Weights.load(Samples.classifierWeights))
            val before = session.tensors.parameters.associate { it.name to Samples.bits(session.readParameter(it.name)) }
            session.setOptimizer(Optimizer.adam(1e-3f))
            val digits = batches.flatten()
            session.train(mapOf("pixels" to Samples.pixels(digits), "labels" to Samples.labels(digits)), 1) {}
            for (info in session.tensors.parameters) {
                val wanted = parameter(c, info)
                assertFalse(wanted == before.getValue(info.name), info.name)
                assertEquals(wanted, Samples.bits(session.readParameter(info.name)), info.name)
            }
            end(c)
            session.close()
        }
}
