package dev.weft.shrunk

import dev.weft.CompileOptions
import dev.weft.Device
import dev.weft.ElementType
import dev.weft.Graph
import dev.weft.Optimizer
import dev.weft.TensorBuffer
import dev.weft.WeftException
import kotlinx.coroutines.runBlocking

/** An app in little: builds, compiles with progress, trains with reports, meets an error. `ShrunkTest` shrinks it. */
public fun main(): Unit =
    runBlocking {
        val graph =
            Graph.build {
                val x = input("x", ElementType.F32, 4, 2)
                val y = linear(x, parameter("w", 1, 2))
                output("y", y)
                setLoss(mseLoss(y, input("target", ElementType.F32, 4, 1)))
            }
        val device = Device.cpu(1)
        var parts = 0
        val session = device.compile(graph, CompileOptions(training = true)) { parts++ }.initZeros()
        session.setOptimizer(Optimizer.sgd(0.1f))
        val examples =
            mapOf(
                "x" to TensorBuffer.of(floatArrayOf(1f, 0f, 0f, 1f, 1f, 1f, 2f, 1f), 4, 2),
                "target" to TensorBuffer.of(floatArrayOf(2f, -1f, 1f, 3f), 4, 1),
            )
        var steps = 0
        session.train(examples, 200) { steps++ }
        val w = session.readParameter("w").map { Math.round(it * 100) }
        val refused =
            try {
                session["x"] = FloatArray(3)
                "nothing"
            } catch (e: WeftException.Length) {
                "a length"
            }
        println("progress ${parts > 0}, $steps steps, w $w, refused $refused")
    }
