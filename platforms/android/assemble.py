"""Puts an AAR together from its parts. `aar` calls it; it builds nothing."""

import argparse
import hashlib
import io
import json
import struct
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "check"))
from rules import android, repository  # noqa: E402

PAGE = 16384
# what AGP 8.1 and later read (https://developer.android.com/build/publish-library/prep-lib-release); compileSdk 34 is where
# foreground services' types begin, which apps that keep a trainer alive declare
METADATA = """aarFormatVersion=1.0
aarMetadataVersion=1.0
minCompileSdk=34
minAndroidGradlePluginVersion=8.1.0
coreLibraryDesugaringEnabled=false
"""
POM = """<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>dev.weft</groupId>
  <artifactId>weft-android</artifactId>
  <version>{version}</version>
  <packaging>aar</packaging>
  <name>Weft for Android</name>
  <description>On-device machine learning for Kotlin and Java</description>
  <licenses>
    <license><name>MIT</name></license>
    <license><name>Apache-2.0</name></license>
  </licenses>
  <dependencies>
    <dependency><groupId>org.jetbrains.kotlin</groupId><artifactId>kotlin-stdlib</artifactId><version>{kotlin}</version><scope>compile</scope></dependency>
    <dependency><groupId>org.jetbrains.kotlinx</groupId><artifactId>kotlinx-coroutines-android</artifactId><version>{coroutines}</version><scope>compile</scope></dependency>
    <dependency><groupId>net.java.dev.jna</groupId><artifactId>jna</artifactId><version>{jna}</version><type>aar</type><scope>runtime</scope></dependency>
  </dependencies>
</project>
"""


def prefab(options):
    """The files of the prefab package: (name, bytes)."""
    module = "prefab/modules/weft"
    yield "prefab/prefab.json", as_json({"schema_version": 2, "name": "weft", "version": repository.version(), "dependencies": []})
    yield f"{module}/module.json", as_json({"export_libraries": [], "library_name": "libweft_apps"})
    for name, data in repository.headers("weft.h", "weft.hpp").items():
        yield f"{module}/include/{name}", data
    yield "prefab/cmake/weft-config.cmake", (HERE / "weft-config.cmake").read_bytes()
    for abi in options.abi:
        folder = f"{module}/libs/android.{abi}"
        yield f"{folder}/abi.json", as_json({"abi": abi, "api": repository.ANDROID_MINIMUM, "ndk": options.ndk, "stl": "none", "static": False})
        yield f"{folder}/libweft_apps.so", (options.libraries / abi / "libweft_apps.so").read_bytes()


def parts(options):
    """The AAR's files, in order: (name, bytes)."""
    yield "AndroidManifest.xml", (HERE / "AndroidManifest.xml").read_bytes()
    yield "classes.jar", classes_jar(options.classes.read_bytes())
    yield "R.txt", b""  # no resources
    yield "proguard.txt", (repository.ROOT / "bindings/kotlin/src/main/rules/weft.pro").read_bytes()
    yield android.METADATA_FILE, METADATA.encode()
    for licence in ("LICENSE-APACHE", "LICENSE-MIT"):
        yield f"META-INF/{licence}", (repository.ROOT / licence).read_bytes()
    yield from prefab(options)
    for abi in options.abi:
        yield f"jni/{abi}/libweft_apps.so", (options.libraries / abi / "libweft_apps.so").read_bytes()


def as_json(value):
    return (json.dumps(value, indent=2) + "\n").encode()


def classes_jar(data):
    """The classes, and what Kotlin and shrinkers read of META-INF; native libraries of desktops are left out."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as made:
        for info in sorted(source.infolist(), key=lambda i: i.filename):
            name = info.filename
            if name.endswith(".class") and "module-info" not in name or name.endswith(".kotlin_module"):
                add(made, out, name, source.read(info))
    return out.getvalue()


def add(archive, out, name, data):
    """Adds a file: always with the same date; native libraries uncompressed at multiples of a page, as zipalign -P 16 leaves them."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o100644 << 16
    if name.startswith("jni/"):
        gap = -(out.tell() + 30 + len(name.encode()) + 4) % PAGE
        # extra bytes of an identifier that APPNOTE leaves free and zipalign uses
        info.extra = struct.pack("<HH", 0xD935, gap) + bytes(gap)
    else:
        info.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(info, data, compresslevel=9)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", required=True, type=Path, help="folder with ABI/libweft_apps.so")
    parser.add_argument("--prefab-only", action="store_true", help="OUT gets the prefab package, and no AAR")
    parser.add_argument("--classes", type=Path, help="the Kotlin library's jar")
    parser.add_argument("--abi", required=True, action="append")
    parser.add_argument("--ndk", required=True, type=int, help="the NDK's major version")
    parser.add_argument("--versions", help="of kotlin,coroutines,jna")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    if options.prefab_only:
        for name, data in prefab(options):
            (options.out / name).parent.mkdir(parents=True, exist_ok=True)
            (options.out / name).write_bytes(data)
        return
    if not options.classes or not options.versions:
        parser.error("--classes and --versions are missing")
    version = repository.version()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"weft-android-{version}.aar"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in parts(options):
            add(archive, out, name, data)
    file.write_bytes(out.getvalue())
    Path(str(file) + ".sha256").write_text(f"{hashlib.sha256(out.getvalue()).hexdigest()}  {file.name}\n")
    kotlin, coroutines, jna = options.versions.split(",")
    file.with_suffix(".pom").write_text(POM.format(version=version, kotlin=kotlin, coroutines=coroutines, jna=jna))
    print(file)


main()
