with

counted as (
    select
        date,
        provider,
        direction,
        failure_class,
        outcome,
        failure_reason,
        count(*) as calls,
    from int_root_calls
    group by date, provider, direction, failure_class, outcome, failure_reason
),

shared as (
    select
        *,
        cast(sum(calls) over (partition by date, provider, direction) as bigint) as all_calls,
    from counted
),

kpi_failure as (
    select
        *,
        calls / nullif(all_calls, 0) as share,
    from shared
    where outcome not in ('completed', 'forwarded')
)

select * from kpi_failure
