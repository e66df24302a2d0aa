// The check at load: which two versions met.

internal import CWeft

/// Compares the native library with this one, once, before anything else of it is called.
enum LibraryVersion {
    /// The version of this Swift library, and of the native library that it was made for.
    static let version = "0.1.0"

    /// The number of the native library's interface, `INTERFACE` of `bindings/apps/src/version.rs`.
    static let interface: UInt32 = 1

    /// The outcome of the comparison.
    static let checked: Result<Void, WeftError> = {
        let version = weft_version().map { String(cString: $0) } ?? ""
        return check(version: version, interface: weft_apps_interface())
    }()

    /// Compares the native library's version and interface with ours.
    static func check(version: String, interface: UInt32) -> Result<Void, WeftError> {
        if version == Self.version && interface == Self.interface {
            return .success(())
        }
        let wanted = "\(Self.version) (interface \(Self.interface))"
        let came = "\(version) (interface \(interface))"
        let message =
            "Weft: the Swift library is version \(wanted), the native library is version \(came); "
            + "both must come from one package"
        return .failure(WeftError(.library, message, wanted: wanted, came: came))
    }
}
