"""Groups of JSON keys that several commands and files share; see `distill.cli.json_keys`."""

from collections.abc import Mapping

OUTCOMES: Mapping[str, str] = {
    "success_at_end": "share of the episodes that are within the success radius at their last step",
    "success_any": "share of the episodes that are within the success radius at any step",
    "time_at_goal": "mean share of an episode's steps that are within the success radius",
    "success_hard": "as `success_at_end`, within the task's `hard_radius`; only of tasks that have one",
    "distance_at_end": "mean distance to the goal at the end, or before a fall, in the goal's unit",
    "episode_length": "mean number of control steps until an episode ends, by a fall or at its last step",
}

SAMPLED: Mapping[str, str] = {
    f"sampled_{name}": f"{meaning}; of actions drawn from the policy"
    for name, meaning in OUTCOMES.items()
}

COST: Mapping[str, str] = {
    "steps_share": "control steps of the distillation / control steps of the teacher's training",
    "seconds_share": "seconds of the distillation / seconds of the teacher's training",
    "label_share": "share of the seconds, without compilation, that the teacher's labels took",
    "seconds": "seconds without the final evaluation",
    "seconds_compile": "seconds of compilation",
    "seconds_rollout": "seconds of rollouts, in which the teacher acts too",
    "seconds_label": "seconds of the teacher's labels",
    "seconds_learn": "seconds of gradient steps",
}

RETENTION = "the student's time at goal / the teacher's, of the same episodes; null where the teacher never reaches a goal"

_BLOCKS: Mapping[str, str] = {
    f"{network}_block_{measure}_{quantile}": (
        f"{name} over the blocks of {network}: {meaning}; of evaluations"
    )
    for network in ("actor", "phi", "psi")
    for measure, meaning in (
        ("gradient", "norm of the gradient"),
        ("update", "norm of the update / norm of the weights"),
        ("share", "norm of what a block adds to the residual stream / norm of the stream after it"),
    )
    for quantile, name in (
        ("low", "lowest tenth"),
        ("median", "median"),
        ("high", "highest tenth"),
    )
}

TRAINING: Mapping[str, str] = {
    "actor_loss": "loss of the actor; null, as are all figures of gradient steps, while the replay is filled",
    "critic_loss": "loss of the critic, InfoNCE with its penalty",
    "contrastive_accuracy": "share of the batch's pairs whose own goal has the largest logit",
    "positive_logits": "mean logit of a pair and its own goal",
    "negative_logits": "mean logit of a pair and the goals of other pairs",
    "entropy": "entropy of the policy (nats)",
    "temperature": "weight of the entropy in the actor's loss",
    "actor_gradient_norm": "norm of the actor's gradient",
    "critic_gradient_norm": "norm of the critic's gradient",
    "saturated_actions": "share of the action numbers beyond 0.99 of their range",
    "rollout_time_at_goal": "share of the rollout's steps within the success radius, with the actions of training",
    "skipped_updates": "gradient steps that were not finite and not applied, since the run began",
    "skipped_in_a_row": "gradient steps that were not applied since the last one that was",
    "broken_environments": "environments that restarted because their state was not finite",
    "seconds": "seconds since the run began, over all its resumptions",
    **OUTCOMES,
    **SAMPLED,
    "phi_rank": "effective rank of the embeddings of states and actions; of evaluations",
    "psi_rank": "effective rank of the embeddings of goals; of evaluations",
    **_BLOCKS,
}

DISTILLATION: Mapping[str, str] = {
    "policy_loss": "loss of the student's policy",
    "action_error": "mean absolute error of the action, in [-1, 1]",
    "critic_loss": "loss of the student's critic",
    "value_correlation": "correlation of the student's and the teacher's values in a batch",
    "teacher_share": "share of the environments in which the teacher acted in the last round",
    "rollout_time_at_goal": "share of the last round's steps within the success radius",
    **COST,
    **OUTCOMES,
    "retention": RETENTION,
}

RUN: Mapping[str, str] = {
    "out": "the run's folder",
    "task": "name of the task",
    "kind": "`teacher` or `student`",
    "steps": "control steps of the checkpoint",
}

EVALUATION: Mapping[str, str] = {
    "task": "name of the task",
    "kind": "`teacher`, `student` or `onnx`",
    "episodes": "episodes played",
    "seed": "seed of the episodes",
    **OUTCOMES,
}

METADATA: Mapping[str, str] = {
    "format_version": "version of this description",
    "kind": "`teacher`, `student` or `onnx`",
    "task": "name of the task",
    "task_source": "file and class of a task of the user's own; empty for other tasks",
    "task_digest": "SHA-256 of that file",
    "sizes.*": "how many numbers `observation`, `goal` and `action` have",
    "networks.*": "shape and number of parameters of each network",
    "config.*": "the resolved configuration",
    "metrics.*": "the last value of each metric",
    "lineage.*": "what it was made from: the teacher's networks, steps, results and digest",
    "versions.*": "versions of the libraries that wrote it",
}

CONTRACT: Mapping[str, str] = {
    **METADATA,
    "contract_version": "version of the keys from here on",
    "role": "what the file computes: `policy`, `critic` or `combined`",
    "inputs.*": "the fields of each input, with the range seen in training, and how a sensor erred there",
    "outputs.*": "the fields of each output",
    "action_units": "`task`: actions are in the units of their fields; `normalized`: in [-1, 1]",
    "control_period": "seconds between two actions",
    "episode_steps": "control steps of an episode in training",
    "success_radius": "distance within which the goal counts as reached, in the goal's unit",
    "embedding_size": "size of the critic's embeddings",
    "opset": "ONNX opset of the file",
    "precision": "`float32`, `float16` or `int8`",
    "operators": "types of all nodes, sorted",
    "seen_in": "where the ranges come from: `training`, or episodes played at `export`",
    "parity.*": "largest absolute difference from JAX, with the number and the seed of its inputs",
    "reachability.*": "how a value becomes a probability; null for a policy without values",
}

ARCHIVE: Mapping[str, str] = {
    "format": "`crl-distill run`",
    "format_version": "version of the archive format",
    "crl_distill": "version of crl-distill that wrote it",
    "kind": "`teacher` or `student`",
    "task": "name of the task",
    "step": "control step of the checkpoint",
    "full": "whether it holds everything of the run",
    "files": "number of files",
    "bytes": "bytes of all files together",
}

SPREAD: Mapping[str, str] = {
    "seeds": "number of seeds",
    "retention": RETENTION + "; interquartile mean over seeds",
    "time_at_goal": "interquartile mean over seeds",
    "success_at_end": "interquartile mean over seeds",
}

CRITIC: Mapping[str, str] = {
    "spearman": "rank correlation of the student's and the teacher's values over states and goals",
    "spearman_within_goal": "the same among the values of one goal, mean over goals",
    "top1": "contrastive accuracy: how often the critic tells a pair's own goal from 255 others",
    "teacher_top1": "the teacher's contrastive accuracy",
    "top1_retention": "`top1` / `teacher_top1`",
    "auroc": "how well values predict that a goal will be reached within 1 / (1 - discount) steps",
    "teacher_auroc": "the same of the teacher's values",
    "reached_share": "share of the states from which the goal is reached",
}

LATENCY: Mapping[str, str] = {
    "p50": "median of one action in ONNX Runtime, one thread, batch 1 (microseconds)",
    "p99": "99% of the actions took no longer (microseconds)",
    "p99.9": "99.9% of the actions took no longer (microseconds)",
}


def below(prefix: str, keys: Mapping[str, str]) -> dict[str, str]:
    """Returns the keys as those of an object under the key `prefix`."""
    return {f"{prefix}.{key}": meaning for key, meaning in keys.items()}


_FIELDS = {
    f"{array}[].{key}": meaning
    for array in ("observation", "goal", "action")
    for key, meaning in (
        ("name", "name of the field"),
        ("size", "how many numbers it has"),
        ("unit", "their unit"),
        ("meaning", "what they are"),
        ("quaternion", "whether it is a unit quaternion, of which either sign may be given"),
        ("scale", "usual magnitude, by which networks divide them"),
        ("low", "lowest value, null without a limit"),
        ("high", "highest value, null without a limit"),
        ("start", "index of the first number in the array"),
        ("stop", "index after the last number"),
    )
}

_SENSORS = {
    **{
        key.replace("action", "sensors"): meaning.replace("the field", "the sensor")
        for key, meaning in _FIELDS.items()
        if key.startswith("action")
    },
    "sensors[].noise": "standard deviation of each reading, in its unit",
    "sensors[].bias": "standard deviation between episodes, in its unit",
    "sensors[].resolution": "its smallest step, in its unit; 0: none",
    "sensors[].delay": "control steps by which a reading is late",
    "sensors[].dropout": "share of the readings that are lost",
    "sensors[].every": "control steps from one reading to the next",
    "sensors[].is_goal": "whether it is the goal as the robot knows it",
    "sensors[].privileged": "whether it is something that a robot cannot measure",
}

TASK: Mapping[str, str] = {
    "name": "name of the task",
    "summary": "what it is, in one line",
    **_FIELDS,
    **_SENSORS,
    "control_period": "seconds between two actions",
    "episode_steps": "control steps of an episode",
    "success_radius": "distance within which the goal counts as reached, in the goal's unit",
    "hard_radius": "a smaller radius on which success is reported too, or null",
    "goal_sets": "`train`, and `eval` where results are measured on goals of their own",
    "training.*": "the task's defaults for `train-teacher`, by configuration key",
    "distillation.*": "the task's defaults for `distill`, by configuration key",
    "image": "path of the picture; with `--image`",
    "renderer": "what drew it: `egl`, `osmesa` or `matplotlib`; with `--image`",
}

COMPARE: Mapping[str, str] = {
    "episodes": "episodes on which policies are compared",
    **below(
        "teacher",
        {
            "task": "name of the task",
            "depth": "layers of its actor",
            "width": "units of its actor's layers",
            "steps": "control steps of its training",
            "seconds": "seconds of its training",
            **OUTCOMES,
            "latency_us": "median of one action in ONNX Runtime (microseconds)",
            "parameters": "parameters of its actor",
        },
    ),
    **below(
        "students[]",
        {
            "layers": "hidden layers",
            "width": "units of each",
            "parameters": "parameters of its policy",
            "retention": RETENTION,
            "time_at_goal": OUTCOMES["time_at_goal"],
            "success_at_end": OUTCOMES["success_at_end"],
            "latency_us": "median of one action in ONNX Runtime (microseconds)",
            "latency_p99_us": "99% of the actions took no longer (microseconds)",
        },
    ),
    **below("distilled", SPREAD),
    **below("cost", COST),
    **below("critic", CRITIC),
    "critics[].loss": "what the critic was fitted to, by name; without `--quick`",
    **{f"critics[].{key}": f"{meaning}; without `--quick`" for key, meaning in CRITIC.items()},
    **below(
        "methods[]",
        {
            "method": "name of the method",
            "steps": "control steps, a quarter of the default",
            **SPREAD,
            "seconds": "seconds of the fastest seed",
        },
    ),
    **below(
        "from_scratch",
        {
            "layers": "hidden layers",
            "width": "units of each",
            "steps": "control steps of its training",
            "steps_share": "the same / the teacher's",
            **{key: meaning for key, meaning in SPREAD.items() if key != "seeds"},
        },
    ),
    **below(
        "robustness[]",
        {
            "condition": "what disturbs the episodes",
            "teacher": "time at goal of the teacher",
            "student": "time at goal of the default student",
            "randomized": "time at goal of a student that was distilled with `--randomize`",
        },
    ),
}

_READERS = {
    "observation": "the student that reads the observation",
    "sensors": "that reads the sensors and remembers nothing",
    "history": "that reads the sensors and remembers a history",
    "gru": "that reads the sensors and remembers with a GRU",
}
COMPARE_SENSORS: Mapping[str, str] = {
    "episodes": "episodes without disturbances; a quarter of them in each condition",
    **below(
        "teacher",
        {"task": "name of the task", "depth": "layers of its actor", **OUTCOMES},
    ),
    **below(
        "students[]",
        {
            "student": "what it reads and remembers: `observation`, `sensors`, `history` or `gru`",
            "randomized": "whether it was distilled under the disturbances of all conditions together",
            **SPREAD,
            "memory": "numbers that it carries from step to step",
            "parameters": "of the policy and its memory",
            "latency_us": "median of one action in ONNX Runtime (microseconds)",
            "latency_p99_us": "99% of the actions took no longer (microseconds)",
            "seconds": "seconds of the fastest seed's distillation",
        },
    ),
    **below(
        "conditions[]",
        {
            "condition": "what disturbs the episodes",
            "teacher": "time at goal of the teacher / its undisturbed one",
            **{name: f"the same of {meaning}" for name, meaning in _READERS.items()},
            **{
                f"{name}_randomized": f"the same of {meaning}, distilled under disturbances"
                for name, meaning in _READERS.items()
            },
        },
    ),
}

DEMO: Mapping[str, str] = {
    "task": "name of the task",
    "seed": "seed of all random numbers",
    "episodes": "episodes of each evaluation",
    **{
        f"{policy}.{key}": meaning
        for policy, keys in (
            ("teacher", {**OUTCOMES, **below("latency_us", LATENCY)}),
            ("student", {**OUTCOMES, "retention": RETENTION}),
            (
                "onnx",
                {**OUTCOMES, "retention": RETENTION, **below("latency_us", LATENCY)},
            ),
        )
        for key, meaning in {**keys, "parameters": "parameters of the policy"}.items()
        if key != "success_hard"
    },
    "retention": RETENTION,
    "parity_max_abs": "largest absolute difference of the exported files from JAX",
    **below("latency_us", LATENCY),
    "renderer": "what drew the animation: `egl`, `osmesa` or `matplotlib`",
    **below(
        "seconds",
        {
            "train": "seconds of the teacher's training",
            "distill": "seconds of the distillation",
            "export": "seconds of the export",
            "evaluate": "seconds of the evaluations",
            "latency": "seconds of the latency measurement",
            "animate": "seconds of the animation",
            "total": "seconds of all stages",
        },
    ),
}
