"""The scripts that put packages together, over small libraries that have the real functions' names: what they make passes the rules."""

import hashlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as xml
from pathlib import Path

from readers import elf, macho, trees, zips
from rules import android, android_elf, apple, apple_swift, bionic, repository
from tests.good_aar import jar
from writers import classfile
from writers import elf as elf_writer
from writers import macho as macho_writer

ANDROID = repository.ROOT / "platforms/android"


def classes():
    made = {name: classfile.class_file(name) for name in repository.CLASSES}
    made["dev/weft/internal/Jni"] = classfile.class_file("dev/weft/internal/Jni", native=["version", "step"])
    return made


class Assembling(unittest.TestCase):
    """A folder for a test, in which an AAR can be put together."""

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.place = Path(self.folder.name)

    def aar(self, folder, abis):
        libraries = self.place / "libraries"
        exports = repository.functions() | {f"Java_dev_weft_internal_Jni_{n}" for n in ("version", "step")}
        for abi in abis:
            (libraries / abi).mkdir(parents=True, exist_ok=True)
            (libraries / abi / "libweft_apps.so").write_bytes(
                elf_writer.library(abi, "libweft_apps.so", exports=exports, imports=["open", "expf"], needed=["libc.so", "libm.so"]))
        (self.place / "classes.jar").write_bytes(jar({**classes(), "META-INF/versions/9/module-info": b"left out"}))
        command = [sys.executable, "-B", str(ANDROID / "assemble.py"), "--libraries", str(libraries), "--classes", str(self.place / "classes.jar"),
                   "--ndk", "27", "--versions", "2,1,5", "--out", str(self.place / folder), *(f"--abi={a}" for a in abis)]
        subprocess.run(command, check=True, capture_output=True)
        return self.place / folder / f"weft-android-{repository.version()}.aar"


class Assembly(Assembling):
    def test_an_aar_passes_the_rules_and_is_the_same_each_time(self):
        abis = sorted(repository.ABIS)
        file = self.aar("one", abis)
        self.assertEqual(android.rule.faults(android.Aar(file.read_bytes(), repository.aar())), [])
        self.assertEqual(file.read_bytes(), self.aar("two", abis).read_bytes())
        self.assertEqual(Path(f"{file}.sha256").read_text().split()[0], hashlib.sha256(file.read_bytes()).hexdigest())
        pom = xml.parse(file.with_suffix(".pom")).getroot()
        space = {"m": "http://maven.apache.org/POM/4.0.0"}
        self.assertEqual(pom.findtext("m:version", namespaces=space), repository.version())
        self.assertEqual([d.text for d in pom.findall(".//m:dependency/m:version", space)], ["2", "1", "5"])

    def test_the_command_refuses_what_a_rule_refuses(self):
        file = self.aar("one", ["x86_64"])
        check = [sys.executable, "-B", str(repository.ROOT / "platforms/check/package"), str(file)]
        told = subprocess.run(check, capture_output=True, text=True)
        self.assertEqual(told.returncode, 1)
        self.assertIn("jni/arm64-v8a/libweft_apps.so: wanted the file, got none", told.stdout)
        told = subprocess.run([*check, "--release", "--abi=x86_64"], capture_output=True, text=True)
        self.assertIn("wanted a library linked by the NDK, got a validation link", told.stdout)
        Path(f"{file}.sha256").write_text("0" * 64 + f"  {file.name}")
        self.assertIn("checksum: ", subprocess.run([*check, "--abi=x86_64"], capture_output=True, text=True).stdout)

    def test_the_script_puts_given_libraries_together_and_checks_the_result(self):
        self.aar("one", sorted(repository.ABIS))
        script = [str(ANDROID / "aar"), "--out", str(self.place / "two"), "--libraries", str(self.place / "libraries"), "--classes",
                  str(self.place / "classes.jar")]
        told = subprocess.run(script, capture_output=True, text=True)
        self.assertEqual(told.returncode, 0, told.stdout + told.stderr)
        self.assertIn("a validation link, not to be shipped", told.stdout)
        self.assertIn("0 faults", told.stdout)
        (self.place / "libraries/x86_64/libweft_apps.so").write_bytes(elf_writer.library("x86_64", "libother.so", imports=["getrandom"], needed=["libc.so"]))
        told = subprocess.run(script, capture_output=True, text=True)
        self.assertEqual(told.returncode, 1)
        self.assertRegex(told.stdout, r"elf-imports: jni/x86_64/libweft_apps.so: wanted symbols of bionic's at API 26 .*, got getrandom \(API 28\)")
        for wrong in (["--profile", "fast"], ["--abi", "mips"], ["--libraries-only"], ["--unknown"]):
            self.assertEqual(subprocess.run([*script, *wrong], capture_output=True).returncode, 2, wrong)

    def test_stand_ins_have_the_symbols_of_an_abi_and_a_level(self):
        symbols = bionic.read((ANDROID / "bionic.txt").read_text())
        self.assertNotIn("getrandom", bionic.available(symbols, "arm64-v8a", 26))
        self.assertIn("getrandom", bionic.available(symbols, "arm64-v8a", 28))
        self.assertNotIn("__aeabi_memcpy", bionic.available(symbols, "x86_64", 35))
        self.assertEqual({s.library for s in symbols.values()} - android_elf.SYSTEM, set())
        with self.assertRaisesRegex(ValueError, "line 1: wanted a new symbol"):
            bionic.read("open libc.so new")

    def test_libraries_in_an_aar_lie_at_pages(self):
        file = self.aar("one", ["arm64-v8a", "x86_64"])
        for entry in zips.read(file.read_bytes()):
            if entry.name.startswith("jni/"):
                self.assertEqual((entry.stored, entry.offset % 16384), (True, 0))
                self.assertEqual(file.read_bytes()[entry.offset : entry.offset + 4], b"\x7fELF")
                self.assertEqual(elf.read(entry.data).soname, "libweft_apps.so")


class AppleAssembly(Assembling):
    def library(self, name, architecture):
        """A library as rustc leaves it, with its debug symbols; `name` is a slice."""
        found = repository.slice_of(name, [architecture])
        path = self.place / f"{name}-{architecture}" / "libweft_apps.dylib"
        inside = "Versions/A/" if found.versioned() else ""
        parts = dict(platform=found.binary_platform(), minimum=found.minimum, install_name=f"@rpath/CWeft.framework/{inside}CWeft",
                     libraries=["/usr/lib/libSystem.B.dylib"], imports=["_fstat"], exports={"_" + n for n in repository.functions()},
                     uuid=hashlib.md5(str(path).encode()).digest())
        symbols = path.parent / (path.name + ".dSYM") / "Contents/Resources/DWARF" / path.name
        symbols.parent.mkdir(parents=True)
        path.write_bytes(macho_writer.image(architecture, **parts))
        symbols.write_bytes(macho_writer.image(architecture, **parts, kind=macho.MH_DSYM, segments=("__DWARF",)))
        return f"--binary={name}={architecture}={path}"

    def test_an_xcframework_passes_the_rules_and_is_the_same_each_time(self):
        slices = {"ios": ["arm64"], "simulator": ["arm64", "x86_64"], "macos": ["arm64", "x86_64"], "maccatalyst": ["arm64"], "visionos": ["arm64"]}
        binaries = [self.library(n, a) for n, architectures in slices.items() for a in architectures]
        made = []
        for out in ("one", "two"):
            subprocess.run([sys.executable, "-B", str(repository.ROOT / "platforms/apple/assemble.py"), *binaries, "--url", "https://example.org/1",
                            "--out", str(self.place / out)], check=True, capture_output=True)
            made.append((self.place / out / "CWeft.xcframework.zip").read_bytes())
        self.assertEqual(*made)
        expected = repository.xcframework(slices)
        for tree in (trees.folder(self.place / "one/CWeft.xcframework"), trees.archive(made[0]).below("CWeft.xcframework"),
                     trees.folder(self.place / "one/local/CWeft.xcframework")):
            self.assertEqual(apple.rule.faults(apple.XCFramework(tree, expected)), [])
        release = apple_swift.Release("CWeft", made[0], (self.place / "one/CWeft.xcframework.zip.sha256").read_text(), "CWeft.xcframework.zip",
                                      (self.place / "one/release/Package.swift").read_text(), {"iOS": "16", "macOS": "13"})
        self.assertEqual(apple_swift.rule.faults(release), [])
        check = [sys.executable, "-B", str(repository.ROOT / "platforms/check/package"), str(self.place / "one/CWeft.xcframework.zip")]
        told = subprocess.run([*check, "--manifest", str(self.place / "one/release/Package.swift")], capture_output=True, text=True)
        self.assertEqual(told.returncode, 0, told.stdout)
        told = subprocess.run([*check, "--slice=ios=arm64"], capture_output=True, text=True)
        self.assertEqual(told.returncode, 1)
        self.assertIn("xc-slices: ", told.stdout)
