"""Reads what a loader reads of an ELF shared library: program headers, the dynamic section, dynamic symbols; and the names of
sections. Both word sizes, little-endian. From the System V ABI, https://gabi.xinuos.com, chapters 4 and 5."""

import struct
from dataclasses import dataclass, field

from . import FormatError, text

EM_386, EM_ARM, EM_X86_64, EM_AARCH64 = 3, 40, 62, 183
ET_DYN = 3
PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_TLS = 1, 2, 4, 7
PT_GNU_STACK = 0x6474E551
PF_X, PF_W = 1, 2
SHT_NOBITS, SHT_DYNSYM = 8, 11
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SONAME, DT_RPATH, DT_TEXTREL = 1, 4, 5, 6, 10, 14, 15, 22
DT_RUNPATH, DT_FLAGS, DT_RELR = 29, 30, 36
DT_GNU_HASH, DT_ANDROID_RELR = 0x6FFFFEF5, 0x6FFFE000
DF_TEXTREL = 4
STB_LOCAL, STB_GLOBAL, STB_WEAK = 0, 1, 2
STT_FUNC, STT_TLS = 2, 6


@dataclass
class Segment:
    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    align: int


@dataclass
class Section:
    name: str
    kind: int
    offset: int
    size: int


@dataclass
class Symbol:
    name: str
    binding: int
    kind: int
    defined: bool
    visible: bool  # STV_DEFAULT or STV_PROTECTED


@dataclass
class Library:
    """An ELF file. `dynamic` has (tag, value) in the file's order."""

    bits: int
    kind: int
    machine: int
    flags: int
    segments: list = field(default_factory=list)
    sections: list = field(default_factory=list)
    dynamic: list = field(default_factory=list)
    symbols: list = field(default_factory=list)
    needed: list = field(default_factory=list)
    soname: str | None = None
    notes: list = field(default_factory=list)  # (owner, type, bytes)

    def tags(self, tag):
        return [value for found, value in self.dynamic if found == tag]

    def exports(self):
        """Names that other libraries find here."""
        return {s.name for s in self.symbols if s.defined and s.visible and s.binding != STB_LOCAL and s.name}

    def imports(self):
        """Names that must be found elsewhere; weak ones may be missing."""
        return {s.name for s in self.symbols if not s.defined and s.binding == STB_GLOBAL and s.name}


def read(data):
    """Reads the bytes of an ELF file; raises FormatError."""
    if data[:4] != b"\x7fELF":
        raise FormatError("an ELF file", f"bytes {data[:4].hex()}")
    if len(data) < 0x34 or data[4] not in (1, 2) or data[5] != 1:
        raise FormatError("a little-endian ELF file of 32 or 64 bits", f"class {data[4:5].hex()}, order {data[5:6].hex()}")
    bits = 32 * data[4]
    head = "<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH"
    kind, machine, _, _, phoff, shoff, flags, _, phentsize, phnum, shentsize, shnum, shstrndx = unpack(head, data, 16)
    library = Library(bits, kind, machine, flags)
    for n in range(phnum):
        library.segments.append(segment(data, bits, phoff + n * phentsize))
    library.sections = sections(data, bits, shoff, shentsize, shnum, shstrndx)
    read_dynamic(library, data)
    read_notes(library, data)
    return library


def unpack(form, data, offset):
    try:
        return struct.unpack_from(form, data, offset)
    except (struct.error, OverflowError) as e:
        raise FormatError(f"{struct.calcsize(form)} bytes at {offset}", f"a file of {len(data)} bytes") from e


def segment(data, bits, at):
    if bits == 64:
        kind, flags, offset, address, _, filesz, memsz, align = unpack("<IIQQQQQQ", data, at)
    else:
        kind, offset, address, _, filesz, memsz, flags, align = unpack("<IIIIIIII", data, at)
    return Segment(kind, flags, offset, address, filesz, memsz, align)


def sections(data, bits, shoff, entsize, count, names):
    found = []
    for n in range(count):
        if bits == 64:
            name, kind, _, _, offset, size = unpack("<IIQQQQ", data, shoff + n * entsize)
        else:
            name, kind, _, _, offset, size = unpack("<IIIIII", data, shoff + n * entsize)
        found.append([name, kind, offset, size])
    table = b""
    if found and names < len(found):
        table = data[found[names][2] : found[names][2] + found[names][3]]
    return [Section(text(table, n, "a section's name") if table else "", k, o, s) for n, k, o, s in found]


def file_offset(library, address):
    for s in library.segments:
        if s.kind == PT_LOAD and s.address <= address < s.address + s.file_size:
            return address - s.address + s.offset
    raise FormatError("an address inside a loaded segment", hex(address))


def read_dynamic(library, data):
    place = [s for s in library.segments if s.kind == PT_DYNAMIC]
    if not place:
        return
    form = "<qQ" if library.bits == 64 else "<iI"
    step, at = struct.calcsize(form), place[0].offset
    for _ in range(place[0].file_size // step):
        tag, value = unpack(form, data, at)
        at += step
        if tag == 0:
            break
        library.dynamic.append((tag & 0xFFFFFFFF, value))
    strtab, strsz = library.tags(DT_STRTAB), library.tags(DT_STRSZ)
    if not strtab or not strsz:
        raise FormatError("a dynamic section with a string table", "none")
    begin = file_offset(library, strtab[0])
    strings = data[begin : begin + strsz[0]]
    library.needed = [text(strings, v, "a needed library's name") for v in library.tags(DT_NEEDED)]
    names = library.tags(DT_SONAME)
    library.soname = text(strings, names[0], "the soname") if names else None
    symtab = library.tags(DT_SYMTAB)
    if symtab:
        read_symbols(library, data, file_offset(library, symtab[0]), strings)


def symbol_count(library, data):
    """How many dynamic symbols there are: the dynamic section does not say, hash tables do; sections may be stripped."""
    if table := library.tags(DT_HASH):
        return unpack("<II", data, file_offset(library, table[0]))[1]
    size = 24 if library.bits == 64 else 16
    for section in library.sections:
        if section.kind == SHT_DYNSYM:
            return section.size // size
    table = library.tags(DT_GNU_HASH)
    if not table:
        raise FormatError("DT_HASH or DT_GNU_HASH", "neither")
    at = file_offset(library, table[0])
    buckets, first, bloom, _ = unpack("<IIII", data, at)
    at += 16 + bloom * (library.bits // 8)
    last = max(unpack(f"<{buckets}I", data, at), default=0)
    if last < first:
        return first
    at += 4 * buckets + 4 * (last - first)
    while not unpack("<I", data, at)[0] & 1:
        last, at = last + 1, at + 4
    return last + 1


def read_symbols(library, data, at, strings):
    for n in range(symbol_count(library, data)):
        if library.bits == 64:
            name, info, other, section, _, _ = unpack("<IBBHQQ", data, at + 24 * n)
        else:
            name, _, _, info, other, section = unpack("<IIIBBH", data, at + 16 * n)
        if n == 0:
            continue
        symbol = Symbol(text(strings, name, "a symbol's name"), info >> 4, info & 15, section != 0, other & 3 in (0, 3))
        library.symbols.append(symbol)


def read_notes(library, data):
    for place in library.segments:
        if place.kind != PT_NOTE:
            continue
        at, end = place.offset, place.offset + place.file_size
        while at + 12 <= end:
            name_size, size, kind = unpack("<III", data, at)
            at += 12
            owner = data[at : at + name_size].rstrip(b"\0").decode("ascii", "replace")
            at += -(-name_size // 4) * 4
            library.notes.append((owner, kind, data[at : at + size]))
            at += -(-size // 4) * 4
