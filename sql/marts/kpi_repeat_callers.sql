with

callers as (
    select
        date,
        provider,
        direction,
        customer_number,
        count(*) as calls,
        count(*) filter (where is_repeat) as repeat_calls,
        count(*) filter (where is_repeat and not was_answered) as repeat_after_miss,
    from int_customer_calls
    where direction = 'inbound'
    group by date, provider, direction, customer_number
),

counted as (
    select
        date,
        provider,
        direction,
        cast(sum(calls) as bigint) as calls,
        cast(sum(repeat_calls) as bigint) as repeat_calls,
        cast(sum(repeat_after_miss) as bigint) as repeat_after_miss,
        count(*) as callers,
        count(*) filter (where repeat_calls > 0) as repeat_callers,
    from callers
    group by date, provider, direction
),

kpi_repeat_callers as (
    select
        date,
        provider,
        direction,
        calls,
        repeat_calls,
        repeat_after_miss,
        repeat_calls / nullif(calls, 0) as repeat_call_rate,
        callers,
        repeat_callers,
        repeat_callers / nullif(callers, 0) as repeat_caller_rate,
    from counted
)

select * from kpi_repeat_callers
