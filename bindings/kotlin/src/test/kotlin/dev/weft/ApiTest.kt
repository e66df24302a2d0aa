package dev.weft

import kotlinx.validation.api.dump
import kotlinx.validation.api.filterOutNonPublic
import kotlinx.validation.api.loadApiFromJvmClasses
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Tag
import org.junit.jupiter.api.Test
import java.io.File

/** The public API, as callers in Kotlin and Java are compiled against it, is the one that is checked in. */
@Tag("tools")
class ApiTest {
    private val classes = File(Graph::class.java.protectionDomain.codeSource.location.toURI())
    private val listed = Samples.file("bindings/kotlin/api/weft.api")

    @Test
    fun `a change of the public API is accepted in the commit that makes it`() {
        val files = classes.walk().filter { it.extension == "class" && !it.path.contains("META-INF") }.sortedBy { it.path }
        val api = files.map { it.inputStream() }.loadApiFromJvmClasses().filterOutNonPublic(listOf("dev.weft.internal"))
        val found = api.dump(StringBuilder()).toString()
        assertTrue(found.contains("public final class dev/weft/Session") && !found.contains("dev/weft/internal"))
        if (System.getProperty("weft.write") == "true") listed.apply { parentFile.mkdirs() }.writeText(found)
        val committed = if (listed.exists()) listed.readText() else ""
        assertEquals(committed, found, "the API changed: bindings/kotlin/test --write accepts it; CHANGELOG names it")
    }
}
