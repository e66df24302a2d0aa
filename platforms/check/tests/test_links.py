"""Validation links for real: small Rust libraries against the stand-ins of the system's libraries, judged by the rules. They use what the
engine uses of Rust's standard library: threads, files, environment, panics that are caught. Targets that are not installed are left out."""

import os
import shutil
import subprocess
import unittest
from pathlib import Path

from readers import macho
from rules import android, bionic, repository
from tests import good_aar, good_xcframework
from tests.test_assembly import ANDROID, Assembling

SOURCE = """
fn work() -> i32 {
    let text = std::env::var("HOME").unwrap_or_default();
    let read = std::fs::metadata(&text).and_then(|m| m.modified()).is_ok();
    let joined = std::thread::spawn(move || text.len()).join().unwrap_or(0);
    std::thread_local!(static SEEN: std::cell::Cell<i32> = const { std::cell::Cell::new(0) });
    SEEN.with(|s| s.set(s.get() + 1));
    println!("{read} {joined} {}", (joined as f64).exp());
    joined as i32
}
"""
TARGETS = {"arm64-v8a": "aarch64-linux-android", "armeabi-v7a": "armv7-linux-androideabi", "x86_64": "x86_64-linux-android"}


def output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def functions(names, body="std::panic::catch_unwind(work).unwrap_or(-1)"):
    return SOURCE + "".join(f'#[unsafe(no_mangle)] pub extern "C" fn {n}() -> i32 {{ {body} }}\n' for n in names)


def installed(target):
    return bool(shutil.which("rustc")) and Path(output("rustc", "--print", "sysroot").strip(), "lib/rustlib", target, "lib").is_dir()


def lld():
    host = next((line[6:] for line in output("rustc", "-vV").splitlines() if line.startswith("host: ")), "")
    return Path(output("rustc", "--print", "sysroot").strip(), "lib/rustlib", host, "bin/rust-lld")


class Links(Assembling):
    def link(self, target, flavor, source, *arguments, **environment):
        (self.place / "library.rs").write_text(source)
        made = self.place / f"library-{target}"
        command = ["rustc", "--edition=2024", "--crate-type=cdylib", "-O", "--target", target, "-C", f"linker={lld()}", "-C", f"linker-flavor={flavor}",
                   "-C", "strip=symbols", "-o", str(made), str(self.place / "library.rs"), *(a for argument in arguments for a in ("-C", f"link-arg={argument}"))]
        return made, subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})

    def android(self, abi, source):
        stubs = self.place / abi
        subprocess.run([str(ANDROID / "stubs"), "--abi", abi, "--api", "26", "--out", str(stubs)], check=True)
        return self.link(TARGETS[abi], "ld.lld", source, f"-L{stubs}", "-zmax-page-size=16384", "-soname=libweft_apps.so", "-zdefs")

    def abis(self):
        found = [abi for abi, target in TARGETS.items() if installed(target)]
        if not found or not lld().is_file():
            self.skipTest("no Rust target of Android's is installed")
        return found

    def test_what_links_for_android_obeys_the_rules(self):
        package = good_aar.Package()
        for abi in self.abis():
            made, told = self.android(abi, functions([*good_aar.FUNCTIONS, good_aar.JNI]))
            self.assertEqual(told.returncode, 0, told.stderr)
            package.libraries[abi] = made.read_bytes()
        expected = good_aar.expected()
        expected.system, expected.limit = bionic.read((ANDROID / "bionic.txt").read_text()), 1 << 30
        for library in set(TARGETS) - set(self.abis()):  # small ones, which have no symbols but those of the tests' own list
            package.libraries[library] = good_aar.library(library)
        self.assertEqual([str(f) for f in android.rule.faults(android.Aar(package.data(), expected))], [])

    def test_a_symbol_that_is_too_new_ends_the_link(self):
        source = 'unsafe extern "C" { fn getrandom(to: *mut u8, size: usize, flags: u32) -> isize; }\n'
        source += functions(["weft_version"], "unsafe { getrandom(std::ptr::null_mut(), 0, 0) as i32 }")
        _, told = self.android(self.abis()[0], source)
        self.assertNotEqual(told.returncode, 0)
        self.assertIn("undefined symbol: getrandom", told.stderr)

    def test_what_links_for_ios_is_a_library_of_the_wanted_platform_and_name(self):
        system = os.environ.get("WEFT_LIBSYSTEM_TBD", "")
        if not system or not installed("aarch64-apple-ios"):
            self.skipTest("WEFT_LIBSYSTEM_TBD names no libSystem.tbd, or Rust's target for iOS is not installed")
        sdk = self.place / "sdk"
        subprocess.run([str(repository.ROOT / "platforms/apple/stubs"), "--target", "arm64-ios", "--system", system, "--out", str(sdk)], check=True)
        name = "@rpath/CWeft.framework/CWeft"
        made, told = self.link("aarch64-apple-ios", "ld64.lld", functions(good_xcframework.FUNCTIONS), "-install_name", name, "-dead_strip",
                               SDKROOT=str(sdk), IPHONEOS_DEPLOYMENT_TARGET="16.0")
        self.assertEqual(told.returncode, 0, told.stderr)
        image = macho.read(made.read_bytes())[0]
        self.assertEqual((image.arch, image.platform, image.minimum, image.install_name, image.libraries, image.exports, image.symbols, image.tools),
                         ("arm64", "ios", "16.0", name, [("/usr/lib/libSystem.B.dylib", False)], {"_" + n for n in good_xcframework.FUNCTIONS},
                          {"_" + n for n in good_xcframework.FUNCTIONS}, [4]))
