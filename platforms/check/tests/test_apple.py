"""Each rule of XCFrameworks and of their Swift packages refuses packages that break it, and none refuses a good one."""

import plistlib
import unittest

from readers import macho as reader
from readers import trees
from rules import apple, apple_swift
from tests import good_xcframework as g

IOS, SIMULATOR, MAC = g.SLICES
INSIDE, RESOURCES = g.place(IOS)
MAC_INSIDE, MAC_RESOURCES = g.place(MAC)
SYMBOLS = "ios-arm64/dSYMs/CWeft.framework.dSYM/Contents/"


def file(path, data):
    return lambda t: t.files.__setitem__(path, data)


def without(path):
    return lambda t: t.files.pop(path)


def binary(**changes):
    """The iOS binary changed, with debug symbols of the same UUID."""
    return file(INSIDE + "CWeft", g.binary(IOS, **changes))


def entries(*changed):
    return file("Info.plist", g.root(list(changed)))


def info(**changes):
    return file(RESOURCES + "Info.plist", g.info(IOS, **changes))


def privacy(**changes):
    return file(RESOURCES + "PrivacyInfo.xcprivacy", g.privacy(**changes))


def reason(category, *reasons):
    return {"NSPrivacyAccessedAPIType": category, "NSPrivacyAccessedAPITypeReasons": list(reasons)}


GOOD = [g.entry(s) for s in g.SLICES]
EXPORTS = ["_" + n for n in g.FUNCTIONS]
SYSTEM = "/usr/lib/libSystem.B.dylib"
BROKEN = {
    "xc-readable": [file("Info.plist", b"no plist"), file(INSIDE + "CWeft", b"\x7fELF" + bytes(60)), file(RESOURCES + "Info.plist", b"<plist>"),
                    file(INSIDE + "CWeft", g.binary(IOS)[:300])],
    "xc-format": [file("Info.plist", g.root(GOOD, CFBundlePackageType="FMWK")), file("Info.plist", g.root(GOOD, XCFrameworkFormatVersion="2.0"))],
    "xc-slices": [entries(*GOOD[:2]), entries(*GOOD, GOOD[0]), entries(g.entry(IOS, SupportedArchitectures=["x86_64"]), *GOOD[1:]),
                  entries(GOOD[0], {k: v for k, v in GOOD[1].items() if k != "SupportedPlatformVariant"}, GOOD[2]),
                  entries(g.entry(IOS, SupportedPlatform="tvos"), *GOOD[1:])],
    "xc-paths": [entries(g.entry(IOS, LibraryPath="Other.framework"), *GOOD[1:]), entries(g.entry(IOS, BinaryPath="CWeft"), *GOOD[1:]),
                 entries({k: v for k, v in GOOD[0].items() if k != "DebugSymbolsPath"}, *GOOD[1:]), without(INSIDE + "CWeft")],
    "xc-nothing-else": [file(".DS_Store", b""), file("ios-arm64/notes.txt", b""), file(INSIDE + "libother.dylib", b""), file("tvos-arm64/x", b""),
                        file(MAC_INSIDE + "Info.plist", b"")],
    "fw-layout": [lambda t: t.links.clear(), lambda t: t.links.__setitem__("macos-arm64/CWeft.framework/Versions/Current", "B"),
                  lambda t: t.links.__setitem__("ios-arm64/CWeft.framework/Current", "A")],
    "fw-info": [info(CFBundlePackageType="APPL"), info(CFBundleExecutable="Weft"), info(CFBundleShortVersionString="0.1.0-beta"),
                info(CFBundleVersion="1.2.3.4"), info(CFBundleSupportedPlatforms=["iPhoneSimulator"]), without(RESOURCES + "Info.plist"),
                info(CFBundleIdentifier="dev.weft")],
    "fw-minimum": [info(MinimumOSVersion="15.0"), file(MAC_RESOURCES + "Info.plist", g.info(MAC, LSMinimumSystemVersion="12.0"))],
    "fw-headers": [without(INSIDE + "Headers/weft.h"), file(INSIDE + "Headers/weft.h", b"/* old */"), file(INSIDE + "Headers/private.h", b"")],
    "fw-module": [file(INSIDE + "Modules/module.modulemap", g.MODULE.replace(b"framework ", b"")),
                  file(INSIDE + "Modules/module.modulemap", g.MODULE.replace(b"CWeft", b"Other")), without(INSIDE + "Modules/module.modulemap"),
                  file(INSIDE + "Modules/module.modulemap", g.MODULE.replace(b"weft.h", b"gone.h")),
                  file(INSIDE + "Modules/module.modulemap", g.MODULE.replace(b"export *", b""))],
    "privacy-manifest": [without(RESOURCES + "PrivacyInfo.xcprivacy"), without(MAC_RESOURCES + "PrivacyInfo.xcprivacy"), privacy(NSPrivacyTracking="no"),
                         privacy(NSPrivacyOther=[])],
    "privacy-nothing-collected": [privacy(NSPrivacyTracking=True), privacy(NSPrivacyTrackingDomains=["example.org"])],
    "privacy-reasons": [privacy(NSPrivacyAccessedAPITypes=[]), privacy(NSPrivacyAccessedAPITypes=[reason(apple.FILES, "XXXX.1")]),
                        privacy(NSPrivacyAccessedAPITypes=[reason(apple.FILES, "C617.1"), reason(apple.BOOT, "35F9.1")]),
                        privacy(NSPrivacyAccessedAPITypes=[reason(apple.FILES, "C617.1"), reason("NSPrivacyAccessedAPICategoryOther", "A")]),
                        binary(imports=["_mach_absolute_time", "_fstat"])],
    "bin-architectures": [file(INSIDE + "CWeft", g.image(IOS, "x86_64")),
                          file("ios-arm64_x86_64-simulator/CWeft.framework/CWeft", g.image(SIMULATOR, "arm64"))],
    "bin-dynamic": [binary(kind=2), binary(flags=0x5)],
    "bin-install-name": [binary(install_name="/usr/local/lib/libweft.dylib"), binary(install_name=None),
                         file(MAC_INSIDE + "CWeft", g.binary(MAC, install_name="@rpath/CWeft.framework/CWeft"))],
    "bin-platform": [binary(platform="macos"), binary(minimum="17.0"), binary(platform=None), binary(platform="iossimulator")],
    "bin-system-only": [binary(libraries=[SYSTEM, "/opt/homebrew/lib/libz.dylib"]), binary(libraries=[SYSTEM, "@rpath/libother.dylib"]), binary(libraries=[])],
    "bin-no-runpaths": [binary(rpaths=["/Users/build/lib"])],
    "bin-exports": [binary(exports=[*EXPORTS, "_rust_eh_personality"]), binary(exports=EXPORTS[:1])],
    "bin-symbols-agree": [binary(trie=EXPORTS[:1])],
    "bin-pages": [binary(page=4096)],
    "bin-no-writable-code": [binary(protection=7)],
    "bin-no-leftovers": [binary(segments=("__TEXT", "__LLVM")), binary(encrypted=True), binary(segments=("__TEXT", "__DWARF"))],
    "bin-uuid": [binary(uuid=None), binary(uuid=bytes(16))],
    "dsym": [without(SYMBOLS + "Resources/DWARF/CWeft"), without(SYMBOLS + "Info.plist"), binary(uuid=b"another build..."),
             file(SYMBOLS + "Resources/DWARF/CWeft", g.binary(IOS))],
    "size": [file(INSIDE + "CWeft", g.binary(IOS) + bytes(hash(str(n)) & 0xFF for n in range(80_000)))],
}

TREE = g.good()


def moved(tree):
    tree.links["macos-arm64/CWeft.framework/Headers"] = "/usr/include"
    return tree


BROKEN_RELEASES = {
    "swift-archive": [g.release(g.archive(TREE, "Build/CWeft.xcframework")), g.release(b"no zip")],
    "swift-links": [g.release(g.archive(TREE, keep_links=False)), g.release(g.archive(moved(g.good())))],
    "swift-checksum": [g.release(checksum="0" * 64 + "  CWeft.xcframework.zip"), g.release(checksum=""), g.release(file="Other.zip")],
    "swift-manifest-checksum": [g.release(archive=g.archive(TREE) + b"\0"), g.release(manifest="// swift-tools-version: 6.0\n"),
                                g.release(manifest=g.release().manifest.replace("https", "http"))],
    "swift-manifest-platforms": [g.release(manifest=g.release().manifest.replace(".v16", ".v15")), g.release(minimums={"iOS": "16"})],
    "swift-manifest-safe": [g.release(manifest=g.release().manifest.replace("// swift-tools", "// tools")),
                            g.release(manifest=g.release().manifest + '.unsafeFlags(["-O"])')],
}


class Apple(unittest.TestCase):
    def test_a_good_package_passes(self):
        self.assertEqual(g.faults(g.good()), set())

    def test_every_rule_has_a_broken_package_and_a_source(self):
        self.assertEqual({r.name for r in apple.rule.rules}, set(BROKEN))
        self.assertEqual({r.name for r in apple_swift.rule.rules}, set(BROKEN_RELEASES))
        for r in apple.rule.rules + apple_swift.rule.rules:
            self.assertRegex(r.source, r"^https://", r.name)

    def test_each_broken_package_is_refused_by_its_rule(self):
        for name, changes in BROKEN.items():
            for number, change in enumerate(changes):
                with self.subTest(rule=name, change=number):
                    tree = g.good()
                    change(tree)
                    self.assertIn(name, g.faults(tree))

    def test_a_good_release_passes(self):
        self.assertEqual(apple_swift.rule.faults(g.release()), [])

    def test_each_broken_release_is_refused_by_its_rule(self):
        for name, releases in BROKEN_RELEASES.items():
            for number, release in enumerate(releases):
                with self.subTest(rule=name, release=number):
                    self.assertIn(name, {f.rule for f in apple_swift.rule.faults(release)})

    def test_an_archive_is_read_as_its_folder_was(self):
        tree = trees.archive(g.archive(TREE)).below("CWeft.xcframework")
        self.assertEqual((tree.files, tree.links), (TREE.files, TREE.links))
        self.assertEqual(tree.get("macos-arm64/CWeft.framework/Headers/weft.h"), g.HEADER)

    def test_identifiers_are_as_xcodebuild_writes_them(self):
        self.assertEqual([s.identifier() for s in g.SLICES], [g.IOS, g.SIMULATOR, g.MAC])
        self.assertEqual(plistlib.loads(TREE.files["Info.plist"])["AvailableLibraries"][0]["LibraryIdentifier"], g.IOS)
        self.assertEqual(reader.read(TREE.files[INSIDE + "CWeft"])[0].minimum, "16.0")
