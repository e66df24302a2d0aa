"""Writes Java class files that have a name and methods without code: for the checker's tests. From the JVM specification, chapter 4."""

import struct


def class_file(name, native=(), abstract=(), major=55):
    """A class of that name ("dev/weft/Device"), with static native and abstract methods, all `()V`."""
    texts, constants = {}, bytearray()

    def text(value):
        if value not in texts:
            texts[value] = len(texts) + 3
            encoded = value.encode()
            constants.extend(b"\x01" + struct.pack(">H", len(encoded)) + encoded)
        return texts[value]

    this, parent = text(name), text("java/lang/Object")
    methods = b"".join(struct.pack(">HHHH", flags, text(n), text("()V"), 0)
                       for names, flags in ((native, 0x0109), (abstract, 0x0401)) for n in names)
    pool = b"\x07" + struct.pack(">H", this) + b"\x07" + struct.pack(">H", parent) + bytes(constants)
    head = struct.pack(">IHHH", 0xCAFEBABE, 0, major, len(texts) + 3) + pool
    return head + struct.pack(">HHHH", 0x0421, 1, 2, 0) + struct.pack(">H", 0) + struct.pack(">H", len(native) + len(abstract)) + methods + b"\0\0"
