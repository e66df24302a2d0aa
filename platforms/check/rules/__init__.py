"""Rules that packages obey. A rule is a function from a package to its faults, with a sentence and the documentation that asks for
it. The tests hold a broken package for every rule."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """What a rule found: in which file, what was wanted, what came."""

    rule: str
    file: str
    wanted: str
    came: str

    def __str__(self):
        return f"{self.rule}: {self.file}: wanted {self.wanted}, got {self.came}"


@dataclass(frozen=True)
class Rule:
    name: str
    says: str
    source: str
    find: object  # package → (file, wanted, came) of each fault

    def faults(self, package):
        return [Fault(self.name, file, str(wanted), str(came)) for file, wanted, came in self.find(package)]


class Rules:
    """The rules of one kind of package, in order."""

    def __init__(self):
        self.rules = []

    def __call__(self, name, says, source):
        def declare(find):
            self.rules.append(Rule(name, says, source, find))
            return find

        return declare

    def faults(self, package):
        return [fault for rule in self.rules for fault in rule.faults(package)]


def some(names, most=5):
    """The first few of a set of names, and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def symbols_file(text):
    """Names of a list, one a line; `#` begins a comment."""
    return {line.split("#")[0].strip() for line in text.splitlines()} - {""}


def properties(text):
    """The pairs of a Java properties file without escapes."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.lstrip().startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def kotlin_externals(text):
    """Names of the native functions that uniffi's Kotlin calls."""
    return set(re.findall(r"\bexternal fun `?(\w+)`?\(", text))
