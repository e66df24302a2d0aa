"""What the archive of an XCFramework and the Package.swift that names it must be."""

import hashlib
import re
from dataclasses import dataclass

from readers import FormatError, trees

from . import Rules, some

BINARY = "https://developer.apple.com/documentation/xcode/distributing-binary-frameworks-as-swift-packages"
MANIFEST = "https://docs.swift.org/swiftpm/documentation/packagedescription/"
SE272 = "https://github.com/swiftlang/swift-evolution/blob/main/proposals/0272-swiftpm-binary-dependencies.md"


@dataclass
class Release:
    """An archive, the file with its checksum, and a Package.swift in its release form."""

    name: str  # of the XCFramework
    archive: bytes
    checksum: str  # the checksum file's text: "HASH  FILE"
    file: str  # the archive's file name
    manifest: str  # Package.swift
    minimums: dict  # "iOS" → "16"


rule = Rules()


@rule("swift-archive", "The archive has the XCFramework at its root and nothing else.", BINARY)
def archive(release):
    try:
        came = trees.archive(release.archive).top()
    except FormatError as e:
        yield release.file, e.wanted, e.came
        return
    if came != {f"{release.name}.xcframework"}:
        yield release.file, f"{release.name}.xcframework", some(came)


@rule("swift-links", "Links in the archive are links, which stay inside the XCFramework.", SE272)
def links(release):
    try:
        tree = trees.archive(release.archive)
    except FormatError:
        return
    for path, target in tree.links.items():
        if target.startswith("/") or ".." in target.split("/"):
            yield path, "a link inside the XCFramework", target
    if any(p.endswith("/Versions/A/" + release.name) for p in tree.files) and not tree.links:
        yield release.file, "links of the macOS framework", "none"


@rule("swift-checksum", "The checksum beside the archive is its SHA-256, as `swift package compute-checksum` prints it.", SE272)
def checksum(release):
    wanted = f"{hashlib.sha256(release.archive).hexdigest()}  {release.file}"
    if release.checksum.strip() != wanted:
        yield release.file + ".sha256", wanted, release.checksum.strip()


@rule("swift-manifest-checksum", "Package.swift names the archive by https and with its checksum.", BINARY)
def manifest_checksum(release):
    found = re.findall(r'\.binaryTarget\(\s*name:\s*"(\w+)",\s*url:\s*"([^"]+)",\s*checksum:\s*"([^"]+)"', release.manifest)
    wanted = hashlib.sha256(release.archive).hexdigest()
    if len(found) != 1:
        yield "Package.swift", "one binaryTarget with url and checksum", len(found)
        return
    name, url, came = found[0]
    if name != release.name:
        yield "Package.swift", f"a target {release.name}", name
    if not url.startswith("https://") or not url.endswith("/" + release.file):
        yield "Package.swift", f"https://…/{release.file}", url
    if came != wanted:
        yield "Package.swift", f"checksum {wanted}", came


@rule("swift-manifest-platforms", "Package.swift has the lowest versions that the frameworks have.", MANIFEST)
def manifest_platforms(release):
    came = dict(re.findall(r"\.(iOS|macOS|visionOS|macCatalyst)\(\.v(\w+)\)", release.manifest))
    if came != release.minimums:
        yield "Package.swift", release.minimums, came


@rule("swift-manifest-safe", "Package.swift begins with its tools' version, and has no unsafe flags: packages with such cannot be depended on.", MANIFEST)
def manifest_safe(release):
    if not re.match(r"// swift-tools-version:\s*\d+\.\d+\n", release.manifest):
        yield "Package.swift", "// swift-tools-version: in the first line", release.manifest.split("\n")[0]
    if "unsafeFlags" in release.manifest:
        yield "Package.swift", "no unsafe flags", "unsafeFlags"


@dataclass
class Dumped:
    """What `swift package dump-package` says of a Package.swift."""

    dump: dict
    minimums: dict  # "ios" → "16.0"
    binary: dict | None  # of the native library's target: url and checksum, or path; None for a library that the linker finds by name

    def targets(self):
        return {t["name"]: t for t in self.dump["targets"] if t["type"] != "test"}

    def needs(self, name):
        """Names of what a target depends on."""
        found = self.targets().get(name, {"dependencies": []})["dependencies"]
        return sorted(d["byName"][0] if "byName" in d else str(d) for d in found)


dumped = Rules()


@dumped("dump-product", "The package has one product, the library Weft, of the target Weft alone: what is below it is no part of the interface.", MANIFEST)
def dump_product(package):
    came = [(p["name"], p["targets"], next(iter(p["type"]))) for p in package.dump["products"]]
    if came != [("Weft", ["Weft"], "library")]:
        yield "Package.swift", "one product: library Weft of target Weft", came


@dumped("dump-platforms", "The package's platforms have the lowest versions that the frameworks have.", MANIFEST)
def dump_platforms(package):
    came = {p["platformName"]: p["version"] for p in package.dump["platforms"]}
    if came != package.minimums:
        yield "Package.swift", package.minimums, came


@dumped("dump-language", "The package is compiled in language mode 6.", MANIFEST)
def dump_language(package):
    if package.dump["swiftLanguageVersions"] != ["6"]:
        yield "Package.swift", ["6"], package.dump["swiftLanguageVersions"]


@dumped("dump-dependencies", "The package depends on no other package.", MANIFEST)
def dump_dependencies(package):
    if package.dump["dependencies"]:
        yield "Package.swift", "no dependencies", package.dump["dependencies"]


@dumped("dump-targets", "The targets are the library, uniffi's Swift below it, and the two C modules, each over what it imports.", MANIFEST)
def dump_targets(package):
    # uniffi's C functions are in the native library, which is a target of its own where there is a framework
    wanted = {"Weft": ["CWeft", "WeftBindings"], "WeftBindings": (["CWeft"] if package.binary else []) + ["WeftFFI"], "WeftFFI": [], "CWeft": []}
    came = {name: package.needs(name) for name in package.targets()}
    if came != wanted:
        yield "Package.swift", wanted, came


@dumped("dump-binary", "The native library is the XCFramework, by its place or by https and checksum; where there is none, the linker finds it.", BINARY)
def dump_binary(package):
    target = package.targets().get("CWeft", {})
    came = {"type": target.get("type"), **{key: target[key] for key in ("url", "checksum", "path") if target.get(key) is not None}}
    wanted = {"type": "binary", **package.binary} if package.binary else {"type": "system"}
    if came != wanted:
        yield "Package.swift", wanted, came


@dumped("dump-safe", "No target has unsafe flags: packages with such cannot be depended on.", MANIFEST)
def dump_safe(package):
    for name, target in package.targets().items():
        if "unsafeFlags" in str(target["settings"]):
            yield "Package.swift", f"no unsafe flags of {name}", target["settings"]
