package dev.weft.samples.notes

import java.io.File
import java.io.IOException
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.StandardCopyOption.ATOMIC_MOVE
import java.security.MessageDigest

/**
 * How a model gets into the app: its files are copied once, from wherever the app has them (assets in the APK, an asset pack, a download),
 * to a folder of the app's, and checked against their SHA-256. The folder appears whole or not at all. It should be one that is not backed
 * up, since it can be made again: `Context.noBackupFilesDir` on Android.
 *
 * @param folder where the model will be
 * @param files the model's files and their SHA-256 in hexadecimal digits
 */
class ModelFolder(
    private val folder: File,
    private val files: Map<String, String>,
) {
    /** Whether the model is there. Only its files' presence is looked at: they were checked when they came. */
    val isThere: Boolean get() = files.keys.all { File(folder, it).isFile }

    /** The folder's path, for `SentenceModel.open`. */
    val path: String get() = folder.path

    /**
     * Copies the model, unless it is there.
     *
     * @param open opens a file of the model by its name
     * @param onProgress how many of the files are there
     * @throws IOException if a file cannot be read or written, or is not the one that is wanted; the folder is then not there
     */
    fun install(onProgress: (Int, Int) -> Unit = { _, _ -> }, open: (String) -> InputStream) {
        if (isThere) return
        val parent = folder.absoluteFile.parentFile
        parent.mkdirs()
        val beside = Files.createTempDirectory(parent.toPath(), "${folder.name}.").toFile()
        try {
            files.entries.forEachIndexed { at, (name, sha256) ->
                onProgress(at, files.size)
                val found = open(name).use { copy(it, File(beside, name)) }
                if (found != sha256) throw IOException("$name: wanted a file with the SHA-256 $sha256, found one with $found")
            }
            folder.deleteRecursively() // part of an older one
            Files.move(beside.toPath(), folder.toPath(), ATOMIC_MOVE)
            onProgress(files.size, files.size)
        } finally {
            beside.deleteRecursively()
        }
    }

    /** Copies, and returns the SHA-256 of what was copied. */
    private fun copy(from: InputStream, to: File): String {
        to.parentFile.mkdirs()
        val digest = MessageDigest.getInstance("SHA-256")
        to.outputStream().use { out ->
            val part = ByteArray(1 shl 16)
            while (true) {
                val read = from.read(part)
                if (read < 0) break
                digest.update(part, 0, read)
                out.write(part, 0, read)
            }
        }
        return digest.digest().joinToString("") { "%02x".format(it) }
    }

    companion object {
        /** The files of all-MiniLM-L6-v2 (Apache-2.0) that Weft reads, as `samples/models/fetch minilm` brings them. */
        val miniLm: Map<String, String> =
            mapOf(
                "1_Pooling/config.json" to "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
                "config.json" to "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "model.safetensors" to "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                "modules.json" to "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                "sentence_bert_config.json" to "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
                "tokenizer.json" to "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                "tokenizer_config.json" to "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            )
    }
}
