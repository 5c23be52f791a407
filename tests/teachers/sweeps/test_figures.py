import imageio.v3 as imageio

from teachers.sweeps.figures import plot_sweep


def test_plot_sweep_draws_actor_against_critic(tmp_path) -> None:
    row = {"task": "reacher", "cell": "x", "varied": {}, "batch": 8, "parameters": 1}
    rows = [
        {
            **row,
            "actor_depth": a,
            "critic_depth": c,
            "time_at_goal": 0.1,
            "time_at_goal_ci95": (0, 0.2),
        }
        for a in (4, 8)
        for c in (4, 8)
    ]
    for figure in ("actor_critic", "batch"):
        plot_sweep(rows, figure, tmp_path / f"{figure}.png")
        assert imageio.imread(tmp_path / f"{figure}.png").std() > 5
