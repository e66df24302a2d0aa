// Find it, teach it: open this folder in Android Studio. Weft itself is taken from a local Maven repository: README.md says how it gets there.
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
        mavenLocal { content { includeGroup("dev.weft") } }
        google()
        mavenCentral()
    }
}

rootProject.name = "notes"
include(":notes", ":app")
