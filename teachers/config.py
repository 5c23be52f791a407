"""The configuration of a teacher's training, as frozen and validated models.

A value may come from several places. In order of increasing precedence, these are the model's defaults, the task's
defaults, a preset, a TOML file, and overrides by dotted key.
"""

from collections.abc import Mapping
from typing import Any, Literal

from etils import epath
from pydantic import Field, field_serializer, field_validator, model_validator

from teachers.presets import preset_settings
from teachers.runs.configuration import Config, resolve_config
from teachers.runs.errors import InputError
from teachers.tasks import absolute_reference
from teachers.tasks.disturbance import Disturbances
from teachers.tasks.engines import ENGINE_HELP, EngineChoice, choose_engine
from teachers.tasks.load import portable_reference
from teachers.tasks.registry import get_task

LAYERS_PER_BLOCK = 4
# Up to this depth, `auto` initialises blocks as published. With branches that start at zero, networks of 16 layers learn as
# fast as published ones, and deeper networks faster: see benchmarks/stability.py and the sweep cpu/limits.
MAX_PUBLISHED_DEPTH = 4

Residual = Literal["auto", "published", "zero"]


class NetworkConfig(Config):
    """The shape and initialisation of a residual MLP."""

    depth: int = Field(
        16, ge=4, le=4096, description="Dense layers in the residual trunk, a multiple of 4"
    )
    width: int = Field(64, ge=1, le=16384, description="units of each layer")
    residual: Residual = Field(
        "auto",
        description="how residual branches and weights start, see `ResidualMLP`; auto: zero for depths over 4",
    )

    @property
    def zero_branches(self) -> bool:
        """Whether residual branches start at zero; `auto` is resolved."""
        if self.residual == "auto":
            return self.depth > MAX_PUBLISHED_DEPTH
        return self.residual == "zero"

    @field_validator("depth")
    @classmethod
    def _require_complete_blocks(cls, depth: int) -> int:
        if depth % LAYERS_PER_BLOCK:
            lower = depth - depth % LAYERS_PER_BLOCK
            raise ValueError(
                f"depth must be a multiple of {LAYERS_PER_BLOCK}, such as {lower} or {lower + LAYERS_PER_BLOCK}"
            )
        return depth


class RolloutConfig(Config):
    """How experience is collected."""

    environments: int = Field(256, ge=1, le=1_000_000, description="environments simulated at once")
    steps: int = Field(
        50, ge=1, le=100_000, description="control steps of each environment in an iteration"
    )
    replay_steps: int = Field(
        2000,
        ge=2,
        le=10_000_000,
        description="newest control steps of each environment in the replay, rounded up to iterations",
    )
    best_of: int = Field(
        1,
        ge=1,
        le=1000,
        description="actions drawn from the policy in each step, of which the critic chooses the best",
    )
    deterministic: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability, drawn for each environment and iteration, that its actions have no exploration noise",
    )
    random: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability, drawn for each environment and iteration, that its actions are uniformly random",
    )
    noise_steps: int = Field(
        1,
        ge=1,
        le=100_000,
        description="control steps for which the noise of an environment's actions, or its random action, stays the same; it is drawn anew at the start of an iteration",
    )
    prefill_steps: int = Field(
        0,
        ge=0,
        le=10_000_000,
        description="control steps of each environment before the first gradient step, rounded up to iterations",
    )
    physics: EngineChoice = Field("auto", description=ENGINE_HELP)
    disturbances: Disturbances = Field(
        Disturbances(), description="what disturbs the rollouts; evaluations are undisturbed"
    )
    privileged: bool = Field(
        False,
        description="whether policy and critic observe what disturbs each episode, which no robot measures and a student has to infer",
    )

    @model_validator(mode="after")
    def _require_something_to_know(self) -> "RolloutConfig":
        if self.privileged and self.disturbances == Disturbances():
            raise ValueError(
                "nothing disturbs the rollouts of a privileged teacher; add --randomize, or leave out privileged"
            )
        return self


class LearningConfig(Config):
    """How the networks learn."""

    renamed = {"updates": "gradient_steps"}

    gradient_steps: int = Field(
        64, ge=1, le=1_000_000, description="gradient steps in an iteration"
    )
    batch: int = Field(256, ge=2, le=1_000_000, description="state-action pairs in a gradient step")
    learning_rate: float = Field(
        1e-3, gt=0, le=1, description="learning rate of Adam for actor, critic and temperature"
    )
    discount: float = Field(
        0.95,
        gt=0,
        lt=1,
        description="gamma: hindsight goals lie 1 / (1 - gamma) control steps ahead on average, less near an episode's end",
    )
    logsumexp_penalty: float = Field(
        0.1, ge=0, description="weight of the squared log-sum-exp of the logits"
    )
    initial_temperature: float = Field(
        0.2, gt=0, description="weight of the policy's entropy at the start"
    )
    target_entropy: float = Field(
        -0.5, description="target of the policy's entropy, in nats for each action dimension"
    )
    entropy_fall: float = Field(
        0.0,
        ge=0,
        description="by how much the target entropy falls, linearly over the last quarter of the training, in nats for each action dimension",
    )
    rate_fall: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the learning rate that is lost at the end: it falls linearly over the last 40% of the training",
    )
    random_goals: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the actor's goals that come from other pairs of the batch, or with `commanded_critic` were commanded; the others are hindsight goals",
    )
    remat: Literal["auto", "on", "off"] = Field(
        "auto",
        description="recompute activations for the gradient; auto: if they do not fit in memory",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="precision of the trunks' matrix products; everything else is float32",
    )
    max_skipped: int = Field(
        100,
        ge=0,
        description="gradient steps in a row that may be skipped, because they are not finite, before training ends",
    )


class LoggingConfig(Config):
    """How often a run is evaluated and saved. Intervals are in iterations."""

    evaluate_every: int = Field(4, ge=1, description="iterations between evaluations")
    episodes: int = Field(256, ge=1, le=1_000_000, description="episodes of an evaluation")
    checkpoint_every: int = Field(8, ge=1, description="iterations between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="number of newest checkpoints to keep")
    keep_best: bool = Field(
        True, description="keep also the checkpoint with the highest time at goal"
    )
    checkpoint_replay: Literal["auto", "on", "off"] = Field(
        "auto",
        description="save the replay, without which a resumed run differs; auto: if the disk has room",
    )


class TeacherConfig(Config):
    """Everything that determines the training of a teacher.

    `task` is absolute where it names a file. What is written of the configuration has the file's name alone.
    """

    task: str = Field(description="a name or FILE.py:Class; see `get_task`")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of all random numbers")
    steps: int = Field(
        400_000,
        ge=1,
        le=10**13,
        description="control steps of all environments together, rounded up to iterations",
    )
    embedding: int = Field(64, ge=1, le=16384, description="size of the embeddings of phi and psi")
    commanded_critic: bool = Field(
        False,
        description="whether phi also reads the goal that the policy was given when it acted: phi(s, a, g) in place of phi(s, a)",
    )
    actor: NetworkConfig = NetworkConfig()
    phi: NetworkConfig = NetworkConfig()
    psi: NetworkConfig = NetworkConfig()
    rollout: RolloutConfig = RolloutConfig()
    learning: LearningConfig = LearningConfig()
    logging: LoggingConfig = LoggingConfig()

    @field_validator("task")
    @classmethod
    def _make_absolute(cls, task: str) -> str:
        # The task is not loaded here, because the configuration may come from an artefact of somebody else.
        return absolute_reference(task)

    @field_serializer("task")
    def _drop_folder(self, task: str) -> str:
        return portable_reference(task)

    def with_engine(self) -> "TeacherConfig":
        """Returns this configuration with the engine that computes the physics here in place of `auto`."""
        engine = choose_engine(self.rollout.physics)
        return self.model_copy(
            update={"rollout": self.rollout.model_copy(update={"physics": engine})}
        )

    @property
    def steps_per_iteration(self) -> int:
        """Control steps of all environments in an iteration."""
        return self.rollout.environments * self.rollout.steps

    @property
    def iterations(self) -> int:
        """Iterations of the complete training."""
        return -(-self.steps // self.steps_per_iteration)

    @property
    def prefill_iterations(self) -> int:
        """Iterations at the start of the training that collect experience and take no gradient step."""
        return -(-self.rollout.prefill_steps // self.rollout.steps)

    @property
    def replay_slots(self) -> int:
        """Replay steps of each environment: a multiple of a rollout, so that none wraps around the end of the ring."""
        return -(-self.rollout.replay_steps // self.rollout.steps) * self.rollout.steps


def teacher_config(
    task: str,
    file: epath.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    preset: str | None = None,
    source: str = "--set",
) -> TeacherConfig:
    """Returns the configuration of a teacher for a task, from all places that may set a value.

    Args:
        task: the task's name, or `FILE.py:Class`; see `get_task`.
        file: a TOML file with any fields of `TeacherConfig`.
        overrides: values by dotted key, such as `{"learning.batch": 512}`; strings are parsed.
        preset: name of a preset; see `teachers.presets`.
        source: where the overrides come from, for error messages.

    Raises:
        InputError: task, preset or a key is unknown, the file is of another task or unreadable, or a value is out of its
            range.
    """
    preset_values = {} if preset is None else preset_settings(preset)
    defaults = {"task": task, **get_task(task).training, **preset_values}
    config = resolve_config(TeacherConfig, defaults, file, overrides, source)
    if portable_reference(config.task) != portable_reference(task):
        raise InputError(
            f"the configuration is for task {portable_reference(config.task)!r}, not {task!r}; name that one, or change "
            "its `task`"
        )
    return config.model_copy(update={"task": absolute_reference(task)})
