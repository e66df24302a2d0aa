package dev.weft

import dev.weft.internal.Jni
import dev.weft.internal.StepListener
import dev.weft.internal.bindings.NativeParameters
import dev.weft.internal.bindings.NativeSession
import dev.weft.internal.bindings.OptimizerSettings
import dev.weft.internal.cancellable
import dev.weft.internal.closing
import dev.weft.internal.native
import dev.weft.internal.working
import kotlinx.coroutines.CancellationException
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.channels.onFailure
import kotlinx.coroutines.channels.trySendBlocking
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.channelFlow
import kotlinx.coroutines.withContext
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/**
 * An optimizer.
 *
 * @property name one of [Weft.optimizers]
 * @property learningRate learning rate, 0 or more
 * @property settings settings that differ from their defaults, by the names of torch.optim ("weight_decay", "beta1", …)
 */
public class Optimizer
    @JvmOverloads
    constructor(
        public val name: String,
        public val learningRate: Float,
        public val settings: Map<String, Float> = emptyMap(),
    ) {
        /** Makes optimizers that are often used. */
        public companion object {
            /** Adam with its authors' constants. */
            @JvmStatic
            @JvmOverloads
            public fun adam(learningRate: Float = 1e-3f): Optimizer = Optimizer("adam", learningRate)

            /** Stochastic gradient descent. */
            @JvmStatic
            public fun sgd(learningRate: Float): Optimizer = Optimizer("sgd", learningRate)
        }
    }

/**
 * A step of a training.
 *
 * @property done steps done
 * @property all steps altogether
 * @property loss the loss of this one
 */
public class TrainingStep internal constructor(
    public val done: Long,
    public val all: Long,
    public val loss: Float,
) {
    /** As in `3 of 600: loss 0.5`. */
    override fun toString(): String = "$done of $all: loss $loss"
}

/**
 * A compiled graph with weights, ready to run: inputs in, a step, outputs out. One call at a time, from any thread; a second one
 * at the same time is [WeftException.Busy], and changes nothing. Different sessions may run at once, also over the same weights.
 *
 * Direct buffers are read and written where they lie; arrays are copied exactly once. Data is checked: its type and its size must
 * be those of the input or output.
 */
public class Session internal constructor(
    internal val native: NativeSession,
) : AutoCloseable {
    private val handle: Long = native.handle()

    /** Its tensors. */
    public val tensors: TensorInfos = TensorInfos.of(native { native.ports() })

    private val inputs: Map<String, Int> = tensors.inputs.withIndex().associate { it.value.name to it.index }
    private val outputs: Map<String, Int> = tensors.outputs.withIndex().associate { it.value.name to it.index }

    /** What was odd at init and did not matter. */
    public val warnings: List<String> get() = native { native.warnings() }

    /** What the session takes. */
    public fun memory(): MemorySummary = MemorySummary.of(native { native.memory() })

    /** Gives an input its elements, copied. It keeps them until it is given others. */
    public operator fun set(input: String, tensor: TensorBuffer): Unit =
        Jni.setInput(handle, input(input), tensor.type.ordinal, tensor.memory, 1, 0, tensor.bytes.toLong())

    /** Gives an input the remaining bytes of a direct buffer in the machine's byte order, copied; of its type. */
    public operator fun set(input: String, buffer: ByteBuffer) {
        checked(buffer, buffer.order())
        val at = input(input)
        val type = tensors.inputs[at].type.ordinal
        Jni.setInput(handle, at, type, buffer, 1, buffer.position().toLong(), buffer.remaining().toLong())
    }

    /** Gives an F32 input the remaining elements of a direct buffer in the machine's byte order, copied. */
    public operator fun set(input: String, buffer: FloatBuffer) {
        checked(buffer, buffer.order())
        val (from, bytes) = buffer.position() * 4L to buffer.remaining() * 4L
        Jni.setInput(handle, input(input), ElementType.F32.ordinal, buffer, 4, from, bytes)
    }

    /** Gives an F32 input its elements, copied once. */
    public operator fun set(input: String, elements: FloatArray): Unit =
        Jni.setInputFloats(handle, input(input), ElementType.F32.ordinal, elements)

    /** Gives an I32 or U32 input its elements, copied once. */
    public operator fun set(input: String, elements: IntArray): Unit =
        input(input).let { Jni.setInputInts(handle, it, ints(tensors.inputs[it]), elements) }

    /** Gives an I64 input its elements, copied once. */
    public operator fun set(input: String, elements: LongArray): Unit =
        Jni.setInputLongs(handle, input(input), ElementType.I64.ordinal, elements)

    /** Gives an input its elements as bytes, copied once. */
    public operator fun set(input: String, elements: ByteArray): Unit =
        input(input).let { Jni.setInputBytes(handle, it, tensors.inputs[it].type.ordinal, elements) }

    /**
     * Lets each step read an input where it lies, without a copy, until the input is set or borrowed again or the session is
     * closed; the tensor is kept for so long. Its elements may be changed between steps: after [await] and before the next [step].
     */
    public fun borrow(input: String, tensor: TensorBuffer): Unit =
        Jni.borrowInput(handle, input(input), tensor.type.ordinal, tensor.memory, 1, 0, tensor.bytes.toLong())

    /**
     * Runs the graph once; in a training session with an optimizer, then changes the parameters. The CPU is done when this
     * returns, a GPU has then only begun.
     *
     * @throws WeftException.InputNotSet
     * @throws WeftException.IndexOutOfRange if the step is refused; it then changes nothing
     */
    public fun step(): Unit = Jni.step(handle)

    /** Returns when every step is done. */
    public fun await(): Unit = Jni.await(handle)

    /** As [step] and [await], on a thread for it. A step that began is finished. */
    @JvmSynthetic
    public suspend fun run(): Unit =
        withContext(working) {
            step()
            await()
        }

    /** Copies an output into a tensor of its type and size. Waits for the step. */
    public fun read(output: String, into: TensorBuffer): Unit =
        Jni.readOutput(handle, output(output), into.type.ordinal, into.memory, 1, 0, into.bytes.toLong())

    /** Copies an output into the remaining bytes of a direct buffer in the machine's byte order. Waits for the step. */
    public fun read(output: String, into: ByteBuffer) {
        checked(into, into.order())
        if (into.isReadOnly) throw WeftException.argument("buffer", "one that can be written", "a read-only one")
        val at = output(output)
        val type = tensors.outputs[at].type.ordinal
        Jni.readOutput(handle, at, type, into, 1, into.position().toLong(), into.remaining().toLong())
    }

    /** Copies an F32 output into the remaining elements of a direct buffer in the machine's byte order. Waits for the step. */
    public fun read(output: String, into: FloatBuffer) {
        checked(into, into.order())
        if (into.isReadOnly) throw WeftException.argument("buffer", "one that can be written", "a read-only one")
        val (from, bytes) = into.position() * 4L to into.remaining() * 4L
        Jni.readOutput(handle, output(output), ElementType.F32.ordinal, into, 4, from, bytes)
    }

    /** Copies an F32 output into an array of its size, once. Waits for the step. */
    public fun read(output: String, into: FloatArray): Unit =
        Jni.readOutputFloats(handle, output(output), ElementType.F32.ordinal, into)

    /** Copies an I32 or U32 output into an array of its size, once. Waits for the step. */
    public fun read(output: String, into: IntArray): Unit =
        output(output).let { Jni.readOutputInts(handle, it, ints(tensors.outputs[it]), into) }

    /** Copies an I64 output into an array of its size, once. Waits for the step. */
    public fun read(output: String, into: LongArray): Unit =
        Jni.readOutputLongs(handle, output(output), ElementType.I64.ordinal, into)

    /** Copies an output's bytes into an array of its size, once. Waits for the step. */
    public fun read(output: String, into: ByteArray): Unit =
        output(output).let { Jni.readOutputBytes(handle, it, tensors.outputs[it].type.ordinal, into) }

    /** An F32 output as an array. Waits for the step. */
    public fun readFloats(output: String): FloatArray =
        FloatArray(tensors.outputs[output(output)].elements.toInt()).also { read(output, it) }

    /**
     * Shows an output's bytes where they lie, without a copy on the CPU. The buffer is valid during the call of `use`, and must
     * not be kept: the session's next step writes over it. Other calls on the session are [WeftException.Busy] meanwhile.
     */
    public fun <R> useOutput(output: String, use: (ByteBuffer) -> R): R {
        val at = output(output)
        val lending = Jni.beginLending(handle)
        try {
            return use(Jni.lendOutput(lending, at).asReadOnlyBuffer().order(ByteOrder.nativeOrder()))
        } finally {
            Jni.endLending(lending)
        }
    }

    /** The loss of the last step. Waits for it. */
    public val loss: Float get() = Jni.loss(handle)

    /** Its weights, to share with another session or to save. */
    public fun parameters(): Parameters = Parameters(native { native.parameters() })

    /** A copy of an F32 parameter's elements. */
    public fun readParameter(name: String): FloatArray = Jni.readParameter(handle, name)

    /** Gives an F32 parameter other elements. Sessions over the same weights see the change. */
    public fun setParameter(name: String, elements: FloatArray): Unit = Jni.setParameter(handle, name, elements)

    /** Makes every later step change the parameters; the optimizer's states begin anew. */
    public fun setOptimizer(optimizer: Optimizer): Unit =
        native {
            native.setOptimizer(OptimizerSettings(optimizer.name, optimizer.learningRate, optimizer.settings))
        }

    /** Changes the learning rate and nothing else. */
    public fun setLearningRate(rate: Float): Unit = native { native.setLearningRate(rate) }

    /** How many steps the optimizer has made. */
    public val optimizerSteps: Long get() = native { native.optimizerSteps() }

    /** Everything that the optimizer keeps, to be saved. */
    public fun saveOptimizer(): Weights = Weights(native { native.saveOptimizer() })

    /** Gives the optimizer, which was set before, what [saveOptimizer] gave. */
    public fun restoreOptimizer(states: Weights): Unit = native { native.restoreOptimizer(states.native) }

    /** Makes every state of its graph zeros, as after init. */
    public fun resetState(): Unit = native { native.resetState() }

    /**
     * Steps through batches, `epochs` times, and emits each step: it waits for the collector, so cancelling ends the training
     * within one step, and what a step did stays. `batches` has the elements of all batches of an input, one after the other;
     * inputs without batches keep what they were given. Set an optimizer before. Each collector trains.
     */
    @JvmSynthetic
    public fun train(batches: Map<String, TensorBuffer>, epochs: Int = 1): Flow<TrainingStep> =
        channelFlow {
            // a collector that is gone ends the training here, before the coroutine hears of it
            train(batches, epochs) { step ->
                trySendBlocking(step).onFailure { throw CancellationException("nobody collects", it) }
            }
        }.buffer(Channel.RENDEZVOUS)

    /** As the other [train], telling each step to a function, on the thread that trains, which must not use the session in it. */
    @JvmSynthetic
    public suspend fun train(batches: Map<String, TensorBuffer>, epochs: Int, onStep: (TrainingStep) -> Unit) {
        val all = batches.entries.toList()
        val names = Array(all.size) { all[it].key }
        val types = IntArray(all.size) { all[it].value.type.ordinal }
        val buffers = Array<java.nio.Buffer>(all.size) { all[it].value.memory }
        val places = LongArray(all.size * 3)
        all.forEachIndexed { at, batch ->
            places[3 * at] = 1
            places[3 * at + 2] = batch.value.bytes.toLong()
        }
        val listener = StepListener { done, count, loss -> onStep(TrainingStep(done, count, loss)) }
        cancellable { cancel -> Jni.train(handle, names, types, buffers, places, epochs, cancel.handle(), listener) }
    }

    /** Closes the session, and lets go of what it borrowed. */
    override fun close(): Unit = closing(native::release)

    private fun input(name: String): Int = inputs[name] ?: throw unknown("input", name, inputs)

    private fun output(name: String): Int = outputs[name] ?: throw unknown("output", name, outputs)

    private fun unknown(kind: String, name: String, all: Map<String, Int>): WeftException {
        val known = all.keys.joinToString()
        return WeftException.of(300, "no $kind named \"$name\"; there are: $known", known, name)
    }

    /** The type that an `int[]` stands for. */
    private fun ints(info: TensorInfo): Int =
        if (info.type == ElementType.U32) ElementType.U32.ordinal else ElementType.I32.ordinal
}

/** The weights of sessions, in a device's memory. Threads may share it. */
public class Parameters internal constructor(
    internal val native: NativeParameters,
) : AutoCloseable {
    /** The weights as they are now, to look at or to save; those never changed are not copied. */
    public fun weights(): Weights = Weights(native { native.weights() })

    /** Closes this; sessions over the weights keep them. */
    override fun close(): Unit = closing(native::release)
}
