"""Actor and critic of an agent as functions of parameters, and the deep networks of teachers.

Teachers follow Wang et al., "1000 Layer Networks for Self-Supervised RL" (arXiv 2503.14858), section 3.
"""

from functools import cached_property, partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from teachers.config import NetworkConfig, TeacherConfig
from teachers.crl.evaluator import Evaluator
from teachers.crl.parameters import Params, apply_module
from teachers.crl.residual_mlp import ResidualMLP
from teachers.tasks.base import Task
from teachers.tasks.encoding import encode_fields
from teachers.tasks.engines import choose_engine
from teachers.tasks.registry import get_task

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0


def bounded_log_std(raw: Float[Array, "*batch act"]) -> Float[Array, "*batch act"]:
    """Maps real numbers smoothly into the range of log standard deviations, as the published actor does."""
    return LOG_STD_MIN + 0.5 * (LOG_STD_MAX - LOG_STD_MIN) * (jnp.tanh(raw) + 1.0)


def sample_action(
    key: Key[Array, ""], mean: Float[Array, "*batch act"], log_std: Float[Array, "*batch act"]
) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch"]]:
    """Draws an action from the tanh-Gaussian policy, and returns it with its log probability density.

    The density includes the change of variables of the squashing (SAC, arXiv 1812.05905, eq. 26), in the
    form log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which stays finite for saturated actions.

    Args:
        key: random key.
        mean: mean of the Gaussian, before the squashing.
        log_std: logarithm of its standard deviation.

    Returns:
        The action in [-1, 1], and the logarithm of its density.
    """
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    unsquashed = mean + jnp.exp(log_std) * noise
    gaussian = -0.5 * noise**2 - log_std - 0.5 * jnp.log(2.0 * jnp.pi)
    squashing = 2.0 * (jnp.log(2.0) - unsquashed - jax.nn.softplus(-2.0 * unsquashed))
    return jnp.tanh(unsquashed), (gaussian - squashing).sum(-1)


def similarity(
    phi: Float[Array, "*batch embed"], psi: Float[Array, "*batch embed"]
) -> Float[Array, "*batch"]:
    """Returns the critic f = -||phi - psi|| of each row of `phi` with the same row of `psi`."""
    return -_norm(phi - psi)


def pairwise_logits(
    phi: Float[Array, "batch embed"], psi: Float[Array, "batch embed"]
) -> Float[Array, "batch batch"]:
    """Returns the critic's logits: f of every row of `phi` with every row of `psi`.

    They are computed by a matrix product, as |a|^2 + |b|^2 - 2 ab. Close to zero this loses digits, so the diagonal,
    which holds the positives of contrastive learning, is computed from the differences.
    """
    products = jnp.matmul(phi, psi.T, precision=jax.lax.Precision.HIGHEST)
    squared = (phi**2).sum(-1)[:, None] + (psi**2).sum(-1)[None, :] - 2.0 * products
    logits = -_safe_sqrt(jnp.maximum(squared, 0.0))
    return jnp.where(jnp.eye(len(phi), dtype=bool), similarity(phi, psi)[:, None], logits)


def _norm(x: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    return _safe_sqrt((x**2).sum(-1))


def _safe_sqrt(squared: Float[Array, "*n"]) -> Float[Array, "*n"]:
    # The small constant keeps the gradient finite where the embeddings coincide.
    return jnp.sqrt(squared + 1e-12)


class Networks:
    """Actor, phi and psi as functions of parameters `{"actor": ..., "phi": ..., "psi": ...}`.

    Teachers and students share this class. Observations and goals are divided by the scale of their fields before a
    network reads them.

    Attributes:
        task: the task whose observations, goals and actions the networks read.
        commanded_critic: whether phi reads the goal that the policy was given, too.
        memory_size: numbers that the networks carry from step to step; see `remember`.
    """

    memory_size = 0

    def __init__(
        self,
        task: Task,
        actor: nn.Module,
        phi: nn.Module,
        psi: nn.Module,
        commanded_critic: bool = False,
    ) -> None:
        """Wraps three modules that map `[*batch, inputs]` to `[*batch, outputs]`.

        Args:
            task: the task that declares observations, goals and actions with their scales.
            actor: maps observation and goal to mean and log standard deviation of the action.
            phi: maps observation and action, and the commanded goal if `commanded_critic`, to an embedding.
            psi: maps a goal to an embedding of the same size.
            commanded_critic: whether phi reads the goal that the policy was given, too.
        """
        self.task = task
        self.commanded_critic = commanded_critic
        self._modules = {"actor": actor, "phi": phi, "psi": psi}

    def init(self, key: Key[Array, ""]) -> Params:
        """Returns newly initialised parameters."""
        return self._init_modules(key, {})

    @cached_property
    def shapes(self) -> Params:
        """Shapes and types of the parameters, found without allocating them: a pytree of `jax.ShapeDtypeStruct`."""
        return jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0)))

    @cached_property
    def evaluator(self) -> Evaluator:
        """Evaluates the policy; the networks keep it, so that all agents with these networks share its programs."""
        return self.make_evaluator()

    def make_evaluator(self, best_of: int = 1) -> Evaluator:
        """Returns what evaluates the policy with the engine `auto`.

        Args:
            best_of: see `explore`; for sampled actions.
        """
        task = self.task.simulated_by(choose_engine("auto"), 0)
        return Evaluator(
            task, partial(self.explore, best_of=best_of), self.remember, self.memory_size
        )

    @property
    def has_residual_blocks(self) -> bool:
        """Whether all three networks consist of residual blocks, whose outputs `block_outputs` returns."""
        return all(isinstance(module, ResidualMLP) for module in self._modules.values())

    def remember(
        self,
        params: Params,
        read: Float[Array, "*batch read"],
        memory: Float[Array, "*batch memory"],
    ) -> tuple[Float[Array, "*batch seen"], Float[Array, "*batch memory"]]:
        """Returns what actor and phi see in place of an observation, and the memory after this control step.

        Networks without memory see what is read.

        Args:
            params: of the networks.
            read: in this control step; see `Task.read_fields`.
            memory: before it; zeros at the start of an episode.
        """
        return read, memory

    def actor(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
    ) -> tuple[Float[Array, "*batch act"], Float[Array, "*batch act"]]:
        """Returns pi(a | s, g) as the mean and log standard deviation of the action before the squashing."""
        inputs = self._actor_inputs(params, observation, goal)
        outputs = apply_module(self._modules["actor"], params["actor"], inputs)
        mean, raw = jnp.split(outputs, 2, axis=-1)
        return mean, bounded_log_std(raw)

    def phi(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"] | None,
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch embed"]:
        """Returns the embedding of a state and an action.

        Args:
            params: of the networks.
            observation: the state.
            goal: the one that the policy was given; it is read, and needed, only by a `commanded_critic`.
            action: in [-1, 1].
        """
        inputs = self._phi_inputs(params, observation, goal, action)
        return apply_module(self._modules["phi"], params["phi"], inputs)

    def psi(
        self, params: Params, goal: Float[Array, "*batch goal"]
    ) -> Float[Array, "*batch embed"]:
        """Returns the embedding of a goal."""
        return apply_module(self._modules["psi"], params["psi"], self._encode_goal(goal))

    def policy(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
    ) -> Float[Array, "*batch act"]:
        """Returns the action in [-1, 1] without exploration noise: the squashed mean."""
        mean, _ = self.actor(params, observation, goal)
        return jnp.tanh(mean)

    def explore(
        self,
        params: Params,
        keys: Key[Array, "batch"],
        observation: Float[Array, "batch obs"],
        goal: Float[Array, "batch goal"],
        is_deterministic: Bool[Array, "batch"] | None = None,
        *,
        best_of: int = 1,
    ) -> Float[Array, "batch act"]:
        """Draws an action in [-1, 1] from the policy, for each row with its own key.

        Args:
            params: of the networks.
            keys: random keys.
            observation: of each row.
            goal: of each row.
            is_deterministic: in which rows the action is that of `policy`; by default in none.
            best_of: actions that are drawn for each row, of which the critic chooses the best.
        """
        mean, log_std = self.actor(params, observation, goal)
        if is_deterministic is not None:
            log_std = jnp.where(is_deterministic[:, None], -jnp.inf, log_std)
        if best_of == 1:
            return jax.vmap(sample_action)(keys, mean, log_std)[0]

        actions, values = self.draw_actions(params, keys, observation, goal, mean, log_std, best_of)
        best = values.argmax(axis=1)
        return jnp.take_along_axis(actions, best[:, None, None], axis=1)[:, 0]

    def draw_actions(
        self,
        params: Params,
        keys: Key[Array, "batch"],
        observation: Float[Array, "batch obs"],
        goal: Float[Array, "batch goal"],
        mean: Float[Array, "batch act"],
        log_std: Float[Array, "batch act"],
        count: int,
    ) -> tuple[Float[Array, "batch actions act"], Float[Array, "batch actions"]]:
        """Draws several actions for each row, and returns them with their values f(s, a, g).

        Args:
            params: of the networks.
            keys: random keys.
            observation: of each row.
            goal: of each row.
            mean: of the policy, before the squashing.
            log_std: logarithm of its standard deviation.
            count: number of actions of each row.
        """

        def draw(key: Array, mean: Array, log_std: Array) -> Array:
            several = jax.random.split(key, count)
            return jax.vmap(sample_action, (0, None, None))(several, mean, log_std)[0]

        actions = jax.vmap(draw)(keys, mean, log_std)
        states, goals = (jnp.repeat(x[:, None], count, axis=1) for x in (observation, goal))
        phi = self.phi(params, states, goals, actions)
        psi = jnp.broadcast_to(self.psi(params, goal)[:, None], phi.shape)
        return actions, similarity(phi, psi)

    def critic(
        self,
        params: Params,
        observation: Float[Array, "*batch obs"],
        goal: Float[Array, "*batch goal"],
        action: Float[Array, "*batch act"],
    ) -> Float[Array, "*batch"]:
        """Returns f(s, a, g)."""
        return similarity(self.phi(params, observation, goal, action), self.psi(params, goal))

    def block_outputs(
        self,
        params: Params,
        observation: Float[Array, "batch obs"],
        goal: Float[Array, "batch goal"],
        action: Float[Array, "batch act"],
    ) -> dict[str, tuple[Float[Array, "batch outputs"], Float[Array, "blocks"]]]:
        """Returns the outputs of residual networks, and how much each of their blocks adds; see `ResidualMLP`.

        Returns:
            By the name of each network, its outputs and, for each block, the norm of what the block adds over the
            norm of the sum.
        """
        found = {}
        for name, inputs in self._inputs(params, observation, goal, action).items():
            module = self._modules[name]
            outputs, state = module.apply(params[name], inputs, mutable="intermediates")
            found[name] = outputs, state["intermediates"]["branch_share"][0]
        return found

    def _init_modules(self, key: Key[Array, ""], shared: Params) -> Params:
        """Returns newly initialised parameters of the three modules.

        Args:
            key: random key.
            shared: parameters of modules that compute the inputs of the three, if there are any.
        """
        inputs = self._inputs(shared, *(jnp.zeros((1, n)) for n in self._input_sizes))
        keys = zip(self._modules, jax.random.split(key, 3), strict=True)
        return {name: self._modules[name].init(key, inputs[name]) for name, key in keys}

    @property
    def _input_sizes(self) -> tuple[int, int, int]:
        """Numbers in what is seen, in a goal and in an action."""
        sizes = self.task.read_sizes
        return sizes["observation"], sizes["goal"], sizes["action"]

    def _inputs(
        self, params: Params, observation: Array, goal: Array, action: Array
    ) -> dict[str, Array]:
        return {
            "actor": self._actor_inputs(params, observation, goal),
            "phi": self._phi_inputs(params, observation, goal, action),
            "psi": self._encode_goal(goal),
        }

    def _actor_inputs(self, params: Params, observation: Array, goal: Array) -> Array:
        return jnp.concatenate(
            [self._encode_observation(params, observation), self._encode_goal(goal)], axis=-1
        )

    def _phi_inputs(
        self, params: Params, observation: Array, goal: Array | None, action: Array
    ) -> Array:
        inputs = [self._encode_observation(params, observation), action]
        if self.commanded_critic:
            assert goal is not None
            inputs.append(self._encode_goal(goal))
        return jnp.concatenate(inputs, axis=-1)

    def _encode_goal(self, goal: Array) -> Array:
        return encode_fields(self.task.read_goal_fields, goal)

    def _encode_observation(self, params: Params, observation: Array) -> Array:
        """Returns what actor and phi read of an observation: by default the scaled observation."""
        return encode_fields(self.task.read_fields, observation)


def teacher_networks(
    config: TeacherConfig, task: Task | None = None, *, training: bool = False, remat: bool = False
) -> Networks:
    """Returns the residual networks that a configuration describes, without parameters.

    Args:
        config: their depths and widths.
        task: the task that they act on; by default the one that the configuration names.
        training: whether they compute in `learning.precision` rather than in float32.
        remat: whether activations are recomputed for the gradient; see `ResidualMLP`.
    """
    task = task or get_task(config.task)
    if config.rollout.privileged and not task.knows_disturbances:
        task = task.knowing_disturbances()
    dtype = config.learning.precision if training else "float32"

    def network(shape: NetworkConfig, outputs: int) -> ResidualMLP:
        return ResidualMLP(shape.depth, shape.width, outputs, shape.zero_branches, remat, dtype)

    return Networks(
        task,
        actor=network(config.actor, 2 * task.action_size),
        phi=network(config.phi, config.embedding),
        psi=network(config.psi, config.embedding),
        commanded_critic=config.commanded_critic,
    )
