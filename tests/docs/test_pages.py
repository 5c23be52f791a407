"""What pages say exists: commands, options, keys, names, and what blocks of code import."""

import ast
import importlib
import importlib.util
import re
import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from pages import PAGES, ROOT, Block, blocks, prose, read_page, shell_commands
from pydantic import BaseModel

from distill.cli import app
from distill.config import DistillConfig
from teachers.config import TeacherConfig

README_BYTES = 10_000
ACTIONS = ("run", "file", "not run")
PACKAGES = ("teachers", "students", "export", "distill")
# What begins like a key of section `policy` or `critic` but is a file, or an attribute of the runtime's `Policy`.
NO_KEYS = {"policy.onnx", "critic.onnx", "policy.held", "policy.fault"}
PROGRAMS = ("source", "pip", "pre-commit", "cp", "cd", "cc", "./control_loop")

BLOCKS = [block for page in PAGES for block in blocks(page)]
GROUP: Any = typer.main.get_command(app)


def block_parameters(language: str) -> Any:
    return pytest.mark.parametrize(
        "block",
        [pytest.param(block, id=block.place) for block in BLOCKS if block.language == language],
    )


def subcommands(group: Any = GROUP) -> list[Any]:
    return [
        command
        for each in group.commands.values()
        for command in (subcommands(each) if hasattr(each, "commands") else [each])
    ]


def configuration_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields the dotted keys of a configuration, those of sections too."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from configuration_keys(field.annotation, f"{prefix}{name}.")


def parse_command(words: list[str]) -> None:
    """Parses a line of `crl-distill`, without running it."""
    command, context = GROUP, None
    while hasattr(command, "commands"):
        context = command.context_class(command, info_name="crl-distill", parent=context)
        name, *words = words
        assert name in command.commands, f"there is no command {name!r}"
        command = command.commands[name]
    command.make_context(name, words, parent=context)


def resolve_name(name: str) -> bool:
    """Whether a dotted name is a module or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    if not module:
        return importlib.util.find_spec(name) is not None
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(
            importlib.util.find_spec(name)
        )
    except ModuleNotFoundError:
        return resolve_name(module) and "." in module


def test_readme_is_short() -> None:
    assert len(read_page("README.md").encode()) <= README_BYTES


def test_blocks_say_what_tests_do_with_them() -> None:
    unmarked = [block.place for block in BLOCKS if block.action not in ACTIONS]
    assert not unmarked
    without_reason = [
        block.place for block in BLOCKS if block.action != "run" and not block.argument
    ]
    assert not without_reason


@block_parameters("sh")
def test_shell_block_names_existing_commands_and_options(block: Block) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *words in shell_commands(block.text):
        if program == "crl-distill":
            parse_command(words)
        elif program == "make":
            assert next(word for word in words if "=" not in word) in targets
        elif program == "python":
            assert (ROOT / words[0]).is_file()
        else:
            assert program in PROGRAMS


@block_parameters("python")
def test_python_block_compiles_and_its_imports_resolve(block: Block) -> None:
    tree = ast.parse(block.text, block.place)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            # On a robot the file is copied, and is a module of its own.
            name = "export.runtime" if node.module == "runtime" else str(node.module)
            module = importlib.import_module(name)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{name} has no {alias.name}"


@block_parameters("toml")
def test_toml_block_is_toml(block: Block) -> None:
    assert tomllib.loads(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_page_names_existing_python_names(page: str) -> None:
    names = re.findall(
        rf"(?:`|^::: )((?:{'|'.join(PACKAGES)})(?:\.\w+)+)", prose(page), re.MULTILINE
    )
    assert not [name for name in names if not resolve_name(name)]


@pytest.mark.parametrize("page", PAGES)
def test_page_names_existing_configuration_keys(page: str) -> None:
    keys = {*configuration_keys(TeacherConfig), *configuration_keys(DistillConfig)}
    sections = {key.partition(".")[0] for key in keys if "." in key}
    named = re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", prose(page))
    of_sections = [key for key in named if key.partition(".")[0] in sections]
    unknown = set(of_sections) - keys - NO_KEYS
    assert not unknown


@pytest.mark.parametrize("page", PAGES)
def test_page_names_existing_files(page: str) -> None:
    folders = "|".join((*PACKAGES, "tests", "benchmarks", "docs"))
    named = re.findall(rf"`((?:{folders})/[\w/.-]*)`", prose(page))
    # A name in capital letters stands for the reader's own.
    missing = [name for name in named if not (ROOT / name).exists() and "NAME" not in name]
    assert not missing


@pytest.mark.parametrize("page", PAGES)
def test_page_names_existing_options(page: str) -> None:
    options = {
        option for command in subcommands() for each in command.params for option in each.opts
    }
    named = re.findall(r"`[^`\n]*?(--[a-z][a-z-]+)", prose(page))
    assert not set(named) - options - {"--help"}


def test_api_pages_hold_every_public_name() -> None:
    documented = {
        name.rpartition(".")[2]
        for page in PAGES
        if page.startswith("docs/api/")
        for name in re.findall(r"^::: (.+)$", read_page(page), re.MULTILINE)
    }
    # By the name of the object: a second name for it needs no second entry.
    public = {
        getattr(importlib.import_module(package), name).__name__
        for package in PACKAGES
        for name in importlib.import_module(package).__all__
    }
    assert not public - documented
