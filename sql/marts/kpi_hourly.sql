with

placed as (
    select
        date,
        provider,
        direction,
        isodow(date) as weekday,
        -- Reckoned from the epoch, so that the session's time zone cannot move a call to another hour.
        epoch_us(dated_at) // 3600000000 % 24 as hour,
        is_answered,
    from int_root_calls
),

counted as (
    select
        date,
        provider,
        direction,
        cast(weekday as integer) as weekday,
        cast(hour as integer) as hour,
        count(*) as calls,
        count(*) filter (where is_answered) as answered,
    from placed
    group by all
),

kpi_hourly as (
    select
        *,
        answered / nullif(calls, 0) as answer_rate,
    from counted
)

select * from kpi_hourly
