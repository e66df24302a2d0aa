plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
    alias(libs.plugins.kotlin.compose)
}

android {
    namespace = "dev.weft.samples.notes.app"
    compileSdk = 36
    defaultConfig {
        applicationId = "dev.weft.samples.notes"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
    }
    buildTypes {
        release {
            isMinifyEnabled = true
            proguardFiles(getDefaultProguardFile("proguard-android-optimize.txt"))
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }
    buildFeatures { compose = true }
    // the model is read once, when it is copied out: pressing it again would cost time at each build, and save little
    androidResources { noCompress += "safetensors" }
    // models/minilm/… in the assets: samples/models/fetch minilm puts it there
    sourceSets["main"].assets.srcDir("../../models/assets")
}

kotlin { jvmToolchain(17) }

val model by tasks.registering(Copy::class) {
    description = "Copies MiniLM, which samples/models/fetch has fetched, to where assets are taken from"
    from("../../models/minilm")
    into("../../models/assets/minilm")
    doFirst { check(file("../../models/minilm/config.json").exists()) { "run samples/models/fetch minilm first" } }
}
tasks.named("preBuild") { dependsOn(model) }

dependencies {
    implementation(project(":notes"))
    implementation(libs.weft.android)
    implementation(libs.activity.compose)
    implementation(libs.lifecycle.viewmodel)
    implementation(libs.lifecycle.runtime)
    implementation(platform(libs.compose.bom))
    implementation(libs.compose.material3)
    implementation(libs.coroutines.android)
}
