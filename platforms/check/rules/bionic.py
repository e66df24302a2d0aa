"""Android's system libraries as data: platforms/android/bionic.txt, which names symbols with the library that has them and the API
level that they came with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Symbol:
    library: str
    api: int
    abis: frozenset | None  # None: all
    variable: bool = False


def read(text):
    """Reads lines of `symbol library API [abi,abi] [variable]`; `#` begins a comment."""
    symbols = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) < 3 or not words[2].isdigit() or words[0] in symbols:
            raise ValueError(f"bionic.txt, line {number}: wanted a new symbol, its library and an API level, got {line.strip()!r}")
        rest = [w for w in words[3:] if w != "variable"]
        symbols[words[0]] = Symbol(words[1], int(words[2]), frozenset(rest[0].split(",")) if rest else None, "variable" in words)
    return symbols


def available(symbols, abi, api):
    """Names that are there for an ABI from an API level on."""
    return {n for n, s in symbols.items() if s.api <= api and (s.abis is None or abi in s.abis)}
