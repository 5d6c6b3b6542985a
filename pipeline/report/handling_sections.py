"""The sections of a report about the handling of calls: how far they got, how fast, by whom, at what cost."""

from typing import Final

from pipeline.report.figures import Before, Handling, Ratio, Report
from pipeline.report.section import NOTHING, Section, duration, percent, percent_bounds

MOST_AGENTS: Final = 15
_STAGES: Final = {
    "queued": "All calls",
    "ringing": "Rang",
    "in_progress": "Answered",
    "completed": "Completed",
}


def stage_name(stage: str) -> str:
    """What the stage of a funnel is called in a report."""
    return _STAGES.get(stage, stage)


def before(report: Report) -> list[Section]:
    """The period against the one before, if that had calls."""
    if report.before is None:
        return []
    was, now = report.before, report.total
    span = f"{was.first}" if was.first == was.last else f"{was.first} to {was.last}"
    calls = f"{100 * (now.calls / was.calls - 1):+.1f} %"
    rows = (
        ("Calls", f"{was.calls:,}", f"{now.calls:,}", calls),
        ("Answer rate", percent(was.answer_rate), percent(now.answer_rate), _points(was)),
        (
            "95 % interval",
            percent_bounds(was.answer_rate),
            percent_bounds(now.answer_rate),
            _points_bounds(was),
        ),
    )
    note = (
        f"As many days right before: {span}. The change of the answer rate is in percentage points, with Newcombe's "
        "95 % interval; one that holds 0 may be chance."
    )
    return [Section("before", "Against the days before", note, ("", "Before", "Now", "Change"), rows)]


def _points(was: Before) -> str:
    return NOTHING if was.answer_rate_change is None else f"{100 * was.answer_rate_change:+.1f} points"


def _points_bounds(was: Before) -> str:
    if was.low is None or was.high is None:
        return NOTHING
    return f"{100 * was.low:+.1f} to {100 * was.high:+.1f}"


def funnel(report: Report) -> Section:
    """How far calls got."""
    counts = [share.ratio.numerator for share in report.funnel]
    earlier = [report.total.calls, *counts]
    return Section(
        "funnel",
        "How far calls got",
        "What came further counts for the stages before. Not every provider tells of ringing.",
        ("Stage", "Calls", "Of all", "Of the stage before"),
        tuple(
            (
                stage_name(share.labels[0]),
                f"{share.ratio.numerator:,}",
                percent(share.ratio),
                percent(Ratio(share.ratio.numerator, before)),
            )
            for share, before in zip(report.funnel, earlier, strict=False)
        ),
    )


def speeds(report: Report) -> list[Section]:
    """How fast inbound calls were answered, if any call's wait is known."""
    known = [
        speed for speed in report.speeds if any(level.service_level.denominator for level in speed.levels)
    ]
    if not known:
        return []
    note = (
        "Of inbound calls, those answered within so many seconds of the first that was seen of them. Calls that "
        "gave up count as not answered; left out are answered calls whose wait is not known."
    )
    header = ("Provider", "Offered", *(f"{level.within_seconds} s" for level in known[0].levels))
    rows = tuple(
        (
            speed.name,
            f"{speed.levels[0].service_level.denominator:,}",
            *(percent(level.service_level) for level in speed.levels),
        )
        for speed in known
    )
    return [Section("speeds", "Speed of answer", note, header, rows)]


def handling(report: Report) -> list[Section]:
    """Transfers, repeats, redials and costs."""
    note = (
        "Transferred and contained (completed without a transfer) are of conversations: answered, not by a machine; "
        "Recho and FreeClimb never tell of a transfer. "
        "Repeat calls are inbound, of a number that had called within 24 hours. Redials (within one call) and retries "
        "(a new call within 24 hours of one that was not answered) are outbound, and succeed if answered. The cost is "
        "of one answered call, in the provider's currency."
    )
    header = (
        "Provider",
        "Conversations",
        "Transferred",
        "Contained",
        "Repeat calls",
        "Redials answered",
        "Retries answered",
        "Cost",
    )
    rows = tuple(_handling(each) for each in report.handling)
    return [Section("handling", "Handling", note, header, rows)] if rows else []


def _handling(each: Handling) -> tuple[str, ...]:
    cost = each.cost_per_answered_call
    return (
        each.name,
        f"{each.transferred.denominator:,}",
        percent(each.transferred),
        percent(each.contained),
        percent(each.repeats),
        _of(each.redialled),
        _of(each.retried),
        NOTHING if cost is None else f"{cost:.4f}",
    )


def _of(ratio: Ratio) -> str:
    """A share with what it is of: these are often few."""
    return NOTHING if not ratio.denominator else f"{ratio.numerator:,} of {ratio.denominator:,}"


def agents(report: Report) -> list[Section]:
    """The league of assistants and agents, if any is named."""
    shown, left_out = report.agents[:MOST_AGENTS], len(report.agents) - MOST_AGENTS
    if not shown:
        return []
    more = f" The other {left_out:,} are only in the CSV and JSON forms." if left_out > 0 else ""
    note = (
        f"By the lower bound of the share of calls that were completed, so that few calls are no lead.{more}"
    )
    rows = tuple(
        (
            agent.agent_id,
            agent.provider,
            f"{agent.completed.denominator:,}",
            f"{agent.answered:,}",
            percent(agent.completed),
            percent_bounds(agent.completed),
            percent(agent.transferred),
            duration(agent.talk_seconds_avg),
        )
        for agent in shown
    )
    header = (
        "Agent",
        "Provider",
        "Calls",
        "Answered",
        "Completed",
        "95 % interval",
        "Transferred",
        "Mean talk",
    )
    return [Section("agents", "Assistants and agents", note, header, rows, words=2)]
