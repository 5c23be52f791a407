"""From an agent to ONNX files, and the proof that they compute the same."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from etils import epath
from jax import export as jax_export
from jax.extend.core import jaxpr_as_fun

from export.contract import INPUTS, OUTPUT, Role, attach, contract
from export.play import play_in_c
from export.runtime import Critic, Policy
from teachers.agent import Agent
from teachers.folders import make_folder, require_new
from teachers.paths import write_whole
from teachers.progress import Progress, silent

OPSET = 17
IR_VERSION = 8  # that opset's own: the converter writes a newer one, which older runtimes refuse
PARITY_OBSERVATIONS = 4096
PARITY_TOLERANCE = 1e-4


class ParityError(RuntimeError):
    """An exported file does not compute what JAX does."""


def export_student(
    student: Agent, out: epath.PathLike, *, seed: int = 0, progress: Progress = silent
) -> dict[str, Any]:
    """Writes `policy.onnx` and `critic.onnx`, and checks them against JAX on real rollouts.

    Args:
        student: as `load_student` or `distill_teacher` gives it.
        out: a new folder.
        seed: of the rollouts on which parity is measured.
        progress: called as these rollouts advance.

    Returns:
        `policy` and `critic`, the files' paths, and `parity_max_abs`, the largest absolute difference from
        JAX over 4,096 observations, of each file and of both.

    Raises:
        InputError: `out` is taken.
        ParityError: a file differs from JAX by more than 1e-4; nothing is left in `out`.
    """
    out = epath.Path(out)
    require_new(out)
    make_folder(out)
    with tempfile.TemporaryDirectory() as folder:
        drafts: dict[Role, Path] = {role: Path(folder) / f"{role}.onnx" for role in INPUTS}
        for role, draft in drafts.items():
            attached = _attached(convert(student, role), contract(student, role, {}))
            draft.write_bytes(attached)
        parity = measure_parity(student, drafts["policy"], drafts["critic"], seed, progress)
        worst = max(parity.values())
        if not worst <= PARITY_TOLERANCE:  # also refuses NaN
            raise ParityError(
                f"the exported files differ from JAX by {worst:.2g}, more than {PARITY_TOLERANCE:g}; "
                "nothing was written"
            )
        for role, draft in drafts.items():
            metrics = {"parity_max_abs": parity[role], "parity_seed": seed}
            attached = _attached(onnx.load(draft), contract(student, role, metrics))
            write_whole(out / f"{role}.onnx", attached)
    return {
        **{role: str(out / f"{role}.onnx") for role in drafts},
        "parity_max_abs": worst,
        "parity": parity,
    }


def convert(agent: Agent, role: Role) -> onnx.ModelProto:
    """One function of an agent as an ONNX model with a symbolic batch dimension.

    Args:
        agent: a student, or a teacher (whose depth becomes an ONNX Loop).
        role: `policy`, `(observation, goal) -> action` in [-1, 1], or `critic`,
            `(observation, goal, action) -> value`.
    """
    from jax2onnx import to_onnx  # late: it takes seconds to import

    task, networks, params = agent.task, agent.networks, agent.params
    sizes = {
        "observation": task.observation_size,
        "goal": task.goal_size,
        "action": task.action_size,
    }
    function = networks.policy if role == "policy" else networks.critic

    def closed(*inputs: jax.Array) -> jax.Array:
        return function(params, *inputs)

    (batch,) = jax_export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, sizes[name]), jnp.float32) for name in INPUTS[role]]
    if agent.metadata.kind == "teacher":
        # Inside a scan the converter's own tracing of Flax layers loses their shapes: trace first.
        traced = jax.make_jaxpr(closed)(*shapes)

        def closed(*inputs: jax.Array) -> jax.Array:
            return jaxpr_as_fun(traced)(*inputs)[0]

    with contextlib.redirect_stdout(io.StringIO()):
        model = to_onnx(
            closed,
            inputs=shapes,
            model_name=f"{task.name}_{role}",
            opset=OPSET,
            input_names=list(INPUTS[role]),
            output_names=[OUTPUT[role]],
        )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model, full_check=True)
    return model


def measure_parity(
    student: Agent, policy: Path, critic: Path, seed: int, progress: Progress = silent
) -> dict[str, float]:
    """Largest absolute difference of the two files' outputs from JAX's, on the same real inputs.

    The inputs are 4,096 observations of episodes that the exported policy plays in MuJoCo C.

    Returns:
        `policy` and `critic`.
    """
    task = student.task
    run_policy, run_critic = Policy(policy), Critic(critic)
    episodes = -(-PARITY_OBSERVATIONS // task.episode_steps)
    recording = play_in_c(task, run_policy, episodes, seed, progress)
    rows = np.random.default_rng(seed).permutation(episodes * task.episode_steps)
    rows = rows[:PARITY_OBSERVATIONS]
    goals = np.broadcast_to(recording.goal, (task.episode_steps, *recording.goal.shape))
    observation, goal, action = (
        array.reshape(-1, array.shape[-1])[rows]
        for array in (recording.observation, goals, recording.action)
    )
    in_jax = jax.jit(student.networks.policy)(student.params, observation, goal)
    value = jax.jit(student.networks.critic)(student.params, observation, goal, action)
    return {
        "policy": float(np.abs(run_policy(observation, goal) - np.asarray(in_jax)).max()),
        "critic": float(np.abs(run_critic(observation, goal, action) - np.asarray(value)).max()),
    }


def _attached(model: onnx.ModelProto, entries: dict[str, Any]) -> bytes:
    attach(model, entries)
    return bytes(model.SerializeToString())
