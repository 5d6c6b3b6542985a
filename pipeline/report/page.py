"""Writes a report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

from collections import Counter
from html import escape
from importlib.resources import files

from pipeline.report.figures import Report
from pipeline.report.handling_sections import stage_name
from pipeline.report.plots import HALF, WIDE, bars_plot, columns_plot, rates_plot
from pipeline.report.section import Section, duration, instant, percent, percent_bounds
from pipeline.report.sections import empty_sentence, is_empty, sections, title

_LEGEND = (
    '<p class="legend"><span class="key main"></span>answered <span class="key rest"></span>not answered</p>'
)
_FOLDED = frozenset(
    {"funnel", "days", "hours", "end_triggers"}
)  # the plot says it; the table is there for who wants figures


def render_html(report: Report) -> str:
    """The whole page. Every plot's figures are in a table beside it."""
    style = files("pipeline.report").joinpath("style.css").read_text(encoding="utf-8")
    heading = escape(title(report))
    body = f'<p class="empty">{escape(empty_sentence(report))}</p>' if is_empty(report) else _tiles(report)
    parts = "".join(_section(section, report) for section in sections(report))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{heading}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{heading}</h1>
<p>{_subtitle(report)}</p>
</header>
<main>
{body}
<div class="sections">
{parts}</div>
</main>
<footer><p>Counted are completed root calls by the UTC date of their start; legs of a call are not.</p></footer>
</body>
</html>
"""


def _subtitle(report: Report) -> str:
    span = "Whole lake" if report.label == "all" else f"{report.first} to {report.last}, days in UTC"
    return f"{span} · made {instant(report.made_at)}"


def _tiles(report: Report) -> str:
    total = report.total
    tiles = (
        ("Calls", f"{total.calls:,}", f"{total.answer_rate.numerator:,} answered"),
        ("Answer rate", percent(total.answer_rate), percent_bounds(total.answer_rate)),
        ("ASR", percent(total.asr), f"of {total.asr.denominator:,} seizures"),
        ("NER", percent(total.ner), percent_bounds(total.ner)),
        ("Failed", f"{total.failed_calls:,}", f"{100 * total.failed_calls / total.calls:.1f} % of calls"),
        ("Median talk", duration(total.talk_p50), f"{duration(total.talk_seconds_total)} in all"),
    )
    return (
        '<dl class="tiles">'
        + "".join(
            f'<div><dt>{escape(name)}</dt><dd class="big">{escape(figure)}</dd><dd>{escape(more)}</dd></div>'
            for name, figure, more in tiles
        )
        + "</dl>"
    )


def _section(section: Section, report: Report) -> str:
    plot = _plot(section, report)
    table = _table(section) if section.rows else ""
    if plot and section.key in _FOLDED:
        table = f"<details><summary>Figures</summary>{table}</details>"
    # Without the days before beside it, the funnel has its row for itself.
    is_wide = len(section.header) > 4 or (section.key == "funnel" and report.before is None)
    wide = " wide" if is_wide else ""
    return (
        f'<section class="{section.key}{wide}"><h2>{escape(section.title)}</h2>'
        f'<p class="note">{escape(section.note)}</p><div class="content"><div>{plot}</div>{table}</div></section>\n'
    )


def _plot(section: Section, report: Report) -> str:
    if section.key == "providers":
        return rates_plot("Answer rate by provider with 95 % intervals", (*report.providers, report.total))
    if section.key in ("days", "hours"):
        volumes = report.days if section.key == "days" else report.hours
        return _LEGEND + columns_plot(section.title, volumes, stacked=True)
    if section.key == "funnel":
        stages = [
            (stage_name(each.labels[0]), each.ratio.numerator, each.ratio.value or 0)
            for each in report.funnel
        ]
        return bars_plot(section.title, stages, HALF if report.before is not None else WIDE)
    if section.key == "end_triggers" and report.end_triggers:
        return bars_plot(
            section.title,
            [
                (share.labels[0], share.ratio.numerator, share.ratio.value or 0)
                for share in report.end_triggers
            ],
        )
    if section.key == "failures" and report.failures:
        counts: Counter[str] = Counter()
        for share in report.failures:
            counts[share.labels[1]] += share.ratio.numerator
        return bars_plot(
            "Failed calls by outcome",
            [(outcome, calls, calls / report.total.calls) for outcome, calls in counts.most_common()],
        )
    if section.key == "talk_times" and report.talk_times:
        return columns_plot("Answered calls by talk time", report.talk_times, stacked=False, across=WIDE)
    return ""


def _table(section: Section) -> str:
    def cells(row: tuple[str, ...], tag: str) -> str:
        return "".join(
            f"<{tag}{'' if place < section.words else ' class=n'}>{escape(text)}</{tag}>"
            for place, text in enumerate(row)
        )

    head = f"<thead><tr>{cells(section.header, 'th')}</tr></thead>" if any(section.header) else ""
    rows = "".join(
        f"<tr{' class=total' if row[0] == 'all' else ''}>{cells(row, 'td')}</tr>" for row in section.rows
    )
    return f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>'
