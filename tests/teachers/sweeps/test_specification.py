import pytest
from pydantic import ValidationError
from tiny import TEACHER

from teachers import InputError
from teachers.sweeps.specification import (
    SweepSpec,
    expand_cells,
    read_spec,
    shipped_specifications,
)


def make_spec(**fields) -> SweepSpec:
    return SweepSpec(**{"task": "reacher", "settings": TEACHER, "seeds": 2, **fields})


def test_expand_cells_combines_the_grid_and_adds_cells() -> None:
    cells = expand_cells(
        make_spec(
            grid={"depth": [4, 8], "learning": {"batch": [8, 16]}},
            cells=[{"actor.depth": 4, "critic": {"depth": 12}}],
        )
    )
    assert [cell.name for cell in cells] == [
        "depth=4,learning.batch=8",
        "depth=4,learning.batch=16",
        "depth=8,learning.batch=8",
        "depth=8,learning.batch=16",
        "actor.depth=4,critic.depth=12",
    ]
    first, last = cells[0].config, cells[-1].config
    assert (first.actor.depth, first.phi.depth, first.psi.depth) == (4, 4, 4)
    assert (last.actor.depth, last.phi.depth, last.psi.depth) == (4, 12, 12)
    assert last.learning.batch == TEACHER["learning.batch"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"grid": {"dept": [4]}}, "unknown key 'dept' in the experiment"),
        ({"grid": {"depth": [5]}}, "depth must be a multiple of 4"),
        ({"task": "reachr"}, "reachr"),
        ({"settings": {"learning.batsch": 3}}, "did you mean 'learning.batch'"),
        ({"cells": [{"depth": 4}, {"depth": 4}]}, "cells 'depth=4' and 'depth=4' are the same"),
        ({"preset": "papr"}, "unknown preset"),
    ],
)
def test_expand_cells_refuses_invalid_settings(fields, words) -> None:
    with pytest.raises(InputError, match=words):
        expand_cells(make_spec(**fields))


def test_sweep_spec_refuses_zero_seeds() -> None:
    with pytest.raises(ValidationError):
        make_spec(seeds=0)


@pytest.mark.parametrize("name", shipped_specifications())
def test_shipped_specifications_have_valid_cells(name) -> None:
    title, experiment = read_spec(name)
    assert title == name.replace("/", "-")
    assert len(expand_cells(experiment)) > 1
    assert experiment.seeds >= 3
    assert experiment.about


def test_read_spec_refuses_missing_file_and_names_shipped_ones() -> None:
    with pytest.raises(InputError, match="cpu/depth"):
        read_spec("nowhere.toml")


def test_expand_cells_names_files_of_tasks_without_their_folder(
    tmp_path, no_known_task_files
) -> None:
    text = "from teachers.tasks.reacher import Reacher\n\nclass Mine(Reacher):\n    name = '{}'\n"
    files = [tmp_path / folder / f"{name}.py" for folder, name in ("ab", "ac", "bb")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text.format(file.stem))
    tasks = [f"{file}:Mine" for file in files]
    spec = make_spec(
        task=tasks[0], grid={"task": tasks[:2]}, cells=[{"task": tasks[0], "depth": 4}]
    )
    cells = expand_cells(spec)
    assert [cell.name for cell in cells] == [
        "task=b.py:Mine",
        "task=c.py:Mine",
        "task=b.py:Mine,depth=4",
    ]
    assert [cell.config.task for cell in cells] == [tasks[0], tasks[1], tasks[0]]
    assert cells[1].varied == {"task": "c.py:Mine"}
    assert str(tmp_path) not in spec.model_dump_json()
    with pytest.raises(InputError, match=r"two cells have the same name, 'task=b.py:Mine'"):
        expand_cells(make_spec(grid={"task": [tasks[0], tasks[2]]}))
