with

counted as (
    select
        date,
        provider,
        direction,
        count(*) filter (where is_answered) as answered,
        count(talk_seconds) filter (where is_answered) as talk_known,
        quantile_cont(talk_seconds, 0.50) filter (where is_answered) as talk_p50,
        quantile_cont(talk_seconds, 0.90) filter (where is_answered) as talk_p90,
        quantile_cont(talk_seconds, 0.95) filter (where is_answered) as talk_p95,
        sum(talk_us) filter (where is_answered) / 1000000 as talk_seconds_total,
        sum(talk_us) filter (where is_answered) / 1000000
            / nullif(count(talk_us) filter (where is_answered), 0) as talk_avg,
        count(ring_seconds) as ring_known,
        quantile_cont(ring_seconds, 0.50) as ring_p50,
        quantile_cont(ring_seconds, 0.95) as ring_p95,
        count(*) filter (where is_answered and talk_seconds < 10) as short_calls,
    from int_root_calls
    group by date, provider, direction
),

kpi_duration as (
    select
        *,
        short_calls / nullif(answered, 0) as short_call_rate,
    from counted
)

select * from kpi_duration
