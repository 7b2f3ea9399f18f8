"""Lines and tables on standard output."""

from __future__ import annotations

from rich.console import Console, RenderableType
from rich.text import Text

# For a pipe, where a line that was cut would be lost: wider than any table here.
PIPE_WIDTH = 250


def print_parts(*parts: RenderableType) -> None:
    """Print sentences unbroken, and tables as wide as the terminal allows. NO_COLOR is heeded."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))
