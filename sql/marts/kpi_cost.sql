with

counted as (
    select
        date,
        provider,
        direction,
        count(*) as calls,
        count(cost_nanos) as costed_calls,
        count(cost_nanos) filter (where is_answered) as costed_answered,
        -- Sums of whole numbers: billionths of the currency.
        cast(sum(cost_nanos) as double) / 1000000000 as cost_total,
        cast(sum(cost_nanos) filter (where is_answered and talk_us is not null) as double) / 1000000000
            as talk_cost,
        cast(sum(talk_us) filter (where is_answered and cost_nanos is not null) as double) / 60000000
            as talk_minutes,
    from int_root_calls
    group by date, provider, direction
),

kpi_cost as (
    select
        date,
        provider,
        direction,
        calls,
        costed_calls,
        cost_total,
        cost_total / nullif(costed_calls, 0) as cost_per_call,
        costed_answered,
        cost_total / nullif(costed_answered, 0) as cost_per_answered_call,
        talk_cost,
        talk_minutes,
        talk_cost / nullif(talk_minutes, 0) as cost_per_talk_minute,
    from counted
    where costed_calls > 0
)

select * from kpi_cost
