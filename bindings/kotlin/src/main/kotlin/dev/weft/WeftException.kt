package dev.weft

/**
 * What went wrong: a subclass for each sort of error, with its stable [code], and in the message who failed, what was wanted and
 * what came.
 *
 * @property code the stable number of this sort of error, as the C library has it
 * @property wanted what was wanted, where the sort of error has it
 * @property came what came, where the sort of error has it
 * @property node the graph's node, where there is one
 */
public sealed class WeftException(
    public val code: Int,
    message: String,
    public val wanted: String?,
    public val came: String?,
    public val node: String?,
) : RuntimeException(message) {
    /** A reference that must not be null is null. */
    public class Null internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(1, message, wanted, came, node)

    /** The object was closed. */
    public class Closed internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(2, message, wanted, came, node)

    /** Another call is using the object, which cannot be shared. */
    public class Busy internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(3, message, wanted, came, node)

    /** A text is not valid Unicode. */
    public class Unicode internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(4, message, wanted, came, node)

    /** The library panicked: a defect of Weft. */
    public class Panic internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(6, message, wanted, came, node)

    /** An operation was given inputs or attributes it does not accept. */
    public class Op internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(100, message, wanted, came, node)

    /** The graph as a whole is malformed. */
    public class Graph internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(101, message, wanted, came, node)

    /** Values of a graph's text form depend on each other in a cycle. */
    public class Cycle internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(102, message, wanted, came, node)

    /** The text form of a graph does not parse. */
    public class Parse internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(103, message, wanted, came, node)

    /** An operation has no gradient with respect to an input that needs one. */
    public class NoGradient internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(104, message, wanted, came, node)

    /** The weights lack one that the graph needs. */
    public class MissingWeight internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(200, message, wanted, came, node)

    /** A weight's shape or dtype differs from the graph's parameter. */
    public class WeightType internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(201, message, wanted, came, node)

    /** No input, output or parameter of that name. */
    public class UnknownName internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(300, message, wanted, came, node)

    /** Data of the wrong length. */
    public class Length internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(301, message, wanted, came, node)

    /** Data of the wrong dtype. */
    public class DType internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(302, message, wanted, came, node)

    /** A step without data for an input. */
    public class InputNotSet internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(303, message, wanted, came, node)

    /** An output index outside the session's outputs. */
    public class OutputIndex internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(304, message, wanted, came, node)

    /** A step was refused: an index in its data is outside its table. */
    public class IndexOutOfRange internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(305, message, wanted, came, node)

    /** Results were asked for before a step. */
    public class NotRun internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(306, message, wanted, came, node)

    /** An argument outside its range. */
    public class Argument internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(307, message, wanted, came, node)

    /** A file could not be read or written. */
    public class Io internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(400, message, wanted, came, node)

    /** A file is not valid safetensors. */
    public class Safetensors internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(401, message, wanted, came, node)

    /** A configuration file is not as it should be. */
    public class Config internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(402, message, wanted, came, node)

    /** A file cannot be loaded as an artifact. */
    public class Artifact internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(403, message, wanted, came, node)

    /** A model's architecture is not supported. */
    public class Architecture internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(500, message, wanted, came, node)

    /** An option of a model is not supported. */
    public class ModelOption internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(501, message, wanted, came, node)

    /** A tokenizer could not be read or used. */
    public class Tokenizer internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(502, message, wanted, came, node)

    /** A device cannot be used. */
    public class Device internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(600, message, wanted, came, node)

    /** Not enough memory. */
    public class OutOfMemory internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(601, message, wanted, came, node)

    /** The device no longer responds. */
    public class DeviceLost internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(602, message, wanted, came, node)

    /** A GPU driver failed. */
    public class Driver internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(603, message, wanted, came, node)

    /** The caller cancelled the work. */
    public class Cancelled internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(604, message, wanted, came, node)

    /** The device is suspended. */
    public class Suspended internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(605, message, wanted, came, node)

    /** The object was made before the process was forked. */
    public class Forked internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(606, message, wanted, came, node)

    /** A defect of Weft. */
    public class Internal internal constructor(message: String, wanted: String?, came: String?, node: String?) :
        WeftException(900, message, wanted, came, node)

    /** The native library cannot be loaded, or is of another version than this Kotlin library: [wanted] and [came] are the two. */
    public class Library internal constructor(message: String, wanted: String?, came: String?) :
        WeftException(LIBRARY, message, wanted, came, null)

    internal companion object {
        private const val LIBRARY = 10

        /** The exception for a code of the native library. */
        fun of(code: Int, message: String, wanted: String? = null, came: String? = null, node: String? = null): WeftException =
            when (code) {
                1 -> Null(message, wanted, came, node)
                2 -> Closed(message, wanted, came, node)
                3 -> Busy(message, wanted, came, node)
                4 -> Unicode(message, wanted, came, node)
                6 -> Panic(message, wanted, came, node)
                100 -> Op(message, wanted, came, node)
                101 -> Graph(message, wanted, came, node)
                102 -> Cycle(message, wanted, came, node)
                103 -> Parse(message, wanted, came, node)
                104 -> NoGradient(message, wanted, came, node)
                200 -> MissingWeight(message, wanted, came, node)
                201 -> WeightType(message, wanted, came, node)
                300 -> UnknownName(message, wanted, came, node)
                301 -> Length(message, wanted, came, node)
                302 -> DType(message, wanted, came, node)
                303 -> InputNotSet(message, wanted, came, node)
                304 -> OutputIndex(message, wanted, came, node)
                305 -> IndexOutOfRange(message, wanted, came, node)
                306 -> NotRun(message, wanted, came, node)
                307 -> Argument(message, wanted, came, node)
                400 -> Io(message, wanted, came, node)
                401 -> Safetensors(message, wanted, came, node)
                402 -> Config(message, wanted, came, node)
                403 -> Artifact(message, wanted, came, node)
                500 -> Architecture(message, wanted, came, node)
                501 -> ModelOption(message, wanted, came, node)
                502 -> Tokenizer(message, wanted, came, node)
                600 -> Device(message, wanted, came, node)
                601 -> OutOfMemory(message, wanted, came, node)
                602 -> DeviceLost(message, wanted, came, node)
                603 -> Driver(message, wanted, came, node)
                604 -> Cancelled(message, wanted, came, node)
                605 -> Suspended(message, wanted, came, node)
                606 -> Forked(message, wanted, came, node)
                else -> Internal(message, wanted, came, node)
            }

        /** An argument outside its range. */
        fun argument(what: String, wanted: String, came: String): WeftException =
            Argument("$what: wanted $wanted, got $came", wanted, came, null)
    }
}
