"""What an experiment is: a grid of teachers, described by one TOML file."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from etils import epath
from pydantic import Field, field_validator

from teachers.config import TeacherConfig, teacher_config
from teachers.runs.configuration import Config, resolve_config
from teachers.runs.errors import InputError
from teachers.runs.paths import require_reachable
from teachers.sweeps.figures import SweepFigure

SHIPPED = Path(__file__).parent / "specifications"

# Names in a specification for several fields at once, the widest first: the narrower ones win.
SHORT: Mapping[str, tuple[str, ...]] = {
    f"{prefix}{field}": tuple(f"{network}.{field}" for network in networks)
    for prefix, networks in (("", ("actor", "phi", "psi")), ("critic.", ("phi", "psi")))
    for field in ("depth", "width", "residual")
}

Value = str | int | float | bool


class SweepSpec(Config):
    """An experiment, as its TOML file describes it.

    `settings`, `grid` and `cells` use the configuration's dotted keys, and for several networks at once `depth`,
    `width`, `residual`, `critic.depth`, `critic.width` and `critic.residual` (phi and psi); `grid` and `cells` also
    `task`. What a cell says wins over `settings`.
    """

    about: str = Field("", description="what it is to show")
    task: str = Field(description="a name or FILE.py:Class; the grid and cells may name others")
    preset: str | None = Field(None, description="a preset of the configuration, such as `paper`")
    seeds: int = Field(
        3, ge=1, le=1000, strict=True, description="runs of each cell, with seeds 0, 1, ..."
    )
    at_once: Literal["auto", "all", "one"] = Field(
        "auto",
        description="seeds trained at once by vmap; auto: what fits an accelerator, one on a CPU",
    )
    settings: dict[str, Any] = Field({}, description="of all cells")
    grid: dict[str, list[Value]] = Field(
        {}, description="values by key: a cell for each combination"
    )
    cells: list[dict[str, Value]] = Field(
        [], description="further cells, each with its own settings"
    )
    figures: list[SweepFigure] = Field(["depth", "curves"], description="see `plot_sweep`")

    @field_validator("settings", mode="before")
    @classmethod
    def _flat_settings(cls, settings: Any) -> Any:
        return _flat(settings)

    @field_validator("grid", mode="before")
    @classmethod
    def _flat_grid(cls, grid: Any) -> Any:
        flat = _flat(grid)
        for key, values in flat.items() if isinstance(flat, dict) else ():
            if not isinstance(values, list) or not values:
                raise ValueError(f"{key} takes a list of values, such as {key} = [4, 16]")
            _require_plain(key, values)
        return flat

    @field_validator("cells", mode="before")
    @classmethod
    def _flat_cells(cls, cells: Any) -> Any:
        flat = [_flat(cell) for cell in cells] if isinstance(cells, list) else cells
        for cell in flat if isinstance(flat, list) else ():
            for key, value in cell.items() if isinstance(cell, dict) else ():
                _require_plain(key, [value])
        return flat


class Cell(NamedTuple):
    """One combination of settings."""

    name: str  # such as `depth=16,width=64`
    varied: dict[str, Value]
    config: TeacherConfig  # with seed 0


def read_spec(spec: str) -> tuple[str, SweepSpec]:
    """An experiment's name and specification.

    Args:
        spec: a TOML file, or the name of one that is shipped, such as `cpu/depth`.

    Raises:
        InputError: there is no such file, or it is not a specification.
    """
    file, name = epath.Path(spec), epath.Path(spec).stem
    require_reachable(file)
    if not file.is_file():
        if spec not in shipped():
            known = ", ".join(shipped())
            raise InputError(
                f"there is no specification {spec!r}; give a TOML file or one of {known}"
            )
        file, name = epath.Path(SHIPPED / f"{spec}.toml"), spec.replace("/", "-")
    try:
        return name, resolve_config(SweepSpec, {}, file, None)
    except InputError as error:
        where = "" if str(file) in str(error) else f" (in {file})"
        raise InputError(f"{error}{where}") from None


def shipped() -> list[str]:
    """The names of the specifications that come with the package."""
    files = sorted(SHIPPED.glob("*/*.toml"))
    return [str(file.relative_to(SHIPPED).with_suffix("")) for file in files]


def cells(spec: SweepSpec) -> list[Cell]:
    """All cells of an experiment, the grid's first.

    Raises:
        InputError: a setting is unknown or out of its range, or two cells are the same.
    """
    combinations: Iterable[dict[str, Value]] = (
        dict(zip(spec.grid, values, strict=True))
        for values in itertools.product(*spec.grid.values())
    )
    if spec.cells and not spec.grid:
        combinations = []
    found: dict[str, Cell] = {}
    for varied in [*combinations, *spec.cells]:
        cell = _cell(spec, varied)
        for other in found.values():
            if other.config == cell.config:
                raise InputError(
                    f"cells {other.name!r} and {cell.name!r} are the same; leave one out"
                )
        found[cell.name] = cell
    return list(found.values())


def _cell(spec: SweepSpec, varied: Mapping[str, Value]) -> Cell:
    name = ",".join(f"{key}={value}" for key, value in varied.items()) or "only"
    for source, keys in (("settings", spec.settings), (f"cell {name!r}", varied)):
        if "seed" in keys:
            raise InputError(
                f"'seed' in {source}: each cell is trained with seeds 0, 1, ...; set `seeds`"
            )
    task = str(varied.get("task", spec.task))
    own = {key: value for key, value in varied.items() if key != "task"}
    try:
        fields = {**_expanded(spec.settings), **_expanded(own)}
        config = teacher_config(task, None, fields, spec.preset, "the experiment")
    except InputError as error:
        raise InputError(f"cell {name!r}: {error}") from None
    return Cell(name.replace("/", "_"), dict(varied), config)


def _expanded(settings: Mapping[str, Any]) -> dict[str, Any]:
    wide = {key: settings[key] for key in SHORT if key in settings}
    fields = {field: value for key, value in wide.items() for field in SHORT[key]}
    return fields | {key: value for key, value in settings.items() if key not in SHORT}


def _require_plain(key: str, values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, Value):
            raise ValueError(f"{key} = {value!r}: a value is a number, text, true or false")


def _flat(tree: Any, prefix: str = "") -> Any:
    """Nested tables as one, by dotted key."""
    if not isinstance(tree, Mapping):
        return tree
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = (
            _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
        )
        if twice := flat.keys() & inner.keys():
            raise ValueError(f"{twice.pop()} stands there twice")
        flat |= inner
    return flat
