"""Animations of played episodes, and a picture of a task."""

import jax
from etils import epath

from teachers.process import in_32_bits
from teachers.runs.outputs import require_new_file
from teachers.simulation.c_twin import Twin
from teachers.simulation.image_files import write_animation, write_image
from teachers.simulation.render import render
from teachers.simulation.scene import Pose
from teachers.simulation.trajectory import Trajectory
from teachers.tasks import Task

FRAMES_PER_SECOND = 25.0
PICTURE_SIZE = 640  # pixels to either side


@in_32_bits
def animate(task: Task, recording: Trajectory, file: epath.PathLike, episodes: int = 3) -> str:
    """Writes an animation of the first episodes of a recording, one after the other and in real time.

    Args:
        task: what was played.
        recording: as `play_in_c` returns it.
        file: a `.gif` or `.mp4`.
        episodes: how many to show.

    Returns:
        The backend that drew the pictures: `egl`, `osmesa` or `matplotlib`.

    Raises:
        InputError: the file has another ending, or its folder cannot be written.
    """
    if recording.qpos is None:
        raise ValueError("the recording has no joint positions; make it with `play_in_c`")
    stride = max(1, round(1 / (FRAMES_PER_SECOND * task.control_period)))
    shown = min(episodes, recording.goal.shape[1])
    poses = [
        Pose(qpos, task.goal_position(recording.goal[0, episode]))
        for episode in range(shown)
        for qpos in recording.qpos[::stride, episode]
    ]
    frames, renderer = render(task, poses)
    write_animation(file, frames, fps=1 / (stride * task.control_period))
    return renderer


@in_32_bits
def picture(task: Task, file: epath.PathLike, seed: int = 0) -> str:
    """Writes a picture of a task at the start of an episode, with its goal.

    Args:
        task: what to show.
        file: a new `.png`.
        seed: of state and goal.

    Returns:
        The backend that drew it: `egl`, `osmesa` or `matplotlib`.

    Raises:
        InputError: the file has another ending, exists, or cannot be written.
    """
    require_new_file(file, ".png")
    robot = Twin(task)
    goal = robot.restart(jax.random.key(seed), task.evaluation_goals)
    pose = Pose(robot.qpos, task.goal_position(goal))
    frames, renderer = render(task, [pose], size=PICTURE_SIZE)
    write_image(file, frames[0])
    return renderer
