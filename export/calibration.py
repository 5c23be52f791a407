"""What exported files say of the inputs and values to expect, from recorded episodes."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize

from export.contract import Ranges, Reachability, SeenIn
from teachers.measures import auroc, label_reached_within
from teachers.runs.metadata import Metadata
from teachers.simulation.trajectory import Trajectory
from teachers.tasks import Task


def ranges(metadata: Metadata, recording: Trajectory) -> tuple[Mapping[str, Ranges], SeenIn]:
    """The smallest and largest of every number of `observation` and `goal`, and where they were seen.

    Args:
        metadata: of a student, which says what it saw in training; of a teacher or an older student it does not.
        recording: of episodes to look at in that case.
    """
    if seen := metadata.lineage.get("seen"):
        found = {
            name: Ranges(*(np.array(ends[end], np.float32) for end in ("low", "high")))
            for name, ends in seen.items()
        }
        return found, "training"
    arrays = {"observation": recording.observation, "goal": recording.goal}
    return {
        name: Ranges(np.min(array, axis=(0, 1)), np.max(array, axis=(0, 1)))
        for name, array in arrays.items()
    }, "export"


def fit_reachability(task: Task, recording: Trajectory, value: np.ndarray) -> Reachability:
    """The logistic function from values to the probability that a goal is reached within half an episode.

    After Platt, "Probabilistic Outputs for Support Vector Machines" (1999), with his targets, which keep it finite
    where all goals are reached, or none.

    Args:
        task: what was played.
        recording: the policy's episodes.
        value: f(s, pi(s, g), g) of each step, `[time, env]`.
    """
    horizon = max(1, task.episode_steps // 2)
    will, known = label_reached_within(task, recording, horizon)
    scores, outcomes = value[known].astype(np.float64), will[known]
    yes, no = int(outcomes.sum()), int((~outcomes).sum())
    targets = np.where(outcomes, (yes + 1) / (yes + 2), 1 / (no + 2))
    centre, spread = (scores.mean(), scores.std() + 1e-6) if len(scores) else (0.0, 1.0)
    standard = (scores - centre) / spread

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * standard + parameters[1]
        rest = 1 / (1 + np.exp(-logits)) - targets
        total = np.sum(np.logaddexp(0, logits) - targets * logits)
        return float(total), np.array([np.sum(rest * standard), np.sum(rest)])

    scale, offset = (
        minimize(loss, np.zeros(2), jac=True, method="BFGS").x if len(scores) else (0.0, 0.0)
    )
    if scale < 0:  # values that say nothing: how often it is reached
        scale, offset = 0.0, np.log((yes + 1) / (no + 1))
    return Reachability(
        scale=float(scale / spread),
        offset=float(offset - scale * centre / spread),
        auroc=auroc(scores, outcomes),
        horizon=horizon * task.control_period,
        episodes=recording.goal.shape[1],
    )
