package dev.weft.internal

import dev.weft.WeftException
import java.io.File
import java.nio.file.Files

/**
 * Loads the native library, once, before anything else of it is called, and compares versions.
 *
 * It is, in this order: the file that the system property `weft.library` names; on Android, the app's `libweft_apps.so`; the one in
 * this jar for the machine's system and processor, copied to a temporary file.
 */
internal object NativeLibrary {
    /** The version of this Kotlin library, and of the native library that it was made for. */
    const val VERSION: String = "0.1.0"

    /** The number of the native library's interface, `INTERFACE` of `bindings/apps/src/version.rs`. */
    const val INTERFACE: Int = 1

    private const val NAME = "weft_apps"

    @Volatile private var loaded = false

    /** Loads the library if that was not done. */
    fun load() {
        if (!loaded) loadOnce()
    }

    @Synchronized
    private fun loadOnce() {
        if (loaded) return
        try {
            val file = file()
            if (file == null) {
                System.loadLibrary(NAME)
            } else {
                System.load(file)
                // uniffi's functions, which come by JNA, must be those of the same file
                System.setProperty("uniffi.component.$NAME.libraryOverride", file)
            }
            check(Jni.version(), Jni.interfaceNumber())
        } catch (e: UnsatisfiedLinkError) {
            val wanted = "a native library of version $VERSION (interface $INTERFACE)"
            throw WeftException.Library("Weft: wanted $wanted, got: ${e.message}", wanted, e.message)
        }
        loaded = true
    }

    /** Compares the native library's version and interface with ours. */
    fun check(version: String, number: Int) {
        if (version == VERSION && number == INTERFACE) return
        val wanted = "$VERSION (interface $INTERFACE)"
        val came = "$version (interface $number)"
        throw WeftException.Library(
            "Weft: the Kotlin library is version $wanted, the native library is version $came; both must come from one package",
            wanted,
            came,
        )
    }

    private fun file(): String? {
        System.getProperty("weft.library")?.takeIf { it.isNotEmpty() }?.let { return File(it).absolutePath }
        if (System.getProperty("java.vm.name") == "Dalvik") return null
        val name = System.mapLibraryName(NAME)
        val resource = "/dev/weft/native/${system()}-${processor()}/$name"
        val found = NativeLibrary::class.java.getResourceAsStream(resource) ?: return null
        val folder = Files.createTempDirectory("weft").toFile()
        folder.deleteOnExit()
        val copy = File(folder, name)
        copy.deleteOnExit()
        found.use { from -> copy.outputStream().use { from.copyTo(it) } }
        return copy.absolutePath
    }

    private fun system(): String {
        val name = System.getProperty("os.name").orEmpty().lowercase()
        return when {
            name.startsWith("mac") -> "macos"
            name.startsWith("windows") -> "windows"
            else -> "linux"
        }
    }

    private fun processor(): String =
        when (val name = System.getProperty("os.arch").orEmpty().lowercase()) {
            "amd64", "x86_64" -> "x86_64"
            "arm64", "aarch64" -> "aarch64"
            else -> name
        }
}
