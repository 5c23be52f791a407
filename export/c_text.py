"""Text of C sources: numbers, arrays of constants, and comments."""

import numpy as np

NUMBERS_PER_LINE = 6


def array_definition(name: str, values: np.ndarray) -> str:
    """Returns the C definition of a constant array."""
    literals = [float_literal(float(value)) for value in values]
    lines = [
        ", ".join(literals[i : i + NUMBERS_PER_LINE])
        for i in range(0, len(literals), NUMBERS_PER_LINE)
    ]
    content = ",\n    ".join(lines)
    return f"static const float {name}[{len(literals)}] = {{\n    {content}\n}};"


def float_literal(value: float) -> str:
    """Returns a C literal with enough digits to give the same float again."""
    text = f"{np.float32(value):.9g}"
    return f"{text if set('.en') & set(text) else text + '.0'}f"


def escape_comment(text: str) -> str:
    """Returns text on one line that does not end the C comment around it."""
    return " ".join(text.replace("*/", "* /").replace("/*", "/ *").split())
