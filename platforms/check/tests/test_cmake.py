"""A CMake project finds the prefab package's CMake configuration in an unpacked AAR, compiles against its headers and links to its library."""

import platform
import shutil
import subprocess
import unittest

from readers import elf
from tests.test_assembly import Assembling

PROJECT = """cmake_minimum_required(VERSION 3.18)
project(consumer C)
find_package(weft REQUIRED CONFIG)
add_library(consumer SHARED consumer.c)
target_compile_options(consumer PRIVATE -ffreestanding -Wall -Werror)
target_link_options(consumer PRIVATE -nostdlib)
target_link_libraries(consumer weft::weft)
"""
SOURCE = """#include "weft.h"
uint32_t consumer_version(void) { return weft_abi_version(); }
"""


@unittest.skipUnless(shutil.which("cmake") and shutil.which("cc") and platform.machine() == "x86_64" and platform.system() == "Linux",
                     "wants CMake and a C compiler for x86-64 Linux, whose libraries are Android's but for the system's")
class CMake(Assembling):
    def configure(self, aar, abi):
        (self.place / "CMakeLists.txt").write_text(PROJECT)
        (self.place / "consumer.c").write_text(SOURCE)
        shutil.unpack_archive(aar, self.place / "unpacked", "zip")
        abi = [f"-DANDROID_ABI={abi}"] if abi else []
        return subprocess.run(["cmake", "-S", str(self.place), "-B", str(self.place / "build"), f"-Dweft_DIR={self.place}/unpacked/prefab/cmake", *abi],
                              capture_output=True, text=True)

    def test_a_project_links_to_the_packages_library(self):
        told = self.configure(self.aar("one", ["x86_64"]), "x86_64")
        self.assertEqual(told.returncode, 0, told.stderr)
        told = subprocess.run(["cmake", "--build", str(self.place / "build")], capture_output=True, text=True)
        self.assertEqual(told.returncode, 0, told.stdout + told.stderr)
        made = elf.read((self.place / "build/libconsumer.so").read_bytes())
        self.assertEqual((made.needed, made.imports()), (["libweft_apps.so"], {"weft_abi_version"}))

    def test_an_abi_that_is_not_there_is_said(self):
        aar = self.aar("one", ["x86_64"])
        for abi, wanted in (("", "wanted ANDROID_ABI"), ("riscv64", "there is no library for riscv64")):
            self.assertIn(wanted, " ".join(self.configure(aar, abi).stderr.split()))

