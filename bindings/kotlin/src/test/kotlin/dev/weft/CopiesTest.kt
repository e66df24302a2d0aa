package dev.weft

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.Test
import kotlin.time.Duration
import kotlin.time.measureTime

/** That nothing is copied where the documentation says so. */
@Tag("many-calls")
class CopiesTest {
    private val elements = 4 shl 20

    @Test
    fun `borrowing 16 MB and looking at 16 MB take less than a hundredth of copying them`() =
        blocking {
            val text = "weft 1\ninput x: f32[$elements]\ny = neg(x)\noutput y = y\n"
            val session = Device.cpu(2).compile(Graph.parse(text)).initZeros()
            val x = TensorBuffer.allocate(ElementType.F32, elements.toLong())
            val y = TensorBuffer.allocate(ElementType.F32, elements.toLong())
            // each by itself: a step between them takes longer than both, and would have to be subtracted
            val setting = fastest { session["x"] = x }
            session.step()
            val copying = setting + fastest { session.read("y", y) }
            val lending =
                fastest {
                    session.borrow("x", x)
                    session.useOutput("y") { it.getFloat(4) }
                }
            println("16 MB in and out: copied $copying, lent $lending")
            assertTrue(lending * 100 < copying, "copied $copying, lent $lending")

            // what was measured works, at the last element, too
            x.floats().put(elements - 1, 3f)
            session.borrow("x", x)
            session.step()
            assertEquals(-3f, session.useOutput("y") { it.getFloat(4 * (elements - 1)) })
            session.close()
        }

    /** The fastest of some calls, after others that the JVM compiles. */
    private fun fastest(call: () -> Unit): Duration {
        repeat(10) { call() }
        return (1..30).minOf { measureTime(call) }
    }

    @Test
    fun `a call of the data plane takes less than half of what JNA takes, and 50 ns in a release build`() =
        blocking {
            val session = Device.cpu(1).compile(Graph.parse("weft 1\ninput x: f32[3]\ny = neg(x)\noutput y = y\n")).initZeros()
            val x = TensorBuffer.of(floatArrayOf(1f, 2f, 3f))
            val y = FloatArray(3)
            session["x"] = x
            session.step()
            val calls = 20_000
            val each =
                listOf<Pair<String, () -> Unit>>(
                    "await" to { session.await() },
                    "set, a tensor" to { session["x"] = x },
                    "set, an array" to { session["x"] = y },
                ).associate { (name, call) ->
                    repeat(calls) { call() }
                    name to (1..10).minOf { measureTime { repeat(calls) { call() } } } / calls
                }
            println("a call: $each")
            // half of JNA's 11 µs for debug builds, on busy machines, too; a release build is what apps get
            val most = if (System.getProperty("weft.release") == "true") 50 else 5_500
            assertTrue(each.getValue("await").inWholeNanoseconds < most, "$each")
            assertTrue(each.values.all { it.inWholeNanoseconds < maxOf(most, 500) }, "$each")
            session.close()
        }
}
