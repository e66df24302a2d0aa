//! Uniffi's generator, of the version that the library has: `bindings/kotlin/test` runs it.

fn main() {
    uniffi::uniffi_bindgen_main()
}
