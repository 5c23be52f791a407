"""The configuration of a distillation."""

from collections.abc import Mapping
from typing import Any, Literal

from etils import epath
from pydantic import Field

from distill.critic_losses import CriticLoss
from distill.methods import method_settings
from distill.policy_losses import PolicyLoss
from distill.schedules import Schedule
from students.config import StudentConfig
from teachers.runs.configuration import Config, resolve_config
from teachers.tasks import Disturbances, Task
from teachers.tasks.engines import ENGINE_HELP, EngineChoice, choose_engine

STEPS_SHARE = 0.08  # default control steps as a share of the teacher's
MAX_STEPS = 500_000  # of the default
GRADIENT_STEPS = 100  # default in a round
MIN_GRADIENT_STEPS = 4_000  # of the default in all rounds


class CollectConfig(Config):
    """The rollouts whose states a student is taught on."""

    renamed = {
        "handover": "beta_decay",
        "goals": "goals_per_state",
        "relabelled": "hindsight_share",
    }

    environments: int = Field(64, ge=1, le=1_000_000, description="environments simulated at once")
    steps: int = Field(
        25, ge=1, le=100_000, description="control steps of each environment in a round"
    )
    schedule: Schedule = Field(
        "linear",
        description="how the share of environments in which the teacher acts falls from 1 to 0; teacher: it does not",
    )
    beta_decay: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the rounds over which the student takes over from the teacher",
    )
    hindsight_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of environments whose goal is one that was achieved earlier, instead of the task's",
    )
    goals_per_state: int = Field(
        2,
        ge=1,
        le=1000,
        description="goals for which each visited state is labelled: the one of its episode, and others of the round",
    )
    noise: float = Field(
        0.1, ge=0, le=2, description="standard deviation of the noise added to actions"
    )
    capacity: int = Field(
        1_000_000,
        ge=1,
        description="labelled pairs of state and goal in the ring buffer, rounded up to complete rounds",
    )
    label_batch: int = Field(
        16_384, ge=1, description="rows that a network of the teacher labels in one forward pass"
    )
    disturbances: Disturbances = Field(
        Disturbances(), description="what disturbs the rollouts; the teacher labels the clean state"
    )
    physics: EngineChoice = Field("auto", description=ENGINE_HELP)


class LabelConfig(Config):
    """How the teacher labels the policy's action."""

    actions: int = Field(
        0,
        ge=0,
        le=1000,
        description="actions drawn from the teacher's policy for each label, which is their mean weighted by the softmax of "
        "their values; 0: the label is the teacher's own action",
    )
    temperature: float = Field(
        0.01, gt=0, description="divisor of the values before their softmax is taken"
    )


class PolicyConfig(Config):
    """The loss and the learning rate of the policy."""

    loss: PolicyLoss = Field("mode", description="see `distill.policy_losses`")
    learning_rate: float = Field(
        0.03,
        gt=0,
        le=1,
        description="initial learning rate of Muon, and ten times that of Adam for biases; both fall to 0 along a cosine",
    )
    value_weight: float = Field(
        0.0,
        ge=0,
        description="weight, beside the loss, of the teacher's value of the student's action, in nats",
    )
    value_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of the gradient steps, the last ones, in which the teacher's value counts",
    )
    value_batch: int = Field(
        32, ge=1, description="states of a gradient step whose actions the teacher's critic values"
    )


class CriticConfig(Config):
    """The loss and the learning rate of the critic."""

    loss: CriticLoss = Field("embedding", description="see `distill.critic_losses`")
    learning_rate: float = Field(
        4e-3, gt=0, le=1, description="initial learning rate of Adam; it falls to 0 along a cosine"
    )
    temperature: float = Field(
        1.0, gt=0, description="divisor of the logits before they are matched"
    )


class LearningConfig(Config):
    """The gradient steps of a student."""

    order: Literal["joint", "sequential"] = Field(
        "joint",
        description="train policy and critic together, or the critic afterwards on the states that the policy visited",
    )
    renamed = {"updates": "gradient_steps"}

    gradient_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="gradient steps in a round; by default 100, or more where there are few rounds",
    )
    batch: int = Field(256, ge=2, le=1_000_000, description="labelled states in a gradient step")
    states_per_window: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="states of each window, drawn anew, that a gradient step of a student with memory learns from, of as many more windows: they differ more. By default 1 of `history` and 5 of `gru`, whose windows cost more",
    )
    burn_in: int = Field(
        5,
        ge=0,
        le=1000,
        description="first states of a window that refresh a student's memory and are not learned from",
    )


class DistillConfig(Config):
    """Everything that determines a distillation, apart from the teacher."""

    seed: int = Field(0, ge=0, lt=2**32, description="seed of all random numbers")
    steps: int | None = Field(
        None,
        ge=1,
        le=10**13,
        description="control steps of the distillation, rounded up to complete rounds; by default 8% of the teacher's, at most 500,000",
    )
    episodes: int = Field(256, ge=1, le=1_000_000, description="episodes of the final evaluation")
    checkpoint_every: int = Field(
        20,
        ge=1,
        description="rounds between checkpoints from which an interrupted distillation is resumed",
    )
    student: StudentConfig = StudentConfig()
    collect: CollectConfig = CollectConfig()
    label: LabelConfig = LabelConfig()
    policy: PolicyConfig = PolicyConfig()
    critic: CriticConfig = CriticConfig()
    learning: LearningConfig = LearningConfig()

    def with_engine(self) -> "DistillConfig":
        """Returns this configuration with the engine that computes the physics here in place of `auto`."""
        engine = choose_engine(self.collect.physics)
        return self.model_copy(
            update={"collect": self.collect.model_copy(update={"physics": engine})}
        )

    def for_teacher(self, steps: int) -> "DistillConfig":
        """Returns the configuration with steps and gradient steps filled in.

        Args:
            steps: control steps that the teacher was trained for.
        """
        student_steps = self.steps
        if student_steps is None:
            rounds = min(int(STEPS_SHARE * steps), MAX_STEPS) // self.states_per_round
            student_steps = max(1, rounds) * self.states_per_round
        resolved = self.model_copy(update={"steps": student_steps})
        gradient_steps = self.learning.gradient_steps
        if gradient_steps is None:
            gradient_steps = max(GRADIENT_STEPS, -(-MIN_GRADIENT_STEPS // resolved.rounds))
        learning = self.learning.model_copy(update={"gradient_steps": gradient_steps})
        return resolved.model_copy(update={"learning": learning})

    @property
    def states_per_round(self) -> int:
        """Control steps of a round, in all environments together."""
        return self.collect.environments * self.collect.steps

    @property
    def rows_per_round(self) -> int:
        """Pairs of a state and a goal that are labelled in a round."""
        return self.states_per_round * self.collect.goals_per_state

    @property
    def window(self) -> int:
        """Control steps in a row of the ring: one, or a round of an environment for students that remember."""
        return 1 if self.student.memory == "none" else self.collect.steps

    @property
    def states_per_window(self) -> int:
        """States of each row of the ring that a gradient step learns from, at most all."""
        default = 5 if self.student.memory == "gru" else 1
        return min(self.learning.states_per_window or default, self.window)

    @property
    def windows_per_round(self) -> int:
        """Rows of the ring that a round writes."""
        return self.rows_per_round // self.window

    @property
    def rounds(self) -> int:
        """Number of rounds of rollout and gradient steps."""
        if self.steps is None:
            raise ValueError("the steps are not filled in; see `for_teacher`")
        return -(-self.steps // self.states_per_round)

    @property
    def gradient_steps(self) -> int:
        """Gradient steps in a round."""
        if self.learning.gradient_steps is None:
            raise ValueError("the gradient steps are not filled in; see `for_teacher`")
        return self.learning.gradient_steps

    @property
    def buffer_rows(self) -> int:
        """Rows of the ring buffer: those of complete rounds, and no more than are ever written."""
        rounds = min(-(-self.collect.capacity // self.rows_per_round), self.rounds)
        return rounds * self.windows_per_round


def distill_config(
    file: epath.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    method: str | None = None,
    task: Task | None = None,
) -> DistillConfig:
    """Returns the configuration of a distillation: the defaults, changed by task, method, TOML file and overrides in this order.

    Args:
        file: TOML file.
        overrides: by dotted key.
        method: see `METHODS`.
        task: the teacher's, with its own defaults.

    Raises:
        InputError: the method or a key is unknown, the file is unreadable, or a value is out of its range.
    """
    defaults = {
        **({} if task is None else task.distillation),
        **({} if method is None else method_settings(method)),
    }
    return resolve_config(DistillConfig, defaults, file, overrides)
