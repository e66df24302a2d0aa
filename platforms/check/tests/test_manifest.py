"""What Swift itself reads in the manifests: `swift package dump-package` of bindings/swift, and of the two forms that platforms/apple
writes. Left out where there is no Swift (bindings/swift/toolchain finds it)."""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

from rules import apple_swift, repository
from tests import test_assembly

ROOT = repository.ROOT
SHELL = '. "$1/bindings/swift/toolchain"; root=$1 native=$1 install=""; (find_swift) 2>/dev/null || exit 77; find_swift; with_swift "$2" package dump-package'


class Manifests(test_assembly.AppleAssembly):
    # its own tests run where they are
    test_an_xcframework_passes_the_rules_and_is_the_same_each_time = None

    def setUp(self):
        # in the repository, where Swift's folder sees it
        (ROOT / "target").mkdir(exist_ok=True)
        self.folder = tempfile.TemporaryDirectory(dir=ROOT / "target")
        self.addCleanup(self.folder.cleanup)
        self.place = Path(self.folder.name)

    def dump(self, package):
        told = subprocess.run(["bash", "-euc", SHELL, "bash", str(ROOT), str(package)], capture_output=True, text=True)
        if told.returncode == 77:
            self.skipTest("there is no Swift")
        return told

    def read(self, package):
        told = self.dump(package)
        self.assertEqual(told.returncode, 0, told.stderr)
        return json.loads(told.stdout[told.stdout.index("{"):])

    def test_swift_reads_in_the_manifests_what_apps_depend_on(self):
        url = "https://example.org/1"
        subprocess.run([*["python3", "-B", str(ROOT / "platforms/apple/assemble.py")], self.library("ios", "arm64"), "--url", url, "--out",
                        str(self.place)], check=True, capture_output=True)
        checksum = hashlib.sha256((self.place / "CWeft.xcframework.zip").read_bytes()).hexdigest()
        remote = {"url": f"{url}/CWeft.xcframework.zip", "checksum": checksum}
        cases = {self.place / "release": remote, self.place / "local": {"path": "CWeft.xcframework"}, ROOT / "bindings/swift": None}
        for package, binary in cases.items():
            with self.subTest(str(package)):
                wanted = apple_swift.Dumped(self.read(package), {"ios": "16.0", "macos": "13.0"}, binary)
                self.assertEqual(apple_swift.dumped.faults(wanted), [])
        # each rule refuses a dump with one thing changed
        good = self.read(self.place / "release")

        def refused(rule, change):
            broken = json.loads(json.dumps(good))
            change(broken)
            faults = apple_swift.dumped.faults(apple_swift.Dumped(broken, {"ios": "16.0", "macos": "13.0"}, remote))
            self.assertEqual({f.rule for f in faults}, {rule}, faults)

        def target(dump, name):
            return next(t for t in dump["targets"] if t["name"] == name)

        seen = {"dump-product": lambda d: d["products"][0].update(targets=["WeftBindings"]),
                "dump-platforms": lambda d: d["platforms"][0].update(version="18.0"),
                "dump-language": lambda d: d.update(swiftLanguageVersions=["5"]),
                "dump-dependencies": lambda d: d["dependencies"].append({"sourceControl": []}),
                "dump-targets": lambda d: target(d, "Weft")["dependencies"].pop(),
                "dump-binary": lambda d: target(d, "CWeft").update(checksum="0" * 64),
                "dump-safe": lambda d: target(d, "Weft")["settings"].append({"kind": {"unsafeFlags": {"_0": ["-Ounchecked"]}}, "tool": "swift"})}
        for rule, change in seen.items():
            with self.subTest(rule):
                refused(rule, change)
        self.assertEqual(set(seen), {r.name for r in apple_swift.dumped.rules})

    def test_a_manifest_that_is_none_is_refused_by_swift(self):
        (self.place / "Package.swift").write_text("// swift-tools-version: 6.0\nimport PackageDescription\nlet package = Package(nam: 1)\n")
        self.assertNotEqual(self.dump(self.place).returncode, 0)
