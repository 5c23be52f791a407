"""What holds for the text of all source files, and no linter checks."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("teachers", "students", "export", "distill", "benchmarks", "docs")


def test_sources_name_the_encoding_of_text_files() -> None:
    """Without a name it is the locale's. Paths of `epath` ignore the name in clouds, and read and write bytes."""
    found = []
    for file in (path for name in PACKAGES for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _opens_text(node):
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert found == []


def _opens_text(call: ast.Call) -> bool:
    """Returns whether a call opens a file as text and does not name an encoding."""
    name = ast.unparse(call.func)
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name.endswith((".read_text", ".write_text")):
        return True
    if name == "open":
        mode = call.args[1:2]
    elif name.endswith(".open") and len(call.args) == 1:
        mode = call.args
    else:
        return False
    return not mode or (isinstance(mode[0], ast.Constant) and set("rwax") >= set(mode[0].value))
