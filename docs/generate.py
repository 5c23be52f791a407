"""Writes the reference pages in docs/reference from the code: `make reference`.

A test generates them again and fails where a page in the repository differs.
"""

import ast
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
FOLDER = "docs/reference"
NOTE = (
    "<!-- Written by docs/generate.py from the code: `make reference`. Changes here are lost. -->"
)
PACKAGES = ("teachers", "students", "export", "distill")  # in the order of imports


def pages() -> dict[str, str]:
    """Returns every reference page by its path in the repository."""
    contents = {
        "configuration": configuration_page(),
        "command-line": command_line_page(),
        "json": json_page(),
        "tasks": tasks_page(),
        "modules": modules_page(),
    }
    return {f"{FOLDER}/{name}.md": content for name, content in contents.items()}


# Configuration


def configuration_page() -> str:
    """Returns the page of every configuration key, the presets, the methods and the tasks' defaults."""
    from distill.config import DistillConfig
    from distill.methods import METHODS
    from teachers.config import TeacherConfig
    from teachers.presets import PRESETS
    from teachers.sweeps.specification import SweepSpec

    parts = [
        "# Configuration keys",
        NOTE,
        "A key is set in a TOML file (`--config FILE`) or alone (`--set section.key=value`). Later ones win: the "
        "defaults below, the task's defaults, the preset or method, the file, the named options such as `--depth`, "
        "`--set`. A value outside its range is refused with one line.",
        "## Teachers",
        "Of `crl-distill train-teacher`, and of `settings`, `grid` and `cells` in an experiment.",
        *_sections(TeacherConfig),
        "### Defaults of the tasks",
        "Every task that is not listed has the defaults above.",
        _table(("task", "settings"), _task_defaults("training")),
        "### Presets",
        "A preset is a name for several settings: `--preset NAME`.",
        _table(
            ("preset", "key", "value"),
            [
                (_code(name), _code(key), _code(_toml(value)))
                for name in PRESETS
                for key, value in PRESETS[name].items()
            ],
        ),
        "## Distillation",
        "Of `crl-distill distill`.",
        *_sections(DistillConfig),
        "### Defaults of the tasks for their students",
        "Every task that is not listed has the defaults above.",
        _table(("task", "settings"), _task_defaults("distillation")),
        "### Methods",
        "A method is a name for several settings: `--method NAME`.",
        _table(
            ("method", "settings"),
            [(_code(name), _settings(METHODS[name]) or "the defaults") for name in METHODS],
        ),
        "## Experiments",
        "The file of `crl-distill sweep`.",
        *_sections(SweepSpec),
        "## Renamed keys",
        "The old name is read for one more version, in files, in `--set` and in checkpoints, with a warning.",
        _table(
            ("old name", "present name"),
            [*_renamed(TeacherConfig), *_renamed(DistillConfig, " (distillation)")],
        ),
    ]
    return _page(parts)


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Yields a table of a model's own keys, then the tables of its sections."""
    own, sections = [], []
    for name, field in model.model_fields.items():
        section = _model(field.annotation)
        if section is None:
            own.append((_code(prefix + name), *_field(field)))
        else:
            sections.append((f"{prefix}{name}", section))
    if own:
        yield _table(("key", "type", "default", "range", "meaning"), own)
    shown: dict[type[BaseModel], str] = {}
    for name, section in sections:
        yield f"#### `{name}`"
        if section in shown:
            yield f"The same keys as [`{shown[section]}`](#{shown[section].replace('.', '')})."
            continue
        shown[section] = name
        yield _first_paragraph(inspect.getdoc(section))
        yield from _sections(section, f"{name}.")


def _model(annotation: Any) -> type[BaseModel] | None:
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None


def _field(field: FieldInfo) -> tuple[str, str, str, str]:
    """Returns the type, the default, the range and the meaning of a key."""
    default = "required" if field.is_required() else _code(_toml(field.get_default()))
    if not field.is_required() and field.default is None:
        default = "-"
    return _type(field.annotation), default, _range(field), field.description or ""


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(_code(choice) for choice in get_args(annotation))
    arguments = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is tuple:
        return f"pair of {_type(arguments[0])}"
    if get_origin(annotation) in (dict, list):
        return {"dict": "table", "list": "list"}[get_origin(annotation).__name__]
    if hasattr(annotation, "__metadata__"):  # `Annotated`
        return _type(arguments[0])
    if arguments:
        return " or ".join(_type(each) for each in arguments)
    return {"int": "integer", "float": "number", "bool": "true, false", "str": "text"}[
        annotation.__name__
    ]


def _range(field: FieldInfo) -> str:
    constraints = list(field.metadata)
    for part in (field.annotation, *get_args(field.annotation)):
        for each in getattr(part, "__metadata__", ()):
            constraints += getattr(each, "metadata", [each])
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = {
        f"{sign} {getattr(each, name):,}": None
        for each in constraints
        for name, sign in signs.items()
        if getattr(each, name, None) is not None
    }
    return ", ".join(found) or "-"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml(each) for each in value)}]"
    if isinstance(value, int):
        return f"{value:_}"
    return '""' if value == "" else str(value)


def _task_defaults(of: Literal["training", "distillation"]) -> list[tuple[str, str]]:
    """Returns the settings that tasks declare, tasks of the same settings in one row."""
    from teachers.tasks import TASKS

    rows: dict[str, list[str]] = {}
    for name, task in TASKS.items():
        if settings := getattr(task, of):
            rows.setdefault(_settings(settings), []).append(_code(name))
    return [(", ".join(names), settings) for settings, names in rows.items()]


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(_code(f"{key}={_toml(value)}") for key, value in settings.items())


def _renamed(
    model: type[BaseModel], where: str = "", prefix: str = ""
) -> Iterator[tuple[str, str]]:
    for old, new in getattr(model, "renamed", {}).items():
        yield f"`{prefix}{old}`{where}", _code(prefix + new)
    for name, field in model.model_fields.items():
        section = _model(field.annotation)
        if section:
            yield from _renamed(section, where, f"{prefix}{name}.")


# Command line


def command_line_page() -> str:
    """Returns the page of every command with its arguments and options, as `--help` gives them."""
    from distill.cli import app

    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="crl-distill")
    parts = [
        "# Commands",
        NOTE,
        "Progress goes to stderr. `--json` prints one JSON value on stdout and nothing else there; "
        "[its keys](json.md). Bad input ends with one line on stderr and exit code 2, and overwrites nothing.",
    ]
    return _page([*parts, *_commands(group, context)])


def _commands(group: Any, context: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        inner = command.context_class(command, info_name=name, parent=context)
        yield f"## `{inner.command_path.removeprefix('crl-distill ')}`"
        text, _, example = (command.help or "").partition("\b\nExample:\n")
        yield text.strip()
        if hasattr(command, "commands"):
            yield from _commands(command, inner)
            continue
        usage = inner.get_usage().removeprefix("Usage: ")
        yield f"```text\n{usage}\n```"
        records = [
            (_code(left), right)
            for left, right in (each.get_help_record(inner) for each in command.get_params(inner))
            if left != "--help"
        ]
        yield _table(("argument or option", "meaning"), records)
        if example:
            yield "Example:"
            yield f"```text\n{inspect.cleandoc(example)}\n```"


# JSON


def json_page() -> str:
    """Returns the page of the keys of every JSON value that a command prints or a run leaves."""
    from distill.cli.json_keys import OUTPUTS

    parts = [
        "# JSON keys",
        NOTE,
        "What commands print with `--json`, and what runs leave. `a.b` is key `b` of the object under `a`; `a[].b` "
        "is a key of each object in the list under `a`; `a.*` is every key under `a`.",
        "A key with `_ci95` appended holds the 95% interval of the key without it, `[lower, upper]`, by bootstrap over "
        "episodes; of a mean over seeds, over seeds. A key with `_by_seed` appended holds the value of each seed. They "
        "are not listed. What is not defined is `null`.",
    ]
    for output in OUTPUTS:
        is_file = output.source.startswith("metrics")
        parts += [
            f"## {output.source}" if is_file else f"## `{output.source}`",
            f"{output.form[0].upper()}{output.form[1:]}.",
            _table(("key", "holds"), [(_code(key), text) for key, text in output.keys.items()]),
        ]
    return _page(parts)


# Tasks


def tasks_page() -> str:
    """Returns the page of all tasks and their fields."""
    from teachers.tasks import TASKS, get_task
    from teachers.tasks.describe import describe_task

    tasks = [
        describe_task(get_task(name)) | {"contacts": get_task(name).contacts} for name in TASKS
    ]
    parts = [
        "# All tasks",
        NOTE,
        "What each of them is like: [Tasks](../tasks.md). `crl-distill tasks NAME` prints the same.",
        _table(
            ("task", "what", "observation, goal, action", "episode", "success within", "contacts"),
            [_task_row(task) for task in tasks],
        ),
        "*Episode*: control steps x control period. *Contacts*: how many MJX computes in every step, touching or not.",
    ]
    for task in tasks:
        parts += [f"## `{task['name']}`", task["summary"]]
        parts.append(
            _table(
                ("array", "field", "numbers", "unit", "scale", "limits", "meaning"),
                [
                    _field_row(array, field)
                    for array in ("observation", "goal", "action")
                    for field in task[array]
                ],
            )
        )
    return _page(parts)


def _task_row(task: Mapping[str, Any]) -> tuple[str, ...]:
    hard = task["hard_radius"]
    name = task["name"]
    return (
        f"[`{name}`](#{name})",
        task["summary"],
        ", ".join(str(task[array][-1]["stop"]) for array in ("observation", "goal", "action")),
        f"{task['episode_steps']} x {1000 * task['control_period']:g} ms",
        f"{task['success_radius']:g} {task['goal'][0]['unit']}"
        + (f" (hard: {hard:g})" if hard else ""),
        str(task["contacts"]),
    )


def _field_row(array: str, field: Mapping[str, Any]) -> tuple[str, ...]:
    first, last = field["start"], field["stop"] - 1
    limits = "-" if field["low"] is None else f"{field['low']:g} to {field['high']:g}"
    numbers = str(first) if first == last else f"{first} to {last}"
    scale = f"{field['scale']:g}"
    return array, _code(field["name"]), numbers, field["unit"], scale, limits, field["meaning"]


# Modules


def modules_page() -> str:
    """Returns the page of all modules, a paragraph each, in the order of imports."""
    parts = [
        "# Modules",
        NOTE,
        "What each module is, in its own words. How they work together: [How the code is built](../architecture.md).",
    ]
    for package in PACKAGES:
        for folder in [ROOT / package, *sorted((ROOT / package).rglob("*/"))]:
            files = sorted(folder.glob("*.py"), key=lambda file: (file.stem != "__init__", file))
            if not files or files[0].name != "__init__.py":
                continue
            parts.append(f"## `{folder.relative_to(ROOT)}/`")
            parts.append(_first_paragraph(_docstring(files[0])))
            parts += [f"**`{file.name}`**: {_docstring(file)}" for file in files[1:]]
    return _page(parts)


def _docstring(file: Path) -> str:
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


# Markdown


def _first_paragraph(docstring: str | None) -> str:
    return " ".join((docstring or "").partition("\n\n")[0].split())


def _code(text: Any) -> str:
    return f"`{text}`"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    for path, content in pages().items():
        file = ROOT / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
