"""The results of a comparison, made up, for the tests of its figures and tables."""


def row(retention: float, **more) -> dict:
    names = ("retention", "time_at_goal", "success_at_end")
    figures = dict.fromkeys(names, retention)
    intervals = {f"{name}_ci95": (retention - 0.02, retention + 0.01) for name in names}
    return figures | intervals | more


RESULT = {
    "teacher": row(0.9, task="reacher", depth=64, width=64, latency_us=400.0, parameters=270_000),
    "episodes": 1024,
    "students": [
        row(0.95, layers=2, width=16, latency_us=7.0, parameters=500),
        row(0.99, layers=2, width=64, latency_us=8.0, parameters=5_124),
        row(0.98, layers=2, width=256, latency_us=14.0, parameters=70_000),
    ],
    "distilled": row(0.99, seeds=2, retention_by_seed=[0.985, 0.995]),
    "methods": [
        row(0.97, method=name, steps=9_600, seconds=4.0, seeds=2, retention_by_seed=[0.96, 0.98])
        for name in ("bc-augmented", "dagger")
    ],
    "critic": {"spearman": 0.97, "spearman_within_goal": 0.96, "auroc": None},
    "critics": [{"loss": "logits", "spearman": 0.7}],
    "from_scratch": row(0.6, layers=2, width=64, steps=400_000),
    "cost": {"steps_share": 0.08, "seconds_share": None},
    "robustness": [
        {"condition": name}
        | {f"{who}{end}": value for who in ("teacher", "student", "randomized")
           for end, value in (("", 0.8), ("_ci95", (0.7, 0.9)))}
        for name in ("clean", "delay 2")
    ],
}  # fmt: skip
