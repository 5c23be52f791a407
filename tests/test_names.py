"""Finds names that are used but not defined, which Ruff cannot do beside the shapes in jaxtyping's annotations."""

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("teachers", "students", "export", "distill", "tests", "benchmarks", "docs")


class _RemoveAnnotations(ast.NodeTransformer):
    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.returns = None
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def test_no_name_is_undefined(tmp_path: Path) -> None:
    assert _undefined_names(ROOT, tmp_path) == ""


def test_undefined_names_finds_one(tmp_path: Path) -> None:
    file = tmp_path / "source" / "teachers" / "wrong.py"
    file.parent.mkdir(parents=True)
    file.write_text("def f(x: Float[Array, 'batch']) -> None:\n    return missing_name(x)\n")
    assert "missing_name" in _undefined_names(tmp_path / "source", tmp_path / "copies")


def _undefined_names(root: Path, copies: Path) -> str:
    for package in PACKAGES:
        for file in (root / package).rglob("*.py"):
            copy = copies / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            tree = _RemoveAnnotations().visit(ast.parse(file.read_text(encoding="utf-8")))
            copy.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821"]
    result = subprocess.run(
        [*command, "--output-format=concise", copies], capture_output=True, text=True, check=False
    )
    return "" if result.returncode == 0 else result.stdout + result.stderr
