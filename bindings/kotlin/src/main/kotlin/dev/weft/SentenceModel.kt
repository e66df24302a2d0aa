package dev.weft

import dev.weft.internal.Jni
import dev.weft.internal.bindings.NativeEncoder
import dev.weft.internal.bindings.TextPrompt
import dev.weft.internal.closing
import dev.weft.internal.native
import dev.weft.internal.working
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.ensureActive
import kotlinx.coroutines.future.future
import kotlinx.coroutines.withContext
import java.util.concurrent.CompletableFuture

/** The prompt put before texts. */
public sealed interface Prompt {
    /** The model's default prompt; often empty. */
    public object Default : Prompt

    /** No prompt. */
    public object None : Prompt

    /**
     * A prompt of the model's; every model has "query" and "document", which may be empty.
     *
     * @property name its name
     */
    public class Named(
        public val name: String,
    ) : Prompt

    /**
     * A text.
     *
     * @property text the text
     */
    public class Text(
        public val text: String,
    ) : Prompt
}

/**
 * A sentence encoder: a model with its tokenizer, from a Hugging Face folder. Threads and coroutines may share it; setting a
 * prompt and adding an artifact need it alone, and are [WeftException.Busy] otherwise.
 */
public class SentenceModel internal constructor(
    internal val native: NativeEncoder,
) : AutoCloseable {
    private val handle: Long = native.handle()

    /** Components of an embedding. */
    public val components: Int by lazy { native { native.components() } }

    /** Tokens that are read of a text at most. */
    public val maxTokens: Int get() = native { native.maxTokens() }

    /** What was odd in the folder and did not matter. */
    public val warnings: List<String> get() = native { native.warnings() }

    /** What its sessions take. */
    public fun memory(): MemorySummary = MemorySummary.of(native { native.memory() })

    /** Sets the prompt put before texts from now on. */
    public fun setPrompt(prompt: Prompt) {
        val given =
            when (prompt) {
                Prompt.Default -> TextPrompt.Default
                Prompt.None -> TextPrompt.None
                is Prompt.Named -> TextPrompt.Named(prompt.name)
                is Prompt.Text -> TextPrompt.Text(prompt.text)
            }
        native { native.setPrompt(given) }
    }

    /** Takes sizes that were compiled ahead from an artifact; returns how many. */
    public fun addArtifact(artifact: Artifact): Int = native { native.addArtifact(artifact.native) }

    /** The embedding of a text, on a thread for it. */
    @JvmSynthetic
    public suspend fun embed(text: String): FloatArray = embed(listOf(text)).single()

    /** The embeddings of texts, on a thread for it. Cancelling the coroutine ends it after some dozens of texts. */
    @JvmSynthetic
    public suspend fun embed(texts: List<String>): List<FloatArray> =
        withContext(working) {
            texts.chunked(CHUNK).flatMap {
                ensureActive()
                embedBlocking(it)
            }
        }

    /** As [embed], on the calling thread: not for an app's main thread. */
    public fun embedBlocking(texts: List<String>): List<FloatArray> {
        val size = components
        val all = Jni.embed(handle, texts.toTypedArray())
        return List(texts.size) { all.copyOfRange(it * size, (it + 1) * size) }
    }

    /** As [embed], for Java. */
    public fun embedAsync(texts: List<String>): CompletableFuture<List<FloatArray>> =
        CoroutineScope(working).future { embed(texts) }

    /** Closes it. */
    override fun close(): Unit = closing(native::release)

    /** Opens models. */
    public companion object {
        private const val CHUNK = 64

        /** Opens a folder, on a thread for it. */
        @JvmSynthetic
        public suspend fun open(device: Device, folder: String, precision: Precision = Precision.FULL): SentenceModel =
            withContext(working) { openBlocking(device, folder, precision) }

        /** As [open], on the calling thread: not for an app's main thread. */
        @JvmStatic
        @JvmOverloads
        public fun openBlocking(
            device: Device,
            folder: String,
            precision: Precision = Precision.FULL,
        ): SentenceModel =
            SentenceModel(native { NativeEncoder.open(device.native, folder, precision.native) })
    }
}
