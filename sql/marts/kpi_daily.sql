with

counted as (
    select
        date,
        provider,
        direction,
        count(*) as calls,
        count(*) filter (where is_answered) as answered,
        count(*) filter (where outcome = 'completed') as completed,
        count(*) filter (where outcome = 'forwarded') as forwarded,
        count(*) filter (where outcome not in ('completed', 'forwarded')) as failed_calls,
        count(talk_seconds) filter (where is_answered) as talk_known,
        sum(talk_us) filter (where is_answered) / 1000000 as talk_seconds_total,
    from int_root_calls
    group by date, provider, direction
),

kpi_daily as (
    select
        date,
        provider,
        direction,
        calls,
        answered,
        answered / nullif(calls, 0) as answer_rate,
        completed,
        forwarded,
        failed_calls,
        talk_seconds_total,
        talk_known,
        talk_seconds_total / nullif(talk_known, 0) as talk_seconds_avg,
    from counted
)

select * from kpi_daily
