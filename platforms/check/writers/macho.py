"""Writes Mach-O files that hold names, and no code: for the checker's tests. From mach-o/loader.h and mach-o/nlist.h."""

import struct

from readers import macho

CPUS = {"arm64": (0x0100000C, 0), "x86_64": (0x01000007, 3)}
NUMBERS = {name: number for number, name in macho.PLATFORMS.items()}


def packed(text):
    major, minor, *patch = (int(n) for n in text.split("."))
    return major << 16 | minor << 8 | (patch[0] if patch else 0)


def image(arch="arm64", platform="ios", minimum="16.0", sdk="18.0", install_name="@rpath/A.framework/A", libraries=(), exports=(),
          imports=(), uuid=bytes(range(16)), kind=macho.MH_DYLIB, flags=0x100085, rpaths=(), tools=(3,), page=16384, trie=None,
          signed=False, segments=("__TEXT",), encrypted=False, protection=5):
    """The bytes of a library. `libraries` are paths, or (path, command); `trie` are the exports in the trie where they are not
    `exports`; `page` is the alignment of segments."""
    commands = []

    def text_command(command, head, text):
        text = text.encode() + b"\0"
        size = -(-(8 + len(head) + 4 + len(text)) // 8) * 8
        body = struct.pack("<I", 12 + len(head)) + head + text
        commands.append(struct.pack("<II", command, size) + body + bytes(size - 8 - len(body)))

    for n, name in enumerate(segments):
        commands.append(struct.pack("<II16sQQQQiiII", macho.LC_SEGMENT_64, 72, name.encode(), n * page, page, n * page, page,
                                    protection, protection, 0, 0))
    commands.append(None)  # __LINKEDIT, when its size is known
    if install_name is not None:
        text_command(macho.LC_ID_DYLIB, struct.pack("<3I", 2, 0x10000, 0x10000), install_name)
    for library in libraries:
        path, command = library if isinstance(library, tuple) else (library, macho.LC_LOAD_DYLIB)
        text_command(command, struct.pack("<3I", 2, 0x10000, 0x10000), path)
    for path in rpaths:
        text_command(macho.LC_RPATH, b"", path)
    if uuid:
        commands.append(struct.pack("<II", macho.LC_UUID, 24) + uuid)
    if platform:
        commands.append(struct.pack("<6I", macho.LC_BUILD_VERSION, 24 + 8 * len(tools), NUMBERS[platform], packed(minimum),
                                    packed(sdk), len(tools)) + b"".join(struct.pack("<II", t, 0) for t in tools))
    if encrypted:
        commands.append(struct.pack("<6I", macho.LC_ENCRYPTION_INFO_64, 24, 0, 0, 1, 0))
    strings = bytearray(b"\0")
    nlist = bytearray()
    for name, kind_of in [(n, macho.N_EXT) for n in sorted(imports)] + [(n, macho.N_EXT | macho.N_SECT) for n in sorted(exports)]:
        nlist += struct.pack("<IBBHQ", len(strings), kind_of, 1 if kind_of & macho.N_TYPE else 0, 0, 0)
        strings += name.encode() + b"\0"
    nodes = exports_trie(sorted(exports if trie is None else trie))
    link = len(segments) * page
    commands.append(struct.pack("<4I", macho.LC_DYLD_EXPORTS_TRIE, 16, link, len(nodes)))
    nlist_at = link + -(-len(nodes) // 8) * 8
    commands.append(struct.pack("<6I", macho.LC_SYMTAB, 24, nlist_at, len(nlist) // 16, nlist_at + len(nlist), len(strings)))
    end = nlist_at + len(nlist) + len(strings)
    if signed:
        commands.append(struct.pack("<4I", macho.LC_CODE_SIGNATURE, 16, end, 0))
    commands[len(segments)] = struct.pack("<II16sQQQQiiII", macho.LC_SEGMENT_64, 72, b"__LINKEDIT", link, -(-(end - link) // page) * page,
                                          link, end - link, 1, 1, 0, 0)
    body = b"".join(commands)
    cpu, subtype = CPUS[arch]
    head = struct.pack("<IiiIIIII", 0xFEEDFACF, cpu, subtype, kind, len(commands), len(body), flags, 0)
    out = bytearray(end)
    out[: len(head) + len(body)] = head + body
    out[link : link + len(nodes)] = nodes
    out[nlist_at : nlist_at + len(nlist)] = nlist
    out[nlist_at + len(nlist) : end] = strings
    return bytes(out)


def universal(*images):
    """A universal file of several images."""
    entries, at, parts = [], 16384, []
    for data in images:
        cpu, subtype = struct.unpack_from("<ii", data, 4)
        entries.append(struct.pack(">iiIII", cpu, subtype, at, len(data), 14))
        parts.append((at, data))
        at += -(-len(data) // 16384) * 16384
    out = bytearray(at)
    head = struct.pack(">II", 0xCAFEBABE, len(images)) + b"".join(entries)
    out[: len(head)] = head
    for place, data in parts:
        out[place : place + len(data)] = data
    return bytes(out)


def leb(value):
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


class Node:
    """A node of the trie: whether a name ends here, and the nodes after it by the bytes on the way."""

    def __init__(self, names):
        self.ends = b"" in names
        self.children = []
        for first in sorted({n[:1] for n in names if n}):
            below = [n for n in names if n[:1] == first]
            way = below[0]
            for name in below:
                while not name.startswith(way):
                    way = way[:-1]
            self.children.append((way, Node([n[len(way):] for n in below])))
        self.offset = 0

    def all(self):
        yield self
        for _, child in self.children:
            yield from child.all()

    def bytes(self):
        out = b"\x02\x00\x00" if self.ends else b"\x00"
        return out + bytes([len(self.children)]) + b"".join(way + b"\0" + leb(child.offset) for way, child in self.children)


def exports_trie(names):
    """The trie of exports. Offsets are written in as many bytes as they need, which moves what they point to."""
    if not names:
        return b""
    nodes = list(Node([n.encode() for n in names]).all())
    while True:
        at = moved = 0
        for node in nodes:
            moved += node.offset != at
            node.offset, at = at, at + len(node.bytes())
        if not moved:
            return b"".join(node.bytes() for node in nodes)
