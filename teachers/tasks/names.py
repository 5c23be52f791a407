"""Finds bodies, sites, joints, actuators, sensors and keyframes of a model by name."""

import difflib
from typing import Literal

import mujoco

from teachers.runs.errors import InputError

Kind = Literal["body", "site", "joint", "actuator", "sensor", "key"]
_TYPES = {
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
    "key": mujoco.mjtObj.mjOBJ_KEY,
}
_COUNTS = {
    "body": "nbody",
    "site": "nsite",
    "joint": "njnt",
    "actuator": "nu",
    "sensor": "nsensor",
    "key": "nkey",
}
SHOWN = 8  # names in a message


def find(model: mujoco.MjModel, kind: Kind, name: str) -> int:
    """Returns the id of what has this name in the model.

    Raises:
        InputError: there is none; the message names those that come near.
    """
    found = mujoco.mj_name2id(model, _TYPES[kind], name)
    if found >= 0:
        return found
    names = names_of(model, kind)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    word = "keyframe" if kind == "key" else kind
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    elif names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        hint = f"it has {', '.join(map(repr, names[:SHOWN]))}{more}"
    else:
        hint = f"it has no {word} with a name"
    raise InputError(f"the model has no {word} {name!r}; {hint}")


def names_of(model: mujoco.MjModel, kind: Kind) -> list[str]:
    """Returns the names of all bodies, sites, joints, actuators, sensors or keyframes that have one, in the model's order."""
    count = getattr(model, _COUNTS[kind])
    names = (mujoco.mj_id2name(model, _TYPES[kind], i) for i in range(count))
    return [name for name in names if name]
