"""What `tasks --check` says of the engines."""

import mujoco
import numpy as np
import pytest
from examples.cart import Cart

from teachers.simulation import engine_report
from teachers.simulation.check import report_task
from teachers.simulation.engine_report import EngineTrial, give_advice
from teachers.tasks.contact_pairs import ContactCount, count_contacts
from teachers.tasks.engines import simulate_with_jax

LEGS = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1"/>
    <body name="torso" pos="0 0 1">
      <freejoint/>
      <geom name="torso" type="{torso}" size="0.1 0.1 0.1"/>
      <body name="left" pos="0.2 0 0">
        <joint axis="0 1 0"/>
        <geom name="left_foot" size="0.05"/>
      </body>
      <body name="right" pos="-0.2 0 0">
        <joint axis="0 1 0"/>
        <geom size="0.05"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.mark.parametrize("torso", ["sphere", "box", "capsule", "cylinder"])
def test_count_contacts_is_what_mjx_solves_for(torso) -> None:
    model = mujoco.MjModel.from_xml_string(LEGS.format(torso=torso))
    contacts = count_contacts(model)
    assert contacts.total == simulate_with_jax(model, "legs").data._impl.ncon
    assert contacts.by_kind["sphere-sphere" if torso != "sphere" else "plane-sphere"] > 0
    assert sum(contacts.by_kind.values()) == contacts.total


def test_count_contacts_tells_ends_of_limbs_from_others() -> None:
    contacts = count_contacts(mujoco.MjModel.from_xml_string(LEGS.format(torso="ellipsoid")))
    assert contacts.ends == ("floor", "left_foot", "geom 3")
    assert contacts.others == ("torso",)


def test_count_contacts_takes_pairs_that_mjx_does_not() -> None:
    spec = mujoco.MjSpec.from_string(LEGS.format(torso="ellipsoid"))
    spec.worldbody.add_geom(name="wall", type=mujoco.mjtGeom.mjGEOM_BOX, size=[1, 1, 1])
    assert count_contacts(spec.compile()).by_kind["ellipsoid-box"] == 1


TRIAL = EngineTrial("c", 0.5, 1000.0, None, "")


@pytest.mark.parametrize(
    ("jax_trial", "lines"),
    [
        (EngineTrial("jax", 2.0, 3000.0, 0.01, ""), ["use physics jax", "26 ("]),
        (EngineTrial("jax", 2.0, 300.0, 0.01, ""), ["use physics c", "26 ("]),
        (
            EngineTrial("jax", None, None, None, "not ready after 20 s"),
            ["use physics c", "26 (20 box-box, 6 plane-box)", "only these collide: foot; set"],
        ),
        (EngineTrial("jax", 2.0, 3000.0, 1.5, "differs"), ["use physics c", "26 (", "collide"]),
        (
            EngineTrial("jax", 2.0, 3000.0, 0.01, "", ("link", "hand")),
            ["use physics jax", "26 (", "20 corners, which MJX leaves out in part: link, hand"],
        ),
    ],
)
def test_advice_names_the_fastest_engine_that_agrees(jax_trial, lines) -> None:
    contacts = ContactCount(26, {"box-box": 20, "plane-box": 6}, ("foot",), ("torso",))
    found = give_advice([TRIAL, jax_trial], contacts)
    assert len(found) == len(lines)
    assert all(part in line for part, line in zip(lines, found, strict=True))


class Disc(Cart):
    """Its pole is a mesh, a disc of 48 corners."""

    def build(self):
        spec = super().build()
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.1
        points = [np.append(place, z) for z in (0.0, 0.02) for place in circle]
        spec.add_mesh(name="disc", uservert=np.concatenate(points))
        (geom,) = spec.body("pole").geoms
        geom.type, geom.meshname = mujoco.mjtGeom.mjGEOM_MESH, "disc"
        geom.fromto[:] = np.nan
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.0, 3.0, 1.0], pos=[0.0, 0.0, -1.0]
        )
        return spec


@pytest.mark.slow
def test_report_names_meshes_that_mjx_warns_of() -> None:
    trials = report_task(Disc(), 0, lambda text: None).engines
    assert [trial.meshes for trial in trials] == [(), ("disc",)]


@pytest.mark.slow
def test_report_tries_engines_and_stops_one_that_takes_too_long(monkeypatch) -> None:
    said: list[str] = []
    report = report_task(Cart(), 0, said.append)
    assert (report.problems, report.contacts.total) == ([], 0)
    in_c, in_jax = report.engines
    assert in_c.problem == in_jax.problem == ""
    assert in_c.steps_per_second > 0
    assert in_jax.compile_seconds > 0
    assert in_jax.difference < 1e-3
    assert len(said) == 3

    monkeypatch.setattr(engine_report, "MAX_SECONDS", 0.2)
    (problem,) = {trial.problem for trial in report_task(Cart(), 0, said.append).engines}
    assert problem == "not ready after 0 s"
    monkeypatch.setattr(engine_report, "MAX_SECONDS", 20.0)
    monkeypatch.setattr(engine_report, "MAX_MEMORY", 1e8)
    (problem,) = {trial.problem for trial in report_task(Cart(), 0, said.append).engines}
    assert problem == "took over 0.1 GB"
