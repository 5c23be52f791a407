"""A check that the stages of a distillation fit each other, for which nothing is compiled."""

import jax
import jax.numpy as jnp

from distill.iteration import make_stages


def require_fitting_stages(config, teacher, student) -> dict:
    """Requires that each stage keeps the shapes of the state, and returns the metrics' shapes.

    Args:
        config: of the distillation.
        teacher: the teacher's networks.
        student: the student's networks.
    """
    stages = make_stages(config, teacher, student)
    state = jax.eval_shape(stages.init, jax.random.key(0))
    after, visited, _ = jax.eval_shape(stages.collect, state, teacher.shapes)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
    labelled = jax.eval_shape(stages.label, state, teacher.shapes, visited)
    learned, metrics = jax.eval_shape(stages.learn[0], labelled, teacher.shapes)
    assert jax.tree.map(jnp.shape, learned) == jax.tree.map(jnp.shape, state)
    return metrics
