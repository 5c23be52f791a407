"""A task of one's own: a cart with a swinging pole drives to a place on its rail.

Try it: `crl-distill tasks --check cart.py:Cart`, then `crl-distill train-teacher cart.py:Cart`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import mujoco

from teachers.tasks import Camera, Field, Task, add_motor, namespace

REACH = 1.0  # m to either side, on a rail that goes on
FORCE = 10.0  # N


class Cart(Task):
    """The pole hangs and is only in the way: the goal says where the cart should be, nothing else."""

    name = "cart"
    summary = "A cart with a hanging pole drives to a place on its rail."
    # What the robot measures. A field's scale is its usual magnitude: networks see the field divided by it.
    observation = (
        Field("position", 1, "m", "the cart's place on its rail", scale=0.5),
        Field("pole", 2, "1", "sine and cosine of the pole's angle from hanging"),
        Field("velocity", 1, "m/s", "the cart's velocity", scale=0.5),
        Field("pole_velocity", 1, "rad/s", "the pole's angular velocity", scale=2.0),
    )
    # What it should reach: here a part of the observation, see `achieved_goal`.
    goal = (
        Field("position", 1, "m", "where the cart should be", scale=0.5, low=-REACH, high=REACH),
    )
    action = (Field("force", 1, "N", "force on the cart", low=-FORCE, high=FORCE),)
    substeps = 4  # physics steps of 5 ms in a control step of 20 ms
    episode_steps = 100
    success_radius = 0.05  # m
    camera = Camera(lookat=(0.0, 0.0, -0.1), distance=2.5, elevation=0.0)
    training = {"steps": 300_000}

    def build(self) -> mujoco.MjSpec:
        """A rail along x, seen from the front; gravity points along -z."""
        spec = mujoco.MjSpec()
        spec.option.timestep = 0.005
        # Nothing touches anything, and MJX compiles faster without what it would take.
        spec.option.disableflags = mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
        cart = spec.worldbody.add_body(name="cart")
        cart.add_joint(
            name="slide",
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[1, 0, 0],
            damping=[10.0, 0, 0],
        )
        cart.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.1, 0.06, 0.04], mass=1.0)
        pole = cart.add_body(name="pole")
        pole.add_joint(
            name="swing",
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, 1, 0],
            damping=[0.02, 0, 0],
        )
        pole.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[0, 0, 0, 0, 0, -0.4],
            size=[0.02, 0, 0],
            mass=0.2,
            rgba=[0.25, 0.42, 0.68, 1],
        )
        add_motor(spec, "slide", FORCE)
        return spec

    def sample_state(self, key: Any) -> Any:
        """Anywhere in reach, at rest; `key` is what makes it differ from reset to reset."""
        place, angle = jax.random.split(key)
        qpos = jnp.stack(
            [
                jax.random.uniform(place, minval=-REACH, maxval=REACH),
                0.2 * jax.random.normal(angle),
            ]
        )
        return qpos, jnp.zeros(2)

    def sample_goal(self, key: Any, observation: Any, goal_set: str) -> Any:
        """Anywhere in reach, in the form of `achieved_goal`."""
        return jax.random.uniform(key, (1,), minval=-REACH, maxval=REACH)

    def observe(self, data: Any) -> Any:
        """The fields in their order. `data` is MJX's or MuJoCo C's: `namespace` gives the functions for both."""
        xp = namespace(data.qpos)
        angle = data.qpos[1:]
        return xp.concatenate([data.qpos[:1], xp.sin(angle), xp.cos(angle), data.qvel])

    def achieved_goal(self, observation: Any) -> Any:
        """What of the observation the goal is about; `...` lets it take any batch."""
        return observation[..., :1]

    def goal_position(self, goal: Any) -> tuple[float, float, float]:
        """Where pictures show the goal."""
        return (float(goal[0]), 0.0, 0.0)
