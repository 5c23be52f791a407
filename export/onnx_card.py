"""The model card beside exported files, which tells robot engineers the meaning of every number."""

from collections.abc import Mapping
from typing import Any

from export.card_sections import (
    escape_markdown,
    figures_section,
    format_limits,
    front_matter,
    lineage_section,
    markdown_table,
    networks_section,
    versions_section,
)
from export.contract import Contract, Place, SensorPlace
from export.signature import Role
from teachers.runs.metadata import as_number
from teachers.tasks.describe import describe_errors

EXPORT_FIGURES = {
    "success_at_end": "success at end of these files in MuJoCo C",
    "time_at_goal": "time at goal of these files in MuJoCo C",
    "retention": "time at goal / that of JAX on the same episodes",
    "critic_spearman": "rank correlation of values with JAX's",
}


def render_onnx_card(
    contracts: Mapping[Role, Contract], *, include_front_matter: bool = True
) -> str:
    """Returns the model card of the files of one export.

    Args:
        contracts: the contract of each file, by role.
        include_front_matter: begin with the YAML that the hub reads.

    Returns:
        Markdown.
    """
    first = next(iter(contracts.values()))
    files = ", ".join(f"`{role}.onnx`" for role in contracts)
    sections = [
        front_matter(first) if include_front_matter else "",
        f"# {escape_markdown(first.task)}: a policy for ONNX Runtime",
        f"{files}: made with crl-distill, to be run on a robot at {1 / first.control_period:g} Hz. "
        f"Each file needs nothing beside it; inputs and outputs are float32 `[batch, n]`.",
        *(_arrays_section(role, contract) for role, contract in contracts.items()),
        _contract_section(contracts),
        networks_section(first),
        figures_section(first),
        lineage_section(first),
        _usage_section(contracts),
        versions_section(first.versions),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _arrays_section(role: Role, contract: Contract) -> str:
    is_normalized = contract.action_units == "normalized"
    arrays = {**contract.inputs, **contract.outputs}
    has_sensors = any(
        isinstance(place, SensorPlace) for fields in arrays.values() for place in fields
    )
    rows = [
        (
            f"`{name}`",
            _format_indices(place),
            escape_markdown(place.name),
            f"[-1, 1] for limits in {escape_markdown(place.unit)}"
            if name == "action" and is_normalized
            else escape_markdown(place.unit),
            format_limits(place.model_dump()),
            _format_observed_range(place),
            escape_markdown(place.meaning),
            *((_format_sensor(place, contract.control_period),) if has_sensors else ()),
        )
        for name, fields in arrays.items()
        for place in fields
    ]
    header = ["array", "index", "field", "unit", "limits", "observed range", "meaning"]
    if has_sensors:
        header.append("as it was read in training")
    return f"## {role}.onnx\n\n" + markdown_table(header, rows)


def _format_sensor(place: Place, control_period: float) -> str:
    if not isinstance(place, SensorPlace):
        return "-"
    return escape_markdown(describe_errors(place.model_dump(), control_period))


def _format_indices(place: Place) -> str:
    return str(place.start) if place.size == 1 else f"{place.start} to {place.stop - 1}"


def _format_observed_range(place: Place) -> str:
    if not place.seen_low or not place.seen_high:
        return "-"
    return f"{min(place.seen_low):.3g} to {max(place.seen_high):.3g}"


def _contract_section(contracts: Mapping[Role, Contract]) -> str:
    first = next(iter(contracts.values()))
    units = {
        "task": "actions in the units of their fields, within their limits",
        "normalized": "actions in [-1, 1], which stand for their fields' limits",
    }
    rows = [
        ("control period", f"{1000 * first.control_period:g} ms"),
        ("actions", units[first.action_units]),
        (
            "success radius",
            f"{first.success_radius:g} {escape_markdown(first.inputs['goal'][0].unit)}",
        ),
        ("opset, precision", f"{first.opset}, {first.precision}"),
        *((f"operators of {role}", ", ".join(each.operators)) for role, each in contracts.items()),
        *(
            (f"largest difference from JAX, {role}", f"{each.parity.max_abs:.2g}")
            for role, each in contracts.items()
            if each.parity
        ),
        *(
            (title, _format_figure(first.metrics.get(f"exported_{name}")))
            for name, title in EXPORT_FIGURES.items()
        ),
        *(
            (
                f"reachability, {role}",
                f"within {each.reachability.horizon:g} s; AUROC {_format_figure(each.reachability.auroc)}",
            )
            for role, each in contracts.items()
            if each.reachability
        ),
        ("embedding size", first.embedding_size),
        ("contract version", first.contract_version),
    ]
    return "## What the files promise\n\n" + markdown_table(("what", "value"), rows)


def _format_figure(value: Any) -> str:
    number = as_number(value)
    return "-" if number is None else f"{number:.3f}"


def _usage_section(contracts: Mapping[Role, Contract]) -> str:
    arguments = (
        '"combined.onnx"' if "combined" in contracts else '"policy.onnx", critic="critic.onnx"'
    )
    signature = next(iter(contracts.values())).signature
    call = f"{signature.reads}, goal"
    reset = (
        "policy.reset()  # at the start of an episode; then one call in each control step\n"
        if signature.memory_size
        else ""
    )
    return f"""## Use

With `runtime.py` of crl-distill, which needs numpy and onnxruntime alone:

```python
from runtime import Policy

policy = Policy({arguments})
{reset}action = policy({call})
probability = policy.reachability({call})
```

```sh
crl-distill verify {next(iter(contracts))}.onnx
```"""
