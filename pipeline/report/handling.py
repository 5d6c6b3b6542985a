"""Collects what a report says of the handling of calls: how far they got, how fast, by whom, at what cost."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from pipeline.report.figures import (
    Agent,
    Before,
    Handling,
    Level,
    Ratio,
    Share,
    Speed,
    difference_bounds,
)
from pipeline.report.period import Period

Rows = Callable[..., list[tuple[Any, ...]]]
"""Runs a query over the views; $first and $last are the period's dates unless told otherwise."""

_IN_PERIOD: Final = "date between $first and $last"
# Sums of fractions are taken over decimals: threads add in another order each time.
_BEFORE: Final = f"""
    select coalesce(sum(calls), 0)::bigint, coalesce(sum(answered), 0)::bigint from kpi_daily where {_IN_PERIOD}
"""
_FUNNEL: Final = f"""
    select stage, sum(calls)::bigint from kpi_funnel where {_IN_PERIOD} group by step, stage order by step
"""
_SPEEDS: Final = f"""
    select provider, within_seconds, sum(answered_within)::bigint, sum(offered)::bigint
    from kpi_service_level where {_IN_PERIOD} and direction = 'inbound'
    group by grouping sets ((provider, within_seconds), (within_seconds))
    order by provider nulls last, within_seconds
"""
_HANDLING: Final = f"""
    with transfers as (
        select provider, sum(transferred) as transferred, sum(contained) as contained,
            sum(conversations) as conversations
        from kpi_transfer where {_IN_PERIOD} group by rollup (provider)
    ),
    repeats as (
        select provider, sum(repeat_calls) as repeat_calls, sum(calls) as numbered
        from kpi_repeat_callers where {_IN_PERIOD} group by rollup (provider)
    ),
    redials as (
        select provider, sum(redialled_answered) as redialled_answered, sum(redialled_calls) as redialled_calls,
            sum(retries_answered) as retries_answered, sum(retries) as retries
        from kpi_redial where {_IN_PERIOD} group by rollup (provider)
    ),
    costs as (
        select provider, sum(try_cast(cost_total as decimal(38, 9)))::double as cost_total,
            sum(costed_answered) as costed_answered
        from kpi_cost where {_IN_PERIOD} group by provider
    ),
    names as (select provider from kpi_daily where {_IN_PERIOD} group by rollup (provider))
    select names.provider, {
    ", ".join(
        f"coalesce({name}, 0)::bigint"
        for name in (
            "transferred",
            "contained",
            "conversations",
            "repeat_calls",
            "numbered",
            "redialled_answered",
            "redialled_calls",
            "retries_answered",
            "retries",
            "costed_answered",
        )
    )
}, cost_total
    from names
    left join transfers on names.provider is not distinct from transfers.provider
    left join repeats on names.provider is not distinct from repeats.provider
    left join redials on names.provider is not distinct from redials.provider
    left join costs on names.provider = costs.provider
    order by names.provider nulls last
"""
_AGENTS: Final = f"""
    select provider, agent_id, sum(calls)::bigint, sum(answered)::bigint, sum(completed)::bigint,
        sum(transferred)::bigint,
        sum(try_cast(talk_seconds_total as decimal(38, 6)))::double / nullif(sum(talk_known), 0)
    from kpi_agent where {_IN_PERIOD} group by provider, agent_id
"""


def before(rows: Rows, period: Period, now: Ratio) -> Before | None:
    """As many days as the period has, right before it, and the change of the answer rate `now` against them."""
    if period.label == "all":
        return None
    last = period.first - timedelta(days=1)
    first = last - (period.last - period.first)
    ((calls, answered),) = rows(_BEFORE, first=first, last=last)
    if not calls:
        return None
    rate = Ratio(answered, calls)
    change = None if now.value is None or rate.value is None else now.value - rate.value
    low, high = difference_bounds(now, rate) or (None, None)
    return Before(first, last, calls, rate, change, low, high)


def funnel(rows: Rows, calls: int) -> tuple[Share, ...]:
    """How many of all `calls` came at least as far as each stage."""
    return tuple(Share((stage,), Ratio(reached, calls)) for stage, reached in rows(_FUNNEL))


def speeds(rows: Rows) -> tuple[Speed, ...]:
    """The service levels of inbound calls by provider, those of all providers last."""
    by_name: dict[str, list[Level]] = {}
    for provider, within, answered, offered in rows(_SPEEDS):
        by_name.setdefault(provider or "all", []).append(Level(within, Ratio(answered, offered)))
    return tuple(Speed(name, tuple(levels)) for name, levels in by_name.items())


def handling(rows: Rows) -> tuple[Handling, ...]:
    """Transfers, repeats, redials and costs by provider, those of all providers last."""
    return tuple(_handling(row) for row in rows(_HANDLING))


def _handling(row: tuple[Any, ...]) -> Handling:
    provider, transferred, contained, conversations, repeats, numbered, *rest = row
    redialled_answered, redialled, retries_answered, retries, costed_answered, cost_total = rest
    return Handling(
        name=provider or "all",
        transferred=Ratio(transferred, conversations),
        contained=Ratio(contained, conversations),
        repeats=Ratio(repeats, numbered),
        redialled=Ratio(redialled_answered, redialled),
        retried=Ratio(retries_answered, retries),
        cost_total=cost_total,
        costed_answered=costed_answered if provider else 0,
    )


def agents(rows: Rows) -> tuple[Agent, ...]:
    """Every agent of the period: the one whose calls are completed most surely first."""
    found = [
        Agent(provider, agent_id, Ratio(completed, calls), answered, Ratio(transferred, answered), talk)
        for provider, agent_id, calls, answered, completed, transferred, talk in rows(_AGENTS)
    ]
    return tuple(sorted(found, key=_place))


def _place(agent: Agent) -> tuple[float, str, str]:
    low = agent.completed.bounds[0] if agent.completed.bounds else 0.0
    return -round(low, 9), agent.provider, agent.agent_id
