"""Derives the observed ranges of the inputs and the calibration of the values from recorded episodes."""

from collections.abc import Mapping

import numpy as np
from scipy.optimize import minimize

from export.contract import RangeSource, Reachability
from export.contract_writer import ObservedRange
from export.signature import Reads
from teachers.measures import auroc, label_reached_within
from teachers.runs.metadata import Metadata
from teachers.simulation.trajectory import Trajectory
from teachers.tasks import Task


def observed_ranges(
    metadata: Metadata, trajectory: Trajectory, reads: Reads
) -> tuple[Mapping[str, ObservedRange], RangeSource]:
    """Returns the range of every number that an agent reads and of its goal, and whether it was observed in training.

    Args:
        metadata: an agent's. A student's contains the ranges that were observed in training; a teacher's, and that of
            a student of an early version, does not.
        trajectory: episodes whose ranges are taken in that case.
        reads: what the agent reads, which is the name of its range beside `goal`.
    """
    if stored := metadata.lineage.get("seen"):
        ranges = {
            # What a student read is under `observation`, whatever it was.
            name: ObservedRange(
                *(np.array(stored[key][end], np.float32) for end in ("low", "high"))
            )
            for name, key in ((reads, "observation"), ("goal", "goal"))
        }
        return ranges, "training"
    arrays = {reads: np.asarray(trajectory.read), "goal": np.asarray(trajectory.read_goal)}
    return {
        name: ObservedRange(np.min(array, axis=(0, 1)), np.max(array, axis=(0, 1)))
        for name, array in arrays.items()
    }, "export"


def fit_reachability(task: Task, trajectory: Trajectory, value: np.ndarray) -> Reachability:
    """Returns the logistic function from values to the probability that the goal is reached within half an episode.

    Platt scaling, after Platt, "Probabilistic Outputs for Support Vector Machines" (1999). His targets keep the fit
    finite where all goals are reached, or none.

    Args:
        task: the task of the episodes.
        trajectory: episodes of the policy.
        value: f(s, pi(s, g), g) in each step, `[time, env]`.
    """
    horizon = max(1, task.episode_steps // 2)
    is_reached, is_labelled = label_reached_within(task, trajectory, horizon)
    scores, labels = value[is_labelled].astype(np.float64), is_reached[is_labelled]
    positives, negatives = int(labels.sum()), int((~labels).sum())
    targets = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = (scores.mean(), scores.std() + 1e-6) if len(scores) else (0.0, 1.0)
    standardized = (scores - centre) / spread

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * standardized + parameters[1]
        residuals = 1 / (1 + np.exp(-logits)) - targets
        loss = np.sum(np.logaddexp(0, logits) - targets * logits)
        return float(loss), np.array([np.sum(residuals * standardized), np.sum(residuals)])

    scale, offset = (
        minimize(loss_and_gradient, np.zeros(2), jac=True, method="BFGS").x
        if len(scores)
        else (0.0, 0.0)
    )
    # Values that order the goals wrongly tell nothing: the probability is then how often goals are reached.
    if scale < 0:
        scale, offset = 0.0, np.log((positives + 1) / (negatives + 1))
    return Reachability(
        scale=float(scale / spread),
        offset=float(offset - scale * centre / spread),
        auroc=auroc(scores, labels),
        horizon=horizon * task.control_period,
        episodes=trajectory.goal.shape[1],
    )
