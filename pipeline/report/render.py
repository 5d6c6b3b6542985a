"""Writes a report in any of its forms: HTML and Markdown for people, CSV and JSON for programs."""

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from io import StringIO
from typing import Any, Final, Literal

from pipeline.errors import UserError
from pipeline.report.figures import Ratio, Report
from pipeline.report.page import render_html
from pipeline.report.section import Section, instant
from pipeline.report.sections import empty_sentence, is_empty, sections, title

ReportFormat = Literal["html", "md", "csv", "json"]


def render(report: Report, format: str) -> str:  # noqa: A002
    """The report as text in `format`. Raises UserError for a format that is none."""
    try:
        return _RENDERERS[format](report)
    except KeyError:
        raise UserError(f"unknown report format {format!r}: one of {', '.join(_RENDERERS)}") from None


def render_markdown(report: Report) -> str:
    """Headings and tables; no plots."""
    lines = [f"# {title(report)}", "", f"Made {instant(report.made_at)}. Days are in UTC.", ""]
    if is_empty(report):
        lines += [empty_sentence(report), ""]
    for section in sections(report):
        lines += [f"## {section.title}", "", section.note, "", *_markdown_table(section)]
    return "\n".join(lines).rstrip() + "\n"


def render_json(report: Report) -> str:
    """One object with every figure; ratios with numerator, denominator, value and 95 % bounds."""
    return json.dumps(_plain(report), ensure_ascii=False, indent=2) + "\n"


def render_csv(report: Report) -> str:
    """One row per figure: `section`, `label`, `metric`, `value`, and for a ratio what it was made of."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("section", "label", "metric", "value", "numerator", "denominator", "low", "high"))
    writer.writerows(_figures(report))
    return stream.getvalue()


_RENDERERS: Final[dict[str, Callable[[Report], str]]] = {
    "html": render_html,
    "md": render_markdown,
    "csv": render_csv,
    "json": render_json,
}


def _markdown_table(section: Section) -> list[str]:
    if not section.rows:
        return []
    rule = ["---" if place < section.words else "---:" for place in range(len(section.header))]
    rows = [section.header, tuple(rule), *section.rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows] + [""]


def _plain(value: Any) -> Any:
    if isinstance(value, Ratio):
        low, high = value.bounds or (None, None)
        return {
            "numerator": value.numerator,
            "denominator": value.denominator,
            "value": value.value,
            "low": low,
            "high": high,
        }
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    return value.isoformat() if isinstance(value, date) else value


def _figures(report: Report) -> Iterator[tuple[Any, ...]]:
    yield from _row("report", "", "label", report.label)
    yield from _row("report", "", "first", _plain(report.first))
    yield from _row("report", "", "last", _plain(report.last))
    yield from _row("report", "", "made_at", _plain(report.made_at))
    for outcomes in (report.total, *report.providers):
        for field in fields(outcomes):
            if field.name != "name":
                yield from _row("outcomes", outcomes.name, field.name, getattr(outcomes, field.name))
    for name, volumes in (("days", report.days), ("hours", report.hours), ("talk_times", report.talk_times)):
        for volume in volumes:
            yield from _row(name, volume.label, "calls", volume.calls)
            if name != "talk_times":
                yield from _row(name, volume.label, "answer_rate", Ratio(volume.answered, volume.calls))
    for name, shares in (("end_triggers", report.end_triggers), ("failures", report.failures)):
        for share in shares:
            yield from _row(name, "/".join(share.labels), "share", share.ratio)
    for field in fields(report.quality):
        yield from _row("quality", "", field.name, _plain(getattr(report.quality, field.name)))
    yield from _handling_figures(report)
    yield from _row("checks", "", "run", report.checks_run)
    for check in report.checks:
        yield from _row("checks", check.name, "severity", check.severity)
        yield from _row("checks", check.name, "rows", check.rows)
        yield from _row("checks", check.name, "examples", " ".join(check.examples))


def _handling_figures(report: Report) -> Iterator[tuple[Any, ...]]:
    if report.before is not None:
        for field in fields(report.before):
            yield from _row("before", "", field.name, _of_before(getattr(report.before, field.name)))
    for share in report.funnel:
        yield from _row("funnel", share.labels[0], "share", share.ratio)
    for speed in report.speeds:
        for level in speed.levels:
            yield from _row("speeds", speed.name, f"within_{level.within_seconds}_s", level.service_level)
    for each in report.handling:
        for field in fields(each):
            if field.name != "name":
                yield from _row("handling", each.name, field.name, getattr(each, field.name))
        yield from _row("handling", each.name, "cost_per_answered_call", each.cost_per_answered_call)
    for agent in report.agents:
        for field in fields(agent):
            if field.name not in ("provider", "agent_id"):
                label = f"{agent.provider}/{agent.agent_id}"
                yield from _row("agents", label, field.name, getattr(agent, field.name))


def _of_before(value: Any) -> Any:
    return value if isinstance(value, Ratio) else _plain(value)


def _row(section: str, label: str, metric: str, value: Any) -> Iterator[tuple[Any, ...]]:
    if not isinstance(value, Ratio):
        yield section, label, metric, value, None, None, None, None
        return
    low, high = value.bounds or (None, None)
    yield section, label, metric, value.value, value.numerator, value.denominator, low, high
