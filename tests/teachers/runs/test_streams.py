import sys
from collections import defaultdict
from functools import partial

import jax
import numpy as np
import pytest
from tiny import DISTILL, TEACHER

from distill import distill_config
from distill.iteration import make_stages
from students import student_networks
from teachers import teacher_config
from teachers.crl.networks import teacher_networks
from teachers.crl.training_programs import TrainingPrograms
from teachers.runs.streams import Stream, stream_key
from teachers.simulation.rollout import evaluation_starts
from teachers.tasks import Disturbances

SEEDS, ITERATIONS, EPISODES = (0, 1), 2, 5
# It draws the disturbances of the very episodes that `reset` starts.
SAME_AS_RESET = "teachers.simulation.rollout:_draw_disturbances"


@pytest.fixture
def derived_keys(monkeypatch):
    """Records every key that `jax.random.split` and `fold_in` return, also in compiled programs, by the function that asks."""
    found = defaultdict(list)

    def record(function):
        def derive(key, *args, **kwargs):
            keys = function(key, *args, **kwargs)
            frame = sys._getframe(1)
            while frame.f_globals["__name__"].startswith((stream_key.__module__, "jaxtyping.")):
                frame = frame.f_back
            site = f"{frame.f_globals['__name__']}:{frame.f_code.co_name}"
            jax.debug.callback(partial(add, site), jax.random.key_data(keys))
            return keys

        return derive

    def add(site, data):
        found[site] += [row.tobytes() for row in np.asarray(data).reshape(-1, data.shape[-1])]

    for name in ("split", "fold_in"):
        monkeypatch.setattr(jax.random, name, record(getattr(jax.random, name)))
    return found


def run_everything(seed, programs, stages, teacher_params):
    """Trains, diagnoses and evaluates with one seed, and distills with the same."""
    state = programs.init(np.uint32(seed))
    for _ in range(ITERATIONS):
        state, _ = programs.iterate(state)
        programs.diagnose(state)
    evaluator = programs.evaluator
    starts = evaluation_starts(evaluator.task, EPISODES, seed, Disturbances(noise=0.1))
    segments = evaluator.play(state.learner.params, starts, np.full(EPISODES, False), seed)
    assert len(list(segments)) > 1
    init, collect, label, (learn,) = stages
    distilled = init(jax.random.key(seed))
    for _ in range(ITERATIONS):
        distilled, visited, _ = collect(distilled, teacher_params)
        distilled = label(distilled, teacher_params, visited)
        distilled, _ = learn(distilled, teacher_params)
    jax.block_until_ready(distilled)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_streams_of_a_run_never_share_a_key(derived_keys, monkeypatch) -> None:
    config = teacher_config("reacher", overrides={**TEACHER, "rollout.environments": 5})
    networks = teacher_networks(config)
    programs = TrainingPrograms(config, networks)
    # Two segments, and sensors that draw noise.
    monkeypatch.setattr(programs.evaluator, "_segment_steps", networks.task.episode_steps // 2)
    settings = distill_config(
        overrides={
            **DISTILL,
            "collect.disturbances.noise": 0.1,
            "collect.goals_per_state": 3,
            "collect.environments": 5,
        }
    )
    student = student_networks(networks.task, settings.student, 4)
    stages = make_stages(settings, networks, student)
    stages = stages._replace(
        **{name: jax.jit(getattr(stages, name)) for name in ("init", "collect", "label")},
        learn=tuple(map(jax.jit, stages.learn)),
    )
    teacher_params = jax.jit(networks.init)(jax.random.key(7))
    for seed in SEEDS:
        run_everything(seed, programs, stages, teacher_params)
    jax.effects_barrier()

    modules = (
        "crl.iteration",
        "crl.diagnosis",
        "crl.evaluator",
        "simulation.rollout",
        "tasks.base",
    )
    expected = {f"teachers.{module}" for module in modules}
    expected |= {f"distill.{stage}" for stage in ("iteration", "collect", "label", "learn")}
    assert expected <= {site.partition(":")[0] for site in derived_keys}
    derived_keys.pop(SAME_AS_RESET)
    owners = defaultdict(list)
    for site, keys in derived_keys.items():
        for key in keys:
            owners[key].append(site)
    shared = {tuple(sorted(names)) for names in owners.values() if len(names) > 1}
    assert not shared
    assert len(owners) > 1000


def test_stream_key_is_none_of_the_parts_of_a_key() -> None:
    key = jax.random.key(0)
    streams = [stream_key(key, stream) for stream in Stream]
    parts = jax.random.split(key, 10_000)
    data = np.concatenate([jax.random.key_data(parts), [jax.random.key_data(k) for k in streams]])
    assert len(np.unique(data, axis=0)) == len(data)
    assert min(Stream) >= 2**31  # more than any array has elements to which a key is split
