"""A small XCFramework that obeys every rule, as a tree that tests change one thing of, and its archive with Package.swift."""

import hashlib
import io
import plistlib
import zipfile

from readers import macho as reader
from readers.trees import Tree
from rules import apple, apple_macho, apple_swift  # noqa: F401 (the second declares rules)
from writers import macho

IOS, SIMULATOR, MAC = "ios-arm64", "ios-arm64_x86_64-simulator", "macos-arm64"
SLICES = [apple.Slice("ios", None, ("arm64",), "16.0"), apple.Slice("ios", "simulator", ("arm64", "x86_64"), "16.0"),
          apple.Slice("macos", None, ("arm64",), "13.0")]
FUNCTIONS = {"weft_version", "uniffi_weft_apps_fn_x"}
HEADER = b"/* header */"
MODULE = b'framework module CWeft {\n  umbrella header "weft.h"\n  export *\n}\n'


def expected():
    return apple.Expected("CWeft", "0.1.0", SLICES, functions=set(FUNCTIONS), headers={"weft.h": HEADER}, limit=50_000)


def privacy(**changes):
    reasons = [{"NSPrivacyAccessedAPIType": apple.FILES, "NSPrivacyAccessedAPITypeReasons": ["C617.1"]}]
    manifest = {"NSPrivacyTracking": False, "NSPrivacyTrackingDomains": [], "NSPrivacyCollectedDataTypes": [], "NSPrivacyAccessedAPITypes": reasons}
    return plistlib.dumps({**manifest, **changes})


def place(found):
    """Where a slice's framework has its insides, and its resources."""
    inside = f"{found.identifier()}/CWeft.framework/" + ("Versions/A/" if found.versioned() else "")
    return inside, inside + ("Resources/" if found.versioned() else "")


def image(found, architecture, **changes):
    name = "@rpath/CWeft.framework/" + ("Versions/A/" if found.versioned() else "") + "CWeft"
    parts = dict(platform=found.binary_platform(), minimum=found.minimum, install_name=name, libraries=["/usr/lib/libSystem.B.dylib"],
                 exports=["_" + n for n in FUNCTIONS | {"UNIFFI_META_WEFT_APPS_FUNC_X"}], imports=["_fstat", "_open"], uuid=hashlib.md5((found.identifier() + architecture).encode()).digest())
    return macho.image(architecture, **{**parts, **changes})


def binary(found, **changes):
    images = [image(found, a, **changes) for a in found.architectures]
    return macho.universal(*images) if len(images) > 1 else images[0]


def info(found, **changes):
    minimum = "LSMinimumSystemVersion" if found.versioned() else "MinimumOSVersion"
    return plistlib.dumps({"CFBundleExecutable": "CWeft", "CFBundleName": "CWeft", "CFBundlePackageType": "FMWK", "CFBundleInfoDictionaryVersion": "6.0",
                           "CFBundleIdentifier": "dev.weft.native", "CFBundleShortVersionString": "0.1.0", "CFBundleVersion": "1",
                           "CFBundleDevelopmentRegion": "en", "CFBundleSupportedPlatforms": [found.plist_platform()], minimum: found.minimum, **changes})


def entry(found, **changes):
    values = {"LibraryIdentifier": found.identifier(), "LibraryPath": "CWeft.framework", "DebugSymbolsPath": "dSYMs",
              "BinaryPath": "CWeft.framework/" + ("Versions/A/" if found.versioned() else "") + "CWeft",
              "SupportedPlatform": found.platform, "SupportedArchitectures": sorted(found.architectures)}
    if found.variant:
        values["SupportedPlatformVariant"] = found.variant
    return {**values, **changes}


def root(entries, **changes):
    return plistlib.dumps({"AvailableLibraries": entries, "CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0", **changes})


def good():
    """The tree of a good XCFramework."""
    files, links = {"Info.plist": root([entry(s) for s in SLICES])}, {}
    for s in SLICES:
        inside, resources = place(s)
        files.update({inside + "CWeft": binary(s), inside + "Headers/weft.h": HEADER, inside + "Modules/module.modulemap": MODULE,
                      resources + "Info.plist": info(s), resources + "PrivacyInfo.xcprivacy": privacy()})
        symbols = f"{s.identifier()}/dSYMs/CWeft.framework.dSYM/Contents/"
        files[symbols + "Info.plist"] = plistlib.dumps({"CFBundlePackageType": "dSYM", "CFBundleIdentifier": "com.apple.xcode.dsym.dev.weft.native"})
        files[symbols + "Resources/DWARF/CWeft"] = binary(s, kind=reader.MH_DSYM, segments=("__DWARF",))
        if s.versioned():
            outer = f"{s.identifier()}/CWeft.framework/"
            links.update({outer + n: f"Versions/Current/{n}" for n in ("CWeft", "Headers", "Modules", "Resources")})
            links[outer + "Versions/Current"] = "A"
    return Tree(files, links)


def faults(tree):
    return {f.rule for f in apple.rule.faults(apple.XCFramework(tree, expected()))}


def archive(tree, folder="CWeft.xcframework", keep_links=True):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for path, data in tree.files.items():
            made.writestr(zipfile.ZipInfo(f"{folder}/{path}"), data)
        for path, target in tree.links.items() if keep_links else ():
            link = zipfile.ZipInfo(f"{folder}/{path}")
            link.create_system, link.external_attr = 3, 0o120755 << 16
            made.writestr(link, target)
    return out.getvalue()


def release(data=None, **changes):
    data = archive(good()) if data is None else data
    digest = hashlib.sha256(data).hexdigest()
    manifest = f"""// swift-tools-version: 6.0
import PackageDescription
let package = Package(name: "weft", platforms: [.iOS(.v16), .macOS(.v13)], targets: [
  .binaryTarget(name: "CWeft", url: "https://example.org/0.1.0/CWeft.xcframework.zip", checksum: "{digest}")
])
"""
    parts = dict(name="CWeft", archive=data, checksum=f"{digest}  CWeft.xcframework.zip\n", file="CWeft.xcframework.zip", manifest=manifest,
                 minimums={"iOS": "16", "macOS": "13"})
    return apple_swift.Release(**{**parts, **changes})
