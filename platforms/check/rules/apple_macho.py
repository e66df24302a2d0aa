"""What the binaries of an XCFramework and their debug symbols must be. Rules of `apple.rule`."""

import zlib

from readers import macho

from . import some
from .android_elf import described
from .apple import KEYS, XCFRAMEWORK, rule

DYLIBS = "https://developer.apple.com/library/archive/documentation/DeveloperTools/Conceptual/DynamicLibraries/100-Articles/DynamicLibraryDesignGuidelines.html"
LOADER = "https://github.com/apple-oss-distributions/xnu/blob/main/EXTERNAL_HEADERS/mach-o/loader.h"
RPATH = "https://developer.apple.com/library/archive/documentation/DeveloperTools/Conceptual/DynamicLibraries/100-Articles/RunpathDependentLibraries.html"
DSYM = "https://developer.apple.com/documentation/xcode/building-your-app-to-include-debugging-information"
PAGES = "https://developer.apple.com/documentation/apple-silicon/porting-your-macos-apps-to-apple-silicon"
SYSTEM = ("/usr/lib/", "/System/Library/Frameworks/")


def images(package):
    for f in package.frameworks:
        for image in f.images:
            yield f, f"{f.binary_path} ({image.arch})", image


@rule("bin-architectures", "The binary has exactly the slice's architectures.", XCFRAMEWORK)
def architectures(package):
    for f in package.frameworks:
        came = sorted(i.arch for i in f.images)
        if f.slice and f.images and came != sorted(f.slice.architectures):
            yield f.binary_path, some(f.slice.architectures), some(came)


@rule("bin-dynamic", "The binary is a dynamic library with two-level names, which two libraries of Rust's in one app need.", DYLIBS)
def dynamic(package):
    for _, file, image in images(package):
        if image.kind != macho.MH_DYLIB or not image.flags & macho.MH_TWOLEVEL:
            yield file, "MH_DYLIB with MH_TWOLEVEL", f"kind {image.kind}, flags {image.flags:#x}"


@rule("bin-install-name", "The install name is found by the app's runpath, and is where the framework's bundle has the binary.", RPATH)
def install_name(package):
    name = package.expected.name
    for f, file, image in images(package):
        wanted = f"@rpath/{name}.framework/{f.inside}{name}"
        if image.install_name != wanted:
            yield file, wanted, image.install_name


@rule("bin-platform", "The binary is built for the slice's platform, and runs from its lowest version on.", KEYS + "/minimumosversion")
def platform(package):
    for f, file, image in images(package):
        if f.slice and (image.platform, image.minimum) != (f.slice.binary_platform(), f.slice.minimum):
            yield file, f"{f.slice.binary_platform()} {f.slice.minimum}", f"{image.platform} {image.minimum}"


@rule("bin-system-only", "Only libraries of the system are needed.", DYLIBS)
def system_only(package):
    for _, file, image in images(package):
        if others := {path for path, _ in image.libraries if not path.startswith(SYSTEM) or ".." in path}:
            yield file, f"libraries in {some(SYSTEM)}", some(others)
        if not any(path == "/usr/lib/libSystem.B.dylib" for path, _ in image.libraries):
            yield file, "/usr/lib/libSystem.B.dylib", "no such library"


@rule("bin-no-runpaths", "The binary searches no paths of its own.", RPATH)
def no_runpaths(package):
    for _, file, image in images(package):
        if image.rpaths:
            yield file, "no LC_RPATH", some(image.rpaths)


@rule("bin-exports", "The trie, where dyld looks names up, exports the C header's functions and uniffi's, and no others but uniffi's descriptions.", LOADER)
def exports(package):
    wanted = {"_" + n for n in package.expected.functions}
    for _, file, image in images(package):
        if missing := wanted - image.exports:
            yield file, some(missing), "no such symbol"
        if more := described(image.exports) - wanted:
            yield file, "no other symbols", some(more)


@rule("bin-symbols-agree", "The symbol table has the trie's names: the linker reads the one, dyld the other.", LOADER)
def symbols_agree(package):
    for _, file, image in images(package):
        # a stripped library keeps what others may link to
        if differ := image.symbols ^ image.exports:
            yield file, "the same names in both", some(differ)


@rule("bin-pages", "Segments of arm64 binaries are aligned to 16 KB.", PAGES)
def pages(package):
    for _, file, image in images(package):
        for s in image.segments if image.arch == "arm64" else ():
            if s.address % 16384 or s.offset % 16384:
                yield file, f"{s.name} at multiples of 16384", f"address {s.address:#x}, offset {s.offset:#x}"


@rule("bin-no-writable-code", "No segment is writable and executable.", "https://developer.apple.com/documentation/apple-silicon/porting-just-in-time-compilers-to-apple-silicon")
def writable_code(package):
    for _, file, image in images(package):
        for s in image.segments:
            if s.protection & 6 == 6:
                yield file, f"{s.name} writable or executable", "both"


@rule("bin-no-leftovers", "The binary is neither encrypted, nor does it carry bitcode or debug sections.",
      "https://developer.apple.com/documentation/xcode-release-notes/xcode-14-release-notes")
def leftovers(package):
    for _, file, image in images(package):
        if image.encrypted:
            yield file, "a binary that is not encrypted", "LC_ENCRYPTION_INFO_64 with an id"
        if more := {s.name for s in image.segments} & {"__LLVM", "__DWARF"}:
            yield file, "no such segments", some(more)


@rule("dsym", "The debug symbols are a bundle with a binary of the same UUIDs.", DSYM)
def dsym(package):
    for f in package.frameworks:
        inside = f.symbols_path
        info = package.plist(inside + "Info.plist")
        if info.get("CFBundlePackageType") != "dSYM" or not str(info.get("CFBundleIdentifier", "")).startswith("com.apple.xcode.dsym."):
            yield inside + "Info.plist", "CFBundlePackageType dSYM and an identifier of com.apple.xcode.dsym.…", info.get("CFBundlePackageType")
        path = f"{inside}Resources/DWARF/{package.expected.name}"
        came = package.images(path)
        if {(i.arch, i.uuid) for i in came} != {(i.arch, i.uuid) for i in f.images}:
            yield path, "the binary's UUIDs", "others" if came else "no file"
        for image in came:
            if image.kind != macho.MH_DSYM or "__DWARF" not in {s.name for s in image.segments}:
                yield path, "MH_DSYM with a segment __DWARF", f"kind {image.kind}"


@rule("bin-uuid", "The binary has a UUID, by which crash reports find its debug symbols.", DSYM)
def uuid(package):
    for _, file, image in images(package):
        if not image.uuid or image.uuid == bytes(16):
            yield file, "LC_UUID", image.uuid


@rule("size", "The iOS binary, deflated, is under its limit.", "https://developer.apple.com/documentation/xcode/reducing-your-app-s-size")
def size(package):
    for f in package.frameworks:
        data = package.tree.get(f.binary_path)
        if f.slice and f.slice.binary_platform() == "ios" and data and (came := len(zlib.compress(data, 9))) > package.expected.limit:
            yield f.binary_path, f"{package.expected.limit} bytes at most, deflated", came


def linked_by_apple(image):
    """Whether Apple's linker wrote a binary: LC_BUILD_VERSION names its tools, and 3 is TOOL_LD (mach-o/loader.h); LLVM's is 4."""
    return 3 in image.tools
