"""Configuration: frozen, validated models, and how files and command lines reach their fields.

Precedence, low to high: the model's defaults, the task's defaults, a preset, a TOML file, overrides by dotted key.
"""

from collections.abc import Mapping
from typing import Any, Literal

from etils import epath
from pydantic import Field, field_validator

from teachers import presets
from teachers.runs.configuration import Config, resolve_config
from teachers.runs.errors import InputError
from teachers.tasks import Engine, absolute_reference
from teachers.tasks.registry import get_task

Residual = Literal["auto", "published", "zero"]
# With more than one block, those that start at zero learn faster: benchmarks/stability.py, sweeps/cpu/limits.
PUBLISHED_DEPTH = 4


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

    renamed = {"updates": "gradient_steps"}

    gradient_steps: int = Field(
        64, ge=1, le=1_000_000, description="gradient steps in an iteration"
    )
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
    seed: int = Field(0, ge=0, lt=2**32, description="seed of all random numbers")
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
    config = resolve_config(TeacherConfig, defaults, file, overrides, source)
    if config.task != absolute_reference(task):
        raise InputError(
            f"the configuration is for task {config.task!r}, not {task!r}; name that one, or change its `task`"
        )
    return config


LAYERS_PER_BLOCK = 4
