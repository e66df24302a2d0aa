"""Puts an XCFramework together from built libraries, with its archive, checksum and Swift packages. `xcframework` calls it; it
builds nothing."""

import argparse
import hashlib
import io
import plistlib
import re
import shutil
import stat
import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "check"))
from readers import macho, trees  # noqa: E402
from rules import repository  # noqa: E402
from writers import macho as macho_writer  # noqa: E402

NAME = repository.FRAMEWORK


def framework(out, found, binary):
    """Writes a slice's framework, flat or with versions."""
    place = out / f"{NAME}.framework"
    inside = place / "Versions/A" if found.versioned() else place
    resources = inside / "Resources" if found.versioned() else inside
    for folder in (inside / "Headers", inside / "Modules", resources):
        folder.mkdir(parents=True, exist_ok=True)
    (inside / NAME).write_bytes(binary)
    (inside / NAME).chmod(0o755)
    headers = repository.framework_headers()
    for name, data in headers.items():
        (inside / "Headers" / name).write_bytes(data)
    lines = "\n  ".join(f'header "{name}"' for name in headers)
    (inside / "Modules/module.modulemap").write_text((HERE / "module.modulemap").read_text().replace("@HEADERS@", lines))
    (resources / "Info.plist").write_bytes(plistlib.dumps(framework_info(found, binary)))
    shutil.copy(HERE / "PrivacyInfo.xcprivacy", resources / "PrivacyInfo.xcprivacy")
    if found.versioned():
        (place / "Versions/Current").symlink_to("A")
        for name in (NAME, "Headers", "Modules", "Resources"):
            (place / name).symlink_to(f"Versions/Current/{name}")


def framework_info(found, binary):
    image = macho.read(binary)[0]
    minimum = "LSMinimumSystemVersion" if found.versioned() else "MinimumOSVersion"
    return {"CFBundleDevelopmentRegion": "en", "CFBundleExecutable": NAME, "CFBundleIdentifier": "dev.weft.native",
            "CFBundleInfoDictionaryVersion": "6.0", "CFBundleName": NAME, "CFBundlePackageType": "FMWK",
            "CFBundleShortVersionString": repository.version(), "CFBundleVersion": "1", "CFBundleSupportedPlatforms": [found.plist_platform()],
            "DTSDKName": f"{found.plist_platform().lower()}{image.sdk}", minimum: found.minimum}


def debug_symbols(out, images):
    inside = out / f"dSYMs/{NAME}.framework.dSYM/Contents"
    (inside / "Resources/DWARF").mkdir(parents=True)
    (inside / "Resources/DWARF" / NAME).write_bytes(images)
    (inside / "Info.plist").write_bytes(plistlib.dumps({
        "CFBundleDevelopmentRegion": "English", "CFBundleIdentifier": "com.apple.xcode.dsym.dev.weft.native", "CFBundleInfoDictionaryVersion": "6.0",
        "CFBundlePackageType": "dSYM", "CFBundleSignature": "????", "CFBundleShortVersionString": repository.version(), "CFBundleVersion": "1"}))


def entry(found):
    inside = f"{NAME}.framework/" + ("Versions/A/" if found.versioned() else "")
    made = {"BinaryPath": inside + NAME, "DebugSymbolsPath": "dSYMs", "LibraryIdentifier": found.identifier(), "LibraryPath": f"{NAME}.framework",
            "SupportedArchitectures": sorted(found.architectures), "SupportedPlatform": found.platform}
    if found.variant:
        made["SupportedPlatformVariant"] = found.variant
    return made


def united(files):
    """One file of several architectures'."""
    data = [f.read_bytes() for f in files]
    return data[0] if len(data) == 1 else macho_writer.universal(*data)


def zipped(folder):
    """The archive's bytes: links as links, always with the same date and order."""
    out = io.BytesIO()
    tree = trees.folder(folder)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted([*tree.files, *tree.links]):
            info = zipfile.ZipInfo(f"{folder.name}/{path}", (1980, 1, 1, 0, 0, 0))
            info.create_system = 3  # Unix: the modes below mean something
            if path in tree.links:
                info.external_attr = (stat.S_IFLNK | 0o755) << 16
                archive.writestr(info, tree.links[path])
            else:
                info.external_attr = (stat.S_IFREG | (0o755 if path.endswith("/" + NAME) else 0o644)) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(info, tree.files[path])
    return out.getvalue()


def packages(out, checksum, url):
    """The Swift package, in a local form (beside the XCFramework) and a release form (which names the archive)."""
    source = repository.ROOT / "bindings/swift/Sources"
    local = f'.binaryTarget(name: "{NAME}", path: "{NAME}.xcframework")'
    release = f'.binaryTarget(\n            name: "{NAME}",\n            url: "{url}",\n            checksum: "{checksum}")'
    text = (HERE / "Package.swift.in").read_text().replace("@VERSION@", repository.version())
    for folder, binary in ((out / "local", local), (out / "release", release)) if url else ((out / "local", local),):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "Package.swift").write_text(text.replace("@BINARY@", binary))
        for target in ("Weft", "WeftBindings", "WeftFFI") if source.is_dir() else ():
            shutil.copytree(source / target, folder / "Sources" / target, dirs_exist_ok=True)
        module = folder / "Sources/WeftFFI/module.modulemap"
        if module.is_file():  # on Apple's systems the framework is linked, no library of that name
            module.write_text(re.sub(r"\n\s*link \"\w+\"", "", module.read_text()))
    shutil.copytree(out / f"{NAME}.xcframework", out / "local" / f"{NAME}.xcframework", symlinks=True, dirs_exist_ok=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True, action="append", help="SLICE=ARCHITECTURE=LIBRARY: ios=arm64=…/libweft_apps.dylib, with its .dSYM beside")
    parser.add_argument("--url", help="where the release's archive will be, without its name: the release form is written only with it")
    parser.add_argument("--out", required=True, type=Path)
    options = parser.parse_args()
    built = {}
    for binary in options.binary:
        name, architecture, file = binary.split("=", 2)
        built.setdefault(name, {})[architecture] = Path(file)
    root = options.out / f"{NAME}.xcframework"
    for made in (root, options.out / "local", options.out / "release"):
        shutil.rmtree(made, ignore_errors=True)
    entries = []
    for name, files in built.items():
        found = repository.slice_of(name, files)
        place = root / found.identifier()
        framework(place, found, united(files.values()))
        debug_symbols(place, united([f.parent / (f.name + ".dSYM") / "Contents/Resources/DWARF" / f.name for f in files.values()]))
        entries.append(entry(found))
    (root / "Info.plist").write_bytes(plistlib.dumps(
        {"AvailableLibraries": entries, "CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0"}))
    archive = options.out / f"{NAME}.xcframework.zip"
    archive.write_bytes(zipped(root))
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    Path(str(archive) + ".sha256").write_text(f"{checksum}  {archive.name}\n")
    packages(options.out, checksum, f"{options.url.rstrip('/')}/{archive.name}" if options.url else None)
    print(root)


main()
