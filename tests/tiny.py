"""Settings so small that they compile and run in seconds. Nothing is learned with them.

Residual blocks are initialised as published: with blocks that start at zero, most gradients of the first steps are zero.
"""

TEACHER = {
    **{f"{network}.depth": 8 for network in ("actor", "phi", "psi")},
    **{f"{network}.width": 8 for network in ("actor", "phi", "psi")},
    **{f"{network}.residual": "published" for network in ("actor", "phi", "psi")},
    "embedding": 4,
    "rollout.environments": 4,
    "rollout.steps": 10,
    "rollout.replay_steps": 40,
    "learning.gradient_steps": 3,
    "learning.batch": 8,
    "logging.episodes": 8,
    "logging.evaluate_every": 2,
    "logging.checkpoint_every": 2,
    "steps": 160,
}
DISTILL = {
    "episodes": 8,
    "student.policy.width": 8,
    "student.critic.width": 8,
    "collect.environments": 4,
    "steps": 160,
    "collect.steps": 10,
    "learning.gradient_steps": 5,
    "learning.batch": 8,
}
