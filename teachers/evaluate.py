"""Evaluates teachers and students without exploration noise."""

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
) -> Outcomes:
    """Plays the agent's policy with the engine `auto`, without exploration noise, for whole episodes of its task.

    The compiled programs are kept by `agent.networks`, for later evaluations of any agent with the same networks.

    Args:
        agent: the teacher or student.
        episodes: number of episodes, which are simulated at once.
        seed: of initial states and goals; the same seed gives any policy the same episodes.
        progress: called as the episodes advance.
        disturbances: what the same episodes are disturbed by.

    Returns:
        The outcomes of the episodes; see `teachers.measures.summary`.
    """
    return agent.networks.evaluator.evaluate(agent.params, episodes, seed, progress, disturbances)
