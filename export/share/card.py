"""The model card of a shared run, in the conventions of the Hugging Face hub."""

from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from export.contract import describe_task
from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata
from teachers.tasks import Task
from teachers.tasks.registry import open_task

FIGURES = {
    "success_at_end": "success at end",
    "success_any": "success at any time",
    "success_hard": "success within the stricter radius",
    "time_at_goal": "time at goal",
    "retention": "retention",
}
MEANINGS = {
    "success_at_end": "share of episodes that end within the goal's radius",
    "success_any": "share of episodes that are within it at any time",
    "success_hard": "share of episodes that end within the task's stricter radius",
    "time_at_goal": "fraction of the steps within it",
    "retention": "the student's time at goal / the teacher's over the same episodes",
}
NETWORKS = {"actor": "policy", "phi": "critic's phi(s, a)", "psi": "critic's psi(g)"}
REPO = "OWNER/NAME"  # where the card is written before anybody knows the repository


def model_card(metadata: Metadata, step: int, repo: str | None = None) -> str:
    """Describes a teacher or student to those who get it.

    The fields of its task are listed where the task can be opened; it is not needed.

    Args:
        metadata: the artefact's.
        step: control step of the checkpoint.
        repo: the repository on the hub that the commands name.

    Returns:
        Markdown with the hub's YAML front matter; the same for the same run.
    """
    parts = [
        f"---\n{front_matter(metadata)}\n---",
        f"# {metadata.task}: {metadata.kind}",
        _introduction(metadata, step),
        _task(metadata),
        networks_section(metadata),
        figures_section(metadata),
        lineage_section(metadata),
        _usage(metadata, repo or REPO),
        versions_section(metadata.versions),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(metadata: Metadata) -> str:
    """The YAML that the hub reads, without its fences."""
    results = [
        EvalResult(
            task_type="reinforcement-learning",
            task_name="reinforcement learning",
            dataset_type=metadata.task,
            dataset_name=metadata.task,
            metric_type=name,
            metric_name=title,
            metric_value=round(metadata.metrics[name], 4),
        )
        for name, title in _measured(metadata).items()
    ]
    tags = ["reinforcement-learning", "contrastive-rl", "goal-conditioned", "robotics", "mujoco"]
    return ModelCardData(
        library_name="crl-distill",
        pipeline_tag="reinforcement-learning",
        tags=[*tags, "jax", "crl-distill", metadata.task, metadata.kind],
        model_name=f"{metadata.task}-{metadata.kind}",
        eval_results=results or None,
    ).to_yaml()


def _introduction(metadata: Metadata, step: int) -> str:
    if metadata.kind == "teacher":
        what = (
            "A deep *teacher*: a policy and a critic that learned to reach goals of the task "
            f"`{metadata.task}` by contrastive reinforcement learning, without rewards or demonstrations"
        )
    elif not metadata.lineage:
        what = (
            "Shallow networks like a student's, a small policy and critic that learned to reach goals of the task "
            f"`{metadata.task}` by contrastive reinforcement learning themselves"
        )
    else:
        what = (
            "A shallow *student*: a small policy and critic distilled from a deep teacher of the task "
            f"`{metadata.task}`, to be exported to ONNX for a robot"
        )
    return f"{what}. Made with crl-distill; the checkpoint is of control step {step:,}."


def _task(metadata: Metadata) -> str:
    task = _opened(metadata)
    if task is None:
        sizes = ", ".join(f"{name} {size}" for name, size in metadata.sizes.items())
        return f"## Task\n\nNumbers in each array: {sizes}." if sizes else ""
    row = describe_task(task)
    lines = [
        "## Task",
        "",
        f"{row['summary'].rstrip('.')}. An episode has {row['episode_steps']} steps of "
        f"{1000 * row['control_period']:g} ms; the goal is reached within {row['success_radius']:g} "
        f"{row['goal'][0]['unit']}.",
    ]
    fields = [
        (name, field["name"], field["size"], field["unit"], limits_of(field), field["meaning"])
        for name in ("observation", "goal", "action")
        for field in row[name]
    ]
    table = markdown_table(("array", "field", "size", "unit", "limits", "meaning"), fields)
    return "\n".join([*lines, "", table])


def _opened(metadata: Metadata) -> Task | None:
    """The artefact's task, if this machine has it and its owner has let it run here before."""
    try:
        return open_task(metadata, None, metadata.task)[0]
    except InputError:
        return None


def limits_of(field: Mapping[str, Any]) -> str:
    """A field's `low` and `high` in words."""
    if field["low"] is None and field["high"] is None:
        return "-"
    ends = ("any" if field[end] is None else f"{field[end]:g}" for end in ("low", "high"))
    return " to ".join(ends)


def networks_section(metadata: Metadata) -> str:
    """The section on shapes and sizes."""
    rows = [
        (
            NETWORKS.get(name, name),
            network.get("depth", network.get("layers", "-")),
            network.get("width", "-"),
            f"{network['parameters']:,}",
        )
        for name, network in metadata.networks.items()
    ]
    return "## Networks\n\n" + markdown_table(("network", "layers", "width", "parameters"), rows)


def figures_section(metadata: Metadata) -> str:
    """The section on what was measured in MJX; empty if nothing was."""
    measured = _measured(metadata)
    if not measured:
        return ""
    rows = [
        (
            title,
            f"{metadata.metrics[name]:.3f}",
            _interval(metadata.metrics.get(f"{name}_ci95")),
            MEANINGS[name],
        )
        for name, title in measured.items()
    ]
    steps = metadata.metrics.get("steps")
    made = "distilled over" if is_distilled(metadata) else "learned from"
    after = f", {made} {steps:,} control steps" if isinstance(steps, int) else ""
    return f"## Figures\n\nMeasured in MJX{after}.\n\n" + markdown_table(
        ("figure", "value", "bootstrap 95% interval", "meaning"), rows
    )


def _measured(metadata: Metadata) -> dict[str, str]:
    return {
        name: title
        for name, title in FIGURES.items()
        if isinstance(metadata.metrics.get(name), int | float)
    }


def _interval(ends: Any) -> str:
    if not isinstance(ends, list | tuple) or not all(isinstance(e, float | None) for e in ends):
        return "-"
    return " to ".join("-" if end is None else f"{end:.3f}" for end in ends)


def is_distilled(metadata: Metadata) -> bool:
    """Whether a student, or a file with one, has a teacher."""
    is_student = metadata.kind == "student" or "student" in metadata.lineage
    return is_student and "teacher" in metadata.lineage


def lineage_section(metadata: Metadata) -> str:
    """The section on the teacher, of a student or in a file; empty if there is none."""
    if "teacher" not in metadata.lineage:
        return ""
    teacher = metadata.lineage["teacher"]
    rows = [
        ("policy's layers", teacher["networks"]["actor"].get("depth", "-")),
        ("policy's parameters", f"{teacher['networks']['actor']['parameters']:,}"),
        ("control steps", f"{teacher['steps']:,}" if "steps" in teacher else "-"),
        ("success at end", _text(teacher.get("success_at_end"))),
        ("time at goal", _text(teacher.get("time_at_goal"))),
        ("parameters' digest", f"`{teacher['digest']}`"),
    ]
    title = "Its teacher" if is_distilled(metadata) else "The teacher"
    return f"## {title}\n\n" + markdown_table(("what", "value"), rows)


def _usage(metadata: Metadata, repo: str) -> str:
    kind, run = metadata.kind, f"runs/{metadata.task}-{metadata.kind}"
    named = " --task FILE.py:Class" if metadata.task_source else ""
    following = (
        f"crl-distill distill {run}{named} --out runs/{metadata.task}-student"
        if kind == "teacher"
        else f"crl-distill export {run}{named} --out runs/{metadata.task}-export"
    )
    own = (
        f"\n\nThe task, `{metadata.task}`, is its author's own: `--task` names its file, and in Python "
        f'`load_{kind}(run, get_task("FILE.py:Class"))` with `get_task` from `teachers`.'
        if metadata.task_source
        else ""
    )
    imports = (
        "from teachers import evaluate_agent, load_teacher, summary"
        if kind == "teacher"
        else "from students import load_student\nfrom teachers import evaluate_agent, summary"
    )
    return f"""## Use

```sh
crl-distill share pull {repo} --out {run}  # from the hub
crl-distill share unpack FILE.zip --out {run}  # or from an archive
crl-distill evaluate {run}{named} --episodes 256
{following}
```

```python
{imports}

agent = load_{kind}("{run}")
print(summary(evaluate_agent(agent, episodes=256)))
```{own}"""


def versions_section(versions: Mapping[str, str]) -> str:
    """The section on the libraries that wrote it."""
    return "## Versions\n\nWritten with " + ", ".join(f"{k} {v}" for k, v in versions.items()) + "."


def markdown_table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, int | float) else "-"
