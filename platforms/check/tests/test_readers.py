"""The readers against other tools, where these are there, and against damaged files: an error of theirs is a FormatError."""

import random
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from readers import FormatError, classfile, elf, macho, zips
from rules import repository
from tests import good_aar, good_xcframework
from writers import classfile as class_writer

# as Maven leaves it; there are others beside it, with natives or sources
LIBRARY = sorted(repository.ROOT.glob(f"bindings/kotlin/target/weft-{repository.version()}.jar"))


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


class Readers(unittest.TestCase):
    @unittest.skipUnless(shutil.which("readelf"), "readelf is not installed")
    def test_elf_is_read_as_readelf_reads_it(self):
        import math
        system = [p for p in map(Path, ["/lib/x86_64-linux-gnu/libm.so.6", "/lib/aarch64-linux-gnu/libm.so.6", math.__spec__.origin or ""]) if p.is_file()]
        with tempfile.TemporaryDirectory() as folder:
            for abi in good_aar.ABIS:
                Path(folder, abi).write_bytes(good_aar.library(abi))
                system.append(Path(folder, abi))
            for path in system:
                with self.subTest(path=str(path)):
                    self.same_as_readelf(path)

    def same_as_readelf(self, path):
        library = elf.read(path.read_bytes())
        rows = [line.split() for line in output("readelf", "--dyn-syms", "-W", str(path)).splitlines()]
        rows = [r for r in rows if len(r) >= 8 and r[0].rstrip(":").isdigit() and r[3] != "SECTION"]
        named = lambda keep: {r[7].split("@")[0] for r in rows if keep(r)}
        self.assertEqual(library.exports(), named(lambda r: r[6] != "UND" and r[4] != "LOCAL" and r[5] in ("DEFAULT", "PROTECTED")))
        self.assertEqual(library.imports(), named(lambda r: r[6] == "UND" and r[4] == "GLOBAL"))
        dynamic = output("readelf", "-dW", str(path))
        self.assertEqual(library.needed, [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line])
        heads = [line.split() for line in output("readelf", "-lW", str(path)).splitlines() if line.startswith("  LOAD")]
        self.assertEqual([(s.offset, s.align) for s in library.segments if s.kind == elf.PT_LOAD], [(int(h[1], 16), int(h[-1], 16)) for h in heads])

    @unittest.skipUnless(shutil.which("javap"), "javap is not installed")
    def test_classes_are_read_as_javap_reads_them(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "Jni.class")
            path.write_bytes(class_writer.class_file("dev/weft/internal/Jni", native=["step", "version"], abstract=["other"]))
            told = output("javap", "-p", "-v", str(path))
            found = classfile.read(path.read_bytes())
            self.assertIn(f"major version: {found.major}", told)
            self.assertEqual(found.native_methods(), [line.split()[-1].rstrip("();") for line in told.splitlines() if " native " in line])

    @unittest.skipUnless(shutil.which("javap") and LIBRARY, "javap is not installed, or bindings/kotlin/test has not built the Kotlin library")
    def test_the_kotlin_librarys_classes_are_read_as_javap_reads_them(self):
        entries = {e.name[:-6]: e.data for e in zips.read(LIBRARY[-1].read_bytes()) if e.name.endswith(".class")}
        self.assertLessEqual(repository.CLASSES, set(entries))
        for name in repository.CLASSES:
            told = output("javap", "-p", "-v", "-cp", str(LIBRARY[-1]), name.replace("/", "."))
            found = classfile.read(entries[name])
            self.assertEqual((found.name, found.major), (name, int(told.split("major version: ")[1].split()[0])))
            native = [line.split("(")[0].split()[-1] for line in told.splitlines() if re.match(r"  [a-z ]*\bnative [^=]*\(.*\);$", line)]
            self.assertEqual(found.native_methods(), native)
            self.assertEqual(bool(native), name == "dev/weft/internal/Jni")

    def test_damaged_files_are_errors_of_the_format(self):
        files = [(elf.read, good_aar.library("arm64-v8a")), (elf.read, good_aar.library("armeabi-v7a")),
                 (macho.read, good_xcframework.binary(good_xcframework.SLICES[1])), (macho.read, good_xcframework.binary(good_xcframework.SLICES[0])),
                 (classfile.read, class_writer.class_file("dev/weft/A", native=["f"])), (zips.read, good_aar.jar({"A": b"text" * 9}))]
        order = random.Random(1)
        for read, data in files:
            read(data)
            for _ in range(400):
                damaged = bytearray(data)
                for _ in range(order.randrange(1, 4)):
                    damaged[order.randrange(min(len(data), 2048))] = order.randrange(256)
                if order.random() < 0.3:
                    del damaged[order.randrange(len(damaged)) :]
                try:
                    read(bytes(damaged))
                except FormatError:
                    pass
