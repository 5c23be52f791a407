"""Configuration: frozen, validated models, and how files and command lines reach their fields.

Precedence, low to high: the model's defaults, the task's defaults, a preset, a TOML file, overrides by dotted key.
"""

import difflib
import tomllib
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import tomli_w
from etils import epath
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from teachers import presets
from teachers.networks import LAYERS_PER_BLOCK
from teachers.paths import reaching, require_reachable
from teachers.tasks import Engine, InputError, absolute_reference, get_task

Residual = Literal["auto", "published", "zero"]
# With more than one block, those that start at zero learn faster: benchmarks/stability.py, sweeps/cpu/limits.
PUBLISHED_DEPTH = 4

ConfigType = TypeVar("ConfigType", bound="Config")


class Config(BaseModel):
    """Base of every configuration: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_toml(self) -> str:
        """The whole configuration as TOML, which `--config` reads back."""
        return tomli_w.dumps(self.model_dump(exclude_none=True))


class NetworkConfig(Config):
    """A residual MLP."""

    depth: int = Field(16, ge=4, le=4096, description="Dense layers in the trunk, a multiple of 4")
    width: int = Field(64, ge=1, le=16384, description="units of each layer")
    residual: Residual = Field(
        "auto", description="how blocks start, see `ResidualMLP`; auto: zero where depth needs it"
    )

    @property
    def zero(self) -> bool:
        """Whether residual branches start at zero, with `auto` resolved."""
        if self.residual == "auto":
            return self.depth > PUBLISHED_DEPTH
        return self.residual == "zero"

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth % LAYERS_PER_BLOCK:
            below = depth - depth % LAYERS_PER_BLOCK
            raise ValueError(
                f"depth must be a multiple of {LAYERS_PER_BLOCK}, such as {below} or {below + LAYERS_PER_BLOCK}"
            )
        return depth


class RolloutConfig(Config):
    """How experience is collected."""

    environments: int = Field(256, ge=1, le=1_000_000, description="simulated at once")
    steps: int = Field(50, ge=1, le=100_000, description="control steps of each in an iteration")
    replay_steps: int = Field(
        2000,
        ge=2,
        le=10_000_000,
        description="control steps kept of each environment (rounded up to iterations)",
    )
    physics: Engine = Field("jax", description="which of MJX's implementations simulates")


class LearningConfig(Config):
    """How the networks learn."""

    updates: int = Field(64, ge=1, le=1_000_000, description="gradient steps in an iteration")
    batch: int = Field(256, ge=2, le=1_000_000, description="pairs in a gradient step")
    learning_rate: float = Field(
        1e-3, gt=0, le=1, description="Adam's, of actor, critic and temperature"
    )
    discount: float = Field(
        0.95, gt=0, lt=1, description="gamma: hindsight goals lie 1 / (1 - gamma) steps ahead"
    )
    logsumexp_penalty: float = Field(
        0.1, ge=0, description="weight of the squared log-sum-exp of the logits"
    )
    initial_temperature: float = Field(0.2, gt=0, description="weight of the entropy at the start")
    target_entropy: float = Field(-0.5, description="nats for each action dimension")
    remat: Literal["auto", "on", "off"] = Field(
        "auto",
        description="compute activations again for the gradient; auto: where memory asks for it",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the trunks' matrix products; all else is float32"
    )
    max_skipped: int = Field(
        100, ge=0, description="gradient steps that are not finite before training ends"
    )


class LoggingConfig(Config):
    """What a run leaves behind. Intervals are in iterations."""

    evaluate_every: int = Field(4, ge=1, description="iterations between evaluations")
    episodes: int = Field(256, ge=1, le=1_000_000, description="episodes of an evaluation")
    checkpoint_every: int = Field(8, ge=1, description="iterations between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints to keep")
    keep_best: bool = Field(True, description="keep also the one with the highest time at goal")
    checkpoint_replay: Literal["auto", "on", "off"] = Field(
        "auto",
        description="save the replay, without which a resumed run differs; auto: where the disk has room",
    )


class TeacherConfig(Config):
    """Everything that determines a teacher's training run."""

    task: str = Field(description="a name or an absolute FILE.py:Class; see `get_task`")
    seed: int = Field(0, ge=0, lt=2**32)
    steps: int = Field(
        400_000, ge=1, le=10**13, description="control steps in all, rounded up to iterations"
    )
    embedding: int = Field(64, ge=1, le=16384, description="size of phi and psi's embeddings")
    actor: NetworkConfig = NetworkConfig()
    phi: NetworkConfig = NetworkConfig()
    psi: NetworkConfig = NetworkConfig()
    rollout: RolloutConfig = RolloutConfig()
    learning: LearningConfig = LearningConfig()
    logging: LoggingConfig = LoggingConfig()

    @field_validator("task")
    @classmethod
    def _in_any_folder(cls, task: str) -> str:
        # It is not loaded here: a configuration may come out of an artefact.
        return absolute_reference(task)

    @property
    def steps_per_iteration(self) -> int:
        """Control steps of all environments in an iteration."""
        return self.rollout.environments * self.rollout.steps

    @property
    def iterations(self) -> int:
        """Iterations of the whole run."""
        return -(-self.steps // self.steps_per_iteration)

    @property
    def replay_slots(self) -> int:
        """Replay steps of each environment: whole iterations, so that no rollout wraps around the ring."""
        return -(-self.rollout.replay_steps // self.rollout.steps) * self.rollout.steps


def teacher_config(
    task: str,
    file: epath.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    preset: str | None = None,
    source: str = "--set",
) -> TeacherConfig:
    """The configuration of a teacher for `task`: task defaults, the preset, the TOML file, then the overrides.

    Args:
        task: the task's name, or `FILE.py:Class`; see `get_task`.
        file: a TOML file with any of `TeacherConfig`'s fields.
        overrides: values by dotted key, such as `{"learning.batch": 512}`; strings are parsed.
        preset: the name of one of `teachers.presets`.
        source: where messages say that the overrides stand.

    Raises:
        InputError: unknown task, preset or key, a configuration for another task, unreadable file, or a value out of
            its range.
    """
    named = {} if preset is None else presets.preset(preset)
    defaults = {"task": task, **get_task(task).training, **named}
    config = resolve(TeacherConfig, defaults, file, overrides, source)
    if config.task != absolute_reference(task):
        raise InputError(
            f"the configuration is for task {config.task!r}, not {task!r}; name that one, or change its `task`"
        )
    return config


def stored_config(model: type[ConfigType], raw: Any, source: str) -> ConfigType:
    """The configuration inside an artefact.

    Raises:
        InputError: it does not fit this version's.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise InputError(
            f"the configuration inside {source} does not fit this crl-distill ({_explain(error)}); "
            "install the version that `crl-distill info` names for it"
        ) from None


def resolve(
    model: type[ConfigType],
    defaults: Mapping[str, Any],
    file: epath.PathLike | None,
    overrides: Mapping[str, Any] | None,
    source: str = "--set",
) -> ConfigType:
    """A configuration from defaults, a TOML file and overrides by dotted key; the later ones win.

    Raises:
        InputError: one line that names the key, the value and the remedy.
    """
    tree: dict[str, Any] = {}
    _merge(tree, _nested(model, defaults, "the defaults"))
    if file is not None:
        _merge(tree, _checked_keys(model, read_toml(file), str(file)))
    _merge(tree, _nested(model, overrides or {}, source))
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise InputError(_explain(error)) from None


def read_toml(file: epath.PathLike) -> dict[str, Any]:
    """The contents of a TOML file.

    Raises:
        InputError: there is no such file, or it is not TOML.
    """
    require_reachable(file)
    try:
        with reaching(file):
            content = epath.Path(file).read_bytes()
        return tomllib.loads(content.decode())
    except OSError as error:
        reason = error.strerror or "there is no such file"  # from a cloud
        raise InputError(f"cannot read configuration {file}: {reason}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file} is not valid TOML: {error}") from None


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`["section.key=value", ...]` as overrides.

    Raises:
        InputError: an assignment without `=`.
    """
    pairs = [assignment.partition("=") for assignment in assignments]
    for assignment, (key, equals, _) in zip(assignments, pairs, strict=True):
        if not (key and equals):
            raise InputError(f"--set {assignment!r}: write it as section.key=value")
    return {key.strip(): value.strip() for key, _, value in pairs}


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    return f"{key} = {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"


def _keys(model: type[BaseModel], prefix: str = "") -> dict[str, type[BaseModel] | None]:
    """Every dotted key, with the model behind it where it is a section."""
    keys: dict[str, type[BaseModel] | None] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        section = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        keys[prefix + name] = section
        if section:
            keys |= _keys(section, f"{prefix}{name}.")
    return keys


def _require_key(model: type[Config], key: str, source: str, *, leaf: bool = False) -> None:
    keys = _keys(model)
    if key not in keys:
        leaves = [name for name, section in keys.items() if section is None]
        near = difflib.get_close_matches(key, leaves, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(leaves)}"
        raise InputError(f"unknown key {key!r} in {source}; {hint}")
    if keys[key] is not None and leaf:
        raise InputError(
            f"{key!r} is a section; set one of its keys, such as {_first_leaf(keys, key)!r}"
        )


def _first_leaf(keys: Mapping[str, Any], section: str) -> str:
    return next(key for key in keys if key.startswith(f"{section}."))


def _checked_keys(model: type[Config], tree: dict[str, Any], source: str) -> dict[str, Any]:
    keys = _keys(model)

    def check(node: dict[str, Any], prefix: str) -> None:
        for name, value in node.items():
            _require_key(model, prefix + name, source)
            if keys[prefix + name] is not None:
                if not isinstance(value, dict):
                    raise InputError(
                        f"{prefix + name!r} in {source} is a section; write [{prefix + name}]"
                    )
                check(value, f"{prefix}{name}.")

    check(tree, "")
    return tree


def _nested(model: type[Config], flat: Mapping[str, Any], source: str) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        _require_key(model, key, source, leaf=True)
        *sections, leaf = key.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return tree


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
