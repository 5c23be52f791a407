import jax
import jax.numpy as jnp
import numpy as np

from students import StudentConfig, student_networks
from students.networks import MLP
from teachers.networks import count_parameters
from teachers.tasks import get_task


def test_mlp_computes_dense_relu_layers_and_a_linear_head() -> None:
    network = MLP(layers=2, width=5, outputs=3)
    x = jax.random.normal(jax.random.key(1), (4, 6))
    variables = network.init(jax.random.key(0), x)
    y = np.asarray(x)
    layers = variables["params"]
    for name in ("Dense_0", "Dense_1"):
        y = np.maximum(y @ layers[name]["kernel"] + layers[name]["bias"], 0)
    expected = y @ layers["Dense_2"]["kernel"] + layers["Dense_2"]["bias"]
    np.testing.assert_allclose(network.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_a_2_x_64_policy_of_the_reacher_has_5124_parameters() -> None:
    networks = student_networks(get_task("reacher"), StudentConfig(), embedding=64)
    params = networks.init(jax.random.key(0))
    assert count_parameters(params["actor"]) == 10 * 64 + 64 + 64 * 64 + 64 + 64 * 4 + 4


def test_actions_lie_between_minus_one_and_one_and_values_are_not_positive() -> None:
    task = get_task("reacher")
    networks = student_networks(task, StudentConfig(), embedding=8)
    params = networks.init(jax.random.key(0))
    observation, goal = (
        50 * jax.random.normal(jax.random.key(1), (32, 10))[:, :8],
        jnp.ones((32, 2)),
    )
    action = networks.policy(params, observation, goal)
    assert action.shape == (32, 2)
    assert jnp.abs(action).max() <= 1
    assert (networks.critic(params, observation, goal, action) <= 0).all()


def test_inputs_are_divided_by_the_scale_of_their_fields() -> None:
    task = get_task("reacher")
    networks = student_networks(task, StudentConfig(), embedding=8)
    params = networks.init(jax.random.key(0))
    observation, goal = jnp.ones((1, 8)), jnp.ones((1, 2))
    inputs = jnp.concatenate(
        [observation / task.observation_scale, goal / task.goal_scale], axis=-1
    )
    mean = MLP(2, 64, 4).apply(params["actor"], inputs)[:, :2]
    np.testing.assert_allclose(networks.actor(params, observation, goal)[0], mean, rtol=1e-6)
