"""The random streams of a run: every use of random numbers has a number of its own, and so keys that no other use has.

With JAX's default generator `jax.random.fold_in(key, i)` is `jax.random.split(key, n)[i]`. Two uses of one key, of which one
splits it and the other folds a small number into it, would draw the same numbers. The numbers here are larger than any
count of environments, episodes, steps or parts into which a key is split.
"""

from enum import IntEnum

import jax
from jaxtyping import Array, Key


class Stream(IntEnum):
    """What random numbers are used for. Never change a number: it decides the random numbers of its use."""

    # Of the key of a run's seed.
    TRAINING = 2**31
    DISTILLATION = 2**31 + 1
    EVALUATION = 2**31 + 2  # initial states, goals and disturbances
    EVALUATION_NOISE = 2**31 + 3  # of sensors and drawn actions, for each segment of the episodes

    # Of the key in the state of a training or a distillation.
    NEXT = 2**31 + 4  # the key in the state after it
    PARAMETERS = 2**31 + 5
    RESET = 2**31 + 6  # of all environments at the start
    ROLLOUT = 2**31 + 7  # the policy's noise, and restarts
    REPLAY = 2**31 + 8  # which pairs a gradient step learns from
    ACTIONS = 2**31 + 9  # of the policy in gradient steps
    DIAGNOSIS = 2**31 + 10  # a gradient step that is not applied
    TEACHER_ACTS = 2**31 + 11  # in which environments of a distillation
    HINDSIGHT_GOALS = 2**31 + 12  # of a distillation's rollouts
    LABELLED_GOALS = 2**31 + 13
    STUDENT_STEPS = 2**31 + 14  # batches and noise of a distillation's gradient steps
    DETERMINISTIC = 2**31 + 17  # in which environments of a training actions have no noise
    LABELLED_ACTIONS = 2**31 + 18  # drawn for labels of a distillation
    RANDOM = 2**31 + 19  # in which environments of a training actions are random

    # Of the key of an environment in an episode or a step.
    DISTURBANCE = 2**31 + 15
    SENSORS = 2**31 + 16
    START = 2**31 + 20  # how far the joints' start is shifted
    DROPOUT = 2**31 + 21  # whether anything is read


def stream_key(key: Key[Array, ""], stream: Stream) -> Key[Array, ""]:
    """Returns the key of one of the streams that belong to `key`."""
    return jax.random.fold_in(key, int(stream))
