import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    alias(libs.plugins.android.library)
    alias(libs.plugins.kotlin.android)
    `maven-publish`
    signing
}

val repository = rootDir.resolve("../..")
group = "dev.weft"
// the one place that has the version
version = Regex("""^version = "([\d.]+)"$""", RegexOption.MULTILINE).find(repository.resolve("bindings/apps/Cargo.toml").readText())!!.groupValues[1]

val abis = listOf("arm64-v8a", "armeabi-v7a", "x86_64")
val natives = layout.buildDirectory.dir("natives")

// the same script as without Gradle, which calls cargo-ndk with the NDK that the Android plugin uses: jni/ABI/libweft_apps.so and prefab/
val buildNatives by tasks.registering(Exec::class) {
    description = "Builds the native libraries"
    inputs.files(fileTree(repository) { include("core/**/*.rs", "core/**/*.egg", "ffi/**/*.rs", "bindings/apps/**/*.rs", "**/Cargo.toml", "**/Cargo.lock"); exclude("**/target/**") })
    outputs.dir(natives)
    environment("ANDROID_NDK_HOME", android.ndkDirectory.path)
    commandLine("$projectDir/aar", "--libraries-only", "--out", natives.get().asFile.path)
}

android {
    namespace = "dev.weft"
    compileSdk = 36
    ndkVersion = "28.2.13676358"
    defaultConfig {
        minSdk = 26
        ndk { abiFilters += abis }
        consumerProguardFiles(repository.resolve("bindings/kotlin/src/main/rules/weft.pro"))
        aarMetadata { minCompileSdk = 34 }
    }
    sourceSets["main"].kotlin.srcDirs(repository.resolve("bindings/kotlin/src/main/kotlin"), repository.resolve("bindings/kotlin/src/generated/kotlin"))
    sourceSets["main"].jniLibs.srcDir(natives.map { it.dir("jni") })
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    packaging { jniLibs { useLegacyPackaging = false } }   // uncompressed, at multiples of a page
    publishing { singleVariant("release") { withSourcesJar() } }
}

kotlin {
    compilerOptions { jvmTarget = JvmTarget.JVM_11 }
    explicitApi()
}

tasks.named("preBuild") { dependsOn(buildNatives) }

// The plugin makes prefab packages of what its own CMake builds made; this one comes ready.
tasks.withType<Zip>().matching { it.name.startsWith("bundle") && it.name.endsWith("Aar") }.configureEach {
    dependsOn(buildNatives)
    from(natives) { include("prefab/**") }
}

dependencies {
    api(libs.coroutines.android)
    // the AAR, which has JNA's own native libraries
    implementation("net.java.dev.jna:jna:${libs.versions.jna.get()}@aar")
}

publishing {
    publications {
        register<MavenPublication>("release") {
            artifactId = "weft-android"
            afterEvaluate { from(components["release"]) }
            pom {
                name = "Weft for Android"
                description = "On-device machine learning for Kotlin and Java"
                licenses {
                    license { name = "MIT" }
                    license { name = "Apache-2.0" }
                }
            }
        }
    }
    repositories {
        maven {
            name = "folder"
            url = uri(layout.buildDirectory.dir("maven"))
        }
        // a repository of yours: -PweftRepository=URL -PweftRepositoryUser=… -PweftRepositoryPassword=…
        providers.gradleProperty("weftRepository").orNull?.let { address ->
            maven {
                name = "remote"
                url = uri(address)
                credentials {
                    username = providers.gradleProperty("weftRepositoryUser").orNull
                    password = providers.gradleProperty("weftRepositoryPassword").orNull
                }
            }
        }
    }
}

signing {
    // -PsigningKey=… (armoured) -PsigningPassword=…; without them nothing is signed
    val key = providers.gradleProperty("signingKey").orNull
    isRequired = key != null
    if (key != null) {
        useInMemoryPgpKeys(key, providers.gradleProperty("signingPassword").orNull)
        sign(publishing.publications["release"])
    }
}
