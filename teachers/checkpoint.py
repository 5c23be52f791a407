"""Orbax checkpoints that describe themselves.

A run's folder holds `checkpoints/STEP/` with three items: `metadata` (JSON), `params` (the networks) and,
for runs that can be resumed, `training` (the whole training state). Reading an artefact touches the first
two alone.
"""

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from teachers.agent import Agent, teacher_networks
from teachers.config import TeacherConfig, stored_config
from teachers.metadata import Metadata, open_task, parse_metadata
from teachers.networks import Params
from teachers.tasks import InputError, Task

FOLDER = "checkpoints"


class CheckpointWriter:
    """Saves checkpoints of a run, each atomically. Use it as a context manager: leaving it waits for the last."""

    def __init__(self, run: Path, keep: int = 1) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(Path(run).absolute() / FOLDER, options=options)

    def save(self, step: int, metadata: Metadata, params: Params, training: Any = None) -> None:
        """Starts writing a checkpoint of control step `step`; the arrays may be donated once this returns."""
        items = {
            "metadata": ocp.args.JsonSave(metadata.model_dump()),
            "params": ocp.args.StandardSave(params),
        }
        if training is not None:
            items["training"] = ocp.args.StandardSave(training)
        with _uninterrupted():
            self._manager.save(step, args=ocp.args.Composite(**items))

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _uninterrupted():
            self._manager.wait_until_finished()
            self._manager.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Lets Ctrl-C wait until the block is done: inside a save it would leave it half written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
    if arrived:
        raise KeyboardInterrupt


def checkpoint_steps(run: Path) -> list[int]:
    """Control steps of a run's finished checkpoints, oldest first; empty where there is none."""
    folder = Path(run) / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())


def newest_step(run: Path) -> int:
    """Control step of a run's newest checkpoint.

    Raises:
        InputError: `run` does not exist or holds no checkpoint.
    """
    run = Path(run)
    if not run.exists():
        raise InputError(f"{run} does not exist; give the folder of a teacher's or student's run")
    steps = checkpoint_steps(run)
    if not steps:
        raise InputError(
            f"{run} holds no checkpoint; give the folder of a teacher's or student's run"
        )
    return steps[-1]


def drop_later(run: Path, step: int) -> None:
    """Removes the checkpoints of a run that were made after control step `step`."""
    for later in checkpoint_steps(run):
        if later > step:
            shutil.rmtree(Path(run) / FOLDER / str(later))


def forget_training(run: Path) -> None:
    """Removes from a run's checkpoints the state to resume from, which is most of them; the agent stays."""
    for step in checkpoint_steps(run):
        shutil.rmtree(Path(run) / FOLDER / str(step) / "training", ignore_errors=True)


def read_metadata(run: Path, step: int | None = None) -> Metadata:
    """The description in a run's checkpoint of control step `step`, by default the newest.

    Raises:
        InputError: `run` is not the folder of a run.
    """
    return parse_metadata(_restore(run, "metadata", ocp.args.JsonRestore(), step), str(run))


def read_params(run: Path, like: Params) -> Params:
    """The parameters in a run's newest checkpoint, on this machine's default device.

    Args:
        run: the run's folder.
        like: a pytree of the same structure, of arrays or `jax.ShapeDtypeStruct`.

    Raises:
        InputError: `run` holds no such parameters.
    """
    return _restore(run, "params", ocp.args.StandardRestore(_on_this_device(like)))


def read_training(run: Path, like: Any, step: int) -> Any:
    """The training state in a run's checkpoint of control step `step`; else as `read_params`."""
    return _restore(run, "training", ocp.args.StandardRestore(_on_this_device(like)), step)


def load_teacher(run: Path, task: Task | None = None) -> Agent:
    """Opens the newest checkpoint of a teacher's run; nothing but the folder is needed.

    Args:
        run: the run's folder.
        task: the teacher's task, to use in place of the one that the checkpoint names.

    Raises:
        InputError: `run` holds no teacher, or its task cannot be opened.
    """
    metadata = require_kind(run, "teacher")
    config = stored_config(TeacherConfig, metadata.config, str(run))
    task, metadata = open_task(metadata, task, str(run))
    networks = teacher_networks(config, task)
    like = jax.eval_shape(networks.init, jax.random.key(0))
    return Agent(networks, read_params(run, like), metadata)


def require_kind(run: Path, kind: str, step: int | None = None) -> Metadata:
    """The description of an artefact that has to be of this kind, in its checkpoint of `step` or the newest.

    Raises:
        InputError: it is of another, or no artefact at all.
    """
    metadata = read_metadata(run, step)
    if metadata.kind != kind:
        raise InputError(
            f"{run} holds a {metadata.kind}, not a {kind}; give the folder of a {kind}"
        )
    return metadata


def _restore(run: Path, item: str, args: Any, step: int | None = None) -> Any:
    step = newest_step(run) if step is None else step
    folder = Path(run).absolute() / FOLDER / str(step)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(folder, args=ocp.args.Composite(**{item: args}))[item]
    except (ValueError, KeyError, OSError) as error:
        raise InputError(
            f"cannot read {item} of checkpoint {step} in {run}: it is damaged or not ours; remove it to use "
            "the one before it"
        ) from error


def _on_this_device(like: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
