"""Named ways to teach a policy: each is a handful of settings, and nothing but settings."""

from collections.abc import Mapping
from typing import Any

from teachers.runs.errors import InputError

METHODS: Mapping[str, Mapping[str, Any]] = {
    # Plain behaviour cloning: the teacher acts without added noise, each state is labelled for its own goal alone.
    "bc": {
        "collect.schedule": "teacher",
        "collect.noise": 0.0,
        "collect.hindsight_share": 0.0,
        "collect.goals_per_state": 1,
    },
    # Behaviour cloning with what the default adds to it: noise on actions, hindsight goals, two goals for each state.
    "bc-augmented": {"collect.schedule": "teacher"},
    # The default: the student drives more and more, the teacher says what it would have done (Ross et al., arXiv
    # 1011.0686).
    "dagger": {},
    "dagger-kl": {"policy.loss": "kl"},
    "dagger-reverse-kl": {"policy.loss": "reverse_kl"},
    # In the end the teacher's critic says, too, what the student's own action is worth.
    "dagger-value": {"policy.value_weight": 0.03},
}


def method_settings(name: str) -> Mapping[str, Any]:
    """The settings of a method, by dotted key.

    Raises:
        InputError: no method is called so.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
