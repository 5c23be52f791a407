import pytest
from markdown_it import MarkdownIt

from export.card_sections import code_span, escape_markdown, markdown_table


@pytest.mark.parametrize(
    "text",
    [
        "shoulder angle [rad]",
        "joint_velocity_x of __init__ and _x_",
        "a *b* **c** ~~d~~ `e` <b>f</b> &amp; & g|h \\| i\\",
        "[here](https://example.org) ![there](x.png) [one][two] <https://example.org>",
        "# no heading",
    ],
)
def test_escape_markdown_reads_as_the_text(text) -> None:
    table = markdown_table(("field", "unit"), [(escape_markdown(text), "m")])
    tokens = MarkdownIt().enable(["table", "strikethrough"]).parse(table)
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 4
    assert {child.type for child in cells[2].children} == {"text"}
    assert "".join(child.content for child in cells[2].children) == text


def test_escape_markdown_leaves_plain_text_alone() -> None:
    for text in ("joint_velocity", "angle [rad]", "x and y (m/s)", "kg m^2"):
        assert escape_markdown(text) == text
    assert escape_markdown("two\n\n# lines") == "two # lines"


@pytest.mark.parametrize(
    "text", ["arm.py:Arm", "a`b.py:Arm", "``", "`x", "x`", "a``b`c", "*a* <b> &amp; [c](d)", "a|b"]
)
def test_code_span_reads_as_the_text(text) -> None:
    table = markdown_table(("what", "value"), [("file", f"({code_span(text)})")])
    tokens = MarkdownIt().enable("table").parse(table)
    (before, code, after) = [token for token in tokens if token.type == "inline"][3].children
    assert (before.content, code.type, code.content, after.content) == (
        "(",
        "code_inline",
        text,
        ")",
    )
    assert code_span("two\n\n# lines") == "`two # lines`"
