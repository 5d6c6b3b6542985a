with

thresholds as (
    select unnest([5, 10, 20, 30, 60, 120]) as within_seconds
),

-- By the whole second that the wait was over in: few rows, whatever the thresholds. 121 is all that is longer.
waits as (
    select
        date,
        provider,
        direction,
        least((wait_us + 999999) // 1000000, 121) as over_by,
        count(*) as calls,
        count(*) filter (where is_answered) as answered,
        count(wait_us) filter (where is_answered) as answered_timed,
    from int_root_calls
    group by date, provider, direction, over_by
),

counted as (
    select
        date,
        provider,
        direction,
        within_seconds,
        cast(sum(calls) as bigint) as calls,
        cast(sum(answered) as bigint) as answered,
        cast(sum(answered_timed) as bigint) as answered_timed,
        cast(coalesce(sum(answered) filter (where over_by <= within_seconds), 0) as bigint) as answered_within,
        cast(coalesce(sum(calls - answered) filter (where over_by <= within_seconds), 0) as bigint)
            as unanswered_within,
    from waits
    cross join thresholds
    group by date, provider, direction, within_seconds
),

offers as (
    select
        *,
        -- Where no answer's time is known, the calls without one would make a level of 0.
        case
            when answered > 0 and answered_timed = 0 then 0
            else calls - answered + answered_timed
        end as offered,
    from counted
),

kpi_service_level as (
    select
        date,
        provider,
        direction,
        within_seconds,
        calls,
        answered,
        answered_timed,
        answered_within,
        unanswered_within,
        offered,
        answered_within / nullif(offered, 0) as service_level,
        answered_within / nullif(answered_timed, 0) as answered_within_rate,
    from offers
)

select * from kpi_service_level
