"""What an AAR must be: its files, manifest, classes, prefab package and metadata. The native libraries' rules are in
`android_elf`."""

import json
import re
import xml.etree.ElementTree as xml
from dataclasses import dataclass, field

from readers import FormatError, classfile, elf, zips

from . import Rules, properties, some

AAR = "https://developer.android.com/studio/projects/android-library#aar-contents"
MANIFEST = "https://developer.android.com/guide/topics/manifest/uses-sdk-element"
PREFAB = "https://google.github.io/prefab/#package-structure"
PREFAB_ANDROID = "https://google.github.io/prefab/platform-support.html#android"
SHRINKING = "https://developer.android.com/topic/performance/app-optimization/library-optimization"
METADATA = "https://developer.android.com/build/publish-library/prep-lib-release#choose-minCompileSdk"
JVMS = "https://docs.oracle.com/javase/specs/jvms/se17/html/jvms-4.html#jvms-4.1"
ANDROID = "{http://schemas.android.com/apk/res/android}"
METADATA_FILE = "META-INF/com/android/build/gradle/aar-metadata.properties"


@dataclass
class Expected:
    """What the repository says that the package has."""

    version: str
    minimum: int  # API level
    abis: set
    namespace: str = "dev.weft"
    library: str = "libweft_apps.so"
    classes: set = field(default_factory=set)  # that must be there
    functions: set = field(default_factory=set)  # C functions and uniffi's: with JNI's, exactly what is exported
    headers: dict = field(default_factory=dict)  # name → bytes
    shrinking: str = ""  # the consumer rules that the Kotlin library's tests shrink a program with
    system: dict = field(default_factory=dict)  # bionic's symbols: name → bionic.Symbol
    limit: int = 5_000_000  # bytes of a library of 64 bits ARM, deflated


class Aar:
    """An AAR, read once."""

    def __init__(self, data, expected):
        self.expected = expected
        self.entries = zips.read(data)
        self.files = {e.name: e for e in self.entries}
        self.classes = {}
        self.broken = []  # (file, wanted, came)
        self.libraries = []  # (ABI, entry, library)
        if "classes.jar" in self.files:
            self.reading("classes.jar", self.read_classes)
        for entry in self.entries:
            if match := re.fullmatch(r"jni/([^/]+)/([^/]+\.so)", entry.name):
                self.reading(entry.name, lambda m=match, e=entry: self.libraries.append((m[1], e, elf.read(e.data))))

    def reading(self, file, read):
        try:
            read()
        except FormatError as e:
            self.broken.append((file, e.wanted, e.came))

    def read_classes(self):
        for entry in zips.read(self.files["classes.jar"].data):
            if entry.name.endswith(".class"):
                self.reading(f"classes.jar!{entry.name}", lambda e=entry: self.classes.__setitem__(e.name[:-6], classfile.read(e.data)))

    def text(self, name):
        return self.files[name].data.decode("utf-8", "replace") if name in self.files else ""

    def json(self, name):
        try:
            value = json.loads(self.text(name))
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


rule = Rules()


@rule("aar-readable", "Every file is what its name says.", AAR)
def readable(aar):
    return aar.broken


@rule("aar-files", "The files that an AAR has are there, and our consumer rules and metadata.", AAR)
def files(aar):
    for name in ("AndroidManifest.xml", "classes.jar", "R.txt", "proguard.txt", METADATA_FILE, "prefab/prefab.json"):
        if name not in aar.files:
            yield name, "the file", "none"


KNOWN = re.compile(r"AndroidManifest\.xml|classes\.jar|R\.txt|proguard\.txt|jni/[^/]+/[^/]+\.so|prefab/.+|META-INF/.+")


@rule("aar-nothing-else", "There are no other files, none twice, no links, no paths that leave the archive.", AAR)
def nothing_else(aar):
    seen = set()
    for entry in aar.entries:
        if entry.name in seen:
            yield entry.name, "one entry of a name", "a second one"
        seen.add(entry.name)
        if entry.link:
            yield entry.name, "a file", "a symbolic link"
        if entry.name.startswith("/") or ".." in entry.name.split("/") or "\\" in entry.name:
            yield entry.name, "a path inside the archive", entry.name
        elif not KNOWN.fullmatch(entry.name):
            yield entry.name, "a file that an AAR has", "another"


@rule("manifest-namespace", "The manifest is XML and names the library's package.", "https://developer.android.com/guide/topics/manifest/manifest-element")
def namespace(aar):
    root = manifest(aar)
    if root is None:
        yield "AndroidManifest.xml", "XML with a manifest element", "something else"
    elif root.get("package") != aar.expected.namespace:
        yield "AndroidManifest.xml", f'package="{aar.expected.namespace}"', root.get("package")


def manifest(aar):
    try:
        root = xml.fromstring(aar.text("AndroidManifest.xml"))
    except xml.ParseError:
        return None
    return root if root.tag == "manifest" else None


@rule("manifest-minimum", "The manifest's minSdkVersion is the lowest API level that the library runs on.", MANIFEST)
def minimum(aar):
    root = manifest(aar)
    found = [e.get(ANDROID + "minSdkVersion") for e in root.iter("uses-sdk")] if root is not None else []
    if found != [str(aar.expected.minimum)]:
        yield "AndroidManifest.xml", f"one uses-sdk with minSdkVersion {aar.expected.minimum}", found


@rule("manifest-asks-nothing", "No permissions, features, components: nothing leaves the device, and an app's manifest gets what the library's has.",
      "https://developer.android.com/build/manage-manifests#merge-manifests")
def asks_nothing(aar):
    root = manifest(aar)
    for element in root.iter() if root is not None else ():
        if element.tag not in ("manifest", "uses-sdk"):
            yield "AndroidManifest.xml", "manifest and uses-sdk only", element.tag


@rule("classes-there", "classes.jar has the library's classes.", AAR)
def classes_there(aar):
    if missing := aar.expected.classes - set(aar.classes):
        yield "classes.jar", some(missing), "no such class"


@rule("classes-ours", "classes.jar has the library's package only: a class that two AARs have stops an app's build.",
      "https://developer.android.com/build/dependencies#duplicate_classes")
def classes_ours(aar):
    folder = aar.expected.namespace.replace(".", "/") + "/"
    for name, found in aar.classes.items():
        if not name.startswith(folder):
            yield "classes.jar", f"classes in {folder}", name
        elif found.name != name:
            yield f"classes.jar!{name}.class", f"class {name}", f"class {found.name}"


@rule("classes-version", "Class files are of version 55 (Java 11) at most, which every D8 of today's Android plugins reads.", JVMS)
def classes_version(aar):
    for name, found in aar.classes.items():
        if not 50 <= found.major <= 55:
            yield f"classes.jar!{name}.class", "version 50 to 55", found.major


KEPT = ("dev.weft.internal.Jni", "dev.weft.internal.StepListener", "com.sun.jna.", "dev.weft.internal.bindings.")


@rule("shrinking-keeps", "The consumer rules keep what native code finds by name: our JNI class and listener, uniffi's callbacks and structures, JNA.", SHRINKING)
def shrinking_keeps(aar):
    text = "\n".join(line.split("#")[0] for line in aar.text("proguard.txt").splitlines())
    for name in KEPT:
        if not re.search(r"-keep\w*\b[^-]*" + re.escape(name), text):
            yield "proguard.txt", f"a -keep rule for {name}", "none"


@rule("shrinking-tested", "The consumer rules are those that the Kotlin library's tests shrink a program with, and run it on a JVM.", SHRINKING)
def shrinking_tested(aar):
    if aar.text("proguard.txt") != aar.expected.shrinking:
        yield "proguard.txt", "the rules of bindings/kotlin/src/main/rules", "others"


GLOBAL = ("-dontobfuscate", "-dontoptimize", "-dontshrink", "-dontpreverify", "-ignorewarnings", "-repackageclasses", "-allowaccessmodification",
          "-printmapping", "-printusage", "-injars", "-outjars", "-libraryjars", "-applymapping", "-flattenpackagehierarchy")


@rule("shrinking-local", "The consumer rules have no options that would change the whole app's shrinking.", SHRINKING)
def shrinking_local(aar):
    text = "\n".join(line.split("#")[0] for line in aar.text("proguard.txt").splitlines())
    for option in GLOBAL:
        if option in text:
            yield "proguard.txt", "rules for the library's own classes", option
    if re.search(r"-keep(?!attributes)\w*[^\n]*\s\*\*?\s*(\{|$)|-keepattributes\s+\*\s*$", text, re.M):
        yield "proguard.txt", "rules for the library's own classes", "a rule that keeps every class or attribute"


@rule("metadata", "aar-metadata.properties has the format's version, and what an app must be compiled with.", METADATA)
def metadata(aar):
    pairs = properties(aar.text(METADATA_FILE))
    for key, wanted in (("aarFormatVersion", r"1\.0"), ("aarMetadataVersion", r"1\.0"), ("minCompileSdk", r"[1-9]\d*"),
                        ("minAndroidGradlePluginVersion", r"\d+\.\d+\.\d+"), ("coreLibraryDesugaringEnabled", "false")):
        if not re.fullmatch(wanted, pairs.get(key, "")):
            yield METADATA_FILE, f"{key} like {wanted}", pairs.get(key)


@rule("prefab-package", "prefab.json has its schema's version, the package's name and version, and no dependencies.", PREFAB)
def prefab_package(aar):
    wanted = {"schema_version": 2, "name": "weft", "version": aar.expected.version, "dependencies": []}
    if (came := aar.json("prefab/prefab.json")) != wanted:
        yield "prefab/prefab.json", wanted, came


@rule("prefab-module", "The module names its library's file, and exports no further libraries.", PREFAB)
def prefab_module(aar):
    file = "prefab/modules/weft/module.json"
    wanted = {"export_libraries": [], "library_name": aar.expected.library.removesuffix(".so")}
    if (came := aar.json(file)) != wanted:
        yield file, wanted, came


@rule("prefab-headers", "The module's headers are those of the C library.", PREFAB)
def prefab_headers(aar):
    folder = "prefab/modules/weft/include/"
    came = {n.removeprefix(folder): e.data for n, e in aar.files.items() if n.startswith(folder)}
    for name in sorted(set(came) | set(aar.expected.headers)):
        if came.get(name) != aar.expected.headers.get(name):
            yield folder + name, "the repository's header", "none" if name not in came else "another"


@rule("prefab-abis", "Each ABI has a library and an abi.json that says which ABI, API level and C++ library it is for.", PREFAB_ANDROID)
def prefab_abis(aar):
    for abi in sorted(aar.expected.abis):
        folder = f"prefab/modules/weft/libs/android.{abi}/"
        came = aar.json(folder + "abi.json")
        for key, wanted in (("abi", abi), ("api", aar.expected.minimum), ("stl", "none"), ("static", False)):
            if came.get(key) != wanted:
                yield folder + "abi.json", f"{key} {wanted}", came.get(key)
        if not isinstance(came.get("ndk"), int) or came["ndk"] < 26:
            yield folder + "abi.json", "ndk 26 or later", came.get("ndk")


@rule("prefab-same-library", "The library that C++ is linked to is the one that the app carries.", PREFAB)
def prefab_same_library(aar):
    for abi in sorted(aar.expected.abis):
        names = f"jni/{abi}/{aar.expected.library}", f"prefab/modules/weft/libs/android.{abi}/{aar.expected.library}"
        both = [aar.files[n].data if n in aar.files else None for n in names]
        if both[0] != both[1]:
            yield names[1], f"the bytes of {names[0]}", "none" if both[1] is None else "others"


@rule("prefab-cmake", "For builds without Gradle there is a CMake configuration, which names targets as prefab does.",
      "https://cmake.org/cmake/help/latest/manual/cmake-packages.7.html#package-configuration-file")
def prefab_cmake(aar):
    file = "prefab/cmake/weft-config.cmake"
    for wanted in ("weft::weft", "ANDROID_ABI", aar.expected.library):
        if wanted not in aar.text(file):
            yield file, wanted, "a file without it" if file in aar.files else "no file"
