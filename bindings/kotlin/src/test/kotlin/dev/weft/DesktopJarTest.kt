package dev.weft

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.jar.JarFile
import java.util.jar.JarOutputStream
import java.util.zip.ZipEntry

/** The jar for desktop JVMs, which has the native library inside: a program needs nothing else of Weft. */
@Tag("packaged")
class DesktopJarTest {
    private val jar = File(System.getProperty("weft.jar"))
    private val tests = File(DesktopJarTest::class.java.protectionDomain.codeSource.location.toURI())
    private val others =
        System.getProperty("java.class.path").split(File.pathSeparator).filter { path ->
            listOf("kotlin-stdlib-", "kotlinx-coroutines-core-", "jna-").any { File(path).name.startsWith(it) }
        }

    private fun start(temporary: File, jar: File = this.jar): Process {
        val java = File(System.getProperty("java.home"), "bin/java").path
        val path = (listOf(jar.path, tests.path) + others).joinToString(File.pathSeparator)
        return ProcessBuilder(java, "-Djava.io.tmpdir=$temporary", "-cp", path, "dev.weft.shrunk.ProgramKt")
            .redirectErrorStream(true)
            .start()
    }

    private fun outcome(process: Process): String {
        val output = process.inputStream.bufferedReader().readText()
        return "${process.waitFor()}: $output"
    }

    @Test
    fun `six processes at once load the library of the jar, and leave nothing behind`(
        @TempDir temporary: File,
    ) {
        val running = List(6) { start(temporary) }
        for (output in running.map(::outcome)) assertTrue(output.contains("200 steps, w [200, -100]"), output)
        // of ours; JNA has its own library there
        assertEquals(emptyList<String>(), temporary.list().orEmpty().filter { it.startsWith("weft") })
    }

    /** A copy of the jar with other bytes as its native libraries; null to leave them out. */
    private fun copy(into: File, native: ByteArray?): File {
        JarFile(jar).use { from ->
            JarOutputStream(into.outputStream()).use { to ->
                for (entry in from.entries().asSequence().filter { !it.isDirectory }) {
                    val isNative = entry.name.startsWith("dev/weft/native/")
                    if (isNative && native == null) continue
                    to.putNextEntry(ZipEntry(entry.name))
                    to.write(if (isNative) native!! else from.getInputStream(entry).readBytes())
                }
            }
        }
        return into
    }

    @Test
    fun `a jar without the machine's library, or with a damaged one, says so`(
        @TempDir temporary: File,
    ) {
        fun fails(message: String, process: Process) {
            val output = outcome(process)
            assertTrue(output.startsWith("1: "), output)
            assertTrue(output.contains("WeftException\$Library: Weft: wanted a native library"), output)
            assertTrue(output.contains(message), output)
        }
        fails("no weft_apps in java.library.path", start(temporary, copy(temporary.resolve("without.jar"), null)))
        fails("libweft_apps", start(temporary, copy(temporary.resolve("damaged.jar"), ByteArray(100))))
        fails("cannot be copied to", start(temporary.resolve("nowhere")))
        assertEquals(emptyList<String>(), temporary.list().orEmpty().filter { it.startsWith("weft") })
    }
}
