"""Links between docs/ and the rest of the repository, as the site gets them."""

import importlib.util
import logging
from types import SimpleNamespace

import pytest
from pages import ROOT

pytest.importorskip("mkdocs", reason="needs mkdocs: pip install 'crl-distill[docs]'")

SPEC = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
assert SPEC is not None
assert SPEC.loader is not None
hooks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hooks)


def rewritten(place: str, markdown: str) -> str:
    page = SimpleNamespace(file=SimpleNamespace(src_uri=place))
    return hooks.on_page_markdown(markdown, page, config=None, files=None)


@pytest.mark.parametrize(
    ("place", "markdown", "expected"),
    [
        ("index.md", "[a](docs/concepts.md)", "[a](concepts.md)"),
        ("concepts.md", "[a](../README.md#help)", "[a](index.md#help)"),
        ("concepts.md", "[a](../export/runtime.py)", "[a](export/runtime.py)"),
        ("reference/json.md", "[a](../tasks.md)", "[a](../tasks.md)"),
        ("benchmarks/RESULTS.md", "[a](notes/claim.md)", "[a](notes/claim.md)"),
        ("benchmarks/RESULTS.md", "[a](data/)", "a"),
        ("tasks.md", '<img src="../README.md">', '<img src="index.md">'),
        (
            "tasks.md",
            "[a](https://example.org/x) [b](#here)",
            "[a](https://example.org/x) [b](#here)",
        ),
        ("tasks.md", "```sh\n[a](nothing.md)\n```\n", "```sh\n[a](nothing.md)\n```\n"),
    ],
)
def test_on_page_markdown_points_links_into_the_site(place, markdown, expected) -> None:
    assert rewritten(place, markdown) == expected


def test_on_page_markdown_warns_of_a_file_that_does_not_exist(caplog) -> None:
    with caplog.at_level(logging.WARNING, "mkdocs.hooks"):
        rewritten("tasks.md", '<img src="../benchmarks/media/nothing.png">')
    assert "docs/tasks.md links to ../benchmarks/media/nothing.png" in caplog.text
