"""A picture of a run's learning curve."""

from etils import epath

from teachers.runs.outputs import local_draft
from teachers.runs.run_log import read_metrics


def plot_learning_curve(run: epath.PathLike, file: epath.PathLike) -> None:
    """Draws a run's success and time at goal against control steps, with 95% intervals.

    Args:
        run: a run's folder with `metrics.jsonl`.
        file: the image to write, such as `curve.png`.
    """
    from matplotlib.figure import Figure  # imported here because it takes a second

    rows = read_metrics(run)
    evaluated = [row for row in rows if "success_at_end" in row]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    goal, critic = figure.subplots(1, 2)
    steps = [row["step"] for row in evaluated]
    for name, label in (("success_at_end", "success at end"), ("time_at_goal", "time at goal")):
        (line,) = goal.plot(steps, [row[name] for row in evaluated], marker="o", label=label)
        lower, upper = zip(*(row[f"{name}_ci95"] for row in evaluated), strict=True)
        goal.fill_between(steps, lower, upper, alpha=0.2, color=line.get_color())
    goal.set(xlabel="control steps", ylim=(0, 1.02), title="evaluation, 95% intervals")
    goal.legend()
    critic.plot([row["step"] for row in rows], [row["contrastive_accuracy"] for row in rows])
    critic.set(xlabel="control steps", ylim=(0, None), title="contrastive accuracy in a batch")
    for axes in (goal, critic):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:,.0f}k")
    with local_draft(file) as draft:
        figure.savefig(draft, dpi=110)
