package dev.weft

import dev.weft.internal.Jni
import dev.weft.internal.bindings.AttributeValue
import dev.weft.internal.bindings.GraphValue
import dev.weft.internal.bindings.NativeGraph
import dev.weft.internal.bindings.OperationAttribute
import dev.weft.internal.closing
import dev.weft.internal.native

/**
 * A graph: what is to be computed. It is built node by node, or read from its text form, and may be closed once it is compiled.
 *
 * ```kotlin
 * val graph = Graph.build {
 *     val x = input("x", ElementType.F32, 1, 64)
 *     val logits = linear(x, parameter("weight", 10, 64), parameter("bias", 10))
 *     output("probabilities", softmax(logits, axis = -1))
 *     output("scaled", 2 * logits - 1)
 * }
 * ```
 *
 * Types and shapes are checked at once, and readable at each [Value]. A graph that has thrown an error of its building throws it
 * from then on, also when it is compiled. One thread at a time.
 */
public class Graph internal constructor(
    internal val native: NativeGraph,
) : Operations(),
    AutoCloseable {
    /** An empty graph. */
    public constructor() : this(native { NativeGraph() })

    private val handle: Long by lazy { native.handle() }
    private var scope = ""

    /** Its text form. */
    public fun text(): String = native { native.text() }

    /** An input: data that is set before each step. */
    public fun input(name: String, type: ElementType, vararg shape: Long): Value =
        value(native { native.input(scope + name, type.native, shape.asList()) })

    /** A trainable F32 weight. */
    public fun parameter(name: String, vararg shape: Long): Value = parameter(name, ElementType.F32, true, *shape)

    /** A weight of any type; training changes it if it is `trainable` and of a floating-point type. */
    public fun parameter(name: String, type: ElementType, trainable: Boolean, vararg shape: Long): Value =
        value(native { native.parameter(scope + name, type.native, shape.asList(), trainable) })

    /** Data that a session carries from one step to the next, zeros at first; [setState] says what it is after a step. */
    public fun state(name: String, type: ElementType, vararg shape: Long): Value =
        value(native { native.state(scope + name, type.native, shape.asList()) })

    /** Makes `next`, of the same type and shape, what a state is after each step. Within a step it has its old value. */
    public fun setState(state: Value, next: Value): Unit = native { native.setState(index(state), index(next)) }

    /** Data that is part of the graph, copied. */
    public fun constant(tensor: TensorBuffer): Value {
        val index = Jni.addConstant(handle, tensor.type.ordinal, tensor.shape, tensor.memory, 1, 0, tensor.bytes.toLong())
        return Value(this, index, tensor.type, tensor.shape)
    }

    /** A constant of one element, without axes: a number of the type. Floating-point types round it. */
    public fun scalar(number: Number, type: ElementType = ElementType.F32): Value {
        val whole = number is Long || number is Int || number is Short || number is Byte
        return when {
            whole && type == ElementType.I64 -> value(native { native.wholeScalar(number.toLong()) })
            else -> value(native { native.scalar(number.toDouble(), type.native) })
        }
    }

    /**
     * A batch norm for training that keeps running statistics, as PyTorch's `BatchNorm` does: of `x` of `[n, c, …]`, with `scale`
     * and `bias` of `[c]`. Its states are `NAME.running_mean`, `NAME.running_var` and `NAME.num_batches_tracked`.
     */
    @JvmOverloads
    public fun batchNormTracking(
        name: String,
        x: Value,
        scale: Value,
        bias: Value,
        momentum: Double = 0.1,
        eps: Double = 1e-5,
    ): Value =
        value(native { native.batchNormTracking(scope + name, index(x), index(scale), index(bias), momentum, eps) })

    /** The same by the running statistics, for an evaluation graph whose session gets the states of one that trained. */
    @JvmOverloads
    public fun batchNormTracked(name: String, x: Value, scale: Value, bias: Value, eps: Double = 1e-5): Value =
        value(native { native.batchNormTracked(scope + name, index(x), index(scale), index(bias), eps) })

    /** Names a value, for messages. Names are unique in a graph: letters, digits and `_ . - /`. */
    public fun name(value: Value, name: String): Value {
        native { native.nameValue(index(value), scope + name) }
        return value
    }

    /** Puts `name.` before every name that is given to inputs, weights, states and values in `build`. */
    public fun <R> scope(name: String, build: () -> R): R {
        val outer = scope
        scope = "$outer$name."
        try {
            return build()
        } finally {
            scope = outer
        }
    }

    /** Makes a value an output, with a name. */
    public fun output(name: String, value: Value): Unit = native { native.output(name, index(value)) }

    /** Makes a value of one F32 element the loss, which training minimises. */
    public fun setLoss(value: Value): Unit = native { native.setLoss(index(value)) }

    /** Closes it. What was compiled from it stays. */
    override fun close(): Unit = closing(native::release)

    override fun operation(name: String, inputs: List<Value>, vararg attributes: Attribute): Value {
        val given = attributes.map { OperationAttribute(it.name, it.value) }
        return value(native { native.operation(name, inputs.map(::index), given) })
    }

    private fun value(made: GraphValue): Value =
        Value(this, made.index, ElementType.of(made.elementType), made.shape.toLongArray())

    private fun index(value: Value): Long {
        if (value.graph !== this) {
            val (wanted, came) = "values of this graph" to "a value of another graph"
            throw WeftException.of(100, "wanted $wanted, got $came", wanted, came)
        }
        return value.index
    }

    /** Makes graphs. */
    public companion object {
        /** An empty graph that `build` fills; closed if that throws. */
        @JvmSynthetic
        public inline fun build(build: Graph.() -> Unit): Graph {
            val graph = Graph()
            try {
                graph.build()
            } catch (e: Throwable) {
                graph.close()
                throw e
            }
            return graph
        }

        /**
         * Reads a graph's text form.
         *
         * @throws WeftException.Parse with line and column
         */
        @JvmStatic
        public fun parse(text: String): Graph = Graph(native { NativeGraph.parse(text) })
    }
}

/** An attribute of an operation, by its name in the engine. */
internal class Attribute(
    val name: String,
    val value: AttributeValue,
)

internal fun attribute(name: String, value: Long): Attribute = Attribute(name, AttributeValue.Whole(value))

internal fun attribute(name: String, values: LongArray): Attribute = Attribute(name, AttributeValue.Wholes(values.asList()))

internal fun attribute(name: String, value: Double): Attribute = Attribute(name, AttributeValue.Real(value))

internal fun attribute(name: String, value: Boolean): Attribute = Attribute(name, AttributeValue.Flag(value))

internal fun attribute(name: String, value: ElementType): Attribute = Attribute(name, AttributeValue.Type(value.native))
