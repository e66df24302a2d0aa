"""Reads a Java class file: its version, name, superclass and methods. From "The Java Virtual Machine Specification", chapter 4,
https://docs.oracle.com/javase/specs/jvms/se17/html/jvms-4.html."""

import struct
from dataclasses import dataclass

from . import FormatError

ACC_NATIVE = 0x0100
# bytes after the tag, per kind of constant (4.4); 1 (a text) has its own length, 5 and 6 take two places
SIZES = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}


@dataclass
class ClassFile:
    major: int
    name: str
    methods: list  # (name, descriptor, access flags)

    def native_methods(self):
        return [name for name, _, flags in self.methods if flags & ACC_NATIVE]


def read(data):
    """Reads the bytes of a class file; raises FormatError."""
    try:
        return parse(data)
    except (struct.error, IndexError, KeyError, TypeError) as e:
        raise FormatError("a Java class file", f"one that is cut off or damaged ({e})") from e


def parse(data):
    magic, _, major, count = struct.unpack_from(">IHHH", data)
    if magic != 0xCAFEBABE:
        raise FormatError("a Java class file", f"bytes {data[:4].hex()}")
    constants, at, n = {}, 10, 1
    while n < count:
        tag = data[at]
        if tag == 1:
            length = struct.unpack_from(">H", data, at + 1)[0]
            constants[n] = data[at + 3 : at + 3 + length].decode("utf-8", "replace")
            at += 3 + length
        else:
            constants[n] = data[at + 1 : at + 1 + SIZES[tag]]
            at += 1 + SIZES[tag]
        n += 2 if tag in (5, 6) else 1
    _, this, _, interfaces = struct.unpack_from(">HHHH", data, at)
    at += 8 + 2 * interfaces
    name = constants[struct.unpack(">H", constants[this])[0]]
    _, at = members(data, at, constants)
    methods, _ = members(data, at, constants)
    return ClassFile(major, name, methods)


def members(data, at, constants):
    """Fields or methods (4.5, 4.6), and where they end."""
    count = struct.unpack_from(">H", data, at)[0]
    at += 2
    found = []
    for _ in range(count):
        flags, name, descriptor, attributes = struct.unpack_from(">HHHH", data, at)
        at += 8
        for _ in range(attributes):
            at += 6 + struct.unpack_from(">I", data, at + 2)[0]
        found.append((constants[name], constants[descriptor], flags))
    return found, at
