// Weft's Android library for Gradle: `./gradlew :publish…` needs the Android SDK, an NDK and cargo-ndk. It has not been run where this
// repository is developed (see README, "What is verified where"); `./aar` assembles the same AAR without it.
pluginManagement {
    repositories {
        google()
        mavenCentral()
        gradlePluginPortal()
    }
}
dependencyResolutionManagement {
    repositoriesMode = RepositoriesMode.FAIL_ON_PROJECT_REPOS
    repositories {
        google()
        mavenCentral()
    }
}
rootProject.name = "weft-android"
