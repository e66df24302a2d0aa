//! Uniffi's generator, of the version that the library has: `bindings/apps/build` runs it.

fn main() {
    uniffi::uniffi_bindgen_main()
}
