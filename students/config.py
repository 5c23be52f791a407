"""What a student looks like."""

from pydantic import Field

from teachers.config import Config


class MLPConfig(Config):
    """A plain MLP."""

    layers: int = Field(2, ge=1, le=64, description="hidden layers")
    width: int = Field(64, ge=1, le=16384, description="units of each")


class StudentConfig(Config):
    """The networks of a student; the embedding's size is its teacher's."""

    policy: MLPConfig = MLPConfig()
    critic: MLPConfig = MLPConfig()


class SavedStudentConfig(StudentConfig):
    """A student as its artefact describes it."""

    embedding: int = Field(ge=1, description="size of the embeddings, the teacher's")
