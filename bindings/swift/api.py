"""The public interface of the Swift library as sorted lines: what `swift package dump-symbol-graph` says of module Weft.

    api.py FOLDER >api.txt       FOLDER has the *.symbols.json that Swift wrote
"""

import json
import pathlib
import sys


def declared(symbol):
    """A symbol's declaration, without attributes that only say where it is documented."""
    return "".join(part["spelling"] for part in symbol["declarationFragments"]).strip()


def main():
    lines = set()
    names = {}
    files = sorted(pathlib.Path(sys.argv[1]).rglob("Weft*.symbols.json"))
    graphs = [json.loads(file.read_text()) for file in files if file.name.split(".")[0].split("@")[0] == "Weft"]
    if not graphs:
        sys.exit(f"api.py: no Weft.symbols.json in {sys.argv[1]}")
    for graph in graphs:
        for symbol in graph["symbols"]:
            names[symbol["identifier"]["precise"]] = ".".join(symbol["pathComponents"])
            lines.add(f'{".".join(symbol["pathComponents"])}: {" ".join(declared(symbol).split())}')
    for graph in graphs:
        for edge in graph["relationships"]:
            if edge["kind"] == "conformsTo":
                other = names.get(edge["target"], edge.get("targetFallback", edge["target"]))
                lines.add(f'{names.get(edge["source"], edge["source"])} conforms to {other}')
    print("\n".join(sorted(lines)))


main()
