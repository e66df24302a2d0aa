package dev.weft

/**
 * The type of a tensor's elements.
 *
 * @property bytes bytes of an element; 0 for the block formats, whose elements have no bytes of their own
 */
public enum class ElementType(public val bytes: Int) {
    /** 32-bit floating point. */
    F32(4),

    /** 16-bit floating point (IEEE 754 binary16). */
    F16(2),

    /** bfloat16. */
    BF16(2),

    /** Signed 32-bit integers. */
    I32(4),

    /** Unsigned 32-bit integers; Kotlin's `int[]` holds their bits. */
    U32(4),

    /** Signed 64-bit integers. */
    I64(8),

    /** Unsigned bytes. */
    U8(1),

    /** Booleans: one byte, 0 or 1. */
    BOOL(1),

    /** Blocks of 32 int8 values with a scale. */
    Q8(0),

    /** Blocks of 32 int4 values with a scale. */
    Q4(0),
    ;

    internal val native: dev.weft.internal.bindings.ElementType
        get() = dev.weft.internal.bindings.ElementType.entries[ordinal]

    internal companion object {
        fun of(type: dev.weft.internal.bindings.ElementType): ElementType = entries[type.ordinal]
    }
}

/**
 * A tensor's name and type.
 *
 * @property name its name
 * @property type the type of its elements
 * @property bytes bytes of its elements together
 * @property isTrainable whether training changes it
 */
public class TensorInfo internal constructor(
    public val name: String,
    public val type: ElementType,
    private val sizes: LongArray,
    public val bytes: Long,
    public val isTrainable: Boolean,
) {
    /** Sizes of its axes, as a copy. */
    public val shape: LongArray get() = sizes.copyOf()

    /** How many elements it has. */
    public val elements: Long get() = sizes.fold(1L, Long::times)

    /** Its name, type and shape, as in `x: f32[2, 3]`. */
    override fun toString(): String = "$name: ${type.name.lowercase()}${sizes.contentToString()}"

    internal companion object {
        fun of(info: dev.weft.internal.bindings.TensorInfo): TensorInfo =
            TensorInfo(
                info.name,
                ElementType.of(info.elementType),
                info.shape.toLongArray(),
                info.bytes,
                info.trainable,
            )
    }
}
