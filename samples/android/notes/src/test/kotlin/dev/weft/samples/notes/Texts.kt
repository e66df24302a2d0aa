package dev.weft.samples.notes

import com.google.gson.JsonParser
import dev.weft.Device
import dev.weft.SentenceModel
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.runBlocking
import java.io.File

/** A test with coroutines; JUnit takes functions without a result only. */
internal fun blocking(test: suspend CoroutineScope.() -> Unit): Unit = runBlocking { test() }

/** What the tests use of the repository. */
internal object Texts {
    private val repository = File(System.getProperty("weft.repository")).canonicalFile
    val miniLm: File = repository.resolve("samples/models/minilm")

    /** Sentences with the embeddings that sentence-transformers gives them. */
    val recorded: Map<String, FloatArray> by lazy {
        val json = JsonParser.parseString(repository.resolve("tests/golden/minilm_sentences.json").readText()).asJsonObject
        json.getAsJsonArray("items").map { it.asJsonObject }.associate { item ->
            item["text"].asString to item.getAsJsonArray("embedding").map { it.asFloat }.toFloatArray()
        }
    }

    /** Notes of three topics. */
    val topics: Map<String, List<String>> =
        mapOf(
            "cooking" to
                listOf(
                    "Soak the chickpeas overnight before boiling them",
                    "Bake the bread at 230 degrees until the crust is dark",
                    "The tomato sauce needs more basil and a little sugar",
                    "Whisk three eggs with a cup of flour for the pancakes",
                    "Roast the potatoes with rosemary and olive oil",
                    "Let the dough rise for two hours under a towel",
                    "Simmer the lentil soup with cumin and carrots",
                ),
            "money" to
                listOf(
                    "Transfer the rent on the first of the month",
                    "The tax return is due at the end of May",
                    "Compare the interest rates of both savings accounts",
                    "The insurance premium went up by eight percent",
                    "Cancel the credit card that charges a yearly fee",
                    "Ask the bank about refinancing the mortgage",
                    "Invoice 4711 has not been paid yet",
                ),
            "garden" to
                listOf(
                    "Prune the apple tree before the buds open",
                    "Slugs ate the lettuce seedlings again",
                    "Plant the tulip bulbs ten centimetres deep",
                    "Water the tomato plants early in the morning",
                    "The compost heap needs more dry leaves",
                    "Sow carrots and radishes in the raised bed",
                    "Cut back the lavender after it has flowered",
                ),
        )

    suspend fun opened(test: suspend (Device, SentenceModel) -> Unit): Unit =
        Device.cpu(2).use { device -> SentenceModel.open(device, miniLm.path).use { test(device, it) } }
}
