"""A small AAR that obeys every rule, and what it takes to break it: the tests change one thing at a time."""

import io
import json
import struct
import warnings
import zipfile

from rules import android, bionic
from writers import classfile, elf

ABIS = ("arm64-v8a", "armeabi-v7a", "x86_64")
BIONIC = """
open libc.so 0
__aeabi_memcpy libc.so 24 armeabi-v7a
getrandom libc.so 28
sin libm.so 0
"""
MANIFEST = """<?xml version="1.0" encoding="utf-8"?>
<manifest xmlns:android="http://schemas.android.com/apk/res/android" package="dev.weft">
  <uses-sdk android:minSdkVersion="26"/>
</manifest>
"""
RULES = """# kept
-keep class dev.weft.internal.Jni { *; }
-keep interface dev.weft.internal.StepListener { *; }
-keep class dev.weft.internal.bindings.** { *; }
-keepattributes *Annotation*
-keep class com.sun.jna.** { *; }
-dontwarn java.awt.**
"""
METADATA = """aarFormatVersion=1.0
aarMetadataVersion=1.0
minCompileSdk=34
minAndroidGradlePluginVersion=8.1.0
coreLibraryDesugaringEnabled=false
"""
CMAKE = "add_library(weft::weft SHARED IMPORTED) # ${ANDROID_ABI}/libweft_apps.so"
JNI = "Java_dev_weft_internal_Jni_set_1input"
FUNCTIONS = {"weft_version", "uniffi_weft_apps_fn_x"}


def expected():
    return android.Expected("0.1.0", 26, set(ABIS), classes={"dev/weft/Device"}, functions=set(FUNCTIONS),
                            headers={"weft.h": b"/* header */"}, shrinking=RULES,
                            system=bionic.read(BIONIC), limit=100_000)


def library(abi, **changes):
    """A good library; changes as in writers.elf."""
    parts = dict(soname="libweft_apps.so", exports=[*FUNCTIONS, JNI, "UNIFFI_META_WEFT_APPS_FUNC_X"], imports=["open"], needed=["libc.so"])
    if abi == "armeabi-v7a":
        parts["imports"] = ["open", "__aeabi_memcpy"]
    return elf.library(abi, **{**parts, **changes})


def jar(classes):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in classes.items():
            archive.writestr(zipfile.ZipInfo(name + ".class"), data)
    return out.getvalue()


class Package:
    """An AAR to be: files by name, in order. `compressed`, `moved`, `links` and `twice` are names that are to be written so."""

    def __init__(self):
        self.classes = {"dev/weft/Device": classfile.class_file("dev/weft/Device"),
                        "dev/weft/internal/Jni": classfile.class_file("dev/weft/internal/Jni", native=["set_input"])}
        self.libraries = {abi: library(abi) for abi in ABIS}
        module = "prefab/modules/weft/"
        self.files = {
            "AndroidManifest.xml": MANIFEST.encode(), "R.txt": b"", "proguard.txt": RULES.encode(), android.METADATA_FILE: METADATA.encode(),
            "prefab/prefab.json": json.dumps({"schema_version": 2, "name": "weft", "version": "0.1.0", "dependencies": []}).encode(),
            module + "module.json": json.dumps({"export_libraries": [], "library_name": "libweft_apps"}).encode(),
            module + "include/weft.h": b"/* header */", "prefab/cmake/weft-config.cmake": CMAKE.encode(),
        }
        for abi in ABIS:
            self.files[f"{module}libs/android.{abi}/abi.json"] = json.dumps(
                {"abi": abi, "api": 26, "ndk": 27, "stl": "none", "static": False}).encode()
        self.compressed, self.moved, self.links, self.twice = set(), set(), set(), set()
        self.left_out = set()

    def data(self):
        files = dict(self.files)
        files["classes.jar"] = jar(self.classes)
        for abi, data in self.libraries.items():
            for name in (f"jni/{abi}/libweft_apps.so", f"prefab/modules/weft/libs/android.{abi}/libweft_apps.so"):
                files.setdefault(name, data)
        out = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
            warnings.simplefilter("ignore")  # of names twice, which some packages have on purpose
            for name, data in files.items():
                if name in self.left_out:
                    continue
                for _ in range(2 if name in self.twice else 1):
                    self.write(archive, out, name, data)
        return out.getvalue()

    def write(self, archive, out, name, data):
        info = zipfile.ZipInfo(name)
        if name in self.compressed:
            info.compress_type = zipfile.ZIP_DEFLATED
        elif name.startswith("jni/"):
            # as zipalign does: a field of extra bytes (of an identifier that nobody reads) fills up to the alignment
            gap = -(out.tell() + 30 + len(name.encode()) + 4) % 16384 + (4 if name in self.moved else 0)
            info.extra = struct.pack("<HH", 0xD935, gap) + bytes(gap)
        if name in self.links:
            info.external_attr = 0o120777 << 16
        archive.writestr(info, data)

    def faults(self):
        """Names of the rules that refuse this package."""
        import rules.android_elf  # noqa: F401 (declares rules)

        return {f.rule for f in android.rule.faults(android.Aar(self.data(), expected()))}
