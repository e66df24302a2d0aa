package dev.weft.internal

import dev.weft.WeftException
import java.io.File
import java.io.IOException
import java.nio.file.Files
import com.sun.jna.NativeLibrary as JnaLibrary

/**
 * Loads the native library, once, before anything else of it is called, and compares versions.
 *
 * It is, in this order: the file that the system property `weft.library` names; on Android, the app's `libweft_apps.so`; the one in
 * this jar for the machine's system and processor, copied to a folder of this process's own, which only its user may enter.
 */
internal object NativeLibrary {
    /** The version of this Kotlin library, and of the native library that it was made for. */
    const val VERSION: String = "0.1.0"

    /** The number of the native library's interface, `INTERFACE` of `bindings/apps/src/version.rs`. */
    const val INTERFACE: Int = 1

    private const val NAME = "weft_apps"

    @Volatile private var loaded = false

    /** Keeps the library loaded for JNA, which would look for its file again. */
    private var ofJna: JnaLibrary? = null

    /** Loads the library if that was not done. */
    fun load() {
        if (!loaded) loadOnce()
    }

    @Synchronized
    private fun loadOnce() {
        if (loaded) return
        try {
            val named = System.getProperty("weft.library")?.takeIf { it.isNotEmpty() }
            when {
                named != null -> load(File(named).absoluteFile)
                isAndroid -> load(null)
                else -> unpacked { load(it) }
            }
        } catch (e: UnsatisfiedLinkError) {
            throw missing(e.message)
        }
        loaded = true
    }

    /** Loads a file, or the app's library of our name, for JNI and for JNA. */
    private fun load(file: File?) {
        if (file == null) System.loadLibrary(NAME) else System.load(file.path)
        check(Jni.version(), Jni.interfaceNumber())
        if (file != null) {
            // uniffi's functions, which come by JNA, must be those of the same file
            System.setProperty("uniffi.component.$NAME.libraryOverride", file.path)
            ofJna = JnaLibrary.getInstance(file.path)
        }
    }

    /**
     * Copies this jar's library for this machine to a new folder, calls `load`, and deletes both: what is loaded stays without its
     * file, except on Windows, which deletes at exit. No other process knows the folder, and one that is killed leaves nothing.
     */
    private fun unpacked(load: (File?) -> Unit) {
        val name = System.mapLibraryName(NAME)
        val resource = "/dev/weft/native/${system()}-${processor()}/$name"
        // without one in the jar, where the JVM looks for libraries
        val found = NativeLibrary::class.java.getResourceAsStream(resource) ?: return load(null)
        var folder: File? = null
        var copy: File? = null
        try {
            folder = Files.createTempDirectory("weft-").toFile()
            copy = File(folder, name)
            found.use { from -> copy.outputStream().use { from.copyTo(it) } }
            load(copy)
        } catch (e: IOException) {
            throw missing("$resource, which cannot be copied to ${folder ?: System.getProperty("java.io.tmpdir")}: ${e.message}")
        } finally {
            for (file in listOfNotNull(copy, folder)) if (!file.delete()) file.deleteOnExit()
        }
    }

    private fun missing(came: String?): WeftException {
        val wanted = "a native library of version $VERSION (interface $INTERFACE)"
        return WeftException.Library("Weft: wanted $wanted, got: $came", wanted, came)
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

    private val isAndroid: Boolean get() = System.getProperty("java.vm.name") == "Dalvik"

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
