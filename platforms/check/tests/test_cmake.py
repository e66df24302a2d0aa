"""A CMake project finds the prefab package's CMake configuration in an unpacked AAR, compiles against its headers and links to its library."""

import platform
import shutil
import subprocess
import unittest

from readers import elf
from rules import repository
from tests.test_assembly import Assembling

PROJECT = """cmake_minimum_required(VERSION 3.18)
project(consumer C CXX)
find_package(weft REQUIRED CONFIG)
set(CMAKE_CXX_STANDARD 17)
add_library(consumer SHARED consumer.c wrapper.cpp)
target_compile_options(consumer PRIVATE -Wall -Werror)
target_link_options(consumer PRIVATE -nostdlib)
target_link_libraries(consumer weft::weft)
"""
SOURCE = """#include "weft.h"
uint32_t consumer_version(void) { return weft_abi_version(); }
"""
WRAPPER = """#include "weft.hpp"
float consumer_sum(const char *model) {
  weft::Graph g;
  g.output("sum", g(weft_op_relu, g.input("x", WEFT_DTYPE_F32, {1, 64})));
  auto session = weft::Device::open("cpu").compile(g).init(weft::Weights::load(model));
  session.step();
  return session.read_output("sum").at(0);
}
"""


@unittest.skipUnless(shutil.which("cmake") and shutil.which("cc") and shutil.which("c++") and platform.machine() == "x86_64" and platform.system() == "Linux",
                     "wants CMake and compilers for x86-64 Linux, whose libraries are Android's but for the system's")
class CMake(Assembling):
    def configure(self, aar, abi):
        (self.place / "CMakeLists.txt").write_text(PROJECT)
        (self.place / "consumer.c").write_text(SOURCE)
        (self.place / "wrapper.cpp").write_text(WRAPPER)
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
        self.assertEqual(made.needed, ["libweft_apps.so"])
        found = {name for name in made.imports() if name.startswith("weft_")}
        self.assertLessEqual({"weft_abi_version", "weft_op_relu", "weft_session_step", "weft_weights_load"}, found)
        self.assertLessEqual(found, repository.functions())

    def test_an_abi_that_is_not_there_is_said(self):
        aar = self.aar("one", ["x86_64"])
        for abi, wanted in (("", "wanted ANDROID_ABI"), ("riscv64", "there is no library for riscv64")):
            self.assertIn(wanted, " ".join(self.configure(aar, abi).stderr.split()))

