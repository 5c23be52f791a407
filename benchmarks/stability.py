"""What lets very deep networks learn: the published residual block beside each remedy, on `reacher`."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from common import parser, report
from flax import linen as nn
from matplotlib.figure import Figure

from teachers import teacher_config
from teachers.config import LAYERS_PER_BLOCK, LearningConfig
from teachers.crl import iteration, learner
from teachers.crl.networks import Networks, teacher_networks
from teachers.evaluate import player
from teachers.measures import measure_outcomes
from teachers.simulation.rollout import evaluation_starts

CURVES = (
    "critic_loss",
    "contrastive_accuracy",
    "entropy",
    "saturated_actions",
    "skipped_updates",
    "critic_gradient_norm",
    "actor_gradient_norm",
)


class Variant(nn.Module):
    """A residual MLP with any of the remedies that the literature knows.

    Attributes:
        scale: of each branch.
        head_norm: a LayerNorm before the head.
        pre_norm: each layer is (LayerNorm, swish, Dense) rather than (Dense, LayerNorm, swish).
        zero: branches start at zero (the last LayerNorm's scale, or for `pre_norm` the last Dense).
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
        uniform = nn.initializers.lecun_uniform()
        x = nn.swish(nn.LayerNorm()(nn.Dense(self.width, kernel_init=uniform)(x)))
        layers = []
        for i in range(LAYERS_PER_BLOCK):
            silent = self.zero and i == LAYERS_PER_BLOCK - 1
            dense = nn.Dense(
                self.width,
                kernel_init=nn.initializers.zeros if silent and self.pre_norm else uniform,
                parent=None,
            )
            norm = nn.LayerNorm(
                scale_init=nn.initializers.zeros if silent else nn.initializers.ones, parent=None
            )
            layers += [norm, nn.swish, dense] if self.pre_norm else [dense, norm, nn.swish]
        branch = nn.Sequential(layers, parent=None)
        keys = functools.partial(jax.random.split, num=self.depth // LAYERS_PER_BLOCK)
        blocks = self.param("blocks", lambda k: jax.vmap(lambda k: branch.init(k, x))(keys(k)))

        def block(x: jax.Array, params: Any) -> tuple[jax.Array, None]:
            return x + self.scale * branch.apply(params, x), None

        x, _ = jax.lax.scan(jax.checkpoint(block, prevent_cse=False), x, blocks)
        if self.head_norm:
            x = nn.LayerNorm(name="head_norm")(x)
        return nn.Dense(self.outputs, kernel_init=uniform)(x)


def clipped(learning: LearningConfig) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning.learning_rate))


def warmed(learning: LearningConfig) -> optax.GradientTransformation:
    return optax.adam(optax.linear_schedule(0.0, learning.learning_rate, 500))


def slow(learning: LearningConfig) -> optax.GradientTransformation:
    return optax.adam(learning.learning_rate / 10)


# Name: what to change of the network for this many blocks, and the optimiser.
VARIANTS: dict[str, tuple[Callable[[int], dict[str, Any]], Any]] = {
    "published": (lambda blocks: {}, learner.make_optimizer),
    "clipped gradient": (lambda blocks: {}, clipped),
    "warm-up": (lambda blocks: {}, warmed),
    "a tenth of the rate": (lambda blocks: {}, slow),
    "zero branches": (lambda blocks: {"zero": True}, learner.make_optimizer),
    "pre-norm": (lambda blocks: {"pre_norm": True}, learner.make_optimizer),
    "head norm": (lambda blocks: {"head_norm": True}, learner.make_optimizer),
    "scaled branches": (lambda blocks: {"scale": blocks**-0.5}, learner.make_optimizer),
    "scaled, head norm": (
        lambda blocks: {"scale": blocks**-0.5, "head_norm": True},
        learner.make_optimizer,
    ),
}


def train(name: str, depth: int, width: int, seed: int, iterations: int) -> dict[str, Any]:
    """Trains one variant; a row with its curves, one value an iteration."""
    shape, optimizer = VARIANTS[name]
    overrides = {f"{part}.depth": depth for part in ("actor", "phi", "psi")}
    overrides |= {f"{part}.width": width for part in ("actor", "phi", "psi")}
    config = teacher_config(
        "reacher", overrides={**overrides, "seed": seed, "learning.remat": "on"}
    )
    changed = shape(depth // LAYERS_PER_BLOCK)

    def networks(config: Any, task: Any = None, **_: Any) -> Networks:
        task = task or teacher_networks(config).task
        make = functools.partial(Variant, depth, width, **changed)
        return Networks(
            task, make(2 * task.action_size), make(config.embedding), make(config.embedding)
        )

    iteration.teacher_networks = networks
    learner.make_optimizer = optimizer
    # A function of its own: jit must not remember the variant before.
    state = jax.jit(lambda: iteration.init_training(config))()
    iterate = jax.jit(iteration.make_iteration(config), donate_argnums=0)
    played = networks(config)
    play, starts = player(played), evaluation_starts(played.task, 256, seed)
    curves: dict[str, list[float]] = {curve: [] for curve in (*CURVES, "success_at_end")}
    begun = time.monotonic()
    for i in range(1, iterations + 1):
        state, metrics = iterate(state)
        for curve in CURVES:
            curves[curve].append(float(f"{float(metrics[curve]):.4g}"))
        if i % max(1, iterations // 2) == 0:
            distance = np.concatenate(list(play(state.learner.params, starts)))
            curves["success_at_end"].append(
                float(measure_outcomes(played.task, distance).success_at_end.mean())
            )
    return {
        "variant": name,
        "depth": depth,
        "seed": seed,
        "updates": iterations * config.learning.gradient_steps,
        "critic_loss": curves["critic_loss"][-1],
        "accuracy": curves["contrastive_accuracy"][-1],
        "saturated": curves["saturated_actions"][-1],
        "success_at_end": curves["success_at_end"][-1],
        "seconds": round(time.monotonic() - begun),
        "curves": curves,
    }


def draw(rows: list[dict[str, Any]], file: Path) -> None:
    """The critic's loss of each variant against gradient steps, a panel for each depth."""
    depths = sorted({row["depth"] for row in rows})
    page = Figure(figsize=(3.6 * len(depths), 3.8), layout="constrained")
    panels = page.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    for axes, depth in zip(panels, depths, strict=True):
        for row in rows:
            if row["depth"] == depth:
                losses = row["curves"]["critic_loss"]
                steps = np.linspace(0, row["updates"], len(losses) + 1)[1:]
                width = 2.5 if row["variant"] in ("published", "zero branches") else 1.0
                axes.plot(steps, losses, label=row["variant"], linewidth=width)
        axes.axhline(
            np.log(256), color="grey", linestyle=":", linewidth=1
        )  # chance, without the penalty
        axes.set(title=f"depth {depth}", xlabel="gradient steps", ylim=(3, 8))
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("critic loss")
    panels[-1].legend(fontsize=7)
    page.savefig(file, dpi=100)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--image", type=Path, help="draw the curves in this file")
    options.add_argument("--depths", default="16,64,256,1024", help="separated by commas")
    options.add_argument("--width", type=int, default=32)
    options.add_argument("--iterations", type=int, default=8, help="of 64 updates each")
    options.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options.set_defaults(seeds=[0])
    options = options.parse_args()
    rows: list[dict[str, Any]] = []
    for depth in map(int, options.depths.split(",")):
        for name in options.variants:
            for seed in options.seeds:
                rows.append(train(name, depth, options.width, seed, options.iterations))
                report(rows[-1:], None, without=("curves",))
    report(rows, options.json, without=("curves",))
    if options.image:
        draw(rows, options.image)


if __name__ == "__main__":
    main()
