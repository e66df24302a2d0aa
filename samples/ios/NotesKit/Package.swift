// swift-tools-version: 6.0
// The sample app's logic: `samples/ios/test` runs its tests, the app (../App) shows it.
import PackageDescription

// On a Mac Weft comes with its native library inside, as `platforms/apple/xcframework --out target/apple` makes it; elsewhere the tests link
// the library that `bindings/swift/test` builds.
#if os(macOS)
    let (weft, folder) = ("local", "../../../target/apple/local")
#else
    let (weft, folder) = ("swift", "../../../bindings/swift")
#endif

let package = Package(
    name: "NotesKit",
    platforms: [.iOS(.v16), .macOS(.v13)],
    products: [
        .library(name: "NotesKit", targets: ["NotesKit"]),
        .executable(name: "notes", targets: ["notes"]),
    ],
    dependencies: [
        .package(path: folder)
    ],
    targets: [
        .target(name: "NotesKit", dependencies: [.product(name: "Weft", package: weft)]),
        .executableTarget(name: "notes", dependencies: ["NotesKit"]),
        .testTarget(name: "NotesKitTests", dependencies: ["NotesKit"]),
    ],
    swiftLanguageModes: [.v6]
)
