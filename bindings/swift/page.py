"""The program of the page "Weft in an iOS app", as a newcomer without a Mac types it: its files, its command, what it prints.

    page.py files FOLDER        writes the files that the page names, and of the graph at its end
    page.py command             prints the page's command
    page.py compare OUTPUT      fails if OUTPUT is not what the page says, twice: of the texts, and of the graph
"""

import pathlib
import re
import sys

PAGE = pathlib.Path(__file__).parent / "Sources/Weft/Weft.docc/InAnIOSApp.md"


def blocks(text):
    """Language and text of the code between fences, with the line of prose before it."""
    return re.findall(r"([^\n]*)\n\n```(\w*)\n(.*?)```", text, re.DOTALL)


def main():
    text = PAGE.read_text()
    found = blocks(text[text.index("## Without a Mac"):])
    files = {name.strip("`:"): code for name, language, code in found if language == "swift" and name.startswith("`")}
    graph = next(code for name, language, code in found if language == "swift" and not name.startswith("`"))
    printed = [code for _, language, code in found if not language]
    match sys.argv[1:]:
        case ["files", folder]:
            for name, code in files.items():
                path = pathlib.Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(code + (graph if name.endswith("main.swift") else ""))
        case ["command"]:
            print(next(code for _, language, code in found if language == "sh" and "swift run" in code).strip())
        case ["compare", output]:
            came = pathlib.Path(output).read_text()
            if came != "".join(printed):
                sys.exit(f"the page says that its program prints\n{''.join(printed)}it printed\n{came}")
        case _:
            sys.exit(__doc__)


main()
