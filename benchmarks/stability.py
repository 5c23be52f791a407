"""Measures which remedies let very deep networks learn: the published residual block beside each of them, on `reacher`.

A variant is trained for each depth and seed. The table shows the critic's loss, the contrastive accuracy, the share of
saturated actions and the success at the end of training; the JSON file also holds the curves. Run it with
`python benchmarks/stability.py --depths 16,64,256 --iterations 10 --json FILE --image PICTURE`.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import make_parser, network_sizes, report
from flax import linen as nn
from matplotlib.figure import Figure

from teachers import Task, get_task, teacher_config
from teachers.config import LAYERS_PER_BLOCK, LearningConfig
from teachers.crl import learner
from teachers.crl.networks import Networks
from teachers.crl.residual_mlp import kernel_init
from teachers.crl.training_programs import TrainingPrograms

EPISODES = 256
HIGHLIGHTED_VARIANTS = ("published", "zero branches")  # drawn with wide lines
# Metrics of an iteration whose curves are written.
CURVES = (
    "critic_loss",
    "contrastive_accuracy",
    "entropy",
    "saturated_actions",
    "skipped_updates",
    "critic_gradient_norm",
    "actor_gradient_norm",
)


class VariantMLP(nn.Module):
    """A residual MLP with optional remedies from the literature.

    Attributes:
        depth: number of layers in the residual blocks.
        width: units of each layer.
        outputs: size of the output.
        scale: factor of each residual branch.
        head_norm: whether a LayerNorm stands before the head.
        pre_norm: whether each layer is (LayerNorm, swish, Dense) instead of (Dense, LayerNorm, swish).
        zero: whether branches start at zero, by the scale of the last LayerNorm, or with `pre_norm` by the last Dense. All Dense layers
            of the other networks start as published.
    """

    depth: int
    width: int
    outputs: int
    scale: float = 1.0
    head_norm: bool = False
    pre_norm: bool = False
    zero: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the network's outputs, `[batch, outputs]`."""
        uniform = kernel_init(self.zero)
        x = nn.swish(nn.LayerNorm()(nn.Dense(self.width, kernel_init=uniform)(x)))
        layers = []
        for i in range(LAYERS_PER_BLOCK):
            starts_at_zero = self.zero and i == LAYERS_PER_BLOCK - 1
            dense = nn.Dense(
                self.width,
                kernel_init=nn.initializers.zeros if starts_at_zero and self.pre_norm else uniform,
                parent=None,
            )
            norm = nn.LayerNorm(
                scale_init=nn.initializers.zeros if starts_at_zero else nn.initializers.ones,
                parent=None,
            )
            layers += [norm, nn.swish, dense] if self.pre_norm else [dense, norm, nn.swish]
        branch = nn.Sequential(layers, parent=None)

        def init_blocks(key: jax.Array) -> Any:
            keys = jax.random.split(key, num=self.depth // LAYERS_PER_BLOCK)
            return jax.vmap(lambda key: branch.init(key, x))(keys)

        def apply_block(x: jax.Array, params: Any) -> tuple[jax.Array, None]:
            return x + self.scale * branch.apply(params, x), None

        blocks = self.param("blocks", init_blocks)
        x, _ = jax.lax.scan(jax.checkpoint(apply_block, prevent_cse=False), x, blocks)
        if self.head_norm:
            x = nn.LayerNorm(name="head_norm")(x)
        return nn.Dense(self.outputs, kernel_init=uniform)(x)


def make_clipped_adam(learning: LearningConfig) -> optax.GradientTransformation:
    """Returns Adam after clipping the gradient to a global norm of 1."""
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning.learning_rate))


def make_warmed_up_adam(learning: LearningConfig) -> optax.GradientTransformation:
    """Returns Adam whose learning rate rises linearly over the first 500 gradient steps."""
    return optax.adam(optax.linear_schedule(0.0, learning.learning_rate, 500))


def make_slow_adam(learning: LearningConfig) -> optax.GradientTransformation:
    """Returns Adam with a tenth of the learning rate."""
    return optax.adam(learning.learning_rate / 10)


class Variant(NamedTuple):
    """A remedy: what it changes of the network and of the optimizer."""

    network: Mapping[str, Any] = MappingProxyType({})  # attributes of `VariantMLP`
    scaled: bool = False  # whether branches are scaled by (number of blocks)^-1/2
    make_optimizer: Callable[[LearningConfig], Any] = learner.make_optimizer


VARIANTS = {
    "published": Variant(),
    "clipped gradient": Variant(make_optimizer=make_clipped_adam),
    "warm-up": Variant(make_optimizer=make_warmed_up_adam),
    "a tenth of the rate": Variant(make_optimizer=make_slow_adam),
    "zero branches": Variant({"zero": True}),
    "pre-norm": Variant({"pre_norm": True}),
    "head norm": Variant({"head_norm": True}),
    "scaled branches": Variant(scaled=True),
    "scaled, head norm": Variant({"head_norm": True}, scaled=True),
}


def make_networks(task: Task, embedding: int, variant: Variant, depth: int, width: int) -> Networks:
    """Returns actor, phi and psi of this depth and width, with the variant's residual blocks."""
    attributes = dict(variant.network)
    if variant.scaled:
        attributes["scale"] = (depth // LAYERS_PER_BLOCK) ** -0.5
    make_mlp = functools.partial(VariantMLP, depth, width, **attributes)
    return Networks(task, make_mlp(2 * task.action_size), make_mlp(embedding), make_mlp(embedding))


def train(name: str, depth: int, width: int, seed: int, iterations: int) -> dict[str, Any]:
    """Trains one variant and returns its row; its curves have one value for each iteration."""
    variant = VARIANTS[name]
    config = teacher_config(
        "reacher",
        overrides={**network_sizes(depth, width), "seed": seed, "learning.remat": "on"},
    )
    networks = make_networks(get_task(config.task), config.embedding, variant, depth, width)
    # Training takes its optimizer from this module.
    learner.make_optimizer = variant.make_optimizer
    programs = TrainingPrograms(config, networks)
    state = programs.init(jnp.uint32(seed))
    curves: dict[str, list[float]] = {curve: [] for curve in (*CURVES, "success_at_end")}
    start = time.monotonic()
    for i in range(1, iterations + 1):
        state, metrics = programs.iterate(state)
        for curve in CURVES:
            curves[curve].append(float(f"{float(metrics[curve]):.4g}"))
        if i % max(1, iterations // 2) == 0:
            outcomes = programs.evaluator.evaluate(state.learner.params, EPISODES, seed)
            curves["success_at_end"].append(float(outcomes.success_at_end.mean()))
    return {
        "variant": name,
        "depth": depth,
        "seed": seed,
        "updates": iterations * config.learning.gradient_steps,
        "critic_loss": curves["critic_loss"][-1],
        "accuracy": curves["contrastive_accuracy"][-1],
        "saturated": curves["saturated_actions"][-1],
        "success_at_end": curves["success_at_end"][-1],
        "seconds": round(time.monotonic() - start),
        "curves": curves,
    }


def draw_curves(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draws the critic's loss of each variant against gradient steps, with a panel for each depth."""
    depths = sorted({row["depth"] for row in rows})
    figure = Figure(figsize=(3.6 * len(depths), 3.8), layout="constrained")
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        for row in rows:
            if row["depth"] == depth:
                losses = row["curves"]["critic_loss"]
                steps = np.linspace(0, row["updates"], len(losses) + 1)[1:]
                linewidth = 2.5 if row["variant"] in HIGHLIGHTED_VARIANTS else 1.0
                axes.plot(steps, losses, label=row["variant"], linewidth=linewidth)
        # The loss of a critic that guesses among a batch of 256, without the log-sum-exp penalty.
        axes.axhline(np.log(256), color="grey", linestyle=":", linewidth=1)
        axes.set(title=f"depth {depth}", xlabel="gradient steps", ylim=(3, 8))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("critic loss")
    panels[-1].legend(fontsize=7)
    figure.savefig(file, dpi=100)


def main() -> None:
    """Trains all variants at all depths, prints each row and the table, and draws the curves."""
    parser = make_parser(__doc__, default_seeds=(0,))
    parser.add_argument("--image", type=Path, metavar="FILE", help="draw the curves in this file")
    parser.add_argument(
        "--depths",
        default="16,64,256,1024",
        help="of actor, phi and psi, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--width", type=int, default=32, help="of actor, phi and psi (default: %(default)s)"
    )
    parser.add_argument(
        "--iterations",
        type=int,
        default=8,
        help="training iterations, of 64 gradient steps each (default: %(default)s)",
    )
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        help="variants to train (default: all)",
    )
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for depth in map(int, options.depths.split(",")):
        for name in options.variants:
            for seed in options.seeds:
                rows.append(train(name, depth, options.width, seed, options.iterations))
                report(rows[-1:], None, hidden_columns=("curves",))
    report(rows, options.json, hidden_columns=("curves",))
    if options.image:
        draw_curves(rows, options.image)


if __name__ == "__main__":
    main()
