with

counted as (
    select
        date,
        provider,
        direction,
        agent_id,
        count(*) as calls,
        count(*) filter (where is_answered) as answered,
        count(*) filter (where outcome = 'completed') as completed,
        count(*) filter (where is_answered and is_transferred) as transferred,
        count(talk_us) filter (where is_answered) as talk_known,
        sum(talk_us) filter (where is_answered) / 1000000 as talk_seconds_total,
    from int_root_calls
    where agent_id is not null
    group by date, provider, direction, agent_id
),

rates as (
    select
        *,
        completed / calls as completion_rate,
        -- The 97.5 % point of the normal distribution, squared, as in Wilson (1927).
        1.959963984540054 ** 2 as z2,
    from counted
),

intervals as (
    select
        *,
        (completion_rate + z2 / (2 * calls)) / (1 + z2 / calls) as centre,
        sqrt(z2 * (completion_rate * (1 - completion_rate) / calls + z2 / (4 * calls ** 2))) / (1 + z2 / calls)
            as margin,
    from rates
),

bounded as (
    select
        *,
        greatest(0, centre - margin) as completion_rate_low,
        least(1, centre + margin) as completion_rate_high,
    from intervals
),

kpi_agent as (
    select
        date,
        provider,
        direction,
        agent_id,
        calls,
        answered,
        answered / nullif(calls, 0) as answer_rate,
        completed,
        completion_rate,
        completion_rate_low,
        completion_rate_high,
        transferred,
        transferred / nullif(answered, 0) as transfer_rate,
        talk_seconds_total,
        talk_known,
        talk_seconds_total / nullif(talk_known, 0) as talk_seconds_avg,
        -- By the lower bound: one lucky call is no lead. Rounded, so that equal counts are equal places everywhere.
        rank() over (
            partition by date, provider, direction order by round(completion_rate_low, 9) desc
        ) as place,
    from bounded
)

select * from kpi_agent
