"""Animations of played episodes."""

from pathlib import Path

from export.play import Recording
from teachers.tasks import Task
from teachers.tasks.render import Pose, render, write_animation

FRAMES_PER_SECOND = 25.0


def animate(task: Task, recording: Recording, file: Path, episodes: int = 3) -> str:
    """Writes the first episodes of a recording, one after the other, at their true speed.

    Args:
        task: what was played.
        recording: from `play_in_c`.
        file: a `.gif` or `.mp4`.
        episodes: how many to show.

    Returns:
        What drew the pictures: `egl`, `osmesa` or `matplotlib`.

    Raises:
        InputError: the file has another ending, or its folder cannot be written.
    """
    stride = max(1, round(1 / (FRAMES_PER_SECOND * task.control_period)))
    poses = [
        Pose(qpos, task.goal_position(goal))
        for positions, goal in zip(
            recording.qpos.swapaxes(0, 1)[:episodes], recording.goal, strict=False
        )
        for qpos in positions[::stride]
    ]
    frames, renderer = render(task, poses)
    write_animation(file, frames, fps=1 / (stride * task.control_period))
    return renderer
