"""Tries the engines on a task, within bounds of time and memory, and says which one to use."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import mujoco
import numpy as np
from jaxtyping import Float

from teachers.simulation.c_twin import Twin
from teachers.simulation.engine_probe import MODEL, STARTS
from teachers.simulation.played_checks import (
    COMPARED_STEPS,
    ENVIRONMENTS,
    STEP_TOLERANCE,
    Samples,
)
from teachers.tasks.base import Task
from teachers.tasks.contact_pairs import ContactCount
from teachers.tasks.engines import Engine

TIMED_ENVIRONMENTS = 128
MAX_SECONDS = 20.0  # for which an engine may compile and run
MAX_MEMORY = 1.2e9  # bytes
SHOWN_KINDS, SHOWN_NAMES = 4, 12


class EngineTrial(NamedTuple):
    """What came of one engine."""

    engine: Engine
    compile_seconds: float | None  # None where it was stopped or does not take the model
    steps_per_second: float | None  # control steps of all environments together
    difference: (
        float | None
    )  # largest one from MuJoCo C after a few steps, in the scales of the observation
    problem: str  # empty where there is none
    meshes: tuple[str, ...] = ()  # whose faces have too many corners for MJX


def try_engines(task: Task, samples: Samples, say: Callable[[str], None]) -> list[EngineTrial]:
    """Returns what came of each engine that runs on a CPU.

    Args:
        task: what is simulated.
        samples: starts and actions of the task.
        say: is told what is tried.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mujoco.mj_saveModel(task.model, str(folder / MODEL), None)
        index = np.arange(TIMED_ENVIRONMENTS) % ENVIRONMENTS
        physics: dict[str, Any] = {
            name: np.asarray(part)[index]
            for name, part in samples.starts.physics._asdict().items()
            if part is not None
        }
        actions = samples.actions[:COMPARED_STEPS, :ENVIRONMENTS]
        controls = np.asarray(jax.vmap(jax.vmap(task.control))(actions))[:, index]
        np.savez(folder / STARTS, controls=controls, substeps=task.substeps, **physics)
        trials = []
        for engine in ("c", "jax"):
            say(f"trying physics {engine} (up to {MAX_SECONDS:.0f} s)")
            trials.append(_try_engine(task, engine, folder))
    return trials


def _try_engine(task: Task, engine: Engine, folder: Path) -> EngineTrial:
    found = _run_probe(folder, engine)
    meshes = found.pop("meshes")
    if "problem" in found:
        return EngineTrial(engine, None, None, None, found["problem"], meshes)
    difference = None
    if engine != "c" and (folder / "c.npz").exists():
        expected, states = (_observe(task, folder / f"{name}.npz") for name in ("c", engine))
        errors = np.abs(states - expected) / task.observation_scale
        # In the environment where it is smallest: impacts make engines diverge.
        difference = float(errors.max(axis=0).min(axis=0).max())
        if not difference <= STEP_TOLERANCE:
            problem = f"differs from MuJoCo C by {difference:.2g} of a field's scale after {COMPARED_STEPS} steps"
            return EngineTrial(
                engine, **found, difference=difference, problem=problem, meshes=meshes
            )
    return EngineTrial(engine, **found, difference=difference, problem="", meshes=meshes)


def _run_probe(folder: Path, engine: Engine) -> dict[str, Any]:
    """Returns what the program finds, the meshes that MJX warns of, and under `problem` why it was stopped."""
    command = [sys.executable, "-m", "teachers.simulation.engine_probe", str(folder), engine]
    started = time.monotonic()
    # MuJoCo C is called by JAX on a CPU, which may not be the default here.
    environment = {**os.environ, **({"JAX_PLATFORMS": "cpu"} if engine == "c" else {})}
    with (
        tempfile.TemporaryFile("w+") as output,
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=output, stderr=errors, env=environment) as process,
    ):
        reason = ""
        while process.poll() is None and not reason:
            time.sleep(0.1)
            if time.monotonic() - started > MAX_SECONDS:
                reason = f"not ready after {MAX_SECONDS:.0f} s"
            elif _memory(process.pid) > MAX_MEMORY:
                reason = f"took over {MAX_MEMORY / 1e9:.1f} GB"
        if reason:
            process.kill()
        process.wait()
        output.seek(0)
        errors.seek(0)
        messages = errors.read().strip()
        meshes = tuple(re.findall(r'Mesh "(.*?)" has a coplanar face', messages))
        if reason:
            found = {"problem": reason}
        elif process.returncode:
            found = {"problem": (messages.splitlines() or ["it failed"])[-1]}
        else:
            found = json.loads(output.read().strip().splitlines()[-1])
        return found | {"meshes": meshes}


def _memory(process: int) -> float:
    """Returns the resident memory of a process in bytes; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    sizes = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
    return 1024.0 * int(sizes[0]) if sizes else 0.0


def _observe(task: Task, states: Path) -> Float[np.ndarray, "time env obs"]:
    """Returns the observations in saved states of the first environments, computed in MuJoCo C."""
    twin = Twin(task)
    with np.load(states) as file:
        qpos, qvel = file["qpos"][:, :ENVIRONMENTS], file["qvel"][:, :ENVIRONMENTS]
    rows = []
    for positions, velocities in zip(qpos, qvel, strict=True):
        row = []
        for position, velocity in zip(positions, velocities, strict=True):
            twin.reset(position, velocity)
            row.append(twin.observation)
        rows.append(np.stack(row))
    return np.stack(rows)


def give_advice(trials: list[EngineTrial], contacts: ContactCount) -> list[str]:
    """Returns which engine to use, and what would make MJX faster, a line each."""
    usable = [trial for trial in trials if not trial.problem]
    lines = []
    if usable:
        fastest = max(usable, key=lambda trial: trial.steps_per_second or 0.0)
        lines.append(f"use physics {fastest.engine} on this machine")
    kinds = [f"{count} {kind}" for kind, count in contacts.by_kind.items()]
    if contacts.total:
        more = ", ..." if len(kinds) > SHOWN_KINDS else ""
        lines.append(
            f"contacts that MJX solves for in every step: {contacts.total} ({', '.join(kinds[:SHOWN_KINDS])}{more})"
        )
    meshes = [name for trial in trials for name in trial.meshes]
    if meshes:
        lines.append(
            f"meshes of which a flat face has more than 20 corners, which MJX leaves out in part: {_list_names(tuple(meshes))}"
        )
    slow = any(trial.engine == "jax" and trial.problem for trial in trials)
    if slow and contacts.total and contacts.others:
        lines.append(
            f"to use MJX, let only these collide: {_list_names(contacts.ends)}; set contype and conaffinity of the "
            f"{len(contacts.others)} others to 0"
        )
    return lines


def _list_names(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:SHOWN_NAMES])
    return shown + (f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else "")
