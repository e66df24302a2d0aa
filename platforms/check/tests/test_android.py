"""Each rule of AARs refuses packages that break it, and none refuses a good one."""

import json
import unittest

from readers import elf
from rules import android, android_elf
from tests.good_aar import FUNCTIONS, JNI, MANIFEST, METADATA, RULES, Package, library
from writers import classfile

ARM = "arm64-v8a"
MODULE = "prefab/modules/weft/"


def broken(change):
    package = Package()
    change(package)
    return package


def changed_library(**changes):
    return lambda p: p.libraries.__setitem__(ARM, library(ARM, **changes))


def file(name, data):
    return lambda p: p.files.__setitem__(name, data if isinstance(data, bytes) else data.encode())


def without(name):
    return lambda p: p.left_out.add(name)


def added_class(name, **changes):
    return lambda p: p.classes.__setitem__(name, classfile.class_file(name, **changes))


def abi_json(**changes):
    return file(f"{MODULE}libs/android.{ARM}/abi.json", json.dumps({"abi": ARM, "api": 26, "ndk": 27, "stl": "none", "static": False, **changes}))


EXPORTS = [*FUNCTIONS, JNI]
# rule → changes, each of which the rule must refuse
BROKEN = {
    "aar-readable": [file(f"jni/{ARM}/libweft_apps.so", b"MZ no ELF"), lambda p: p.classes.__setitem__("dev/weft/Bad", b"\xca\xfe\xba\xbe\0\0")],
    "aar-files": [without(n) for n in ("AndroidManifest.xml", "classes.jar", "R.txt", "proguard.txt", android.METADATA_FILE, "prefab/prefab.json")],
    "aar-nothing-else": [file(".DS_Store", b""), file("../outside", b""), file("/absolute", b""), lambda p: p.twice.add("R.txt"),
                         lambda p: p.links.add("R.txt"), file("assets/model.bin", b"")],
    "manifest-namespace": [file("AndroidManifest.xml", "no xml"), file("AndroidManifest.xml", MANIFEST.replace("dev.weft", "dev.other"))],
    "manifest-minimum": [file("AndroidManifest.xml", MANIFEST.replace("26", "21")), file("AndroidManifest.xml", MANIFEST.replace("uses-sdk", "x"))],
    "manifest-asks-nothing": [file("AndroidManifest.xml", MANIFEST.replace("<uses-sdk", '<uses-permission android:name="INTERNET"/><uses-sdk'))],
    "classes-there": [lambda p: p.classes.pop("dev/weft/Device")],
    "classes-ours": [added_class("kotlin/Unit"),
                     lambda p: p.classes.__setitem__("dev/weft/Other", classfile.class_file("dev/weft/Device"))],
    "classes-version": [added_class("dev/weft/New", major=61)],
    "shrinking-keeps": [file("proguard.txt", RULES.replace(n, "other"))
                        for n in ("dev.weft.internal.Jni", "dev.weft.internal.StepListener", "com.sun.jna", "dev.weft.internal.bindings")],
    "shrinking-tested": [file("proguard.txt", RULES + "-keep class dev.weft.Other\n"), without("proguard.txt")],
    "shrinking-local": [file("proguard.txt", RULES + "-dontobfuscate\n"), file("proguard.txt", RULES + "-keep class ** { *; }\n"),
                        file("proguard.txt", RULES + "-keepattributes *\n")],
    "metadata": [file(android.METADATA_FILE, METADATA.replace("minCompileSdk=34", "minCompileSdk=new")),
                 file(android.METADATA_FILE, METADATA.replace("1.0", "2.0", 1)), file(android.METADATA_FILE, METADATA.replace("8.1.0", "8"))],
    "prefab-package": [file("prefab/prefab.json", "{}"), file("prefab/prefab.json", "no json"),
                       file("prefab/prefab.json", json.dumps({"schema_version": 2, "name": "weft", "version": "0.2.0", "dependencies": []}))],
    "prefab-module": [file(MODULE + "module.json", json.dumps({"export_libraries": ["log"], "library_name": "libweft_apps"}))],
    "prefab-headers": [file(MODULE + "include/weft.h", b"/* old */"), file(MODULE + "include/other.h", b""), without(MODULE + "include/weft.h")],
    "prefab-abis": [abi_json(api=21), abi_json(abi="x86"), abi_json(stl="c++_shared"), abi_json(ndk=19), abi_json(static=True),
                    without(f"{MODULE}libs/android.{ARM}/abi.json")],
    "prefab-same-library": [file(f"{MODULE}libs/android.{ARM}/libweft_apps.so", library(ARM, imports=[])),
                            without(f"{MODULE}libs/android.{ARM}/libweft_apps.so")],
    "prefab-cmake": [without("prefab/cmake/weft-config.cmake"), file("prefab/cmake/weft-config.cmake", "add_library(weft SHARED IMPORTED)")],
    "abis": [lambda p: p.libraries.pop("x86_64"), file("jni/arm64-v8a/libother.so", library(ARM)), file("jni/mips/libweft_apps.so", library(ARM))],
    "elf-machine": [lambda p: p.libraries.__setitem__(ARM, library("x86_64")), lambda p: p.libraries.__setitem__(ARM, library("armeabi-v7a"))],
    "elf-soname": [changed_library(soname=None), changed_library(soname="libweft.so")],
    "elf-pages": [changed_library(page=4096), changed_library(page=0)],
    "zip-pages": [lambda p: p.compressed.add(f"jni/{ARM}/libweft_apps.so"), lambda p: p.moved.add(f"jni/{ARM}/libweft_apps.so")],
    "elf-no-text-relocations": [changed_library(dynamic=[(elf.DT_TEXTREL, 0)]), changed_library(dynamic=[(elf.DT_FLAGS, elf.DF_TEXTREL)])],
    "elf-no-writable-code": [changed_library(load_flags=7), changed_library(segments=[(elf.PT_GNU_STACK, 7, 16)])],
    "elf-no-new-relocations": [changed_library(dynamic=[(elf.DT_RELR, 0)]), changed_library(dynamic=[(elf.DT_ANDROID_RELR, 0)])],
    "elf-no-tls-segment": [changed_library(segments=[(elf.PT_TLS, 4, 8)])],
    "elf-no-paths": [changed_library(dynamic=[(elf.DT_RUNPATH, 1)]), changed_library(dynamic=[(elf.DT_RPATH, 1)])],
    "elf-needed": [changed_library(needed=["libc.so", "libc++_shared.so"]), changed_library(needed=["libc.so", "/tmp/liblog.so"])],
    "elf-imports": [changed_library(imports=["open", "getrandom"]), changed_library(imports=["open", "unheard_of"]),
                    changed_library(imports=["open", "__aeabi_memcpy"])],
    "elf-imports-needed": [changed_library(imports=["open", "sin"])],
    "jni-methods": [changed_library(exports=list(FUNCTIONS))],
    "elf-exports": [changed_library(exports=[*EXPORTS, "rust_eh_personality"]), changed_library(exports=[JNI, "weft_version"]),
                    changed_library(exports=[*EXPORTS, "UNIFFI_META_of_others"])],
    "elf-stripped": [changed_library(extra_sections=[".symtab"]), changed_library(extra_sections=[".debug_info"])],
    "size": [file(f"jni/{ARM}/libweft_apps.so", library(ARM) + bytes(hash(str(n)) & 0xFF for n in range(120_000)))],
}


class Android(unittest.TestCase):
    def test_a_good_package_passes(self):
        self.assertEqual(Package().faults(), set())

    def test_every_rule_has_a_broken_package_and_a_source(self):
        self.assertEqual([r.name for r in android.rule.rules], list(dict.fromkeys(r.name for r in android.rule.rules)))
        self.assertEqual({r.name for r in android.rule.rules}, set(BROKEN))
        for r in android.rule.rules:
            self.assertRegex(r.source, r"^https://", r.name)

    def test_each_broken_package_is_refused_by_its_rule(self):
        for name, changes in BROKEN.items():
            for number, change in enumerate(changes):
                with self.subTest(rule=name, change=number):
                    self.assertIn(name, broken(change).faults())

    def test_native_names_are_those_of_jni(self):
        self.assertEqual(android_elf.mangled("a_b"), "a_1b")
        self.assertEqual(android_elf.mangled("dev/weft/é"), "dev_weft__000e9")

    def test_the_note_of_the_ndk_tells_who_linked(self):
        note = (26).to_bytes(4, "little") + b"r27c".ljust(64, b"\0") + bytes(64)
        self.assertEqual(android_elf.linked_by(elf.read(library(ARM, note=("Android", 1, note)))), "NDK r27c for API 26")
        self.assertIsNone(android_elf.linked_by(elf.read(library(ARM))))
