package dev.weft

import com.google.gson.JsonParser
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.runBlocking
import java.io.File
import java.util.zip.GZIPInputStream
import kotlin.math.abs

/** A test with coroutines; JUnit takes functions without a result only. */
internal fun blocking(test: suspend CoroutineScope.() -> Unit): Unit = runBlocking { test() }

/** The repository's models and data. */
internal object Samples {
    val repository: File = File(System.getProperty("weft.repository")).canonicalFile
    val classifier: String = file("samples/graphs/classifier.weft").readText()
    val classifierWeights: String = file("samples/models/digits/model.safetensors").path
    val miniLm: String = file("samples/models/minilm").path

    fun file(path: String): File = repository.resolve(path)

    /** The digits' classifier over `count` digits, with a loss. */
    fun classifier(count: Int): String = classifier.replace("[4, 64]", "[$count, 64]").replace("i32[4]", "i32[$count]")

    class Digit(
        val pixels: FloatArray,
        val digit: Int,
    )

    /** Handwritten digits, mirrored: a user whom the classifier does not know. */
    val mirrored: List<Digit> by lazy {
        GZIPInputStream(file("samples/data/digits.csv.gz").inputStream()).bufferedReader().readLines().map { line ->
            val numbers = line.split(',').map { it.trim().toInt() }
            Digit(FloatArray(64) { numbers[it / 8 * 8 + 7 - it % 8] / 16f }, numbers[64])
        }
    }

    fun pixels(digits: List<Digit>): TensorBuffer =
        TensorBuffer.of(digits.flatMap { it.pixels.asList() }.toFloatArray(), digits.size.toLong(), 64)

    fun labels(digits: List<Digit>): TensorBuffer = TensorBuffer.of(digits.map { it.digit }.toIntArray())

    class Sentence(
        val text: String,
        val embedding: FloatArray,
    )

    /** What sentence-transformers gives. */
    val sentences: List<Sentence> by lazy {
        val json = JsonParser.parseString(file("tests/golden/minilm_sentences.json").readText()).asJsonObject
        json.getAsJsonArray("items").map { it.asJsonObject }.map { item ->
            val numbers = item.getAsJsonArray("embedding").map { it.asDouble.toFloat() }
            Sentence(item.get("text").asString, numbers.toFloatArray())
        }
    }

    fun farthest(a: FloatArray, b: FloatArray): Float {
        check(a.size == b.size) { "${a.size} and ${b.size}" }
        return a.indices.maxOf { abs(a[it] - b[it]) }
    }

    fun bits(a: FloatArray): List<Int> = a.map { it.toRawBits() }
}
