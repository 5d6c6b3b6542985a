"""Draws a report's plots as SVG text: no library, no script, colours from the page's style sheet."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

from pipeline.report.figures import Outcomes, Volume

WIDE: Final = 720
HALF: Final = 540
"""Widths of a plot in the units of its letters, so that letters are of one size beside and across."""
_LEFT: Final = 44
_COLUMNS_HEIGHT: Final = 230
_ROW: Final = 30
_WIDEST_BAR: Final = 64


def columns_plot(label: str, volumes: Sequence[Volume], *, stacked: bool, across: int = HALF) -> str:
    """Upright bars of calls; `stacked` tells answered calls from the others by colour."""
    top, bottom = 14, _COLUMNS_HEIGHT - 30
    step = tick_step(max(volume.calls for volume in volumes))
    ceiling = max(1, ceil(max(volume.calls for volume in volumes) / step)) * step
    scale = (bottom - top) / ceiling
    shapes = [_level(bottom - tick * scale, f"{tick:,}", across) for tick in range(0, ceiling + 1, step)]
    slot = (across - _LEFT - 8) / len(volumes)
    every = ceil(len(volumes) * 44 / (across - _LEFT))
    for place, volume in enumerate(volumes):
        width = min(slot * 0.72, _WIDEST_BAR)
        x = _LEFT + (place + 0.5) * slot - width / 2
        high, filled = volume.calls * scale, (volume.answered if stacked else volume.calls) * scale
        parts = [
            _rect(x, bottom - high, width, high - filled, "rest"),
            _rect(x, bottom - filled, width, filled, "main"),
        ]
        told = f"{volume.label}: {volume.calls:,} calls" + (
            f", {volume.answered:,} answered" if stacked else ""
        )
        shapes.append(f"<g><title>{escape(told)}</title>{''.join(parts)}</g>")
        if place % every == 0:
            shapes.append(_text(x + width / 2, bottom + 20, _short(volume.label), "middle"))
    return _svg(label, across, _COLUMNS_HEIGHT, shapes)


def rates_plot(label: str, outcomes: Sequence[Outcomes]) -> str:
    """A dot per provider at its answer rate, on the bar of its 95 % interval."""
    height, left = 34 + _ROW * len(outcomes), 124
    scale = (WIDE - left - 76) / 100
    shapes = [
        f'<line class="grid" x1="{left + tick * scale:.1f}" y1="6" x2="{left + tick * scale:.1f}" y2="{height - 24}"/>'
        + _text(left + tick * scale, height - 8, f"{tick} %", "middle")
        for tick in range(0, 101, 20)
    ]
    for place, each in enumerate(outcomes):
        y, rate = 6 + _ROW * (place + 0.5), each.answer_rate
        shapes.append(_text(left - 12, y + 4, each.name, "end", "name"))
        if rate.value is None or rate.bounds is None:
            continue
        low, high, value = (100 * part for part in (*rate.bounds, rate.value))
        told = f"{each.name}: {value:.1f} %, 95 % interval {low:.1f} to {high:.1f} %"
        shapes.append(
            f"<g><title>{escape(told)}</title>"
            f'<rect class="range" x="{left + low * scale:.1f}" y="{y - 5:.1f}" '
            f'width="{(high - low) * scale:.1f}" height="10" rx="5"/>'
            f'<circle class="main" cx="{left + value * scale:.1f}" cy="{y:.1f}" r="5.5"/></g>'
            + _text(WIDE - 4, y + 4, f"{value:.1f} %", "end", "value")
        )
    return _svg(label, WIDE, height, shapes)


def bars_plot(label: str, bars: Sequence[tuple[str, int, float]], across: int = HALF) -> str:
    """Lying bars: a name, a count, and the share of the whole, 0 to 1, which is written beside it."""
    left = 132
    longest = max(count for _, count, _ in bars)
    scale = (across - left - 130) / max(1, longest)
    shapes = []
    for place, (name, count, share) in enumerate(bars):
        y = 4 + _ROW * place
        shapes.append(_text(left - 12, y + 19, name, "end", "name"))
        shapes.append(_rect(left, y + 5, max(1.0, count * scale), _ROW - 10, "main"))
        shapes.append(
            _text(left + count * scale + 8, y + 19, f"{count:,} · {100 * share:.1f} %", "start", "value")
        )
    return _svg(label, across, 8 + _ROW * len(bars), shapes)


def tick_step(highest: int) -> int:
    """The distance of some four to six round ticks up to `highest`."""
    rough = max(1.0, highest / 5)
    power = 10 ** floor(log10(rough))
    return int(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough))


def _short(label: str) -> str:
    """A date without its year: the heading has it."""
    return label[5:] if len(label) == len("2026-03-05") and label[4] == "-" else label


def _level(y: float, text: str, across: int) -> str:
    line = f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{across - 4}" y2="{y:.1f}"/>'
    return line + _text(_LEFT - 8, y + 4, text, "end")


def _rect(x: float, y: float, width: float, height: float, style: str) -> str:
    if height <= 0:
        return ""
    return (
        f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="1.5"/>'
    )


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(label: str, across: int, height: float, shapes: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {across} {height:.0f}" role="img" aria-label="{escape(label, quote=True)}">'
        + "".join(shapes)
        + "</svg>"
    )
