"""The keys of what commands print with `--json`, and of the files that runs leave: the one place that documents them.

`docs/generate.py` makes the reference page of it, and a test compares it with what the commands print.

Keys of nested objects are written with a dot, `seconds.run`. A key that ends in `.*` stands for every key below it, `[]`
for the items of a list. A key with `_ci95` appended holds the 95% interval of the key without it, `[lower, upper]`, by
bootstrap; one with `_by_seed` the value of each seed. Neither is listed by itself.
"""

from collections.abc import Mapping
from typing import NamedTuple

from distill.cli.json_parts import (
    ARCHIVE,
    COMPARE,
    COMPARE_SENSORS,
    CONTRACT,
    CRITIC,
    DEMO,
    DISTILLATION,
    EVALUATION,
    METADATA,
    OUTCOMES,
    RUN,
    SAMPLED,
    TASK,
    TRAINING,
    below,
)


class Output(NamedTuple):
    """The JSON value of a command or a file.

    Attributes:
        source: the command, or the file's name.
        form: what the value is as a whole.
        keys: what each key holds, by its name.
        optional: the keys that are there only in some cases; their meaning says in which.
    """

    source: str
    form: str
    keys: Mapping[str, str]
    optional: frozenset[str] = frozenset()


_HARD = frozenset({"success_hard", "sampled_success_hard"})

OUTPUTS: tuple[Output, ...] = (
    Output("tasks", "a list, an object for each task", TASK, frozenset({"image", "renderer"})),
    Output(
        "tasks --check",
        "an object",
        {
            "task": "name of the task",
            "problems": "a list of the problems, a line each; empty where there are none",
            "contacts": "by kinds of two geoms, such as plane-sphere, how many contacts MJX would solve for",
            "engines": "a list of what came of each engine: `engine`, `compile_seconds`, `steps_per_second`, `difference` "
            "(from MuJoCo C, in the observation's scales), `problem`; empty where problems of the task come first",
            "advice": "a list of lines: which engine to use, and what would help",
        },
    ),
    Output(
        "train-teacher",
        "an object: the last value of each metric",
        {**RUN, **TRAINING, "evaluated_at": "control step of the last evaluation"},
        _HARD,
    ),
    Output(
        "train-teacher --estimate",
        "an object",
        {
            "task": "name of the task",
            "parameters.*": "number of parameters of each network",
            "steps": "control steps of the whole run",
            "iterations": "iterations of the whole run",
            "remat": "whether activations are computed again for the gradient",
            "memory.*": "bytes by part",
            "memory_total": "bytes of all parts",
            "device_memory": "bytes that the device has",
            "fits": "whether the run fits the device",
            **below(
                "seconds",
                {
                    "rollout": "seconds of the control steps of one iteration; where it could be timed",
                    "update": "seconds of one gradient step; where it could be timed",
                    "iteration": "seconds of one iteration; where it could be timed",
                    "evaluation": "seconds of one evaluation; where it could be timed",
                    "run": "seconds of the whole run; where it could be timed",
                },
            ),
        },
        frozenset(
            f"seconds.{part}" for part in ("rollout", "update", "iteration", "evaluation", "run")
        ),
    ),
    Output(
        "sweep",
        "a list, an object for each cell",
        {
            "cell": "name of the cell, such as `depth=16`",
            "varied.*": "the settings in which it differs from other cells",
            "task": "name of the task",
            "actor_depth": "layers of the actor",
            "critic_depth": "layers of phi and psi",
            "actor_width": "units of the actor's layers",
            "critic_width": "units of phi's and psi's layers",
            "batch": "pairs in a gradient step",
            "parameters": "parameters of all networks",
            "steps": "control steps of a run",
            "seconds": "mean seconds of a run",
            "diverged": "runs that diverged",
            "time_at_goal": "interquartile mean over seeds of each run's last five evaluations",
            "success": "the same of `success_at_end`",
            "curve.step": "control steps of the evaluations",
            "curve.success": "`success_at_end` at these steps, a list for each seed",
        },
    ),
    Output(
        "sweep --dry-run",
        "a list, an object for each cell",
        {
            "cell": "name of the cell",
            "task": "name of the task",
            "seeds": "how many runs it has",
            "steps": "control steps of each run",
        },
    ),
    Output("distill", "an object: the last value of each metric", {**RUN, **DISTILLATION}, _HARD),
    Output(
        "compare",
        "an object, the content of `compare.json`",
        COMPARE,
        frozenset({"teacher.success_hard"})
        | {"critics[].loss"}
        | {f"critics[].{key}" for key in CRITIC},
    ),
    Output(
        "export",
        "an object",
        {
            "policy": "path of `policy.onnx`; without `--combined`",
            "critic": "path of `critic.onnx`; without `--combined`",
            "combined": "path of `combined.onnx`; with `--combined`",
            "card": "path of the model card",
            "parity.*": "largest absolute difference from JAX over 4,096 observations, by file",
            "parity_max_abs": "the largest of these",
            **OUTCOMES,
            "retention": "time at goal of the file / that of JAX, of the same episodes in MuJoCo C",
            "closest_distance": "smallest distance to the goal in an episode, on average",
            "critic_spearman": "rank correlation of the file's values with JAX's",
        },
        _HARD | {"policy", "critic", "combined"},
    ),
    Output(
        "export --format c",
        "an object",
        {"source": "path of `policy.c`", "header": "path of `policy.h`"},
    ),
    Output(
        "verify",
        "an object",
        {
            "file": "the file that was checked",
            "ok": "whether all checks passed",
            "checks[].name": "name of the check",
            "checks[].ok": "whether it passed",
            "checks[].value": "what was found: text or a number",
            "checks[].value.*": "what was found, where it is several figures",
        },
    ),
    Output(
        "evaluate",
        "an object",
        {
            **EVALUATION,
            **SAMPLED,
            "best_of": "actions drawn in each step, of which the critic chose the best",
            "physics": "engine that simulated: `c` or `jax`",
        },
        _HARD | set(SAMPLED) | {"best_of"},
    ),
    Output(
        "play",
        "an object",
        {
            **EVALUATION,
            "broken_episodes": "episodes that ended because their state was not finite",
            "by_episode": "time at goal of each episode",
            "missed": "control steps that were late; in real time",
            "video": "path of the animation; with `--video`",
            "renderer": "what drew it: `egl`, `osmesa` or `matplotlib`; with `--video`",
        },
        _HARD | {"missed", "video", "renderer"},
    ),
    Output("info RUN", "an object, what the checkpoint says of itself", METADATA),
    Output(
        "info FILE.onnx",
        "an object: the file's metadata, where each key is JSON under `crl_distill.KEY`",
        CONTRACT,
    ),
    Output("info FILE.zip", "an object, what the archive's manifest says", ARCHIVE),
    Output("share pack", "an object", {"out": "path of the archive", **ARCHIVE}),
    Output("share unpack", "an object", {"out": "the run's new folder", **ARCHIVE}),
    Output(
        "share push",
        "an object",
        {
            "repo": "repository on the hub",
            "url": "its address",
            "commit": "commit that was made",
            **ARCHIVE,
        },
    ),
    Output(
        "share pull",
        "an object",
        {
            "out": "the run's new folder",
            "repo": "repository on the hub",
            "commit": "commit that was read",
            **ARCHIVE,
        },
    ),
    Output(
        "compare --sensors",
        "an object, the content of `sensors.json`",
        COMPARE_SENSORS,
    ),
    Output(
        "demo",
        "an object, the content of `summary.json`",
        DEMO,
    ),
    Output(
        "metrics.jsonl of a teacher",
        "an object for each iteration, a line each; the outcomes are of evaluations",
        {"step": "control steps so far", **TRAINING},
        _HARD,
    ),
    Output(
        "metrics.jsonl of a student",
        "an object for each round, a line each; cost, outcomes and retention are in the last",
        {"step": "control steps so far", "steps": "control steps in all", **DISTILLATION},
        _HARD,
    ),
)
