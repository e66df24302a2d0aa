"""Reads what dyld reads of a Mach-O file of 64 bits, thin or universal: load commands, the symbol table, the trie of exports.
From Apple's headers mach-o/loader.h, mach-o/fat.h and mach-o/nlist.h (https://github.com/apple-oss-distributions/xnu,
EXTERNAL_HEADERS/mach-o)."""

import struct
from dataclasses import dataclass, field

from . import FormatError, text, version

MH_DYLIB, MH_DSYM = 6, 10
MH_TWOLEVEL, MH_NO_REEXPORTED_DYLIBS = 0x80, 0x100000
CPU_NAMES = {0x0100000C: "arm64", 0x01000007: "x86_64"}
# platforms of LC_BUILD_VERSION
PLATFORMS = {1: "macos", 2: "ios", 6: "maccatalyst", 7: "iossimulator", 11: "xros", 12: "xrossimulator"}
LC_SYMTAB, LC_LOAD_DYLIB, LC_ID_DYLIB, LC_SEGMENT_64, LC_UUID = 0x2, 0xC, 0xD, 0x19, 0x1B
LC_CODE_SIGNATURE, LC_ENCRYPTION_INFO_64, LC_DYLD_INFO, LC_BUILD_VERSION = 0x1D, 0x2C, 0x22, 0x32
LC_REQ_DYLD = 0x80000000
LC_LOAD_WEAK_DYLIB, LC_RPATH, LC_REEXPORT_DYLIB = 0x18 | LC_REQ_DYLD, 0x1C | LC_REQ_DYLD, 0x1F | LC_REQ_DYLD
LC_DYLD_EXPORTS_TRIE = 0x33 | LC_REQ_DYLD
N_STAB, N_PEXT, N_TYPE, N_EXT, N_SECT = 0xE0, 0x10, 0x0E, 0x01, 0x0E
N_WEAK_REF = 0x40
SG_READ_ONLY = 0x10


@dataclass
class Segment:
    name: str
    address: int
    size: int
    offset: int
    file_size: int
    protection: int
    sections: list


@dataclass
class Image:
    """One architecture of a file. Versions are texts: "16.0"."""

    arch: str
    kind: int
    flags: int
    segments: list = field(default_factory=list)
    install_name: str | None = None
    libraries: list = field(default_factory=list)  # (path, weak)
    rpaths: list = field(default_factory=list)
    uuid: bytes | None = None
    platform: str | None = None
    minimum: str | None = None
    sdk: str | None = None
    tools: list = field(default_factory=list)  # numbers of TOOL_…: 3 is Apple's ld
    signed: bool = False
    encrypted: bool = False
    exports: set = field(default_factory=set)
    symbols: set = field(default_factory=set)  # external, defined, by the symbol table
    imports: set = field(default_factory=set)
    weak_imports: set = field(default_factory=set)


def read(data):
    """The images of a file, one an architecture; raises FormatError."""
    magic = data[:4]
    if magic == b"\xca\xfe\xba\xbe":  # FAT_MAGIC, big-endian
        count = unpack(">I", data, 4)[0]
        if not 0 < count < 32:
            raise FormatError("a universal file of 1 to 31 architectures", str(count))
        images = []
        for n in range(count):
            _, _, offset, size, _ = unpack(">IIIII", data, 8 + 20 * n)
            if offset + size > len(data):
                raise FormatError(f"an architecture inside {len(data)} bytes", f"{size} bytes at {offset}")
            images.append(image(data[offset : offset + size]))
        return images
    return [image(data)]


def unpack(form, data, offset):
    try:
        return struct.unpack_from(form, data, offset)
    except (struct.error, OverflowError) as e:
        raise FormatError(f"{struct.calcsize(form)} bytes at {offset}", f"a file of {len(data)} bytes") from e


def image(data):
    if data[:4] != b"\xcf\xfa\xed\xfe":  # MH_MAGIC_64
        raise FormatError("a Mach-O file of 64 bits", f"bytes {data[:4].hex()}")
    _, cpu, _, kind, count, size, flags, _ = unpack("<8I", data, 0)
    found = Image(CPU_NAMES.get(cpu, f"cpu {cpu:#x}"), kind, flags)
    at, end = 32, 32 + size
    for _ in range(count):
        command, length = unpack("<II", data, at)
        if length < 8 or at + length > end:
            raise FormatError(f"load commands within {size} bytes", f"{length} bytes at {at - 32}")
        load(found, data, command, data[at : at + length])
        at += length
    return found


def load(found, data, command, body):
    if command == LC_SEGMENT_64:
        found.segments.append(segment(body))
    elif command == LC_ID_DYLIB:
        found.install_name = text(body, unpack("<I", body, 8)[0], "an install name")
    elif command in (LC_LOAD_DYLIB, LC_LOAD_WEAK_DYLIB, LC_REEXPORT_DYLIB):
        path = text(body, unpack("<I", body, 8)[0], "a library's path")
        found.libraries.append((path, command == LC_LOAD_WEAK_DYLIB))
    elif command == LC_RPATH:
        found.rpaths.append(text(body, unpack("<I", body, 8)[0], "an rpath"))
    elif command == LC_UUID:
        found.uuid = body[8:24]
    elif command == LC_BUILD_VERSION:
        platform, minimum, sdk, tools = unpack("<4I", body, 8)
        found.platform, found.minimum, found.sdk = PLATFORMS.get(platform, f"platform {platform}"), version(minimum), version(sdk)
        found.tools = [unpack("<II", body, 24 + 8 * n)[0] for n in range(tools)]
    elif command == LC_CODE_SIGNATURE:
        found.signed = True
    elif command == LC_ENCRYPTION_INFO_64:
        found.encrypted = unpack("<3I", body, 8)[2] != 0
    elif command == LC_SYMTAB:
        read_symbols(found, data, *unpack("<4I", body, 8))
    elif command == LC_DYLD_EXPORTS_TRIE:
        read_trie(found, data, *unpack("<2I", body, 8))
    elif command & ~LC_REQ_DYLD == LC_DYLD_INFO:
        read_trie(found, data, *unpack("<2I", body, 40))


def segment(body):
    name, address, size, offset, file_size, _, protection, count, _ = unpack("<16sQQQQiiII", body, 8)
    names = [unpack("<16s", body, 72 + 80 * n)[0] for n in range(count)]
    plain = lambda b: b.rstrip(b"\0").decode("ascii", "replace")
    return Segment(plain(name), address, size, offset, file_size, protection, [plain(n) for n in names])


def read_symbols(found, data, offset, count, strings, size):
    names = data[strings : strings + size]
    for n in range(count):
        name, kind, _, description, _ = unpack("<IBBHQ", data, offset + 16 * n)
        if kind & N_STAB or not kind & N_EXT:
            continue
        name = text(names, name, "a symbol's name")
        if kind & N_TYPE == 0:
            found.imports.add(name)
            if description & N_WEAK_REF:
                found.weak_imports.add(name)
        elif not kind & N_PEXT:
            found.symbols.add(name)


def uleb(data, at):
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise FormatError("a number in LEB128", f"the end at {at}")
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 0x80:
            return value, at


def read_trie(found, data, offset, size):
    """Names in the trie of exports, where dyld looks them up: a node is (size of its data, data, children of prefix and offset)."""
    trie = data[offset : offset + size]
    todo, seen = [(0, b"")] if trie else [], set()
    while todo:
        at, prefix = todo.pop()
        if at in seen or at >= len(trie):
            raise FormatError("a trie of exports", f"a node twice or outside, at {at}")
        seen.add(at)
        length, at = uleb(trie, at)
        if length:
            found.exports.add(prefix.decode("utf-8", "replace"))
        at += length
        if at >= len(trie):
            raise FormatError(f"a trie's node within {len(trie)} bytes", f"offset {at}")
        children, at = trie[at], at + 1
        for _ in range(children):
            end = trie.find(b"\0", at)
            if end < 0:
                raise FormatError("an edge that ends", "no NUL")
            child, after = uleb(trie, end + 1)
            todo.append((child, prefix + trie[at:end]))
            at = after
