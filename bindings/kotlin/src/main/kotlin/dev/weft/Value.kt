@file:JvmName("Values")

package dev.weft

/**
 * A value of a graph that is being built: what an input, a weight, a constant or an operation gives.
 *
 * The operators are the operations of the same name, elementwise; shapes broadcast as NumPy's do, and numbers become constants of
 * the value's type.
 *
 * @property graph the graph it belongs to; other graphs refuse it
 * @property type the type of its elements
 */
public class Value internal constructor(
    public val graph: Graph,
    internal val index: Long,
    public val type: ElementType,
    private val sizes: LongArray,
) {
    /** Sizes of its axes, as a copy. */
    public val shape: LongArray get() = sizes.copyOf()

    /** How many axes it has. */
    public val rank: Int get() = sizes.size

    /** Names it, for messages: see [Graph.name]. */
    public fun named(name: String): Value = graph.name(this, name)

    /** [Operations.add] */
    public operator fun plus(other: Value): Value = graph.add(this, other)

    /** [Operations.add] of a number. */
    public operator fun plus(number: Number): Value = graph.add(this, of(number))

    /** [Operations.sub] */
    public operator fun minus(other: Value): Value = graph.sub(this, other)

    /** [Operations.sub] of a number. */
    public operator fun minus(number: Number): Value = graph.sub(this, of(number))

    /** [Operations.mul] */
    public operator fun times(other: Value): Value = graph.mul(this, other)

    /** [Operations.mul] by a number. */
    public operator fun times(number: Number): Value = graph.mul(this, of(number))

    /** [Operations.div] */
    public operator fun div(other: Value): Value = graph.div(this, other)

    /** [Operations.div] by a number. */
    public operator fun div(number: Number): Value = graph.div(this, of(number))

    /** [Operations.rem] */
    public operator fun rem(other: Value): Value = graph.rem(this, other)

    /** [Operations.rem] by a number. */
    public operator fun rem(number: Number): Value = graph.rem(this, of(number))

    /** [Operations.neg] */
    public operator fun unaryMinus(): Value = graph.neg(this)

    /** A number as a constant of this value's type. */
    internal fun of(number: Number): Value = graph.scalar(number, type)

    /** Its type and shape, as in `f32[2, 3]`. */
    override fun toString(): String = "${type.name.lowercase()}${sizes.contentToString()}"
}

/** [Operations.add] to a number. */
public operator fun Number.plus(value: Value): Value = value.graph.add(value.of(this), value)

/** [Operations.sub] from a number. */
public operator fun Number.minus(value: Value): Value = value.graph.sub(value.of(this), value)

/** [Operations.mul] of a number. */
public operator fun Number.times(value: Value): Value = value.graph.mul(value.of(this), value)

/** [Operations.div] of a number. */
public operator fun Number.div(value: Value): Value = value.graph.div(value.of(this), value)

/** [Operations.rem] of a number. */
public operator fun Number.rem(value: Value): Value = value.graph.rem(value.of(this), value)
