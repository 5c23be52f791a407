"""The model card beside exported files: which number goes where, for those who wire them to a robot."""

from collections.abc import Mapping
from typing import Any

from export.contract import Contract, Place, Role
from export.share import card
from export.share.card import (
    figures_section,
    limits_of,
    lineage_section,
    markdown_table,
    networks_section,
    versions_section,
)

EXPORTED = {
    "success_at_end": "success at end, these files in MuJoCo C",
    "time_at_goal": "time at goal, likewise",
    "retention": "time at goal over that of JAX, same episodes",
    "critic_spearman": "rank correlation of values with JAX's",
}


def onnx_card(described: Mapping[Role, Contract], *, front_matter: bool = True) -> str:
    """Describes the files of one export.

    Args:
        described: the contract of each file, by role.
        front_matter: whether it begins with the hub's YAML.

    Returns:
        Markdown.
    """
    first = next(iter(described.values()))
    files = ", ".join(f"`{role}.onnx`" for role in described)
    lines = [
        f"---\n{card.front_matter(first)}\n---" if front_matter else "",
        f"# {first.task}: a policy for ONNX Runtime",
        f"{files}: made with crl-distill, to be run on a robot at {1 / first.control_period:g} Hz. "
        f"Each file needs nothing beside it; inputs and outputs are float32 `[batch, n]`.",
        *(_arrays(role, entries) for role, entries in described.items()),
        _promises(described),
        networks_section(first),
        figures_section(first),
        lineage_section(first),
        _usage(described),
        versions_section(first.versions),
    ]
    return "\n\n".join(line for line in lines if line) + "\n"


def _arrays(role: Role, entries: Contract) -> str:
    named = {**entries.inputs, **entries.outputs}
    rows = [
        (
            f"`{name}`",
            _indices(place),
            place.name,
            place.unit if name != "action" or entries.action_units == "task" else "[-1, 1] for",
            limits_of(place.model_dump()),
            _seen(place),
            place.meaning,
        )
        for name, fields in named.items()
        for place in fields
    ]
    names = ("array", "index", "field", "unit", "limits", "seen", "meaning")
    return f"## {role}.onnx\n\n" + markdown_table(names, rows)


def _indices(place: Place) -> str:
    return str(place.start) if place.size == 1 else f"{place.start} to {place.stop - 1}"


def _seen(place: Place) -> str:
    if not place.seen_low or not place.seen_high:
        return "-"
    return f"{min(place.seen_low):.3g} to {max(place.seen_high):.3g}"


def _promises(described: Mapping[Role, Contract]) -> str:
    first = next(iter(described.values()))
    units = {
        "task": "actions in the units of their fields, within their limits",
        "normalized": "actions in [-1, 1], which stand for their fields' limits",
    }
    rows = [
        ("control period", f"{1000 * first.control_period:g} ms"),
        ("actions", units[first.action_units]),
        ("success radius", f"{first.success_radius:g} {first.inputs['goal'][0].unit}"),
        ("opset, precision", f"{first.opset}, {first.precision}"),
        *((f"operators of {role}", ", ".join(each.operators)) for role, each in described.items()),
        *(
            (f"largest difference from JAX, {role}", f"{each.parity.max_abs:.2g}")
            for role, each in described.items()
            if each.parity
        ),
        *((name, _number(first.metrics.get(f"exported_{key}"))) for key, name in EXPORTED.items()),
        *(
            (
                f"reachability, {role}",
                f"within {each.reachability.horizon:g} s; AUROC {_number(each.reachability.auroc)}",
            )
            for role, each in described.items()
            if each.reachability
        ),
        ("embedding size", first.embedding_size),
        ("contract version", first.contract_version),
    ]
    return "## What the files promise\n\n" + markdown_table(("what", "value"), rows)


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "-"


def _usage(described: Mapping[Role, Contract]) -> str:
    opening = (
        'Policy("combined.onnx")'
        if "combined" in described
        else 'Policy("policy.onnx", critic="critic.onnx")'
    )
    return f"""## Use

With `runtime.py` of crl-distill, which needs numpy and onnxruntime alone:

```python
from runtime import Policy

policy = {opening}
action = policy(observation, goal)
chance = policy.reachability(observation, goal)
```

```sh
crl-distill verify {next(iter(described))}.onnx
```"""
