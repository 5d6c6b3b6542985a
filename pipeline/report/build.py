"""Collects a report's figures from the views of the lake. Knows nothing of how they are shown."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb

from pipeline.errors import CallfoldError
from pipeline.query.checks import checks, run_checks
from pipeline.query.views import again, connect, one_line
from pipeline.report.figures import (
    Busiest,
    CheckLine,
    Outcomes,
    Quality,
    Ratio,
    Report,
    Share,
    Volume,
)
from pipeline.report.handling import agents, before, funnel, handling, speeds
from pipeline.report.period import Period

TALK_BANDS: Final = (0, 10, 30, 60, 120, 300, 600, 1800)
"""Lower edges of the bands of talk time, in seconds; the last one is open above."""
_MOST_DAYS: Final = 92
"""Longer periods are counted by month: more bars than that cannot be told apart."""

_IN_PERIOD: Final = "date between $first and $last"
_OUTCOMES: Final = f"""
    with counted as (
        select provider, coalesce(sum(calls), 0) as calls, coalesce(sum(answered), 0) as answered,
            coalesce(sum(seizures), 0) as seizures, coalesce(sum(network_effective), 0) as effective
        from kpi_answer_rate where {_IN_PERIOD} group by rollup (provider)
    ),
    outcomes as (
        select provider, coalesce(sum(completed), 0) as completed, coalesce(sum(forwarded), 0) as forwarded,
            coalesce(sum(failed_calls), 0) as failed_calls
        from kpi_daily where {_IN_PERIOD} group by rollup (provider)
    ),
    times as (
        select provider, count(*) filter (where is_answered and talk_seconds < 10) as short_calls,
            count(talk_seconds) as talk_known, sum(talk_us) / 1000000 as talk_total,
            quantile_cont(talk_seconds, 0.5) as talk_p50, quantile_cont(talk_seconds, 0.9) as talk_p90,
            quantile_cont(ring_seconds, 0.5) as ring_p50
        from int_root_calls where {_IN_PERIOD} group by rollup (provider)
    )
    select counted.provider, calls::bigint, answered::bigint, seizures::bigint, effective::bigint,
        completed::bigint, forwarded::bigint, failed_calls::bigint, short_calls, talk_known, talk_total,
        talk_p50, talk_p90, ring_p50
    from counted
    join outcomes on counted.provider is not distinct from outcomes.provider
    join times on counted.provider is not distinct from times.provider
    order by counted.provider nulls first
"""
_DAYS: Final = f"""
    select date, sum(calls)::bigint, sum(answered)::bigint from kpi_daily where {_IN_PERIOD} group by 1 order by 1
"""
_HOURS: Final = f"""
    select hour, sum(calls)::bigint, sum(answered)::bigint from kpi_hourly where {_IN_PERIOD} group by 1 order by 1
"""
_TRIGGERS: Final = f"""
    select coalesce(end_trigger, 'unknown'), sum(calls)::bigint from kpi_end_trigger where {_IN_PERIOD}
    group by 1 order by 2 desc, 1
"""
_FAILURES: Final = f"""
    select coalesce(failure_class, 'unknown'), outcome, coalesce(failure_reason, ''), sum(calls)::bigint
    from kpi_failure where {_IN_PERIOD} group by 1, 2, 3 order by 4 desc, 1, 2, 3
"""
_TALK: Final = f"""
    select list_max([band for band in $bands if band <= talk_seconds]), count(*)
    from int_root_calls where {_IN_PERIOD} and is_answered and talk_seconds is not null group by 1
"""
_BUSIEST: Final = f"""
    select epoch_us(minute), peak_calls, erlangs from kpi_concurrency where {_IN_PERIOD}
    order by peak_calls desc, erlangs desc, minute limit 1
"""
_QUALITY: Final = f"""
    select coalesce(sum(closed_by_timeout), 0)::bigint, coalesce(sum(late_revisions), 0)::bigint,
        coalesce(sum(received_times), 0)::bigint, coalesce(sum(unknown_outcome), 0)::bigint,
        coalesce(sum(quarantined), 0)::bigint, (select count(*) from open_calls where is_root),
        epoch_us(max(newest_event_at))
    from data_quality where {_IN_PERIOD}
"""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def build_report(lake: Path, period: Period, now: datetime) -> Report:
    """The figures of `period` from the lake's views. A period without calls gives a report that says so."""
    with closing(connect(lake)) as connection:
        try:
            return again(lambda: _collect(connection, period, now))
        except duckdb.Error as error:
            raise CallfoldError(f"the lake at {lake} cannot be read: {one_line(error)}") from error


def _collect(connection: duckdb.DuckDBPyConnection, period: Period, now: datetime) -> Report:
    dates = {"first": period.first, "last": period.last}

    def rows(sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return connection.execute(sql, {**dates, **parameters}).fetchall()

    outcomes = [_outcomes(row) for row in rows(_OUTCOMES)]
    total = outcomes[0]
    return Report(
        label=period.label,
        first=period.first,
        last=period.last,
        made_at=now.astimezone(UTC),
        total=total,
        providers=tuple(outcomes[1:]),
        days=_days(rows(_DAYS)),
        hours=_hours(rows(_HOURS)),
        end_triggers=tuple(
            Share((trigger,), Ratio(calls, total.answer_rate.numerator)) for trigger, calls in rows(_TRIGGERS)
        ),
        failures=tuple(Share(row[:3], Ratio(row[3], total.calls)) for row in rows(_FAILURES)),
        talk_times=_talk_times(dict(rows(_TALK, bands=list(TALK_BANDS)))),
        busiest=_busiest(rows(_BUSIEST)),
        quality=_quality(rows(_QUALITY)[0]),
        before=before(rows, period, total.answer_rate),
        funnel=funnel(rows, total.calls),
        speeds=speeds(rows),
        handling=handling(rows),
        agents=agents(rows),
        checks_run=len(checks()),
        checks=tuple(
            CheckLine(
                found.check.name, found.check.severity, found.check.description, found.rows, found.examples
            )
            for found in run_checks(connection)
        ),
    )


def _outcomes(row: tuple[Any, ...]) -> Outcomes:
    provider, calls, answered, seizures, effective, completed, forwarded, failed, short, known, *times = row
    return Outcomes(
        name=provider or "all",
        calls=calls,
        answer_rate=Ratio(answered, calls),
        asr=Ratio(answered, seizures),
        ner=Ratio(effective, seizures),
        completed=completed,
        forwarded=forwarded,
        failed_calls=failed,
        short_calls=Ratio(short, answered),
        talk_known=known,
        talk_seconds_total=times[0],
        talk_p50=times[1],
        talk_p90=times[2],
        ring_p50=times[3],
    )


def _days(rows: list[tuple[Any, ...]]) -> tuple[Volume, ...]:
    """A bar per date from the first with calls to the last, empty ones included; per month where they are many."""
    if not rows:
        return ()
    span = (rows[-1][0] - rows[0][0]).days + 1
    if span > _MOST_DAYS:
        months: dict[str, tuple[int, int]] = {}
        for day, calls, answered in rows:
            before = months.get(f"{day:%Y-%m}", (0, 0))
            months[f"{day:%Y-%m}"] = (before[0] + calls, before[1] + answered)
        return tuple(Volume(month, *counts) for month, counts in months.items())
    by_day = {day: (calls, answered) for day, calls, answered in rows}
    dates = (rows[0][0] + timedelta(days=number) for number in range(span))
    return tuple(Volume(str(day), *by_day.get(day, (0, 0))) for day in dates)


def _hours(rows: list[tuple[Any, ...]]) -> tuple[Volume, ...]:
    by_hour = {hour: (calls, answered) for hour, calls, answered in rows}
    return tuple(Volume(f"{hour:02d}", *by_hour.get(hour, (0, 0))) for hour in range(24)) if rows else ()


def _talk_times(by_band: dict[int, int]) -> tuple[Volume, ...]:
    if not by_band:
        return ()
    uppers = (*TALK_BANDS[1:], None)
    names = (_band_name(low, high) for low, high in zip(TALK_BANDS, uppers, strict=True))
    counts = (by_band.get(low, 0) for low in TALK_BANDS)
    return tuple(Volume(name, calls, calls) for name, calls in zip(names, counts, strict=True))


def _band_name(low: int, high: int | None) -> str:
    in_minutes = low >= 60
    start, unit = (low // 60, "min") if in_minutes else (low, "s")
    if high is None:
        return f"≥ {start} {unit}"
    return f"{start}–{high // 60 if in_minutes else high} {unit}"


def _busiest(rows: list[tuple[Any, ...]]) -> Busiest | None:
    return Busiest(_instant(rows[0][0]), rows[0][1], rows[0][2]) if rows else None


def _quality(row: tuple[Any, ...]) -> Quality:
    by_timeout, late, received, unknown, quarantined, still_open, newest_us = row
    newest_event_at = None if newest_us is None else _instant(newest_us)
    return Quality(by_timeout, late, received, unknown, quarantined, still_open, newest_event_at)


def _instant(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)
