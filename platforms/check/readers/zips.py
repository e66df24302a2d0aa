"""Reads zip archives with what Python's zipfile hides: where an entry's bytes lie, entries that occur twice, links, modes.
From PKWARE's APPNOTE.TXT 6.3.10, 4.3.7 and 4.4."""

import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass

from . import FormatError


@dataclass
class Entry:
    name: str
    data: bytes
    stored: bool
    offset: int  # of the entry's bytes in the archive
    packed: int  # bytes in the archive
    link: bool
    date: tuple


def read(data):
    """The archive's entries in order, folders left out; raises FormatError."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [entry(archive, data, info) for info in archive.infolist() if not info.is_dir()]
    # RuntimeError is how zipfile says that an entry is encrypted
    except (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, EOFError, ValueError, OSError) as e:
        raise FormatError("a zip archive", str(e)) from e


def entry(archive, data, info):
    names, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    return Entry(info.filename, archive.read(info), info.compress_type == zipfile.ZIP_STORED, info.header_offset + 30 + names + extra,
                 info.compress_size, stat.S_ISLNK(info.external_attr >> 16), info.date_time)
