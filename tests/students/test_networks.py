import jax
import jax.numpy as jnp
import numpy as np
import pytest

from students import MLPConfig, StudentConfig, student_networks
from students.networks import MLP, describe_networks, parameters_used_by
from teachers.crl.parameters import count_parameters
from teachers.tasks.registry import get_task


@pytest.mark.parametrize(
    ("activation", "computed"),
    [
        ("relu", lambda y: np.maximum(y, 0)),
        ("swish", lambda y: y / (1 + np.exp(-y))),
        ("tanh", np.tanh),
    ],
)
def test_mlp_computes_dense_layers_and_a_linear_head(activation, computed) -> None:
    network = MLP(MLPConfig(layers=2, width=5, activation=activation), outputs=3)
    x = jax.random.normal(jax.random.key(1), (4, 6))
    variables = network.init(jax.random.key(0), x)
    y = np.asarray(x)
    layers = variables["params"]
    for name in ("Dense_0", "Dense_1"):
        y = computed(y @ layers[name]["kernel"] + layers[name]["bias"])
    expected = y @ layers["Dense_2"]["kernel"] + layers["Dense_2"]["bias"]
    np.testing.assert_allclose(network.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_student_networks_default_policy_has_5124_parameters() -> None:
    networks = student_networks(get_task("reacher"), StudentConfig(), embedding=64)
    params = networks.init(jax.random.key(0))
    assert count_parameters(params["actor"]) == 10 * 64 + 64 + 64 * 64 + 64 + 64 * 4 + 4


def test_student_networks_bound_actions_and_values() -> None:
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


def test_student_networks_divide_inputs_by_their_scale() -> None:
    task = get_task("reacher")
    networks = student_networks(task, StudentConfig(), embedding=8)
    params = networks.init(jax.random.key(0))
    observation, goal = jnp.ones((1, 8)), jnp.ones((1, 2))
    inputs = jnp.concatenate(
        [observation / task.observation_scale, goal / task.goal_scale], axis=-1
    )
    mean = MLP(MLPConfig(layers=2, width=64), 4).apply(params["actor"], inputs)[:, :2]
    np.testing.assert_allclose(networks.actor(params, observation, goal)[0], mean, rtol=1e-6)


def test_mlp_normalises_before_its_activation() -> None:
    x = jax.random.normal(jax.random.key(1), (4, 6))
    shape = MLPConfig(layers=1, width=5, activation="tanh", normalisation=True)
    network = MLP(shape, outputs=None)
    variables = network.init(jax.random.key(0), x)
    dense = variables["params"]["Dense_0"]
    y = np.asarray(x @ dense["kernel"] + dense["bias"])
    y = (y - y.mean(axis=1, keepdims=True)) / y.std(axis=1, keepdims=True)
    np.testing.assert_allclose(network.apply(variables, x), np.tanh(y), atol=1e-4)


def test_two_headed_shares_an_encoder() -> None:
    config = StudentConfig(policy=MLPConfig(layers=2, width=16), heads=True, embedding=4)
    networks = student_networks(get_task("reacher"), config, embedding=64)
    params = networks.init(jax.random.key(0))
    assert set(params) == {"encoder", "actor", "phi", "psi"}
    assert count_parameters(params["encoder"]) == 8 * 16 + 16
    assert count_parameters(params["actor"]) == (16 + 2) * 16 + 16 + 16 * 4 + 4
    observation, goal, action = jnp.ones((3, 8)), jnp.ones((3, 2)), jnp.ones((3, 2))
    assert networks.phi(params, observation, goal, action).shape == (3, 4)
    # Both heads read the encoder, and each what is its own.
    other = {**params, "encoder": jax.tree.map(lambda x: 2 * x, params["encoder"])}
    assert not np.allclose(
        networks.policy(other, observation, goal), networks.policy(params, observation, goal)
    )
    assert not np.allclose(
        networks.phi(other, observation, goal, action),
        networks.phi(params, observation, goal, action),
    )
    assert not np.allclose(
        networks.policy(params, observation, goal), networks.policy(params, observation, -goal)
    )


def test_student_config_refuses_two_heads_of_one_layer() -> None:
    with pytest.raises(ValueError, match="2 layers or more"):
        StudentConfig(policy=MLPConfig(layers=1), heads=True)


def test_describe_networks_lists_the_encoder() -> None:
    config = StudentConfig(policy=MLPConfig(layers=3, width=16), heads=True)
    params = student_networks(get_task("reacher"), config, 64).init(jax.random.key(0))
    described = describe_networks(config, params)
    assert {name: row["layers"] for name, row in described.items()} == {
        "actor": 1, "phi": 1, "psi": 2, "encoder": 2,
    }  # fmt: skip
    both = described["actor"]["parameters"] + described["encoder"]["parameters"]
    assert count_parameters(parameters_used_by("actor", params)) == both
    assert count_parameters(parameters_used_by("psi", params)) == described["psi"]["parameters"]
