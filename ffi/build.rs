//! Gives the shared library the name that programs are linked to: Rust gives it none.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let system = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    // Android's loader knows no versions in names, and Windows none at all
    match system.as_str() {
        "linux" | "freebsd" => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libweft.so.0"),
        "android" => println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libweft.so"),
        "macos" => println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libweft.0.dylib"),
        _ => {}
    }
}
