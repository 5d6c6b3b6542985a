"""Shows rows on a terminal: as a box, or one record under the other where the terminal is too narrow."""

import json
import re
from collections.abc import Sequence
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

ROW_LIMIT: Final = 10_000
"""More rows than anyone reads; a box needs all of them in memory to find its widths."""
NARROWEST: Final = 8
"""A column squeezed to fewer characters than this cannot be read any more."""
_UNBOUNDED: Final = 100_000
_IDLE_DIGITS: Final = re.compile(r"(?<=:\d\d)(?:\.0+|(\.\d*?[1-9])0*)Z$")


def print_table(console: Console, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints the rows. Off a terminal nothing is cut or wrapped: the box is as wide as its content."""
    if not console.is_terminal:
        console.width = _UNBOUNDED
    texts = [[cell_text(value) for value in row] for row in rows]
    if _fits(console, names, texts):
        console.print(_box(names, rows, texts))
    else:
        _print_records(console, names, texts)


def cell_text(value: Any) -> str:
    """One plain value as a cell: NULL is empty, instants lose the microseconds they do not have."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.3f}"
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return _IDLE_DIGITS.sub(r"\1Z", str(value))


def _fits(console: Console, names: Sequence[str], texts: Sequence[Sequence[str]]) -> bool:
    widths = [min(NARROWEST, len(name)) for name in names]
    for row in texts:
        widths = [max(width, min(NARROWEST, len(text))) for width, text in zip(widths, row, strict=True)]
    return sum(widths) + 3 * len(widths) + 1 <= console.width


def _box(names: Sequence[str], rows: Sequence[Sequence[Any]], texts: Sequence[Sequence[str]]) -> Table:
    table = Table(box=box.ROUNDED, header_style="bold")
    for place, name in enumerate(names):
        numeric = any(_is_number(row[place]) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in texts:
        table.add_row(*(Text(text) for text in row))
    return table


def _print_records(console: Console, names: Sequence[str], texts: Sequence[Sequence[str]]) -> None:
    for number, row in enumerate(texts, start=1):
        console.rule(Text(f"row {number}"), align="left", characters="─", style="dim")
        record = Table(box=None, show_header=False, pad_edge=False)
        record.add_column(style="bold", no_wrap=True)
        record.add_column(overflow="fold")
        for name, text in zip(names, row, strict=True):
            record.add_row(Text(name), Text(text))
        console.print(record)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
