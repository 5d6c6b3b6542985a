"""The KPIs a second time, in plain Python and one call after the other, from the rows of `calls`.

It shares nothing with `sql/` but the definitions in the .yml files: agreement with it is evidence. A call is a dict
with the columns of `calls`, instants as aware datetimes.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from math import ceil, isfinite, sqrt
from statistics import NormalDist
from typing import Any

Row = dict[str, Any]
GROUP = ("date", "provider", "direction")
THRESHOLDS = (5, 10, 20, 30, 60, 120)
Z = NormalDist().inv_cdf(0.975)


def roots(calls: Iterable[Row]) -> list[Row]:
    """What every KPI counts."""
    return [call for call in calls if call["state"] == "ended" and call["is_root"]]


def ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def wilson(hits: int, tries: int) -> tuple[float, float] | tuple[None, None]:
    """Both ends are where the score test just does not reject: the roots of a quadratic equation."""
    if not tries:
        return None, None
    p = hits / tries
    a, b, c = 1 + Z**2 / tries, -(2 * p + Z**2 / tries), p**2
    root = sqrt(max(0.0, b**2 - 4 * a * c))
    return max(0.0, (-b - root) / (2 * a)), min(1.0, (-b + root) / (2 * a))


def percentile(values: list[float], share: float) -> float | None:
    """Between the two nearest ranks, counted from 0."""
    if not values:
        return None
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def answered(call: Row) -> bool:
    return call["is_answered"] is True


def dated_at(call: Row) -> datetime:
    at: datetime = call["started_at"] or call["first_event_at"]
    return at


def known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def grouped(calls: Iterable[Row], *more: str) -> Iterator[tuple[Row, list[Row]]]:
    """The calls of each group, and the columns that name it."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    names = (*GROUP, *more)
    for call in calls:
        groups[tuple(call[name] for name in names)].append(call)
    for key, members in groups.items():
        yield dict(zip(names, key, strict=True)), members


def talk(calls: list[Row]) -> Row:
    times = known(call["talk_seconds"] for call in calls if answered(call))
    total = sum(times) if times else None
    return {
        "talk_seconds_total": total,
        "talk_known": len(times),
        "talk_seconds_avg": total / len(times) if total is not None else None,
    }


def kpi_daily(calls: list[Row]) -> Iterator[Row]:
    for group, members in grouped(roots(calls)):
        outcomes = Counter(call["outcome"] for call in members)
        picked_up = sum(map(answered, members))
        yield (
            group
            | talk(members)
            | {
                "calls": len(members),
                "answered": picked_up,
                "answer_rate": picked_up / len(members),
                "completed": outcomes["completed"],
                "forwarded": outcomes["forwarded"],
                "failed_calls": len(members) - outcomes["completed"] - outcomes["forwarded"],
            }
        )


def reached_network(call: Row) -> bool:
    if answered(call):
        return True
    if call["outcome"] in ("canceled", "failed"):
        return call["ringing_at"] is not None or call["answered_at"] is not None
    return call["outcome"] not in ("expired", "limit_reached")


def kpi_answer_rate(calls: list[Row]) -> Iterator[Row]:
    for group, members in grouped(roots(calls)):
        picked_up = sum(map(answered, members))
        seizures = sum(map(reached_network, members))
        effective = sum(answered(c) or c["outcome"] in ("busy", "no_answer", "rejected") for c in members)
        bids = sum(max(1, c["attempts"] or 1) for c in members)
        row = group | {
            "calls": len(members),
            "seizures": seizures,
            "answered": picked_up,
            "answered_human": sum(answered(c) and c["answered_by"] == "human" for c in members),
            "answered_machine": sum(answered(c) and c["answered_by"] == "machine" for c in members),
            "network_effective": effective,
            "bids": bids,
            "abr": picked_up / bids,
        }
        for name, hits, tries in (
            ("answer_rate", picked_up, len(members)),
            ("asr", picked_up, seizures),
            ("ner", effective, seizures),
        ):
            low, high = wilson(hits, tries)
            row |= {name: ratio(hits, tries), f"{name}_low": low, f"{name}_high": high}
        yield row


def kpi_duration(calls: list[Row]) -> Iterator[Row]:
    for group, members in grouped(roots(calls)):
        picked_up = [call for call in members if answered(call)]
        talks, rings = known(c["talk_seconds"] for c in picked_up), known(c["ring_seconds"] for c in members)
        spoken = talk(members)
        short = sum(seconds < 10 for seconds in talks)
        yield group | {
            "answered": len(picked_up),
            "talk_known": len(talks),
            "talk_p50": percentile(talks, 0.5),
            "talk_p90": percentile(talks, 0.9),
            "talk_p95": percentile(talks, 0.95),
            "talk_seconds_total": spoken["talk_seconds_total"],
            "talk_avg": spoken["talk_seconds_avg"],
            "ring_known": len(rings),
            "ring_p50": percentile(rings, 0.5),
            "ring_p95": percentile(rings, 0.95),
            "short_calls": short,
            "short_call_rate": ratio(short, len(picked_up)),
        }


def kpi_end_trigger(calls: list[Row]) -> Iterator[Row]:
    for group, members in grouped(call for call in roots(calls) if answered(call)):
        for trigger, count in Counter(call["end_trigger"] for call in members).items():
            yield group | {
                "end_trigger": trigger,
                "calls": count,
                "answered": len(members),
                "share": count / len(members),
            }


def kpi_failure(calls: list[Row]) -> Iterator[Row]:
    names = ("failure_class", "outcome", "failure_reason")
    for group, members in grouped(roots(calls)):
        kinds = Counter(tuple(call[name] for name in names) for call in members)
        for kind, count in kinds.items():
            if kind[1] not in ("completed", "forwarded"):
                told = dict(zip(names, kind, strict=True))
                yield (
                    group
                    | told
                    | {
                        "calls": count,
                        "all_calls": len(members),
                        "share": count / len(members),
                    }
                )


def kpi_hourly(calls: list[Row]) -> Iterator[Row]:
    placed = [
        call | {"weekday": call["date"].isoweekday(), "hour": dated_at(call).astimezone(UTC).hour}
        for call in roots(calls)
    ]
    for group, members in grouped(placed, "weekday", "hour"):
        picked_up = sum(map(answered, members))
        yield group | {
            "calls": len(members),
            "answered": picked_up,
            "answer_rate": picked_up / len(members),
        }


def _minutes(calls: list[Row]) -> Iterator[Row]:
    """Every minute that one of the calls touches: each instant of a change is looked at by itself."""
    spans = [(c["started_at"], c["ended_at"]) for c in calls if c["started_at"] and c["ended_at"]]
    touched: dict[datetime, list[tuple[datetime, datetime]]] = defaultdict(list)
    for begin, end in spans:
        minute = begin.replace(second=0, microsecond=0)
        while minute < end and begin < end:
            touched[minute].append((begin, end))
            minute += timedelta(minutes=1)
    for minute, present in touched.items():
        until = minute + timedelta(minutes=1)
        inside = [(max(begin, minute), min(end, until)) for begin, end in present]
        peak = max(sum(low <= at < high for low, high in inside) for at, _ in inside)
        seconds = sum((high - low) / timedelta(seconds=1) for low, high in inside)
        yield {
            "date": minute.date(),
            "minute": minute,
            "peak_calls": peak,
            "call_seconds": seconds,
            "minute_seconds": 60,
            "erlangs": seconds / 60,
        }


def kpi_concurrency(calls: list[Row]) -> Iterator[Row]:
    yield from _minutes(roots(calls))


def kpi_concurrency_provider(calls: list[Row]) -> Iterator[Row]:
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for call in roots(calls):
        groups[call["provider"], call["direction"]].append(call)
    for (provider, direction), members in groups.items():
        for minute in _minutes(members):
            yield {"provider": provider, "direction": direction} | minute


def kpi_funnel(calls: list[Row]) -> Iterator[Row]:
    for group, members in grouped(roots(calls)):
        rang = [
            c for c in members if c["ringing_at"] or answered(c) or c["outcome"] in ("no_answer", "rejected")
        ]
        picked_up = [call for call in rang if answered(call)]
        done = [call for call in picked_up if call["outcome"] in ("completed", "forwarded")]
        before = len(members)
        stages = (
            ("queued", members, members, "queued_at"),
            ("ringing", rang, members, "ringing_at"),
            ("in_progress", picked_up, picked_up, "answered_at"),
            ("completed", done, done, "ended_at"),
        )
        for step, (stage, reached, timed, column) in enumerate(stages, start=1):
            yield group | {
                "step": step,
                "stage": stage,
                "calls": len(reached),
                "calls_timed": sum(call[column] is not None for call in timed),
                "all_calls": len(members),
                "share": len(reached) / len(members),
                "calls_before": before,
                "step_rate": ratio(len(reached), before),
            }
            before = len(reached)


def customer_of(call: Row) -> str | None:
    column = {"inbound": "from_number", "outbound": "to_number"}.get(call["direction"])
    number: str | None = call[column] if column else None
    return None if number is None or "*" in number else number


def calls_again(calls: list[Row], direction: str) -> Iterator[tuple[Row, Row | None]]:
    """Each call of a known number, with the one before of the same number if that was at most a day ago."""
    lines: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for call in roots(calls):
        number = customer_of(call)
        if call["direction"] == direction and number is not None:
            lines[call["provider"], number].append(call)
    for line in lines.values():
        line.sort(key=lambda call: (dated_at(call), call["call_key"]))
        yield line[0], None
        for before, call in pairwise(line):
            is_soon = dated_at(call) - dated_at(before) <= timedelta(hours=24)
            yield call, before if is_soon else None


def kpi_repeat_callers(calls: list[Row]) -> Iterator[Row]:
    before = {call["call_key"]: earlier for call, earlier in calls_again(calls, "inbound")}
    for group, members in grouped(call for call, _ in calls_again(calls, "inbound")):
        repeats = [call for call in members if before[call["call_key"]] is not None]
        missed = [call for call in repeats if not answered(before[call["call_key"]] or {})]
        callers, again = {customer_of(c) for c in members}, {customer_of(c) for c in repeats}
        yield group | {
            "calls": len(members),
            "repeat_calls": len(repeats),
            "repeat_after_miss": len(missed),
            "repeat_call_rate": len(repeats) / len(members),
            "callers": len(callers),
            "repeat_callers": len(again),
            "repeat_caller_rate": len(again) / len(callers),
        }


def kpi_redial(calls: list[Row]) -> Iterator[Row]:
    retried = {
        call["call_key"]
        for call, earlier in calls_again(calls, "outbound")
        if earlier is not None and not answered(earlier)
    }
    for group, members in grouped(call for call in roots(calls) if call["direction"] == "outbound"):
        redialled = [call for call in members if (call["attempts"] or 1) > 1]
        retries = [call for call in members if call["call_key"] in retried]
        yield group | {
            "calls": len(members),
            "bids": sum(max(1, c["attempts"] or 1) for c in members),
            "redialled_calls": len(redialled),
            "redialled_answered": sum(map(answered, redialled)),
            "redial_success_rate": ratio(sum(map(answered, redialled)), len(redialled)),
            "retries": len(retries),
            "retries_answered": sum(map(answered, retries)),
            "retry_success_rate": ratio(sum(map(answered, retries)), len(retries)),
        }


def kpi_transfer(calls: list[Row]) -> Iterator[Row]:
    talks = [call for call in roots(calls) if answered(call) and call["answered_by"] != "machine"]
    for group, members in grouped(talks):
        kinds = Counter(
            "transferred" if c["is_transferred"] else "kept" if c["outcome"] == "completed" else "broken"
            for c in members
        )
        yield group | {
            "conversations": len(members),
            "transferred": kinds["transferred"],
            "transfer_rate": kinds["transferred"] / len(members),
            "contained": kinds["kept"],
            "containment_rate": kinds["kept"] / len(members),
            "broken_off": kinds["broken"],
        }


def kpi_cost(calls: list[Row]) -> Iterator[Row]:
    for group, members in grouped(roots(calls)):
        costed = [call for call in members if call["cost_total"] is not None and isfinite(call["cost_total"])]
        if not costed:
            continue
        total = sum(call["cost_total"] for call in costed)
        picked_up = sum(map(answered, costed))
        spoken = [call for call in costed if answered(call) and call["talk_seconds"] is not None]
        talk_cost = sum(call["cost_total"] for call in spoken) if spoken else None
        minutes = sum(call["talk_seconds"] for call in spoken) / 60 if spoken else None
        yield group | {
            "calls": len(members),
            "costed_calls": len(costed),
            "cost_total": total,
            "cost_per_call": total / len(costed),
            "costed_answered": picked_up,
            "cost_per_answered_call": ratio(total, picked_up),
            "talk_cost": talk_cost,
            "talk_minutes": minutes,
            "cost_per_talk_minute": ratio(talk_cost, minutes) if talk_cost is not None and minutes else None,
        }


def kpi_agent(calls: list[Row]) -> Iterator[Row]:
    rows = []
    for group, members in grouped((c for c in roots(calls) if c["agent_id"] is not None), "agent_id"):
        picked_up = sum(map(answered, members))
        done = sum(call["outcome"] == "completed" for call in members)
        moved = sum(answered(call) and call["is_transferred"] is True for call in members)
        low, high = wilson(done, len(members))
        rows.append(
            group
            | talk(members)
            | {
                "calls": len(members),
                "answered": picked_up,
                "answer_rate": picked_up / len(members),
                "completed": done,
                "completion_rate": done / len(members),
                "completion_rate_low": low,
                "completion_rate_high": high,
                "transferred": moved,
                "transfer_rate": ratio(moved, picked_up),
            }
        )
    for _, members in grouped(rows):
        leads = sorted(-round(row["completion_rate_low"], 9) for row in members)
        for row in members:
            yield row | {"place": 1 + bisect_left(leads, -round(row["completion_rate_low"], 9))}


def waited(call: Row) -> float | None:
    until = call["answered_at"] if answered(call) else call["ended_at"]
    seen = [call[name] for name in ("queued_at", "started_at", "ringing_at") if call[name] is not None]
    if until is None or not seen or until < min(seen):
        return None
    return float((until - min(seen)) / timedelta(seconds=1))


def kpi_service_level(calls: list[Row]) -> Iterator[Row]:
    for group, members in grouped(roots(calls)):
        picked_up = [call for call in members if answered(call)]
        timed = known(map(waited, picked_up))
        gave_up = known(waited(call) for call in members if not answered(call))
        offered = 0 if picked_up and not timed else len(members) - len(picked_up) + len(timed)
        for within in THRESHOLDS:
            soon = sum(ceil(seconds * 1_000_000) <= within * 1_000_000 for seconds in timed)
            yield group | {
                "within_seconds": within,
                "calls": len(members),
                "answered": len(picked_up),
                "answered_timed": len(timed),
                "answered_within": soon,
                "unanswered_within": sum(seconds <= within for seconds in gave_up),
                "offered": offered,
                "service_level": ratio(soon, offered),
                "answered_within_rate": ratio(soon, len(timed)),
            }


def kpi_week_over_week(calls: list[Row]) -> Iterator[Row]:
    weeks: dict[tuple[date, str, str], list[Row]] = defaultdict(list)
    for call in roots(calls):
        monday = call["date"] - timedelta(days=call["date"].weekday())
        weeks[monday, call["provider"], call["direction"]].append(call)
    for (week, provider, direction), members in weeks.items():
        earlier = weeks.get((week - timedelta(days=7), provider, direction), [])
        n, n0, x, x0 = len(members), len(earlier), sum(map(answered, members)), sum(map(answered, earlier))
        row = {
            "week": week,
            "provider": provider,
            "direction": direction,
            "days": len({call["date"] for call in members}),
            "calls": n,
            "answered": x,
            "answer_rate": x / n,
            "days_before": len({call["date"] for call in earlier}),
            "calls_before": n0,
            "answered_before": x0,
            "answer_rate_before": ratio(x0, n0),
        }
        yield row | _changes(x, n, x0, n0)


def _changes(x: int, n: int, x0: int, n0: int) -> Row:
    names = ("answer_rate_change", "answer_rate_change_low", "answer_rate_change_high")
    names += ("calls_ratio", "calls_ratio_low", "calls_ratio_high")
    if not n0:
        return dict.fromkeys(names)
    p, p0 = x / n, x0 / n0
    (low, high), (low0, high0) = wilson(x, n), wilson(x0, n0)
    share_low, share_high = wilson(n, n + n0)
    assert low is not None and low0 is not None and share_low is not None  # noqa: PT018  all three have tries
    values = (
        p - p0,
        p - p0 - sqrt((p - low) ** 2 + (high0 - p0) ** 2),
        p - p0 + sqrt((high - p) ** 2 + (p0 - low0) ** 2),
        n / n0,
        share_low / (1 - share_low),
        share_high / (1 - share_high),
    )
    return dict(zip(names, values, strict=True))


ORACLE: dict[str, Callable[[list[Row]], Iterator[Row]]] = {
    name: value for name, value in globals().items() if name.startswith("kpi_")
}
"""Every KPI but `data_quality`, which counts what is not in `calls`."""


def data_quality(
    calls: list[Row], revisions: Counter[str], quarantined: Counter[tuple[date, str]]
) -> Iterator[Row]:
    """`revisions`: how many ended ones of each call were published; `quarantined`: webhooks by date and provider."""
    groups = {tuple(group.values()): members for group, members in grouped(roots(calls))}
    for key in {*groups, *((day, provider, "unknown") for day, provider in quarantined)}:
        members = groups.get(key, [])
        yield dict(zip(GROUP, key, strict=True)) | {
            "calls": len(members),
            "closed_by_timeout": sum(call["closed_by"] == "timeout" for call in members),
            "late_revisions": sum(revisions[call["call_key"]] - 1 for call in members),
            "received_times": sum(call["time_source"] == "received" for call in members),
            "unknown_outcome": sum(call["outcome"] == "unknown" for call in members),
            "quarantined": quarantined[key[0], key[1]] if key[2] == "unknown" else 0,
            "newest_event_at": max((call["last_event_at"] for call in members), default=None),
        }
