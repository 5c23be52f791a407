"""Evaluates teachers and students."""

from teachers.agent import Agent
from teachers.measures import Outcomes
from teachers.process import in_32_bits
from teachers.runs.progress import Progress, ignore_progress
from teachers.tasks import Disturbances


@in_32_bits
def evaluate_agent(
    agent: Agent,
    episodes: int = 256,
    seed: int = 0,
    progress: Progress = ignore_progress,
    disturbances: Disturbances | None = None,
    *,
    is_sampled: bool = False,
    best_of: int = 1,
) -> Outcomes:
    """Plays the agent's policy with the engine `auto` for whole episodes of its task.

    The compiled programs are kept by `agent.networks`, for later evaluations of any agent with the same networks, but not
    those of the best of several actions.

    Args:
        agent: the teacher or student.
        episodes: number of episodes, which are simulated at once.
        seed: of initial states and goals; the same seed gives any policy the same episodes.
        progress: called as the episodes advance.
        disturbances: what the same episodes are disturbed by.
        is_sampled: whether actions are drawn from the policy, as in a teacher's training, instead of being deterministic.
        best_of: actions that are then drawn in each step, of which the critic chooses the best.

    Returns:
        The outcomes of the episodes; see `teachers.measures.summary`.
    """
    networks = agent.networks
    evaluator = networks.evaluator if best_of == 1 else networks.make_evaluator(best_of)
    return evaluator.evaluate(
        agent.params, episodes, seed, progress, disturbances, is_sampled=is_sampled
    )
