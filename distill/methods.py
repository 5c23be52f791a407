"""Methods of distillation by name: each is a few settings of the configuration."""

from collections.abc import Mapping
from typing import Any

from teachers.runs.errors import InputError

METHODS: Mapping[str, Mapping[str, Any]] = {
    # Plain behaviour cloning: the teacher acts without added noise, and each state is labelled for the goal of its episode alone.
    "bc": {
        "collect.schedule": "teacher",
        "collect.noise": 0.0,
        "collect.hindsight_share": 0.0,
        "collect.goals_per_state": 1,
    },
    # Behaviour cloning with what the default adds to it: noise on actions, hindsight goals, two goals for each state.
    "bc-augmented": {"collect.schedule": "teacher"},
    # The default: the student acts in more and more environments, and the teacher labels the states that it visits (Ross et
    # al., arXiv 1011.0686).
    "dagger": {},
    "dagger-kl": {"policy.loss": "kl"},
    "dagger-reverse-kl": {"policy.loss": "reverse_kl"},
    # In the last gradient steps the student also maximises the teacher's value of its actions.
    "dagger-value": {"policy.value_weight": 0.03},
    # The label is not the teacher's own action but a better one by its critic, found among draws from its policy.
    "dagger-improved": {"label.actions": 32},
}


def method_settings(name: str) -> Mapping[str, Any]:
    """Returns the settings of a method, by dotted key.

    Raises:
        InputError: there is no method of this name.
    """
    if name not in METHODS:
        raise InputError(f"there is no method {name!r}; choose one of {', '.join(METHODS)}")
    return METHODS[name]
