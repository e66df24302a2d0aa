package dev.weft

import com.google.gson.JsonParser
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNotSame
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import java.lang.reflect.InvocationTargetException
import java.lang.reflect.Method
import java.lang.reflect.Modifier
import kotlin.reflect.KClass

/** Graphs built node by node are those of the text form, which the engine reads by itself. */
class GraphTest {
    private fun classifier(): Graph =
        Graph.build {
            val pixels = input("pixels", ElementType.F32, 4, 64)
            val labels = input("labels", ElementType.I32, 4)
            val (first, second) =
                (0..1).map { at ->
                    scope("layers.$at") {
                        val classes = if (at == 0) 64L else 10L
                        parameter("weight", classes, 64) to parameter("bias", classes)
                    }
                }
            val hidden = relu(linear(pixels, first.first, first.second).named("first")).named("hidden")
            val logits = linear(hidden, second.first, second.second).named("logits")
            assertArrayEquals(longArrayOf(4, 10), logits.shape)
            assertEquals(ElementType.F32, logits.type)
            output("probabilities", softmax(logits, axis = -1).named("probabilities"))
            setLoss(crossEntropy(logits, labels).named("mean"))
        }

    @Test
    fun `the classifier by hand is that of the text, and gives the bits of weft run`() =
        blocking {
            assertEquals(Graph.parse(Samples.classifier).text(), classifier().text())
            val digits = Weights.load(Samples.file("samples/graphs/digits.safetensors").path)
            val wanted = Weights.load(System.getProperty("weft.run.outputs"))["probabilities"].toFloatArray()
            Device.cpu(2).use { device ->
                val compiled = classifier().use { device.compile(it) }
                val session = compiled.init(Weights.load(Samples.classifierWeights))
                session["pixels"] = digits["pixels"]
                session["labels"] = digits["labels"]
                session.run()
                assertEquals(Samples.bits(wanted), Samples.bits(session.readFloats("probabilities")))
                listOf(session, compiled).forEach { it.close() }
            }
        }

    /** A graph of each operation, as the engine's own test has recorded it. */
    private val texts: Map<String, String> =
        JsonParser.parseString(Samples.file("tests/golden/graph_texts.json").readText()).asJsonObject
            .entrySet().associate { it.key to it.value.asString }

    /** The function of each operation with all of its parameters. */
    private val functions: Map<String, Method> =
        Operations::class.java.declaredMethods
            .filter { Modifier.isPublic(it.modifiers) && !Modifier.isAbstract(it.modifiers) && !it.isSynthetic }
            .groupBy { it.name }
            .mapValues { (_, overloads) -> overloads.maxBy { it.parameterCount } }

    @Test
    fun `every operation has a function, which builds what its text says`() {
        assertEquals(texts.keys.map(::camel).toSet(), functions.keys)
        for ((operation, text) in texts) {
            val wanted = Graph.parse(text).use { it.text() }
            assertEquals(wanted, rebuilt(text).use { it.text() }, operation)
        }
    }

    private fun camel(name: String) = name.replace(Regex("_(.)")) { it.groupValues[1].uppercase() }

    /** Builds a text's graph by calling the functions that it names. */
    private fun rebuilt(text: String): Graph {
        val graph = Graph()
        val values = mutableMapOf<String, Value>()
        for (line in text.lines().drop(1).filter { it.isNotEmpty() }) {
            val input = Regex("input (\\w+): (\\w+)\\[(.*)]").matchEntire(line)
            val output = Regex("output (\\w+) = (\\S+)").matchEntire(line)
            val call = Regex("(\\S+) = (\\w+)\\((.*)\\)").matchEntire(line)
            when {
                input != null -> {
                    val (name, type, shape) = input.destructured
                    values[name] = graph.input(name, ElementType.valueOf(type.uppercase()), *numbers(shape))
                }

                output != null -> {
                    graph.output(output.groupValues[1], values.getValue(output.groupValues[2]))
                }

                call != null -> {
                    val (name, operation, arguments) = call.destructured
                    // commas outside of brackets
                    val given = Regex("[^,\\[]+(\\[[^]]*])?").findAll(arguments).map { it.value.trim() }
                    val (attributes, inputs) = given.filter { it.isNotEmpty() }.partition { '=' in it }
                    val function = functions.getValue(camel(operation))
                    values[name] = call(graph, function, inputs.map(values::getValue), attributes.map { it.substringAfter('=') })
                }

                else -> {
                    error("a line that this test does not read: $line")
                }
            }
        }
        return graph
    }

    private fun numbers(list: String): LongArray =
        list.split(',').filter { it.isNotBlank() }.map { it.trim().toLong() }.toLongArray()

    private fun call(graph: Graph, function: Method, inputs: List<Value>, attributes: List<String>): Value {
        val types = function.parameterTypes
        val ofInputs = types.count { it == Value::class.java || it == List::class.java }
        assertEquals(types.size - ofInputs, attributes.size, function.name)
        val many = types.firstOrNull() == List::class.java
        val first = if (many) listOf(inputs) else inputs + List(ofInputs - inputs.size) { null }
        val rest =
            types.drop(ofInputs).zip(attributes).map { (type, text) ->
                when (type) {
                    Long::class.java -> text.toLong()
                    LongArray::class.java -> numbers(text.trim('[', ']'))
                    Double::class.java -> text.toDouble()
                    Boolean::class.java -> text.toBooleanStrict()
                    else -> ElementType.valueOf(text.uppercase())
                }
            }
        try {
            return function.invoke(graph, *(first + rest).toTypedArray()) as Value
        } catch (e: InvocationTargetException) {
            throw e.targetException
        }
    }

    private fun text(build: Graph.() -> Value): String = Graph.build { output("y", build()) }.use { it.text() }

    @Test
    fun `defaults are those that the engine's options have`() {
        val wanted =
            mapOf(
                "conv2d(x, w, stride=[1, 1], padding=[0, 0], dilation=[1, 1], groups=1)" to
                    text { conv2d(input("x", ElementType.F32, 1, 2, 5, 5), parameter("w", 3, 2, 3, 3)) },
                "avg_pool1d(x, kernel=3, stride=3, padding=0, count_include_pad=true)" to
                    text { avgPool1d(input("x", ElementType.F32, 1, 2, 9), kernel = 3) },
                "max_pool2d(x, kernel=[3, 2], stride=[3, 2], padding=[0, 0])" to
                    text { maxPool2d(input("x", ElementType.F32, 1, 2, 9, 9), longArrayOf(3, 2)) },
                "max_pool2d(x, kernel=[3, 2], stride=[1, 1], padding=[0, 0])" to
                    text { maxPool2d(input("x", ElementType.F32, 1, 2, 9, 9), longArrayOf(3, 2), stride = longArrayOf(1, 1)) },
                "rope(x, theta=10000.0, offset=0, interleaved=false)" to text { rope(input("x", ElementType.F32, 1, 2, 3, 4)) },
                "matmul(x, x, transpose_a=false, transpose_b=true)" to
                    text { input("x", ElementType.F32, 3, 2).let { matmul(it, it, transposeB = true) } },
                "sum(x, axes=[-1], keepdim=false)" to text { sum(input("x", ElementType.F32, 3, 2), longArrayOf(-1)) },
                "reshape(x, shape=[3, -1])" to text { reshape(input("x", ElementType.F32, 2, 6), 3, -1) },
                "cast(x, dtype=f16)" to text { cast(input("x", ElementType.F32, 2), ElementType.F16) },
            )
        for ((call, text) in wanted) assertTrue(text.contains(" = $call\n"), "$call is not in\n$text")
    }

    @Test
    fun `operators are operations, with numbers of the value's type`() {
        fun body(build: (Value, Value) -> Value): List<String> =
            text { build(input("a", ElementType.F32, 3), input("b", ElementType.F32, 2, 3)) }.lines().drop(3).dropLast(2)
        assertEquals(listOf("%2 = add(a, b)"), body { a, b -> a + b })
        assertEquals(listOf("%2 = sub(a, b)"), body { a, b -> a - b })
        assertEquals(listOf("%2 = mul(a, b)"), body { a, b -> a * b })
        assertEquals(listOf("%2 = div(a, b)"), body { a, b -> a / b })
        assertEquals(listOf("%2 = rem(a, b)"), body { a, b -> a % b })
        assertEquals(listOf("%2 = neg(a)"), body { a, _ -> -a })
        assertEquals(listOf("const %2: f32[] = [0.5]", "%3 = mul(a, %2)"), body { a, _ -> a * 0.5 })
        assertEquals(listOf("const %2: f32[] = [1.0]", "%3 = sub(%2, a)"), body { a, _ -> 1 - a })
        assertEquals(listOf("const %2: f32[] = [2.0]", "%3 = div(%2, b)"), body { _, b -> 2f / b })
        assertEquals(listOf("const %2: f32[] = [2.0]", "%3 = rem(%2, b)"), body { _, b -> 2L % b })
        assertEquals(listOf("const %2: f32[] = [3.0]", "%3 = add(%2, a)"), body { a, _ -> 3.toShort() + a })
        Graph.build {
            val sum = input("a", ElementType.F32, 3) + input("b", ElementType.F32, 2, 1)
            assertEquals("f32[2, 3]", sum.toString())
            assertEquals(2, sum.rank)
            assertNotSame(sum.shape, sum.shape)
            // every digit of 64 bits
            val large = (1L shl 53) + 1
            output("large", scalar(large, ElementType.I64))
            assertTrue(text().contains("i64[] = [$large]"), text())
        }.close()
    }

    @Test
    fun `states, constants and the loss are the graph's`() =
        blocking {
            val graph =
                Graph.build {
                    val count = state("count", ElementType.F32, 2)
                    val next = count + constant(TensorBuffer.of(floatArrayOf(1f, 10f)))
                    setState(count, next)
                    val w = parameter("w", ElementType.F32, false, 2)
                    output("count", next)
                    output("norm", scope("inner") { name(next * w, "product") })
                    setLoss(mean(next, longArrayOf(0)))
                }
            val wanted =
                "weft 1\nstate count: f32[2]\nconst %1: f32[2] = [1.0, 10.0]\n%2 = add(count, %1)\nfrozen w: f32[2]\n" +
                    "inner.product = mul(%2, w)\n%5 = mean(%2, axes=[0], keepdim=false)\nnext count = %2\n" +
                    "output count = %2\noutput norm = inner.product\nloss %5\n"
            assertEquals(wanted, graph.text())
            val session = Device.cpu(1).compile(graph).initZeros()
            repeat(3) { session.run() }
            assertArrayEquals(floatArrayOf(3f, 30f), session.readFloats("count"))
            listOf(session, graph).forEach { it.close() }
        }

    @Test
    fun `a batch norm that tracks has its states`() {
        Graph.build {
            val x = input("x", ElementType.F32, 8, 3)
            val (scale, bias) = parameter("scale", 3) to parameter("bias", 3)
            output("y", scope("net") { batchNormTracking("norm", x, scale, bias) })
            for (state in listOf("running_mean: f32[3]", "running_var: f32[3]", "num_batches_tracked: i32[")) {
                assertTrue(text().contains("state net.norm.$state"), text())
            }
        }.close()
        Graph.build {
            val x = input("x", ElementType.F32, 8, 3)
            output("y", batchNormTracked("norm", x, parameter("scale", 3), parameter("bias", 3)))
            assertTrue(text().contains("state norm.running_var: f32[3]"), text())
        }.close()
    }

    private fun <E : WeftException> fails(type: KClass<E>, message: String, call: () -> Unit): E {
        val thrown = assertThrows(WeftException::class.java) { call() }
        assertEquals(type, thrown::class, thrown.message)
        assertTrue(thrown.message.orEmpty().contains(message), "${thrown.message} does not contain: $message")
        @Suppress("UNCHECKED_CAST")
        return thrown as E
    }

    @Test
    fun `what an operation does not accept is an error at once, and stays the graph's`() {
        val graph = Graph()
        val a = graph.input("a", ElementType.F32, 2, 3)
        val e = fails(WeftException.Op::class, "inner dimensions") { graph.matmul(a, a) }
        assertTrue(e.came!!.contains("[2, 3]") && e.node!!.contains("matmul(a, a)"), "${e.came} ${e.node}")
        for (call in listOf<() -> Any>({ graph.relu(a) }, { graph.output("a", a) }, { graph.text() })) {
            fails(WeftException.Op::class, "inner dimensions") { call() }
        }
        fails(WeftException.Op::class, "inner dimensions") { blocking { Device.cpu(1).compile(graph) } }
        graph.close()
        fails(WeftException.Closed::class, "graph") { graph.relu(a) }
        fails(WeftException.Closed::class, "graph") { graph.constant(TensorBuffer.of(floatArrayOf(1f))) }
    }

    @Test
    fun `names, values, numbers and shapes are checked`() {
        fun refused(type: KClass<out WeftException>, message: String, build: Graph.(Value) -> Unit) {
            val graph = Graph()
            val a = graph.input("a", ElementType.U8, 3)
            fails(type, message) { graph.build(a) }
            graph.close()
        }
        val other = Graph()
        val foreign = other.input("a", ElementType.U8, 3)
        refused(WeftException.Op::class, "a value of another graph") { add(it, foreign) }
        refused(WeftException.Op::class, "a value of another graph") { output("y", foreign) }
        refused(WeftException.Op::class, "a name not used before") { input("a", ElementType.F32) }
        refused(WeftException.Op::class, "letters, digits") { input("a b", ElementType.F32) }
        refused(WeftException.Op::class, "a number that u8 holds") { it * 0.5 }
        refused(WeftException.Op::class, "at least 1") { input("b", ElementType.F32, 0) }
        refused(WeftException.Argument::class, "sizes of 0 or more") { input("b", ElementType.F32, -1) }
        refused(WeftException.Op::class, "one f32 element") { setLoss(it) }
        refused(WeftException.Op::class, "a value that `state` made") { setState(it, it) }
        refused(WeftException.Op::class, "axis 7") { softmax(cast(it, ElementType.F32), axis = 7) }
        refused(WeftException.UnknownName::class, "no operation named \"nothing\"") { operation("nothing", listOf(it)) }
        refused(WeftException.UnknownName::class, "softmax") { operation("softmax", listOf(it), attribute("axes", 1L)) }
        refused(WeftException.Op::class, "axis: Int") { operation("softmax", listOf(it)) }
        refused(WeftException.Op::class, "axis: Int") { operation("softmax", listOf(it), attribute("axis", 1.5)) }
        // the other graph is as it was
        assertEquals("weft 1\ninput a: u8[3]\n", other.text())
        other.close()
    }

    @Test
    fun `what building throws comes out, and the graph is closed`() {
        var seen: Graph? = null
        val thrown =
            assertThrows(IllegalStateException::class.java) {
                Graph.build {
                    seen = this
                    error("mine")
                }
            }
        assertEquals("mine", thrown.message)
        assertThrows(WeftException.Closed::class.java) { seen!!.text() }
    }
}
