"""Shallow policies and critics: plain MLPs, made to be small and fast on a robot's CPU."""

from flax import linen as nn
from jaxtyping import Array, Float

from students.config import StudentConfig
from teachers.agent import Networks
from teachers.tasks import Task


class MLP(nn.Module):
    """`layers` hidden layers of (Dense, relu) and a linear head."""

    layers: int
    width: int
    outputs: int

    @nn.compact
    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Applies the network."""
        for _ in range(self.layers):
            x = nn.relu(nn.Dense(self.width, kernel_init=nn.initializers.he_uniform())(x))
        return nn.Dense(self.outputs, kernel_init=nn.initializers.lecun_uniform())(x)


def student_networks(task: Task, config: StudentConfig, embedding: int) -> Networks:
    """The networks of a student, without parameters.

    Args:
        task: the task of its teacher.
        config: layers and widths.
        embedding: size of the teacher's embeddings, which the student's critic shares.
    """
    return Networks(
        task,
        actor=MLP(config.policy.layers, config.policy.width, 2 * task.action_size),
        phi=MLP(config.critic.layers, config.critic.width, embedding),
        psi=MLP(config.critic.layers, config.critic.width, embedding),
    )
