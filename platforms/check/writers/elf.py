"""Writes an ELF shared library that holds names, and no code that could run: a stub to link against, or a file for tests.
From the System V ABI, https://gabi.xinuos.com, chapters 4 and 5."""

import struct

from readers import elf

MACHINES = {"arm64-v8a": (64, elf.EM_AARCH64), "armeabi-v7a": (32, elf.EM_ARM), "x86_64": (64, elf.EM_X86_64), "x86": (32, elf.EM_386)}


def library(abi, soname, exports=(), imports=(), needed=(), page=16384, dynamic=(), segments=(), load_flags=5, note=None,
            extra_sections=(), objects=()):
    """The bytes of a shared library for `abi` (Android's name). `exports` are functions, those in `objects` variables. The rest is
    for tests: `page` is the segments' alignment, `dynamic` more (tag, value) pairs, `segments` more program headers (kind, flags,
    align), `load_flags` the flags of the one loaded segment, `note` (owner, type, bytes), `extra_sections` names of empty sections."""
    bits, machine = MACHINES[abi]
    word = 8 if bits == 64 else 4
    strings, places = bytearray(b"\0"), {}

    def string(name):
        if name not in places:
            places[name] = len(strings)
            strings.extend(name.encode() + b"\0")
        return places[name]

    tags = [(elf.DT_NEEDED, string(n)) for n in needed]
    if soname is not None:
        tags.append((elf.DT_SONAME, string(soname)))
    names = [(n, False) for n in sorted(imports)] + [(n, True) for n in sorted(exports)]
    symbols = bytearray(symbol(bits, 0, 0, 0, 0))
    for name, defined in names:
        kind = 1 if name in objects else elf.STT_FUNC
        symbols += symbol(bits, string(name), elf.STB_GLOBAL << 4 | kind, 1 if defined else 0, 0)
    hashes = hash_table([n for n, _ in names])

    heads = [elf.PT_LOAD, elf.PT_DYNAMIC, elf.PT_GNU_STACK] + ([elf.PT_NOTE] if note else []) + [s[0] for s in segments]
    head, entry = (64, 56) if bits == 64 else (52, 32)
    at = head + entry * len(heads)
    parts, offsets = [], {}
    for name, data in [("dynsym", symbols), ("dynstr", strings), ("hash", hashes), ("note", note_bytes(note))]:
        at = -(-at // word) * word
        offsets[name] = (at, len(data))
        parts.append((at, data))
        at += len(data)
    at = -(-at // word) * word
    tags += [(elf.DT_HASH, offsets["hash"][0]), (elf.DT_STRTAB, offsets["dynstr"][0]), (elf.DT_SYMTAB, offsets["dynsym"][0]),
             (elf.DT_STRSZ, len(strings)), (11, len(symbol(bits, 0, 0, 0, 0)))]
    tags += [*dynamic, (0, 0)]
    table = b"".join(struct.pack("<qQ" if bits == 64 else "<iI", sign(t, bits), v) for t, v in tags)
    offsets["dynamic"] = (at, len(table))
    parts.append((at, table))
    end = at + len(table)

    section_names = [("", 0), (".dynsym", elf.SHT_DYNSYM), (".dynstr", 3), (".hash", 5), (".dynamic", 6), (".shstrtab", 3)]
    section_names += [(n, 1) for n in extra_sections]
    shstr, shplaces = bytearray(), []
    for name, _ in section_names:
        shplaces.append(len(shstr))
        shstr += name.encode() + b"\0"
    parts.append((end, shstr))
    offsets["shstrtab"] = (end, len(shstr))
    shoff = -(-(end + len(shstr)) // word) * word

    out = bytearray(shoff)
    for place, data in parts:
        out[place : place + len(data)] = data
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    flags = 0x05000000 if machine == elf.EM_ARM else 0  # EABI version 5
    form = "<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH"
    shentry = 64 if bits == 64 else 40
    out[:head] = ident + struct.pack(form, elf.ET_DYN, machine, 1, 0, head, shoff, flags, head, entry, len(heads), shentry,
                                     len(section_names), 5)
    programs = [(elf.PT_LOAD, load_flags, 0, 0, end, page),
                (elf.PT_DYNAMIC, 6, *offsets["dynamic"][:1], offsets["dynamic"][0], offsets["dynamic"][1], word),
                (elf.PT_GNU_STACK, 6, 0, 0, 0, 16)]
    if note:
        programs.append((elf.PT_NOTE, 4, offsets["note"][0], offsets["note"][0], offsets["note"][1], 4))
    programs += [(kind, flags, 0, 0, 0, align) for kind, flags, align in segments]
    for n, (kind, flags, offset, address, size, align) in enumerate(programs):
        if bits == 64:
            data = struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, size, align)
        else:
            data = struct.pack("<IIIIIIII", kind, offset, address, address, size, size, flags, align)
        out[head + n * entry : head + (n + 1) * entry] = data
    for n, (name, kind) in enumerate(section_names):
        offset, size = offsets.get(name[1:], (0, 0))
        loaded = 2 if kind not in (0, 1) and name != ".shstrtab" else 0  # SHF_ALLOC
        link, info, each = {".dynsym": (2, 1, len(symbol(bits, 0, 0, 0, 0))), ".hash": (1, 0, 4), ".dynamic": (2, 0, 2 * word)}.get(name, (0, 0, 0))
        form = "<IIQQQQIIQQ" if bits == 64 else "<IIIIIIIIII"
        out += struct.pack(form, shplaces[n], kind, loaded, offset if loaded else 0, offset, size, link, info, word, each)
    return bytes(out)


def sign(tag, bits):
    return tag if bits == 64 or tag < 1 << 31 else tag - (1 << 32)


def symbol(bits, name, info, section, value):
    if bits == 64:
        return struct.pack("<IBBHQQ", name, info, 0, section, value, 0)
    return struct.pack("<IIIBBH", name, value, 0, info, 0, section)


def hash_table(names):
    """DT_HASH of symbols 1, 2, …: one bucket, one chain."""
    count = len(names) + 1
    chain = [0] + [n + 1 if n + 1 < count else 0 for n in range(1, count)]
    return struct.pack(f"<III{count}I", 1, count, 1 if names else 0, *chain)


def note_bytes(note):
    if not note:
        return b""
    owner, kind, data = note
    owner = owner.encode() + b"\0"
    padded = owner + bytes(-len(owner) % 4)
    return struct.pack("<III", len(owner), len(data), kind) + padded + data + bytes(-len(data) % 4)
