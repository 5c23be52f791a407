"""Which policy loss keeps most of a teacher: the default beside the KL divergence, at equal steps and updates."""

import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from common import parser, report

from distill import distill_config, distill_teacher
from distill import run as distill_run
from teachers import load_teacher


def kl_divergence(mean, log_std, teacher_mean, teacher_log_std):
    """KL(teacher || student) of the Gaussians before the squashing (Rusu et al., arXiv 1511.06295, eq. 3)."""
    ratio = jnp.exp(2 * (teacher_log_std - log_std))
    distance = ((teacher_mean - mean) * jnp.exp(-log_std)) ** 2
    return jnp.mean((log_std - teacher_log_std + 0.5 * (ratio + distance - 1)).sum(-1))


LOSSES = {"mode and spread (default)": distill_run.policy_loss, "KL divergence": kl_divergence}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("teacher", type=Path, help="folder of a teacher's run")
    options = options.parse_args()
    teacher = load_teacher(options.teacher)
    rows = []
    for name, loss in LOSSES.items():
        distill_run.policy_loss = loss
        kept, errors = [], []
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                config = distill_config(overrides={"seed": seed})
                metrics = distill_teacher(teacher, config, Path(folder) / "run").metadata.metrics
            kept.append(metrics["retention"])
            errors.append(metrics["action_error"])
        rows.append(
            {
                "loss": name,
                "retention": float(np.mean(kept)),
                "by_seed": np.round(kept, 3).tolist(),
                "action_error": float(np.mean(errors)),
            }
        )
    report(rows, options.json)


if __name__ == "__main__":
    main()
