"""The specification of an experiment: a grid of teachers, described by one TOML file."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from etils import epath
from pydantic import Field, field_serializer, field_validator

from teachers.config import TeacherConfig, teacher_config
from teachers.runs.configuration import Config, resolve_config
from teachers.runs.errors import InputError
from teachers.runs.paths import require_reachable
from teachers.sweeps.figures import SweepFigure
from teachers.tasks.load import portable_reference

SHIPPED = Path(__file__).parent / "specifications"

# Keys in a specification that stand for several fields. Those for all networks come first, and those for the critic's
# networks override them.
GROUPED_FIELDS: Mapping[str, tuple[str, ...]] = {
    f"{prefix}{field}": tuple(f"{network}.{field}" for network in networks)
    for prefix, networks in (("", ("actor", "phi", "psi")), ("critic.", ("phi", "psi")))
    for field in ("depth", "width", "residual")
}

Value = str | int | float | bool


class SweepSpec(Config):
    """An experiment, as its TOML file describes it.

    `settings`, `grid` and `cells` use the dotted keys of the configuration. `depth`, `width` and `residual` set a field of
    all networks; `critic.depth`, `critic.width` and `critic.residual` set one of phi and psi. `grid` and `cells` may also
    set `task`. The settings of a cell override `settings`.
    """

    about: str = Field("", description="what the experiment shows")
    task: str = Field(description="a name or FILE.py:Class; grid and cells may set others")
    preset: str | None = Field(None, description="a preset of the configuration, such as `paper`")
    seeds: int = Field(
        3, ge=1, le=1000, strict=True, description="runs of each cell, with seeds 0, 1, ..."
    )
    at_once: Literal["auto", "all", "one"] = Field(
        "auto",
        description="seeds trained at once by vmap; auto: what fits an accelerator, one on a CPU",
    )
    settings: dict[str, Any] = Field({}, description="settings of all cells")
    grid: dict[str, list[Value]] = Field(
        {}, description="lists of values by key; each combination is a cell"
    )
    cells: list[dict[str, Value]] = Field(
        [], description="further cells, each with its own settings"
    )
    figures: list[SweepFigure] = Field(
        ["depth", "curves"], description="figures to draw; see `plot_sweep`"
    )

    @field_validator("settings", mode="before")
    @classmethod
    def _flatten_settings(cls, settings: Any) -> Any:
        return flatten(settings)

    @field_validator("grid", mode="before")
    @classmethod
    def _flatten_grid(cls, grid: Any) -> Any:
        flat = flatten(grid)
        for key, values in flat.items() if isinstance(flat, dict) else ():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{key} takes a list of values, such as {key} = [4, 16]")
            _require_plain_values(key, values)
        return flat

    @field_validator("cells", mode="before")
    @classmethod
    def _flatten_cells(cls, cells: Any) -> Any:
        flat = [flatten(cell) for cell in cells] if isinstance(cells, list) else cells
        for cell in flat if isinstance(flat, list) else ():
            for key, value in cell.items() if isinstance(cell, dict) else ():
                _require_plain_values(key, [value])
        return flat

    @field_serializer("task")
    def _drop_folder(self, task: str) -> str:
        return portable_reference(task)

    @field_serializer("grid")
    def _drop_folders_of_grid(self, grid: dict[str, list[Value]]) -> dict[str, list[Value]]:
        return {
            key: [portable_reference(str(v)) for v in values] if key == "task" else values
            for key, values in grid.items()
        }

    @field_serializer("cells")
    def _drop_folders_of_cells(self, cells: list[dict[str, Value]]) -> list[dict[str, Value]]:
        return [_drop_folder_of_task(cell) for cell in cells]


class Cell(NamedTuple):
    """One combination of settings, which is trained with several seeds."""

    name: str  # such as `depth=16,width=64`
    varied: dict[str, Value]
    config: TeacherConfig  # with seed 0


def read_spec(spec: str) -> tuple[str, SweepSpec]:
    """Returns the name and specification of an experiment.

    Args:
        spec: a TOML file, or the name of a shipped specification, such as `cpu/depth`.

    Raises:
        InputError: there is no such file, or it is not a specification.
    """
    file, name = epath.Path(spec), epath.Path(spec).stem
    require_reachable(file)
    if not file.is_file():
        if spec not in shipped_specifications():
            names = ", ".join(shipped_specifications())
            raise InputError(
                f"there is no specification {spec!r}; give a TOML file or one of {names}"
            )
        file, name = epath.Path(SHIPPED / f"{spec}.toml"), spec.replace("/", "-")
    try:
        return name, resolve_config(SweepSpec, {}, file, None)
    except InputError as error:
        where = "" if str(file) in str(error) else f" (in {file})"
        raise InputError(f"{error}{where}") from None


def shipped_specifications() -> list[str]:
    """Returns the names of the specifications that come with the package."""
    files = sorted(SHIPPED.glob("*/*.toml"))
    return [str(file.relative_to(SHIPPED).with_suffix("")) for file in files]


def expand_cells(spec: SweepSpec) -> list[Cell]:
    """Returns all cells of an experiment, those of the grid first.

    Raises:
        InputError: a setting is unknown or out of its range, or two cells are the same or have the same name.
    """
    combinations: Iterable[dict[str, Value]] = (
        dict(zip(spec.grid, values, strict=True))
        for values in itertools.product(*spec.grid.values())
    )
    if spec.cells and not spec.grid:
        combinations = []
    cells: dict[str, Cell] = {}
    for varied in [*combinations, *spec.cells]:
        cell = _make_cell(spec, varied)
        for other in cells.values():
            if other.config == cell.config:
                raise InputError(
                    f"cells {other.name!r} and {cell.name!r} are the same; leave one out"
                )
            if other.name == cell.name:
                raise InputError(
                    f"two cells have the same name, {cell.name!r}, which is without a task's folder; rename one of the "
                    "files, or leave one cell out"
                )
        cells[cell.name] = cell
    return list(cells.values())


def _make_cell(spec: SweepSpec, varied: Mapping[str, Value]) -> Cell:
    shown = _drop_folder_of_task(varied)
    name = ",".join(f"{key}={value}" for key, value in shown.items()) or "only"
    for source, keys in (("settings", spec.settings), (f"cell {name!r}", varied)):
        if "seed" in keys:
            raise InputError(
                f"'seed' in {source}: each cell is trained with seeds 0, 1, ...; set `seeds` to their number"
            )
    task = str(varied.get("task", spec.task))
    cell_settings = {key: value for key, value in varied.items() if key != "task"}
    try:
        fields = {**_expand_groups(spec.settings), **_expand_groups(cell_settings)}
        config = teacher_config(task, None, fields, spec.preset, "the experiment")
    except InputError as error:
        raise InputError(f"cell {name!r}: {error}") from None
    return Cell(name.replace("/", "_"), shown, config)


def _drop_folder_of_task(varied: Mapping[str, Value]) -> dict[str, Value]:
    """Returns the settings of a cell with the task's file, if there is one, under its name alone."""
    return {
        key: portable_reference(str(value)) if key == "task" else value
        for key, value in varied.items()
    }


def _expand_groups(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with every key of `GROUPED_FIELDS` replaced by its fields; keys of single fields override it."""
    groups = {key: settings[key] for key in GROUPED_FIELDS if key in settings}
    fields = {field: value for key, value in groups.items() for field in GROUPED_FIELDS[key]}
    return fields | {key: value for key, value in settings.items() if key not in GROUPED_FIELDS}


def _require_plain_values(key: str, values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, Value):
            raise ValueError(f"{key} = {value!r}: a value must be a number, text, true or false")


def flatten(tree: Any, prefix: str = "") -> Any:
    """Returns nested tables as one table by dotted key; anything else is returned unchanged."""
    if not isinstance(tree, Mapping):
        return tree
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = (
            flatten(value, f"{prefix}{key}.")
            if isinstance(value, Mapping)
            else {prefix + key: value}
        )
        if duplicates := flat.keys() & inner.keys():
            raise ValueError(f"{duplicates.pop()} is set twice; leave one out")
        flat |= inner
    return flat
