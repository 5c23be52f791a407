"""The configuration of a distillation."""

from collections.abc import Mapping
from typing import Any

from etils import epath
from pydantic import Field

from students.config import StudentConfig
from teachers.config import Config, resolve
from teachers.tasks import Engine


class CollectConfig(Config):
    """The rollouts on which a student is taught."""

    environments: int = Field(64, ge=1, le=1_000_000, description="simulated at once")
    rounds: int = Field(24, ge=1, le=1_000_000, description="rounds of rollout and updates")
    steps: int = Field(
        25, ge=1, le=100_000, description="control steps of each environment in a round"
    )
    handover: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the rounds over which the student takes over from the teacher",
    )
    noise: float = Field(
        0.1, ge=0, le=2, description="standard deviation added to the actions that are taken"
    )
    capacity: int = Field(
        1_000_000, ge=1, description="labelled states kept, rounded up to whole rounds"
    )
    physics: Engine = Field("jax", description="which of MJX's implementations simulates")


class LearningConfig(Config):
    """How a student learns."""

    updates: int = Field(600, ge=1, le=1_000_000, description="gradient steps in a round")
    batch: int = Field(256, ge=2, le=1_000_000, description="labelled states in a gradient step")
    learning_rate: float = Field(
        2e-3, gt=0, le=1, description="Adam's at the start; it falls to 0 along a cosine"
    )


class DistillConfig(Config):
    """Everything that determines a distillation, but for the teacher."""

    seed: int = Field(0, ge=0, lt=2**32)
    episodes: int = Field(256, ge=1, le=1_000_000, description="episodes of the final evaluation")
    student: StudentConfig = StudentConfig()
    collect: CollectConfig = CollectConfig()
    learning: LearningConfig = LearningConfig()

    @property
    def states_per_round(self) -> int:
        """States labelled in a round, one a control step."""
        return self.collect.environments * self.collect.steps

    @property
    def buffer_rows(self) -> int:
        """Rows of the ring buffer: whole rounds, and no more than there are."""
        rounds = min(-(-self.collect.capacity // self.states_per_round), self.collect.rounds)
        return rounds * self.states_per_round


def distill_config(
    file: epath.PathLike | None = None, overrides: Mapping[str, Any] | None = None
) -> DistillConfig:
    """The configuration of a distillation: the defaults, then the TOML file, then the overrides.

    Raises:
        InputError: unknown key, unreadable file, or a value out of its range.
    """
    return resolve(DistillConfig, {}, file, overrides)
