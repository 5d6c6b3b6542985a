with

counted as (
    select
        date,
        provider,
        direction,
        end_trigger,
        count(*) as calls,
    from int_root_calls
    where is_answered
    group by date, provider, direction, end_trigger
),

shared as (
    select
        *,
        cast(sum(calls) over (partition by date, provider, direction) as bigint) as answered,
    from counted
),

kpi_end_trigger as (
    select
        *,
        calls / nullif(answered, 0) as share,
    from shared
)

select * from kpi_end_trigger
