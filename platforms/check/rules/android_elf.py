"""What the native libraries of an AAR must be. Rules of `android.rule`, about `jni/<abi>/…so`."""

import re
import zlib

from readers import elf

from . import bionic, some
from .android import AAR, rule

ABIS = "https://developer.android.com/ndk/guides/abis"
CHANGES = "https://android.googlesource.com/platform/bionic/+/main/android-changes-for-ndk-developers.md"
PAGES = "https://developer.android.com/guide/practices/page-sizes"
STABLE = "https://developer.android.com/ndk/guides/stable_apis"
MAINTAINERS = "https://android.googlesource.com/platform/ndk/+/main/docs/BuildSystemMaintainers.md"
TLS = "https://android.googlesource.com/platform/bionic/+/main/docs/elf-tls.md"
JNI = "https://docs.oracle.com/en/java/javase/17/docs/specs/jni/design.html#resolving-native-method-names"
MACHINES = {"arm64-v8a": (64, elf.EM_AARCH64), "armeabi-v7a": (32, elf.EM_ARM), "x86_64": (64, elf.EM_X86_64), "x86": (32, elf.EM_386)}
# libraries that the NDK documents as stable, of those that the engine may want
SYSTEM = {"libc.so", "libm.so", "libdl.so", "liblog.so", "libandroid.so"}
PAGE = 16384


def each(aar):
    return aar.libraries


@rule("abis", "There is a library for each ABI, with the name that System.loadLibrary looks for.", AAR)
def abis(aar):
    for abi in sorted(aar.expected.abis):
        name = f"jni/{abi}/{aar.expected.library}"
        if name not in aar.files:
            yield name, "the file", "none"
    for abi, entry, _ in each(aar):
        if abi not in aar.expected.abis or entry.name != f"jni/{abi}/{aar.expected.library}":
            yield entry.name, f"{aar.expected.library} for {some(aar.expected.abis)}", "another"


@rule("elf-machine", "A library is a shared object for its folder's ABI.", ABIS)
def machine(aar):
    for abi, entry, library in each(aar):
        came = (library.bits, library.machine)
        if came != MACHINES.get(abi) or library.kind != elf.ET_DYN:
            yield entry.name, f"a shared object of {MACHINES.get(abi)} (bits, machine)", f"type {library.kind} of {came}"
        elif abi == "armeabi-v7a" and library.flags >> 24 != 5:
            yield entry.name, "EABI version 5", library.flags >> 24


@rule("elf-soname", "A library has a soname, which is its file's name: what links to it needs that name.", CHANGES + "#missing-soname-enforced-for-api-level-23")
def soname(aar):
    for _, entry, library in each(aar):
        if library.soname != aar.expected.library:
            yield entry.name, f"soname {aar.expected.library}", library.soname


@rule("elf-pages", "Loaded segments are aligned to 16 KB, and lie at the same place of a page in the file and in memory.", PAGES)
def pages(aar):
    for _, entry, library in each(aar):
        loaded = [s for s in library.segments if s.kind == elf.PT_LOAD]
        if not loaded:
            yield entry.name, "loaded segments", "none"
        for s in loaded:
            if s.align % PAGE or s.align & (s.align - 1) or not s.align or (s.offset - s.address) % s.align:
                yield entry.name, f"alignment {PAGE}", f"{s.align} for the segment at {s.address:#x} (offset {s.offset:#x})"


@rule("zip-pages", "A library lies uncompressed at a multiple of 16 KB in the archive, so that it can be mapped where it is.", PAGES)
def zip_pages(aar):
    for _, entry, _ in each(aar):
        if not entry.stored or entry.offset % PAGE:
            yield entry.name, f"stored at a multiple of {PAGE}", f"{'stored' if entry.stored else 'compressed'} at {entry.offset}"


@rule("elf-no-text-relocations", "There are no text relocations.", CHANGES + "#text-relocations-enforced-for-api-level-23")
def text_relocations(aar):
    for _, entry, library in each(aar):
        if library.tags(elf.DT_TEXTREL) or any(f & elf.DF_TEXTREL for f in library.tags(elf.DT_FLAGS)):
            yield entry.name, "no text relocations", "DT_TEXTREL"


@rule("elf-no-writable-code", "No segment is writable and executable, nor is the stack.",
      CHANGES + "#writable-and-executable-segments-enforced-for-api-level-26")
def writable_code(aar):
    for _, entry, library in each(aar):
        for s in library.segments:
            if s.kind in (elf.PT_LOAD, elf.PT_GNU_STACK) and s.flags & elf.PF_W and s.flags & elf.PF_X:
                yield entry.name, "segments that are writable or executable", f"both, at {s.address:#x}"
        if not any(s.kind == elf.PT_GNU_STACK for s in library.segments):
            yield entry.name, "PT_GNU_STACK", "none"


@rule("elf-no-new-relocations", "No relocations in formats that API 26 does not know (DT_RELR: 30, DT_ANDROID_RELR: 28).", MAINTAINERS + "#additional-required-arguments")
def new_relocations(aar):
    for _, entry, library in each(aar):
        for tag, api in ((elf.DT_RELR, 30), (elf.DT_ANDROID_RELR, 28)):
            if library.tags(tag) and aar.expected.minimum < api:
                yield entry.name, f"relocations for API {aar.expected.minimum}", f"tag {tag:#x} of API {api}"


@rule("elf-no-tls-segment", "No thread-local variables in ELF's own form, which Android knows from API 29 on.", TLS)
def tls(aar):
    for _, entry, library in each(aar):
        if any(s.kind == elf.PT_TLS for s in library.segments) and aar.expected.minimum < 29:
            yield entry.name, "no PT_TLS", "PT_TLS"


@rule("elf-no-paths", "The library searches no paths of the machine that built it.", CHANGES + "#rpath-support-available-in-api-level-24")
def paths(aar):
    for _, entry, library in each(aar):
        if library.tags(elf.DT_RPATH) or library.tags(elf.DT_RUNPATH):
            yield entry.name, "neither DT_RPATH nor DT_RUNPATH", "one"


@rule("elf-needed", "Only libraries of the system are needed, by plain names.", STABLE)
def needed(aar):
    for _, entry, library in each(aar):
        if others := set(library.needed) - SYSTEM:
            yield entry.name, f"of {some(SYSTEM)}", some(others)


@rule("elf-imports", "Every symbol that must be found is one of bionic's, for the ABI, at the lowest API level.", STABLE)
def imports(aar):
    for abi, entry, library in each(aar):
        there = bionic.available(aar.expected.system, abi, aar.expected.minimum)
        if missing := library.imports() - there:
            told = {n + (f" (API {aar.expected.system[n].api})" if n in aar.expected.system else "") for n in missing}
            yield entry.name, f"symbols of bionic's at API {aar.expected.minimum} (platforms/android/bionic.txt)", some(told, 30)


@rule("elf-imports-needed", "The libraries that have those symbols are among the needed ones.", CHANGES + "#missing-library-dependencies")
def imports_needed(aar):
    for _, entry, library in each(aar):
        homes = {aar.expected.system[n].library for n in library.imports() if n in aar.expected.system}
        if missing := homes - set(library.needed):
            yield entry.name, f"{some(missing)} among the needed libraries", some(library.needed) or "none"


def mangled(name):
    """A name as JNI writes it in a symbol."""
    special = {"_": "_1", ";": "_2", "[": "_3", "/": "_"}
    return "".join(special.get(c, c if c.isascii() and c.isalnum() else f"_0{ord(c):04x}") for c in name)


def natives(aar):
    folder = aar.expected.namespace.replace(".", "/")
    return {f"Java_{mangled(name)}_{mangled(method)}" for name, found in aar.classes.items() if name.startswith(folder)
            for method in found.native_methods() if not name.startswith(folder + "/internal/bindings/")}


@rule("jni-methods", "Each native method of the classes has its function in each library.", JNI)
def jni_methods(aar):
    for _, entry, library in each(aar):
        if missing := natives(aar) - library.exports():
            yield entry.name, some(missing), "no such symbol"


# constants in which uniffi describes its functions, for its generator: its macros export them, and 17 kB are not worth another linker
DESCRIPTIONS = re.compile(r"_?UNIFFI_META_[A-Z0-9_]+")


def described(names):
    """Names without those of uniffi's descriptions."""
    return {n for n in names if not DESCRIPTIONS.fullmatch(n)}


@rule("elf-exports", "A library exports the C header's functions, uniffi's and JNI's, and no others but uniffi's descriptions.", CHANGES + "#symbol-visibility")
def exports(aar):
    for _, entry, library in each(aar):
        wanted = aar.expected.functions | natives(aar)
        if missing := wanted - library.exports():
            yield entry.name, some(missing), "no such symbol"
        if more := described(library.exports()) - wanted:
            yield entry.name, "no other symbols", some(more)


@rule("elf-stripped", "A library carries no debug information: apps have it from a package of its own, or not at all.",
      "https://developer.android.com/build/include-native-symbols")
def stripped(aar):
    for _, entry, library in each(aar):
        if more := {s.name for s in library.sections if s.name.startswith(".debug_") or s.name == ".symtab"}:
            yield entry.name, "no symbol table and debug sections", some(more)


@rule("size", "The library of 64 bits ARM, deflated as stores deliver it, is under its limit.",
      "https://developer.android.com/topic/performance/reduce-apk-size")
def size(aar):
    for abi, entry, _ in each(aar):
        if abi == "arm64-v8a" and (came := deflated(entry.data)) > aar.expected.limit:
            yield entry.name, f"{aar.expected.limit} bytes at most, deflated", came


def deflated(data):
    """Bytes of the data, compressed as in a zip."""
    return len(zlib.compress(data, 9))


def linked_by(library):
    """Who linked a library: "NDK r27 for API 26" by the note that the NDK's crtbegin_so.o brings, else None: a validation link."""
    for owner, kind, data in library.notes:
        if owner == "Android" and kind == 1 and len(data) >= 4:
            version = data[4:68].rstrip(b"\0").decode("ascii", "replace") if len(data) >= 68 else "unknown"
            return f"NDK {version} for API {int.from_bytes(data[:4], 'little')}"
    return None
