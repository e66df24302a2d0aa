"""What an XCFramework must be: its list of slices, each slice's framework with plist, headers, module map and privacy manifest.
The rules of the binaries are in `apple_macho`, those of the archive and Package.swift in `apple_swift`."""

import plistlib
import re
from dataclasses import dataclass, field
from xml.parsers.expat import ExpatError

from readers import FormatError, macho

from . import Rules, some

XCFRAMEWORK = "https://developer.apple.com/documentation/xcode/creating-a-multi-platform-binary-framework-bundle"
BUNDLE = "https://developer.apple.com/documentation/bundleresources/placing-content-in-a-bundle"
MACOS_BUNDLE = "https://developer.apple.com/library/archive/documentation/MacOSX/Conceptual/BPFrameworks/Concepts/FrameworkAnatomy.html"
KEYS = "https://developer.apple.com/documentation/bundleresources/information-property-list"
MODULES = "https://clang.llvm.org/docs/Modules.html#module-map-language"
PRIVACY = "https://developer.apple.com/documentation/bundleresources/privacy-manifest-files"
REASONS = "https://developer.apple.com/documentation/bundleresources/describing-use-of-required-reason-api"


@dataclass(frozen=True)
class Slice:
    """One entry of an XCFramework: a platform, its variant, its architectures, the lowest version that it runs on."""

    platform: str  # of SupportedPlatform: "ios", "macos", "xros"
    variant: str | None  # "simulator", "maccatalyst"
    architectures: tuple
    minimum: str

    def identifier(self):
        return "-".join(filter(None, (self.platform, "_".join(sorted(self.architectures)), self.variant)))

    def versioned(self):
        """Frameworks of macOS have versions, those of others are flat."""
        return self.platform == "macos" or self.variant == "maccatalyst"

    def binary_platform(self):
        """As the binary's LC_BUILD_VERSION has it."""
        return {"simulator": self.platform + "simulator", "maccatalyst": "maccatalyst"}.get(self.variant, self.platform)

    def plist_platform(self):
        """As CFBundleSupportedPlatforms has it."""
        return {"ios": "iPhoneOS", "iossimulator": "iPhoneSimulator", "macos": "MacOSX", "maccatalyst": "MacOSX", "xros": "XROS",
                "xrossimulator": "XRSimulator"}[self.binary_platform()]


@dataclass
class Expected:
    """What the repository says that the package has."""

    name: str  # of framework and module
    version: str
    slices: list
    identifier: str = "dev.weft.native"
    functions: set = field(default_factory=set)  # exactly what is exported, without the leading underscore
    headers: dict = field(default_factory=dict)  # name → bytes
    limit: int = 5_000_000  # bytes of the iOS slice, deflated


class Framework:
    """One slice's framework."""

    def __init__(self, package, entry):
        self.entry = entry
        self.identifier = str(entry.get("LibraryIdentifier"))
        name = package.expected.name
        self.place = f"{self.identifier}/{name}.framework"
        self.tree = package.tree.below(self.place)
        found = [s for s in package.expected.slices if s.identifier() == self.identifier]
        self.slice = found[0] if found else None
        versioned = bool(self.slice and self.slice.versioned())
        self.inside = "Versions/A/" if versioned else ""
        self.resources = self.inside + ("Resources/" if versioned else "")
        self.info = package.plist(f"{self.place}/{self.resources}Info.plist")
        self.binary_path = f"{self.place}/{self.inside}{name}"
        self.images = package.images(self.binary_path)
        self.symbols_path = f"{self.identifier}/dSYMs/{name}.framework.dSYM/Contents/"


class XCFramework:
    def __init__(self, tree, expected):
        self.tree, self.expected, self.broken = tree, expected, []
        self.info = self.plist("Info.plist")
        entries = self.info.get("AvailableLibraries")
        self.entries = [e for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
        self.frameworks = [Framework(self, e) for e in self.entries]

    def plist(self, path):
        data = self.tree.get(path)
        if data is None:
            return {}
        try:
            value = plistlib.loads(data)
        except (plistlib.InvalidFileException, ExpatError, ValueError) as e:
            self.broken.append((path, "a property list", str(e)))
            return {}
        return value if isinstance(value, dict) else {}

    def images(self, path):
        data = self.tree.get(path)
        if data is None:
            return []
        try:
            return macho.read(data)
        except FormatError as e:
            self.broken.append((path, e.wanted, e.came))
            return []


rule = Rules()


@rule("xc-readable", "Every file is what its name says.", XCFRAMEWORK)
def readable(package):
    return package.broken


@rule("xc-format", "Info.plist says that this is an XCFramework of format 1.0.", XCFRAMEWORK)
def format_of(package):
    for key, wanted in (("CFBundlePackageType", "XFWK"), ("XCFrameworkFormatVersion", "1.0")):
        if package.info.get(key) != wanted:
            yield "Info.plist", f"{key} {wanted}", package.info.get(key)


@rule("xc-slices", "The slices are those that are wanted: platform, variant and architectures, each once.", XCFRAMEWORK)
def slices(package):
    wanted = {s.identifier(): s for s in package.expected.slices}
    came = [e.get("LibraryIdentifier") for e in package.entries]
    if sorted(map(str, came)) != sorted(wanted):
        yield "Info.plist", some(wanted), some(map(str, came)) or "none"
    for entry in package.entries:
        found = wanted.get(entry.get("LibraryIdentifier"))
        if found is None:
            continue
        for key, value in (("SupportedPlatform", found.platform), ("SupportedPlatformVariant", found.variant),
                           ("SupportedArchitectures", sorted(found.architectures))):
            has = sorted(entry[key]) if isinstance(entry.get(key), list) else entry.get(key)
            if has != value:
                yield "Info.plist", f"{key} {value} for {found.identifier()}", has


@rule("xc-paths", "Each slice names its framework, its binary in it, and the folder of debug symbols, and these are there.", XCFRAMEWORK)
def places(package):
    for f in package.frameworks:
        name = package.expected.name
        wanted = {"LibraryPath": f"{name}.framework", "BinaryPath": f"{name}.framework/{f.inside}{name}", "DebugSymbolsPath": "dSYMs"}
        for key, value in wanted.items():
            if f.entry.get(key) != value:
                yield "Info.plist", f"{key} {value} for {f.identifier}", f.entry.get(key)
        if package.tree.get(f.binary_path) is None:
            yield f.binary_path, "the file", "none"


@rule("xc-nothing-else", "There are no files but Info.plist and those of the slices.", XCFRAMEWORK)
def nothing_else(package):
    known = {"Info.plist", "_CodeSignature"} | {f.identifier for f in package.frameworks}
    for name in package.tree.top() - known:
        yield name, "Info.plist and the slices' folders", "another"
    for f in package.frameworks:
        for name in package.tree.below(f.identifier).top() - {f"{package.expected.name}.framework", "dSYMs"}:
            yield f"{f.identifier}/{name}", "the framework and dSYMs", "another"
        inside = f.tree.below(f.inside) if f.inside else f.tree
        known = {package.expected.name, "Headers", "Modules", "_CodeSignature"}
        known |= {"Resources"} if f.inside else {"Info.plist", "PrivacyInfo.xcprivacy"}
        for name in inside.top() - known:
            yield f"{f.place}/{f.inside}{name}", "a file that a framework has", "another"


@rule("fw-layout", "A framework of macOS has versions and links to the current one; others are flat and have no links.", MACOS_BUNDLE)
def layout(package):
    for f in package.frameworks:
        wanted = {}
        if f.inside:
            wanted = {n: f"Versions/Current/{n}" for n in (package.expected.name, "Headers", "Modules", "Resources")}
            wanted["Versions/Current"] = "A"
        if f.tree.links != wanted:
            yield f.place, f"links {sorted(wanted.items())}", sorted(f.tree.links.items())


@rule("fw-info", "The framework's Info.plist has the keys that a framework needs.", KEYS)
def info(package):
    name = package.expected.name
    for f in package.frameworks:
        wanted = {"CFBundleExecutable": name, "CFBundleName": name, "CFBundlePackageType": "FMWK", "CFBundleInfoDictionaryVersion": "6.0",
                  "CFBundleIdentifier": package.expected.identifier, "CFBundleShortVersionString": package.expected.version,
                  "CFBundleDevelopmentRegion": "en"}
        if f.slice:
            wanted["CFBundleSupportedPlatforms"] = [f.slice.plist_platform()]
        for key, value in wanted.items():
            if f.info.get(key) != value:
                yield f"{f.place}/{f.resources}Info.plist", f"{key} {value}", f.info.get(key)
        if not re.fullmatch(r"\d+(\.\d+){0,2}", str(f.info.get("CFBundleVersion"))):
            yield f"{f.place}/{f.resources}Info.plist", "CFBundleVersion of one to three numbers", f.info.get("CFBundleVersion")


@rule("fw-minimum", "The plist's lowest version of the system is the wanted one.", KEYS + "/minimumosversion")
def minimum(package):
    for f in package.frameworks:
        key = "LSMinimumSystemVersion" if f.inside else "MinimumOSVersion"
        if f.slice and f.info.get(key) != f.slice.minimum:
            yield f"{f.place}/{f.resources}Info.plist", f"{key} {f.slice.minimum}", f.info.get(key)


@rule("fw-headers", "The headers are the repository's.", BUNDLE)
def headers(package):
    for f in package.frameworks:
        folder = f.inside + "Headers/"
        came = {p[len(folder):]: d for p, d in f.tree.files.items() if p.startswith(folder)}
        for name in sorted(set(came) | set(package.expected.headers)):
            if came.get(name) != package.expected.headers.get(name):
                yield f"{f.place}/{folder}{name}", "the repository's header", "none" if name not in came else "another"


@rule("fw-module", "The module map makes one framework module of the framework's name, of headers that are there.", MODULES)
def module(package):
    for f in package.frameworks:
        path = f"{f.inside}Modules/module.modulemap"
        text = (f.tree.get(path) or b"").decode("utf-8", "replace")
        found = re.findall(r"^\s*(framework\s+)?module\s+(\w+)\s*\{", text, re.M)
        if [(bool(framework), name) for framework, name in found] != [(True, package.expected.name)]:
            yield f"{f.place}/{path}", f"framework module {package.expected.name}", found or "none"
        named = re.findall(r'header\s+"([^"]+)"', text)
        if not named:
            yield f"{f.place}/{path}", "headers", "none"
        for name in named:
            if f.tree.get(f"{f.inside}Headers/{name}") is None:
                yield f"{f.place}/{path}", "headers of the framework", name
        if not re.search(r"export\s+\*", text):
            yield f"{f.place}/{path}", "export *", "a module without it"


def privacy_of(package, f):
    path = f"{f.place}/{f.resources}PrivacyInfo.xcprivacy"
    return path, package.plist(path) if package.tree.get(path) is not None else None


@rule("privacy-manifest", "There is a privacy manifest, where the platform looks for it, that has the four keys of Apple's and no others.", PRIVACY)
def privacy(package):
    for f in package.frameworks:
        path, manifest = privacy_of(package, f)
        if manifest is None:
            yield path, "the file", "none"
            continue
        wanted = {"NSPrivacyTracking": bool, "NSPrivacyTrackingDomains": list, "NSPrivacyCollectedDataTypes": list, "NSPrivacyAccessedAPITypes": list}
        for key in wanted.keys() | manifest.keys():
            if key not in wanted or not isinstance(manifest.get(key), wanted[key]):
                yield path, "the four keys, of their types", f"{key}: {manifest.get(key)!r}"


@rule("privacy-nothing-collected", "The manifest says that nobody is tracked and nothing is collected: the library has no network code.",
      "https://developer.apple.com/documentation/bundleresources/describing-data-use-in-privacy-manifests")
def nothing_collected(package):
    for f in package.frameworks:
        path, manifest = privacy_of(package, f)
        for key in ("NSPrivacyTracking", "NSPrivacyTrackingDomains", "NSPrivacyCollectedDataTypes") if manifest else ():
            if manifest.get(key):
                yield path, f"{key} false or empty", manifest[key]


FILES, BOOT, DISK, DEFAULTS = (f"NSPrivacyAccessedAPICategory{n}" for n in ("FileTimestamp", "SystemBootTime", "DiskSpace", "UserDefaults"))
# reasons that Apple accepts for a category, and the functions that fall under it
CATEGORIES = {
    FILES: ({"DDA9.1", "C617.1", "3B52.1", "0A2A.1"},
            {"stat", "fstat", "fstatat", "lstat", "getattrlist", "getattrlistbulk", "fgetattrlist", "getattrlistat"}),
    BOOT: ({"35F9.1", "8FFB.1", "3D61.1"}, {"mach_absolute_time"}),
    DISK: ({"85F4.1", "E174.1", "7D9E.1", "B728.1"}, {"statfs", "statvfs", "fstatfs", "fstatvfs"}),
    DEFAULTS: ({"CA92.1", "1C8C.1", "C56D.1", "AC6B.1"}, {"OBJC_CLASS_$_NSUserDefaults"}),
}


@rule("privacy-reasons", "The manifest names a reason that Apple knows for each category of functions that the binary calls, and no other category.", REASONS)
def reasons(package):
    for f in package.frameworks:
        path, manifest = privacy_of(package, f)
        if manifest is None:
            continue
        # _stat$INODE64 is stat, on x86-64
        called = {re.sub(r"\$(INODE64|UNIX2003|NOCANCEL).*", "", n[1:]) for image in f.images for n in image.imports}
        declared = manifest.get("NSPrivacyAccessedAPITypes")
        given = {}
        for entry in declared if isinstance(declared, list) else []:
            if isinstance(entry, dict):
                given[entry.get("NSPrivacyAccessedAPIType")] = entry.get("NSPrivacyAccessedAPITypeReasons")
        for category, (accepted, functions) in CATEGORIES.items():
            if used := functions & called:
                if not given.get(category) or not set(given[category]) <= accepted:
                    yield path, f"{category} with reasons of {some(accepted)}, for {some(used)}", given.get(category)
            elif category in given:
                yield path, f"categories whose functions are called, not {category}", given[category]
        for category in given.keys() - CATEGORIES.keys():
            yield path, "a category that the library may use", category
