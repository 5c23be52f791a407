"""The pages of the documentation, and the blocks of code in them."""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs").glob("*.md")),
    *sorted(str(file.relative_to(ROOT)) for file in (ROOT / "docs/api").glob("*.md")),
]
CHECKED = ("sh", "python", "toml")  # languages whose blocks say what tests do with them

_BLOCK = re.compile(
    r"(?:^<!-- (?P<action>[a-z ]+)(?:: (?P<argument>.+?))? -->\n)?"
    r"^```(?P<language>\w+)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


class Block(NamedTuple):
    """A block of code in a page.

    Attributes:
        page: the page's path in the repository.
        line: where the block begins.
        language: the tag of the fence.
        text: what stands in it.
        action: what tests do with it, from the comment above: `run`, `file`, `not run`, or empty.
        argument: the file's name, or the reason.
    """

    page: str
    line: int
    language: str
    text: str
    action: str
    argument: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def read_page(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Returns the blocks of a page whose languages are checked, in order."""
    text = read_page(page)
    return [
        Block(
            page,
            text.count("\n", 0, match.start()) + 1,
            match["language"],
            match["text"],
            match["action"] or "",
            match["argument"] or "",
        )
        for match in _BLOCK.finditer(text)
        if match["language"] in CHECKED
    ]


def prose(page: str) -> str:
    """Returns a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", read_page(page), flags=re.MULTILINE | re.DOTALL)


def shell_commands(text: str) -> list[list[str]]:
    """Returns the commands of a block of shell, without comments and without variables set in front of them."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        command: list[str] = []
        for word in [*shlex.split(line, comments=True), "&&"]:
            if word != "&&":
                command.append(word)
                continue
            while command and (_ASSIGNMENT.match(command[0]) or command[0] == "srun"):
                command.pop(0)
            if command:
                found.append(command)
            command = []
    return found
