"""The configuration of a student's networks."""

from typing import Literal

from pydantic import Field, model_validator

from teachers.config import TeacherConfig
from teachers.runs.configuration import Config

Activation = Literal["relu", "swish", "tanh"]
Sees = Literal["observation", "sensors"]
Memory = Literal["none", "history", "gru"]


class MLPConfig(Config):
    """An MLP without residual connections."""

    layers: int = Field(2, ge=1, le=64, description="number of hidden layers")
    width: int = Field(64, ge=1, le=16384, description="units of each hidden layer")
    activation: Activation = Field("relu", description="activation of the hidden layers")
    normalisation: bool = Field(False, description="apply a LayerNorm before each activation")


class StudentConfig(Config):
    """The networks of a student."""

    policy: MLPConfig = MLPConfig()
    critic: MLPConfig = MLPConfig()
    heads: bool = Field(
        False,
        description="one network with two heads: policy and phi share an encoder of the observation, shaped like `policy`",
    )
    sees: Sees = Field(
        "observation",
        description="what it reads: the teacher's observation, or the task's sensors",
    )
    memory: Memory = Field(
        "none",
        description="what it remembers: nothing, what it read in the last control steps, or the state of a recurrent network",
    )
    frames: int = Field(
        10, ge=2, le=1000, description="readings that `history` sees, the newest among them"
    )
    memory_width: int = Field(64, ge=1, le=4096, description="units of `gru`")
    embedding: int | None = Field(
        None, ge=1, description="size of the critic's embeddings; by default the teacher's"
    )

    @model_validator(mode="after")
    def _require_one_encoder(self) -> "StudentConfig":
        if self.heads and self.memory != "none":
            raise ValueError(
                "policy and phi share what is remembered already; leave out heads, or memory"
            )
        return self

    @model_validator(mode="after")
    def _require_shared_layer(self) -> "StudentConfig":
        if self.heads and self.policy.layers < 2:
            raise ValueError(
                "two heads need a policy of 2 layers or more: all but the last are shared"
            )
        return self


class SavedStudentConfig(StudentConfig):
    """The networks of a saved student, whose embedding size is always known."""

    embedding: int = Field(ge=1, description="size of the critic's embeddings")
    commanded_critic: bool = Field(False, description="see `TeacherConfig`")


def saved_student_config(config: StudentConfig, teacher: TeacherConfig) -> SavedStudentConfig:
    """Returns the configuration of a student's networks with what it has from its teacher filled in.

    Args:
        config: the student's networks.
        teacher: the configuration of its teacher, with the size of the embeddings unless `config` says otherwise.
    """
    settings = config.model_dump(exclude={"embedding"})
    return SavedStudentConfig(
        **settings,
        embedding=config.embedding or teacher.embedding,
        commanded_critic=teacher.commanded_critic,
    )
