package dev.weft

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertNotEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import proguard.Configuration
import proguard.ConfigurationParser
import proguard.ProGuard
import java.io.File
import java.util.Properties
import java.util.jar.JarFile

/** A program shrunk by ProGuard with the rules that the library ships still runs. */
@Tag("tools")
class ShrunkTest {
    private class Outcome(
        val code: Int,
        val output: String,
    )

    /** Folders and jars of the library and of what it needs; of the tests only the program. */
    private val classes = File(Graph::class.java.protectionDomain.codeSource.location.toURI())
    private val tests = File(ShrunkTest::class.java.protectionDomain.codeSource.location.toURI())
    private val jars =
        System.getProperty("java.class.path").split(File.pathSeparator).map(::File).filter { file ->
            listOf("kotlin-stdlib-", "kotlinx-coroutines-core-", "jna-").any { file.name.startsWith(it) }
        }

    private fun shrink(rules: List<String>, into: File) {
        assertEquals(3, jars.size, "$jars")
        val inputs =
            listOf("-injars '$tests'(dev/weft/shrunk/**.class)", "-injars '$classes'(!META-INF/**)") +
                jars.map { "-injars '$it'(!META-INF/**)" }
        val platform = "-libraryjars '${System.getProperty("java.home")}/jmods/java.base.jmod'(!**.jar;!module-info.class)"
        // shrunk and renamed, not optimised: as the Android SDK's proguard-android.txt
        val app =
            "-dontoptimize\n-keep class dev.weft.shrunk.ProgramKt { public static void main(java.lang.String[]); }\n" +
                "-dontwarn kotlin.**,kotlinx.**,java.**,javax.**,sun.**,android.**,org.**\n-dontnote\n"
        val text = (inputs + "-outjars '$into'" + platform + app + rules).joinToString("\n")
        val configuration = Configuration()
        ConfigurationParser(text, "the test's rules", into.parentFile, Properties()).use { it.parse(configuration) }
        ProGuard(configuration).execute()
    }

    private fun run(jar: File): Outcome {
        val java = File(System.getProperty("java.home"), "bin/java").path
        val library = "-Dweft.library=${System.getProperty("weft.library")}"
        val process =
            ProcessBuilder(java, library, "-cp", jar.path, "dev.weft.shrunk.ProgramKt").redirectErrorStream(true).start()
        val output = process.inputStream.bufferedReader().readText()
        return Outcome(process.waitFor(), output)
    }

    /** The rules in the META-INF of the library and of what it needs, where R8 finds them. */
    private fun shipped(): List<String> {
        val own = classes.resolve("META-INF/proguard/weft.pro").readText()
        assertEquals(own, classes.resolve("META-INF/com.android.tools/r8/weft.pro").readText())
        val others =
            jars.flatMap { jar ->
                JarFile(jar).use { open ->
                    val rules = open.entries().asSequence().filter { it.name.startsWith("META-INF/proguard/") && !it.isDirectory }
                    rules.map { entry -> open.getInputStream(entry).bufferedReader().readText() }.toList()
                }
            }
        return others + own
    }

    @Test
    fun `with the rules that are shipped a small program runs, and what it does not use is gone`(
        @TempDir folder: File,
    ) {
        val jar = folder.resolve("shrunk.jar")
        val rules = shipped()
        shrink(rules, jar)
        val outcome = run(jar)
        assertEquals(0, outcome.code, outcome.output)
        // by hand: w = (2, −1) fits all four examples
        assertTrue(outcome.output.contains("progress true, 200 steps, w [200, -100], refused a length"), outcome.output)
        val names = JarFile(jar).use { open -> open.entries().asSequence().map { it.name }.toSet() }
        assertTrue("dev/weft/internal/Jni.class" in names)
        assertFalse("dev/weft/SentenceModel.class" in names)
        assertTrue(jar.length() < (jars.sumOf { it.length() } * 3) / 4, "${jar.length()} bytes")

        // the rules are what makes it run
        val without = folder.resolve("without.jar")
        shrink(rules.dropLast(1), without)
        assertNotEquals(0, run(without).code)
    }
}
