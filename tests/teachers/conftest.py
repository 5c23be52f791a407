"""Fixtures for the tests of runs and training."""

import gc

import pytest


@pytest.fixture
def frozen_heap():
    """Keeps the garbage collector from searching all older objects, which takes a second for each damaged read."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
