// swift-tools-version: 6.0
// The Swift library, over the native library of bindings/apps, which the linker finds by name: `bindings/swift/test` builds it
// and says where it is. Apps use the packages of platforms/apple, which have it inside.
import PackageDescription

let package = Package(
    name: "weft",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "Weft", targets: ["Weft"])
    ],
    targets: [
        // the C ABI, of the header in bindings/c: the data plane
        .systemLibrary(name: "CWeft"),
        // uniffi's C functions, generated
        .systemLibrary(name: "WeftFFI"),
        // uniffi's Swift, generated: the control plane; no part of the product
        .target(name: "WeftBindings", dependencies: ["WeftFFI"]),
        .target(name: "Weft", dependencies: ["CWeft", "WeftBindings"]),
        .testTarget(name: "WeftTests", dependencies: ["Weft", "WeftBindings"]),
    ],
    swiftLanguageModes: [.v6]
)
