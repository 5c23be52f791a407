"""The model card of a shared run, in the conventions of the Hugging Face hub."""

from collections.abc import Mapping
from typing import Any

from export.card_sections import (
    code_span,
    escape_markdown,
    figures_section,
    format_limits,
    front_matter,
    lineage_section,
    markdown_table,
    networks_section,
    versions_section,
)
from teachers.runs.errors import InputError
from teachers.runs.metadata import Metadata
from teachers.tasks import Task
from teachers.tasks.describe import describe_errors, describe_task
from teachers.tasks.load import portable_reference
from teachers.tasks.registry import open_task

REPO = "OWNER/NAME"  # stands for the repository in a card that is written before it is known


def render_run_card(metadata: Metadata, step: int, repo: str | None = None) -> str:
    """Returns the model card of a teacher or student.

    The card lists the fields of the task if the task can be opened on this machine.

    Args:
        metadata: the artefact's.
        step: control step of the checkpoint.
        repo: the repository on the hub that the card's commands name.

    Returns:
        Markdown with the hub's YAML front matter; the same text each time for the same run.
    """
    sections = [
        front_matter(metadata),
        f"# {escape_markdown(metadata.task)}: {metadata.kind}",
        _introduction(metadata, step),
        _task_section(metadata),
        networks_section(metadata),
        figures_section(metadata),
        lineage_section(metadata),
        _usage_section(metadata, repo or REPO),
        versions_section(metadata.versions),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(metadata: Metadata, step: int) -> str:
    if metadata.kind == "teacher":
        subject = (
            "A deep *teacher*: a policy and a critic that learned to reach goals of the task "
            f"{code_span(metadata.task)} by contrastive reinforcement learning, without rewards or demonstrations"
        )
    elif not metadata.lineage:
        subject = (
            "Networks as shallow as a student's: a small policy and critic that learned to reach goals of the task "
            f"{code_span(metadata.task)} by contrastive reinforcement learning, without a teacher"
        )
    else:
        subject = (
            "A shallow *student*: a small policy and critic distilled from a deep teacher of the task "
            f"{code_span(metadata.task)}, to be exported to ONNX for a robot"
        )
    return f"{subject}. Made with crl-distill; the checkpoint is of control step {step:,}."


def _task_section(metadata: Metadata) -> str:
    task = _find_task(metadata)
    if task is None:
        sizes = ", ".join(f"{name} {size}" for name, size in metadata.sizes.items())
        return f"## Task\n\nNumbers in each array: {sizes}." if sizes else ""
    description = describe_task(task)
    lines = [
        "## Task",
        "",
        f"{escape_markdown(description['summary'].rstrip('.'))}. An episode has {description['episode_steps']} steps of "
        f"{1000 * description['control_period']:g} ms; the goal is reached within "
        f"{description['success_radius']:g} {escape_markdown(description['goal'][0]['unit'])}.",
    ]
    rows = [
        (
            name,
            escape_markdown(field["name"]),
            field["size"],
            escape_markdown(field["unit"]),
            format_limits(field),
            escape_markdown(field["meaning"]),
        )
        for name in ("observation", "goal", "action")
        for field in description[name]
    ]
    table = markdown_table(("array", "field", "size", "unit", "limits", "meaning"), rows)
    return "\n".join([*lines, "", table, *_sensor_lines(metadata, description)])


def _sensor_lines(metadata: Metadata, description: Mapping[str, Any]) -> list[str]:
    """Returns what a student that reads sensors reads in place of the observation."""
    student = metadata.config.get("student") or {}
    if student.get("sees") != "sensors" or not description["sensors"]:
        return []
    rows = [
        (
            escape_markdown(sensor["name"]),
            sensor["size"],
            escape_markdown(sensor["unit"]),
            escape_markdown(describe_errors(sensor, description["control_period"])),
            escape_markdown(sensor["meaning"]),
        )
        for sensor in description["sensors"]
    ]
    table = markdown_table(("sensor", "size", "unit", "as it was read", "meaning"), rows)
    return ["", "The student reads sensors in place of the observation:", "", table]


def _find_task(metadata: Metadata) -> Task | None:
    """Returns the artefact's task; None if this machine lacks it, or its owner has not let it run here before."""
    try:
        return open_task(metadata, None, metadata.task)[0]
    except InputError:
        return None


def _describe_file(metadata: Metadata) -> str:
    """Returns the name and digest of the task's file, for a card."""
    digest = f", SHA-256 {code_span(metadata.task_digest)}" if metadata.task_digest else ""
    return f" ({code_span(portable_reference(metadata.task_source))}{digest})"


def _usage_section(metadata: Metadata, repo: str) -> str:
    kind, run = metadata.kind, f"runs/{metadata.task}-{metadata.kind}"
    task_option = " --task FILE.py:Class" if metadata.task_source else ""
    next_command = (
        f"crl-distill distill {run}{task_option} --out runs/{metadata.task}-student"
        if kind == "teacher"
        else f"crl-distill export {run}{task_option} --out runs/{metadata.task}-export"
    )
    task_note = (
        f"\n\nThe task, {code_span(metadata.task)}, is its author's own{_describe_file(metadata)}: `--task` names its file, and in "
        f'Python `load_{kind}(run, get_task("FILE.py:Class"))` with `get_task` from `teachers`.'
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
crl-distill evaluate {run}{task_option} --episodes 256
{next_command}
```

```python
{imports}

agent = load_{kind}("{run}")
print(summary(evaluate_agent(agent, episodes=256)))
```{task_note}"""
