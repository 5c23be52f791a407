"""Sections that all model cards have: the hub's front matter, networks, figures, lineage and versions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from teachers.runs.metadata import Metadata, as_interval, as_number

FIGURES = {
    "success_at_end": "success at end",
    "success_any": "success at any time",
    "success_hard": "success within the stricter radius",
    "time_at_goal": "time at goal",
    "retention": "retention",
}
MEANINGS = {
    "success_at_end": "share of episodes that end within the goal's radius",
    "success_any": "share of episodes that are within the radius at any step",
    "success_hard": "share of episodes that end within the task's stricter radius",
    "time_at_goal": "share of steps within the radius",
    "retention": "the student's time at goal / the teacher's on the same episodes",
}
# What Markdown would take for code, emphasis, a tag, an entity or the address of a link. An underscore inside a word
# is text, and so are brackets that no address follows.
_MARKDOWN = re.compile(r"[\\`*~<&]|(?<![^\W_])_|_(?![^\W_])|(?<=\])[(\[]")
NETWORKS = {"actor": "policy", "phi": "critic's phi", "psi": "critic's psi"}


def front_matter(metadata: Metadata) -> str:
    """Returns the YAML that the hub reads at the top of a card, between its fences."""
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
        for name, title in _measured_figures(metadata).items()
    ]
    tags = ["reinforcement-learning", "contrastive-rl", "goal-conditioned", "robotics", "mujoco"]
    yaml = ModelCardData(
        library_name="crl-distill",
        pipeline_tag="reinforcement-learning",
        tags=[*tags, "jax", "crl-distill", metadata.task, metadata.kind],
        model_name=f"{metadata.task}-{metadata.kind}",
        eval_results=results or None,
    ).to_yaml()
    return f"---\n{yaml}\n---"


def networks_section(metadata: Metadata) -> str:
    """Returns the section on the networks' shapes and sizes."""
    rows = [
        (
            NETWORKS.get(name, escape_markdown(name)),
            network.get("depth", network.get("layers", "-")),
            network.get("width", "-"),
            f"{network['parameters']:,}",
        )
        for name, network in metadata.networks.items()
    ]
    return "## Networks\n\n" + markdown_table(("network", "layers", "width", "parameters"), rows)


def figures_section(metadata: Metadata) -> str:
    """Returns the section on what was measured in simulation; empty if nothing was."""
    measured = _measured_figures(metadata)
    if not measured:
        return ""
    rows = [
        (
            title,
            f"{metadata.metrics[name]:.3f}",
            _format_interval(metadata.metrics.get(f"{name}_ci95")),
            MEANINGS[name],
        )
        for name, title in measured.items()
    ]
    steps = metadata.metrics.get("steps")
    verb = "distilled over" if is_distilled(metadata) else "learned from"
    training = f", {verb} {steps:,} control steps" if isinstance(steps, int) else ""
    return f"## Figures\n\nMeasured in simulation{training}.\n\n" + markdown_table(
        ("figure", "value", "bootstrap 95% interval", "meaning"), rows
    )


def lineage_section(metadata: Metadata) -> str:
    """Returns the section on the teacher of a student or of an exported file; empty if there is none."""
    if "teacher" not in metadata.lineage:
        return ""
    teacher = metadata.lineage["teacher"]
    rows = [
        ("policy's layers", teacher["networks"]["actor"].get("depth", "-")),
        ("policy's parameters", f"{teacher['networks']['actor']['parameters']:,}"),
        ("control steps", f"{teacher['steps']:,}" if "steps" in teacher else "-"),
        ("success at end", _format_figure(teacher.get("success_at_end"))),
        ("time at goal", _format_figure(teacher.get("time_at_goal"))),
        ("parameters' digest", code_span(teacher["digest"])),
    ]
    title = "Its teacher" if is_distilled(metadata) else "The teacher"
    return f"## {title}\n\n" + markdown_table(("what", "value"), rows)


def versions_section(versions: Mapping[str, str]) -> str:
    """Returns the section on the versions of the libraries that wrote the artefact."""
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"## Versions\n\nWritten with {escape_markdown(libraries)}."


def is_distilled(metadata: Metadata) -> bool:
    """Returns whether the artefact is a student, or a file with a student, that has a teacher."""
    is_student = metadata.kind == "student" or "student" in metadata.lineage
    return is_student and "teacher" in metadata.lineage


def format_limits(field: Mapping[str, Any]) -> str:
    """Returns a field's `low` and `high` as text."""
    if field["low"] is None and field["high"] is None:
        return "-"
    ends = ("any" if field[end] is None else f"{field[end]:g}" for end in ("low", "high"))
    return " to ".join(ends)


def escape_markdown(text: str) -> str:
    """Returns Markdown in one line that reads as the text."""
    return _MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def code_span(text: str) -> str:
    """Returns Markdown in one line that reads as the text, in code; whatever backticks the text has."""
    line = " ".join(text.split())
    runs = re.findall("`+", line)
    fence = "`" * (1 + max(map(len, runs), default=0))
    return f"{fence} {line} {fence}" if runs else f"`{line}`"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Returns a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_format_cell(cell) for cell in line)} |" for line in lines)


def _measured_figures(metadata: Metadata) -> dict[str, str]:
    """Returns the titles of the figures that the metadata has, by name."""
    return {
        name: title
        for name, title in FIGURES.items()
        if as_number(metadata.metrics.get(name)) is not None
    }


def _format_interval(ends: Any) -> str:
    interval = as_interval(ends)
    if interval is None:
        return "-"
    low, high = interval
    return f"at least {low:.3f}" if high is None else f"{low:.3f} to {high:.3f}"


def _format_figure(value: Any) -> str:
    number = as_number(value)
    return "-" if number is None else f"{number:.3g}"


def _format_cell(value: Any) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
