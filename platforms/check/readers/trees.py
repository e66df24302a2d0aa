"""A folder or a zip archive as one tree: files by path, links by what they say. Packages of Apple's are such trees, with links in them."""

import os
from pathlib import Path

from . import zips


class Tree:
    def __init__(self, files, links):
        self.files, self.links = files, links  # path → bytes, path → target

    def below(self, folder):
        """The tree of one folder."""
        cut = folder.rstrip("/") + "/"
        inside = lambda paths: {p[len(cut):]: v for p, v in paths.items() if p.startswith(cut)}
        return Tree(inside(self.files), inside(self.links))

    def top(self):
        """Names at the root."""
        return {p.split("/")[0] for p in [*self.files, *self.links]}

    def get(self, path):
        """The bytes of a file, through links inside the tree; None where there is none."""
        for _ in range(20):
            if path in self.files:
                return self.files[path]
            for link, target in self.links.items():
                if path == link or path.startswith(link + "/"):
                    path = os.path.normpath(os.path.join(os.path.dirname(link), target) + path[len(link):])
                    break
            else:
                return None
        return None


def folder(path):
    files, links = {}, {}
    root = Path(path)
    for found in sorted(root.rglob("*")):
        name = found.relative_to(root).as_posix()
        if found.is_symlink():
            links[name] = os.readlink(found)
        elif found.is_file():
            files[name] = found.read_bytes()
    return Tree(files, links)


def archive(data):
    """The tree in a zip archive's bytes; raises FormatError."""
    files, links = {}, {}
    for entry in zips.read(data):
        if entry.link:
            links[entry.name] = entry.data.decode("utf-8", "replace")
        else:
            files[entry.name] = entry.data
    return Tree(files, links)
