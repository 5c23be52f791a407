"""Which geoms of a model can touch, and how many contacts that costs MJX, which solves for all of them in every step."""

from collections import Counter
from typing import NamedTuple

import mujoco
from mujoco.mjx._src import collision_driver


class ContactCount(NamedTuple):
    """The contacts that MJX would solve for."""

    total: int
    by_kind: dict[str, int]  # by the types of the two geoms, as in "plane-sphere", the most first
    ends: tuple[
        str, ...
    ]  # colliding geoms of the world and of bodies without children, such as feet
    others: tuple[str, ...]  # the other colliding geoms


def count_contacts(model: mujoco.MjModel) -> ContactCount:
    """Counts the contacts between all pairs of geoms that can touch, and names the geoms that could be left out."""
    by_kind: Counter[str] = Counter()
    colliding: set[int] = set()
    for first, second, _ in collision_driver.geom_pairs(model):
        kinds = [mujoco.mjtGeom(model.geom_type[geom]) for geom in (first, second)]
        function = collision_driver._COLLISION_FUNC.get(tuple(kinds))
        names = "-".join(kind.name.removeprefix("mjGEOM_").lower() for kind in kinds)
        by_kind[names] += function.ncon if function else 1
        colliding |= {int(first), int(second)}
    parents = set(model.body_parentid[1:].tolist())
    ends: list[str] = []
    others: list[str] = []
    for geom in sorted(colliding):
        body = int(model.geom_bodyid[geom])
        is_end = body not in parents or model.body_weldid[body] == 0
        (ends if is_end else others).append(model.geom(geom).name or f"geom {geom}")
    return ContactCount(by_kind.total(), dict(by_kind.most_common()), tuple(ends), tuple(others))
