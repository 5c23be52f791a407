"""The pages that are generated from the code."""

import importlib.util
import sys

import pytest
from pages import ROOT

from distill.cli.json_keys import OUTPUTS
from export.contract import Contract
from teachers.runs.metadata import Metadata


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module.pages()


def test_reference_pages_are_up_to_date(pages) -> None:
    stale = [
        path
        for path, content in pages.items()
        if not (ROOT / path).is_file() or (ROOT / path).read_text(encoding="utf-8") != content
    ]
    assert not stale, f"{', '.join(stale)} do not match the code; run `make reference`"


def test_reference_pages_give_every_key_a_meaning(pages) -> None:
    rows = [row for content in pages.values() for row in content.splitlines() if row[:1] == "|"]
    assert not [row for row in rows if row.endswith("|  |")]


@pytest.mark.parametrize(
    ("source", "model"), [("info RUN", Metadata), ("info FILE.onnx", Contract)]
)
def test_json_keys_of_info_are_those_of_the_model(source, model) -> None:
    keys = next(output.keys for output in OUTPUTS if output.source == source)
    assert {key.removesuffix(".*") for key in keys} == set(model.model_fields)
