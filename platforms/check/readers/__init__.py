"""Readers of the files inside packages: ELF, Mach-O, Java class files, and where a zip's entries lie. They only read; rules judge."""


class FormatError(Exception):
    """A file that is not what its name says, or is cut off: `wanted` and `came` say which."""

    def __init__(self, wanted, came):
        super().__init__(f"wanted {wanted}, got {came}")
        self.wanted, self.came = wanted, came


def version(number):
    """A version packed as Apple does, 16 bits and twice 8 (mach-o/loader.h, "xxxx.yy.zz in nibbles"): "16.0", "13.2.1"."""
    major, minor, patch = number >> 16, number >> 8 & 0xFF, number & 0xFF
    return f"{major}.{minor}.{patch}" if patch else f"{major}.{minor}"


def text(data, offset, what):
    """The NUL-terminated text at `offset` of `data`."""
    if not 0 <= offset < len(data):
        raise FormatError(f"{what} inside {len(data)} bytes", f"offset {offset}")
    end = data.find(b"\0", offset)
    if end < 0:
        raise FormatError(f"{what} that ends", "no NUL")
    return data[offset:end].decode("utf-8", "backslashreplace")
