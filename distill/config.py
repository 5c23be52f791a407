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
from teachers.tasks import Disturbances, Engine
from teachers.tasks.disturbance import RANDOMIZED

STEPS_SHARE = 0.08  # of the teacher's
MAX_STEPS = 500_000
GRADIENT_STEPS = 100  # in a round
MIN_GRADIENT_STEPS = 4_000  # in all rounds


class CollectConfig(Config):
    """The rollouts on which a student is taught."""

    renamed = {
        "handover": "beta_decay",
        "goals": "goals_per_state",
        "relabelled": "hindsight_share",
    }

    environments: int = Field(64, ge=1, le=1_000_000, description="simulated at once")
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
        description="share of environments that head for a goal reached earlier instead of the task's own",
    )
    goals_per_state: int = Field(
        2,
        ge=1,
        le=1000,
        description="goals for which each visited state is labelled: its own, and others of the round",
    )
    noise: float = Field(
        0.1, ge=0, le=2, description="standard deviation added to the actions that are taken"
    )
    capacity: int = Field(
        1_000_000,
        ge=1,
        description="labelled pairs of state and goal that are kept, rounded up to whole rounds",
    )
    label_batch: int = Field(
        16_384, ge=1, description="rows that a network of the teacher labels in one forward pass"
    )
    disturbances: Disturbances = Field(
        Disturbances(), description="what disturbs the rollouts; the teacher labels the clean state"
    )
    physics: Engine = Field("jax", description="which of MJX's implementations simulates")


class PolicyConfig(Config):
    """What the policy is fitted to."""

    loss: PolicyLoss = Field("mode", description="see `distill.policy_losses`")
    learning_rate: float = Field(
        0.03,
        gt=0,
        le=1,
        description="Muon's at the start, and ten times Adam's for biases; both fall to 0 along a cosine",
    )
    value_weight: float = Field(
        0.0,
        ge=0,
        description="how much the teacher's critic of the student's own action, in nats, counts beside the loss",
    )
    value_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of the gradient steps, the last ones, in which it counts",
    )
    value_batch: int = Field(
        32, ge=1, description="states of a gradient step whose actions the teacher's critic scores"
    )


class CriticConfig(Config):
    """What the critic is fitted to."""

    loss: CriticLoss = Field("embedding", description="see `distill.critic_losses`")
    learning_rate: float = Field(
        4e-3, gt=0, le=1, description="Adam's at the start; it falls to 0 along a cosine"
    )
    temperature: float = Field(
        1.0, gt=0, description="by which logits are divided before they are matched"
    )


class LearningConfig(Config):
    """How a student learns."""

    order: Literal["joint", "sequential"] = Field(
        "joint",
        description="policy and critic together, or the critic afterwards, on what the policy has seen",
    )
    renamed = {"updates": "gradient_steps"}

    gradient_steps: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="gradient steps in a round; by default 100, or more where there are few rounds",
    )
    batch: int = Field(256, ge=2, le=1_000_000, description="labelled states in a gradient step")


class DistillConfig(Config):
    """Everything that determines a distillation, but for the teacher."""

    seed: int = Field(0, ge=0, lt=2**32)
    steps: int | None = Field(
        None,
        ge=1,
        le=10**13,
        description="control steps in all, rounded up to rounds; by default 8% of the teacher's, at most 500,000",
    )
    episodes: int = Field(256, ge=1, le=1_000_000, description="episodes of the final evaluation")
    student: StudentConfig = StudentConfig()
    collect: CollectConfig = CollectConfig()
    policy: PolicyConfig = PolicyConfig()
    critic: CriticConfig = CriticConfig()
    learning: LearningConfig = LearningConfig()

    def for_teacher(self, steps: int) -> "DistillConfig":
        """Returns the configuration with steps and gradient steps filled in for a teacher of so many control steps."""
        own = self.steps
        if own is None:
            share = int(STEPS_SHARE * steps) // self.states_per_round * self.states_per_round
            most = MAX_STEPS // self.states_per_round * self.states_per_round
            own = max(self.states_per_round, min(share, most))
        resolved = self.model_copy(update={"steps": own})
        gradient_steps = self.learning.gradient_steps
        if gradient_steps is None:
            gradient_steps = max(GRADIENT_STEPS, -(-MIN_GRADIENT_STEPS // resolved.rounds))
        learning = self.learning.model_copy(update={"gradient_steps": gradient_steps})
        return resolved.model_copy(update={"learning": learning})

    @property
    def states_per_round(self) -> int:
        """Control steps of a round."""
        return self.collect.environments * self.collect.steps

    @property
    def rows_per_round(self) -> int:
        """Pairs of a state and a goal that are labelled in a round."""
        return self.states_per_round * self.collect.goals_per_state

    @property
    def rounds(self) -> int:
        """Rounds of rollout and gradient steps."""
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
        """Rows of the ring buffer: whole rounds, and no more than there are."""
        kept = min(-(-self.collect.capacity // self.rows_per_round), self.rounds)
        return kept * self.rows_per_round


def distill_config(
    file: epath.PathLike | None = None,
    overrides: Mapping[str, Any] | None = None,
    method: str | None = None,
) -> DistillConfig:
    """The configuration of a distillation: the defaults, then the method, the TOML file, then the overrides.

    Raises:
        InputError: unknown method or key, unreadable file, or a value out of its range.
    """
    defaults = {} if method is None else method_settings(method)
    return resolve_config(DistillConfig, defaults, file, overrides)


def randomized_settings() -> dict[str, Any]:
    """The settings, by dotted key, of a student that is taught under what a robot will meet."""
    ranges = RANDOMIZED.model_dump()
    return {f"collect.disturbances.{name}": value for name, value in ranges.items()}
