"""Figures and tables as Markdown."""

from collections.abc import Iterable
from typing import Any


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    marks = ("---", *("---:" for _ in head[1:]))
    return ["| " + " | ".join(cells) + " |" for cells in (head, marks, *rows)] + [""]


def number(value: Any, digits: int = 0) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"
