"""A report as headed tables of text, the same for every form of it that people read."""

from typing import Final

from pipeline.report.figures import Outcomes, Ratio, Report
from pipeline.report.handling_sections import agents, before, funnel, handling, speeds
from pipeline.report.section import NOTHING, Section, duration, instant, percent, percent_bounds

MOST_REASONS: Final = 20


def is_empty(report: Report) -> bool:
    """Whether no call started in the period."""
    return report.total.calls == 0


def title(report: Report) -> str:
    """The heading of the whole report."""
    return "Call outcomes, " + ("all dates" if report.label == "all" else report.label.replace("..", " to "))


def empty_sentence(report: Report) -> str:
    """What a report without calls says instead of figures."""
    span = "this lake" if report.label == "all" else f"the period {report.first} to {report.last} (UTC)"
    return f"No completed calls in {span}."


def sections(report: Report) -> list[Section]:
    """All sections, in the order in which they are read; those about calls are left out where there are none."""
    about_calls = [] if is_empty(report) else [
        _providers(report),
        *before(report),
        funnel(report),
        _days(report),
        _hours(report),
        _end_triggers(report),
        _quality(report),
        _failures(report),
        *speeds(report),
        *handling(report),
        _talk_times(report),
        *agents(report),
    ]  # fmt: skip
    return [*(about_calls or [_quality(report)]), _checks(report)]


def _providers(report: Report) -> Section:
    return Section(
        "providers",
        "Outcomes by provider",
        "Answer rate: answered of all calls. ASR: answered of calls that reached the network (seizures). "
        "NER: answered, busy, not answered or rejected, of the same. Ranges are Wilson 95 % intervals.",
        (
            "Provider",
            "Calls",
            "Answered",
            "Answer rate",
            "95 % interval",
            "Seizures",
            "ASR",
            "NER",
            "Completed",
            "Forwarded",
            "Failed",
        ),
        tuple(_provider(outcomes) for outcomes in (*report.providers, report.total)),
    )


def _provider(outcomes: Outcomes) -> tuple[str, ...]:
    return (
        outcomes.name,
        f"{outcomes.calls:,}",
        f"{outcomes.answer_rate.numerator:,}",
        percent(outcomes.answer_rate),
        percent_bounds(outcomes.answer_rate),
        f"{outcomes.asr.denominator:,}",
        percent(outcomes.asr),
        percent(outcomes.ner),
        f"{outcomes.completed:,}",
        f"{outcomes.forwarded:,}",
        f"{outcomes.failed_calls:,}",
    )


def _volumes(key: str, name: str, heading: str, report: Report) -> Section:
    volumes = report.days if key == "days" else report.hours
    rows = tuple(
        (each.label, f"{each.calls:,}", f"{each.answered:,}", percent(Ratio(each.answered, each.calls)))
        for each in volumes
    )
    note = "Calls by the UTC time of their start."
    return Section(key, heading, note, (name, "Calls", "Answered", "Answer rate"), rows)


def _days(report: Report) -> Section:
    by_month = bool(report.days) and len(report.days[0].label) == len("2026-03")
    name = "Month" if by_month else "Day"
    return _volumes("days", name, f"Calls per {name.lower()}", report)


def _hours(report: Report) -> Section:
    return _volumes("hours", "Hour", "Calls by hour of day", report)


def _end_triggers(report: Report) -> Section:
    return Section(
        "end_triggers",
        "Who ended the call",
        f"Of {report.total.answer_rate.numerator:,} answered calls.",
        ("Ended by", "Calls", "Share"),
        tuple(
            (share.labels[0], f"{share.ratio.numerator:,}", percent(share.ratio))
            for share in report.end_triggers
        ),
    )


def _failures(report: Report) -> Section:
    shown, left_out = report.failures[:MOST_REASONS], len(report.failures) - MOST_REASONS
    more = f" The {left_out:,} rarest reasons are only in the CSV and JSON forms." if left_out > 0 else ""
    return Section(
        "failures",
        "Why calls failed",
        f"Calls neither completed nor forwarded, as a share of all {report.total.calls:,} calls.{more}",
        ("Class", "Outcome", "Provider's word", "Calls", "Share"),
        tuple(
            (
                *(label or NOTHING for label in share.labels),
                f"{share.ratio.numerator:,}",
                percent(share.ratio),
            )
            for share in shown
        ),
        words=3,
    )


def _talk_times(report: Report) -> Section:
    known, answered = report.total.talk_known, report.total.answer_rate.numerator
    return Section(
        "talk_times",
        "Talk time",
        f"Talk time is known for {known:,} of {answered:,} answered calls: "
        f"{duration(report.total.talk_seconds_total)} in all. "
        f"Under 10 s: {report.total.short_calls.numerator:,} calls ({percent(report.total.short_calls)} of answered).",
        ("Provider", "Known for", "Median", "90th percentile", "Total", "Under 10 s", "Median ringing"),
        tuple(
            (
                each.name,
                f"{each.talk_known:,}",
                duration(each.talk_p50),
                duration(each.talk_p90),
                duration(each.talk_seconds_total),
                f"{each.short_calls.numerator:,}",
                duration(each.ring_p50),
            )
            for each in (*report.providers, report.total)
        ),
    )


def _quality(report: Report) -> Section:
    quality, busiest = report.quality, report.busiest
    rows = (
        ("Closed because nothing more was heard", f"{quality.closed_by_timeout:,}"),
        ("Outcome unknown", f"{quality.unknown_outcome:,}"),
        ("Times are times of receipt", f"{quality.received_times:,}"),
        ("Revised after the end was published", f"{quality.late_revisions:,}"),
        ("Webhooks in quarantine", f"{quality.quarantined:,}"),
        ("Calls still open, in the whole lake", f"{quality.open_calls:,}"),
        (
            "Most calls at once",
            f"{busiest.peak_calls:,}, at {busiest.minute:%Y-%m-%d %H:%M} UTC" if busiest else NOTHING,
        ),
        ("Newest event", instant(quality.newest_event_at)),
    )
    return Section("quality", "Quality of the data", "How far the figures can be trusted.", ("", ""), rows)


def _checks(report: Report) -> Section:
    count = report.checks_run
    found = f"{len(report.checks)} of {count} rules over the whole lake are broken by some rows."
    return Section(
        "checks",
        "Checks",
        found if report.checks else f"No row of the lake breaks one of the {count} rules.",
        ("Check", "Severity", "What it finds", "For example", "Rows"),
        tuple(
            (each.name, each.severity, each.description, ", ".join(each.examples), f"{each.rows:,}")
            for each in report.checks
        ),
        words=4,
    )
