"""What this repository says of its packages: versions, functions, headers, limits. The checker compares packages with it."""

import re
from pathlib import Path

from . import android, android_elf, apple, apple_macho, bionic, kotlin_externals, symbols_file  # noqa: F401 (rules are declared)

ROOT = Path(__file__).resolve().parents[3]
ANDROID_MINIMUM = 26
ABIS = {"arm64-v8a", "armeabi-v7a", "x86_64"}
IOS_MINIMUM, MACOS_MINIMUM, VISIONOS_MINIMUM = "16.0", "13.0", "1.0"
# bytes of a library with everything, deflated
LIMIT = 5_000_000
# classes that an AAR must have; the others come with them
CLASSES = {"dev/weft/" + n for n in ("Artifact", "CompiledGraph", "Device", "Graph", "SentenceModel", "Session", "TensorBuffer", "Weft", "WeftException",
                                    "Weights", "internal/Jni", "internal/NativeLibrary")}


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def version():
    return re.search(r'^version = "([\d.]+)"$', read("bindings/apps/Cargo.toml"), re.M)[1]


def functions():
    """C functions, those that only the apps' library has for Swift, and uniffi's."""
    names = symbols_file(read("bindings/c/symbols.txt"))
    for path in sorted((ROOT / "bindings/apps/src").rglob("*.rs")):
        names |= set(re.findall(r'extern "C" fn (weft_apps_\w+)', path.read_text(encoding="utf-8")))
    return names | kotlin_externals(read("bindings/kotlin/src/generated/kotlin/dev/weft/internal/bindings/weft_apps.kt"))


def headers(*names):
    return {n: (ROOT / "bindings/c/include" / n).read_bytes() for n in names}


def aar(abis=ABIS, limit=LIMIT):
    return android.Expected(version(), ANDROID_MINIMUM, set(abis), classes=set(CLASSES), functions=functions(), headers=headers("weft.h", "weft.hpp"),
                            shrinking=read("bindings/kotlin/src/main/rules/weft.pro"),
                            system=bionic.read(read("platforms/android/bionic.txt")), limit=limit)


# The framework, and the module that Swift imports: the Swift library itself is the module Weft.
FRAMEWORK = "CWeft"
# platform, variant, lowest version
SLICES = {"ios": ("ios", None, IOS_MINIMUM), "simulator": ("ios", "simulator", IOS_MINIMUM), "macos": ("macos", None, MACOS_MINIMUM),
          "maccatalyst": ("ios", "maccatalyst", IOS_MINIMUM), "visionos": ("xros", None, VISIONOS_MINIMUM),
          "visionos-simulator": ("xros", "simulator", VISIONOS_MINIMUM)}


def slice_of(name, architectures):
    platform, variant, minimum = SLICES[name]
    return apple.Slice(platform, variant, tuple(architectures), minimum)


def framework_headers():
    """The C library's header, and the Swift library's of what only the apps' library has."""
    found = headers("weft.h")
    own = ROOT / "bindings/swift/Sources/CWeft/weft_apps.h"
    if own.is_file():
        # in the framework the two lie side by side
        found["weft_apps.h"] = re.sub(rb'#include "[./\w]*/weft\.h"', b'#include "weft.h"', own.read_bytes())
    return found


def xcframework(slices, limit=LIMIT):
    """`slices`: name → architectures."""
    return apple.Expected(FRAMEWORK, version(), [slice_of(n, a) for n, a in slices.items()], functions=functions(),
                          headers=framework_headers(), limit=limit)
